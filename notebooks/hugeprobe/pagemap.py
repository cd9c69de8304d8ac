"""Which base pages of a process are in memory, from ``/proc/PID/pagemap``.

smaps says how much of a mapping is resident; this says where. One 64-bit word stands for each base
page of the address space, also for those that are part of a huge page. What it takes to read it is
what it takes to read smaps; the addresses in physical memory, which need a capability, are not
used. Sources: ``Documentation/admin-guide/mm/pagemap.rst``, ``fs/proc/task_mmu.c``.
"""

from __future__ import annotations

import os
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np

from hugeprobe.errors import NotObservable, ProcessGoneError
from hugeprobe.sizes import page_sizes

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from numpy.typing import NDArray

    from hugeprobe.placement import Span
    from hugeprobe.smaps import Pid

_PRESENT: Final = np.uint64(1 << 63)
_OWN: Final = np.uint64(1 << 63 | 1 << 56)
"""Present and mapped exactly once (since Linux 4.2): not shared, and not the zero page."""
_WORD: Final = 8
_PAGES_AT_ONCE: Final = 8192
"""A buffer of 64 KiB: below the size from which glibc maps a block, so that a process which looks
at itself does not change how its next blocks are allocated (``mallopt(3)``)."""


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


class PageMap:
    """The open page map of one process; made by :func:`opened`.

    It stays that of the memory for which it was opened: once the process has ended, or executes
    another program, it reads as empty, whoever has its number then.
    """

    def __init__(self, pid: Pid, descriptor: int, base: int) -> None:
        self._pid = pid
        self._descriptor = descriptor
        self._base = base

    def present(self, spans: Iterable[Span]) -> NDArray[np.bool_]:
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
    ProcessGoneError
        If there is no such process.
    """
    process = root / "proc" / str(pid)
    try:
        descriptor = os.open(process / "pagemap", os.O_RDONLY | os.O_CLOEXEC)
    except PermissionError:
        yield NotObservable("the kernel refuses the page map of this process to this user")
        return
    except (FileNotFoundError, ProcessLookupError) as error:
        if not process.exists():
            raise ProcessGoneError(
                f"The page map of process {pid} was asked for, but there is no such process. "
                "It may have ended: look for it with `ps -e`."
            ) from error
        yield NotObservable("this kernel has no page map (CONFIG_PROC_PAGE_MONITOR)")
        return
    try:
        yield PageMap(pid, descriptor, page_sizes(root).base)
    finally:
        os.close(descriptor)


def present(
    pid: Pid, spans: Iterable[Span], root: Path = Path("/")
) -> NDArray[np.bool_] | NotObservable:
    """Return whether each base page of ``spans`` is in memory, one value a page, in order.

    Parameters and errors are those of :func:`opened` and :meth:`PageMap.present`.
    """
    with opened(pid, root) as pages:
        return pages if isinstance(pages, NotObservable) else pages.present(spans)
