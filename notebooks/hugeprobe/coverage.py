"""What backs the anonymous memory of a process, and what keeps the rest on base pages.

A transparent huge page needs an aligned range of one PMD size (2 MiB on x86-64) that lies wholly
inside one VMA, and permission. Geometry is asked first, because no setting helps where it says no
(``thp_vma_suitable_order`` in ``include/linux/huge_mm.h``); then permission
(``__thp_vma_allowable_orders`` in ``mm/huge_memory.c``).
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Literal, NamedTuple

from hugeprobe.host import effective_sizes
from hugeprobe.sizes import KIB
from hugeprobe.smaps import Kind

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from collections.abc import Mapping as ReadOnlyDict

    from hugeprobe.host import HostFacts
    from hugeprobe.pagemap import Located
    from hugeprobe.smaps import Mapping

Mode = Literal["always", "madvise", "never", "forbidden"]
"""What is permitted: the three settings of the host, or ``PR_SET_THP_DISABLE`` in the process."""


class Backing(str, Enum):
    """What backs a KiB of resident anonymous memory, and if base pages, why; one reason each."""

    HUGE = "huge"
    """Mapped by a PMD."""
    WAITING = "waiting"
    """Inside a whole aligned range and allowed, but on base pages: it was touched before the
    mapping reached around the range, before the advice, or while no huge page was free."""
    FRAGMENTED = "fragmented"
    """As ``WAITING``, and the host has no free huge page now."""
    LIMITED = "limited"
    """As ``WAITING``, and the control group of the process has no room for a huge page now."""
    UNADVISED = "unadvised"
    """Inside a whole aligned range, but the mode is ``madvise`` and nobody advised."""
    OFF = "off"
    """Inside a whole aligned range, but THP is off for the host."""
    FORBIDDEN = "forbidden"
    """Inside a whole aligned range, but ``PR_SET_THP_DISABLE`` forbids the process THP."""
    EXCLUDED = "excluded"
    """Inside a whole aligned range, but the kernel or the program excluded this mapping."""
    CUT = "cut"
    """In an aligned range that is all accessible anonymous memory, but of several mappings, which
    differ in protection, advice, name or memory policy."""
    EDGE = "edge"
    """Before the first or behind the last aligned boundary of a mapping that holds a range."""
    MISALIGNED = "misaligned"
    """In a mapping as long as a huge page or longer that holds no whole aligned range."""
    SHORT = "short"
    """In a mapping shorter than a huge page."""
    COPIED = "copied"
    """Private copies of the pages of a file (initialised data of libraries): never huge."""

    def __str__(self) -> str:
        return self.value


COULD_BE_HUGE = (
    Backing.HUGE,
    Backing.WAITING,
    Backing.FRAGMENTED,
    Backing.LIMITED,
    Backing.UNADVISED,
    Backing.OFF,
    Backing.FORBIDDEN,
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


class Piece(NamedTuple):
    """Resident anonymous memory of one mapping that is backed in one way for one reason.

    Parameters
    ----------
    mapping
        The mapping.
    backing
        What backs it, and why.
    start, end
        Addresses of the part of the mapping that it lies in; that of huge and of other memory in
        whole aligned ranges is the same.
    kib
        How much of it there is.
    across
        For ``CUT`` the mapping on the other side of the boundary, else None.
    """

    mapping: Mapping
    backing: Backing
    start: int
    end: int
    kib: int
    across: Mapping | None = None


def mode_of(facts: HostFacts) -> Mode:
    """Return what settings say about PMD-sized pages, on this host and in this process."""
    if facts.thp_allowed_for_process is False:
        return "forbidden"
    if facts.pmd_kib in effective_sizes(facts, advised=False):
        return "always"
    return "madvise" if facts.pmd_kib in effective_sizes(facts, advised=True) else "never"


def whole_kib(start: int, end: int, pmd_kib: int) -> int:
    """Return the KiB of whole aligned ranges in the mapping of addresses ``start`` to ``end``."""
    pmd = pmd_kib * KIB
    return max(0, end // pmd - -(-start // pmd)) * pmd_kib


def cover(
    mappings: Iterable[Mapping], mode: Mode, pmd_kib: int = 2048, located: Located | None = None
) -> Coverage:
    """Sort the resident anonymous memory of ``mappings`` by what backs it.

    Parameters and precision are those of :func:`pieces`.
    """
    total = dict.fromkeys(Backing, 0)
    for piece in pieces(mappings, mode, pmd_kib, located):
        total[piece.backing] += piece.kib
    return Coverage(total)


def pieces(
    mappings: Iterable[Mapping], mode: Mode, pmd_kib: int = 2048, located: Located | None = None
) -> Iterator[Piece]:
    """Cut the resident anonymous memory of ``mappings`` into pieces of one backing each.

    The pieces of a mapping sum to its anonymous memory. smaps says how much of a mapping is
    resident, not where. Without ``located`` resident pages are therefore counted into the whole
    aligned ranges first: where a mapping is only partly resident, ``EDGE`` is the least it can be
    and the share that could be huge the most. With it every piece is exact.

    Parameters
    ----------
    mappings
        Mappings of one process, in order of address.
    mode
        What applies to this process for PMD-sized pages.
    pmd_kib
        Size of a huge page in KiB.
    located
        Says how much lies where; it is asked only about mappings that are partly resident.
    """
    for run in adjacent(mappings):
        reach = (run[0].start, run[-1].end)
        for before, mapping, after in zip((None, *run), run, (*run[1:], None), strict=False):
            if mapping.anonymous_kib:
                outside = _outside(mapping, before, after, reach, pmd_kib * KIB)
                yield from _pieces(mapping, outside, mode, pmd_kib * KIB, located)


def adjacent(mappings: Iterable[Mapping]) -> Iterator[Sequence[Mapping]]:
    """Yield runs of mappings without gaps that would be one mapping if they were alike.

    Memory that nothing can access bounds a run like a gap: it is reserved, not in use. What is not
    plain anonymous memory is a run of its own.
    """
    run: list[Mapping] = []
    for mapping in mappings:
        if run and not (run[-1].end == mapping.start and _is_plain(run[-1]) and _is_plain(mapping)):
            yield run
            run = []
        run.append(mapping)
    if run:
        yield run


def _is_plain(mapping: Mapping) -> bool:
    return (
        mapping.kind in (Kind.ANONYMOUS, Kind.HEAP)
        and mapping.permissions[:3] != "---"
        and "ht" not in mapping.vm_flags
    )


def _outside(
    mapping: Mapping,
    before: Mapping | None,
    after: Mapping | None,
    reach: tuple[int, int],
    pmd: int,
) -> list[Piece]:
    """Return the parts of ``mapping`` outside whole aligned ranges, full: none, one or two.

    Those in a range that it shares with neighbours, all within ``reach``, are cut and come first.
    """
    start, end = mapping.start, mapping.end
    bottom, top = -(-start // pmd) * pmd, end // pmd * pmd
    if end - start < pmd:
        backing = Backing.SHORT
    else:
        backing = Backing.EDGE if bottom < top else Backing.MISALIGNED
    parts = []
    for low, high in ((start, end),) if bottom > top else ((start, bottom), (top, end)):
        edge = low // pmd * pmd
        across = before if edge < low else after
        cut = reach[0] <= edge and edge + pmd <= reach[1]
        if low < high:
            why, other = (Backing.CUT, across) if cut else (backing, None)
            parts.append(Piece(mapping, why, low, high, (high - low) // KIB, other))
    return sorted(parts, key=lambda part: part.backing is not Backing.CUT)


def _pieces(
    mapping: Mapping, outside: Sequence[Piece], mode: Mode, pmd: int, located: Located | None
) -> Iterator[Piece]:
    """Share the memory of ``mapping`` out to its parts; the last of them gets what is left."""
    bottom, top = -(-mapping.start // pmd) * pmd, mapping.end // pmd * pmd
    anonymous = mapping.anonymous_kib or 0
    huge = min(mapping.anon_huge_kib or 0, anonymous)
    room = (top - bottom) // KIB - huge
    inside = Piece(mapping, _obstacle(mapping, mode), bottom, top, room)
    parts = [inside, *outside] if room > 0 or not outside else list(outside)
    if mapping.kind in (Kind.FILE, Kind.SHARED):
        parts = [Piece(mapping, Backing.COPIED, mapping.start, mapping.end, 0)]
    elif located and anonymous * KIB < mapping.end - mapping.start:
        parts = [part._replace(kib=located(part.start, part.end)) for part in outside]
        parts += [inside] if room > 0 or not outside else []
    if huge:
        yield Piece(mapping, Backing.HUGE, bottom, top, huge)
    left = anonymous - huge
    for part in parts:
        kib = left if part is parts[-1] else min(part.kib, left)
        left -= kib
        if kib:
            yield part if kib == part.kib else part._replace(kib=kib)


_SPECIAL = frozenset({"io", "pf", "mm", "de"})
"""Flags of mappings that the kernel backs by itself (``VM_SPECIAL``)."""


def _obstacle(mapping: Mapping, mode: Mode) -> Backing:
    """Say why base pages inside whole aligned ranges of this mapping are not huge.

    A mapping that the mode allows, nobody excluded and the kernel still calls ineligible is in a
    process that may have huge pages in advised memory only (``PR_THP_DISABLE_EXCEPT_ADVISED``).
    """
    if mode == "never":
        return Backing.OFF
    if mode == "forbidden":
        return Backing.FORBIDDEN
    if "nh" in mapping.vm_flags:
        return Backing.EXCLUDED
    if mode == "madvise" and "hg" not in mapping.vm_flags:
        return Backing.UNADVISED
    if mapping.thp_eligible is not False:
        return Backing.WAITING
    special = "hg" in mapping.vm_flags or _SPECIAL.intersection(mapping.vm_flags)
    return Backing.EXCLUDED if special else Backing.FORBIDDEN
