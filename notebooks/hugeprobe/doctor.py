"""Why the memory of a process is not huge, and what would change that.

Every KiB of resident anonymous memory that no PMD maps has exactly one reason, so that reasons and
huge memory sum to all of it. Where the kernel tells which pages are there (Linux 6.7 and newer tell
it exactly) the sums are exact; else the division between whole ranges and edges is a bound, and the
diagnosis says so. What cannot be known from outside a process is said not to be known.

>>> diagnosis = diagnose("self")
>>> sum(finding.kib for finding in diagnosis.reasons) + diagnosis.huge_kib == diagnosis.anon_kib
True
"""

from __future__ import annotations

import bisect
import os
from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from hugeprobe import linux, process
from hugeprobe.counters import Faults, system_wide
from hugeprobe.coverage import COULD_BE_HUGE, Backing, whole_kib
from hugeprobe.errors import NotObservable, NotPermittedError, ProcessGoneError
from hugeprobe.examine import PMD_KIB, Examined, examine
from hugeprobe.host import effective_sizes, free_huge_pages, host_facts
from hugeprobe.owners import ALLOCATORS, Owned, Owner, owned
from hugeprobe.pagemap import Anonymous
from hugeprobe.remedies import Case, Collapse, Cut, OfFiles, remedy, remedy_of_files
from hugeprobe.sizes import KIB, format_kib
from hugeprobe.smaps import Kind
from hugeprobe.strips import Strip, strips

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from hugeprobe.counters import SystemWide
    from hugeprobe.coverage import Piece
    from hugeprobe.host import HostFacts
    from hugeprobe.remedies import Remedy
    from hugeprobe.smaps import Mapping, Pid

_LIVE: Final = Path("/")


@dataclass(frozen=True, slots=True)
class Finding:
    """Memory on base pages for one reason, and what wins it.

    Parameters
    ----------
    reason
        Name of the reason: a :class:`~hugeprobe.coverage.Backing`, for ``cut`` also by what, or for
        files and shared memory an :class:`~hugeprobe.remedies.OfFiles`.
    kib
        How much memory.
    why
        The reason in words.
    action
        What wins it.
    cost
        What that costs.
    wins
        Whether the action makes this memory huge.
    grows_kib
        By how much resident memory grows if all of it becomes huge: untouched pages in the ranges
        are then there, too. None where that is not known.
    """

    reason: str
    kib: int
    why: str
    action: str
    cost: str
    wins: bool
    grows_kib: int | None


@dataclass(frozen=True, slots=True)
class Host:
    """What of the host a diagnosis needs, at the time of it.

    Parameters
    ----------
    facts
        Its settings.
    events
        Huge page events of all processes.
    since
        From when on ``events`` are counted, in words.
    free_huge_pages
        Free pages of the PMD size; None where this kernel does not tell.
    """

    facts: HostFacts
    events: SystemWide
    since: str
    free_huge_pages: int | None


def this_host(root: Path = _LIVE) -> Host:
    """Read what a diagnosis needs of this host, or of a recorded tree of ``proc`` and ``sys``."""
    facts = host_facts(root)
    return Host(facts, system_wide(root), "boot", free_huge_pages(facts, root))


def collapse_of(pid: Pid) -> Collapse:
    """Find out, without changing anything, whether memory of a process can be made huge now."""
    if not linux.can_collapse():
        return Collapse.NO
    if pid == "self":
        return Collapse.YES
    try:
        pidfd = linux.pidfd_open(pid)
    except OSError:
        return Collapse.NO
    try:
        linux.process_advise(pidfd, 0, 0, linux.Advice.COLLAPSE)
    except OSError:
        return Collapse.PRIVILEGED
    finally:
        os.close(pidfd)
    return Collapse.YES


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """The memory of one process or several: how much is huge, and why the rest is not.

    Parameters
    ----------
    processes
        How many were looked at.
    mode
        THP mode of the host: ``always``, ``madvise``, ``never``, or ``not built in``.
    anon_kib, huge_kib
        Resident anonymous memory, and what of it PMDs map.
    could_be_kib
        What lies in whole aligned ranges, huge or not.
    resident_kib
        All resident memory.
    reasons
        Why the rest of ``anon_kib`` is not huge, most to be won first. They and ``huge_kib`` sum to
        ``anon_kib``.
    files
        The same for resident memory of files and for shared memory, which are no part of it.
    owners
        Whose memory it is, as far as the map tells.
    strips
        The address space with most anonymous memory.
    programs
        Runtimes and allocators in it.
    faults
        Page faults of these processes so far.
    exact
        Whether the division into reasons is exact; else ``notes`` say what it is.
    notes
        What else one has to know, in sentences.
    """

    processes: int
    mode: str
    anon_kib: int
    huge_kib: int
    could_be_kib: int
    resident_kib: int
    reasons: tuple[Finding, ...]
    files: tuple[Finding, ...]
    owners: tuple[Owned, ...]
    strips: tuple[Strip, ...]
    programs: tuple[str, ...]
    faults: Faults
    exact: bool
    notes: tuple[str, ...]

    @property
    def coverage(self) -> float:
        """Share of the resident anonymous memory that is huge, 0 to 1."""
        return self.huge_kib / (self.anon_kib or 1)

    @property
    def headline(self) -> str:
        """The result in one sentence."""
        who = "the process" if self.processes == 1 else f"{self.processes} processes"
        return (
            f"{self.coverage:.0%} of the {format_kib(self.anon_kib)} of anonymous memory of {who} "
            f"is huge; {self.could_be_kib / (self.anon_kib or 1):.0%} could be as it is mapped."
        )

    def as_dict(self) -> dict[str, Any]:
        """Return it for JSON."""
        owners = [{**asdict(each), "known_by": each.owner.known_by} for each in self.owners]
        return {**asdict(self), "coverage": self.coverage, "owners": owners}


def diagnose(pid: Pid, *, children: bool = False, root: Path = _LIVE) -> Diagnosis:
    """Look at a process, and say why what of it is not huge.

    Parameters
    ----------
    pid
        Process number, or ``"self"``.
    children
        Whether to add the processes that it started, and those that these started.
    root
        Where ``proc`` and ``sys`` are.

    Raises
    ------
    ProbeError
        In a sentence, if there is nothing to look at: see :func:`hugeprobe.examine.examine`.
    """
    host = this_host(root)
    examined = examine_all(pid, host.facts, children=children, root=root)
    collapse = collapse_of(pid) if root == _LIVE else Collapse.NO
    return diagnosis_of(examined, host, str(pid), collapse)


def examine_all(
    pid: Pid, facts: HostFacts, *, children: bool = False, root: Path = _LIVE
) -> tuple[Examined, ...]:
    """Look at a process and, if asked for, at those that it started, as far as they let us."""
    found = [examine(pid, facts, root)]
    for child in process.descendants(pid) if children else ():
        try:
            found.append(examine(child, facts, root))
        except (ProcessGoneError, NotPermittedError):
            continue
    return tuple(found)


def diagnosis_of(
    examined: Sequence[Examined], host: Host, target: str = "PID", collapse: Collapse = Collapse.NO
) -> Diagnosis:
    """Say why what of the memory of some processes is not huge.

    Parameters
    ----------
    examined
        The processes, at least one.
    host
        Their host.
    target
        How commands name the process.
    collapse
        Whether memory of the process can be made huge now.
    """
    programs = tuple(dict.fromkeys(name for each in examined for name in each.programs))
    kib: Counter[Backing] = Counter()
    for each in examined:
        for piece in each.pieces:
            kib[piece.backing] += piece.kib
    mappings = [mapping for each in examined for mapping in each.mappings]
    rows = [(m, o) for each in examined for m, o in zip(each.mappings, each.owners, strict=True)]
    advised = any(m.kind is Kind.HEAP and "hg" in m.vm_flags for m in mappings)
    case = Case(host.facts, target, collapse, programs, glibc_advises=advised)
    shown = sorted(
        (strip for each in examined for strip in strips(each)), key=lambda s: -s.anon_kib
    )
    return Diagnosis(
        processes=len(examined),
        mode=host.facts.thp_mode or "not built in",
        anon_kib=kib.total(),
        huge_kib=kib[Backing.HUGE],
        could_be_kib=sum(kib[backing] for backing in COULD_BE_HUGE),
        resident_kib=sum(mapping.rss_kib or 0 for mapping in mappings),
        reasons=_reasons(examined, host, case),
        files=_of_files(rows, host.facts),
        owners=owned(rows),
        strips=tuple(shown[:8]),
        programs=programs,
        faults=Faults(
            sum(each.faults.minor for each in examined),
            sum(each.faults.major for each in examined),
        ),
        exact=all(not isinstance(each.where, NotObservable) for each in examined),
        notes=tuple(_notes(examined, host, case)),
    )


# Anonymous memory ---------------------------------------------------------------------------------


def _reasons(examined: Sequence[Examined], host: Host, case: Case) -> tuple[Finding, ...]:
    kib: Counter[tuple[Backing, Cut | None]] = Counter()
    grows = kib.copy()
    for each in examined:
        touched = _touched_ranges(each)
        for piece in each.pieces:
            reason = _as_of_now(piece.backing, each, host), each.cut(piece)
            kib[reason] += piece.kib
            grows[reason] += _growth_kib(piece, touched, each.pmd_kib)
    known = all(isinstance(each.where, Anonymous) for each in examined)
    return _ranked(
        _finding(
            f"{backing} by {cut}" if cut else backing.value,
            amount,
            remedy(backing, cut, amount, growth if known else None, case),
            growth if known and backing in COULD_BE_HUGE else None,
        )
        for (backing, cut), amount in kib.items()
        if backing is not Backing.HUGE
        for growth in [grows[backing, cut]]
    )


def _as_of_now(backing: Backing, examined: Examined, host: Host) -> Backing:
    """Return what keeps waiting memory waiting at this moment, if anything does."""
    if backing is not Backing.WAITING:
        return backing
    if examined.room_kib is not None and examined.room_kib < examined.pmd_kib:
        return Backing.LIMITED
    return Backing.FRAGMENTED if host.free_huge_pages == 0 else backing


def _touched_ranges(examined: Examined) -> list[int]:
    """Return the numbers of the aligned ranges that hold base pages, in order; none if unknown."""
    if isinstance(examined.where, NotObservable):
        return []
    touched: list[int] = examined.where.only(huge=False).ranges(examined.pmd_kib * KIB).tolist()
    return touched


def _growth_kib(piece: Piece, touched: Sequence[int], pmd_kib: int) -> int:
    """Return what is missing in the whole ranges of which ``piece`` is the base pages."""
    if piece.backing is Backing.HUGE or piece.backing not in COULD_BE_HUGE:
        return 0
    first, last = piece.start // (pmd_kib * KIB), piece.end // (pmd_kib * KIB)
    ranges = bisect.bisect_left(touched, last) - bisect.bisect_left(touched, first)
    return max(0, ranges * pmd_kib - piece.kib)


def _finding(reason: str, kib: int, found: Remedy, grows_kib: int | None) -> Finding:
    return Finding(reason, kib, found.why, found.action, found.cost, found.wins, grows_kib)


def _ranked(findings: Iterable[Finding]) -> tuple[Finding, ...]:
    """Sort by what is to be won; what cannot be won comes last."""
    return tuple(sorted(findings, key=lambda each: (not each.wins, -each.kib)))


# Memory of files, and shared memory ---------------------------------------------------------------


def _of_files(rows: Iterable[tuple[Mapping, Owner]], facts: HostFacts) -> tuple[Finding, ...]:
    kib: Counter[OfFiles] = Counter()
    for mapping, owner in rows:
        if mapping.kind in (Kind.FILE, Kind.SHARED):
            kib.update(_split_of_file(mapping, owner, facts))
    return _ranked(
        _finding(reason.value, amount, remedy_of_files(reason), None)
        for reason, amount in kib.items()
        if amount
    )


def _split_of_file(mapping: Mapping, owner: Owner, facts: HostFacts) -> dict[OfFiles, int]:
    """Say why the resident pages of a file, or of shared memory, are base pages.

    PMDs map ranges in which addresses and offsets in the file are both aligned.
    """
    pmd_kib = facts.pmd_kib or PMD_KIB
    base = (mapping.rss_kib or 0) - (mapping.anonymous_kib or 0) - _pmd_of_file(mapping)
    aligned = (mapping.start - mapping.offset) % (pmd_kib * KIB) == 0
    room = whole_kib(mapping.start, mapping.end, pmd_kib) if aligned else 0
    inside = max(0, min(base, room - _pmd_of_file(mapping)))
    if mapping.kind is Kind.FILE:
        reason = OfFiles.SMALL_FOLIOS if owner is Owner.MODEL else OfFiles.LIBRARY
    elif mapping.thp_eligible or facts.shmem_enabled in ("always", "force"):
        reason = OfFiles.SHARED_WAITING
    else:
        reason = OfFiles.SHARED_OFF
    return {reason: inside, OfFiles.OUTSIDE: max(0, base - inside)}


def _pmd_of_file(mapping: Mapping) -> int:
    return (mapping.file_pmd_kib or 0) + (mapping.shmem_pmd_kib or 0)


# Notes --------------------------------------------------------------------------------------------


def _notes(examined: Sequence[Examined], host: Host, case: Case) -> Iterator[str]:
    """Yield what else one has to know."""
    yield from _notes_on_precision(examined)
    if any(piece.backing is Backing.WAITING for each in examined for piece in each.pieces):
        yield from _notes_on_fallbacks(host)
    mappings = [mapping for each in examined for mapping in each.mappings]
    if swapped := sum(mapping.swap_kib or 0 for mapping in mappings):
        yield f"{format_kib(swapped)} more is swapped out, and in no figure here."
    if hugetlb := sum(mapping.private_hugetlb_kib or 0 for mapping in mappings):
        yield f"{format_kib(hugetlb)} more is in hugetlbfs pages, and in no figure here."
    if any(each.is_32_bit for each in examined):
        yield "A 32-bit process is among them: the kernel does not align mappings of such."
    pmd_kib = host.facts.pmd_kib or PMD_KIB
    sizes = effective_sizes(host.facts, advised=True)
    if smaller := [size for size in sizes if size < pmd_kib]:
        yield (
            f"Huge pages of {', '.join(map(format_kib, smaller))} are switched on, too; the map of "
            "a process does not show them, so some of what is called base pages may be such."
        )
    if others := [name for name in case.programs if name in ALLOCATORS]:
        yield (
            f"{' and '.join(others)} is mapped: if it allocates in place of glibc, "
            "GLIBC_TUNABLES changes nothing."
        )
    yield from _notes_on_owners(examined, case)


def _notes_on_precision(examined: Sequence[Examined]) -> Iterator[str]:
    if len(examined) > 1:
        yield "Memory that these processes share since a fork is counted in each of them."
    if any(not each.located for each in examined):
        yield (
            "Which pages are resident could not be read. Where a mapping is only partly resident, "
            "what could be huge is the most it can be, and edges are the least."
        )
    elif any(isinstance(each.where, NotObservable) for each in examined):
        yield (
            "This kernel does not tell pages that only were read from others, so edges of mappings "
            "that are only partly resident are the most they can be."
        )


def _notes_on_fallbacks(host: Host) -> Iterator[str]:
    """Say what the counters of the whole system know about waiting memory."""
    fallbacks, pmd_kib = host.events.fault_fallback, host.facts.pmd_kib or PMD_KIB
    if fallbacks == 0:
        yield (
            f"No fault of any process had to do without a free huge page since {host.since}: what "
            "is waiting was touched too early, or was huge once and has been split."
        )
    elif fallbacks:
        yield (
            f"{fallbacks:,} faults of all processes found no free huge page since {host.since}, so "
            f"at most {format_kib(fallbacks * pmd_kib)} of what is waiting is due to that. A "
            "process does not tell which; this is a hint."
        )


def _notes_on_owners(examined: Sequence[Examined], case: Case) -> Iterator[str]:
    """Say what cannot be told about whose memory it is."""
    runtimes = [name for name in ("OpenVINO", "ONNX Runtime") if name in case.programs]
    owners = {owner for each in examined for owner in each.owners}
    if runtimes and Owner.BLOCKS in owners:
        yield (
            f"Tensors, weights and arenas of {' and '.join(runtimes)} lie in malloc's heaps and in "
            "other blocks; a memory map does not tell which is which."
        )
    if Owner.BOUND in owners and "OpenVINO" in runtimes:
        yield "Blocks with a NUMA policy of their own are most likely OpenVINO's weights."
