"""Memory that is brought in before it is used: populated or locked, and advised before or after.

``mlock(2)`` and ``MADV_POPULATE_WRITE`` take the faults of a whole range in one call, by the same
path as a program that writes: what was advised before gets huge pages, what was not does not
(``populate_vma_page_range()`` in ``mm/gup.c``). ``mlockall(MCL_FUTURE)`` locks each mapping as it
is made, so it comes before any advice; the first way below shows what follows.
"""

from __future__ import annotations

import resource
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from hugeprobe import smaps
from hugeprobe.areas import Resident, aligned_area, resident, too_much, touch
from hugeprobe.errors import NotObservable
from hugeprobe.linux import Advice, advise, lock
from hugeprobe.sizes import KIB, PageSizes, format_kib, page_sizes

if TYPE_CHECKING:
    from collections.abc import Callable

    from hugeprobe.placement import Span

_PMDS: Final = 2
"""Length in PMDs: 4 MiB on x86-64, below the 8 MiB that most systems let any user lock."""


@dataclass(frozen=True, slots=True)
class Way:
    """An order of calls.

    Parameters
    ----------
    name
        What the program does, in words.
    calls
        The calls, in order.
    """

    name: str
    calls: tuple[Callable[[Span], None], ...]


@dataclass(frozen=True, slots=True)
class BroughtIn:
    """What one way came to.

    Parameters
    ----------
    way
        The order of calls.
    faults
        Minor faults of the calls.
    later
        Minor faults of the program's own first writes, afterwards.
    resident
        What is in memory in the end.
    locked_kib
        What of it the kernel may not take away.
    """

    way: Way
    faults: int
    later: int
    resident: Resident
    locked_kib: int


def _advise(span: Span) -> None:
    advise(span.start, span.length, Advice.HUGEPAGE)


def _populate(span: Span) -> None:
    advise(span.start, span.length, Advice.POPULATE_WRITE)


def _lock(span: Span) -> None:
    lock(span.start, span.length)


WAYS: Final = (
    Way("map, lock, advise", (_lock, _advise)),
    Way("map, advise, lock", (_advise, _lock)),
    Way("map, advise, populate", (_advise, _populate)),
    Way("map, advise, touch", (_advise,)),
)


def bring_in(way: Way, sizes: PageSizes | None = None) -> BroughtIn | NotObservable:
    """Do what a way says with new memory, write it, and see what it is backed by."""
    sizes = sizes or page_sizes()
    length = _PMDS * sizes.pmd
    if missing := too_much(length):
        return missing
    with aligned_area(length, sizes) as span:
        before = _faults()
        for call in way.calls:
            try:
                call(span)
            except OSError as error:
                return NotObservable(_refusal(way, span, error))
        faults = _faults() - before
        later = touch(span)
        within = smaps.snapshot("self").within(span.start, span.end)
        locked = sum(mapping.locked_kib or 0 for mapping in within)
        return BroughtIn(way, faults, later, resident(span), locked)


def _faults() -> int:
    return resource.getrusage(resource.RUSAGE_THREAD).ru_minflt


def _refusal(way: Way, span: Span, error: OSError) -> str:
    limit, _ = resource.getrlimit(resource.RLIMIT_MEMLOCK)
    words = "any size" if limit == resource.RLIM_INFINITY else format_kib(limit / KIB)
    return (
        f"the kernel refused \u201c{way.name}\u201d for {format_kib(span.length / KIB)} "
        f"({error.strerror}); this process may lock {words}"
    )
