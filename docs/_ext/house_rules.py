"""What OpenVINO's documentation asks of an article, as far as a program can see it.

Each rule is a function from the text of an article to sentences that say what breaks it; an empty
list means that nothing does.
"""

from __future__ import annotations

import re
from itertools import pairwise
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator

LEVELS: Final = "=#+-"
"""Underlines of headings, from the title down."""

LAST: Final = "Additional Resources"
LINES: Final = range(150, 251)
LONGEST: Final = 100
FILLED: Final = 70
"""Columns that a line of a paragraph has, at the least, if another word does not make it longer."""

DIRECTIVES: Final = {
    *("code-block", "figure", "image", "important", "list-table", "meta", "note"),
    *("tab-item", "tab-set", "toctree", "warning"),
}
ROLES: Final = {"doc", "ref"}

_MYST: Final = {
    "a fence": r"^\s*(```|:::)",
    "a role in braces": r"\{[\w:-]+\}`",
    "a link of Markdown": r"\[[^\]\n]+\]\([^)\n]+\)",
    "a heading of Markdown": r"^#{1,6} \S",
}
_PERFORMANCE: Final = re.compile(
    r"\b\d[\d.,]* ?(?:%|\u00d7|x\b|-?fold\b|per ?cent\b|times (?:as|more|fewer|faster|slower)\b"
    r"|(?:\u00b5s|us|ns|ms|s|seconds|minutes|faults|FPS|tokens/s)\b)"
)
"""A number with a unit of time, speed or gain; sizes of pages and buffers are none."""
_ORIGIN: Final = re.compile(r"\b(?:Measured|Recorded) on \d{4}-\d{2}-\d{2}\b")
_LITERAL: Final = re.compile(r"``.*?``|`[^`<]*<[^`>]*>`__", re.DOTALL)


def breaches(article: str) -> list[str]:
    """Return everything that breaks a rule, in the order of the rules."""
    rules = (size, headings, description, width, links, syntax, names, performance)
    return [sentence for rule in rules for sentence in rule(article)]


def size(article: str) -> Iterator[str]:
    """Ask for an article that is neither a note nor a book."""
    count = len(article.splitlines())
    if count not in LINES:
        yield f"The article has {count} lines; write {LINES[0]} to {LINES[-1]}."


def titles(article: str) -> list[tuple[int, str, str]]:
    """Return line number, text and underline of each heading."""
    lines = article.splitlines()
    return [
        (number, text, line)
        for number, (text, line) in enumerate(pairwise(lines), 1)
        if re.fullmatch(r"([=#+~^*-])\1{3,}", line) and text.strip() and not text.startswith(" ")
    ]


def headings(article: str) -> Iterator[str]:
    """Ask for one title, no level skipped, underlines long enough, and the resources last."""
    found = titles(article)
    levels = [LEVELS.find(line[0]) for _, _, line in found]
    if not found or found[0][0] != 1 or levels.count(0) != 1:
        yield "The article does not begin with its only title, underlined with '='."
    for (number, text, line), level, before in zip(found, levels, [-1, *levels], strict=False):
        if len(line) < len(text):
            yield f"Line {number + 1}: the underline of {text!r} is shorter than the text."
        if level < 0 or level > before + 1:
            yield f"Line {number + 1}: {line[0]!r} cannot follow here; the order is {LEVELS}."
    sections = [text for (_, text, _), level in zip(found, levels, strict=True) if level == 1]
    if sections[-1:] != [LAST]:
        yield f"The last section is not called {LAST!r}."


def description(article: str) -> Iterator[str]:
    """Ask for a description for search engines directly below the title, aligned under its text."""
    lines = article.splitlines()
    if lines[3:4] != [".. meta::"] or not re.match(r"   :description: \S", "".join(lines[4:5])):
        yield "The title is not followed by '.. meta::' with ':description:'."
        return
    for number, line in enumerate(lines[5:], 6):
        if not line:
            return
        if not line.startswith(" " * 17):
            yield f"Line {number}: the description is not aligned under its first word."


def width(article: str) -> Iterator[str]:
    """Ask for lines that are filled, and can be reviewed side by side."""
    for number, line in enumerate(article.splitlines(), 1):
        if len(line) > LONGEST:
            yield f"Line {number} has {len(line)} columns; break it before {LONGEST}."
    for first, block in paragraphs(article):
        for number, (line, after) in enumerate(pairwise(block), first):
            if max(len(line), len(f"{line} {after.split()[0]}") - 1) < FILLED:
                yield f"Line {number} has {len(line)} columns; fill it to {FILLED} or more."


def blocks(article: str) -> Iterator[tuple[int, list[str]]]:
    """Return the first line number and the lines of each block of text that is not code."""
    number, code = 1, -1
    for block in article.split("\n\n"):
        lines = block.strip("\n").splitlines()
        start = number + len(block) - len(block.lstrip("\n"))
        number += block.count("\n") + 2
        margin = len(block.strip("\n")) - len(block.strip("\n").lstrip())
        if not lines or (code >= 0 and margin > code):
            continue
        code = margin if lines[0].lstrip().startswith(".. code-block::") else -1
        yield start, lines


def paragraphs(article: str) -> Iterator[tuple[int, list[str]]]:
    """Return those of :func:`blocks` that are no directive, table, list or heading."""
    for start, lines in blocks(article):
        if not re.match(r"\s*(\.\. |:\w|[*-] |\d+\. )", lines[0]) and not titles("\n".join(lines)):
            yield start, lines


def links(article: str) -> Iterator[str]:
    """Ask for anonymous inline links to https, and no label at the top."""
    for found in re.finditer(r"`[^`<]*<(https?:[^>]*)>`(_*)", article):
        if found[2] != "__" or not found[1].startswith("https:"):
            yield f"The link to {found[1]} is not written `text <https://...>`__."
    for found in re.finditer(r"(?<![<\w/])https?://\S+", re.sub(_LITERAL, "", article)):
        yield f"The address {found[0]} stands in the text; give it words: `text <https://...>`__."
    if re.match(r"\s*\.\. _", article):
        yield "A label stands at the top of the article."


def syntax(article: str) -> Iterator[str]:
    """Ask for reStructuredText, not MyST, and no marks of the exporter."""
    for what, pattern in _MYST.items():
        for found in re.finditer(pattern, article, re.MULTILINE):
            yield f"{found[0].strip()!r} is {what}, which is not reStructuredText."
    if "{{" in article or ".. shared:" in article:
        yield "A mark of the exporter is left in the article."


def names(article: str) -> Iterator[str]:
    """Ask for directives and roles that other articles use, and for words beside pictures."""
    for name in sorted(set(re.findall(r"^\s*\.\. ([\w:-]+)::", article, re.MULTILINE))):
        if name not in DIRECTIVES:
            yield f"The directive {name!r} is not one that OpenVINO's articles use."
    for name in sorted(set(re.findall(r"(?<!`):([\w:+-]+):`", article))):
        if name not in ROLES:
            yield f"The role {name!r} is not one that OpenVINO's articles use."
    for number, line in enumerate(article.splitlines(), 1):
        if re.search(r"\.\. (figure|image)::", line):
            options = article.splitlines()[number : number + 4]
            if not any(option.strip().startswith(":alt: ") for option in options):
                yield f"Line {number}: the picture has no ':alt:'."


def performance(article: str) -> Iterator[str]:
    """Ask that a figure of performance says when and on what it was measured."""
    for number, lines in blocks(article):
        text = _LITERAL.sub("", " ".join(line.strip() for line in lines))
        if (found := _PERFORMANCE.search(text)) and not _ORIGIN.search(text):
            yield f"Line {number}: {found[0]!r} is bare; say when and on what it was measured."
