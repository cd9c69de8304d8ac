"""The two recorded kernels that differ in one line, list by list."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from hugeprobe.errors import NotObservable
from hugeprobe.placement import Rule
from hugeprobe.sizes import KIB, PageSizes

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from hugeprobe.kernels.record import (
        KernelsRecord,
        KernelUnderSetting,
        RecordedFootprint,
        RecordedLayout,
    )

PMD_KIB: Final = PageSizes().pmd // KIB
"""Recorded kernels are of x86-64."""


@dataclass(frozen=True, slots=True)
class Pair:
    """One list of mappings on both kernels, with THP ``always``.

    Parameters
    ----------
    forced, multiples
        What it came to with the rule, and with its fix.
    """

    forced: RecordedLayout
    multiples: RecordedLayout

    @property
    def is_short(self) -> bool:
        """Whether every length is below a PMD."""
        return max(self.forced.lengths) < PMD_KIB

    @property
    def is_equal(self) -> bool:
        """Whether all lengths are the same."""
        return len(set(self.forced.lengths)) == 1

    @property
    def is_odd(self) -> bool:
        """Whether all lengths are the same, above a PMD and no multiple of it."""
        length = self.forced.lengths[0]
        return self.is_equal and length > PMD_KIB and length % PMD_KIB != 0


@dataclass(frozen=True, slots=True)
class Tally:
    """How one figure compares over many lists, with the rule against with its fix.

    Parameters
    ----------
    more, fewer, same
        Lists in which it is higher, lower and the same with the rule.
    """

    more: int
    fewer: int
    same: int

    @property
    def lists(self) -> int:
        """All lists."""
        return self.more + self.fewer + self.same


def built(record: KernelsRecord | NotObservable) -> list[KernelUnderSetting]:
    """Return the two kernels that were built to differ in one line, under every setting."""
    if isinstance(record, NotObservable):
        return []
    return [kernel for kernel in record.kernels if kernel.origin.startswith("built")]


def pairs(record: KernelsRecord | NotObservable) -> list[Pair]:
    """Return each list that both kernels placed with THP ``always`` and no smaller huge pages."""
    by_rule: dict[Rule | None, dict[object, RecordedLayout]] = {
        kernel.rule: {
            (layout.lengths, layout.touch, layout.top_offset): layout for layout in kernel.layouts
        }
        for kernel in built(record)
        if kernel.thp_mode == "always" and not kernel.mthp
    }
    forced, multiples = by_rule.get(Rule.FORCED, {}), by_rule.get(Rule.MULTIPLES, {})
    return [Pair(forced[key], multiples[key]) for key in forced if key in multiples]


def tally(found: Iterable[Pair], figure: Callable[[RecordedLayout], float]) -> Tally:
    """Compare one figure of both kernels over all lists."""
    differences = [figure(pair.forced) - figure(pair.multiples) for pair in found]
    more, fewer = (sum(sign * each > 0 for each in differences) for sign in (1, -1))
    return Tally(more, fewer, len(differences) - more - fewer)


def footprints(
    record: KernelsRecord | NotObservable,
) -> dict[str, tuple[RecordedFootprint, RecordedFootprint]]:
    """Return the processes of OpenVINO that could have huge pages, by setting: rule, then fix."""
    found: dict[str, dict[Rule | None, RecordedFootprint]] = {}
    for kernel in built(record):
        for process in kernel.openvino if not kernel.mthp else ():
            if kernel.thp_mode == "always" or process.advised:
                setting = f"`{kernel.thp_mode}`" + (", advised" if process.advised else "")
                found.setdefault(setting, {})[kernel.rule] = process
    return {
        setting: (by_rule[Rule.FORCED], by_rule[Rule.MULTIPLES])
        for setting, by_rule in found.items()
        if {Rule.FORCED, Rule.MULTIPLES} <= by_rule.keys()
    }
