"""Memory that is brought in before it is used, or kept once it is: populated, locked, and advised.

``mlock(2)`` and ``MADV_POPULATE_WRITE`` take the faults of a whole range in one call, by the same
path as a program that writes: what was advised before gets huge pages, what was not does not
(``populate_vma_page_range()`` in ``mm/gup.c``). ``mlockall(MCL_FUTURE)`` locks each mapping as it
is made, so it comes before any advice; with ``MCL_ONFAULT`` it brings nothing in, and the advice
is in time. :data:`WAYS` are the orders of calls on new memory, :data:`ARMS` the same for a whole
process that serves a model.
"""

from __future__ import annotations

import resource
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

from hugeprobe import arms, smaps
from hugeprobe.areas import Resident, aligned_area, reserved, resident, too_much, touch
from hugeprobe.errors import NoMemoryError, NotObservable
from hugeprobe.linux import Advice, advise, lock
from hugeprobe.sizes import KIB, PageSizes, format_kib, page_sizes

if TYPE_CHECKING:
    from collections.abc import Callable

    from hugeprobe.arms import Arm
    from hugeprobe.placement import Span
    from hugeprobe.runtimes import Lock

_PMDS: Final = 2
"""Length in PMDs: 4 MiB on x86-64, below the 8 MiB that most systems let any user lock."""
_TRIES: Final = 8
_PAGES_COLLAPSED: Final = "sys/kernel/mm/transparent_hugepage/khugepaged/pages_collapsed"


@dataclass(frozen=True, slots=True)
class Way:
    """An order of calls.

    Parameters
    ----------
    name
        What the program does, in words.
    calls
        The calls, in order, before it uses the memory itself.
    after
        A call after that.
    """

    name: str
    calls: tuple[Callable[[Span], None], ...]
    after: tuple[Callable[[Span], None], ...] = ()


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


def advise_huge(span: Span) -> None:
    """Advise for huge pages."""
    advise(span.start, span.length, Advice.HUGEPAGE)


def lock_now(span: Span) -> None:
    """Lock, and so bring in at once."""
    lock(span.start, span.length)


def _lock_on_fault(span: Span) -> None:
    lock(span.start, span.length, on_fault=True)


def _populate(span: Span) -> None:
    advise(span.start, span.length, Advice.POPULATE_WRITE)


def _collapse(span: Span) -> None:
    advise(span.start, span.length, Advice.COLLAPSE)


WAYS: Final = (
    Way("map, lock, advise", (lock_now, advise_huge)),
    Way("map, advise, lock", (advise_huge, lock_now)),
    Way("map, lock on fault, advise", (_lock_on_fault, advise_huge)),
    Way("map, lock, collapse", (lock_now,), (_collapse,)),
    Way("map, advise, populate", (advise_huge, _populate)),
    Way("map, advise", (advise_huge,)),
)
"""Orders of calls on new memory, which the program then writes."""


def bring_in(way: Way, sizes: PageSizes | None = None) -> BroughtIn | NotObservable:
    """Do what a way says with new memory, write it, and see what it is backed by.

    The first advice in a process can wake khugepaged, which may then make huge what the calls did
    not, within milliseconds. What it met is thrown away and done again.
    """
    sizes = sizes or page_sizes()
    if missing := too_much(_PMDS * sizes.pmd):
        return missing
    for _ in range(_TRIES):
        before = _collapsed()
        found = _bring_in(way, sizes)
        if _collapsed() == before:
            return found
    return NotObservable("khugepaged made huge pages all the while")


def _collapsed(root: Path = Path("/")) -> int:
    """Return how many huge pages khugepaged has made on this host, 0 where the kernel has none."""
    try:
        return int((root / _PAGES_COLLAPSED).read_text())
    except OSError:
        return 0


def _bring_in(way: Way, sizes: PageSizes) -> BroughtIn | NotObservable:
    length = _PMDS * sizes.pmd
    with aligned_area(length, sizes) as span:
        try:
            before = minor_faults()
            _do(way.calls, span)
            faults = minor_faults() - before
            later = touch(span)
            _do(way.after, span)
        except OSError as error:
            return refusal(way, span, error)
        within = smaps.snapshot("self").within(span.start, span.end)
        locked = sum(mapping.locked_kib or 0 for mapping in within)
        return BroughtIn(way, faults, later, resident(span), locked)


def _do(calls: tuple[Callable[[Span], None], ...], span: Span) -> None:
    for call in calls:
        call(span)


def minor_faults() -> int:
    """Return the minor faults of this thread so far."""
    return resource.getrusage(resource.RUSAGE_THREAD).ru_minflt


def refusal(way: Way, span: Span, error: OSError) -> NotObservable:
    """Say that the kernel refused a call, and how much this process may lock."""
    size = format_kib(span.length / KIB)
    return NotObservable(
        f"the kernel refused \u201c{way.name}\u201d for {size} ({error.strerror}); "
        f"this process may lock {_limit()}"
    )


def _limit() -> str:
    limit, _ = resource.getrlimit(resource.RLIMIT_MEMLOCK)
    return "any size" if limit == resource.RLIM_INFINITY else format_kib(limit / KIB)


# Whole processes ----------------------------------------------------------------------------------


def refused_all() -> NotObservable | None:
    """Say that this process, and those that it starts, may not lock all of their memory, if so.

    Capabilities do not tell: within a user namespace they do not count for this. So more address
    space than the limit is locked, none of which is used.
    """
    limit, _ = resource.getrlimit(resource.RLIMIT_MEMLOCK)
    if limit == resource.RLIM_INFINITY:
        return None
    try:
        with reserved(limit + page_sizes().base) as span:
            _lock_on_fault(span)
    except (OSError, NoMemoryError):
        return NotObservable(
            f"a process may lock {_limit()} here (`ulimit -l`), "
            "and one that serves a model maps more than that"
        )
    return None


_ONE_THREAD: Final = {"OPENBLAS_NUM_THREADS": "1"}
"""Else NumPy has a thread for each processor, and the locked stacks of all of them would count."""


def _locked(arm: Arm, when: Lock) -> Arm:
    words = "not locked" if when == "never" else f"locked {when}"
    name = f"{arm.name}, {words}"
    return replace(arm, name=name, env={**arm.env, **_ONE_THREAD}, lock=when)


ARMS: Final = (
    _locked(arms.DEFAULT, "never"),
    _locked(arms.DEFAULT, "at the start"),
    _locked(arms.KEEP, "never"),
    _locked(arms.KEEP, "at the start"),
    _locked(arms.KEEP, "at the start, on fault"),
    _locked(arms.KEEP, "once warm"),
)
"""A process as it is, and one that asks for huge pages, each locked or not."""
