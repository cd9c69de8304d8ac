"""Lines and marks over a size or a number, in panels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from matplotlib.ticker import FuncFormatter, PercentFormatter
from tabulate import tabulate

from hugeprobe.drawing.palette import INK
from hugeprobe.drawing.picture import Picture, finish, styled
from hugeprobe.sizes import format_kib

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matplotlib.axes import Axes


@dataclass(frozen=True, slots=True)
class Line:
    """One line of a chart.

    Parameters
    ----------
    name
        What it is called in the legend; nothing keeps it out of it.
    x, y
        Its points.
    colour
        One of this module's colours.
    style
        Matplotlib's line style, or ``"o"`` for marks.
    """

    name: str
    x: Sequence[float]
    y: Sequence[float]
    colour: str
    style: str = "-"


@dataclass(frozen=True, slots=True)
class Panel:
    """One pair of axes of a chart.

    Parameters
    ----------
    title, x_label, y_label
        With units.
    lines
        What is drawn.
    percent
        Whether y is a share of one.
    log_x, log_y
        Whether an axis is logarithmic; a logarithmic x is a size in KiB and is labelled so.
    """

    title: str
    x_label: str
    y_label: str
    lines: Sequence[Line]
    percent: bool = False
    log_x: bool = False
    log_y: bool = False


def chart(panels: Sequence[Panel], title: str, *, height: float = 3.0) -> Picture:
    """Draw panels of lines side by side, with one legend above.

    Parameters
    ----------
    panels
        One or two.
    title
        The finding, in words.
    height
        Inches.
    """
    with styled(height) as figure:
        row = figure.subplots(1, len(panels), squeeze=False)[0]
        for panel, axes in zip(panels, row, strict=True):
            _panel(axes, panel)
            if panel is not panels[0] and panel.y_label == panels[0].y_label:
                axes.set_ylabel("")
        handles, labels = figure.axes[0].get_legend_handles_labels()
        if len(labels) > 1:
            figure.legend(handles, labels, loc="outside upper left", ncols=min(4, len(labels)))
        return finish(figure, title, _lines_text(panels))


def _panel(axes: Axes, panel: Panel) -> None:
    for line in panel.lines:
        axes.plot(
            line.x,
            line.y,
            line.style,
            color=line.colour,
            label=line.name,
            markeredgecolor=INK,
            markeredgewidth=0.8,
        )
    axes.set(title=panel.title, xlabel=panel.x_label, ylabel=panel.y_label)
    if panel.log_x:
        axes.set_xscale("log", base=2)
        axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: format_kib(x)))
    if panel.log_y:
        axes.set_yscale("log")
        axes.yaxis.set_major_formatter(FuncFormatter(lambda y, _: f"{y:g}"))
        axes.yaxis.set_minor_formatter("")
    else:
        axes.set_ylim(0, 1.05 if panel.percent else None)
    if panel.percent:
        axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))


def _lines_text(panels: Sequence[Panel]) -> str:
    blocks = []
    for panel in panels:
        rows = [
            [
                line.name or "(the same)",
                *(f"{y:.3g}" for y in (line.y[0], line.y[len(line.y) // 2], line.y[-1])),
            ]
            for line in panel.lines
        ]
        heading = f"{panel.title} ({panel.y_label} at the first, middle and last {panel.x_label})"
        blocks.append(f"{heading}\n{tabulate(rows, ['', 'first', 'middle', 'last'])}")
    return "\n\n".join(blocks)
