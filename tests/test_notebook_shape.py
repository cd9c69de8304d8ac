"""The cells that all notebooks have, and the packages that each of them lists."""

from __future__ import annotations

import json
import re
from typing import Any

import clean_notebooks
import notebook_needs
import notebook_shape
import pytest
from notebook_needs import ROOT

NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
INFERENCE = {"onnx", "onnxruntime", "openvino"}


def read(name: str) -> Any:
    return json.loads((ROOT / f"notebooks/{name}.ipynb").read_text(encoding="utf-8"))


def with_code(code: str) -> dict[str, Any]:
    title = notebook_shape.markdown("title", "# Title")
    return {"cells": [title, notebook_shape.code("code", code, {})], "metadata": {}}


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebooks_are_as_they_should_be_committed(path: Any) -> None:
    assert clean_notebooks.faults(path) == []


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_shaping_adds_what_it_would_take_away(path: Any) -> None:
    notebook = json.loads(path.read_text(encoding="utf-8"))
    own = [cell for cell in notebook["cells"] if cell["id"] not in notebook_shape.WRITTEN]
    assert notebook_shape.shaped({**notebook, "cells": own}) == notebook


def test_a_notebook_in_its_first_shape_becomes_whole() -> None:
    first = with_code("from hugeprobe import probe\n\nprobe.find_rule()")
    shaped = notebook_shape.shaped(first)
    assert [cell["id"] for cell in shaped["cells"]] == [
        "title",
        "contents",
        "installation",
        "install",
        "begin",
        "code",
        "clean-up",
        "clean-up-commands",
    ]
    assert len(first["cells"]) == 2, "the notebook that was given was changed"


def test_contents_name_headings_as_jupyterlab_does() -> None:
    """Spaces become hyphens, and nothing else changes; code loses its marks."""
    cells = [notebook_shape.markdown("a", "## Faults, by `size`\n\ntext\n\n## Why?\n### Not this")]
    contents = notebook_shape.contents(cells)
    assert notebook_shape.text_of(contents).splitlines()[2:] == [
        "- [Faults, by `size`](#Faults,-by-size)",
        "- [Why?](#Why?)",
    ]


def test_a_lost_range_is_found(tmp_path: Any) -> None:
    text = json.dumps(read("check-your-host"))
    path = tmp_path / "changed.ipynb"
    path.write_text(text.replace("numpy>=1.26,<3", "numpy"), encoding="utf-8")
    (fault,) = clean_notebooks.faults(path)
    assert "nox -s notebooks" in fault


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_ranges_are_those_of_the_project(path: Any) -> None:
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    (install,) = (cell for cell in cells if cell["id"] == notebook_shape.INSTALL)
    command = notebook_shape.text_of(install)
    assert install["metadata"]["tags"] == [notebook_shape.NOT_AT_THE_BUILD]
    assert command.startswith("%pip install -q")
    listed = re.findall(r'"(.*?)"', command)
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    assert listed
    assert [each for each in listed if f'    "{each}",\n' not in project] == []


def test_the_project_and_the_guide_ask_for_the_same() -> None:
    lines = (ROOT / "requirements.txt").read_text(encoding="utf-8").splitlines()
    guide = {line.split("#")[0].strip().replace('"', "'") for line in lines}
    assert set(notebook_needs.requirements().values()) - guide == set()


def test_only_what_can_be_reached_is_needed() -> None:
    """Modules that only read records of inference come without the runtimes."""
    needs = {path.stem: notebook_needs.needs_of(read(path.stem)).packages for path in NOTEBOOKS}
    assert not needs["start-here"] & INFERENCE
    assert not needs["real-kernels"] & INFERENCE
    assert needs["openvino-memory"] >= {*INFERENCE, "rapidocr_onnxruntime"}
    assert "distributed" in needs["fleets"]
    assert [name for name, packages in needs.items() if "distributed" in packages] == ["fleets"]


@pytest.mark.parametrize(
    ("code", "package"),
    [
        ("import matplotlib.pyplot as plt", "matplotlib"),
        ("from hugeprobe import tensors\n\ntensors.onnxruntime_value(0)", "onnxruntime"),
        ("from hugeprobe.survey import table as t\n\nt.write(0, 0)", "pyarrow"),
        ("from hugeprobe.sharing import pair\n\npair.share_all(())", "numpy"),
    ],
)
def test_code_is_followed(code: str, package: str) -> None:
    assert package in notebook_needs.needs_of(with_code(code)).packages


def test_code_that_is_not_reached_is_not_followed() -> None:
    code = "from hugeprobe.survey import table\n\nprint(table.__name__)"
    assert "pyarrow" not in notebook_needs.needs_of(with_code(code)).packages


def test_a_package_without_a_range_is_refused() -> None:
    with pytest.raises(SystemExit, match="imports pandas, which"):
        notebook_needs.needs_of(with_code("import pandas"))
