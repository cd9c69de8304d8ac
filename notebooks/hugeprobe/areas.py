"""Pieces of address space to experiment in: reserved, placed, touched, measured, given back."""

from __future__ import annotations

import ctypes
import resource
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from hugeprobe import smaps
from hugeprobe.errors import NoMemoryError, NotObservable
from hugeprobe.host import usable_memory_kib
from hugeprobe.linux import PROT_NONE, map_anonymous, unmap
from hugeprobe.placement import Span
from hugeprobe.sizes import KIB, PageSizes, format_kib

if TYPE_CHECKING:
    from collections.abc import Iterator

_SHARE_OF_MEMORY: Final = 0.5
"""Part of the usable memory that one experiment may touch."""


@dataclass(frozen=True, slots=True)
class Resident:
    """What a range of addresses holds in memory, in KiB.

    Parameters
    ----------
    anon_kib
        Anonymous memory in it.
    huge_kib
        The part of that which PMD entries map.
    """

    anon_kib: int
    huge_kib: int

    @property
    def coverage(self) -> float:
        """Share of the anonymous memory that is huge, 0 to 1."""
        return self.huge_kib / self.anon_kib if self.anon_kib else 0.0


def too_much(touched: int) -> NotObservable | None:
    """Return why ``touched`` bytes would not fit into this process's share, if they would not."""
    usable = usable_memory_kib()
    if touched // KIB <= usable * _SHARE_OF_MEMORY:
        return None
    return NotObservable(
        f"it would touch {format_kib(touched // KIB)}, and of the {format_kib(usable)} "
        "that this process may use an experiment takes at most half"
    )


@contextmanager
def reserved(length: int) -> Iterator[Span]:
    """Reserve ``length`` bytes of address space that nothing else can be placed in.

    Raises
    ------
    NoMemoryError
        If the kernel refuses the address space (``ulimit -v``, ``vm.max_map_count``).
    """
    try:
        start = map_anonymous(length, access=PROT_NONE, reserve=False)
    except OSError as error:
        raise NoMemoryError(
            f"{format_kib(length / KIB)} of address space was needed, but the kernel refused it: "
            f"{error.strerror}. Look at `ulimit -v` and at vm.max_map_count."
        ) from error
    try:
        yield Span(start, start + length)
    finally:
        unmap(start, length)


@contextmanager
def aligned_area(length: int, sizes: PageSizes) -> Iterator[Span]:
    """Give ``length`` bytes of untouched anonymous memory that start on a PMD boundary."""
    with reserved(length + 2 * sizes.pmd) as reserve:
        start = -(-(reserve.start + sizes.base) // sizes.pmd) * sizes.pmd
        map_anonymous(length, at=start)
        yield Span(start, start + length)


def touch(span: Span) -> int:
    """Write every byte of ``span``; return the minor faults of this thread that it cost."""
    # Pages that counting itself writes to may be shared since a fork: have those faults before.
    resource.getrusage(resource.RUSAGE_THREAD)
    ctypes.memset(span.start, 1, 0)
    before = resource.getrusage(resource.RUSAGE_THREAD).ru_minflt
    ctypes.memset(span.start, 1, span.length)
    return resource.getrusage(resource.RUSAGE_THREAD).ru_minflt - before


def resident(span: Span) -> Resident:
    """Return what the mappings within ``span`` of this process hold in memory."""
    within = smaps.snapshot("self").within(span.start, span.end)
    return Resident(
        sum(mapping.anonymous_kib or 0 for mapping in within),
        sum(mapping.anon_huge_kib or 0 for mapping in within),
    )
