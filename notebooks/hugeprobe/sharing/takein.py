"""What it takes to map a file that is in memory already, or not yet, and to have all of it.

The page cache decides on how large pages a file is mapped; populating and locking take the same
faults as a program that reads, only at once. Sixteen base pages are mapped by one fault
(``do_fault_around()`` in ``mm/memory.c``), and more where a PMD maps a large folio.
"""

from __future__ import annotations

import ctypes
import os
import resource
import zlib
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final

from hugeprobe import linux, smaps
from hugeprobe.areas import reserved, too_much
from hugeprobe.errors import NotObservable
from hugeprobe.linux import Advice, advise
from hugeprobe.locking import Way, advise_huge, lock_now, refusal
from hugeprobe.placement import Span
from hugeprobe.sharing import pagecache
from hugeprobe.sharing.kinds import RefusedError, disk_file
from hugeprobe.sizes import KIB, MIB, PageSizes, page_sizes

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager

_PMDS: Final = 2
"""Length in PMDs: 4 MiB on x86-64, below the 8 MiB that most systems let any user lock."""
_AT_MOST: Final = 64 * MIB
_PIECE: Final = 64 * KIB


@dataclass(frozen=True, slots=True)
class Beforehand:
    """What was done with the file before it is mapped.

    Parameters
    ----------
    name
        In words.
    opened
        Gives the descriptor of a file of so many bytes.
    """

    name: str
    opened: Callable[[int], AbstractContextManager[int]]


@dataclass(frozen=True, slots=True)
class TakenIn:
    """What one way came to with one file.

    Parameters
    ----------
    beforehand, way
        What was done with the file before, and what the program does with its mapping.
    length
        Bytes of the file.
    in_memory_before
        Bytes of it that the page cache held before.
    minor_faults, major_faults
        Of the calls of the way, or of reading where it has none.
    later
        Minor and major faults of reading all of it afterwards.
    resident_kib, pmd_kib, locked_kib
        The mapping in the end: in memory, by PMDs, and what the kernel may not take away.
    """

    beforehand: Beforehand
    way: Way
    length: int
    in_memory_before: int
    minor_faults: int
    major_faults: int
    later: int
    resident_kib: int
    pmd_kib: int
    locked_kib: int


@contextmanager
def _brought_in_huge(length: int) -> Iterator[int]:
    with disk_file(length, piece=_PIECE) as descriptor:
        pagecache.bring_in(Path(f"/proc/self/fd/{descriptor}"))
        yield descriptor


@contextmanager
def _read_through(length: int) -> Iterator[int]:
    with disk_file(length, piece=_PIECE, cold=True) as descriptor:
        while os.read(descriptor, _PIECE):
            pass
        yield descriptor


def _read(span: Span) -> None:
    """Read every byte, by code that uses no new memory of its own."""
    zlib.crc32((ctypes.c_ubyte * span.length).from_address(span.start))


def _populate(span: Span) -> None:
    advise(span.start, span.length, Advice.POPULATE_READ)


BEFOREHAND: Final = (
    Beforehand("on the disk only", partial(disk_file, piece=_PIECE, cold=True)),
    Beforehand("written in pieces", partial(disk_file, piece=_PIECE)),
    Beforehand("read through, as by cat", _read_through),
    Beforehand("brought in huge", _brought_in_huge),
)
"""How a weights file may be found."""

WAYS: Final = (
    Way("map, read", (_read,)),
    Way("map, populate", (_populate,)),
    Way("map, lock", (lock_now,)),
    Way("map, advise, lock", (advise_huge, lock_now)),
)
"""How a program may take it in."""


def take_in(
    beforehand: Beforehand, way: Way, sizes: PageSizes | None = None
) -> TakenIn | NotObservable:
    """Make a file, map it above a PMD boundary, take it in by one way, and look.

    Parameters
    ----------
    beforehand, way
        One of :data:`BEFOREHAND`, and one of :data:`WAYS`.
    sizes
        Page sizes; those of this machine if not given.

    Returns
    -------
    TakenIn or NotObservable
        The latter where the host refuses the file or a call.
    """
    sizes = sizes or page_sizes()
    length = min(_PMDS * sizes.pmd, _AT_MOST)
    if missing := too_much(2 * length):
        return missing
    try:
        with beforehand.opened(length) as file, _mapped(file, length, sizes) as span:
            return _take_in(beforehand, way, span, sizes)
    except RefusedError as refused:
        return NotObservable(str(refused))
    except OSError as error:
        return NotObservable(f"the kernel refused a file to experiment with ({error.strerror})")


def take_all_in() -> list[TakenIn | NotObservable]:
    """Try every way with a file of every kind, each time a new one."""
    return [take_in(beforehand, way) for beforehand in BEFOREHAND for way in WAYS]


@contextmanager
def _mapped(descriptor: int, length: int, sizes: PageSizes) -> Iterator[Span]:
    """Map it where a PMD can map it, next to nothing else."""
    with reserved(length + 2 * sizes.pmd) as reserve:
        start = -(-(reserve.start + sizes.base) // sizes.pmd) * sizes.pmd
        linux.map_shared(descriptor, length, at=start, access=linux.PROT_READ)
        yield Span(start, start + length)


def _take_in(
    beforehand: Beforehand, way: Way, span: Span, sizes: PageSizes
) -> TakenIn | NotObservable:
    before = linux.in_memory(span.start, span.length, sizes.base) * sizes.base
    _faults()  # what counting itself touches for the first time
    minor, major = _faults()
    try:
        for call in way.calls:
            call(span)
    except OSError as error:
        return refusal(way, span, error)
    minor_then, major_then = _faults()
    _read(span)
    later = sum(_faults()) - minor_then - major_then
    (mapping,) = smaps.snapshot("self").within(span.start, span.end)
    return TakenIn(
        beforehand,
        way,
        span.length,
        before,
        minor_then - minor,
        major_then - major,
        later,
        resident_kib=mapping.rss_kib or 0,
        pmd_kib=mapping.file_pmd_kib or 0,
        locked_kib=mapping.locked_kib or 0,
    )


def _faults() -> tuple[int, int]:
    used = resource.getrusage(resource.RUSAGE_THREAD)
    return used.ru_minflt, used.ru_majflt
