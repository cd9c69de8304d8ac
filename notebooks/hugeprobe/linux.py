"""The Linux calls that Python does not offer: placed mappings, advice, per-process THP switches.

Every constant is from ``include/uapi`` of the kernel. Every call raises :class:`OSError` with the
kernel's error number; callers turn the ones they expect into sentences.
"""

from __future__ import annotations

import ctypes
import os
import sys
from enum import IntEnum
from typing import Final

from hugeprobe.errors import NotLinuxError

PROT_NONE: Final = 0
PROT_READ_WRITE: Final = 0x1 | 0x2

MAP_PRIVATE: Final = 0x02
MAP_FIXED: Final = 0x10
MAP_ANONYMOUS: Final = 0x20
MAP_NORESERVE: Final = 0x4000
"""Same value on x86-64 and aarch64 (``include/uapi/asm-generic/mman.h``)."""

_PR_SET_THP_DISABLE: Final = 41
_PR_GET_THP_DISABLE: Final = 42


class Advice(IntEnum):
    """Advice that :func:`advise` passes on (``madvise(2)``)."""

    HUGEPAGE = 14
    NOHUGEPAGE = 15
    POPULATE_WRITE = 23  # since Linux 5.14
    COLLAPSE = 25  # since Linux 6.1


def require_linux() -> None:
    """Raise :class:`NotLinuxError` unless this is a 64-bit Linux."""
    if sys.platform != "linux" or sys.maxsize <= 2**32:
        raise NotLinuxError(
            "hugeprobe looks at memory mappings through 64-bit Linux, but this is "
            f"{sys.platform} with {sys.maxsize.bit_length() + 1}-bit addresses. "
            "Run it on the Linux machine that serves the model."
        )


def _libc() -> ctypes.CDLL:
    require_linux()
    libc = ctypes.CDLL(None, use_errno=True)
    libc.mmap.restype = ctypes.c_void_p
    libc.mmap.argtypes = (
        ctypes.c_void_p,
        ctypes.c_size_t,
        ctypes.c_int,
        ctypes.c_int,
        ctypes.c_int,
        ctypes.c_long,
    )
    libc.munmap.argtypes = (ctypes.c_void_p, ctypes.c_size_t)
    libc.madvise.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
    libc.prctl.argtypes = (ctypes.c_int, *[ctypes.c_ulong] * 4)
    return libc


_LIBC = _libc() if sys.platform == "linux" else None
_MAP_FAILED = ctypes.c_void_p(-1).value


def _call(name: str, *arguments: int | None) -> int:
    """Call ``name`` of the C library; raise :class:`OSError` where it says -1."""
    require_linux()
    result: int | None = getattr(_LIBC, name)(*arguments)
    if result in (-1, _MAP_FAILED):
        number = ctypes.get_errno()
        raise OSError(number, f"{name}: {os.strerror(number)}")
    return result or 0


def map_anonymous(
    length: int, *, at: int | None = None, access: int = PROT_READ_WRITE, reserve: bool = True
) -> int:
    """Map ``length`` bytes of private anonymous memory; return the address (``mmap(2)``).

    Parameters
    ----------
    length
        Bytes; the kernel rounds them up to whole base pages.
    at
        Address to place it at, *replacing* whatever is mapped there. Without it the kernel chooses,
        by the rule that :mod:`hugeprobe.probe` finds out.
    access
        ``PROT_READ_WRITE`` or ``PROT_NONE``.
    reserve
        False for address space that will not be touched (``MAP_NORESERVE``).
    """
    flags = MAP_PRIVATE | MAP_ANONYMOUS
    flags |= 0 if at is None else MAP_FIXED
    flags |= 0 if reserve else MAP_NORESERVE
    return _call("mmap", at, length, access, flags, -1, 0)


def unmap(start: int, length: int) -> None:
    """Give ``length`` bytes from ``start`` back to the kernel (``munmap(2)``)."""
    _call("munmap", start, length)


def advise(start: int, length: int, advice: Advice) -> None:
    """Tell the kernel how ``length`` bytes from ``start`` will be used (``madvise(2)``)."""
    _call("madvise", start, length, advice)


def set_thp_disabled(disabled: bool) -> None:
    """Forbid, or allow again, THP in this process and in those it starts (``PR_SET_THP_DISABLE``).

    It survives ``fork`` and ``execve`` and needs no privilege: the "off" arm of a comparison.
    """
    _call("prctl", _PR_SET_THP_DISABLE, int(disabled), 0, 0, 0)


def thp_disabled() -> bool:
    """Return whether this process has been forbidden THP (``PR_GET_THP_DISABLE``).

    Bit 0 says that it is disabled, bit 1 (since Linux 6.18) that advised memory is excepted; with
    the exception, advised memory can still have huge pages, so it does not count as forbidden.
    """
    return _call("prctl", _PR_GET_THP_DISABLE, 0, 0, 0, 0) & 0b11 == 0b01
