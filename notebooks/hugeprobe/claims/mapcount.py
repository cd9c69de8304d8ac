"""How many mappings fit under ``vm.max_map_count``, by rule.

Mappings with holes between them cannot merge, each is a VMA, and a process may have
``vm.max_map_count`` of those; then ``mmap`` fails with ``ENOMEM`` although memory is free. That is
the one way from the alignment rule to an allocation error. It is walked here in a process of its
own, with mappings that nothing can be written to, which use no memory.

``python -m hugeprobe.claims.mapcount DESCRIPTOR`` is that process.
"""

from __future__ import annotations

import itertools
import json
import os
import socket
import sys
from dataclasses import asdict, dataclass
from typing import Final

from hugeprobe import children, linux
from hugeprobe.errors import NotObservable, ProbeError
from hugeprobe.host import host_facts
from hugeprobe.placement import Rule, place
from hugeprobe.sizes import KIB, MIB, PageSizes, page_sizes

_MODULE: Final = "hugeprobe.claims.mapcount"
_TIMEOUT: Final = 60.0
_MOST: Final = 200_000
"""Mappings that are tried at most: each costs the kernel some hundred bytes."""
_SPARE: Final = 1024
"""Mappings by which the interpreter's own may differ from a count of the limit."""
_ROOM: Final = 1024 * MIB


@dataclass(frozen=True, slots=True)
class MapCount:
    """Equal mappings until the kernel refuses one.

    Parameters
    ----------
    length_kib
        Length of each mapping.
    limit
        ``vm.max_map_count``.
    forced, multiples
        Mappings that were had before the first was refused, as each rule places them; None where
        none was refused up to :attr:`limit`.
    """

    length_kib: int
    limit: int
    forced: int | None
    multiples: int | None


@dataclass(frozen=True, slots=True)
class _Request:
    length: int
    stride: int
    count: int


def map_until_refused(
    limit: int | None = None, sizes: PageSizes | None = None
) -> MapCount | NotObservable:
    """Map just more than a PMD again and again, as ``forced`` and as ``multiples`` place it.

    Parameters
    ----------
    limit
        ``vm.max_map_count``; that of this host if not given.
    sizes
        Page sizes; those of this machine if not given.

    Returns
    -------
    MapCount or NotObservable
        The latter where the limit is unknown or so high that nothing reaches it, or where another
        limit comes first.
    """
    sizes = sizes or page_sizes()
    limit = limit or host_facts().max_map_count
    if limit is None:
        return NotObservable("this host does not tell vm.max_map_count")
    if limit > _MOST:
        return NotObservable(f"vm.max_map_count is {limit:,}, more than is tried")
    length = sizes.pmd + sizes.base
    had: dict[Rule, int | None] = {}
    for rule in (Rule.FORCED, Rule.MULTIPLES):
        _, second, third = place([length] * 3, rule, 0, sizes)
        stride = second.start - third.start
        try:
            mapped = _in_a_process(_Request(length, stride, limit))
        except (ProbeError, TimeoutError):
            return NotObservable("the kernel refused a process so much address space")
        if mapped is not None and mapped < limit - _SPARE:
            return NotObservable(
                f"another limit than vm.max_map_count refused mapping {mapped + 1:,} (`ulimit -v`?)"
            )
        had[rule] = mapped
    return MapCount(length // KIB, limit, had[Rule.FORCED], had[Rule.MULTIPLES])


def _in_a_process(request: _Request) -> int | None:
    with children.talking(_MODULE, [], {}, _TIMEOUT) as child:
        told = list(child.steps(json.dumps(asdict(request))))
    if not told:
        raise ProbeError("The process that maps was asked for a count, but told none.")
    found: int | None = json.loads(told[0])
    return found


def _refused_at(request: _Request) -> int | None:
    """Map downwards until the kernel refuses; return how many were had, None if all were.

    What the interpreter itself maps meanwhile finds a higher hole, and cannot come in between.
    """
    below = request.stride * (request.count + 1)
    guard = linux.map_anonymous(below + _ROOM, access=linux.PROT_NONE, reserve=False) + below
    page = os.sysconf("SC_PAGE_SIZE")
    linux.unmap(guard - below, below)
    linux.unmap(guard + page, _ROOM - page)
    for number in itertools.count(1):
        if number > request.count:
            return None
        start = guard - page - number * request.stride
        try:
            linux.map_anonymous(request.length, at=start, access=linux.PROT_NONE, reserve=False)
        except OSError:
            return number - 1
    return None


def main() -> None:
    """Serve the socket whose descriptor is the first argument."""
    with socket.socket(fileno=int(sys.argv[1])) as connection, connection.makefile("rw") as channel:
        request = _Request(**json.loads(channel.readline()))
        had = _refused_at(request)
        channel.write(json.dumps(had) + "\n")
        channel.flush()
        channel.readline()


if __name__ == "__main__":
    main()
