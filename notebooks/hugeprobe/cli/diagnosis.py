"""How a diagnosis looks in a terminal of 80 columns, in colour and without."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from rich.console import Group
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from hugeprobe.sizes import KIB, format_kib
from hugeprobe.strips import State

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from rich.console import Console, ConsoleOptions, RenderableType, RenderResult

    from hugeprobe.doctor import Diagnosis, Finding
    from hugeprobe.observe import Sample
    from hugeprobe.owners import Owned
    from hugeprobe.strips import Strip

_LEAST_SHARE: Final = 0.01
"""Reasons for less than this share of anonymous memory are summed in one line."""
_HEADING: Final = "bold"
_ACTION: Final = "cyan"
_MINOR: Final = "dim"
_CELL: Final = {
    State.HUGE: ("█", "#", "cyan"),
    State.COULD: ("▒", "+", "yellow"),
    State.CANNOT: ("░", "-", "bright_black"),
    State.NONE: ("·", ".", "bright_black"),
}
"""Sign of a cell, the same where only ASCII can be shown, and its colour."""
_BARS: Final = "▁▂▃▄▅▆▇█"
_ASCII_BARS: Final = "_.-=+*#@"


def shown(diagnosis: Diagnosis) -> RenderableType:
    """Return a diagnosis for a person to read from top to bottom."""
    parts: list[RenderableType] = [summary(diagnosis)]
    if diagnosis.strips:
        parts += [_heading("Where it lies"), _Strips(diagnosis.strips)]
    parts += [_heading("Whose memory it is"), _owners(diagnosis.owners)]
    if diagnosis.files:
        title = "Beside it: memory of files and shared memory on base pages"
        parts += [_heading(title), _findings(diagnosis.files, diagnosis.resident_kib)]
    if diagnosis.notes:
        parts += [_heading("Notes"), *(Padding(note, (0, 0, 0, 1)) for note in diagnosis.notes)]
    return Group(*parts)


def summary(diagnosis: Diagnosis) -> RenderableType:
    """Return the first part of a diagnosis: how much is huge, and why the rest is not."""
    about = (
        f"THP mode {diagnosis.mode}",
        f"{format_kib(diagnosis.resident_kib)} resident",
        f"{diagnosis.faults.minor:,} minor faults",
        *diagnosis.programs,
    )
    parts: list[RenderableType] = [
        Text(diagnosis.headline, style=_HEADING),
        Text(", ".join(about), style=_MINOR),
    ]
    if diagnosis.reasons:
        title = "Why the rest is on base pages, most to be won first"
        parts += [_heading(title), _findings(diagnosis.reasons, diagnosis.anon_kib)]
    return Group(*parts)


def _heading(text: str) -> RenderableType:
    return Padding(Text(text, style=_HEADING), (1, 0, 0, 0))


def _findings(findings: Sequence[Finding], of_kib: int) -> RenderableType:
    grid = Table.grid(padding=(0, 0, 0, 1))
    grid.add_column(justify="right", no_wrap=True, min_width=8)
    grid.add_column()
    large = [each for each in findings if each.wins and each.kib >= _LEAST_SHARE * of_kib]
    small = [each for each in findings if each.wins and each not in large]
    for _, alike in itertools.groupby(large, key=lambda each: (each.action, each.cost)):
        *others, last = alike
        for each in others:
            grid.add_row(format_kib(each.kib), _reason(each))
        grid.add_row(format_kib(last.kib), _reason(last).append_text(_remedy(last)))
    _add_sum(grid, "less than 1 % each", small)
    _add_sum(grid, "nothing to be done", [each for each in findings if not each.wins])
    return grid


def _add_sum(grid: Table, what: str, findings: Sequence[Finding]) -> None:
    """Add one row for several reasons, if there are any."""
    if findings:
        names = ", ".join(each.reason for each in findings)
        kib = sum(each.kib for each in findings)
        grid.add_row(format_kib(kib), Text(f"{what}: {names}", style=_MINOR))


def _reason(each: Finding) -> Text:
    return Text.assemble((each.reason, _HEADING), f": {each.why}")


def _remedy(each: Finding) -> Text:
    """Return what wins this memory, and that of reasons above it without a remedy of their own."""
    return Text.assemble(("\n" + each.action, _ACTION), (f"\nCost: {each.cost}", _MINOR))


def _owners(owners: Iterable[Owned]) -> RenderableType:
    drawn = Table(box=None, padding=(0, 1, 0, 1), header_style=_MINOR)
    drawn.add_column("")
    for figure in ("resident", "anonymous", "huge"):
        drawn.add_column(figure, justify="right")
    drawn.add_column("known by")
    for each in owners:
        if each.resident_kib >= KIB:
            figures = (each.resident_kib, each.anon_kib, each.huge_kib)
            drawn.add_row(each.owner.value, *map(format_kib, figures), each.owner.known_by.value)
    return drawn


@dataclass(frozen=True, slots=True)
class _Strips:
    """Strips of cells, with what they mean; in ASCII where the terminal knows nothing else."""

    strips: tuple[Strip, ...]

    def __rich_console__(self, _: Console, options: ConsoleOptions) -> RenderResult:
        legend = Text(" ")
        for state in State:
            legend.append(*self._sign(state, options))
            legend.append(f" {state}  ", style=_MINOR)
        yield legend
        drawn = Table(box=None, padding=(0, 1, 0, 1), header_style=_MINOR)
        drawn.add_column("", no_wrap=True)
        drawn.add_column("length", justify="right", no_wrap=True)
        drawn.add_column("a cell", justify="right", no_wrap=True)
        drawn.add_column("", no_wrap=True)
        for strip in self.strips:
            cells = Text()
            for state in strip.cells:
                cells.append(*self._sign(state, options))
            sizes = map(format_kib, (strip.length_kib, strip.cell_kib))
            drawn.add_row(strip.owner.value, *sizes, cells)
        yield drawn
        if not all(strip.in_order for strip in self.strips):
            yield Text(" This kernel does not tell where what lies: cells are sorted.", _MINOR)

    @staticmethod
    def _sign(state: State, options: ConsoleOptions) -> tuple[str, str]:
        sign, ascii_sign, style = _CELL[state]
        return (ascii_sign if options.ascii_only else sign), style


@dataclass(frozen=True, slots=True)
class History:
    """How coverage, memory and faults of a running process went."""

    samples: Sequence[Sample]

    def __rich_console__(self, _: Console, options: ConsoleOptions) -> RenderResult:
        last = self.samples[-1]
        grid = Table.grid(padding=(0, 1, 0, 1))
        held = [each.held.rss_kib for each in self.samples]
        for name, now, values in (
            ("coverage", f"{last.coverage:.0%}", [each.coverage for each in self.samples]),
            ("resident", format_kib(held[-1]), held),
            ("minor faults", f"{last.minor_faults:,}", [s.minor_faults for s in self.samples]),
        ):
            highest = 1.0 if name == "coverage" else max(values)
            bars = _ASCII_BARS if options.ascii_only else _BARS
            grid.add_row(name, Text(now, justify="right"), sparkline(values, highest, bars))
        yield grid


def sparkline(values: Sequence[float], highest: float, bars: str = _BARS) -> str:
    """Return one character for each of ``values``, from nothing to ``highest``.

    >>> sparkline([0, 1, 2, 4], 4)
    '▁▃▅█'
    """
    top = len(bars) - 1
    return "".join(bars[round(top * value / highest) if highest else 0] for value in values)
