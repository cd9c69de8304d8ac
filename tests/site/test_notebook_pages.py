"""What the pages of notebooks have beyond MyST-NB, on a tiny site and on the built one."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import nbformat
import notebook_pages
import pytest
from bs4 import BeautifulSoup

REPOSITORY = Path(__file__).parents[2]
NOTEBOOKS = sorted((REPOSITORY / "notebooks").glob("*.ipynb"))

CONF = f"""
project = "project"
import sys
sys.path.insert(0, {str(REPOSITORY / "docs/_ext")!r})
extensions = ["myst_nb", "notebook_pages"]
exclude_patterns = ["_build"]
myst_heading_anchors = 3
nb_execution_mode = "force"
nb_execution_raise_on_error = True
nb_output_stderr = "warn"
"""
INSTALL = '%pip install -q "nosuch>=1,<2" \\\n    "other"'
PICTURE = """
class Picture:
    def _repr_mimebundle_(self, **_):
        return {"text/html": "<svg></svg>", "image/png": "iVBORw0KGgo=", "text/plain": "picture"}
Picture()
"""


def code(name: str, source: str, *tags: str) -> dict[str, Any]:
    metadata = {"tags": list(tags)} if tags else {}
    cell = {"cell_type": "code", "id": name, "metadata": metadata, "source": source}
    return {**cell, "outputs": [], "execution_count": None}


def text(name: str, source: str) -> dict[str, Any]:
    return {"cell_type": "markdown", "id": name, "metadata": {}, "source": source}


def sphinx(folder: Path, builder: str) -> None:
    options = ["-W", "-n", "-T", "-b", builder, "-d", "_build/doctrees", ".", f"_build/{builder}"]
    done = subprocess.run(
        [sys.executable, "-m", "sphinx", *options],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of a site with one notebook, built as HTML."""
    folder = tmp_path_factory.mktemp("tiny")
    cells = [
        text("title", "# Notebook"),
        text("contents", "- [Why, and `what`?](#Why,-and-what?)\n- [Plain](#Plain)"),
        code("install", '%pip install -q "nosuch>=1,<2" \\\n    "other"', "skip-execution"),
        text("why", "## Why, and `what`?"),
        code("picture", PICTURE),
        text("plain", "## Plain"),
        code("one", "1"),
    ]
    metadata = {"kernelspec": {"name": "python3", "display_name": "Python 3"}}
    notebook = {"cells": cells, "metadata": metadata, "nbformat": 4, "nbformat_minor": 5}
    (folder / "notebooks").mkdir()
    (folder / "notebooks/one.ipynb").write_text(json.dumps(notebook), encoding="utf-8")
    page = "# Page\n\n```{notebook-needs}\n```\n\n```{toctree}\nnotebooks/one\n```\n"
    (folder / "index.md").write_text(page, encoding="utf-8")
    (folder / "conf.py").write_text(CONF, encoding="utf-8")
    sphinx(folder, "html")
    return folder


def parse(path: Path) -> BeautifulSoup:
    return BeautifulSoup(path.read_text(encoding="utf-8"), "html.parser")


def test_contents_lead_to_headings(tiny: Path) -> None:
    page = parse(tiny / "_build/html/notebooks/one.html")
    links = {str(a["href"]): a.get_text() for a in page.select("ul.simple a.reference.internal")}
    assert links == {"#why-and-what": "Why, and what?", "#plain": "Plain"}
    assert all(page.select(f"section{anchor}") for anchor in links)


def test_the_copy_was_run_except_for_the_installation(tiny: Path) -> None:
    copy = json.loads((tiny / "_build/html/executed/notebooks/one.ipynb").read_text())
    cells = {cell["id"]: cell for cell in copy["cells"]}
    assert cells["one"]["outputs"][0]["data"]["text/plain"] == ["1"]
    assert cells["install"]["outputs"] == []
    assert cells["picture"]["outputs"][0]["data"].keys() == {"image/png", "text/plain"}


def test_another_builder_has_the_copy_though_it_runs_nothing(tiny: Path) -> None:
    sphinx(tiny, "dirhtml")
    html, dirhtml = (tiny / f"_build/{b}/executed/notebooks/one.ipynb" for b in ("html", "dirhtml"))
    assert dirhtml.read_bytes() == html.read_bytes()


def test_the_list_says_what_is_installed(tiny: Path) -> None:
    (row,) = parse(tiny / "_build/html/index.html").select("tbody tr")
    link, seconds, packages = row.select("td")
    assert link.select("a")[0]["href"] == "notebooks/one.html"
    assert seconds.get_text(strip=True).endswith(" s")
    assert packages.get_text(strip=True) == "nosuch, other"


@pytest.mark.parametrize(("builder", "file"), [("text", "index.txt"), ("latex", "project.tex")])
def test_other_builders_have_the_list(tiny: Path, builder: str, file: str) -> None:
    sphinx(tiny, builder)
    assert "nosuch, other" in (tiny / f"_build/{builder}/{file}").read_text()


def test_the_list_names_every_notebook_of_the_guide(site: Path) -> None:
    page = parse(site / "docs/run-it-yourself.html")
    listed = {str(link["href"]) for link in page.select("table td a")}
    assert listed >= {f"../notebooks/{path.stem}.html" for path in NOTEBOOKS}


@pytest.mark.parametrize("source", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook_is_offered_with_outputs(site: Path, source: Path) -> None:
    path = site / notebook_pages.EXECUTED / "notebooks" / source.name
    notebook: Any = nbformat.read(path, as_version=4)  # type: ignore[no-untyped-call]
    nbformat.validate(notebook)
    assert "widgets" not in notebook.metadata
    labelled = [cell for cell in notebook.cells if "label" in cell.metadata]
    assert labelled
    assert [cell.id for cell in labelled if not cell.outputs] == []
    for cell in notebook.cells:
        kinds = [output.get("data", {}).keys() for output in cell.get("outputs", ())]
        assert not any({"image/png", "text/html"} <= set(kind) for kind in kinds)
    same = json.loads(source.read_text(encoding="utf-8"))["cells"]
    assert [cell.source for cell in notebook.cells] == ["".join(cell["source"]) for cell in same]
