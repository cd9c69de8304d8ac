"""How much anonymous memory is huge, how much could be, and what keeps the rest on base pages.

A transparent huge page needs an aligned range of one PMD size (2 MiB on x86-64) that lies wholly
inside one VMA, and permission. Geometry is asked first, because no setting helps where it says no
(``thp_vma_suitable_order`` in ``include/linux/huge_mm.h``); then permission
(``__thp_vma_allowable_orders`` in ``mm/huge_memory.c``).
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Literal

from hugeprobe.host import effective_sizes
from hugeprobe.smaps import Kind

if TYPE_CHECKING:
    from collections.abc import Iterable
    from collections.abc import Mapping as ReadOnlyDict

    from hugeprobe.host import HostFacts
    from hugeprobe.smaps import Mapping

Mode = Literal["always", "madvise", "never"]


class Backing(str, Enum):
    """What backs a KiB of resident anonymous memory, and if base pages, why; one reason each."""

    HUGE = "huge"
    """Mapped by a PMD."""
    WAITING = "waiting"
    """Inside a whole aligned range and allowed, but on base pages: it was touched before the
    mapping reached around the range, before the advice, or while no huge page was free."""
    UNADVISED = "unadvised"
    """Inside a whole aligned range, but the mode is ``madvise`` and nobody advised."""
    OFF = "off"
    """Inside a whole aligned range, but THP is off for the host or the process."""
    EXCLUDED = "excluded"
    """Inside a whole aligned range, but the kernel or the program excluded this mapping."""
    EDGE = "edge"
    """Before the first or behind the last aligned boundary of a mapping that holds a range."""
    MISALIGNED = "misaligned"
    """In a mapping as long as a huge page or longer that holds no whole aligned range."""
    SHORT = "short"
    """In a mapping shorter than a huge page."""
    COPIED = "copied"
    """Private copies of the pages of a file (initialised data of libraries): never huge."""


COULD_BE_HUGE = (
    Backing.HUGE,
    Backing.WAITING,
    Backing.UNADVISED,
    Backing.OFF,
    Backing.EXCLUDED,
)
"""What lies inside whole aligned ranges, whatever backs it now."""


@dataclass(frozen=True, slots=True)
class Coverage:
    """Resident anonymous memory by what backs it.

    Parameters
    ----------
    kib
        KiB by :class:`Backing`; every kind is present, and they sum to the anonymous memory.
    """

    kib: ReadOnlyDict[Backing, int]

    @staticmethod
    def total(parts: Iterable[Coverage]) -> Coverage:
        """Return the sum of several parts of one process."""
        parts = tuple(parts)
        return Coverage({backing: sum(part.kib[backing] for part in parts) for backing in Backing})

    @property
    def anonymous_kib(self) -> int:
        """All resident anonymous memory."""
        return sum(self.kib.values())

    @property
    def possible_kib(self) -> int:
        """What lies inside whole aligned ranges, so could be huge as the mappings are now."""
        return sum(self.kib[backing] for backing in COULD_BE_HUGE)

    @property
    def share(self) -> float:
        """Coverage: the share of resident anonymous memory that is huge, 0 to 1."""
        return self.kib[Backing.HUGE] / (self.anonymous_kib or 1)

    @property
    def possible_share(self) -> float:
        """The share that could be huge as the mappings are now, 0 to 1."""
        return self.possible_kib / (self.anonymous_kib or 1)


def mode_of(facts: HostFacts) -> Mode:
    """Return what settings say about PMD-sized pages, on this host and in this process."""
    if facts.pmd_kib in effective_sizes(facts, advised=False):
        return "always"
    return "madvise" if facts.pmd_kib in effective_sizes(facts, advised=True) else "never"


def whole_kib(start: int, end: int, pmd_kib: int) -> int:
    """Return the KiB of whole aligned ranges in the mapping of addresses ``start`` to ``end``."""
    pmd = pmd_kib * 1024
    return max(0, end // pmd - -(-start // pmd)) * pmd_kib


def _obstacle(mapping: Mapping, mode: Mode) -> Backing:
    """Say why base pages inside whole aligned ranges of this mapping are not huge."""
    if mode == "never":
        return Backing.OFF
    if "nh" in mapping.vm_flags:
        return Backing.EXCLUDED
    if mode == "madvise" and "hg" not in mapping.vm_flags:
        return Backing.UNADVISED
    return Backing.EXCLUDED if mapping.thp_eligible is False else Backing.WAITING


def _split(mapping: Mapping, mode: Mode, pmd_kib: int) -> dict[Backing, int]:
    huge = mapping.anon_huge_kib or 0
    base = (mapping.anonymous_kib or 0) - huge
    if mapping.kind is Kind.FILE:
        return {Backing.HUGE: huge, Backing.COPIED: base}
    whole = whole_kib(mapping.start, mapping.end, pmd_kib)
    if not whole:
        short = mapping.end - mapping.start < pmd_kib * 1024
        return {Backing.HUGE: huge, Backing.SHORT if short else Backing.MISALIGNED: base}
    inside = min(base, whole - huge)
    return {
        Backing.HUGE: huge,
        _obstacle(mapping, mode): inside,
        Backing.EDGE: base - inside,
    }


def cover(mappings: Iterable[Mapping], mode: Mode, pmd_kib: int = 2048) -> Coverage:
    """Sort the resident anonymous memory of ``mappings`` by what backs it.

    smaps says how much of a mapping is resident, not where. Resident pages are therefore counted
    into the whole aligned ranges first: where a mapping is only partly resident, ``EDGE`` is the
    least it can be and the share that could be huge the most. An OpenVINO process, whose page map
    (``/proc/PID/pagemap``) tells the truth, came out right within 1 %.

    Parameters
    ----------
    mappings
        Mappings of one process.
    mode
        What applies to this process for PMD-sized pages; ``never`` also where
        ``PR_SET_THP_DISABLE`` is set.
    pmd_kib
        Size of a huge page in KiB.
    """
    total = dict.fromkeys(Backing, 0)
    for mapping in mappings:
        for backing, kib in _split(mapping, mode, pmd_kib).items():
            total[backing] += kib
    return Coverage(total)
