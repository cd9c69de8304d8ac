"""Rows of cells of one width."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any

from matplotlib.patches import Rectangle
from tabulate import tabulate

from hugeprobe.drawing.palette import GAP
from hugeprobe.drawing.picture import Picture, finish, styled

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence


def cells(
    rows: Sequence[tuple[str, Sequence[str]]], colours: Mapping[str, str | None], title: str
) -> Picture:
    """Draw rows of cells of one width, each row below its name.

    Parameters
    ----------
    rows
        Name of each row, and the part that each of its cells is.
    colours
        Colour of each part; None for one that is left empty.
    title
        The finding, in words.
    """
    with styled(0.5 + 0.42 * len(rows)) as figure:
        axes = figure.subplots()
        for y, (name, parts) in enumerate(rows):
            axes.text(0, y - 0.12, name, size=8.5)
            for part, first, count in _repeats(parts):
                look = _cell_look(colours[part])
                axes.add_patch(Rectangle((first, y), count, 0.4, linewidth=0.8, **look))
        longest = max((len(parts) for _, parts in rows), default=1)
        axes.set(xlim=(-0.2, longest + 0.2), ylim=(len(rows) - 0.4, -0.6))
        axes.set_axis_off()
        figure.legend(
            handles=[
                Rectangle((0, 0), 1, 1, label=part, **_cell_look(colour))
                for part, colour in colours.items()
            ],
            loc="outside upper left",
            ncols=2,
        )
        counts = [[name, *(list(parts).count(part) for part in colours)] for name, parts in rows]
        return finish(figure, title, tabulate(counts, ["cells", *colours]))


def _repeats(parts: Sequence[str]) -> Iterator[tuple[str, int, int]]:
    """Yield each stretch of equal parts, where it begins and how long it is."""
    first = 0
    for part, stretch in itertools.groupby(parts):
        count = len(list(stretch))
        yield part, first, count
        first += count


def _cell_look(colour: str | None) -> dict[str, Any]:
    if colour is None:
        return {"fill": False, "edgecolor": GAP}
    return {"facecolor": colour, "edgecolor": "none"}
