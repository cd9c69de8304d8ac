"""How huge pages reach a mapping: at a fault, by advice, by collapse, or not at all.

The same aligned stretch of memory is set up in each way, touched once and measured. Counts only:
they are exact, and they repeat.
"""

from __future__ import annotations

import statistics
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from hugeprobe.areas import Resident, aligned_area, resident, too_much, touch
from hugeprobe.errors import NotObservable
from hugeprobe.linux import Advice, advise
from hugeprobe.sizes import MIB, PageSizes, page_sizes

if TYPE_CHECKING:
    from hugeprobe.placement import Span

_PMDS: Final = 32
"""Length of the stretch in PMDs: 64 MiB on x86-64."""
_ROUNDS: Final = 9


@dataclass(frozen=True, slots=True)
class Way:
    """A way to set up memory: what is advised before it is touched, and what after.

    Parameters
    ----------
    name
        What the program does, in words.
    before, after
        Advice before the first touch and after it.
    """

    name: str
    before: Advice | None = None
    after: Advice | None = None


@dataclass(frozen=True, slots=True)
class Arrival:
    """What one way came to.

    Parameters
    ----------
    way
        How the memory was set up.
    minor_faults
        Faults that the first touch cost.
    resident
        What is in memory in the end, or why that could not be had.
    """

    way: Way
    minor_faults: int
    resident: Resident | NotObservable


WAYS: Final = (
    Way("map, touch"),
    Way("map, advise, touch", before=Advice.HUGEPAGE),
    Way("map, touch, advise", after=Advice.HUGEPAGE),
    Way("map, forbid, touch", before=Advice.NOHUGEPAGE),
    Way("map, touch, collapse", after=Advice.COLLAPSE),
)


def arrive(way: Way, sizes: PageSizes | None = None) -> Arrival | NotObservable:
    """Set up memory in one ``way`` and measure what it is backed by.

    Parameters
    ----------
    way
        One of :data:`WAYS`, or another.
    sizes
        Page sizes; those of this machine if not given.
    """
    sizes = sizes or page_sizes()
    length = min(_PMDS * sizes.pmd, max(sizes.pmd, 1024 * MIB))
    if missing := too_much(length):
        return missing
    with aligned_area(length, sizes) as span:
        if way.before is not None and (refusal := _refused(span, way.before)):
            return refusal
        faults = touch(span)
        if way.after is not None and (refusal := _refused(span, way.after)):
            return Arrival(way, faults, refusal)
        return Arrival(way, faults, resident(span))


def base_fault_us(sizes: PageSizes | None = None) -> float | NotObservable:
    """Return the median time of a fault that is answered with one base page, in microseconds.

    It is what the first write to a mapping takes for each page: the fault, clearing the page, and
    the write itself. The figure is of this moment and this host; another one is another.
    """
    sizes = sizes or page_sizes()
    length = _PMDS // 2 * sizes.pmd
    if missing := too_much(length):
        return missing
    times = []
    for _ in range(_ROUNDS):
        with aligned_area(length, sizes) as span:
            if refusal := _refused(span, Advice.NOHUGEPAGE):
                return refusal
            start = time.perf_counter_ns()
            faults = touch(span)
            times.append((time.perf_counter_ns() - start) / 1000 / faults)
    return statistics.median(times)


def _refused(span: Span, advice: Advice) -> NotObservable | None:
    """Give the advice; return why the kernel would not take it, if so (``madvise(2)``)."""
    try:
        advise(span.start, span.length, advice)
    except OSError as error:
        return NotObservable(f"the kernel refused MADV_{advice.name} ({error.strerror})")
    return None
