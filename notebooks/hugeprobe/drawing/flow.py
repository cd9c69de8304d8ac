"""Flow charts of questions, one below the other, which is what a telephone has room for."""

from __future__ import annotations

import textwrap
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal

from matplotlib.patches import Rectangle

from hugeprobe.drawing.palette import ACCENT, GAP, INK
from hugeprobe.drawing.picture import Picture, finish, styled

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matplotlib.axes import Axes

_POINTS: Final = 72.0  # to an inch; the chart is laid out in points
_WIDTH: Final = 374.0
_TYPE: Final = 11.5
_LINE: Final = 16.0
_PADDING: Final = 12.0
_ROOM: Final = 9.0
_SPINE: Final = 24.0
_ASIDE: Final = 104.0
_COLUMNS: Final = 46
"""Letters to a line of bold type in Matplotlib's font; those of browsers are narrower."""
_COLUMNS_ASIDE: Final = 36
_THIN: Final = 0.8
_THICK: Final = 2.4


@dataclass(frozen=True, slots=True)
class Step:
    """One question of a flow chart, with the answer by which it is left to the side.

    Parameters
    ----------
    question, check
        The question, and below it what tells the answer.
    leaves, stays
        The answers: the one that leads to the side, and the one that leads on.
    end
        What stands at the side.
    taken
        Which of its two answers a way that is marked takes: ``leaves``, ``stays``, or nothing.
    """

    question: str
    check: str
    leaves: str
    stays: str
    end: End
    taken: Literal["leaves", "stays", ""] = ""


@dataclass(frozen=True, slots=True)
class End:
    """What a flow chart leads to.

    Parameters
    ----------
    name, detail
        What it is, and a few words below it.
    colour
        One of :mod:`hugeprobe.drawing.palette`.
    taken
        Whether a way that is marked ends here.
    """

    name: str
    detail: str
    colour: str
    taken: bool = False

    @property
    def height(self) -> float:
        """Height of its box in points."""
        return _PADDING + _LINE * (1 + len(wrapped(self.detail, _COLUMNS_ASIDE)))


def flow(steps: Sequence[Step], end: End, title: str) -> Picture:
    """Draw a flow chart.

    Parameters
    ----------
    steps
        The questions.
    end
        What all other answers lead to.
    title
        What the chart decides.
    """
    heights = [_PADDING + _LINE * (len(wrapped(step.question)) + 1) for step in steps]
    between = [step.end.height + 2 * _ROOM for step in steps]
    total = sum(heights) + sum(between) + end.height
    with styled(total / _POINTS) as figure:
        axes = figure.subplots()
        axes.set(xlim=(-1, _WIDTH + 1), ylim=(-total - 1, 1))
        axes.set_axis_off()
        y = 0.0
        for step, height, room in zip(steps, heights, between, strict=True):
            question = wrapped(step.question)
            _box(axes, (0, y), height, INK, _THICK if step.taken else _THIN)
            _lines(axes, (0, y), question, weight="bold")
            _lines(axes, (0, y - _LINE * len(question)), [step.check], color=ACCENT)
            _answers(axes, step, y - height)
            y -= height + room
        _end(axes, (0, y), end)
        return finish(figure, title, _as_text(steps, end))


def wrapped(text: str, columns: int = _COLUMNS) -> list[str]:
    """Break a text into as few lines as fit, and these into about equal lengths.

    >>> wrapped("one two three four", 14)
    ['one two', 'three four']
    """
    fewest = textwrap.wrap(text, columns, break_on_hyphens=False)
    balanced = (
        lines
        for width in range(len(text) // len(fewest), columns)
        if len(lines := textwrap.wrap(text, width, break_on_hyphens=False)) == len(fewest)
    )
    return next(balanced, fewest)


def _box(axes: Axes, corner: tuple[float, float], height: float, colour: str, line: float) -> None:
    """Draw a box from its upper left corner to the right edge."""
    x, y = corner
    box = Rectangle((x, y - height), _WIDTH - x, height, fill=False, ec=colour, lw=line)
    axes.add_patch(box)


def _lines(axes: Axes, corner: tuple[float, float], lines: Sequence[str], **look: Any) -> None:
    x, y = corner
    for number, line in enumerate(lines):
        middle = y - _PADDING / 2 - (number + 0.5) * _LINE
        axes.text(x + 10, middle, line, va="center", size=_TYPE, **look)


def _answers(axes: Axes, step: Step, y: float) -> None:
    """Draw, from ``y`` down, the line to the side, what stands there, and the line that leads on.

    The line that a marked way takes is drawn last, over the other.
    """
    middle, bottom = y - _ROOM - step.end.height / 2, y - step.end.height - 2 * _ROOM
    ways = {
        "leaves": (step.leaves, middle, ([_SPINE, _SPINE, _ASIDE], [y, middle, middle])),
        "stays": (step.stays, bottom, ([_SPINE, _SPINE], [y, bottom])),
    }
    for name in sorted(ways, key=lambda name: name == step.taken):
        answer, low, points = ways[name]
        taken = name == step.taken
        axes.plot(*points, color=INK if taken else GAP, linewidth=_THICK if taken else _THIN)
        words, weight = (f"{answer} (here)", "bold") if taken else (answer, "normal")
        axes.text(_SPINE + 6, low + 3, words, va="bottom", weight=weight, size=_TYPE)
    _end(axes, (_ASIDE, y - _ROOM), step.end)


def _end(axes: Axes, corner: tuple[float, float], end: End) -> None:
    x, y = corner
    low = (x, y - end.height)
    area = Rectangle(low, _WIDTH - x, end.height, fc=end.colour, lw=0, alpha=0.16)
    axes.add_patch(area)
    _box(axes, corner, end.height, end.colour, _THICK if end.taken else _THIN)
    _lines(axes, corner, [end.name], weight="bold")
    _lines(axes, (x, y - _LINE), wrapped(end.detail, _COLUMNS_ASIDE))


def _as_text(steps: Sequence[Step], end: End) -> str:
    lines = [
        f"{number}. {step.question} [{step.check}] {step.leaves}: {_told(step.end)}"
        for number, step in enumerate(steps, 1)
    ]
    return "\n".join([*lines, f"Else: {_told(end)}"])


def _told(end: End) -> str:
    return f"{end.name}, {end.detail}" + (" <- here" if end.taken else "")
