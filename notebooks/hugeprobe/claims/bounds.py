"""What of the recorded times huge pages can account for.

The benchmark ran on one kernel, so it cannot compare the rule with its fix. It bounds them: a rule
can at worst take all huge pages away, and the benchmark ran without any.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from hugeprobe import arms
from hugeprobe.bench import summary
from hugeprobe.errors import NotObservable

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from hugeprobe.bench.record import BenchRecord, CellFacts
    from hugeprobe.bench.summary import Effect, Moment
    from hugeprobe.compare import Ratio

WITH_HUGE_PAGES: Final = (arms.ADVISE, arms.KEEP, arms.COLLAPSE, arms.ALWAYS)
CLAIMED_BATCHES: Final = (8, 32)
CLAIMED_LENGTHS: Final = (64, 512)
"""Where the issue saw its largest gain."""


@dataclass(frozen=True, slots=True)
class Bound:
    """One workload without any huge pages against the same with them.

    Parameters
    ----------
    cell, moment
        Workload, runtime, and when.
    arm
        How huge pages were had.
    ratio
        Time without over time with them: above 1, they are faster.
    """

    cell: CellFacts
    moment: Moment
    arm: str
    ratio: Ratio

    @property
    def gains(self) -> bool:
        """Whether huge pages are shown to be faster."""
        return self.ratio.differs and self.ratio.value > 1


def bounds(
    record: BenchRecord | NotObservable,
    moments: Sequence[Moment],
    chosen: Callable[[CellFacts], bool] = lambda _: True,
) -> list[Bound]:
    """Return every comparison of no huge pages with some, at these moments of chosen cells."""
    if isinstance(record, NotObservable):
        return []
    return [
        Bound(cell, moment, arm.name, ratio)
        for cell in record.cells
        if chosen(cell)
        for moment in moments
        for arm in WITH_HUGE_PAGES
        if (ratio := summary.between(record, cell, moment, arms.OFF.name, arm.name)) is not None
    ]


def largest(found: Sequence[Effect]) -> Effect | None:
    """Return the effect with the largest speed-up that stands, if one is faster at all."""
    standing = [each for each in found if each.verdict == "faster"]
    return max(standing, key=speedup, default=None)


def speedup(effect: Effect) -> float:
    """Return its speed-up, 1 where there is none."""
    return effect.speedup.value if effect.speedup else 1.0


def is_claimed(cell: CellFacts) -> bool:
    """Return whether a cell's shapes are a batch and a length as the issue names them."""
    return all(
        len(shape) == len((CLAIMED_BATCHES, CLAIMED_LENGTHS))
        and CLAIMED_BATCHES[0] <= shape[0] <= CLAIMED_BATCHES[1]
        and CLAIMED_LENGTHS[0] <= shape[1] <= CLAIMED_LENGTHS[1]
        for shape in cell.shapes
    )
