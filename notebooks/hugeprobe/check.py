"""What a process on this host gets when it asks for 64 MiB in the usual ways."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Final

import numpy as np

from hugeprobe.areas import Resident, aligned_area, resident, too_much, touch
from hugeprobe.linux import Advice, advise
from hugeprobe.placement import Span
from hugeprobe.sizes import MIB, PageSizes, page_sizes

if TYPE_CHECKING:
    from collections.abc import Callable

    from hugeprobe.errors import NotObservable

LENGTH: Final = 64 * MIB
_HUGE_ENOUGH: Final = 0.9
"""Coverage from which on memory counts as huge: its ends may lie outside whole ranges."""


@dataclass(frozen=True, slots=True)
class Got:
    """What one way of asking gave.

    Parameters
    ----------
    name
        The way, in words.
    resident
        What it holds in memory.
    """

    name: str
    resident: Resident

    @property
    def is_huge(self) -> bool:
        """Whether nearly all of it is huge."""
        return self.resident.coverage >= _HUGE_ENOUGH


PLAIN: Final = "plain mapping"
ADVISED: Final = "advised mapping"
NUMPY: Final = "NumPy array"
OFF_BOUNDARY: Final = "advised mapping, 1 MiB off a boundary"


def what_one_gets(
    length: int = LENGTH, sizes: PageSizes | None = None
) -> dict[str, Got] | NotObservable:
    """Ask for ``length`` bytes in four ways, touch them, and see what they are backed by.

    Parameters
    ----------
    length
        Bytes; several PMDs, or there is nothing to see.
    sizes
        Page sizes; those of this machine if not given.
    """
    sizes = sizes or page_sizes()
    length = max(length, 4 * sizes.pmd)
    if missing := too_much(length):
        return missing
    ways: dict[str, Callable[[], Resident]] = {
        PLAIN: lambda: _mapped(length, sizes, advised=False),
        ADVISED: lambda: _mapped(length, sizes, advised=True),
        NUMPY: lambda: _numpy(length),
        OFF_BOUNDARY: lambda: _mapped(length, sizes, advised=True, shift=sizes.pmd // 2),
    }
    return {name: Got(name, ask()) for name, ask in ways.items()}


def _mapped(length: int, sizes: PageSizes, *, advised: bool, shift: int = 0) -> Resident:
    with aligned_area(length + shift, sizes) as area:
        span = Span(area.start + shift, area.end)
        if advised:
            advise(span.start, span.length, Advice.HUGEPAGE)
        touch(span)
        return resident(area)


def _numpy(length: int) -> Resident:
    array = np.empty(length, dtype=np.uint8)
    array.fill(1)
    start = array.ctypes.data
    return resident(Span(start, start + length))


class Gives(Enum):
    """To whom a host gives huge pages at a fault."""

    EVERYONE = "everyone"
    WHO_ASKS = "who asks"
    TOO_FEW = "who asks, but not enough"
    NOBODY = "nobody"


def gives(got: dict[str, Got]) -> Gives:
    """Return to whom this host gives huge pages, judged by a process like this one."""
    if got[PLAIN].is_huge:
        return Gives.EVERYONE
    if got[ADVISED].is_huge:
        return Gives.WHO_ASKS
    return Gives.TOO_FEW if got[ADVISED].resident.huge_kib else Gives.NOBODY


def verdict(got: dict[str, Got]) -> str:
    """Say in one sentence what this host gives to a process like this one."""
    return {
        Gives.EVERYONE: (
            "**This host gives huge pages to every process**, advised or not, "
            "where a whole aligned range fits."
        ),
        Gives.WHO_ASKS: (
            "**This host gives huge pages only where a program asks for them.** "
            "A runtime that does not ask gets none."
        ),
        Gives.TOO_FEW: (
            f"**This host gives huge pages, but not enough**: {got[ADVISED].resident.coverage:.0%} "
            "of an aligned, advised mapping. Memory is fragmented or limited."
        ),
        Gives.NOBODY: (
            "**This host gives this process no huge pages at a fault**, not even where it asks for "
            "them: THP is `never`, not built in, or forbidden to the process."
        ),
    }[gives(got)]
