"""Make memory huge that could be and is not, now: of a running process, or of this one.

``MADV_COLLAPSE`` (since Linux 6.1) copies a whole aligned range of base pages into one huge page,
at once and whatever the THP mode, even ``never``. What the process reads there is the same before
and after; while a range is copied, the process waits if it needs a page of it or wants to change
its mappings. Pages that were missing in a range are filled with zeros, which takes memory: ranges
that are mostly empty are left out, and so are ranges that are shared with a forked process, each of
which would get a copy of its own. Sources: ``madvise(2)``, ``process_madvise(2)``,
``madvise_collapse()`` in ``mm/khugepaged.c``.
"""

from __future__ import annotations

import errno
import os
import re
import select
import time
from collections import Counter
from contextlib import contextmanager
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np

from hugeprobe import linux, pagemap, smaps
from hugeprobe.errors import (
    BadRequestError,
    NotObservable,
    NotPermittedError,
    ProbeError,
    ProcessGoneError,
)
from hugeprobe.linux import Advice
from hugeprobe.pagemap import RangePages
from hugeprobe.placement import Span
from hugeprobe.sizes import KIB, MIB, PageSizes, page_sizes
from hugeprobe.smaps import Kind

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from collections.abc import Mapping as ReadOnlyDict

    from numpy.typing import NDArray

    from hugeprobe.pagemap import PageMap

MIN_RESIDENT: Final = 0.5
"""Share of a range that must be resident for it to be made huge, if nothing else is asked for."""

_AT_ONCE: Final = 32 * MIB
"""Most that one call is given: each call first has the kernel gather pages from all processors."""
_PAUSES_PER_SECOND: Final = 10
"""How finely a rate is kept, as far as single huge pages allow."""
_NEVER_HUGE: Final = frozenset({"nh", "io", "pf", "de", "mm", "ht"})
"""Flags of mappings that ``__thp_vma_allowable_orders()`` in ``mm/huge_memory.c`` turns away."""
_CAP_SYS_NICE: Final = 23
_OLD_KERNEL: Final = NotObservable(
    "this kernel cannot collapse memory on request: it is older than Linux 6.1, or was built "
    "without transparent huge pages"
)


class LeftOut(str, Enum):
    """Why memory on base pages is not tried."""

    OUTSIDE = "outside whole aligned ranges"
    """Before the first or behind the last PMD boundary of its mapping."""
    SPARSE = "in ranges that are mostly empty"
    """Fewer pages of the range are resident than the share that was asked for."""
    SHARED = "in ranges shared since a fork"
    """With another process, so that a huge page would be a copy."""
    FORBIDDEN = "where huge pages are forbidden"
    """By ``MADV_NOHUGEPAGE``, ``PR_SET_THP_DISABLE`` or the kind of the mapping."""
    OTHER = "in stacks and copies of file pages"
    """Not in a private anonymous mapping or the heap."""


@dataclass(frozen=True, slots=True)
class State:
    """Memory of a process at one moment, in KiB.

    Parameters
    ----------
    anonymous_kib
        Resident anonymous memory.
    huge_kib
        What of it PMD entries map.
    resident_kib
        All resident memory.
    """

    anonymous_kib: int
    huge_kib: int
    resident_kib: int

    @property
    def coverage(self) -> float:
        """Share of the anonymous memory that is huge, 0 to 1."""
        return self.huge_kib / (self.anonymous_kib or 1)


@dataclass(frozen=True, slots=True)
class CollapsePlan:
    """What is to be made huge, and what is not.

    What is huge already, ``base_kib`` and ``left_out`` add up to the anonymous memory.

    Parameters
    ----------
    spans
        Runs of whole aligned ranges, in order of address; some ranges in them may be huge already.
    base_kib
        Memory on base pages in them: what is eligible.
    growth_kib
        Memory that the process gains if all of it becomes huge.
    left_out
        Memory on base pages that is not tried, in KiB, by the reason.
    """

    spans: tuple[Span, ...]
    base_kib: int
    growth_kib: int
    left_out: ReadOnlyDict[LeftOut, int]

    @staticmethod
    def total(parts: Iterable[CollapsePlan]) -> CollapsePlan:
        """Return the sum of the plans for the mappings of one process."""
        parts = tuple(parts)
        return CollapsePlan(
            tuple(span for part in parts for span in part.spans),
            sum(part.base_kib for part in parts),
            sum(part.growth_kib for part in parts),
            {reason: sum(part.left_out.get(reason, 0) for part in parts) for reason in LeftOut},
        )


@dataclass(frozen=True, slots=True)
class Refusal:
    """A run of ranges that the kernel did not make huge.

    Parameters
    ----------
    span
        The ranges.
    error
        Name of the error number, such as ``EAGAIN``; :data:`MEANINGS` has it in words.
    """

    span: Span
    error: str


MEANINGS: Final = {
    "EAGAIN": "the kernel was using pages of it, perhaps for input or output; try again",
    "ENOMEM": "no huge page was free (memory is short or fragmented), or it was unmapped meanwhile",
    "EBUSY": "the memory control group is at its limit",
    "EINVAL": "it was emptied or forbidden meanwhile, or holds pages that cannot be moved",
}
"""What the errors of a range mean (``madvise_collapse_errno()`` in ``mm/khugepaged.c``)."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a process.

    Parameters
    ----------
    pid
        The process.
    plan
        What was to be done.
    before, after
        Its memory; no ``after`` where nothing was done, or where the process ended meanwhile.
    tried_kib
        Length of the ranges that were given to the kernel.
    refusals
        Which of them it did not make huge.
    seconds
        Wall-clock time of the calls and of the pauses between them.
    stopped
        A sentence that says why not all ranges were tried, or None.
    """

    pid: int
    plan: CollapsePlan
    before: State
    after: State | None = None
    tried_kib: int = 0
    refusals: tuple[Refusal, ...] = ()
    seconds: float = 0.0
    stopped: str | None = None

    @property
    def made_huge_kib(self) -> int:
        """Huge memory that was won; what the process itself did meanwhile counts, too."""
        return 0 if self.after is None else self.after.huge_kib - self.before.huge_kib

    @property
    def growth_kib(self) -> int:
        """Resident memory that was gained; what the process itself did meanwhile counts, too."""
        return 0 if self.after is None else self.after.resident_kib - self.before.resident_kib

    @property
    def refused_kib(self) -> dict[str, int]:
        """Length of the refused ranges in KiB, by the name of the error."""
        sums: Counter[str] = Counter()
        for refusal in self.refusals:
            sums[refusal.error] += refusal.span.length // KIB
        return dict(sums)


# Planning -----------------------------------------------------------------------------------------


def plan(
    mappings: Iterable[smaps.Mapping],
    pages: PageMap | NotObservable,
    *,
    min_resident: float = MIN_RESIDENT,
    forbidden: bool = False,
    sizes: PageSizes | None = None,
) -> CollapsePlan:
    """Return which ranges of a process to make huge.

    Parameters
    ----------
    mappings
        Of one process.
    pages
        Its page map, or why there is none; every range of a mapping is then taken to hold as much
        as any other.
    min_resident
        Share of a range that must be resident, and this process's own, above 0 up to 1.
    forbidden
        Whether the process as a whole must not have huge pages (``PR_SET_THP_DISABLE``).
    sizes
        Page sizes; those of this machine if not given.

    Raises
    ------
    BadRequestError
        If ``min_resident`` is not such a share.
    ProcessGoneError
        If the process has ended meanwhile.
    """
    if not 0 < min_resident <= 1:
        raise BadRequestError(
            f"Ranges that are resident to a share of {min_resident:g} were asked for, but a share "
            "is above 0 and at most 1. Give one such as 0.5."
        )
    sizes = sizes or page_sizes()
    parts = []
    for mapping in mappings:
        base = (mapping.anonymous_kib or 0) - (mapping.anon_huge_kib or 0)
        if not base:
            continue
        if mapping.kind not in {Kind.ANONYMOUS, Kind.HEAP}:
            parts.append(CollapsePlan((), 0, 0, {LeftOut.OTHER: base}))
        elif forbidden or not _NEVER_HUGE.isdisjoint(mapping.vm_flags):
            parts.append(CollapsePlan((), 0, 0, {LeftOut.FORBIDDEN: base}))
        else:
            parts.append(_plan_of(mapping, pages, min_resident, sizes))
    return CollapsePlan.total(parts)


def _plan_of(
    mapping: smaps.Mapping, pages: PageMap | NotObservable, min_resident: float, sizes: PageSizes
) -> CollapsePlan:
    """Plan a mapping that may have huge pages."""
    whole = _whole_ranges(mapping.start, mapping.end, sizes.pmd)
    if isinstance(pages, NotObservable):
        counts = _spread(mapping, whole, sizes)
    else:
        counts = pages.ranges([whole], sizes.pmd)
    enough = min_resident * (sizes.pmd // sizes.base)
    chosen = counts.own >= enough
    sparse = counts.present < enough
    page_kib, huge = sizes.base // KIB, mapping.anon_huge_kib or 0
    rest = _Rest((mapping.anonymous_kib or 0) - huge)
    base = rest.take(int(counts.present[chosen].sum()) * page_kib - huge)
    left_out = {
        LeftOut.SPARSE: rest.take(int(counts.present[sparse].sum()) * page_kib),
        LeftOut.SHARED: rest.take(int(counts.present[~chosen & ~sparse].sum()) * page_kib),
        LeftOut.OUTSIDE: rest.kib,
    }
    if not base:
        return CollapsePlan((), 0, 0, left_out)
    length = int(chosen.sum()) * sizes.pmd // KIB
    growth = length - int(counts.own[chosen].sum()) * page_kib
    return CollapsePlan(tuple(_runs(chosen, whole.start, sizes.pmd)), base, growth, left_out)


@dataclass(slots=True)
class _Rest:
    """What remains of a mapping's memory, so that its parts add up, whatever changed meanwhile."""

    kib: int

    def take(self, kib: int) -> int:
        taken = min(max(0, kib), self.kib)
        self.kib -= taken
        return taken


def _whole_ranges(start: int, end: int, pmd: int) -> Span:
    """Return the part of a mapping between its first and its last PMD boundary; it may be empty."""
    first = -(-start // pmd) * pmd
    return Span(first, max(first, end // pmd * pmd))


def _spread(mapping: smaps.Mapping, whole: Span, sizes: PageSizes) -> RangePages:
    """Spread the resident pages of a mapping over its ranges evenly."""
    share = (mapping.anonymous_kib or 0) / ((mapping.end - mapping.start) // KIB)
    pages = int(share * (sizes.pmd // sizes.base))
    each = np.full(whole.length // sizes.pmd, pages, np.int64)
    return RangePages(present=each, own=each)


def _runs(chosen: NDArray[np.bool_], start: int, pmd: int) -> Iterator[Span]:
    """Join neighbours among the chosen of the ranges of ``pmd`` bytes that begin at ``start``."""
    edges = np.flatnonzero(np.diff(chosen.astype(np.int8), prepend=0, append=0))
    for first, end in edges.reshape(-1, 2).tolist():
        yield Span(start + first * pmd, start + end * pmd)


# Another process ----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Prepared:
    """A process that was looked at and is held, but not changed yet; made by :func:`prepared`.

    Parameters
    ----------
    pid
        The process.
    before
        Its memory.
    plan
        What is to be done.
    pages
        Its page map, or why it is not known which of its pages are resident.
    """

    pid: int
    before: State
    plan: CollapsePlan
    pages: PageMap | NotObservable
    _pidfd: int
    _root: Path

    def carry_out(self, *, rate_mib_s: float | None = None) -> Outcome | NotObservable:
        """Make huge what is planned; parameters, result and errors as for :func:`collapse`.

        If it is interrupted from the keyboard, the outcome tells what was done until then.
        """
        if rate_mib_s is not None and rate_mib_s <= 0:
            raise BadRequestError(
                f"A rate of {rate_mib_s:g} MiB/s was asked for, at which nothing would ever be "
                "done. Give a rate above 0, or none."
            )
        if missing := self._unable():
            return missing
        sizes = page_sizes(self._root)
        refusals: list[Refusal] = []
        tried, began, stopped = 0, time.monotonic(), None
        try:
            for span in _pieces(self.plan.spans, _step(rate_mib_s, sizes.pmd)):
                if stopped := self._stopped():
                    break
                refusals += _collapse(span, self._advise, sizes.pmd)
                tried += span.length
                if rate_mib_s is not None:
                    time.sleep(max(0.0, tried / MIB / rate_mib_s - (time.monotonic() - began)))
        except PermissionError:
            stopped = "The process changed its user or its capabilities."
        except ProcessLookupError:
            stopped = self._stopped()
        except KeyboardInterrupt:
            stopped = "It was interrupted."
        seconds = time.monotonic() - began
        return Outcome(
            self.pid,
            self.plan,
            self.before,
            self._state(),
            tried // KIB,
            tuple(_joined(refusals)),
            seconds,
            stopped,
        )

    def _advise(self, span: Span) -> None:
        linux.process_advise(self._pidfd, span.start, span.length, Advice.COLLAPSE)

    def _unable(self) -> NotObservable | None:
        """Ask the kernel whether it would, by advice for no memory at all."""
        try:
            self._advise(Span(0, 0))
        except PermissionError as error:
            raise _no_capability(self.pid, self._root) from error
        except ProcessLookupError as error:
            raise _gone(self.pid) from error
        except OSError as error:
            if error.errno not in {errno.ENOSYS, errno.EINVAL}:
                raise
            return _OLD_KERNEL
        return None

    def _stopped(self) -> str | None:
        """Return whether its memory is gone: a sentence, or None."""
        watch = select.poll()
        watch.register(self._pidfd, select.POLLIN)
        if watch.poll(0):
            return "The process ended."
        if not isinstance(self.pages, NotObservable) and self.pages.ended:
            return "The process executes another program."
        return None

    def _state(self) -> State | None:
        try:
            total = smaps.snapshot(self.pid, self._root).total
        except ProbeError:
            return None
        return None if self._stopped() else _state_of(total)


def _state_of(total: smaps.Rollup) -> State:
    return State(total.anonymous_kib, total.anon_huge_kib, total.rss_kib)


@contextmanager
def prepared(
    pid: int, *, min_resident: float = MIN_RESIDENT, root: Path = Path("/")
) -> Iterator[Prepared]:
    """Look at a process and plan, and hold it for as long as the ``with`` block lasts.

    Parameters and errors are those of :func:`collapse`.
    """
    pidfd = _hold(pid)
    try:
        with pagemap.opened(pid, root) as pages:
            snapshot, forbidden = smaps.snapshot(pid, root), _forbidden(pid, root)
            planned = plan(snapshot, pages, min_resident=min_resident, forbidden=forbidden)
            held = Prepared(pid, _state_of(snapshot.total), planned, pages, pidfd, root)
            if held._stopped():
                raise _gone(pid)  # and the number may belong to another process by now
            yield held
    finally:
        os.close(pidfd)


def collapse(
    pid: int,
    *,
    rate_mib_s: float | None = None,
    dry_run: bool = False,
    min_resident: float = MIN_RESIDENT,
    root: Path = Path("/"),
) -> Outcome | NotObservable:
    """Make huge what can be huge of another process.

    The process is held by a descriptor (``pidfd_open(2)``): if it ends meanwhile, no other process
    that gets its number is touched.

    Parameters
    ----------
    pid
        Process number.
    rate_mib_s
        Most MiB that are given to the kernel in a second; as fast as it can if not given.
    dry_run
        Whether only to say what would be done.
    min_resident
        Share of a range that must be resident, and this process's own, above 0 up to 1. A range of
        which a tenth is resident takes ten times the memory once it is huge.
    root
        Where ``proc`` and ``sys`` are.

    Returns
    -------
    Outcome or NotObservable
        The latter where this kernel cannot.

    Raises
    ------
    ProcessGoneError
        If there is no such process, or it ended before anything was done.
    NotPermittedError
        If it belongs to someone else, or ``CAP_SYS_NICE`` is missing.
    BadRequestError
        If it is a kernel thread, or a parameter makes no sense.
    """
    with prepared(pid, min_resident=min_resident, root=root) as held:
        if dry_run:
            return Outcome(pid, held.plan, held.before)
        return held.carry_out(rate_mib_s=rate_mib_s)


def _hold(pid: int) -> int:
    try:
        return linux.pidfd_open(pid)
    except OSError as error:
        if error.errno == errno.ESRCH:
            raise _gone(pid) from error
        if error.errno in {errno.EINVAL, errno.ENOENT}:
            raise BadRequestError(
                f"Process {pid} was asked for, but that is not the number of a process; of a "
                "thread, perhaps. Find the number with `pgrep -a python`."
            ) from error
        raise NotPermittedError(
            f"Process {pid} was to be held, and the kernel refused pidfd_open: it is older than "
            "Linux 5.3, or a seccomp filter forbids the call. Nothing was changed."
        ) from error


def _gone(pid: int) -> ProcessGoneError:
    return ProcessGoneError(
        f"Process {pid} was to be collapsed, but there is no such process. It may have ended: look "
        "for it with `ps -e`. Nothing was changed."
    )


def _forbidden(pid: int, root: Path) -> bool:
    """Return whether the process has given up huge pages (``THP_enabled``, since Linux 5.0)."""
    return bool(re.search(r"^THP_enabled:\s+0$", _status(pid, root), re.MULTILINE))


def _status(pid: smaps.Pid, root: Path) -> str:
    try:
        return (root / "proc" / str(pid) / "status").read_text(errors="replace")
    except OSError:
        return ""


def _no_capability(pid: int, root: Path) -> NotPermittedError:
    effective = re.search(r"^CapEff:\s+([0-9a-f]+)$", _status("self", root), re.MULTILINE)
    capable = effective and int(effective[1], 16) >> _CAP_SYS_NICE & 1
    why = (
        "a seccomp filter forbids process_madvise, or CAP_SYS_NICE holds in a user namespace only"
        if capable
        else "for another process it needs the capability CAP_SYS_NICE"
    )
    return NotPermittedError(
        f"Process {pid} was to be collapsed, and the kernel refused: {why}. Run "
        f"`sudo hugeprobe collapse {pid}` outside of containers, or have the process call "
        "hugeprobe.collapse.collapse_self(), which needs no privilege. Nothing was changed."
    )


# Ranges -------------------------------------------------------------------------------------------


def _step(rate_mib_s: float | None, pmd: int) -> int:
    """Return how many bytes to give to the kernel at once: whole ranges of ``pmd`` bytes."""
    most = _AT_ONCE if rate_mib_s is None else int(rate_mib_s * MIB / _PAUSES_PER_SECOND)
    return max(pmd, min(most, _AT_ONCE) // pmd * pmd)


def _pieces(spans: Iterable[Span], length: int) -> Iterator[Span]:
    """Cut spans into pieces of ``length`` bytes at most."""
    for span in spans:
        for start in range(span.start, span.end, length):
            yield Span(start, min(start + length, span.end))


def _collapse(span: Span, advise: Callable[[Span], None], pmd: int) -> list[Refusal]:
    """Give a run of ranges to the kernel; if it refuses, one by one, to learn which and why."""
    try:
        advise(span)
    except (PermissionError, ProcessLookupError):
        raise
    except OSError as error:
        if span.length > pmd:
            return [each for one in _pieces([span], pmd) for each in _collapse(one, advise, pmd)]
        return [Refusal(span, errno.errorcode.get(error.errno or 0, "unknown"))]
    return []


def _joined(refusals: Iterable[Refusal]) -> list[Refusal]:
    """Join neighbours that were refused for one reason."""
    joined: list[Refusal] = []
    for refusal in refusals:
        last = joined[-1] if joined else None
        if last and (last.span.end, last.error) == (refusal.span.start, refusal.error):
            joined[-1] = Refusal(Span(last.span.start, refusal.span.end), last.error)
        else:
            joined.append(refusal)
    return joined


# This process -------------------------------------------------------------------------------------


def collapse_self(*, min_resident: float = MIN_RESIDENT) -> int | NotObservable:
    """Make huge what can be huge of this process; it needs no privilege.

    It reads the names of the mappings and the page map once and allocates next to nothing, so that
    the process which is measured, or serves, is not changed by more than the huge pages.

    Parameters
    ----------
    min_resident
        Share of a range that must be resident, and this process's own, above 0 up to 1.

    Returns
    -------
    int or NotObservable
        KiB that became huge; the latter where this kernel cannot, or does not show which pages are
        resident.
    """
    try:
        _advise_self(Span(0, 0))
    except OSError:
        return _OLD_KERNEL
    sizes = page_sizes()
    before = _own_huge_kib()
    with pagemap.opened("self") as pages:
        if isinstance(pages, NotObservable):
            return pages
        for whole in _own_ranges(sizes.pmd):
            chosen = pages.ranges([whole], sizes.pmd).own >= min_resident * sizes.pmd // sizes.base
            for span in _pieces(_runs(chosen, whole.start, sizes.pmd), _AT_ONCE):
                _collapse(span, _advise_self, sizes.pmd)
    return max(0, _own_huge_kib() - before)


def _advise_self(span: Span) -> None:
    linux.advise(span.start, span.length, Advice.COLLAPSE)


def _own_ranges(pmd: int) -> list[Span]:
    """Return the whole aligned ranges of each private anonymous mapping that can be accessed."""
    found = []
    with Path("/proc/self/maps").open() as lines:
        for line in lines:
            addresses, permissions, _, _, inode, *name = line.split(maxsplit=5)
            anonymous = inode == "0" and (not name or name[0].startswith(("[heap]", "[anon:")))
            if anonymous and permissions[3] == "p" and permissions != "---p":
                start, end = (int(address, 16) for address in addresses.split("-"))
                found.append(_whole_ranges(start, end, pmd))
    return [whole for whole in found if whole.length]


def _own_huge_kib() -> int:
    text = Path("/proc/self/smaps_rollup").read_text()
    found = re.search(r"^AnonHugePages:\s+(\d+) kB$", text, re.MULTILINE)
    return int(found[1]) if found else 0
