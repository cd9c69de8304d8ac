"""The placement rules side by side: the same mappings under every rule and touch order."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING, Final

from hugeprobe.emulate import Measurement, emulate
from hugeprobe.placement import Layout, Rule, Touch, model
from hugeprobe.sizes import KIB, PageSizes, page_sizes

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from hugeprobe.errors import NotObservable

MAPPINGS: Final = 16
"""Mappings in a case: enough that what happens at their edges adds up."""
TELLING_KIB: Final = (1536, 2048, 2052, 3072, 4096, 4632)
"""Sizes of the table: below a PMD, a whole one, what glibc maps for 2 MiB, one and a half, two, and
the size for which the rule was changed (d4148aeab412)."""
CURVE_KIB: Final = tuple(sorted({*range(1024, 16 * 1024 + 1, 256), *TELLING_KIB}))
"""Sizes of the curves: 1 to 16 MiB in steps of a quarter, and those of the table."""
TOP_OFFSET_KIB: Final = 724
"""Where the first top lies above a PMD boundary: aligned to nothing, as on recorded kernels."""


@dataclass(frozen=True, slots=True)
class Case:
    """Equal mappings under one rule in one touch order, modelled and measured.

    Parameters
    ----------
    kib
        Length of each mapping.
    rule, touch
        What was applied.
    model
        What the pure model says.
    measured
        What real mappings gave here, or why they could not be had.
    """

    kib: int
    rule: Rule
    touch: Touch
    model: Layout
    measured: Measurement | NotObservable

    @property
    def layout(self) -> Layout:
        """What was measured; the model where huge pages cannot be had."""
        if isinstance(self.measured, Measurement) and self.measured.caveat is None:
            return self.measured.layout
        return self.model

    @property
    def is_measured(self) -> bool:
        """Whether :attr:`layout` was measured."""
        return self.layout is not self.model

    @property
    def agrees(self) -> bool:
        """Whether the measurement equals the model: mappings, holes, VMAs, KiB and faults."""
        return self.is_measured and same(self.layout, self.model)


def same(measured: Layout, modelled: Layout) -> bool:
    """Return whether two layouts are equal in everything that a measurement knows."""
    return all(
        getattr(measured, name) == getattr(modelled, name)
        for name in ("mappings", "gap_kib", "vmas", "anon_kib", "huge_kib", "minor_faults")
    )


def modelled(
    kib: int,
    rule: Rule,
    touch: Touch,
    *,
    top_offset_kib: int = TOP_OFFSET_KIB,
    sizes: PageSizes | None = None,
) -> Layout:
    """Return what :data:`MAPPINGS` mappings of ``kib`` KiB come to in the model."""
    lengths = [kib * KIB] * MAPPINGS
    return model(lengths, rule, touch, top_offset=top_offset_kib * KIB, sizes=sizes)


def sweep(
    sizes_kib: Iterable[int],
    *,
    rules: Sequence[Rule] = tuple(Rule),
    top_offset_kib: int = TOP_OFFSET_KIB,
    sizes: PageSizes | None = None,
) -> list[Case]:
    """Model and measure :data:`MAPPINGS` mappings of each size, for each rule and touch order.

    Parameters
    ----------
    sizes_kib
        Lengths of the mappings; one case a length, rule and touch order.
    rules
        The rules to compare.
    top_offset_kib
        Where the first top lies above a PMD boundary.
    sizes
        Page sizes; those of this machine if not given.
    """
    sizes = sizes or page_sizes()
    cases = []
    for kib, rule, touch in product(sizes_kib, rules, Touch):
        lengths, offset = [kib * KIB] * MAPPINGS, top_offset_kib * KIB
        expected = modelled(kib, rule, touch, top_offset_kib=top_offset_kib, sizes=sizes)
        measured = emulate(lengths, rule, touch, top_offset=offset, sizes=sizes)
        cases.append(Case(kib, rule, touch, expected, measured))
    return cases
