"""All claims of the issue, in their order."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from hugeprobe.claims import fix, guidance, rule
from hugeprobe.claims.verdict import Claim, Judged

if TYPE_CHECKING:
    from hugeprobe.claims.evidence import Gathered

CLAIMS: Final = (
    Claim(1, "Mappings of 2 MiB and more are aligned", rule.alignment),
    Claim(2, "That makes artificial gaps", rule.gaps),
    Claim(3, "Gaps keep huge pages from forming", rule.prevents),
    Claim(4, "Buffers of 1.5 and 1.8 MB suffer", rule.small),
    Claim(5, "Page faults increase", rule.faults),
    Claim(6, "Cache and TLB do worse", rule.caches),
    Claim(7, "Inference is slower", rule.inference),
    Claim(8, "Aligning only multiples cures it", fix.prevents),
    Claim(9, "More than 90 % is huge with the fix", fix.high_share),
    Claim(10, "Throughput improves up to 32x", fix.throughput),
    Claim(11, "YOLOv5 with changing sizes regresses", fix.yolov5),
    Claim(12, "BERT on both runtimes is affected", fix.bert),
    Claim(13, "Allocations fail without the fix", fix.allocation_errors),
    Claim(14, "The fix is the reporter's, and 6.6 is affected", fix.authorship),
    Claim(15, "Custom builds and benchmarks need guidance", guidance.custom_builds),
    Claim(16, "Settings matter for shared memory", guidance.shared_memory),
)


def judge(evidence: Gathered) -> tuple[Judged, ...]:
    """Judge every claim from the same evidence."""
    return tuple(Judged(claim, claim.judge(evidence)) for claim in CLAIMS)
