"""What one node answers. This runs there, in a Python of its own, and prints JSON.

The node need not have this package: :mod:`~hugeprobe.survey.question` brings it along. Of other
packages only NumPy is used, and only to count.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from hugeprobe import __version__, probe, public
from hugeprobe.errors import NotObservable, ProbeError
from hugeprobe.host import HostFacts, host_facts
from hugeprobe.placement import Rule  # noqa: TC001 - pydantic reads it at run time

_BOOT_ID: Final = Path("/proc/sys/kernel/random/boot_id")
"""A random number that the kernel drew when it started (``random(4)``)."""


@dataclass(frozen=True, slots=True)
class Count:
    """What one of the ways of :mod:`hugeprobe.arrival` gave.

    Parameters
    ----------
    way
        Its name.
    minor_faults
        Faults that the first touch cost.
    huge_kib
        What of the memory is huge in the end, in KiB.
    """

    way: str
    minor_faults: int
    huge_kib: int


@dataclass(frozen=True, slots=True)
class Answer:
    """What a node says of itself; no name, address or path has a field to get into.

    Parameters
    ----------
    version
        Of the package that answered.
    kernel_key
        The same for all that run on one running kernel. It is made with a salt that is drawn for
        each survey and then forgotten, so it can be compared within one survey only.
    facts
        Of the host, as a process there sees them.
    rule
        The alignment rule that its kernel follows, or None.
    finding
        The same in a sentence, or why it could not be found.
    counts
        What the ways to set up memory give there, or why that could not be counted; None if it was
        not asked for. A way that this kernel refuses is left out.
    suffix_key
        The same for all whose kernels' releases are equal also in what :mod:`hugeprobe.public`
        withholds; None where nothing is. It is made as ``kernel_key`` is.
    """

    version: str
    kernel_key: str
    facts: HostFacts
    rule: Rule | None
    finding: str
    counts: tuple[Count, ...] | NotObservable | None
    suffix_key: str | None = None


def answer(salt: str, *, count: bool) -> Answer:
    """Look at this node; takes milliseconds, or with counts about a second and 64 MiB.

    Parameters
    ----------
    salt
        What :attr:`Answer.kernel_key` is made with.
    count
        Whether to count what memory the node gives.

    Raises
    ------
    NotLinuxError
        Where there is no ``/proc``.
    """
    facts = host_facts()
    key = _salted(salt, _BOOT_ID.read_bytes())
    rule, finding = _rule()
    counts = _counts() if count else None
    return Answer(__version__, key, facts, rule, finding, counts, _suffix_key(salt))


def _salted(salt: str, secret: bytes) -> str:
    return hashlib.sha256(salt.encode() + secret).hexdigest()[:12]


def _suffix_key(salt: str) -> str | None:
    release = os.uname().release
    return None if public.kernel_release(release) == release else _salted(salt, release.encode())


def _rule() -> tuple[Rule | None, str]:
    try:
        found = probe.find_rule()
    except ProbeError as error:
        return None, str(error)
    return found.rule, found.sentence


def _counts() -> tuple[Count, ...] | NotObservable:
    try:
        from hugeprobe import arrival  # noqa: PLC0415 - needs NumPy, which a node may not have
    except ImportError as error:
        return NotObservable(f"Python on this node has no {error.name}")
    counts = []
    for way in arrival.WAYS:
        arrived = arrival.arrive(way)
        if isinstance(arrived, NotObservable):
            return arrived
        if not isinstance(arrived.resident, NotObservable):
            counts.append(Count(way.name, arrived.minor_faults, arrived.resident.huge_kib))
    return tuple(counts)


def main() -> None:
    """Print the answer; the arguments are a salt, and ``count`` or ``look``."""
    salt, wanted = sys.argv[1:]
    try:
        found = answer(salt, count=wanted == "count")
    except ProbeError as error:
        sys.exit(f"hugeprobe: {error}")
    print(json.dumps(dataclasses.asdict(found)))
