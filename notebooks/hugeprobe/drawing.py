"""Pictures and tables of the guide: one palette, one type, readable on light and dark pages.

Figures are drawn by Matplotlib and turned into inline SVG whose text stays text and whose colours
are CSS variables with a fallback, so one picture serves the light theme, the dark theme and a
notebook. Each also has a PNG (for builders that cannot show SVG) and its data as plain text.
"""

from __future__ import annotations

import hashlib
import io
import itertools
import re
import textwrap
import xml.etree.ElementTree as ET
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal

from matplotlib import rc_context
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle
from matplotlib.ticker import FuncFormatter, PercentFormatter
from tabulate import tabulate

from hugeprobe.sizes import MIB, format_kib

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from matplotlib.axes import Axes

    from hugeprobe.placement import Layout
    from hugeprobe.sizes import PageSizes

INK: Final = "#1b1f23"
HUGE: Final = "#1f7a8c"
BASE: Final = "#d98324"
GAP: Final = "#9aa0a6"
ACCENT: Final = "#7a4fbf"

_THEMED: Final = {
    INK: "currentColor",
    HUGE: f"var(--hp-huge, {HUGE})",
    BASE: f"var(--hp-base, {BASE})",
    GAP: f"var(--hp-gap, {GAP})",
    ACCENT: f"var(--hp-accent, {ACCENT})",
}
_STYLE: Final[dict[Any, Any]] = {
    "font.family": "sans-serif",
    "font.size": 9,
    "text.color": INK,
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "axes.titlesize": 9,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.8,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": GAP,
    "grid.alpha": 0.35,
    "grid.linewidth": 0.6,
    "xtick.color": INK,
    "ytick.color": INK,
    "lines.linewidth": 2,
    "lines.markersize": 4,
    "legend.frameon": False,
    "hatch.linewidth": 0.6,
    "hatch.color": GAP,
    "svg.fonttype": "none",
    "svg.hashsalt": "hugeprobe",
    "figure.constrained_layout.use": True,
    "savefig.transparent": True,
}
_WIDTH: Final = 5.2
"""Inches of every figure: narrow enough for its type to be read on a telephone."""
_SVG: Final = "http://www.w3.org/2000/svg"
_XLINK: Final = "http://www.w3.org/1999/xlink"


@dataclass(frozen=True, slots=True)
class Picture:
    """A finished figure.

    Parameters
    ----------
    svg
        Inline SVG, themed by the page that it is on.
    png
        The same for builders and viewers that have no SVG.
    text
        What it shows, as text.
    """

    svg: str
    png: bytes
    text: str

    def _repr_mimebundle_(self, **_: object) -> dict[str, str | bytes]:
        return {"text/html": self.svg, "image/png": self.png, "text/plain": self.text}

    def __repr__(self) -> str:
        return self.text


def _finish(figure: Figure, title: str, text: str) -> Picture:
    """Render ``figure``; ``title`` is its accessible name where no caption gives one."""
    svg, png = io.BytesIO(), io.BytesIO()
    figure.savefig(svg, format="svg", metadata={"Date": None, "Creator": None})
    figure.savefig(png, format="png", dpi=150, transparent=False, metadata={"Software": None})
    return Picture(_inline(svg.getvalue().decode(), title), png.getvalue(), text)


def _inline(svg: str, title: str) -> str:
    """Return Matplotlib's SVG document as an element for a page.

    Identifiers are kept only where something refers to them, and made unique to the picture: two
    pictures on one page must not share any.
    """
    ET.register_namespace("", _SVG)
    ET.register_namespace("xlink", _XLINK)
    root = ET.fromstring(svg)
    for child in list(root):
        if child.tag in (f"{{{_SVG}}}metadata", f"{{{_SVG}}}title"):
            root.remove(child)
    for name in ("width", "height"):
        root.attrib.pop(name, None)
    root.attrib |= {"class": "hp-figure", "role": "img", "aria-label": title}
    referred = set(re.findall(r"#([\w-]+)", svg))
    for element in root.iter():
        if element.attrib.get("id") not in referred:
            element.attrib.pop("id", None)
    text = ET.tostring(root, encoding="unicode")
    salt = hashlib.sha256(f"{title}{text}".encode()).hexdigest()[:8]
    text = re.sub(r'(\bid="|url\(#|href="#)', rf"\g<1>hp{salt}-", text)
    for colour, themed in _THEMED.items():
        text = re.sub(colour, themed, text, flags=re.IGNORECASE)
    # The page's own type, at the size that Matplotlib measured with.
    text = re.sub(r"font: ((?:\w+ )*)([\d.]+px) [^;\"]*", r"font: \1\2 sans-serif", text)
    return re.sub(r">\s+<", "><", text)


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


def address_spaces(layouts: Mapping[str, Layout], sizes: PageSizes, title: str) -> Picture:
    """Draw modelled layouts as strips of address space, one above the other, to one scale.

    Parameters
    ----------
    layouts
        By the name of their rule; models, because measurements do not know which ranges are huge.
    sizes
        Page sizes, for the PMD boundaries.
    title
        What the picture shows.
    """
    with rc_context(_STYLE):
        figure = Figure(figsize=(_WIDTH, 0.75 + 0.62 * len(layouts)))
        axes = figure.subplots()
        deepest = max(m.start_offset for layout in layouts.values() for m in layout.mappings) / MIB
        for row, (name, layout) in enumerate(layouts.items()):
            _strip(axes, -row, layout, sizes)
            huge = f"{layout.coverage:.0%} huge"
            axes.text(
                -deepest, 0.45 - row, f"{name} · {huge} · {layout.minor_faults:,} faults", size=8.5
            )
        axes.set(
            xlim=(-deepest - 0.1, 0.1),
            ylim=(0.75 - len(layouts), 0.65),
            yticks=[],
            xlabel="MiB below the top of the free address space; grid lines 2 MiB apart",
        )
        pmd = sizes.pmd / MIB
        axes.set_xticks([-i * pmd for i in range(int(deepest / pmd) + 1)])
        axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{abs(x):.0f}"))
        axes.spines["left"].set_visible(False)
        figure.legend(
            handles=[
                Rectangle((0, 0), 1, 1, color=HUGE, label="huge page"),
                Rectangle((0, 0), 1, 1, color=BASE, label="base pages"),
                Rectangle((0, 0), 1, 1, fill=False, hatch="////", color=GAP, label="hole"),
            ],
            loc="outside upper right",
            ncols=3,
        )
        return _finish(figure, title, _layouts_text(layouts))


def _strip(axes: Axes, y: float, layout: Layout, sizes: PageSizes) -> None:
    """Draw one layout, with the first mapping at the right, where the addresses are highest."""
    height, lower = 0.34, y
    above: float | None = None
    for number, mapping in enumerate(layout.mappings, 1):
        start, length = -mapping.start_offset / MIB, mapping.length / MIB
        axes.add_patch(Rectangle((start, lower), length, height, facecolor=BASE, linewidth=0))
        if above is not None and start + length < above:
            gap = (start + length, lower)
            axes.add_patch(
                Rectangle(gap, above - gap[0], height, fill=False, hatch="////", color=GAP, lw=0)
            )
        axes.text(start + length / 2, lower - 0.02, str(number), ha="center", va="top", size=7.5)
        above = start
    for offset in layout.huge_offsets or ():
        axes.add_patch(
            Rectangle(
                (-offset / MIB, lower), sizes.pmd / MIB, height, facecolor=HUGE, edgecolor="none"
            )
        )
    for mapping in layout.mappings:
        start, length = -mapping.start_offset / MIB, mapping.length / MIB
        axes.add_patch(Rectangle((start, lower), length, height, fill=False, color=INK, lw=1))


def _layouts_text(layouts: Mapping[str, Layout]) -> str:
    rows = [
        [name, f"{x.coverage:.1%}", f"{x.minor_faults:,}", x.vmas, format_kib(x.gap_kib)]
        for name, x in layouts.items()
    ]
    return tabulate(rows, ["rule", "coverage", "faults", "VMAs", "holes"])


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
    with rc_context(_STYLE):
        figure = Figure(figsize=(_WIDTH, height))
        row = figure.subplots(1, len(panels), squeeze=False)[0]
        for panel, axes in zip(panels, row, strict=True):
            _panel(axes, panel)
            if panel is not panels[0] and panel.y_label == panels[0].y_label:
                axes.set_ylabel("")
        handles, labels = figure.axes[0].get_legend_handles_labels()
        if len(labels) > 1:
            figure.legend(handles, labels, loc="outside upper left", ncols=min(4, len(labels)))
        return _finish(figure, title, _lines_text(panels))


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


def bars(
    rows: Mapping[str, Mapping[str, float]],
    colours: Mapping[str, str],
    x_label: str,
    title: str,
) -> Picture:
    """Draw horizontal stacked bars.

    Parameters
    ----------
    rows
        Value of each part, by the name of the bar; parts in the order they are stacked.
    colours
        Colour of each part.
    x_label
        With the unit.
    title
        The finding, in words.
    """
    with rc_context(_STYLE):
        figure = Figure(figsize=(_WIDTH, 0.9 + 0.36 * len(rows)))
        axes = figure.subplots()
        names = list(rows)[::-1]
        left = [0.0] * len(names)
        for part, colour in colours.items():
            values = [rows[name].get(part, 0.0) for name in names]
            axes.barh(names, values, left=left, color=colour, label=part, height=0.62)
            left = [a + b for a, b in zip(left, values, strict=True)]
        axes.set(xlabel=x_label)
        axes.grid(axis="y", visible=False)
        axes.tick_params(axis="y", length=0)
        axes.spines["left"].set_visible(False)
        figure.legend(loc="outside upper left", ncols=min(4, len(colours)))
        text = tabulate(
            [[name, *(f"{rows[name].get(part, 0.0):,.0f}" for part in colours)] for name in rows],
            [x_label, *colours],
        )
        return _finish(figure, title, text)


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
    with rc_context(_STYLE):
        figure = Figure(figsize=(_WIDTH, 1.1 + rows_height(len(rows), len(colours))))
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
        return _finish(figure, title, _intervals_text(panels))


def rows_height(rows: int, series: int) -> float:
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
    with rc_context(_STYLE):
        figure = Figure(figsize=(_WIDTH, 0.5 + 0.25 * height))
        ratios = [len(panel.rows) for panel in panels]
        column = figure.subplots(len(panels), 1, squeeze=False, height_ratios=ratios)[:, 0]
        for panel, axes in zip(panels, column, strict=True):
            _shares(axes, panel, columns)
        column[-1].set_xlabel(x_label)
        return _finish(figure, title, _shares_text(panels, columns))


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
    with rc_context(_STYLE):
        figure = Figure(figsize=(_WIDTH, 0.5 + 0.42 * len(rows)))
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
        return _finish(figure, title, tabulate(counts, ["cells", *colours]))


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


@dataclass(frozen=True, slots=True)
class FlowStep:
    """One question of a flow chart, with the answer by which it is left to the side.

    Parameters
    ----------
    question, check
        The question, and below it what tells the answer.
    leaves, stays
        The answers: the one that leads to the side, and the one that leads on.
    end, detail
        What stands at the side, and a few words below it.
    colour
        Of what stands at the side.
    taken
        Which of its two answers a way that is marked takes: ``leaves``, ``stays``, or nothing.
    """

    question: str
    check: str
    leaves: str
    stays: str
    end: str
    detail: str
    colour: str
    taken: Literal["leaves", "stays", ""] = ""


@dataclass(frozen=True, slots=True)
class FlowEnd:
    """What a flow chart leads to where no question has led to the side.

    Parameters
    ----------
    name, detail
        What it is, and a few words below it.
    colour
        One of this module's colours.
    taken
        Whether a way that is marked ends here.
    """

    name: str
    detail: str
    colour: str
    taken: bool = False


_POINTS: Final = 72.0  # to an inch; the chart is laid out in points
_FLOW_TYPE: Final = 11.5
_LINE: Final = 16.0
_PADDING: Final = 12.0
_ROOM: Final = 9.0
_BORDER: Final = 2.0
_SPINE: Final = 24.0
_ASIDE: Final = 104.0
_COLUMNS: Final = 46
"""Letters to a line of bold type in Matplotlib's font; those of browsers are narrower."""
_COLUMNS_ASIDE: Final = 36
_THIN: Final = 0.8
_THICK: Final = 2.4


def flow(steps: Sequence[FlowStep], end: FlowEnd, title: str) -> Picture:
    """Draw questions one below the other, which is what a telephone has room for.

    Parameters
    ----------
    steps
        The questions.
    end
        What all other answers lead to.
    title
        What the chart decides.
    """
    heights = [_PADDING + _LINE * (len(_wrapped(step.question)) + 1) for step in steps]
    between = [_end_height(step.detail) + 2 * _ROOM for step in steps]
    total = sum(heights) + sum(between) + _end_height(end.detail) + 2 * _BORDER
    style: dict[Any, Any] = {"font.size": _FLOW_TYPE, "figure.constrained_layout.use": False}
    with rc_context({**_STYLE, **style}):
        figure = Figure(figsize=(_WIDTH, total / _POINTS))
        axes = figure.add_axes((0, 0, 1, 1))
        axes.set(xlim=(0, _WIDTH * _POINTS), ylim=(-total, 0))
        axes.set_axis_off()
        y = -_BORDER
        for step, height, room in zip(steps, heights, between, strict=True):
            lines = _wrapped(step.question)
            _flow_box(axes, (_BORDER, y), height, INK, _THICK if step.taken else _THIN)
            _flow_lines(axes, (_BORDER, y), lines, weight="bold")
            _flow_lines(axes, (_BORDER, y - _LINE * len(lines)), [step.check], color=ACCENT)
            _flow_answers(axes, step, y - height)
            y -= height + room
        _flow_end(axes, (_BORDER, y), end)
        return _finish(figure, title, _flow_as_text(steps, end))


def _wrapped(text: str, columns: int = _COLUMNS) -> list[str]:
    """Break a text into as few lines as fit, and these into about equal lengths."""
    fewest = textwrap.wrap(text, columns)
    balanced = (
        lines
        for width in range(len(text) // len(fewest), columns)
        if len(lines := textwrap.wrap(text, width, break_on_hyphens=False)) == len(fewest)
    )
    return next(balanced, fewest)


def _end_height(detail: str) -> float:
    return _PADDING + _LINE * (1 + len(_wrapped(detail, _COLUMNS_ASIDE)))


def _flow_box(
    axes: Axes, corner: tuple[float, float], height: float, colour: str, line: float
) -> None:
    """Draw a box from its upper left corner to the right edge."""
    x, y = corner
    width = _WIDTH * _POINTS - x - _BORDER
    box = Rectangle((x, y - height), width, height, fill=False, edgecolor=colour, linewidth=line)
    axes.add_patch(box)


def _flow_lines(axes: Axes, corner: tuple[float, float], lines: Sequence[str], **look: Any) -> None:
    x, y = corner
    for number, line in enumerate(lines):
        middle = y - _PADDING / 2 - (number + 0.5) * _LINE
        axes.text(x + 10, middle, line, va="center", **look)


def _flow_answers(axes: Axes, step: FlowStep, y: float) -> None:
    """Draw, from ``y`` down, the line to the side, what stands there, and the line that leads on.

    The line that a marked way takes is drawn last, over the other.
    """
    height = _end_height(step.detail)
    middle, bottom = y - _ROOM - height / 2, y - height - 2 * _ROOM
    ways = {
        "leaves": (step.leaves, middle, ([_SPINE, _SPINE, _ASIDE], [y, middle, middle])),
        "stays": (step.stays, bottom, ([_SPINE, _SPINE], [y, bottom])),
    }
    for name in sorted(ways, key=lambda name: name == step.taken):
        answer, low, points = ways[name]
        taken = name == step.taken
        axes.plot(*points, color=INK if taken else GAP, linewidth=_THICK if taken else _THIN)
        words, weight = (f"{answer} (here)", "bold") if taken else (answer, "normal")
        axes.text(_SPINE + 6, low + 3, words, va="bottom", weight=weight)
    end = FlowEnd(step.end, step.detail, step.colour, step.taken == "leaves")
    _flow_end(axes, (_ASIDE, y - _ROOM), end)


def _flow_end(axes: Axes, corner: tuple[float, float], end: FlowEnd) -> None:
    (x, y), height = corner, _end_height(end.detail)
    width = _WIDTH * _POINTS - x - _BORDER
    axes.add_patch(Rectangle((x, y - height), width, height, fc=end.colour, lw=0, alpha=0.16))
    _flow_box(axes, corner, height, end.colour, _THICK if end.taken else _THIN)
    _flow_lines(axes, corner, [end.name], weight="bold")
    _flow_lines(axes, (x, y - _LINE), _wrapped(end.detail, _COLUMNS_ASIDE))


def _flow_as_text(steps: Sequence[FlowStep], end: FlowEnd) -> str:
    lines = [
        f"{number}. {step.question} [{step.check}] {step.leaves}: {step.end}, {step.detail}"
        + (" <- here" if step.taken == "leaves" else "")
        for number, step in enumerate(steps, 1)
    ]
    last = f"Else: {end.name}, {end.detail}" + (" <- here" if end.taken else "")
    return "\n".join([*lines, last])
