"""What a collapse makes of mappings that a rule has placed.

khugepaged collapses what lies in one VMA, whole aligned ranges only, and so does ``MADV_COLLAPSE``;
the latter does it at once, so it shows what the former could come to.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from hugeprobe import linux, smaps
from hugeprobe.areas import reserved, resident, too_much, touch
from hugeprobe.errors import NotObservable
from hugeprobe.linux import Advice
from hugeprobe.placement import place
from hugeprobe.sizes import KIB, PageSizes, page_sizes

if TYPE_CHECKING:
    from hugeprobe.placement import Rule

LENGTH_KIB: Final = 3072
MAPPINGS: Final = 16


@dataclass(frozen=True, slots=True)
class Coalesced:
    """Equal mappings, each written as it was mapped, then collapsed.

    Parameters
    ----------
    vmas
        Virtual memory areas that they were when they were collapsed.
    before, after
        Share that was huge before the collapse and after it, 0 to 1.
    """

    vmas: int
    before: float
    after: float


def coalesce(
    rule: Rule, kib: int = LENGTH_KIB, count: int = MAPPINGS, sizes: PageSizes | None = None
) -> Coalesced | NotObservable:
    """Place mappings as a rule would, write each at once, and collapse all.

    Parameters
    ----------
    rule
        The rule that places them.
    kib, count
        Length of each mapping, and how many.
    sizes
        Page sizes; those of this machine if not given.
    """
    sizes = sizes or page_sizes()
    lengths = [kib * KIB] * count
    if missing := too_much(sum(lengths)):
        return missing
    depth = -min(span.start for span in place(lengths, rule, 0, sizes))
    with reserved(depth + 3 * sizes.pmd) as reserve:
        top = (reserve.end - sizes.base) // sizes.pmd * sizes.pmd
        try:
            for span in place(lengths, rule, top, sizes):
                linux.map_anonymous(span.length, at=span.start)
                touch(span)
            before = resident(reserve)
            mapped = [
                mapping
                for mapping in smaps.snapshot().within(reserve.start, reserve.end)
                if mapping.permissions.startswith("rw")
            ]
            for mapping in mapped:
                linux.advise(mapping.start, mapping.end - mapping.start, Advice.COLLAPSE)
        except OSError as error:
            return NotObservable(f"the kernel refused to collapse it ({error.strerror})")
        return Coalesced(len(mapped), before.coverage, resident(reserve).coverage)
