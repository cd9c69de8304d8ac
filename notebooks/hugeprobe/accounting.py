"""Huge pages in the books of a control group: what a container's limit is charged for.

A huge page is charged whole, at once, to the group of the process that first writes to it. How much
of a group's memory is huge stands in its ``memory.stat``: ``anon_thp``, ``file_thp`` and
``shmem_thp`` in version 2, ``rss_huge`` in version 1, which counts anonymous memory only.

Source: ``Documentation/admin-guide/cgroup-v2.rst`` and ``cgroup-v1/memory.rst`` of the kernel.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from hugeprobe.areas import aligned_area, resident, too_much, touch
from hugeprobe.errors import NotObservable
from hugeprobe.host import memory_groups
from hugeprobe.linux import Advice, advise
from hugeprobe.sizes import KIB, page_sizes

if TYPE_CHECKING:
    from hugeprobe.smaps import Pid

_PMDS: Final = 16
"""Length of the experiment in PMDs: 32 MiB on x86-64."""
_ANON_HUGE: Final = {1: "rss_huge", 2: "anon_thp"}


@dataclass(frozen=True, slots=True)
class Books:
    """The innermost memory group of a process, in KiB.

    Parameters
    ----------
    version
        Of the control group: 1 or 2.
    anon_huge_kib
        Anonymous memory of all processes in it that is on huge pages.
    """

    version: int
    anon_huge_kib: int


def books(pid: Pid = "self", root: Path = Path("/")) -> Books | NotObservable:
    """Return what the memory group of a process says about huge pages."""
    for version, folder in memory_groups(root, pid):
        name = _ANON_HUGE[version]
        for line in _lines(folder / "memory.stat"):
            key, _, value = line.partition(" ")
            if key == name and value.isdigit():
                return Books(version, int(value) // KIB)
    return NotObservable(
        "no control group of this process counts its huge pages: there is no memory controller "
        "for it, or /sys/fs/cgroup is not mounted"
    )


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text().splitlines()
    except OSError:
        return []


@dataclass(frozen=True, slots=True)
class Charge:
    """What the books said before some memory was written, while it was there, and after.

    Parameters
    ----------
    huge_kib
        Huge memory of the experiment itself, as smaps tells it.
    before, during, after
        The group's books.
    """

    huge_kib: int
    before: Books
    during: Books
    after: Books


def charge() -> Charge | NotObservable:
    """Write some advised memory, and look into the books of this process's group meanwhile.

    Other processes of the group are in the same books.
    """
    sizes = page_sizes()
    if missing := too_much(length := _PMDS * sizes.pmd):
        return missing
    if isinstance(before := books(), NotObservable):
        return before
    with aligned_area(length, sizes) as span:
        try:
            advise(span.start, span.length, Advice.HUGEPAGE)
        except OSError as error:
            return NotObservable(f"the kernel refused MADV_HUGEPAGE ({error.strerror})")
        touch(span)
        huge, during = resident(span).huge_kib, books()
    after = books()
    if isinstance(during, NotObservable) or isinstance(after, NotObservable):
        return NotObservable("the control group of this process changed meanwhile")
    return Charge(huge, before, during, after)
