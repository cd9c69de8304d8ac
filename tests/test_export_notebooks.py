"""The exported notebooks keep the rules of openvino_notebooks that its checks hold."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import export_notebooks
import nbformat
import pytest
from nbclient import NotebookClient
from notebook_needs import ROOT

if TYPE_CHECKING:
    from pathlib import Path

NAMES = sorted(path.stem for path in (ROOT / "notebooks").glob("*.ipynb"))
CATEGORIES = {
    "AI Trends",
    "API Overview",
    "Convert",
    "Explainable AI",
    "First Steps",
    "Live Demos",
    "Model Demos",
    "Model Training",
    "Optimize",
}


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of an export."""
    target = tmp_path_factory.mktemp("export") / "openvino_notebooks"
    export_notebooks.export(target)
    return target


def read(exported: Path, name: str) -> Any:
    return nbformat.read(exported / f"notebooks/{name}/{name}.ipynb", as_version=4)  # type: ignore[no-untyped-call]


def texts(notebook: Any) -> list[str]:
    return [cell.source for cell in notebook.cells if cell.cell_type == "markdown"]


@pytest.mark.parametrize("name", NAMES)
def test_layout(exported: Path, name: str) -> None:
    assert re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", name)
    readme = (exported / f"notebooks/{name}/README.md").read_text(encoding="utf-8")
    headings = re.findall(r"(?m)^#+ .*$", readme)
    assert headings[0].startswith("# ")
    assert headings[1:] == ["## Notebook Contents", "## Installation Instructions"]
    assert set(re.findall(r"\]\((.*?)\)", readme)) == {"../../README.md"}


@pytest.mark.parametrize("name", NAMES)
def test_contents_and_installation(exported: Path, name: str) -> None:
    notebook = read(exported, name)
    nbformat.validate(notebook)
    title, contents, *others = texts(notebook)
    assert title.startswith("# ")
    assert re.match(r"#+\s+Table of content:?", contents)
    assert export_notebooks.CONTENTS in contents
    assert export_notebooks.INSTALLATION in contents
    headings = re.findall(r"(?m)^##+ (.*)\n(.*)$", "\n".join([*others, ""]))
    links = re.findall(r"(?m)^- \[(.*)\]\(#(.*)\)$", contents)
    assert links == [(each, re.sub(r"[`$^]", "", each).replace(" ", "-")) for each, _ in headings]
    assert {after for _, after in headings} == {export_notebooks.TOP}


@pytest.mark.parametrize("name", NAMES)
def test_first_and_last_cell_of_code(exported: Path, name: str) -> None:
    codes = [cell for cell in read(exported, name).cells if cell.cell_type == "code"]
    assert re.fullmatch(r'%pip install -q( "[^ "]+(; [^"]+)?")+', codes[0].source)
    assert all(re.search(r"[<>=]=?\d", word) for word in re.findall(r'"(.*?)"', codes[0].source))
    assert "tags" not in codes[0].metadata, "their checks must run it"
    assert all(line.startswith("#") for line in codes[-1].source.splitlines())


@pytest.mark.parametrize("name", NAMES)
def test_text_and_tags(exported: Path, name: str) -> None:
    """Markdown without HTML but the note that their guide prescribes; tags of their list."""
    notebook = read(exported, name)
    html = re.findall(r"<\w.*?>", "\n".join(texts(notebook)))
    assert html == re.findall(r"<\w.*?>", export_notebooks.LINUX)
    tags = notebook.metadata["openvino_notebooks"]["tags"]
    assert tags.keys() == {"categories", "tasks", "libraries", "other"}
    assert tags["categories"]
    assert set(tags["categories"]) <= CATEGORIES


def test_what_is_left_names_every_notebook(exported: Path) -> None:
    left = (exported / "PULL-REQUEST.md").read_text(encoding="utf-8")
    assert re.findall(r'Path\("notebooks/(.*)/.*"\)', left) == NAMES


@pytest.mark.parametrize("name", ["fleets", "openvino-memory", "recorded-hosts"])
def test_the_package_beside_it_is_whole(exported: Path, name: str) -> None:
    """Everything that the modules beside a notebook import when they are imported is there."""
    folder = exported / "notebooks" / name
    files = (path.relative_to(folder) for path in folder.rglob("*.py"))
    modules = [".".join(path.with_suffix("").parts) for path in files if path.stem != "__main__"]
    assert modules
    code = f"import importlib\nfor name in {modules}: importlib.import_module(name)"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_a_notebook_runs_where_it_was_exported(exported: Path) -> None:
    notebook = read(exported, "start-here")
    notebook.cells = [cell for cell in notebook.cells if not cell.source.startswith("%pip")]
    folder = exported / "notebooks/start-here"
    ran: Any = NotebookClient(notebook, resources={"metadata": {"path": str(folder)}}).execute()
    figures = [o for cell in ran.cells for o in cell.get("outputs", ()) if "data" in o]
    assert any("image/png" in output.data for output in figures)
    assert json.dumps(figures)
