"""What follows from a record: medians, ratios to the first arm with intervals, and the floor."""

from __future__ import annotations

import statistics
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal

from hugeprobe import compare
from hugeprobe.arms import AGAIN, OFF, TOUCHED

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from hugeprobe.bench.record import BenchRecord, CellFacts, Run, StageResult
    from hugeprobe.compare import Ratio

Moment = Literal["load", "first", "steady"]
"""Stages that are compared: loading, the first inference at every new shape, and once all is
warm."""

MOMENTS: Final[tuple[Moment, ...]] = ("load", "first", "steady")
_PAGES_OF_HUGE: Final = 512
"""Base pages of 4 KiB in a huge page of 2 MiB."""
_FEWEST: Final = 5
"""Runs of each arm below which no interval is given: the bootstrap of fewer is too narrow."""


@dataclass(frozen=True, slots=True)
class Spread:
    """Median of one quantity over the runs of an arm, with the least and the most.

    Parameters
    ----------
    median, least, most
        All of one unit.
    """

    median: float
    least: float
    most: float

    @staticmethod
    def of(values: Sequence[float]) -> Spread:
        """Describe at least one value."""
        return Spread(statistics.median(values), min(values), max(values))


@dataclass(frozen=True, slots=True)
class Effect:
    """One arm at one moment of one cell.

    Parameters
    ----------
    cell, arm, moment
        What it is.
    runs
        Runs that finished.
    faults
        Minor faults: of the whole stage, or of one inference once all is warm.
    seconds
        Time of the whole stage, or of one inference at each shape.
    anon_kib, huge_kib, resident_kib, vmas
        Medians after the stage; see :class:`hugeprobe.bench.record.StageResult`.
    speedup
        Time of the first arm over time of this one; None for the first arm itself, and where there
        are fewer than five runs of either.
    floor_faults
        Faults if every byte that was touched had come in 2 MiB pages: those of the arm without huge
        pages, divided by 512. None where that arm was not run.
    floor_seconds
        Time where all memory had been touched before; None where that arm was not run.
    """

    cell: CellFacts
    arm: str
    moment: Moment
    runs: int
    faults: Spread
    seconds: Spread
    anon_kib: float
    huge_kib: float
    resident_kib: float
    vmas: float
    speedup: Ratio | None
    floor_faults: int | None
    floor_seconds: float | None

    @property
    def coverage(self) -> float:
        """Share of the anonymous memory that is huge after the stage, 0 to 1."""
        return self.huge_kib / self.anon_kib if self.anon_kib else 0.0

    @property
    def verdict(self) -> Literal["faster", "slower", "no difference shown", ""]:
        """What may be said of its time against the first arm's; nothing without an interval."""
        if self.speedup is None:
            return ""
        if not self.speedup.differs:
            return "no difference shown"
        return "faster" if self.speedup.value > 1 else "slower"


def faults_at(result: StageResult) -> float:
    """Return the faults that are compared: all of the stage, or the mean of a warm inference."""
    return sum(result.faults) / (result.steps if result.stage == "steady" else 1)


def seconds_at(result: StageResult, cell: CellFacts) -> float:
    """Return the time that is compared: of the whole stage, or of one warm round of all shapes."""
    return sum(result.seconds) / (cell.steady if result.stage == "steady" else 1)


def _results(runs: Sequence[Run], moment: Moment) -> list[StageResult]:
    return [result for run in runs if (result := run.at(moment)) is not None]


def effects(record: BenchRecord, cell: CellFacts, moment: Moment) -> Iterator[Effect]:
    """Yield what each arm of a cell came to at one moment, in the order of the cell's arms."""
    by_arm = {arm: found for arm in cell.arms if (found := _results(record.of(cell, arm), moment))}
    times = {arm: [seconds_at(each, cell) for each in found] for arm, found in by_arm.items()}
    faults = {arm: [faults_at(each) for each in found] for arm, found in by_arm.items()}
    first = times.get(cell.arms[0], [])
    for arm, found in by_arm.items():
        comparable = arm != cell.arms[0] and min(len(first), len(times[arm])) >= _FEWEST
        yield Effect(
            cell,
            arm,
            moment,
            runs=len(found),
            faults=Spread.of(faults[arm]),
            seconds=Spread.of(times[arm]),
            anon_kib=statistics.median(each.anon_kib for each in found),
            huge_kib=statistics.median(each.huge_kib for each in found),
            resident_kib=statistics.median(each.resident_kib for each in found),
            vmas=statistics.median(each.vmas for each in found),
            speedup=compare.ratio(first, times[arm]) if comparable else None,
            floor_faults=floor_faults(faults.get(OFF.name)),
            floor_seconds=statistics.median(times[TOUCHED.name]) if TOUCHED.name in times else None,
        )


def floor_faults(off: Sequence[float] | None) -> int | None:
    """Return the faults that 2 MiB pages would have cost, from those of runs without huge pages."""
    return None if off is None else -int(-statistics.median(off) // _PAGES_OF_HUGE)


def everything(record: BenchRecord) -> Iterator[Effect]:
    """Yield every effect of a record."""
    for cell in record.cells:
        for moment in MOMENTS:
            yield from effects(record, cell, moment)


def between(
    record: BenchRecord, cell: CellFacts, moment: Moment, first: str, second: str
) -> Ratio | None:
    """Return the time of one arm over that of another, where both ran often enough."""
    times = [
        [seconds_at(each, cell) for each in _results(record.of(cell, arm), moment)]
        for arm in (first, second)
    ]
    return compare.ratio(*times) if min(map(len, times)) >= _FEWEST else None


def failures(record: BenchRecord) -> list[Run]:
    """Return the runs that did not finish or could not be made, one for each reason and arm."""
    found = {
        (run.workload, run.runtime, run.arm, run.failure): run
        for run in record.runs
        if run.failure is not None
    }
    return list(found.values())


@dataclass(frozen=True, slots=True)
class Chance:
    """How often two equal arms seem to differ, which says what an interval is worth here.

    Parameters
    ----------
    comparisons
        Comparisons of the first arm with itself, run a second time under another name.
    differing
        Those whose interval excludes 1 although there is nothing to find.
    """

    comparisons: int
    differing: int


def chance(record: BenchRecord) -> Chance:
    """Count the comparisons of equal arms, and those that differ all the same."""
    equal = [
        effect.speedup
        for effect in everything(record)
        if effect.arm == AGAIN.name and effect.speedup is not None
    ]
    return Chance(len(equal), sum(ratio.differs for ratio in equal))
