"""Judges of who needs guidance: claims 15 and 16."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hugeprobe.claims.pairs import pairs
from hugeprobe.claims.rule import NO_PAIR, kernels_source
from hugeprobe.claims.verdict import Finding, Verdict, live, untestable
from hugeprobe.errors import NotObservable
from hugeprobe.sharing.pair import Shared

if TYPE_CHECKING:
    from hugeprobe.claims.evidence import Gathered


def custom_builds(evidence: Gathered) -> Finding:
    """Claim 15: custom builds and benchmarks of dynamic workloads need guidance."""
    found = pairs(evidence.kernels)
    if not found:
        return untestable(NO_PAIR)
    differing = [pair for pair in found if pair.forced.huge_kib != pair.multiples.huge_kib]
    widest = max(found, key=lambda p: abs(p.forced.layout.coverage - p.multiples.layout.coverage))
    shares = sorted(layout.layout.coverage for layout in (widest.forced, widest.multiples))
    return Finding(
        Verdict.CONFIRMED if differing else Verdict.NOT_HERE,
        f"One line in the kernel changes what is huge in {len(differing)} of {len(found)} recorded "
        f"lists, once from {shares[0]:.0%} to {shares[1]:.0%}, and the number of a version does "
        "not tell which line a build has.",
        (kernels_source(evidence),),
    )


def shared_memory(evidence: Gathered) -> Finding:
    """Claim 16: settings matter for inference over shared memory."""
    shares = {
        name: each.second.mapping.huge_kib / max(1, each.second.mapping.rss_kib or 0)
        for name, each in evidence.shared.items()
        if isinstance(each, Shared)
    }
    if len(shares) < 2:
        missing = [each for each in evidence.shared.values() if isinstance(each, NotObservable)]
        return untestable(missing[0] if missing else NotObservable("nothing was shared"))
    differs = max(shares.values()) > min(shares.values())
    said = ", ".join(f"{share:.0%} ({name})" for name, share in shares.items())
    return Finding(
        Verdict.CONFIRMED if differs else Verdict.NOT_HERE,
        f"Of the same memory in a second process, {said} is huge.",
        (live("two processes that share memory"),),
    )
