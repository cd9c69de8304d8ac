"""Files on a disk in memory: out of the page cache, and back in on pages of one size or another.

The page cache holds a file once, for all processes. Whoever brings a part of it in decides on how
large pages it lies there, and nobody who maps it later changes that. A mapping that is advised for
huge pages brings in PMD-sized ones where the file system has large folios (``mm/filemap.c``,
``do_sync_mmap_readahead``).
"""

from __future__ import annotations

import mmap
import os
import sys
from dataclasses import dataclass
from pathlib import Path

import psutil


@dataclass(frozen=True, slots=True)
class FileSystem:
    """The file system that a folder is on.

    Parameters
    ----------
    kind
        As ``/proc/mounts`` names it: ``ext4``, ``tmpfs``.
    options
        Its mount options.
    """

    kind: str
    options: tuple[str, ...]

    @property
    def huge(self) -> str:
        """Mount option ``huge=`` of a tmpfs; where it is not listed it is ``never``."""
        values = (option.removeprefix("huge=") for option in self.options if "huge=" in option)
        return next(values, "never")


def file_system(folder: Path) -> FileSystem | None:
    """Return the file system of a folder, None where none is mounted that is known of."""
    resolved = folder.resolve()
    mounts = psutil.disk_partitions(all=True)
    above = [mount for mount in mounts if resolved.is_relative_to(mount.mountpoint)]
    if not above:
        return None
    # The longest path is nearest; of several on one path the last covers the others.
    nearest = max(enumerate(above), key=lambda each: (len(each[1].mountpoint), each[0]))[1]
    return FileSystem(nearest.fstype, tuple(nearest.opts.split(",")))


def put_out(descriptor: int) -> None:
    """Ask the kernel to drop a file from memory (``posix_fadvise(2)``); what is mapped stays."""
    os.fsync(descriptor)
    os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)


def bring_in(path: Path, *, huge: bool = True) -> None:
    """Put a file out of memory and bring it in again, on huge pages where the kernel can.

    Parameters
    ----------
    path
        The file, for instance the weights of a model. It should not be mapped by anyone.
    huge
        Whether to advise for huge pages; else it comes in as it does for every program.
    """
    with path.open("rb") as file:
        put_out(file.fileno())
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
            if huge:
                mapped.madvise(mmap.MADV_HUGEPAGE)
            for offset in range(0, len(mapped), mmap.PAGESIZE):
                mapped[offset]


if __name__ == "__main__":
    for name in sys.argv[1:]:
        bring_in(Path(name))
