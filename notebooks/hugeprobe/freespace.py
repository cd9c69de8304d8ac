"""Free address space whose upper end is known, so that the kernel's placement can be foretold.

The kernel fills the highest hole that is large enough. A process is full of small holes between
its libraries, so a mapping may land anywhere among them. :func:`known_top` closes them for a moment
with mappings that can neither be touched nor use memory, and then sets how far above a PMD boundary
the one hole that is left ends.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from hugeprobe.errors import NoMemoryError
from hugeprobe.linux import PROT_NONE, map_anonymous, unmap
from hugeprobe.placement import Span, check_top_offset
from hugeprobe.sizes import KIB, MIB

if TYPE_CHECKING:
    from collections.abc import Iterator

    from hugeprobe.sizes import PageSizes

_LARGEST_PLUG: Final = 256 * MIB
_ANCHOR: Final = 4 * _LARGEST_PLUG + 4 * KIB
_MOST_PLUGS: Final = 10_000


def map_inaccessible(length: int) -> Span:
    """Map address space of ``length`` bytes where the kernel chooses; nothing can be put in it."""
    start = map_anonymous(length, access=PROT_NONE, reserve=False)
    return Span(start, start + length)


def _close_holes(plugs: list[Span], sizes: PageSizes) -> None:
    """Fill every hole above the large one, largest pieces first; append the pieces to ``plugs``."""
    anchor = map_inaccessible(_ANCHOR)
    unmap(anchor.start, anchor.length)
    length = _LARGEST_PLUG
    while length >= sizes.base and len(plugs) < _MOST_PLUGS:
        plug = map_inaccessible(length)
        if plug.start >= anchor.end:
            plugs.append(plug)
        else:
            unmap(plug.start, plug.length)
            length //= 2


@contextmanager
def known_top(top_offset: int, sizes: PageSizes) -> Iterator[int]:
    """Give the address below which the kernel's next mapping without a hint is placed.

    Parameters
    ----------
    top_offset
        That address modulo the PMD size, in bytes.
    sizes
        Page sizes of this machine.

    Raises
    ------
    BadRequestError
        If ``top_offset`` is not a whole number of base pages below a PMD.
    NoMemoryError
        If the kernel refuses more address space (``ulimit -v``, ``vm.max_map_count``).
    """
    check_top_offset(top_offset, sizes)
    plugs: list[Span] = []
    try:
        yield _plug(plugs, top_offset, sizes)
    finally:
        for plug in plugs:
            unmap(plug.start, plug.length)


def _plug(plugs: list[Span], top_offset: int, sizes: PageSizes) -> int:
    """Map ``plugs`` until free space ends where it should; return where that is."""
    try:
        _close_holes(plugs, sizes)
        plugs.append(map_inaccessible(sizes.base))
        if rest := (plugs[-1].start - top_offset) % sizes.pmd:
            plugs.append(map_inaccessible(rest))
    except OSError as error:
        raise NoMemoryError(
            "Free address space was needed to see where the kernel places mappings, but the kernel "
            f"refused it: {error.strerror}. Look at `ulimit -v` and at vm.max_map_count."
        ) from error
    return plugs[-1].start
