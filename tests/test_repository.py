"""The files beside the guide agree with it: workflows, forms, versions, what contributors are told.

That they have the form that GitHub reads is for ``nox -s lint``, which has the schemas.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import tomllib
import yaml
from typer.main import get_command

from hugeprobe.cli import app

ROOT = Path(__file__).parents[1]
GITHUB = ROOT / ".github"
WORKFLOWS = sorted((GITHUB / "workflows").glob("*.yml"))
FORMS = sorted((GITHUB / "ISSUE_TEMPLATE").glob("*-*.yml"))
TOLD = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    ROOT / "CHANGELOG.md",
    GITHUB / "PULL_REQUEST_TEMPLATE.md",
    *WORKFLOWS,
]
CONTRIBUTING = (ROOT / "CONTRIBUTING.md").read_text()


def loaded(path: Path) -> dict[str, Any]:
    content: dict[str, Any] = yaml.safe_load(path.read_text())
    return content


def steps(path: Path) -> list[dict[str, Any]]:
    return [step for job in loaded(path)["jobs"].values() for step in job["steps"]]


def name_of(path: Path) -> str:
    return path.name


# Workflows ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", WORKFLOWS, ids=name_of)
def test_a_workflow_may_only_read_unless_a_job_says_more(path: Path) -> None:
    workflow = loaded(path)
    assert workflow["permissions"] == {"contents": "read"}
    assert workflow["concurrency"]["group"]
    for job in workflow["jobs"].values():
        assert job["timeout-minutes"] <= 120
        # What runs the project's code, or that of its packages, writes no more than issues.
        runs_code = any("nox" in step.get("run", "") for step in job["steps"])
        writes = {name for name, kind in job.get("permissions", {}).items() if kind == "write"}
        assert not (runs_code and writes - {"issues"})


@pytest.mark.parametrize("path", WORKFLOWS, ids=name_of)
def test_workflows_use_githubs_own_actions_or_a_commit(path: Path) -> None:
    for step in steps(path):
        if "uses" in step:
            assert re.fullmatch(r"actions/[\w-]+@v\d+|[\w.-]+/[\w./-]+@[0-9a-f]{40}", step["uses"])
        if step.get("uses", "").startswith("actions/checkout@"):
            assert step["with"]["persist-credentials"] is False


@pytest.mark.parametrize("path", WORKFLOWS, ids=name_of)
def test_the_token_is_for_github_alone(path: Path) -> None:
    assert "env" not in loaded(path)
    for job in loaded(path)["jobs"].values():
        assert "token" not in str(job.get("env", ""))
        for step in job["steps"]:
            assert "token" not in str(step.get("env", "")) or "gh " in step["run"]


def test_the_gate_is_the_one_of_the_repository() -> None:
    assert any(step.get("run") == ".ci/run" for step in steps(GITHUB / "workflows/gate.yml"))


def test_only_main_is_published() -> None:
    workflow = loaded(GITHUB / "workflows/publish.yml")
    assert "github.ref == 'refs/heads/main'" in workflow["jobs"]["build"]["if"]
    assert workflow["jobs"]["deploy"]["needs"] == "build"
    (uploaded,) = (
        step["with"]["path"]
        for step in workflow["jobs"]["build"]["steps"]
        if "upload-pages-artifact" in step.get("uses", "")
    )
    assert uploaded == "_build/html"


def test_sessions_that_are_named_exist() -> None:
    known = set(
        re.findall(r"@nox\.session(?:\(.*\))?\ndef (\w+)", (ROOT / "noxfile.py").read_text())
    )
    assert len(known) > 5
    for path in TOLD:
        for names in re.findall(r"nox -s ([a-z-]+(?: [a-z]+)*)", path.read_text()):
            assert set(names.replace("-", "_").split()) <= known, f"{path.name}: nox -s {names}"


@pytest.mark.parametrize("path", [path for path in TOLD if path.suffix == ".md"], ids=name_of)
def test_files_that_are_named_exist(path: Path) -> None:
    names = re.findall(r"`((?:notebooks|docs|tests|\.github|\.ci)/[\w./-]+)`", path.read_text())
    assert not [name for name in names if "NAME" not in name and not (ROOT / name).exists()]


# Forms --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", FORMS, ids=name_of)
def test_forms_ask_for_what_exists(path: Path) -> None:
    commands = get_command(app).commands  # type: ignore[attr-defined]
    calls = re.findall(r"hugeprobe ([a-z]+)((?: --[\w-]+)*)", path.read_text())
    assert ("host", " --json") in calls
    for name, options in calls:
        known = {option for each in commands[name].params for option in each.opts}
        assert set(options.split()) <= known


@pytest.mark.parametrize("path", FORMS, ids=name_of)
def test_forms_have_fields_of_their_own(path: Path) -> None:
    fields = [field for field in loaded(path)["body"] if field["type"] != "markdown"]
    names = [field["id"] for field in fields]
    assert len(names) == len(set(names))
    assert any(field.get("validations", {}).get("required") for field in fields)


def test_a_figure_that_differs_comes_with_host_and_rule() -> None:
    body = loaded(GITHUB / "ISSUE_TEMPLATE/figure-differs.yml")["body"]
    required = {
        field["attributes"]["label"]
        for field in body
        if field.get("validations", {}).get("required")
    }
    assert {"Output of: hugeprobe host --json", "Output of: hugeprobe rule"} <= required


# Versions and citation ----------------------------------------------------------------------------


def test_versions_agree() -> None:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    cited = loaded(ROOT / "CITATION.cff")
    assert cited["version"] == version
    newest = re.search(r"^## \[(\S+)\]", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert newest
    assert newest[1] == version


def test_the_citation_names_no_person() -> None:
    cited = loaded(ROOT / "CITATION.cff")
    assert cited["license"] == "Apache-2.0"
    assert [set(author) for author in cited["authors"]] == [{"name"}]


# What contributors are told -----------------------------------------------------------------------


def test_each_way_to_add_something_takes_few_lines() -> None:
    sections = re.findall(r"^## (Add .*)\n\n((?:.+\n|\n(?!## ))*)", CONTRIBUTING, re.MULTILINE)
    assert {"Add a probe", "Add a page", "Add a workload", "Add a kernel"} <= dict(sections).keys()
    for title, text in sections:
        prose = text.split("\nThe picture in the README")[0]
        assert len(prose.strip().splitlines()) < 10, title
