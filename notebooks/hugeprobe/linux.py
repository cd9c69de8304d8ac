"""The Linux calls that Python does not offer: placed mappings, advice, per-process switches.

Every constant is from ``include/uapi`` of the kernel. Every call raises :class:`OSError` with the
kernel's error number; callers turn the ones they expect into sentences.
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import sys
from dataclasses import dataclass
from enum import IntEnum, IntFlag
from typing import Final

from hugeprobe.errors import NotLinuxError

PROT_NONE: Final = 0
PROT_READ: Final = 0x1
PROT_READ_WRITE: Final = 0x1 | 0x2

MAP_SHARED: Final = 0x01
MAP_PRIVATE: Final = 0x02
MAP_FIXED: Final = 0x10
MAP_ANONYMOUS: Final = 0x20
MAP_NORESERVE: Final = 0x4000
"""Same value on x86-64 and aarch64 (``include/uapi/asm-generic/mman.h``)."""

_MLOCK_ONFAULT: Final = 0x1
_PR_SET_NO_NEW_PRIVS: Final = 38
_PR_SET_THP_DISABLE: Final = 41
_PR_GET_THP_DISABLE: Final = 42

_PIDFD_OPEN: Final = 434
_PROCESS_MADVISE: Final = 440
"""Numbers of system calls; calls as new as these have one number on every architecture."""


@dataclass(frozen=True, slots=True)
class _Architecture:
    """What a seccomp filter has to know: ``AUDIT_ARCH_…``, and the numbers of system calls."""

    audit: int
    seccomp: int
    mbind: int


_ARCHITECTURES: Final = {
    "x86_64": _Architecture(0xC000003E, seccomp=317, mbind=237),
    "aarch64": _Architecture(0xC00000B7, seccomp=277, mbind=235),
}
FILTERED_ARCHITECTURES: Final = frozenset(_ARCHITECTURES)
"""Where :func:`refuse_mbind` knows how, as ``uname -m`` names them."""


class Advice(IntEnum):
    """Advice that :func:`advise` passes on (``madvise(2)``)."""

    HUGEPAGE = 14
    NOHUGEPAGE = 15
    POPULATE_READ = 22  # since Linux 5.14, as is the next
    POPULATE_WRITE = 23
    COLLAPSE = 25  # since Linux 6.1


class Locked(IntFlag):
    """What :func:`lock_all` locks (``mlockall(2)``)."""

    CURRENT = 1
    FUTURE = 2
    ON_FAULT = 4  # since Linux 4.4


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
    libc.mlock.argtypes = (ctypes.c_size_t, ctypes.c_size_t)
    if hasattr(libc, "mlock2"):  # glibc 2.27
        libc.mlock2.argtypes = (ctypes.c_size_t, ctypes.c_size_t, ctypes.c_int)
    libc.mlockall.argtypes = (ctypes.c_int,)
    libc.mincore.argtypes = (ctypes.c_size_t, ctypes.c_size_t, ctypes.c_void_p)
    libc.madvise.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
    libc.prctl.argtypes = (ctypes.c_int, *[ctypes.c_ulong] * 4)
    libc.syscall.argtypes = (ctypes.c_long, *[ctypes.c_void_p] * 5)
    libc.syscall.restype = ctypes.c_long
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


def map_shared(
    descriptor: int, length: int, *, at: int | None = None, access: int = PROT_READ_WRITE
) -> int:
    """Map ``length`` bytes that other processes can map, too; return the address (``mmap(2)``).

    Parameters
    ----------
    descriptor
        An open file, whose first bytes are mapped, or -1 for anonymous memory, which only processes
        that are forked later share.
    length, at, access
        As for :func:`map_anonymous`.
    """
    flags = MAP_SHARED
    flags |= 0 if at is None else MAP_FIXED
    flags |= 0 if descriptor >= 0 else MAP_ANONYMOUS
    return _call("mmap", at, length, access, flags, descriptor, 0)


def unmap(start: int, length: int) -> None:
    """Give ``length`` bytes from ``start`` back to the kernel (``munmap(2)``)."""
    _call("munmap", start, length)


def advise(start: int, length: int, advice: Advice) -> None:
    """Tell the kernel how ``length`` bytes from ``start`` will be used (``madvise(2)``)."""
    _call("madvise", start, length, advice)


def lock(start: int, length: int, *, on_fault: bool = False) -> None:
    """Bring ``length`` bytes from ``start`` into memory, and keep them there (``mlock(2)``).

    With ``on_fault`` they are kept from the moment in which the program uses them, and none is
    brought in now (``mlock2(2)``).
    """
    if not on_fault:
        _call("mlock", start, length)
    elif hasattr(_LIBC, "mlock2"):
        _call("mlock2", start, length, _MLOCK_ONFAULT)
    else:
        raise OSError(errno.ENOSYS, f"mlock2: {os.strerror(errno.ENOSYS)}")


def lock_all(locked: Locked) -> None:
    """Do so with all mappings of this process that there are, or will be (``mlockall(2)``)."""
    _call("mlockall", locked)


def in_memory(start: int, length: int, base: int) -> int:
    """Return how many of the pages of ``length`` bytes from ``start`` are in memory.

    Of a mapped file that is so whether or not this process has faulted them in (``mincore(2)``).
    """
    pages = (ctypes.c_ubyte * -(-length // base))()
    _call("mincore", start, length, ctypes.addressof(pages))
    return sum(page & 1 for page in pages)


def can_collapse() -> bool:
    """Return whether this kernel has ``MADV_COLLAPSE`` (Linux 6.1), without touching any memory.

    The kernel checks the advice first, and then finds that no bytes are to be advised.
    """
    try:
        advise(0, 0, Advice.COLLAPSE)
    except OSError:
        return False
    return True


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


# Other processes ----------------------------------------------------------------------------------


class _Vector(ctypes.Structure):
    """``struct iovec``."""

    _fields_ = (("start", ctypes.c_void_p), ("length", ctypes.c_size_t))


def pidfd_open(pid: int) -> int:
    """Return a descriptor that stands for process ``pid`` and no later one (``pidfd_open(2)``).

    Python has it too, but not where it was built with the headers of a kernel before 5.3.
    """
    return _call("syscall", _PIDFD_OPEN, pid, 0, 0, 0, 0)


def process_advise(pidfd: int, start: int, length: int, advice: Advice) -> None:
    """Give advice for memory of the process of ``pidfd`` (``process_madvise(2)``).

    For another process than this one it needs the right to read its memory map, and the capability
    ``CAP_SYS_NICE``. A length of 0 changes nothing, and fails where the kernel does not know the
    call or the advice, or does not permit it.
    """
    vector = _Vector(start, length)
    _call("syscall", _PROCESS_MADVISE, pidfd, ctypes.addressof(vector), 1, advice, 0)


# Filters ------------------------------------------------------------------------------------------


class _Instruction(ctypes.Structure):
    """``struct sock_filter``."""

    _fields_ = (
        ("code", ctypes.c_uint16),
        ("if_true", ctypes.c_uint8),
        ("if_false", ctypes.c_uint8),
        ("operand", ctypes.c_uint32),
    )


class _Program(ctypes.Structure):
    """``struct sock_fprog``."""

    _fields_ = (("length", ctypes.c_ushort), ("filter", ctypes.POINTER(_Instruction)))


_LOAD, _JUMP_IF_EQUAL, _RETURN = 0x20, 0x15, 0x06
_NUMBER_AT, _AUDIT_AT = 0, 4  # offsets into struct seccomp_data
_ALLOW, _ERRNO = 0x7FFF0000, 0x00050000
_SET_MODE_FILTER: Final = 1
_SPEC_ALLOW: Final = 1 << 2  # a filter that isolates nothing needs no slower processor, either


def refuse_mbind() -> None:
    """Let ``mbind(2)`` fail with ``EPERM`` in this process and in those it starts, for good.

    It survives ``execve``. Without ``CAP_SYS_ADMIN``, the process and its children also give up
    gaining privileges by executing programs such as sudo (``PR_SET_NO_NEW_PRIVS``).
    """
    architecture = _ARCHITECTURES[platform.machine()]
    _refuse(architecture, architecture.mbind)


def _refuse(architecture: _Architecture, number: int) -> None:
    """Install a seccomp filter that refuses one system call (``seccomp(2)``)."""
    steps = (
        _Instruction(_LOAD, 0, 0, _AUDIT_AT),
        _Instruction(_JUMP_IF_EQUAL, 0, 3, architecture.audit),
        _Instruction(_LOAD, 0, 0, _NUMBER_AT),
        _Instruction(_JUMP_IF_EQUAL, 0, 1, number),
        _Instruction(_RETURN, 0, 0, _ERRNO | errno.EPERM),
        _Instruction(_RETURN, 0, 0, _ALLOW),
    )
    program = _Program(len(steps), (_Instruction * len(steps))(*steps))
    call = (architecture.seccomp, _SET_MODE_FILTER, _SPEC_ALLOW, ctypes.addressof(program), 0, 0)
    try:
        _call("syscall", *call)
    except PermissionError:
        _call("prctl", _PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
        _call("syscall", *call)
