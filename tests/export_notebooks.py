"""Write the notebooks in the shape that openvino_notebooks wants: ``nox -s export-notebooks``.

Rules, as the checks in its folder ``.ci`` and its CONTRIBUTING.md have them: a folder for each
notebook with a README.md; contents and installation in one cell; packages with ranges in the first
cell of code; a note where a notebook needs Linux; tags in its metadata; a clean-up in comments.
The modules of ``hugeprobe`` that a notebook reaches, and the records that they read, lie beside it.

Two rules are left to a pull request, whose list is written beside the folder ``notebooks``: the
exemption from the choice of a device, and a picture by which views are counted, which is added by
a script of that repository and which this guide does not spread.
"""

from __future__ import annotations

import json
import re
import shutil
import sys
from pathlib import Path
from typing import Any, Final

import notebook_needs
import notebook_shape
from notebook_needs import ROOT
from notebook_shape import anchor, text_of

SOURCE: Final = ROOT / "notebooks"
RECORDS: Final = "records"

CONTENTS: Final = "#### Table of contents:"
"""What the checks look for, to the colon."""

TOP: Final = "[back to top ⬆️](#Table-of-contents:)"

INSTALLATION: Final = """\
### Installation Instructions

This is a self-contained example that relies solely on its own code.

We recommend  running the notebook in a virtual environment. You only need a Jupyter server to start.
For details, please refer to [Installation Guide](https://github.com/openvinotoolkit/openvino_notebooks/blob/latest/README.md#-installation-guide)."""  # noqa: E501
"""The wording that the check for installation instructions compares with."""

LINUX: Final = (
    '<div class="alert alert-block alert-danger"> <b>Important note:</b> This notebook looks at '
    "the memory of processes under Linux, and runs there only. </div>"
)

README: Final = """\
# {title}

{question}

## Notebook Contents

{contents}

It runs on Linux only, needs no special privilege and changes no setting. The package `hugeprobe`,
which measures and draws, lies beside it; both are under the Apache License 2.0.

## Installation Instructions

The first cell installs what the notebook imports. For the rest, follow the
[Installation Guide](../../README.md).
"""

PULL_REQUEST: Final = """\
# Left to the pull request

1. These notebooks measure the memory of processes and let no device be chosen. Exempt them in
   `EXPECTED_NO_DEVICE` of `.ci/check_notebooks.py`:

{paths}
2. Add the picture that counts views with `python .ci/scarf_pixel.py -s PATH`, for each notebook and
   each README.md.
3. Skip them for Windows and macOS in `.ci/skipped_notebooks.yml`.
4. Add words that the spelling check does not know to `.ci/spellcheck/.pyspelling.wordlist.txt`.
"""

METADATA: Final[dict[str, Any]] = {
    "imageUrl": None,
    "tags": {"categories": ["Optimize"], "tasks": [], "libraries": [], "other": ["Linux"]},
}


def title_of(notebook: dict[str, Any]) -> tuple[str, str]:
    """Return title and question of a notebook."""
    title, _, question = text_of(notebook["cells"][0]).partition("\n")
    return title.removeprefix("# ").removesuffix(": the notebook"), question.strip()


def own_cells(notebook: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the cells between installation and clean-up, each heading with a link to the top."""
    replaced = {"contents", "installation", notebook_shape.INSTALL}
    kept = [cell for cell in notebook["cells"][1:] if cell["id"] not in replaced]
    return [with_link(cell) if cell["cell_type"] == "markdown" else cell for cell in kept]


def with_link(cell: dict[str, Any]) -> dict[str, Any]:
    """Return a cell of text with a link to the top after each heading."""
    text = re.sub(r"(?m)^##+ .*$", rf"\g<0>\n{TOP}", text_of(cell))
    return notebook_shape.markdown(cell["id"], text)


def exported(notebook: dict[str, Any]) -> dict[str, Any]:
    """Return a notebook in the shape that is wanted."""
    title, question = title_of(notebook)
    cells = own_cells(notebook)
    items = [f"- [{each}](#{anchor(each)})" for each in notebook_shape.headings(cells)]
    (listed,) = (cell for cell in notebook["cells"] if cell["id"] == notebook_shape.INSTALL)
    command = text_of(listed).replace(" \\\n   ", "")  # their tools read it line by line
    start = [
        notebook_shape.markdown("title", f"# {title}\n\n{question}\n\n{LINUX}"),
        notebook_shape.markdown("contents", "\n".join([CONTENTS, "", *items, "", INSTALLATION])),
        notebook_shape.code(notebook_shape.INSTALL, command, {}),
    ]
    metadata = {**notebook["metadata"], "openvino_notebooks": METADATA}
    return {**notebook, "cells": [*start, *cells], "metadata": metadata}


def readme(notebook: dict[str, Any]) -> str:
    """Return the README.md of a notebook."""
    title, question = title_of(notebook)
    contents = "\n".join(f"- {each}" for each in notebook_shape.headings(own_cells(notebook)))
    return README.format(title=title, question=question, contents=contents)


def copy_package(notebook: dict[str, Any], folder: Path) -> None:
    """Put what a notebook can reach of the package beside it, with the records."""
    modules = notebook_needs.needs_of(notebook, whole=True).modules
    for module in sorted(modules):
        if source := notebook_needs.file_of(module):
            target = folder / source.relative_to(SOURCE)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, target)
    if f"{notebook_needs.PACKAGE}.{RECORDS}" in modules:
        shutil.copytree(SOURCE / RECORDS, folder / RECORDS)


def export(target: Path) -> list[Path]:
    """Write all notebooks below `target`, and return the folders that they are in."""
    shutil.rmtree(target, ignore_errors=True)
    folders = []
    for path in sorted(SOURCE.glob("*.ipynb")):
        notebook = json.loads(path.read_text(encoding="utf-8"))
        folder = target / "notebooks" / path.stem
        folder.mkdir(parents=True)
        text = json.dumps(exported(notebook), indent=1, ensure_ascii=False) + "\n"
        (folder / path.name).write_text(text, encoding="utf-8")
        (folder / "README.md").write_text(readme(notebook), encoding="utf-8")
        copy_package(notebook, folder)
        folders.append(folder)
    names = (f"notebooks/{folder.name}/{folder.name}.ipynb" for folder in folders)
    paths = "".join(f'   - `Path("{name}"),`\n' for name in names)
    (target / "PULL-REQUEST.md").write_text(PULL_REQUEST.format(paths=paths), encoding="utf-8")
    return folders


if __name__ == "__main__":
    print(f"{len(export(Path(sys.argv[1])))} notebooks are in {sys.argv[1]}.")
