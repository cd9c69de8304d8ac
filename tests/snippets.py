"""The code on pages, as a reader copies it: every fenced block, with what it says of itself."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from markdown_it import MarkdownIt

ROOT = Path(__file__).parents[1]

NO_CODE = frozenset(
    ("nb-embed", "toctree", "glossary", "eval-rst", "typer-reference", "notebook-needs")
)
"""Directives whose content is not code to copy."""

_CODE = ("code-block", "code", "sourcecode")
_DIRECTIVE = re.compile(r"^\{([\w:-]+)\}\s*(.*)$")
_OPTION = re.compile(r"^:([\w-]+):\s*(.*)$")


@dataclass(frozen=True)
class Block:
    """One block of code on a page.

    Parameters
    ----------
    page, line
        Where it is; the line counts from 1.
    language
        As the page names it, ``""`` where it does not.
    caption, name
        Options of the block. A caption that is a path says where a file belongs.
    code
        Its lines.
    """

    page: str
    line: int
    language: str
    caption: str
    name: str
    code: str

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"


def pages(root: Path = ROOT) -> list[Path]:
    """Return the files whose code readers copy."""
    top = [root / name for name in ("README.md", "CONTRIBUTING.md")]
    docs = sorted((root / "docs").rglob("*.md"))
    hidden = [path for path in docs if any(part.startswith("_") for part in path.parts)]
    return [path for path in (*top, *docs) if path.exists() and path not in hidden]


def blocks_of(text: str, page: str) -> list[Block]:
    """Return the blocks of code of a page; raise where a directive is not known to hold none."""
    found = []
    for token in MarkdownIt("commonmark").parse(text):
        if token.type not in ("fence", "code_block"):
            continue
        line = (token.map or [0])[0] + 1
        language, options, code = token.info.strip(), dict[str, str](), token.content
        if directive := _DIRECTIVE.match(language):
            name, language = directive.groups()
            if name in NO_CODE:
                continue
            assert name in _CODE, f"{page}:{line}: nothing is known about the directive {name}"
            options, code = _options(code)
        caption, name = options.get("caption", ""), options.get("name", "")
        found.append(Block(page, line, language, caption, name, code))
    return found


def _options(content: str) -> tuple[dict[str, str], str]:
    lines = content.splitlines(keepends=True)
    options = {}
    while lines and (option := _OPTION.match(lines[0].rstrip())):
        options[option[1]] = option[2]
        del lines[0]
    if options and lines and not lines[0].strip():
        del lines[0]
    return options, "".join(lines)


def all_blocks(root: Path = ROOT) -> list[Block]:
    """Return the blocks of every page."""
    return [
        block
        for page in pages(root)
        for block in blocks_of(page.read_text(encoding="utf-8"), str(page.relative_to(root)))
    ]


def commands(code: str) -> str:
    """Return what is typed of a block of a terminal: after a prompt, and what a backslash joins.

    Lines without a prompt are what the command prints, unless the one before went on.
    """
    typed, goes_on = [], False
    for line in code.splitlines():
        prompt = re.match(r"[$#>] ", line)
        if not prompt and not goes_on:
            continue
        text = line[2:] if prompt and not goes_on else line
        typed.append(text)
        goes_on = text.endswith("\\")
    return "\n".join(typed) + "\n" if typed else ""
