"""Allocate blocks of one size as a program would, and count the minor faults that this costs.

This is the process that is measured: ``python -m hugeprobe.blocks FD``, started by
:mod:`hugeprobe.allocators`, which looks at its memory from outside before and after. It therefore
reads no kernel file, and loads nothing that allocates beside what is asked for.
"""

from __future__ import annotations

import ctypes
import importlib
import json
import resource
import socket
import sys
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, TextIO, TypeAlias

from hugeprobe.placement import Action, Touch, steps

if TYPE_CHECKING:
    from collections.abc import Callable

    Allocate: TypeAlias = Callable[[int], int]


@dataclass(frozen=True, slots=True)
class Request:
    """What the measured process is told.

    Parameters
    ----------
    size
        Bytes of each block.
    count
        Number of blocks.
    touch
        When they are written to.
    numpy
        Whether NumPy allocates them, else ``malloc``.
    freed
        Bytes of a block that is allocated and freed before, 0 for none.
    """

    size: int
    count: int
    touch: Touch
    numpy: bool
    freed: int = 0

    def encode(self) -> str:
        """Return it as one line of JSON."""
        return json.dumps(asdict(self))

    @staticmethod
    def decode(line: str) -> Request:
        """Read it back from :meth:`encode`."""
        fields = json.loads(line)
        return Request(**{**fields, "touch": Touch(fields["touch"])})


@dataclass(frozen=True, slots=True)
class Blocks:
    """What the measured process tells.

    Parameters
    ----------
    starts
        Address of each block, in the order they were allocated.
    usable
        Bytes that the allocator says each block has (``malloc_usable_size(3)``).
    minor_faults
        Faults of allocating and writing all of them.
    """

    starts: tuple[int, ...]
    usable: tuple[int, ...]
    minor_faults: int

    def encode(self) -> str:
        """Return it as one line of JSON."""
        return json.dumps(asdict(self))

    @staticmethod
    def decode(line: str) -> Blocks:
        """Read it back from :meth:`encode`."""
        fields = json.loads(line)
        return Blocks(tuple(fields["starts"]), tuple(fields["usable"]), fields["minor_faults"])


def fill(request: Request, allocate: Allocate) -> tuple[list[int], int]:
    """Allocate the blocks and write every byte of them; return addresses and minor faults."""
    size, starts = request.size, [0] * request.count
    order = tuple(steps(request.count, request.touch))
    before = _minor_faults()
    for action, index in order:
        if action is Action.MAP:
            starts[index] = allocate(size)
        else:
            ctypes.memset(starts[index], 1, size)
    return starts, _minor_faults() - before


def _minor_faults() -> int:
    return resource.getrusage(resource.RUSAGE_THREAD).ru_minflt


def _libc() -> ctypes.CDLL:
    """Return the process's C functions: those of the preloaded library, if there is one."""
    libc = ctypes.CDLL(None)
    libc.malloc.restype = ctypes.c_void_p
    libc.malloc.argtypes = (ctypes.c_size_t,)
    libc.free.argtypes = (ctypes.c_void_p,)
    libc.malloc_usable_size.restype = ctypes.c_size_t
    libc.malloc_usable_size.argtypes = (ctypes.c_void_p,)
    return libc


def _allocate_by(libc: ctypes.CDLL, *, numpy: bool) -> Allocate:
    if not numpy:
        return lambda size: libc.malloc(size) or _no_memory(size)
    package: Any = importlib.import_module("numpy")
    kept: list[object] = []

    def empty(size: int) -> int:
        kept.append(package.empty(size, package.uint8))
        address: int = kept[-1].__array_interface__["data"][0]  # type: ignore[attr-defined]
        return address

    return empty


def _no_memory(size: int) -> int:
    raise MemoryError(f"malloc of {size} bytes failed")


def _serve(channel: TextIO) -> None:
    request = Request.decode(channel.readline())
    libc = _libc()
    allocate = _allocate_by(libc, numpy=request.numpy)
    if request.freed:
        libc.free(libc.malloc(request.freed))
    # What the heap had left may serve one block, which would differ from all others: not counted.
    allocate(request.size)
    print(file=channel, flush=True)
    channel.readline()
    starts, faults = fill(request, allocate)
    usable = tuple(libc.malloc_usable_size(start) for start in starts)
    print(Blocks(tuple(starts), usable, faults).encode(), file=channel, flush=True)
    channel.readline()


def main() -> None:
    """Serve the socket whose descriptor is the first argument."""
    with socket.socket(fileno=int(sys.argv[1])) as connection, connection.makefile("rw") as channel:
        _serve(channel)


if __name__ == "__main__":
    main()
