"""Where the kernel puts anonymous mappings, and what of them becomes huge: a pure model.

Nothing here touches the machine. Two facts of the kernel are modelled, both for 64-bit processes
with the usual top-down layout:

* placement, ``__get_unmapped_area()`` in ``mm/mmap.c`` and ``__thp_get_unmapped_area()`` in
  ``mm/huge_memory.c``: the highest hole that is large enough is taken, from its upper end; a
  mapping that the rule aligns asks for a PMD more than its length and takes the highest boundary;
* faults, ``thp_vma_suitable_order()`` in ``include/linux/huge_mm.h`` and ``alloc_anon_folio()`` in
  ``mm/memory.c``: a fault takes the largest enabled page size whose naturally aligned range lies
  inside the VMA *at that moment* and has nothing in it yet.

Addresses, lengths and page sizes are bytes, results in KiB say so in their names.
"""

from __future__ import annotations

import bisect
import itertools
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Final

from hugeprobe.errors import BadRequestError
from hugeprobe.sizes import KIB, PageSizes

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

_FREE_SPACE: Final = 1 << 46
"""Address space below the first top: more than any list of mappings can use up."""


class Rule(str, Enum):
    """Which anonymous mappings without an address hint the kernel starts on a PMD boundary."""

    PACKED = "packed"
    """None: each mapping ends where the one before it starts (Linux 6.6 and older)."""
    FORCED = "forced"
    """Every one of at least a PMD (efa7df3e3bb5: Linux 6.7 to 6.10 and 6.11.0 to 6.11.6)."""
    MULTIPLES = "multiples"
    """Those whose length is a whole number of PMDs (d4148aeab412: Linux 6.11.7 and newer)."""

    def aligns(self, length: int, pmd: int) -> bool:
        """Return whether a mapping of ``length`` bytes is aligned to ``pmd`` bytes."""
        if self is Rule.FORCED:
            return length >= pmd
        return self is Rule.MULTIPLES and length % pmd == 0


class Touch(str, Enum):
    """When the memory is written for the first time."""

    EACH = "each"
    """Each mapping as soon as it is mapped."""
    AFTER = "after"
    """All of them, in the same order, once all are mapped."""


@dataclass(frozen=True, slots=True)
class Span:
    """A range of addresses: ``start`` is the first, ``end`` the first no longer in it."""

    start: int
    end: int

    @property
    def length(self) -> int:
        """Bytes in the range."""
        return self.end - self.start


@dataclass(frozen=True, slots=True)
class PlacedMapping:
    """One mapping of a :class:`Layout`.

    Parameters
    ----------
    start_offset
        Bytes from its start up to the first top (the upper end of the free space that the first
        mapping was placed in).
    length
        Bytes, whole base pages.
    aligned
        Whether it starts on a PMD boundary.
    """

    start_offset: int
    length: int
    aligned: bool


@dataclass(frozen=True, slots=True)
class Layout:
    """What a list of mappings came to, modelled or measured.

    Parameters
    ----------
    mappings
        In the order they were mapped.
    gap_kib
        Sum of the distances from the end of each mapping up to the start of the one mapped just
        before it, where it lies below that one.
    vmas
        Virtual memory areas that hold them: neighbours merge.
    anon_kib, huge_kib
        Touched memory, and the part of it mapped by PMD entries (``AnonHugePages``).
    minor_faults
        Faults that touching them cost.
    huge_offsets
        Bytes from the start of each PMD-mapped range up to the first top, in the order they were
        touched; None where it was measured, because smaps tells how much but not which.
    """

    mappings: tuple[PlacedMapping, ...]
    gap_kib: int
    vmas: int
    anon_kib: int
    huge_kib: int
    minor_faults: int
    huge_offsets: tuple[int, ...] | None = None

    @property
    def coverage(self) -> float:
        """Share of the touched memory that is huge, 0 to 1."""
        return self.huge_kib / self.anon_kib


def describe(spans: Sequence[Span], top: int, pmd: int) -> tuple[tuple[PlacedMapping, ...], int]:
    """Return the mappings relative to the first top, and ``gap_kib`` of :class:`Layout`."""
    mappings = tuple(
        PlacedMapping(top - span.start, span.length, span.start % pmd == 0) for span in spans
    )
    gaps = sum(max(0, above.start - span.end) for above, span in itertools.pairwise(spans))
    return mappings, gaps // KIB


def place(lengths: Sequence[int], rule: Rule, top: int, sizes: PageSizes) -> list[Span]:
    """Return where the kernel puts mappings of ``lengths`` bytes, mapped one after the other.

    Parameters
    ----------
    lengths
        Bytes; rounded up to whole base pages as ``mmap`` does.
    rule
        The alignment rule of the kernel.
    top
        Upper end of the free address space.
    sizes
        Page sizes of the machine.
    """
    if not lengths or min(lengths) <= 0:
        raise BadRequestError(
            f"A layout was asked for with the lengths {list(lengths)}, but it needs at least one, "
            "and each of at least one byte. Give lengths such as 2052K*16."
        )
    if sum(lengths) + len(lengths) * sizes.pmd >= _FREE_SPACE:
        raise BadRequestError(
            f"A layout of {sum(lengths) // KIB:,} KiB was asked for, but a process has "
            f"{_FREE_SPACE // KIB:,} KiB of free address space. Give shorter or fewer lengths."
        )
    holes = [Span(top - _FREE_SPACE, top)]  # highest first
    placed: list[Span] = []
    for asked in lengths:
        length = -(-asked // sizes.base) * sizes.base
        align = rule.aligns(length, sizes.pmd)
        room = length + (sizes.pmd if align else 0)
        index, hole = next((i, h) for i, h in enumerate(holes) if h.length >= room)
        start = hole.end - length
        start -= start % sizes.pmd if align else 0
        rest = (Span(start + length, hole.end), Span(hole.start, start))
        holes[index : index + 1] = [part for part in rest if part.length]
        placed.append(Span(start, start + length))
    return placed


@dataclass(slots=True)
class _Vma:
    """A VMA: its range, and which ``anon_vma`` its pages belong to once it has any."""

    start: int
    end: int
    anon_vma: int | None = None


class _AddressSpace:
    """The VMAs and the populated pages of a process while mappings are added and touched."""

    def __init__(self, extent: Span, sizes: PageSizes) -> None:
        self._sizes = sizes
        self._origin = extent.start - extent.start % sizes.pmd
        self._populated = bytearray(-(-(extent.end - self._origin) // sizes.base))
        self._anon_vmas = itertools.count()
        self.vmas: list[_Vma] = []  # lowest first
        self.faults = 0
        self.huge_starts: list[int] = []

    @property
    def populated(self) -> int:
        """Bytes in memory."""
        return self._populated.count(1) * self._sizes.base

    def map(self, span: Span) -> None:
        """Add a mapping; merge it with its neighbours as ``vma_merge_new_range()`` would."""
        at = bisect.bisect(self.vmas, span.start, key=lambda vma: vma.start)
        new = _Vma(span.start, span.end)
        below = self.vmas[at - 1] if at and self.vmas[at - 1].end == new.start else None
        above = self.vmas[at] if at < len(self.vmas) and self.vmas[at].start == new.end else None
        if below and above and None not in (ids := {below.anon_vma, above.anon_vma}):
            # Two neighbours with pages of different origin cannot become one: the lower one wins.
            above = above if len(ids) == 1 else None
        for vma in (below, above):
            if vma:
                new = _Vma(
                    min(vma.start, new.start),
                    max(vma.end, new.end),
                    vma.anon_vma if new.anon_vma is None else new.anon_vma,
                )
                self.vmas.remove(vma)
        bisect.insort(self.vmas, new, key=lambda vma: vma.start)

    def touch(self, span: Span) -> None:
        """Write to every page of ``span``, in ascending order."""
        vma = self.vmas[bisect.bisect(self.vmas, span.start, key=lambda v: v.start) - 1]
        if vma.anon_vma is None:
            vma.anon_vma = self._reusable_anon_vma(vma)
        address = span.start
        while address < span.end:
            for size in self._sizes.at_fault:
                page = Span(address - address % size, address - address % size + size)
                if vma.start <= page.start and page.end <= vma.end and not self._any(page):
                    self._populate(page, faults=1)
                    if size == self._sizes.pmd:
                        self.huge_starts.append(page.start)
                    break
            else:
                page = self._base_pages(address, span.end)
                self._populate(page, faults=page.length // self._sizes.base - self._count(page))
            address = page.end

    def _base_pages(self, address: int, end: int) -> Span:
        """Return the range from ``address`` on for which no larger page fits, for one reason.

        If no size fits the page at ``address``, none fits another page of the same smallest block:
        the aligned ranges around both are the same.
        """
        block = self._sizes.at_fault[-1] if self._sizes.at_fault else self._sizes.pmd
        return Span(address, min(end, address - address % block + block))

    def _reusable_anon_vma(self, vma: _Vma) -> int:
        """Return the ``anon_vma`` of a neighbour without a hole between, else a new one."""
        for other in reversed(self.vmas):
            if other.anon_vma is not None and (other.start == vma.end or other.end == vma.start):
                return other.anon_vma
        return next(self._anon_vmas)

    def _pages(self, span: Span) -> tuple[int, int]:
        base = self._sizes.base
        return (span.start - self._origin) // base, (span.end - self._origin) // base

    def _any(self, span: Span) -> bool:
        return self._populated.find(1, *self._pages(span)) >= 0

    def _count(self, span: Span) -> int:
        return self._populated.count(1, *self._pages(span))

    def _populate(self, span: Span, faults: int) -> None:
        first, last = self._pages(span)
        self._populated[first:last] = b"\1" * (last - first)
        self.faults += faults


class Action(Enum):
    """What is done with one mapping of a list."""

    MAP = "map"
    TOUCH = "touch"


def steps(count: int, touch: Touch) -> Iterator[tuple[Action, int]]:
    """Yield what to do with which of ``count`` mappings, in the order that ``touch`` names."""
    for index in range(count):
        yield Action.MAP, index
        if touch is Touch.EACH:
            yield Action.TOUCH, index
    if touch is Touch.AFTER:
        yield from ((Action.TOUCH, index) for index in range(count))


def model(
    lengths: Sequence[int],
    rule: Rule,
    touch: Touch,
    *,
    top_offset: int = 0,
    sizes: PageSizes | None = None,
) -> Layout:
    """Return what mapping and touching ``lengths`` comes to on a kernel that follows ``rule``.

    Parameters
    ----------
    lengths
        Bytes of each mapping, in the order they are mapped.
    rule, touch
        The kernel's alignment rule, and the order of first writes.
    top_offset
        The first top modulo the PMD size, in bytes: how far above a PMD boundary the free address
        space ends. A whole number of base pages.
    sizes
        Page sizes; x86-64 with the kernel's default THP sizes if not given.
    """
    sizes = sizes or PageSizes()
    check_top_offset(top_offset, sizes)
    top = _FREE_SPACE * 2 + top_offset
    spans = place(lengths, rule, top, sizes)
    space = _AddressSpace(Span(min(span.start for span in spans), top), sizes)
    for action, index in steps(len(spans), touch):
        (space.map if action is Action.MAP else space.touch)(spans[index])
    mappings, gap_kib = describe(spans, top, sizes.pmd)
    return Layout(
        mappings,
        gap_kib,
        vmas=len(space.vmas),
        anon_kib=space.populated // KIB,
        huge_kib=len(space.huge_starts) * sizes.pmd // KIB,
        minor_faults=space.faults,
        huge_offsets=tuple(top - start for start in space.huge_starts),
    )


def check_top_offset(top_offset: int, sizes: PageSizes) -> None:
    """Raise :class:`BadRequestError` unless ``top_offset`` is whole base pages below a PMD."""
    if not 0 <= top_offset < sizes.pmd or top_offset % sizes.base:
        raise BadRequestError(
            f"The first top was asked to lie {top_offset} bytes above a boundary, but it can only "
            f"lie a whole number of {sizes.base // KIB} KiB pages above it, and less than "
            f"{sizes.pmd // KIB} KiB. Give an offset such as 0, 4K or 512K."
        )
