"""Give notebooks the cells that all have: contents, installation and clean-up.

``python tests/notebook_shape.py notebooks/*.ipynb`` writes them anew from the headings and imports
of each notebook, and nothing else: a second run changes nothing. The cells are known by their ids.
"""

from __future__ import annotations

import copy
import json
import sys
import textwrap
from pathlib import Path
from typing import Any, Final

import notebook_needs

INSTALL: Final = "install"
"""Id of the cell that installs packages."""

WRITTEN: Final = frozenset(
    {"contents", "installation", INSTALL, "begin", "clean-up", "clean-up-commands"}
)
"""Ids of the cells that are written here."""

NOT_AT_THE_BUILD: Final = "skip-execution"
"""Tag of a cell that JupyterLab runs and a build, whose packages are there, does not."""

INSTALLATION: Final = """\
## Installation

The next cell installs what this notebook imports, for the kernel that runs it. The package
`hugeprobe` is not among it: it lies beside the notebook in a clone of the repository, so open the
notebook there."""

BEGIN: Final = "## Run"
"""Stands before code that would else be a part of the installation."""

CLEAN_UP: Final = """\
## Clean up

The notebook changed no setting and left no file of its own. What stays are packages, and the cache
of pip. The commands remove them; leave out the packages that were there before."""


def text_of(cell: dict[str, Any]) -> str:
    """Return the source of a cell."""
    return "".join(cell["source"])


def source(text: str) -> list[str]:
    """Return a text as notebooks store it."""
    return text.splitlines(keepends=True)


def markdown(name: str, text: str) -> dict[str, Any]:
    """Return a cell of text."""
    return {"cell_type": "markdown", "id": name, "metadata": {}, "source": source(text)}


def code(name: str, text: str, metadata: dict[str, Any]) -> dict[str, Any]:
    """Return a cell of code without outputs."""
    return {
        "cell_type": "code",
        "execution_count": None,
        "id": name,
        "metadata": metadata,
        "outputs": [],
        "source": source(text),
    }


def anchor(heading: str) -> str:
    """Return the anchor that JupyterLab gives to a heading."""
    return heading.replace("`", "").replace(" ", "-")


def headings(cells: list[dict[str, Any]]) -> list[str]:
    """Return the headings of the second level."""
    texts = [text_of(cell) for cell in cells if cell["cell_type"] == "markdown"]
    lines = "\n".join(texts).split("\n")
    return [line.removeprefix("## ") for line in lines if line.startswith("## ")]


def contents(cells: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the table of contents of the cells that follow it."""
    items = [f"- [{heading}](#{anchor(heading)})" for heading in headings(cells)]
    return markdown("contents", "\n".join(["## Table of contents", "", *items]))


def install_command(requirements: list[str]) -> str:
    """Return the command that installs packages, with each on a line of its own."""
    return " \\\n    ".join(["%pip install -q", *(f'"{each}"' for each in requirements)])


def shaped(notebook: dict[str, Any]) -> dict[str, Any]:
    """Return a notebook with the cells that all have; the one given is not changed."""
    title, *own = [cell for cell in notebook["cells"] if cell["id"] not in WRITTEN]
    names = sorted(notebook_needs.needs_of({"cells": own}).packages)
    requirements = [notebook_needs.requirements()[name] for name in names]
    begins = own and text_of(own[0]).startswith("## ")
    body = [
        markdown("installation", INSTALLATION),
        code(INSTALL, install_command(requirements), {"tags": [NOT_AT_THE_BUILD]}),
        *([] if begins else [markdown("begin", BEGIN)]),
        *own,
        markdown("clean-up", CLEAN_UP),
        code("clean-up-commands", clean_up_commands(names), {}),
    ]
    return {**copy.deepcopy(notebook), "cells": [title, contents(body), *body]}


def clean_up_commands(packages: list[str]) -> str:
    """Return the commands that remove what stays, as comments."""
    names = " ".join(packages).replace("_", "-")
    start = "# %pip uninstall --yes "
    lines = textwrap.fill(names, 100, initial_indent=start, subsequent_indent=start)
    return lines + "\n# %pip cache purge"


def rewrite(path: Path) -> bool:
    """Shape the notebook in a file; say whether that changed it."""
    before = path.read_text(encoding="utf-8")
    after = json.dumps(shaped(json.loads(before)), indent=1, ensure_ascii=False) + "\n"
    if after != before:
        path.write_text(after, encoding="utf-8")
    return after != before


if __name__ == "__main__":
    for name in sys.argv[1:]:
        print(f"{name}: {'shaped' if rewrite(Path(name)) else 'as it was'}")
