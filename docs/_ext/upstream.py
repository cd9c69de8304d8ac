"""Write the contribution to OpenVINO's documentation, from its sources and the last build.

Usage: ``python docs/_ext/upstream.py [--evidence URL]``. The sources are in ``docs/_upstream``.
What ``{{notebook#label}}`` stands for is taken from the notebooks as the last build ran them, so
that every figure is one that was measured, with the host beside it.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
import textwrap
import xml.etree.ElementTree as ET
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import house_rules

SOURCES: Final = Path(__file__).parents[1] / "_upstream"
ARTICLES: Final = "docs/articles_en"
ARTICLE: Final = (
    f"{ARTICLES}/openvino-workflow/running-inference/inference-devices-and-modes/cpu-device/"
    "transparent-huge-pages-on-linux.rst"
)
NOTE: Final = "src/plugins/intel_cpu/docs/transparent_huge_pages.md"
REQUEST: Final = "pull-request.md"
PATCHES: Final = ("cpu-device.patch", "optimizing-memory-usage.patch")
FIGURES: Final = {
    "thp-order-of-first-write.svg": "alignment#coverage",
    "thp-first-inferences.svg": "dynamic-inference#growth",
}
"""Pictures of the article, and the cells that drew them."""
PUBLISHED: Final = "`Measurements and probes behind this article <{url}>`__"
ASKED: Final = (
    "`Issue that asks for this article "
    "<https://github.com/openvinotoolkit/openvino/issues/33136>`__"
)
TO_ADD: Final = "**to be added by the person who submits this: where they are published**"
"""What stands for the address of the guide in the article, and without one there and elsewhere."""

_INK: Final = "#1b1f23"
_PIXELS: Final = 600
"""Width of a picture: its type is then as large as the text around it."""
_COLUMNS: Final = 98
_MARK: Final = re.compile(r"\{\{([^{}|\s]+)(?:\|(\d+))?\}\}")
_SHARED: Final = re.compile(r"^ *\.\. (?:end of )?shared: .*\n\n?", re.MULTILINE)
_LITERAL: Final = re.compile(r"``[^`]+``|(?<!`)`[^`<]+`(?![`_])")
_SVG: Final = "http://www.w3.org/2000/svg"


class CannotExportError(Exception):
    """The contribution cannot be written; the message says why and what to do."""


@dataclass(frozen=True, slots=True)
class Build:
    """The notebooks as the last build ran them.

    Parameters
    ----------
    folder
        Where MyST-NB puts them.
    """

    folder: Path

    def output(self, cell: str, kind: str) -> str:
        """Return what the cell ``notebook#label`` put out.

        Parameters
        ----------
        cell
            Name of the notebook and label of the cell.
        kind
            MIME type.

        Raises
        ------
        CannotExportError
            If the notebook was not run, or the cell put out something else, such as the sentence
            that says why nothing could be measured.
        """
        name, _, label = cell.partition("#")
        path = self.folder / f"{name}.ipynb"
        if not path.is_file():
            raise CannotExportError(
                f"The output of {cell} was to be frozen, but the last build has no {path.name}. "
                "Build the guide first: nox -s docs."
            )
        for each in json.loads(path.read_text(encoding="utf-8"))["cells"]:
            if each["metadata"].get("label") == label:
                data: dict[str, Any] = each["outputs"][0]["data"]
                if kind not in data:
                    said = "".join(data.get("text/plain", ""))
                    raise CannotExportError(
                        f"The output of {cell} was to be frozen as {kind}, but on the host of the "
                        f"last build it says: {said}. Build the guide on a host that can show it."
                    )
                return "".join(data[kind])
        raise CannotExportError(
            f"The output of {cell} was to be frozen, but the last build has no such cell. "
            "Build the guide again: nox -s docs."
        )

    def measured_on(self) -> str:
        """Return when and on what this build measured, as a sentence."""
        rows = self.output("measured-on#box", "text/markdown").splitlines()
        cells = [[cell.strip() for cell in row.strip("|").split("|")] for row in rows]
        date, known = cells[0][1], dict(cells[2:])
        kernel = known["Kernel"].partition("-")[0]  # what follows names a build, not a version
        where = [f"Linux {kernel}", known["Processor"], f"THP mode `{known['THP mode']}`"]
        if "Virtualisation" in known:
            where.append(f"virtualisation: {known['Virtualisation']}")
        where += [f"{name} {known[name]}" for name in ("glibc", "OpenVINO") if name in known]
        return f"Measured on {date}: {', '.join(where)}."

    def told(self, cell: str) -> str:
        """Return a sentence or a table, in OpenVINO's American English."""
        text = self.measured_on() if cell == "measured-on" else self.output(cell, "text/markdown")
        return text.replace("irtualisation", "irtualization")


def first_columns(table: str, count: int) -> str:
    """Return the first columns of a table in Markdown."""
    return "\n".join("|".join(row.split("|")[: count + 1]) + "|" for row in table.splitlines())


def filled(source: str, build: Build, evidence: str | None, *, rst: bool) -> str:
    """Put in what marks stand for, and break the lines of the paragraphs that have one.

    A mark is ``{{notebook#label}}``, with ``|2`` behind the label for two columns of a table;
    ``{{measured-on}}``; or ``{{evidence}}``.
    """

    def replaced(mark: re.Match[str]) -> str:
        if mark[1] == "evidence":
            if rst:
                return PUBLISHED.format(url=evidence) if evidence else ASKED
            return f"<{evidence}>" if evidence else TO_ADD
        text = build.told(mark[1])
        if mark[2]:
            text = first_columns(text, int(mark[2]))
        return re.sub(r"`([^`]+)`", r"``\1``", text) if rst else text

    blocks = []
    for block in _SHARED.sub("", source).split("\n\n"):
        if not _MARK.search(block):
            blocks.append(block)
        elif "\n" in (text := _MARK.sub(replaced, block)) and _MARK.fullmatch(block.strip()):
            blocks.append(text)  # a table
        else:
            blocks.append("\n".join(map(wrapped, re.split(r"\n(?=\s*[*-] )", text))))
    return "\n\n".join(blocks).rstrip("\n") + "\n"


def wrapped(item: str) -> str:
    """Break the lines of a paragraph, or of one item of a list, anew."""
    start = re.match(r"\s*(?:[*-] )?", item)
    first = start[0] if start else ""
    words = " ".join(item.split()).removeprefix(first.strip()).strip()
    lines = textwrap.fill(
        _LITERAL.sub(lambda code: code[0].replace(" ", "\0"), words),
        _COLUMNS,
        initial_indent=first,
        subsequent_indent=" " * len(first),
        break_long_words=False,
        break_on_hyphens=False,
    )
    return lines.replace("\0", " ")


def standalone(svg: str) -> str:
    """Turn a picture that takes colours from its page into a file with its own, on white."""
    ET.register_namespace("", _SVG)
    ET.register_namespace("xlink", "http://www.w3.org/1999/xlink")
    text = re.sub(r"var\(--[\w-]+, (#\w+)\)", r"\1", svg).replace("currentColor", _INK)
    root = ET.fromstring(text)
    *_, width, height = map(float, root.attrib["viewBox"].split())
    root.attrib.pop("class", None)
    root.attrib |= {"width": str(_PIXELS), "height": f"{_PIXELS * height / width:.0f}"}
    title = ET.Element(f"{{{_SVG}}}title")
    title.text = root.attrib.pop("aria-label")
    paper = ET.Element(f"{{{_SVG}}}rect", {"width": "100%", "height": "100%", "fill": "#fff"})
    root[:0] = [title, paper]
    return ET.tostring(root, encoding="unicode") + "\n"


def contribution(build: Build, evidence: str | None = None) -> dict[str, str]:
    """Return every file of the contribution, by its path below the folder of the contribution.

    Parameters
    ----------
    build
        Where the figures are from.
    evidence
        Address of the published guide.

    Raises
    ------
    CannotExportError
        If something was not measured, or the article breaks a rule of its house.
    """

    def text(path: str) -> str:
        return (SOURCES / Path(path).name).read_text(encoding="utf-8")

    article = filled(text(ARTICLE), build, evidence, rst=True)
    if faults := house_rules.breaches(article):
        raise CannotExportError("\n".join(["The article breaks rules of OpenVINO:", *faults]))
    pictures = {
        f"{ARTICLES}/assets/images/{name}": standalone(build.output(cell, "text/html"))
        for name, cell in FIGURES.items()
    }
    papers = {path: filled(text(path), build, evidence, rst=False) for path in (NOTE, REQUEST)}
    return {ARTICLE: article, **pictures, **papers, **{path: text(path) for path in PATCHES}}


def main() -> int:
    """Write the contribution, say where, and return the exit status."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--build", type=Path, default=Path("_build/jupyter_execute/notebooks"))
    parser.add_argument("--output", type=Path, default=Path("_build/upstream"))
    parser.add_argument("--evidence", help="address of the published guide")
    given = parser.parse_args()
    try:
        files = contribution(Build(given.build), given.evidence)
    except CannotExportError as error:
        print(error, file=sys.stderr)
        return 1
    for name, content in files.items():
        path = given.output / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content, encoding="utf-8")
        print(path)
    return 0


if __name__ == "__main__":
    sys.exit(main())
