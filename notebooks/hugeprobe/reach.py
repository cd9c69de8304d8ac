"""TLB reach: what reading a row of memory at random costs, with base pages and with huge pages.

One row of 64 bytes, a cache line, is read at each of many random places of a table, as an embedding
look-up does. As long as the TLB knows every page of the table, page size makes no difference; past
its reach each read also walks the page tables. The two arms are interleaved round by round, and the
figure is the ratio of their medians with a bootstrap interval: a wall clock on a shared machine
cannot say more.
"""

from __future__ import annotations

import ctypes
import statistics
import time
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from hugeprobe.areas import aligned_area, resident, too_much, touch
from hugeprobe.compare import Ratio, ratio
from hugeprobe.errors import NotObservable
from hugeprobe.linux import Advice, advise
from hugeprobe.sizes import KIB, PageSizes, page_sizes

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from hugeprobe.placement import Span

_ROW: Final = 64
_READS: Final = 200_000
_ROUNDS: Final = 25
WORKING_SETS_KIB: Final = tuple(256 * 2**i for i in range(13))
"""256 KiB to 1 GiB."""


@dataclass(frozen=True, slots=True)
class Reach:
    """Cost of random reads in one working set.

    Parameters
    ----------
    working_set_kib
        Size of the table.
    base_ns, huge_ns
        Median time of a read in nanoseconds, with base pages and with huge pages.
    ratio
        Base over huge: above 1, huge pages are faster.
    """

    working_set_kib: int
    base_ns: float
    huge_ns: float
    ratio: Ratio


def measure_reach(
    working_sets_kib: Sequence[int] = WORKING_SETS_KIB, sizes: PageSizes | None = None
) -> list[Reach] | NotObservable:
    """Measure random reads in tables of each size, on base pages and on huge pages.

    Working sets of which two copies would not fit into half of the usable memory are left out.
    """
    sizes = sizes or page_sizes()
    chosen = [kib for kib in working_sets_kib if not too_much(2 * kib * KIB)]
    if not chosen:
        return too_much(2 * min(working_sets_kib) * KIB) or NotObservable("nothing was asked for")
    length = -(-max(chosen) * KIB // sizes.pmd) * sizes.pmd
    with ExitStack() as stack:
        base, huge = (stack.enter_context(aligned_area(length, sizes)) for _ in range(2))
        try:
            advise(base.start, length, Advice.NOHUGEPAGE)
            advise(huge.start, length, Advice.HUGEPAGE)
        except OSError as error:
            return NotObservable(f"the kernel takes no advice on huge pages ({error.strerror})")
        touch(base)
        touch(huge)
        if resident(huge).coverage < 1:
            return NotObservable(
                f"only {resident(huge).coverage:.0%} of an advised and aligned table came in huge "
                "pages, so there is nothing to compare with"
            )
        random = np.random.default_rng(0)
        return [_compare(_table(base), _table(huge), kib, random) for kib in chosen]


def _table(span: Span) -> NDArray[np.float64]:
    """Return the memory of ``span`` as numbers of 8 bytes."""
    memory = (ctypes.c_double * (span.length // 8)).from_address(span.start)
    return np.ctypeslib.as_array(memory)


def _compare(
    base: NDArray[np.float64], huge: NDArray[np.float64], kib: int, random: np.random.Generator
) -> Reach:
    """Time both arms in alternating rounds over the first ``kib`` of the tables."""
    places = random.integers(0, kib * KIB // _ROW, _READS) * (_ROW // 8)
    times: tuple[list[float], list[float]] = ([], [])
    for round_ in range(_ROUNDS):
        for arm in (0, 1) if round_ % 2 else (1, 0):
            times[arm].append(_read((base, huge)[arm], places))
    base_ns, huge_ns = (statistics.median(arm) for arm in times)
    return Reach(kib, base_ns, huge_ns, ratio(*times))


def _read(table: NDArray[np.float64], places: NDArray[np.int64]) -> float:
    """Return nanoseconds a read of the numbers at ``places``, one of a row each."""
    start = time.perf_counter_ns()
    table.take(places)
    return (time.perf_counter_ns() - start) / len(places)
