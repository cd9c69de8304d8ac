"""What the first write to memory costs: with base pages, with huge pages, and once it is there.

A fault clears what it hands out. Huge pages bring fewer faults and as much to clear. In a virtual
machine there is a second question: whether the host has memory behind the page. Guests that report
free memory do so in pieces of the size of a huge page (free page reporting, ``mm/page_reporting.c``
and ``drivers/virtio/virtio_balloon.c``), so a free huge page is often one that the host has taken
back, and the first write to it waits for the host as well; base pages mostly come from what was
used a moment ago. Which of the two is faster is therefore measured here, not assumed.
"""

from __future__ import annotations

import statistics
import time
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from hugeprobe.areas import aligned_area, resident, too_much, touch
from hugeprobe.compare import Ratio, ratio
from hugeprobe.errors import NotObservable
from hugeprobe.host import usable_memory_kib
from hugeprobe.linux import Advice, advise
from hugeprobe.sizes import KIB, MIB, PageSizes, page_sizes

if TYPE_CHECKING:
    from hugeprobe.placement import Span

_LENGTH: Final = 32 * MIB
_STRETCHES: Final = 32
_SHARE_OF_MEMORY: Final = 8
_KINDS: Final = (Advice.NOHUGEPAGE, Advice.HUGEPAGE)


@dataclass(frozen=True, slots=True)
class Touches:
    """First writes with pages of one kind, in milliseconds for each stretch of memory.

    Parameters
    ----------
    faults
        Minor faults of one stretch.
    recycled
        Each stretch was given back before the next was mapped, which thus got the same pages.
    held
        Each stretch was held, so that every one needed pages of its own.
    again
        Writing a stretch once more: no faults, what the memory itself takes.
    """

    faults: int
    recycled: tuple[float, ...]
    held: tuple[float, ...]
    again: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class FirstTouch:
    """The same with base pages and with huge pages, in alternation.

    Parameters
    ----------
    length
        Bytes of a stretch.
    base, huge
        What each kind of page took.
    """

    length: int
    base: Touches
    huge: Touches

    @property
    def recycled(self) -> Ratio:
        """Time with base pages over time with huge pages, of pages that were just given back."""
        return ratio(self.base.recycled, self.huge.recycled)

    @property
    def held(self) -> Ratio:
        """The same, of pages that were free for a while."""
        return ratio(self.base.held, self.huge.held)


def measure(
    length: int = _LENGTH, stretches: int = _STRETCHES, sizes: PageSizes | None = None
) -> FirstTouch | NotObservable:
    """Write to new memory with base pages and with huge pages in turn.

    Parameters
    ----------
    length
        Bytes of each stretch; rounded up to whole huge pages.
    stretches
        Stretches of each kind, at most an eighth of the memory that this process may use.
    sizes
        Page sizes; those of this machine if not given.
    """
    sizes = sizes or page_sizes()
    length = -(-length // sizes.pmd) * sizes.pmd
    fit = usable_memory_kib() * KIB // _SHARE_OF_MEMORY // length // len(_KINDS)
    count = min(stretches, fit)
    if missing := too_much(2 * length) or _not_enough(count):
        return missing
    taken: dict[Advice, list[tuple[int, float, float]]] = {kind: [] for kind in _KINDS}
    held: dict[Advice, list[float]] = {kind: [] for kind in _KINDS}
    try:
        with ExitStack() as holding:
            for _ in range(count):
                for kind in _KINDS:
                    area = aligned_area(length, sizes)
                    held[kind].append(_touched(holding.enter_context(area), kind)[1])
        for _ in range(count):
            for kind in _KINDS:
                with aligned_area(length, sizes) as span:
                    faults, first = _touched(span, kind)
                    if kind is Advice.HUGEPAGE and resident(span).huge_kib * KIB < length:
                        return NotObservable("advised memory is not all huge on this host")
                    taken[kind].append((faults, first, _timed(span)[1]))
    except OSError as error:
        return NotObservable(f"the kernel refused the advice ({error.strerror})")
    base, huge = (_touches(taken[kind], held[kind]) for kind in _KINDS)
    return FirstTouch(length, base, huge)


def _not_enough(count: int) -> NotObservable | None:
    if count >= 5:
        return None
    return NotObservable("this process may not use enough memory for five stretches of each kind")


def _touches(taken: list[tuple[int, float, float]], held: list[float]) -> Touches:
    faults, recycled, again = zip(*taken, strict=True)
    return Touches(int(statistics.median(faults)), tuple(recycled), tuple(held), tuple(again))


def _touched(span: Span, kind: Advice) -> tuple[int, float]:
    advise(span.start, span.length, kind)
    return _timed(span)


def _timed(span: Span) -> tuple[int, float]:
    """Write every byte; return the faults and the milliseconds."""
    began = time.perf_counter_ns()
    faults = touch(span)
    return faults, (time.perf_counter_ns() - began) / 1e6


def back(kib: int) -> None:
    """Write to so much memory in huge pages and give it back at once.

    Those who ask next get pages that the host of a virtual machine still has memory behind. Where
    huge pages are not to be had, it does nothing useful and no harm.
    """
    if kib:
        with aligned_area(kib * KIB, page_sizes()) as span, suppress(OSError):
            _touched(span, Advice.HUGEPAGE)
