"""The kinds of memory that processes can share, each as an open descriptor to be handed on.

Every kind is bounded, has no name that could stay behind, and is gone when its last user is.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final

from hugeprobe import children
from hugeprobe.errors import ProbeError
from hugeprobe.linux import Advice
from hugeprobe.sharing import pagecache
from hugeprobe.sizes import KIB, format_kib

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager

POSIX_SHARED: Final = Path("/dev/shm")
_PIECE: Final = 64 * KIB
_ON_A_DISK: Final = ("/tmp", "/var/tmp")
_IN_MEMORY: Final = ("tmpfs", "ramfs")
_MOUNT: Final = (
    'mount -t tmpfs -o "huge=$1,size=$2,mode=0700" tmpfs "$3" && echo mounted && read -r _'
)


class RefusedError(ProbeError):
    """The host does not give this kind; the text is the rest of a "because …" without full stop."""


@dataclass(frozen=True, slots=True)
class Sharing:
    """A kind of shared memory, and what is asked of the kernel about it.

    Parameters
    ----------
    name
        What it is called in tables.
    opened
        Gives the descriptor of so many bytes, or -1 for memory that only forks share.
    before, after
        Advice of the first process before and after it touches the memory.
    written
        Whether the first process writes; else it reads what is there.
    second_off_boundary
        Whether the second process maps it one base page above a PMD boundary.
    """

    name: str
    opened: Callable[[int], AbstractContextManager[int]]
    before: Advice | None = None
    after: Advice | None = None
    written: bool = True
    second_off_boundary: bool = False


@contextmanager
def anonymous(length: int) -> Iterator[int]:
    """Give no descriptor: ``MAP_SHARED | MAP_ANONYMOUS`` is shared by being inherited."""
    del length
    yield -1


@contextmanager
def memfd(length: int) -> Iterator[int]:
    """Give a file that is only memory (``memfd_create(2)``)."""
    with _closed(os.memfd_create("hugeprobe")) as descriptor:
        os.ftruncate(descriptor, length)
        yield descriptor


@contextmanager
def hugetlb(length: int) -> Iterator[int]:
    """Give the same from the pool that was set aside for hugetlbfs (``MFD_HUGETLB``).

    The pages are taken at once: where a control group forbids them, taking them at a fault would
    end the process by ``SIGBUS``.
    """
    with _closed(os.memfd_create("hugeprobe", os.MFD_HUGETLB)) as descriptor:
        os.ftruncate(descriptor, length)
        try:
            os.posix_fallocate(descriptor, 0, length)
        except OSError as error:
            raise RefusedError(
                f"the kernel refused {format_kib(length / KIB)} of hugetlbfs ({error.strerror}): "
                "its pool is set aside beforehand, by root (vm.nr_hugepages)"
            ) from error
        yield descriptor


@contextmanager
def posix(length: int) -> Iterator[int]:
    """Give a file without a name in ``/dev/shm``, the folder of ``shm_open(3)``."""
    with _unnamed(POSIX_SHARED, length) as descriptor:
        yield descriptor


@contextmanager
def private_tmpfs(length: int, huge: str) -> Iterator[int]:
    """Give a file in a tmpfs of one's own, mounted with ``huge=`` where nobody else sees it.

    A user namespace makes that possible without root (``user_namespaces(7)``). The mount ends with
    the last descriptor of a file in it; the folder that it is mounted on is removed.
    """
    if not (unshare := shutil.which("unshare")):
        raise RefusedError("the program unshare of util-linux is not installed")
    namespaces = (unshare, "--user", "--map-root-user", "--mount")
    with tempfile.TemporaryDirectory(prefix="hugeprobe-") as folder:
        script = ("sh", "-c", _MOUNT, "sh", huge, str(length), folder)
        with subprocess.Popen(
            (*namespaces, *script),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={**os.environ, "LC_ALL": "C"},
            text=True,
        ) as inside:
            mounted = inside.stdout.readline() if inside.stdout else ""
            if not mounted:
                said = children.without_folders(inside.communicate()[1].strip())
                raise RefusedError(f"the host refused a tmpfs of one's own ({said})")
            with _unnamed(Path(f"/proc/{inside.pid}/root{folder}"), length) as descriptor:
                inside.communicate("\n")
                yield descriptor


@contextmanager
def disk_file(length: int, *, piece: int | None, cold: bool = False) -> Iterator[int]:
    """Give a file on a disk, open for reading.

    Parameters
    ----------
    length
        Its bytes.
    piece
        Bytes of each call that writes it; None for one call.
    cold
        Whether it is put out of memory before it is mapped.
    """
    with tempfile.TemporaryFile(dir=_disk_folder(), buffering=0) as file:
        step = piece or length
        content = memoryview(os.urandom(length))
        for start in range(0, length, step):
            file.write(content[start : start + step])
        reading = os.open(f"/proc/self/fd/{file.fileno()}", os.O_RDONLY)
        if cold:
            pagecache.put_out(file.fileno())
    with _closed(reading):
        yield reading


def _disk_folder() -> str:
    for folder in (tempfile.gettempdir(), *_ON_A_DISK):
        system = pagecache.file_system(Path(folder))
        if system and system.kind not in _IN_MEMORY and os.access(folder, os.W_OK):
            return folder
    raise RefusedError("no folder for temporary files is on a disk")


@contextmanager
def _closed(descriptor: int) -> Iterator[int]:
    try:
        yield descriptor
    finally:
        os.close(descriptor)


@contextmanager
def _unnamed(folder: Path, length: int) -> Iterator[int]:
    """Give a file in ``folder`` that never has a name, if the file system has room for it.

    A file longer than the room is not refused: it ends the process that touches too much of it.
    """
    with _closed(os.open(folder, os.O_TMPFILE | os.O_RDWR, 0o600)) as descriptor:
        system = os.fstatvfs(descriptor)
        room = system.f_bavail * system.f_frsize
        if room < length:
            raise RefusedError(
                f"{format_kib(length / KIB)} are asked for, and the file system of this kind has "
                f"room for {format_kib(room / KIB)}"
            )
        os.ftruncate(descriptor, length)
        yield descriptor


_PIECES: Final = partial(disk_file, piece=_PIECE)
_COLD: Final = partial(disk_file, piece=None, cold=True)
_ADVISED: Final = partial(private_tmpfs, huge="advise")

SHARED: Final = (
    Sharing("anonymous, MAP_SHARED", anonymous),
    Sharing("memfd", memfd),
    Sharing("memfd, advised", memfd, before=Advice.HUGEPAGE),
    Sharing("memfd, collapsed", memfd, after=Advice.COLLAPSE),
    Sharing(
        "memfd, collapsed, off boundary", memfd, after=Advice.COLLAPSE, second_off_boundary=True
    ),
    Sharing("file in /dev/shm", posix),
    Sharing("tmpfs huge=advise", _ADVISED),
    Sharing("tmpfs huge=advise, advised", _ADVISED, before=Advice.HUGEPAGE),
    Sharing("tmpfs huge=within_size", partial(private_tmpfs, huge="within_size")),
    Sharing("tmpfs huge=always", partial(private_tmpfs, huge="always")),
    Sharing("memfd from hugetlbfs", hugetlb),
)
"""Memory that no disk is behind."""

FILES: Final = (
    Sharing("written in pieces", _PIECES, written=False),
    Sharing("in pieces, collapsed", _PIECES, after=Advice.COLLAPSE, written=False),
    Sharing("written at once", partial(disk_file, piece=None), written=False),
    Sharing("from the disk", _COLD, written=False),
    Sharing("from the disk, advised", _COLD, before=Advice.HUGEPAGE, written=False),
)
"""A file on a disk, as weights are, by how it came into memory."""
