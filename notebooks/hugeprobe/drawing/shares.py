"""Tables of shares, each cell as dark as its share is high."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from matplotlib.patches import Rectangle
from tabulate import tabulate

from hugeprobe.drawing.palette import HUGE
from hugeprobe.drawing.picture import Picture, finish, styled

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from matplotlib.axes import Axes


@dataclass(frozen=True, slots=True)
class Shares:
    """One panel of a table of shares.

    Parameters
    ----------
    title
        What its rows have in common.
    rows
        Shares, 0 to 1, by the name of the row, one for each column; None where there is none.
    """

    title: str
    rows: Mapping[str, Sequence[float | None]]


def share_tables(
    panels: Sequence[Shares], columns: Sequence[str], x_label: str, title: str
) -> Picture:
    """Draw tables of shares one above the other, each cell as dark as its share is high.

    Parameters
    ----------
    panels
        All with the same columns.
    columns
        Names of the columns.
    x_label
        What the columns are, with the unit.
    title
        The finding, in words.
    """
    height = sum(len(panel.rows) + 1.4 for panel in panels)
    with styled(0.5 + 0.25 * height) as figure:
        ratios = [len(panel.rows) for panel in panels]
        column = figure.subplots(len(panels), 1, squeeze=False, height_ratios=ratios)[:, 0]
        for panel, axes in zip(panels, column, strict=True):
            _shares(axes, panel, columns)
        column[-1].set_xlabel(x_label)
        return finish(figure, title, _shares_text(panels, columns))


def _shares(axes: Axes, panel: Shares, columns: Sequence[str]) -> None:
    for y, shares in enumerate(panel.rows.values()):
        for x, share in enumerate(shares):
            if share is not None:
                # Half of the colour at most, so that the figures on it can be read in both themes.
                cell = Rectangle((x - 0.47, y - 0.44), 0.94, 0.88, lw=0, fc=HUGE, alpha=share / 2)
                axes.add_patch(cell)
            axes.text(x, y, _percent(share), ha="center", va="center", size=8)
    axes.set(
        title=panel.title,
        xlim=(-0.5, len(columns) - 0.5),
        ylim=(len(panel.rows) - 0.5, -0.5),
    )
    axes.set_xticks(range(len(columns)), columns)
    axes.set_yticks(range(len(panel.rows)), list(panel.rows))
    axes.tick_params(length=0)
    axes.grid(visible=False)
    axes.spines[:].set_visible(False)


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{share:.0%}"


def _shares_text(panels: Sequence[Shares], columns: Sequence[str]) -> str:
    blocks = []
    for panel in panels:
        rows = [[name, *map(_percent, shares)] for name, shares in panel.rows.items()]
        blocks.append(tabulate(rows, [panel.title, *columns], disable_numparse=True))
    return "\n\n".join(blocks)
