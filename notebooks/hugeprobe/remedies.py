"""What can be done about memory on base pages, by the reason for it, and what that costs.

One remedy for each reason: the one that needs least of the user. A running process is helped at
once where that is possible (``MADV_COLLAPSE``), because it needs no restart and no privilege.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from hugeprobe.coverage import Backing
from hugeprobe.enums import Words
from hugeprobe.owners import ALLOCATORS
from hugeprobe.profiles import choose
from hugeprobe.sizes import format_kib

if TYPE_CHECKING:
    from hugeprobe.host import HostFacts

_THP: Final = "/sys/kernel/mm/transparent_hugepage"
_POOL: Final = "Take large blocks of your own from hugeprobe.tensors: they fill whole ranges."
_POOL_COST: Final = "a change of the program, up to 2 MiB a block; what libraries take stays"
_CHANGE: Final = "a change of the program"


class Cut(Words):
    """In what two mappings differ that the kernel could else have joined."""

    PROTECTION = "protection"
    ADVICE = "advice"
    NAME = "name"
    POLICY = "memory policy"
    FLAGS = "flags"
    UNKNOWN = "an unknown difference"


class OfFiles(Words):
    """Why resident memory of files, or shared memory, is not mapped by PMDs."""

    OUTSIDE = "outside ranges"
    """Outside the ranges in which file and addresses are both aligned."""
    SMALL_FOLIOS = "small folios"
    """A model file that the page cache holds in pieces smaller than a huge page."""
    LIBRARY = "library"
    """Code and constants, and other files that are no models."""
    SHARED_OFF = "shared off"
    """Shared memory, for which THP is off."""
    SHARED_WAITING = "shared waiting"
    """Shared memory, for which THP is on: allocated when it was off, or no huge page was free."""


class Collapse(Words):
    """Whether ``hugeprobe collapse`` can make memory of the process huge now."""

    YES = "yes"
    PRIVILEGED = "with privilege"
    """Memory of another process takes the capability ``CAP_SYS_NICE``, which this user lacks."""
    NO = "no"
    """The process has ended, or the kernel is older than Linux 6.1."""


@dataclass(frozen=True, slots=True)
class Case:
    """What of a process and its host decides which remedy helps.

    Parameters
    ----------
    facts
        The host.
    target
        How commands name the process.
    collapse
        Whether its memory can be made huge now.
    programs
        Runtimes and allocators in the process; see :func:`hugeprobe.owners.programs`.
    glibc_advises
        Whether it runs with the tunable ``glibc.malloc.hugetlb=1``, as an advised heap shows.
    """

    facts: HostFacts
    target: str
    collapse: Collapse
    programs: tuple[str, ...]
    glibc_advises: bool

    @property
    def starts_better(self) -> bool:
        """Whether ``hugeprobe run`` changes how the memory of its runtime is laid out."""
        runtime = any(name in self.programs for name in ("OpenVINO", "ONNX Runtime"))
        other = any(name in self.programs for name in ALLOCATORS)
        return runtime and not other and not self.glibc_advises


@dataclass(frozen=True, slots=True)
class Remedy:
    """What to do.

    Parameters
    ----------
    why
        Why the memory is on base pages, as a clause.
    action
        What wins it, as an imperative sentence or a command.
    cost
        What that costs, as a clause.
    wins
        Whether the action makes this memory huge.
    """

    why: str
    action: str
    cost: str
    wins: bool = True


_FIXED: Final = {
    Backing.FORBIDDEN: Remedy(
        "whole ranges, but PR_SET_THP_DISABLE forbids the process huge pages",
        "Start it without PR_SET_THP_DISABLE: look at what starts it, and at its allocator.",
        "a restart",
    ),
    Backing.EXCLUDED: Remedy(
        "whole ranges, but excluded by MADV_NOHUGEPAGE, as stacks of threads are by the kernel",
        "Remove the call of madvise(MADV_NOHUGEPAGE), unless it is for stacks.",
        _CHANGE,
    ),
    Backing.EDGE: Remedy(
        "head or tail of a mapping, before the first or behind the last boundary",
        _POOL,
        _POOL_COST,
    ),
    Backing.MISALIGNED: Remedy(
        "in mappings of 2 MiB or more that hold no aligned range",
        _POOL,
        _POOL_COST,
    ),
    Backing.SHORT: Remedy(
        "in mappings shorter than a huge page",
        "Take small blocks of your own from one large one, such as a pool of hugeprobe.tensors.",
        "a change of the program; what libraries take stays",
    ),
    Backing.COPIED: Remedy(
        "private copies of file pages, such as initialised data of libraries",
        "Nothing: the kernel has no huge pages for it.",
        "none",
        wins=False,
    ),
}
_CUT: Final = {
    Cut.PROTECTION: Remedy(
        "mprotect() put a boundary inside a range",
        "Protect whole ranges of 2 MiB, or none of the block.",
        _CHANGE,
    ),
    Cut.ADVICE: Remedy(
        "huge pages are advised on one side of a boundary inside a range only",
        "Advise whole blocks, from one 2 MiB boundary to another.",
        _CHANGE,
    ),
    Cut.NAME: Remedy(
        "a name (PR_SET_VMA_ANON_NAME) put a boundary inside a range",
        "Name whole blocks, or none; glibc names them under glibc.mem.decorate_maps.",
        "less to read in the memory map",
    ),
    Cut.POLICY: Remedy(
        "mbind() put a boundary inside a range",
        "Bind the process in place of its blocks: numactl --membind=NODE COMMAND.",
        "a restart, and all memory is on these nodes",
    ),
    Cut.FLAGS: Remedy(
        "mlock(), madvise() or another call put a boundary inside a range",
        "Make the call for whole ranges of 2 MiB, or for none of the block.",
        _CHANGE,
    ),
    Cut.UNKNOWN: Remedy(
        "two mappings meet inside a range, and the map does not tell why they are two",
        _POOL,
        _POOL_COST,
    ),
}
_OPENVINO_BINDS: Final = Remedy(
    "mbind() put boundaries inside ranges; OpenVINO binds weights under its latency hint",
    "Compile with PERFORMANCE_HINT=THROUGHPUT and NUM_STREAMS=1, which binds next to nothing.",
    "another schedule of threads: measure its latency; it still has to be advised or collapsed",
)
_RUN: Final = "Start it with: hugeprobe run -- COMMAND"
_RUN_COST: Final = "a restart, and malloc keeps its memory in few large mappings"
_OF_FILES: Final = {
    OfFiles.OUTSIDE: Remedy(
        "outside ranges of 2 MiB that are aligned in both file and memory",
        "Nothing: these are short mappings, or the ends of longer ones.",
        "none",
        wins=False,
    ),
    OfFiles.SMALL_FOLIOS: Remedy(
        "a model file that the page cache holds in pieces smaller than 2 MiB",
        "Keep weights on a file system with large folios, such as XFS, or ext4 since Linux 6.16.",
        "a copy of the file, and it is read again",
    ),
    OfFiles.LIBRARY: Remedy(
        "code and constants of libraries, and other files",
        "Nothing: it is read here and there, not swept through like tensors.",
        "none",
        wins=False,
    ),
    OfFiles.SHARED_OFF: Remedy(
        "shared memory, for which huge pages are off",
        f"As root: echo advise > {_THP}/shmem_enabled; the program then has to advise.",
        "host-wide, and a change of the program",
    ),
    OfFiles.SHARED_WAITING: Remedy(
        "shared memory that was allocated before the setting or the advice, or when none was free",
        "Create it again.",
        "a restart of all who share it",
    ),
}


def remedy(backing: Backing, cut: Cut | None, kib: int, grows: int | None, case: Case) -> Remedy:
    """Return the remedy for anonymous memory.

    Parameters
    ----------
    backing
        The reason.
    cut
        For ``CUT``, in what the mappings differ.
    kib
        How much memory it is.
    grows
        By how many KiB resident memory grows if all of it becomes huge; None if not known.
    case
        The process and its host.
    """
    if cut:
        return _of_cut(cut, case)
    if backing is Backing.UNADVISED:
        return _unadvised(grows, case)
    if backing is Backing.OFF:
        return _off(grows, case)
    if backing in (Backing.EDGE, Backing.MISALIGNED, Backing.SHORT) and case.starts_better:
        return replace(_FIXED[backing], action=_RUN, cost=_RUN_COST)
    return _FIXED.get(backing) or _waiting(backing, kib, grows, case)


def remedy_of_files(reason: OfFiles) -> Remedy:
    """Return the remedy for memory of files, or for shared memory."""
    return _OF_FILES[reason]


def _of_cut(cut: Cut, case: Case) -> Remedy:
    found = _CUT[cut]
    if cut is Cut.POLICY and "OpenVINO" in case.programs:
        found = _OPENVINO_BINDS
        if choose(case.facts).profile.mbind_refused:
            cost = "a restart; mbind() fails, which takes nothing away with one memory node"
            return replace(found, action=_RUN, cost=cost)
    if cut is Cut.ADVICE and case.glibc_advises:
        why = "glibc advises blocks of 2 MiB and more, and between them are smaller ones"
        return Remedy(why, _RUN, _RUN_COST)
    return found


def _unadvised(grows: int | None, case: Case) -> Remedy:
    why = "whole ranges, but the mode is madvise and nobody advised"
    if case.collapse is Collapse.YES:
        collapse = _collapse(why, grows, case)
        return replace(collapse, cost=f"{collapse.cost}; for good, start it with `hugeprobe run`")
    return Remedy(why, _RUN, f"a restart, {_growth(grows)}")


def _off(grows: int | None, case: Case) -> Remedy:
    why = "whole ranges, but THP is off on this host"
    if case.collapse is Collapse.YES:
        collapse = _collapse(why, grows, case)
        return replace(collapse, cost=f"{collapse.cost}; for good, root sets the mode to madvise")
    if case.facts.thp_mode is None:
        return Remedy(why, "Boot a kernel with CONFIG_TRANSPARENT_HUGEPAGE.", "another kernel")
    size = "" if case.facts.thp_mode == "never" else f"hugepages-{case.facts.pmd_kib}kB/"
    return Remedy(
        why,
        f"As root: echo madvise > {_THP}/{size}enabled",
        "host-wide, for programs that advise: then start it with `hugeprobe run`",
    )


def _waiting(backing: Backing, kib: int, grows: int | None, case: Case) -> Remedy:
    why = "whole ranges and allowed, but touched before range or advice was there"
    if backing is Backing.LIMITED:
        return Remedy(
            f"{why}; its control group has no room for a huge page now",
            "Raise the memory limit of its control group, then collapse it.",
            _growth(grows),
        )
    if backing is Backing.FRAGMENTED:
        return Remedy(
            f"{why}, or when none was free, as on this host now",
            "As root: echo 1 > /proc/sys/vm/compact_memory, then collapse it.",
            "the kernel moves pages for some seconds",
        )
    why = f"{why}; {khugepaged_sentence(kib, case.facts)}"
    if case.collapse is Collapse.NO:
        return Remedy(
            why,
            f"As root: echo 65536 > {_THP}/khugepaged/pages_to_scan",
            "host-wide: a kernel thread works more",
        )
    return _collapse(why, grows, case)


def _collapse(why: str, grows: int | None, case: Case) -> Remedy:
    command = f"hugeprobe collapse {case.target}"
    if case.target == "self":
        command = "Call hugeprobe.collapse.collapse_self()."
    if case.collapse is Collapse.PRIVILEGED:
        command = f"As root, or with CAP_SYS_NICE: {command}"
    return Remedy(why, command, f"each page is copied once, {_growth(grows)}")


def _growth(grows: int | None) -> str:
    if grows is None:
        return "memory may grow to whole ranges"
    return f"{format_kib(grows)} more memory" if grows else "no more memory"


def khugepaged_sentence(kib: int, facts: HostFacts) -> str:
    """Say when the kernel's thread can have collapsed ``kib`` at the earliest, as a clause.

    It looks at ``pages_to_scan`` base pages, then sleeps for ``scan_sleep_millisecs``
    (``mm/khugepaged.c``); what it looks at for other processes comes on top.
    """
    settings = facts.khugepaged
    if not (settings and settings.pages_to_scan and facts.base_kib):
        return "khugepaged does not run"
    rounds = kib / (settings.pages_to_scan * facts.base_kib)
    seconds = rounds * (settings.scan_sleep_millisecs or 0) / 1000
    took = f"{seconds / 60:.0f} min" if seconds >= 120 else f"{seconds:.0f} s"
    return f"khugepaged needs {took} at the least"
