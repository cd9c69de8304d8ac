"""What the first line of a record says after the addresses, and what it tells of the kind."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np

from hugeprobe.smaps.errors import malformed
from hugeprobe.smaps.mapping import Kind

if TYPE_CHECKING:
    from numpy.typing import NDArray

_TAIL: Final = re.compile(
    rb"([r-][w-][x-][ps]) ([0-9a-f]+) ([0-9a-f]+:[0-9a-f]+) ([0-9]+)(?: +(.*))?", re.DOTALL
)


class Tail(NamedTuple):
    """What the header of a record says after the address range."""

    permissions: str
    offset: int
    device: str
    inode: int
    name: str
    kind: Kind


def tail_of(text: bytes) -> Tail:
    """Read the end of a header line, from the permissions on."""
    match = _TAIL.fullmatch(text)
    if not match:
        raise malformed("a mapping's permissions, offset, device, inode and name", text)
    name = (match[5] or b"").decode(errors="backslashreplace")
    permissions = match[1].decode()
    kind = kind_of(name, shared=permissions.endswith("s"))
    return Tail(permissions, int(match[2], 16), match[3].decode(), int(match[4]), name, kind)


def kind_of(name: str, *, shared: bool) -> Kind:
    """Return what a mapping of this name is for (``get_vma_name()``, ``shmem_zero_setup()``)."""
    if name.startswith("["):
        return _bracketed_kind(name)
    if name.startswith(("/dev/shm/", "/memfd:", "/SYSV", "/dev/zero (deleted)")):
        return Kind.SHARED
    if name in ("", "/dev/zero", "/anon_hugepage (deleted)"):
        return Kind.SHARED if shared else Kind.ANONYMOUS
    return Kind.FILE


def _bracketed_kind(name: str) -> Kind:
    for start, kind in (
        ("[heap]", Kind.HEAP),
        ("[stack", Kind.STACK),
        ("[anon:", Kind.ANONYMOUS),
        ("[anon_shmem:", Kind.SHARED),
    ):
        if name.startswith(start):
            return kind
    return Kind.SPECIAL


def numbered(tails: list[bytes]) -> tuple[tuple[Tail, ...], NDArray[np.int64]]:
    """Return the distinct tails, and for every tail its index among them."""
    numbers: dict[bytes, int] = {}
    index = [numbers.setdefault(tail, len(numbers)) for tail in tails]
    return tuple(map(tail_of, numbers)), np.array(index, np.int64)
