"""Tables and sentences, which a page renders in its own type."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from tabulate import tabulate

if TYPE_CHECKING:
    from collections.abc import Sequence


def markdown_table(
    columns: Sequence[str], rows: Sequence[Sequence[object]], *, numeric: Sequence[int] = ()
) -> MarkdownTable:
    """Return a table whose ``numeric`` columns, by index, are right-aligned."""
    align = ["right" if index in numeric else "left" for index in range(len(columns))]
    text = [[str(cell) for cell in row] for row in rows]
    return MarkdownTable(
        tabulate(text, columns, tablefmt="pipe", colalign=align, disable_numparse=True)
    )


@dataclass(frozen=True, slots=True)
class MarkdownTable:
    """A table that a page renders in its own style and every builder understands."""

    markdown: str

    def _repr_markdown_(self) -> str:
        return self.markdown

    def __repr__(self) -> str:
        return self.markdown


@dataclass(frozen=True, slots=True)
class Sentence:
    """A finding in words, for a page to show or to take into a sentence of its own."""

    markdown: str

    def _repr_markdown_(self) -> str:
        return self.markdown

    def __repr__(self) -> str:
        return self.markdown
