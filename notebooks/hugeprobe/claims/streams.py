"""Many streams read in step: what equal low address bits cost the caches and the TLB.

The regression for which the rule was changed (d4148aeab412) was in a program that walks about
twenty arrays of 4,632 kB in step. The commit suspects that caches or TLBs which choose their set by
the low bits of an address put all streams into one set once each starts on a boundary; newer
processors are said not to show it. So it is tried: the same streams placed by ``forced`` and by
``multiples``, on base pages, where the two differ in nothing but their addresses.

Which physical pages a mapping gets is luck that lasts as long as the mapping, so every round maps
anew. A third arm shows whether this host could tell at all: it is placed by ``forced``, but each
stream is read from a few cache lines further on than the one before, so that no bits are equal.
"""

from __future__ import annotations

import ctypes
import random
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from hugeprobe.areas import reserved, too_much, touch
from hugeprobe.compare import Ratio, ratio
from hugeprobe.errors import NotObservable
from hugeprobe.linux import Advice, advise, map_anonymous
from hugeprobe.placement import Rule, Span, place
from hugeprobe.sizes import KIB, PageSizes, page_sizes

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

STREAMS: Final = 20
KIB_EACH: Final = 4632
_LINE: Final = 64
_NUMBER: Final = 8
_NUMBERS: Final = 8192
"""Numbers of 8 bytes that are read of each stream, one of each stream in turn."""
_APART: Final = 3
_ROUNDS: Final = 31
_REPEATS: Final = 4


@dataclass(frozen=True, slots=True)
class Streams:
    """The same streams at equal and at unequal low address bits.

    Parameters
    ----------
    rule
        Time as ``forced`` places them over time as ``multiples`` does: above 1, the rule is slower.
    control
        Time as ``forced`` places them over time where they are read some cache lines apart: above
        1, this host shows aliasing where it is sought.
    """

    rule: Ratio
    control: Ratio


def measure_streams(
    streams: int = STREAMS,
    kib: int = KIB_EACH,
    rounds: int = _ROUNDS,
    sizes: PageSizes | None = None,
) -> Streams | NotObservable:
    """Read streams in step under both rules, in alternation, each time in new mappings.

    Parameters
    ----------
    streams, kib
        Number of streams, and the length of each mapping.
    rounds
        Readings of each arm, at least two.
    sizes
        Page sizes; those of this machine if not given.
    """
    sizes = sizes or page_sizes()
    if missing := too_much(streams * (_NUMBERS * _NUMBER + _APART * streams * _LINE)):
        return missing
    arms = {"forced": (Rule.FORCED, 0), "multiples": (Rule.MULTIPLES, 0), "apart": (Rule.FORCED, 1)}
    times: dict[str, list[float]] = {name: [] for name in arms}
    order = random.Random(0)
    lengths = [kib * KIB] * streams
    try:
        for _ in range(rounds):
            for name in order.sample(list(arms), len(arms)):
                rule, apart = arms[name]
                times[name].append(_read(lengths, rule, apart * _APART, sizes))
    except OSError as error:
        return NotObservable(f"the kernel refused the mappings ({error.strerror})")
    forced = times["forced"]
    return Streams(ratio(forced, times["multiples"]), ratio(forced, times["apart"]))


def _read(lengths: Sequence[int], rule: Rule, apart: int, sizes: PageSizes) -> float:
    """Map streams as a rule would and read them in step; return the least ns a number."""
    depth = -min(span.start for span in place(lengths, rule, 0, sizes))
    with reserved(depth + 2 * sizes.pmd) as reserve:
        top = reserve.end // sizes.pmd * sizes.pmd
        starts = []
        for number, span in enumerate(place(lengths, rule, top, sizes)):
            map_anonymous(span.length, at=span.start)
            advise(span.start, span.length, Advice.NOHUGEPAGE)
            starts.append(span.start + number * apart * _LINE)
            touch(Span(span.start, starts[-1] + _NUMBERS * _NUMBER))
        lowest = min(starts)
        whole = (ctypes.c_double * ((top - lowest) // _NUMBER)).from_address(lowest)
        table = np.ctypeslib.as_array(whole)
        offsets = (np.array(starts) - lowest) // _NUMBER
        places = (np.arange(_NUMBERS)[:, None] + offsets).ravel()
        return min(_once(table, places) for _ in range(_REPEATS))


def _once(table: NDArray[np.float64], places: NDArray[np.int64]) -> float:
    start = time.perf_counter_ns()
    table.take(places)
    return (time.perf_counter_ns() - start) / len(places)
