"""The recipes of the page on fleets, as a reader copies them."""

from __future__ import annotations

import importlib
import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from distributed.cli import dask_scheduler, dask_worker

from hugeprobe.survey import table
from hugeprobe.survey.outcome import NoAnswer, Node, Survey

if TYPE_CHECKING:
    import click

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs/fleets.md").read_text(encoding="utf-8")
NOTEBOOKS = ROOT / "notebooks"
BLOCKS = re.compile(r"^```.*\n(?::caption:.*\n\n)?((?:.*\n)*?)```", re.MULTILINE)
KUBERNETES: Any = importlib.import_module("kubernetes_validate")


def block(words: str) -> str:
    """Return the code of the block on the page that has ``words`` in it."""
    (found,) = (code for code in BLOCKS.findall(PAGE) if words in code)
    return str(found)


def program(folder: Path, name: str, script: str) -> None:
    path = folder / name
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)


def test_the_recipe_for_slurm(tmp_path: Path) -> None:
    """Slurm's commands are stand-ins: a job is a process here, and a cluster has one node."""
    programs = tmp_path / "bin"
    programs.mkdir()
    program(programs, "hugeprobe", f'exec "{sys.executable}" -m hugeprobe "$@"')
    program(
        programs,
        "sbatch",
        f'cp "$1" "{tmp_path}/job"; sh "{tmp_path}/job" >"{tmp_path}/log" 2>&1 &\n'
        'echo "Submitted batch job $!"',
    )
    program(programs, "scancel", 'kill "$1"')
    recipe = block("SLURMCluster")
    assert "NODES = 16\n" in recipe
    process = subprocess.Popen(
        [sys.executable, "-c", recipe.replace("NODES = 16\n", "NODES = 1\n")],
        cwd=tmp_path,
        env={
            **os.environ,
            "PATH": f"{programs}:{os.environ['PATH']}",
            "PYTHONPATH": str(NOTEBOOKS),
        },
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        printed, _ = process.communicate(timeout=300)
    finally:
        os.killpg(process.pid, signal.SIGKILL)
    assert "1 of 1 nodes answered." in printed
    assert "#SBATCH --exclusive" in (tmp_path / "job").read_text()


MANIFESTS: list[dict[str, Any]] = list(yaml.safe_load_all(block("kind: DaemonSet")))
NAMED = {each["kind"]: each for each in MANIFESTS}


@pytest.mark.parametrize("manifest", MANIFESTS, ids=list(NAMED))
def test_manifests_are_as_kubernetes_wants_them(manifest: dict[str, Any]) -> None:
    KUBERNETES.validate(manifest, KUBERNETES.latest_version(), strict=True)


def test_the_parts_of_the_manifest_find_each_other() -> None:
    service, pod, daemons = (NAMED[kind] for kind in ("Service", "Pod", "DaemonSet"))
    template = daemons["spec"]["template"]
    assert service["spec"]["selector"] == pod["metadata"]["labels"]
    assert daemons["spec"]["selector"]["matchLabels"] == template["metadata"]["labels"]
    (scheduler,) = pod["spec"]["containers"]
    (worker,) = template["spec"]["containers"]
    (port,) = (each["port"] for each in service["spec"]["ports"])
    assert scheduler["ports"] == [{"containerPort": port}]
    assert f"tcp://{service['metadata']['name']}:{port}" in worker["args"]
    assert {f"$({each['name']})" for each in worker["env"]} <= set(worker["args"])


@pytest.mark.parametrize(
    ("kind", "command"), [("Pod", dask_scheduler.main), ("DaemonSet", dask_worker.main)]
)
def test_dask_knows_the_options_of_the_manifest(kind: str, command: click.Command) -> None:
    spec = NAMED[kind]["spec"]
    (container,) = spec.get("template", {"spec": spec})["spec"]["containers"]
    dask, name, *arguments = container["args"]
    assert (dask, f"dask_{name}") == ("dask", command.callback.__module__.rpartition(".")[2])
    command.make_context(name, arguments)


def test_the_lines_for_reading_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    silent = Node(1, NoAnswer("It is gone."))
    table.write(Survey((silent,)), tmp_path / "survey.parquet")
    exec(block("read_table"), {})
    printed = capsys.readouterr().out
    assert printed == "{'rule': None, 'thp_mode': None, 'kernel': None, 'node_count': 1}\n"


@pytest.mark.parametrize("words", ["hugeprobe survey --scheduler tcp://10", "kubectl apply"])
def test_shell_commands_can_be_parsed(words: str) -> None:
    commands = "\n".join(line.removeprefix("$ ") for line in block(words).splitlines())
    done = subprocess.run(["sh", "-n"], input=commands, text=True, capture_output=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize(
    "words",
    ["The connection to it broke", "It gave no answer within", "Its kernel calls itself"],
)
def test_sentences_on_the_page_are_those_of_the_program(words: str) -> None:
    modules = (NOTEBOOKS / "hugeprobe/survey").glob("*.py")
    assert words in PAGE
    assert any(words in module.read_text(encoding="utf-8") for module in modules)
