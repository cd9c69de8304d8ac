"""Ratios with their intervals."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from matplotlib.lines import Line2D
from tabulate import tabulate

from hugeprobe.drawing.palette import INK
from hugeprobe.drawing.picture import Picture, finish, styled

if TYPE_CHECKING:
    from collections.abc import Mapping

    from matplotlib.axes import Axes


@dataclass(frozen=True, slots=True)
class Mark:
    """A ratio with its interval.

    Parameters
    ----------
    value, low, high
        The ratio, and the ends of its interval.
    """

    value: float
    low: float
    high: float

    @property
    def stands(self) -> bool:
        """Whether the interval excludes 1; else it is drawn hollow."""
        return not self.low <= 1 <= self.high


def intervals(
    panels: Mapping[str, Mapping[str, Mapping[str, Mark]]],
    colours: Mapping[str, str],
    x_label: str,
    title: str,
) -> Picture:
    """Draw ratios with intervals on a logarithmic scale; what may be no difference is hollow.

    Parameters
    ----------
    panels
        Ratio by panel, row and series; rows of all panels are the same, some may lack a series.
    colours
        Colour of each series.
    x_label
        What the ratio is of.
    title
        The finding, in words.
    """
    rows = list(dict.fromkeys(row for panel in panels.values() for row in panel))
    with styled(1.1 + _rows_height(len(rows), len(colours))) as figure:
        columns = figure.subplots(1, len(panels), squeeze=False, sharex=True, sharey=True)[0]
        for axes, (name, panel) in zip(columns, panels.items(), strict=True):
            axes.axvline(1, color=INK, linewidth=0.8)
            for index, (series, colour) in enumerate(colours.items()):
                shift = (index - (len(colours) - 1) / 2) * 0.8 / len(colours)
                for row, label in enumerate(rows):
                    if mark := panel.get(label, {}).get(series):
                        _interval(axes, mark, row + shift, colour)
            axes.set(title=name, xscale="log")
            axes.grid(axis="y", visible=False)
            axes.tick_params(axis="y", length=0)
            axes.minorticks_off()
        _ratio_axis(columns[0], panels)
        columns[0].set_yticks(range(len(rows)), rows)
        columns[0].set_ylim(len(rows) - 0.5, -0.5)
        figure.supxlabel(x_label, fontsize=9)
        handles = [
            Line2D([], [], color=colour, marker="o", label=series)
            for series, colour in colours.items()
        ]
        figure.legend(handles=handles, loc="outside upper left", ncols=min(4, len(handles)))
        return finish(figure, title, _intervals_text(panels))


def _rows_height(rows: int, series: int) -> float:
    """Return the inches that so many rows of so many marks need."""
    return rows * max(0.34, 0.13 * series)


def _interval(axes: Axes, mark: Mark, y: float, colour: str) -> None:
    axes.plot([mark.low, mark.high], [y, y], color=colour, linewidth=1.4)
    fill = colour if mark.stands else "none"
    axes.plot(mark.value, y, "o", color=colour, markerfacecolor=fill, markersize=4.5)


def _ratio_axis(axes: Axes, panels: Mapping[str, Mapping[str, Mapping[str, Mark]]]) -> None:
    """Show the whole of every interval, and at least what is 0.8 and 1.25 times as fast."""
    marks = [m for panel in panels.values() for row in panel.values() for m in row.values()]
    low = min([0.8, *(mark.low for mark in marks)]) / 1.05
    high = max([1.25, *(mark.high for mark in marks)]) * 1.05
    ticks = [tick for tick in (0.1, 0.25, 0.5, 1, 2, 4, 10) if low <= tick <= high]
    axes.set_xlim(low, high)
    axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])


def _intervals_text(panels: Mapping[str, Mapping[str, Mapping[str, Mark]]]) -> str:
    rows = [
        [panel, row, series, f"{mark.value:.2f}", f"{mark.low:.2f} to {mark.high:.2f}"]
        for panel, by_row in panels.items()
        for row, marks in by_row.items()
        for series, mark in marks.items()
    ]
    return tabulate(rows, ["", "", "", "ratio", "95 % interval"], disable_numparse=True)
