"""A process with memory that is on base pages for one reason: ``python constructed.py REASON``.

It prints where that memory is, and waits until its standard input ends. Each reason is a function
below that is given an aligned range of 16 MiB which nothing can access.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import platform
import sys
import tempfile

from hugeprobe.areas import reserved
from hugeprobe.linux import MAP_FIXED, Advice, advise, map_anonymous, set_thp_disabled
from hugeprobe.sizes import KIB, MIB

LENGTH = 16 * MIB
PMD = 2 * MIB
_DO_NOT_DUMP = 16  # MADV_DONTDUMP
_SET_NAME = 0x53564D41  # PR_SET_VMA
_MBIND = {"x86_64": 237, "aarch64": 235}
_BIND = 2  # MPOL_BIND
_LIBC = ctypes.CDLL(None, use_errno=True)


def call(name: str, *arguments: int | bytes) -> None:
    """Call the C library with arguments as wide as a register."""
    wide = (ctypes.c_ulong(each) if isinstance(each, int) else each for each in arguments)
    if getattr(_LIBC, name)(*wide):
        raise OSError(ctypes.get_errno(), name)


def memory(start: int, length: int) -> None:
    """Map anonymous memory and write to all of it."""
    map_anonymous(length, at=start)
    ctypes.memset(start, 1, length)


def short(start: int) -> None:
    memory(start + 512 * KIB, MIB)


def misaligned(start: int) -> None:
    memory(start + MIB, PMD + 512 * KIB)


def edge(start: int) -> None:
    """Touch nothing but the head and the tail of a mapping."""
    map_anonymous(3 * PMD, at=start + MIB)
    ctypes.memset(start + MIB, 1, MIB)
    ctypes.memset(start + 3 * PMD, 1, 512 * KIB)


def cut_by_advice(start: int) -> None:
    map_anonymous(2 * PMD, at=start)
    advise(start + MIB, PMD, Advice.HUGEPAGE)
    ctypes.memset(start, 1, 2 * PMD)


def cut_by_protection(start: int) -> None:
    memory(start, 2 * PMD)
    call("mprotect", start + MIB, PMD, mmap.PROT_READ)


def cut_by_name(start: int) -> None:
    memory(start, 2 * PMD)
    call("prctl", _SET_NAME, 0, start + MIB, PMD, b"part")


def cut_by_memory_policy(start: int) -> None:
    memory(start, 2 * PMD)
    nodes = ctypes.c_ulong(1)
    address = ctypes.addressof(nodes)
    call("syscall", _MBIND[platform.machine()], start + MIB, PMD, _BIND, address, 64, 0)


def cut_by_flags(start: int) -> None:
    memory(start, 2 * PMD)
    call("madvise", start + MIB, PMD, _DO_NOT_DUMP)


def plain(start: int) -> None:
    memory(start, 4 * PMD)


def advised(start: int) -> None:
    map_anonymous(4 * PMD, at=start)
    advise(start, 4 * PMD, Advice.HUGEPAGE)
    ctypes.memset(start, 1, 4 * PMD)


def early(start: int) -> None:
    """Touch each half of a range before the other half, or advice, is there."""
    for half in range(4):
        memory(start + half * MIB, MIB)
    advise(start, 2 * PMD, Advice.HUGEPAGE)


def sparse(start: int) -> None:
    """Write to one page of every range."""
    map_anonymous(4 * PMD, at=start)
    advise(start, 4 * PMD, Advice.NOHUGEPAGE)
    for number in range(4):
        ctypes.memset(start + number * PMD, 1, 1)


def excluded(start: int) -> None:
    map_anonymous(2 * PMD, at=start)
    advise(start, 2 * PMD, Advice.NOHUGEPAGE)
    ctypes.memset(start, 1, 2 * PMD)


def forbidden(start: int) -> None:
    set_thp_disabled(True)
    memory(start, 2 * PMD)


def place(start: int, length: int, flags: int, file: int) -> None:
    """Map a file, or shared memory where ``file`` is -1, at an address."""
    _LIBC.mmap.restype = ctypes.c_void_p
    where, size = ctypes.c_void_p(start), ctypes.c_size_t(length)
    access = mmap.PROT_READ | mmap.PROT_WRITE
    if _LIBC.mmap(where, size, access, flags | MAP_FIXED, file, ctypes.c_long(0)) != start:
        raise OSError(ctypes.get_errno(), "mmap")


def copied(start: int) -> None:
    """Write to half of a private mapping of a file."""
    with tempfile.TemporaryFile() as file:
        file.truncate(PMD)
        place(start, PMD, mmap.MAP_PRIVATE, file.fileno())
    ctypes.memset(start, 1, MIB)


def shared(start: int) -> None:
    place(start, 2 * PMD, mmap.MAP_SHARED | mmap.MAP_ANONYMOUS, -1)
    ctypes.memset(start, 1, 2 * PMD)


CONSTRUCTS = {
    construct.__name__: construct
    for construct in (
        short,
        misaligned,
        edge,
        cut_by_advice,
        cut_by_protection,
        cut_by_name,
        cut_by_memory_policy,
        cut_by_flags,
        plain,
        advised,
        early,
        sparse,
        excluded,
        forbidden,
        copied,
        shared,
    )
}


def main() -> None:
    """Construct what was asked for, say where it is, and wait."""
    with reserved(LENGTH + PMD) as area:
        start = -(-area.start // PMD) * PMD
        try:
            CONSTRUCTS[sys.argv[1]](start)
        except OSError as error:
            print(f"this kernel refuses it ({os.strerror(error.errno or 0)})", flush=True)
        else:
            print(start, flush=True)
        sys.stdin.read()


if __name__ == "__main__":
    main()
