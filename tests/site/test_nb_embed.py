"""The directive and the role, on tiny sites built by Sphinx itself."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import pytest

EXTENSIONS = Path(__file__).parents[2] / "docs/_ext"

CONF = f"""
import sys
sys.path.insert(0, {str(EXTENSIONS)!r})
extensions = ["myst_nb", "nb_embed"]
root_doc = "docs/index"
exclude_patterns = ["_build"]
numfig = True
nb_execution_mode = "force"
nb_execution_raise_on_error = True
nb_output_stderr = "warn"
nb_render_markdown_format = "myst"
nb_embed_helpers = ["notebooks/*.py"]
"""

PNG = (
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9"
    "awAAAABJRU5ErkJggg=="
)
PICTURE = '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 2 1"><path d="M0 0h2v1H0z"/></svg>'
CELLS = (
    (
        "",
        "import base64\nfrom IPython.display import HTML, SVG, Image, Markdown\n"
        f"PICTURE = {PICTURE!r}",
    ),
    ("png", f"Image(base64.b64decode({PNG!r}))"),
    ("svg", "SVG(PICTURE)"),
    ("inline", "HTML(PICTURE)"),
    ("table", "HTML('<table><tr><td>from html</td></tr></table>')"),
    ("markdown", "Markdown('| from | markdown |\\n|---|---|\\n| left | right |')"),
    ("stream", "print('from stream ' * 9)"),
    ("plain", "print('narrow')"),
    ("two", "display(HTML('<b>first half</b>'))\ndisplay(HTML('<b>second half</b>'))"),
    ("quoted", "'3.2 MiB'"),
    ("number", "16"),
    ("printed", "print('7697 faults')"),
    ("emphasis", "Markdown('*Not observable here, because there is no such thing.*')"),
)


@dataclass(frozen=True)
class TinySite:
    """A site below `root`: one page, ``docs/index.md``, and notebooks."""

    root: Path

    def __post_init__(self) -> None:
        self.write("conf.py", CONF)

    def write(self, name: str, text: str) -> None:
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")

    def page(self, *blocks: str) -> None:
        tree = "```{toctree}\n:glob:\n../notebooks/*\n```"
        self.write("docs/index.md", "\n\n".join(["# Page", tree, *blocks]) + "\n")

    def notebook(self, name: str, *cells: tuple[str, str]) -> None:
        """Write a notebook of (label, source) pairs; an empty label is none."""
        title = {"id": "title", "cell_type": "markdown", "metadata": {}, "source": "# Notebook"}
        code: list[dict[str, object]] = [
            {
                "id": f"cell-{number}",
                "cell_type": "code",
                "metadata": {"label": label} if label else {},
                "source": source,
                "outputs": [],
                "execution_count": None,
            }
            for number, (label, source) in enumerate(cells)
        ]
        kernel = {"name": "python3", "display_name": "Python 3"}
        notebook = {
            "cells": [title, *code],
            "metadata": {"kernelspec": kernel},
            "nbformat": 4,
            "nbformat_minor": 5,
        }
        self.write(f"notebooks/{name}.ipynb", json.dumps(notebook))

    def build(self, builder: str = "html") -> str:
        """Build, and return the warnings."""
        options = ["-n", "-T", "-b", builder, "-d", "_build/doctrees", ".", f"_build/{builder}"]
        done = subprocess.run(
            [sys.executable, "-m", "sphinx", *options],
            cwd=self.root,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return "\n".join(line for line in done.stderr.splitlines() if "WARNING: " in line)

    def read(self, path: str) -> str:
        return (self.root / "_build" / path).read_text(encoding="utf-8")

    def words(self, path: str) -> str:
        """Return the text of a built page's body, without tags and with single spaces."""
        body = self.read(path).partition("<h1>")[2]
        return " ".join(re.sub(r"<[^>]+>", " ", body).split())


def embed(label: str, *options: str, caption: str = "", book: str = "probe") -> str:
    lines = [f"```{{nb-embed}} ../notebooks/{book}.ipynb#{label}", *options, caption, "```"]
    return "\n".join(line for line in lines if line)


def value(label: str, book: str = "probe") -> str:
    return f"{{nb-value}}`../notebooks/{book}.ipynb#{label}`"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> TinySite:
    """Every kind of output, built by every builder from one execution."""
    site = TinySite(tmp_path_factory.mktemp("site"))
    site.notebook("probe", *CELLS)
    site.page(
        "See {numref}`fig-png`, {numref}`fig-inline` and {numref}`tab-html`.",
        embed("png", ":name: fig-png", ":alt: A dot & a dash", caption="One pixel.\n\nA legend."),
        embed("svg", ":alt: A wide shape", ":class: extra"),
        embed("inline", ":name: fig-inline", ":alt: A wide shape", caption="A shape."),
        embed("table", ":name: tab-html", ":kind: table", caption="A *small* table."),
        embed("markdown"),
        embed("stream"),
        embed("plain"),
        embed("two"),
        f"Values: {value('quoted')}, {value('number')}, {value('printed')}. {value('emphasis')}",
    )
    for builder in ("html", "dirhtml", "latex", "text"):
        assert site.build(builder) == ""
    return site


@pytest.mark.parametrize("page", ["html/docs/index.html", "dirhtml/docs/index.html"])
def test_every_output_is_on_the_html_page(site: TinySite, page: str) -> None:
    html = site.read(page)
    assert 'alt="A dot &amp; a dash"' in html
    assert 'role="img" aria-label="A wide shape"' in html
    assert '<path d="M0 0h2v1H0z"/>' in html
    words = site.words(page)
    for text in ("from html", "from markdown", "left right", "from stream", "narrow"):
        assert text in words
    assert words.index("first half") < words.index("second half")
    assert "Figure size" not in words
    assert "IPython.core" not in words


@pytest.mark.parametrize("page", ["html/docs/index.html", "dirhtml/docs/index.html"])
def test_images_of_the_html_page_exist(site: TinySite, page: str) -> None:
    folder = (site.root / "_build" / page).parent
    sources = [part.split('"')[0] for part in site.read(page).split('src="')[1:]]
    images = [source for source in sources if "_images" in source]
    assert len(images) == 2
    for image in images:
        assert (folder / image).is_file()


def test_captions_are_numbered_and_referred_to(site: TinySite) -> None:
    words = site.words("html/docs/index.html")
    assert "See Fig. 1 , Fig. 2 and Table 1 ." in words
    assert "Fig. 1 One pixel." in words
    assert "Table 1 A small table." in words
    assert "A legend." in words


def test_only_what_is_wide_gets_a_scroll_box(site: TinySite) -> None:
    html = site.read("html/docs/index.html")
    boxes = [part.split(">")[0] for part in html.split('<div class="nb-scroll"')[1:]]
    assert len(boxes) == 2, "the HTML table and the long line, but not 'narrow'"
    assert 'aria-label="A small table."' in boxes[0]
    assert 'aria-label="stream"' in boxes[1]
    assert all('tabindex="0"' in box for box in boxes)


def test_values_are_part_of_the_sentence_everywhere(site: TinySite) -> None:
    sentence = "Values: 3.2 MiB, 16, 7697 faults."
    assert sentence in site.words("html/docs/index.html")
    assert sentence in site.words("dirhtml/docs/index.html")
    assert sentence in site.read("text/docs/index.txt")
    (tex,) = (site.root / "_build/latex").glob("*.tex")
    assert sentence in tex.read_text(encoding="utf-8")
    assert "<em>Not observable here" in site.read("html/docs/index.html")


def test_outputs_are_in_the_search_index(site: TinySite) -> None:
    index = json.loads(site.read("html/searchindex.js").removeprefix("Search.setIndex(")[:-1])
    page = index["docnames"].index("docs/index")
    for term in ("fault", "markdown", "narrow"):  # Sphinx leaves numbers out
        found = index["terms"][term]
        assert page in (found if isinstance(found, list) else [found])


def test_other_builders_get_what_they_can_show(site: TinySite) -> None:
    text = site.read("text/docs/index.txt")
    assert "from stream" in text
    assert text.count("A wide shape") == 2, "in place of Python's default text for the pictures"
    (path,) = (site.root / "_build/latex").glob("*.tex")
    tex = path.read_text(encoding="utf-8")
    assert r"\sphinxincludegraphics" in tex
    assert r"\begin{table}" in tex
    assert r"\caption{A \sphinxstyleemphasis{small} table.}" in tex


def test_notebook_page_takes_the_alternative_text_from_the_page(site: TinySite) -> None:
    html = site.read("html/notebooks/probe.html")
    assert 'alt="A dot &amp; a dash"' in html
    assert 'aria-label="A wide shape"' in html


def test_mistakes_are_warnings(tmp_path: Path) -> None:
    site = TinySite(tmp_path)
    site.notebook(
        "probe",
        ("twice", "1"),
        ("twice", "2"),
        ("silent", "x = 1"),
        ("tall", "print('one\\ntwo')"),
    )
    site.page(
        embed("nowhere", ":name: fig-nowhere", caption="Caption."),
        embed("silent"),
        embed("any", book="absent"),
        value("tall"),
        value("lost"),
        "{nb-value}`../notebooks/probe.ipynb`",
    )
    warnings = site.build()
    for subtype, part in [
        ("missing", "no cell of notebooks/probe has the label 'nowhere'; it has: twice"),
        ("empty", "the cell 'silent' of notebooks/probe has no output"),
        ("missing", "'../notebooks/absent.ipynb#any' names no notebook"),
        ("value", "the output of cell 'tall' is not one line"),
        ("missing", "no cell of notebooks/probe has the label 'lost'"),
        ("missing", "'../notebooks/probe.ipynb' names no notebook of this site and label"),
        ("duplicate", "2 cells of notebooks/probe have the label 'twice'"),
    ]:
        matching = [line for line in warnings.splitlines() if part in line]
        assert len(matching) == 1, f"{part!r} not once in:\n{warnings}"
        assert f"[nb_embed.{subtype}]" in matching[0]
    assert len(warnings.splitlines()) == 7
    assert all(
        "docs/index.md:" in line for line in warnings.splitlines() if "duplicate" not in line
    )


def test_pages_follow_notebooks_and_helpers(tmp_path: Path) -> None:
    site = TinySite(tmp_path)
    site.write("notebooks/helper.py", "ANSWER = 'first'\n")
    site.notebook("probe", ("answer", "import helper\nhelper.ANSWER"))
    site.page(f"It is {value('answer')}.", embed("answer"))
    page, book = "html/docs/index.html", "html/notebooks/probe.html"
    assert site.build() == ""
    assert "It is first." in site.words(page)

    stamp = (site.root / "_build" / page).stat().st_mtime_ns
    assert site.build() == ""
    assert (site.root / "_build" / page).stat().st_mtime_ns == stamp, "nothing changed"

    site.write("notebooks/helper.py", "ANSWER = 'second'\n")
    touch_later(site.root / "notebooks/helper.py")
    assert site.build() == ""
    assert "It is second." in site.words(page)
    assert "second" in site.words(book)

    site.notebook("probe", ("answer", "'third'"))
    touch_later(site.root / "notebooks/probe.ipynb")
    assert site.build() == ""
    assert "It is third." in site.words(page)
    assert "third" in site.words(book)


def touch_later(path: Path) -> None:
    """Move the time stamp on, for file systems with coarse ones."""
    later = time.time() + 2
    os.utime(path, (later, later))
