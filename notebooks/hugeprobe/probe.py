"""Which alignment rule the running kernel follows, found by mapping and not by its version.

Version numbers lie: distributions carry the rule and its fix to kernels whose numbers suggest
otherwise. The probe maps address space that it never touches, of lengths that the rules treat
differently, and compares every address with what each rule would have given.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from hugeprobe.freespace import known_top, map_inaccessible
from hugeprobe.linux import unmap
from hugeprobe.placement import Rule, Span, place
from hugeprobe.sizes import KIB, PageSizes, page_sizes

_TRIES: Final = 3
"""Another thread may map memory while the probe does; then no rule fits, and it looks again."""

_TOP_OFFSET_PAGES: Final = 5
"""The first top lies a few pages above a boundary: nothing is aligned by chance."""


@dataclass(frozen=True, slots=True)
class RuleEvidence:
    """One mapping of the probe.

    Parameters
    ----------
    length_kib
        Its length.
    above_boundary_kib
        Where the kernel started it, above a PMD boundary: 0 is aligned.
    hole_above_kib
        Hole left between it and the mapping before; negative where it lies above that one.
    fits
        The rules under which it would have been put exactly there.
    """

    length_kib: int
    above_boundary_kib: int
    hole_above_kib: int
    fits: tuple[Rule, ...]


@dataclass(frozen=True, slots=True)
class RuleFinding:
    """What the probe found.

    Parameters
    ----------
    rule
        The rule that explains every address, or None where no known rule does.
    evidence
        The mappings, in the order they were mapped.
    """

    rule: Rule | None
    evidence: tuple[RuleEvidence, ...]

    @property
    def sentence(self) -> str:
        """The finding in words."""
        count = len(self.evidence)
        if self.rule:
            return (
                f"This kernel follows the rule `{self.rule.value}`: "
                f"it explains the addresses of all {count} test mappings."
            )
        aligned = sum(not each.above_boundary_kib for each in self.evidence)
        return (
            f"This kernel follows none of the known rules: {aligned} of {count} test mappings "
            "start on a PMD boundary, and no rule explains all addresses. A legacy address-space "
            "layout (`ulimit -s unlimited`), an emulated Linux or a kernel of its own kind does "
            "that."
        )


def _lengths(sizes: PageSizes) -> tuple[int, ...]:
    """Return lengths that tell the rules apart: one below a PMD, then whole PMDs between others.

    No two sums of the first lengths are whole PMDs apart from the top, so that under ``packed``
    nothing is aligned by chance.
    """
    pmd, base = sizes.pmd, sizes.base
    return (pmd - pmd // 4, pmd + base, 2 * pmd, 2 * pmd + pmd // 4, pmd, 3 * pmd + base, 2 * pmd)


def _observe(lengths: tuple[int, ...], top_offset: int, sizes: PageSizes) -> tuple[int, list[Span]]:
    """Return the first top and where the kernel put address space of ``lengths`` bytes."""
    spans: list[Span] = []
    with known_top(top_offset, sizes) as top:
        try:
            spans.extend(map_inaccessible(length) for length in lengths)
        finally:
            for span in spans:
                unmap(span.start, span.length)
    return top, spans


def find_rule(sizes: PageSizes | None = None) -> RuleFinding:
    """Find the alignment rule of the running kernel; takes milliseconds, uses no memory.

    Parameters
    ----------
    sizes
        Page sizes; those of this machine if not given.

    Raises
    ------
    NotLinuxError, NoMemoryError
        Where there is nothing to probe, or no address space to do it in.
    """
    sizes = sizes or page_sizes()
    lengths = _lengths(sizes)
    finding = RuleFinding(None, ())
    for _ in range(_TRIES):
        top, spans = _observe(lengths, _TOP_OFFSET_PAGES * sizes.base, sizes)
        finding = _compare(top, spans, lengths, sizes)
        if finding.rule:
            break
    return finding


def _compare(
    top: int, spans: list[Span], lengths: tuple[int, ...], sizes: PageSizes
) -> RuleFinding:
    """Hold the observed addresses against those that each rule gives."""
    expected = {rule: place(lengths, rule, top, sizes) for rule in Rule}
    above = [Span(top, top), *spans]
    evidence = tuple(
        RuleEvidence(
            span.length // KIB,
            span.start % sizes.pmd // KIB,
            (above[i].start - span.end) // KIB,
            tuple(rule for rule in Rule if expected[rule][i] == span),
        )
        for i, span in enumerate(spans)
    )
    rule = next((rule for rule in Rule if expected[rule] == spans), None)
    return RuleFinding(rule, evidence)
