"""Which base pages of a process are in memory, from ``/proc/PID/pagemap``.

smaps says how much of a mapping is resident; this says where. One 64-bit word stands for each base
page of the address space, also for those that are part of a huge page. What it takes to read it is
what it takes to read smaps; the addresses in physical memory, which need a capability, are not
used. Linux 6.7 can also be asked for stretches of pages of one sort (``PAGEMAP_SCAN``), which is
quicker, and tells huge pages. Sources: ``Documentation/admin-guide/mm/pagemap.rst``,
``fs/proc/task_mmu.c``, ``include/uapi/linux/fs.h``.
"""

from __future__ import annotations

import bisect
import fcntl
import os
import struct
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeAlias

import numpy as np

from hugeprobe import smaps
from hugeprobe.errors import NotObservable, ProcessGoneError
from hugeprobe.placement import Span
from hugeprobe.sizes import KIB, page_sizes

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from numpy.typing import NDArray

    from hugeprobe.smaps import Pid

    Flags: TypeAlias = NDArray[np.bool_]

Located: TypeAlias = Callable[[int, int], int]
"""Returns the KiB of resident anonymous memory from one address to another."""

_PRESENT: Final = np.uint64(1 << 63)
_OWN: Final = np.uint64(1 << 63 | 1 << 56)
"""Present and mapped exactly once (since Linux 4.2): not shared, and not the zero page."""
_WORD: Final = 8
_PAGES_AT_ONCE: Final = 8192
"""A buffer of 64 KiB: below the size from which glibc maps a block, so that a process which looks
at itself does not change how its next blocks are allocated (``mallopt(3)``)."""

_SCAN: Final = 0xC0606610
"""``PAGEMAP_SCAN``: ``_IOWR('f', 16, struct pm_scan_arg)``."""
_SCAN_ARGUMENT: Final = struct.Struct("=12Q")
_SCAN_ENDED_AT: Final = 4
_FILE, _IN_MEMORY, _ZERO, _HUGE = 1 << 2, 1 << 3, 1 << 5, 1 << 6
_STRETCHES_AT_ONCE: Final = 2048
_STRETCH_WORDS: Final = 3


@dataclass(frozen=True, slots=True, eq=False)
class RangePages:
    """Base pages of ranges of one length, in order of address.

    Parameters
    ----------
    present
        Pages in memory, of each range.
    own
        Those of them that no other process maps and that are not the zero page: what the range
        holds of memory that is this process's alone.
    """

    present: NDArray[np.int64]
    own: NDArray[np.int64]


@dataclass(frozen=True, slots=True, eq=False)
class Anonymous:
    """Where the resident anonymous memory of a process lies, in stretches in order of address.

    Parameters
    ----------
    start, end
        Addresses of each stretch.
    huge
        Whether PMDs map it.
    """

    start: NDArray[np.int64]
    end: NDArray[np.int64]
    huge: Flags

    def only(self, *, huge: bool) -> Anonymous:
        """Return the stretches that PMDs map, or those that they do not map."""
        which = self.huge == huge
        return Anonymous(self.start[which], self.end[which], self.huge[which])

    def located(self) -> Located:
        """Return a function that says how many KiB lie from one address to another."""
        starts, ends = self.start.tolist(), self.end.tolist()
        sums = [0, *np.cumsum(self.end - self.start).tolist()]

        def below(address: int) -> int:
            begun = bisect.bisect_right(starts, address)
            beyond = ends[begun - 1] - address if begun else 0
            bytes_below: int = sums[begun] - max(0, beyond)
            return bytes_below

        return lambda start, end: (below(end) - below(start)) // KIB

    def ranges(self, length: int) -> NDArray[np.int64]:
        """Return the numbers (address / ``length``) of the aligned ranges that hold any of it."""
        first, last = self.start // length, (self.end - 1) // length
        counts = last - first + 1
        within = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
        return np.unique(np.repeat(first, counts) + within)


class PageMap:
    """The open page map of one process; made by :func:`opened`.

    It stays that of the memory for which it was opened: once the process has ended, or executes
    another program, it reads as empty, whoever has its number then.
    """

    def __init__(self, pid: Pid, descriptor: int, base: int) -> None:
        self._pid = pid
        self._descriptor = descriptor
        self._base = base

    def present(self, spans: Iterable[Span]) -> Flags:
        """Return whether each base page of ``spans`` is in memory, one value a page, in order.

        Parameters
        ----------
        spans
            Ranges of addresses that begin and end at base pages.

        Raises
        ------
        ProcessGoneError
            If the process has ended, or executes another program.
        """
        found = [(words & _PRESENT) != 0 for span in spans for words in self._words(span, 1)]
        return np.concatenate([np.empty(0, np.bool_), *found])

    def ranges(self, spans: Iterable[Span], length: int) -> RangePages:
        """Count the base pages of each range of ``length`` bytes in ``spans``, in order.

        Parameters
        ----------
        spans
            Ranges of addresses that hold a whole number of such ranges.
        length
            Bytes, such as the PMD size.

        Raises
        ------
        ProcessGoneError
            If the process has ended, or executes another program.
        """
        pages = length // self._base
        counted = [
            [np.count_nonzero(rows & bits == bits, axis=1) for bits in (_PRESENT, _OWN)]
            for span in spans
            for words in self._words(span, pages)
            for rows in [words.reshape(-1, pages)]
        ]
        none = np.empty(0, np.int64)
        present, own = (
            np.concatenate([none, *(counts[which] for counts in counted)]) for which in (0, 1)
        )
        return RangePages(present, own)

    def located(self) -> Located:
        """Return a function that says how many KiB lie from one address to another.

        It reads what it is asked about when it is asked, on kernels that :meth:`anonymous` cannot
        use. It is meant for anonymous mappings, and also counts pages that only were read.
        """

        def between(start: int, end: int) -> int:
            (pages,) = self.ranges([Span(start, end)], end - start).present.tolist()
            return int(pages) * self._base // KIB

        return between

    def anonymous(self, end: int) -> Anonymous | NotObservable:
        """Return where all resident anonymous memory below the address ``end`` lies.

        Pages that were only read, all of them the zero page, are not memory of the process.

        Returns
        -------
        Anonymous or NotObservable
            The latter before Linux 6.7.
        """
        block = np.empty((_STRETCHES_AT_ONCE, _STRETCH_WORDS), np.int64)
        found = [block[:0]]
        start = 0
        while start < end:
            argument = bytearray(_scan_argument(start, end, block))
            try:
                count = fcntl.ioctl(self._descriptor, _SCAN, argument)
            except OSError:
                return NotObservable("this kernel cannot scan a page map (Linux 6.7 and newer can)")
            found.append(block[:count].copy())
            start = _SCAN_ARGUMENT.unpack(argument)[_SCAN_ENDED_AT]
        starts, ends, categories = np.concatenate(found).T
        return Anonymous(starts, ends, (categories & _HUGE) != 0)

    @property
    def ended(self) -> bool:
        """Whether the memory is gone: the process has ended, or executes another program."""
        return not os.pread(self._descriptor, _WORD, 0)

    def _words(self, span: Span, multiple: int) -> Iterator[NDArray[np.uint64]]:
        """Yield the words of ``span`` in blocks, each a view that the next one overwrites.

        Every block is a multiple of ``multiple`` pages, if ``span`` is.
        """
        block = np.empty(max(multiple, _PAGES_AT_ONCE // multiple * multiple), np.uint64)
        end = span.end // self._base
        for first in range(span.start // self._base, end, len(block)):
            words = block[: end - first]
            self._read(words, first)
            yield words

    def _read(self, words: NDArray[np.uint64], first: int) -> None:
        rest, offset = words.data.cast("B"), first * _WORD
        while rest:
            count = os.preadv(self._descriptor, [rest], offset)
            if not count:
                raise ProcessGoneError(
                    f"The page map of process {self._pid} was asked for, but the process has "
                    "ended or executes another program. Look at it while it runs."
                )
            rest, offset = rest[count:], offset + count


def _scan_argument(start: int, end: int, block: NDArray[np.int64]) -> bytes:
    """Return a ``struct pm_scan_arg`` that asks for anonymous memory, and which of it is huge."""
    flags = ended_at = at_most = any_of = 0
    out_of = _FILE | _ZERO  # categories whose bit is to be clear
    required = out_of | _IN_MEMORY
    return _SCAN_ARGUMENT.pack(
        _SCAN_ARGUMENT.size,
        flags,
        start,
        end,
        ended_at,
        block.ctypes.data,
        len(block),
        at_most,
        out_of,
        required,
        any_of,
        _HUGE,
    )


@contextmanager
def opened(pid: Pid, root: Path = Path("/")) -> Iterator[PageMap | NotObservable]:
    """Open the page map of a process, for as long as the ``with`` block lasts.

    Parameters
    ----------
    pid
        Process number, or ``"self"``.
    root
        Where ``proc`` is.

    Yields
    ------
    PageMap or NotObservable
        The latter where this kernel has no page map, or refuses it to this user.

    Raises
    ------
    ProcessGoneError, NotPermittedError
        If there is no such process, or it is hidden from this user.
    """
    process = root / "proc" / str(pid)
    try:
        descriptor = os.open(process / "pagemap", os.O_RDONLY | os.O_CLOEXEC)
    except PermissionError:
        yield NotObservable("the kernel refuses the page map of this process to this user")
        return
    except (FileNotFoundError, ProcessLookupError) as error:
        if not process.exists():
            smaps.explain_missing(pid, root, error)
        yield NotObservable("this kernel has no page map (CONFIG_PROC_PAGE_MONITOR)")
        return
    try:
        yield PageMap(pid, descriptor, page_sizes(root).base)
    finally:
        os.close(descriptor)


def present(pid: Pid, spans: Iterable[Span], root: Path = Path("/")) -> Flags | NotObservable:
    """Return whether each base page of ``spans`` is in memory, one value a page, in order.

    Parameters and errors are those of :func:`opened` and :meth:`PageMap.present`.
    """
    with opened(pid, root) as pages:
        return pages if isinstance(pages, NotObservable) else pages.present(spans)
