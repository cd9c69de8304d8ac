"""One process that maps shared memory and touches it: ``python -m hugeprobe.sharing.toucher FD``.

Its parent :mod:`hugeprobe.sharing.pair` looks at it from outside between two steps. It imports
little, so that it has one thread only and can be forked.
"""

from __future__ import annotations

import ctypes
import json
import os
import resource
import socket
import sys
from dataclasses import asdict, dataclass
from typing import TextIO

from hugeprobe import linux
from hugeprobe.linux import Advice


@dataclass(frozen=True, slots=True)
class Request:
    """What the process is told to do.

    Parameters
    ----------
    descriptor
        What to map, -1 for anonymous memory.
    length
        Bytes of the mapping.
    off_boundary
        Bytes above a PMD boundary at which it is mapped.
    pmd, base
        Page sizes in bytes.
    write
        Whether every page is written to; else every page is read.
    before, after
        Advice before and after that.
    fork
        Whether a process that it forks then reads the memory.
    """

    descriptor: int
    length: int
    off_boundary: int
    pmd: int
    base: int
    write: bool
    before: Advice | None = None
    after: Advice | None = None
    fork: bool = False

    def encode(self) -> str:
        """Return it as one line of JSON."""
        return json.dumps(asdict(self))

    @staticmethod
    def decode(line: str) -> Request:
        """Read it back from :meth:`encode`."""
        return Request(**json.loads(line))


@dataclass(frozen=True, slots=True)
class Touched:
    """What one process tells.

    Parameters
    ----------
    pid
        Its number.
    start
        Address of the mapping.
    minor_faults, major_faults
        Faults of touching it once.
    refusal
        What the kernel said to the advice, None if it took it.
    """

    pid: int
    start: int
    minor_faults: int
    major_faults: int
    refusal: str | None = None

    def encode(self) -> str:
        """Return it as one line of JSON."""
        return json.dumps(asdict(self))

    @staticmethod
    def decode(line: str) -> Touched:
        """Read it back from :meth:`encode`."""
        return Touched(**json.loads(line))


def _mapped(request: Request) -> int:
    """Map it so far above a boundary, in address space that nothing else is near."""
    room = request.length + 3 * request.pmd
    around = linux.map_anonymous(room, access=linux.PROT_NONE, reserve=False)
    boundary = -(-(around + request.base) // request.pmd) * request.pmd
    access = linux.PROT_READ_WRITE if request.write else linux.PROT_READ
    start = boundary + request.off_boundary
    return linux.map_shared(request.descriptor, request.length, at=start, access=access)


def _read(start: int, length: int, base: int) -> None:
    """Read one byte of every page."""
    for page in range(start, start + length, base):
        ctypes.c_char.from_address(page).value  # noqa: B018 - the reading is what counts


def _touch(start: int, request: Request, *, write: bool) -> tuple[int, int]:
    """Touch every page; return the minor and the major faults that it cost."""
    # Rehearsed elsewhere, because what an interpreter uses for the first time faults for itself.
    rehearsal = ctypes.create_string_buffer(64 * request.base)
    _read(ctypes.addressof(rehearsal), len(rehearsal), request.base)
    resource.getrusage(resource.RUSAGE_SELF)
    before = resource.getrusage(resource.RUSAGE_SELF)
    if write:
        ctypes.memset(start, 1, request.length)
    else:
        _read(start, request.length, request.base)
    after = resource.getrusage(resource.RUSAGE_SELF)
    return after.ru_minflt - before.ru_minflt, after.ru_majflt - before.ru_majflt


def _tell(channel: TextIO, touched: Touched) -> None:
    """Tell the parent, and wait until it has looked."""
    channel.write(touched.encode() + "\n")
    channel.flush()
    channel.readline()


def _touch_and_tell(channel: TextIO, request: Request) -> None:
    start, refusal = _mapped(request), None
    minor = major = 0
    try:
        if request.before is not None:
            linux.advise(start, request.length, Advice(request.before))
        minor, major = _touch(start, request, write=request.write)
        if request.after is not None:
            linux.advise(start, request.length, Advice(request.after))
    except OSError as error:
        refusal = os.strerror(error.errno or 0)
    _tell(channel, Touched(os.getpid(), start, minor, major, refusal))
    if not request.fork:
        return
    if child := os.fork():
        os.waitpid(child, 0)
        return
    try:
        faults = _touch(start, request, write=False)
        _tell(channel, Touched(os.getpid(), start, *faults))
    finally:
        os._exit(0)


def main() -> None:
    """Serve the socket whose descriptor is the first argument."""
    with socket.socket(fileno=int(sys.argv[1])) as connection, connection.makefile("rw") as channel:
        _touch_and_tell(channel, Request.decode(channel.readline()))


if __name__ == "__main__":
    main()
