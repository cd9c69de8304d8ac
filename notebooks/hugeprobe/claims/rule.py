"""Judges of what is said about the alignment rule: claims 1 to 7."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from hugeprobe.claims.bounds import bounds
from hugeprobe.claims.pairs import PMD_KIB, Pair, footprints, pairs, tally
from hugeprobe.claims.streams import STREAMS
from hugeprobe.claims.verdict import (
    Finding,
    Source,
    Verdict,
    cited,
    live,
    recorded,
    untestable,
)
from hugeprobe.emulate import Measurement
from hugeprobe.errors import NotObservable
from hugeprobe.placement import Rule, Touch, model
from hugeprobe.sizes import KIB

if TYPE_CHECKING:
    from collections.abc import Sequence

    from hugeprobe.claims.evidence import Gathered
    from hugeprobe.kernels.record import RecordedFootprint

NO_PAIR: Final = NotObservable("there is no record of the two kernels that differ in one line")
COMMIT: Final = "[efa7df3e3bb5](https://git.kernel.org/linus/efa7df3e3bb5)"
FIX: Final = "[d4148aeab412](https://git.kernel.org/linus/d4148aeab412)"


def kernels_source(evidence: Gathered) -> Source:
    """Return the record of kernels as a source."""
    if isinstance(evidence.kernels, NotObservable):
        return recorded("no record of kernels")
    names = {kernel.origin for kernel in evidence.kernels.kernels}
    return recorded(
        f"{len(names)} [real kernels](../docs/real-kernels.md), {evidence.kernels.date}"
    )


def bench_source(evidence: Gathered) -> Source:
    """Return the benchmark as a source."""
    if isinstance(evidence.bench, NotObservable):
        return recorded("no benchmark")
    return recorded(f"{len(evidence.bench.runs):,} runs, {evidence.bench.date}")


def alignment(evidence: Gathered) -> Finding:
    """Claim 1: every anonymous mapping of at least a PMD is aligned."""
    found = pairs(evidence.kernels)
    here = evidence.rule.rule
    if not found:
        return untestable(NO_PAIR)
    both = [
        mappings
        for pair in found
        for mappings in zip(pair.forced.mappings, pair.multiples.mappings, strict=True)
        if mappings[0].length >= PMD_KIB * KIB
    ]
    on, off = (sum(mappings[i].aligned for mappings in both) for i in (0, 1))
    short_moved = any(
        pair.forced.mappings != pair.multiples.mappings for pair in found if pair.is_short
    )
    verdict = Verdict.IN_PART
    if on == len(both) and off < len(both) and not short_moved:
        verdict = Verdict.CONFIRMED
    elif on <= off:
        verdict = Verdict.REFUTED
    rule = f"follows `{here.value}`" if here else "follows none of the known rules"
    return Finding(
        verdict,
        f"With the rule, {on:,} of {len(both):,} recorded mappings of 2 MiB and more start on a "
        f"boundary, with its fix {off:,}; the kernel of this host {rule}.",
        (kernels_source(evidence), live("the rule of this kernel")),
    )


def gaps(evidence: Gathered) -> Finding:
    """Claim 2: that makes artificial gaps."""
    found = pairs(evidence.kernels)
    odd = [pair for pair in found if pair.is_odd]
    if not odd:
        return untestable(NO_PAIR)
    with_rule = sum(pair.forced.gap_kib > 0 for pair in odd)
    with_fix = sum(pair.multiples.gap_kib > 0 for pair in odd)
    others = [pair for pair in found if pair.is_equal and not pair.is_odd]
    elsewhere = sum(pair.forced.gap_kib > 0 for pair in others)
    verdict = Verdict.IN_PART
    if with_rule == len(odd) and not with_fix:
        verdict = Verdict.CONFIRMED
    elif with_rule <= with_fix:
        verdict = Verdict.REFUTED
    return Finding(
        verdict,
        f"Equal lengths above 2 MiB that are no multiples of it leave holes in {with_rule} of "
        f"{len(odd)} recorded lists with the rule and in {with_fix} with its fix; multiples, and "
        f"lengths below 2 MiB, in {elsewhere} of {len(others)}.",
        (kernels_source(evidence),),
    )


def prevents(evidence: Gathered) -> Finding:
    """Claim 3: the gaps keep huge pages from forming, and VMAs from merging."""
    found = pairs(evidence.kernels)
    if not found:
        return untestable(NO_PAIR)
    vmas = tally(found, lambda layout: layout.vmas)
    huge = tally(found, lambda layout: layout.huge_kib)
    return Finding(
        _both_ways(worse=huge.fewer, better=huge.more, also=vmas.more),
        f"With the rule there are more VMAs in {vmas.more} of {vmas.lists} recorded lists; less "
        f"memory is huge in {huge.fewer}, more in {huge.more}, and the same in {huge.same}.",
        (kernels_source(evidence),),
    )


def _both_ways(worse: int, better: int, also: int = 0) -> Verdict:
    """Confirm what is worse only; in part what goes both ways, or holds beside it."""
    if worse and not better:
        return Verdict.CONFIRMED
    if worse or also:
        return Verdict.IN_PART
    return Verdict.REFUTED


def small(evidence: Gathered) -> Finding:
    """Claim 4: buffers such as 1.5 and 1.8 MB suffer."""
    short = [pair for pair in pairs(evidence.kernels) if pair.is_short]
    beside = [
        pair
        for pair in pairs(evidence.kernels)
        if not pair.is_short and min(pair.forced.lengths) < PMD_KIB
    ]
    if not short:
        return untestable(NO_PAIR)
    alike = sum(pair.forced == pair.multiples for pair in short)
    here = [each for each in evidence.small.values() if isinstance(each, Measurement)]
    moved = any(measured.layout.gap_kib > 0 for measured in here)
    with_rule, with_fix = _small_shares(beside)
    verdict = Verdict.IN_PART
    if alike < len(short) or moved:
        verdict = Verdict.CONFIRMED
    elif with_rule >= with_fix:
        verdict = Verdict.REFUTED
    reason = (
        f"Among themselves such buffers are the same with the rule and with its fix in {alike} of "
        f"{len(short)} recorded lists"
    )
    if here:
        reason += f", and this kernel leaves {'holes' if moved else 'no holes'} between them"
    if with_rule != with_fix:
        reason += (
            "; but beside larger mappings, written once all are mapped, "
            f"{with_rule:.0%} of them is huge with the rule and {with_fix:.0%} with its fix, for "
            "want of the neighbours that they would merge with"
        )
    sources = (live("where this kernel puts them"),) if here else ()
    return Finding(verdict, f"{reason}.", (kernels_source(evidence), *sources))


def _small_shares(beside: Sequence[Pair]) -> tuple[float, float]:
    """Return the share of small buffers that is huge in mixed lists: with the rule, and its fix.

    smaps knows the sums only, so the model says which: its sums are those of the kernels.
    """
    shares = []
    for rule in (Rule.FORCED, Rule.MULTIPLES):
        huge = length = 0
        for pair in beside:
            if pair.forced.touch is Touch.AFTER:
                each = _huge_below_pmd(pair, rule)
                huge, length = huge + each[0], length + each[1]
        shares.append(huge / length if length else 0.0)
    return shares[0], shares[1]


def _huge_below_pmd(pair: Pair, rule: Rule) -> tuple[int, int]:
    """Return the bytes of mappings below a PMD that lie in huge pages, and all of theirs."""
    pmd = PMD_KIB * KIB
    layout = model(
        [kib * KIB for kib in pair.forced.lengths],
        rule,
        pair.forced.touch,
        top_offset=pair.forced.top_offset,
    )
    mappings = [mapping for mapping in layout.mappings if mapping.length < pmd]
    huge = sum(
        max(
            0,
            min(mapping.start_offset, top) - max(mapping.start_offset - mapping.length, top - pmd),
        )
        for mapping in mappings
        for top in layout.huge_offsets or ()
    )
    return huge, sum(mapping.length for mapping in mappings)


def faults(evidence: Gathered) -> Finding:
    """Claim 5: it increases page faults."""
    found = pairs(evidence.kernels)
    if not found:
        return untestable(NO_PAIR)
    counted = tally(found, lambda layout: layout.minor_faults)
    processes = footprints(evidence.kernels)
    return Finding(
        _both_ways(worse=counted.more, better=counted.fewer),
        f"With the rule there are more faults in {counted.more} of {counted.lists} recorded lists, "
        f"fewer in {counted.fewer} and as many in {counted.same}; inferences of OpenVINO took "
        f"{_inferences(processes)}.",
        (kernels_source(evidence),),
    )


def _inferences(processes: dict[str, tuple[RecordedFootprint, RecordedFootprint]]) -> str:
    """Say how many faults inferences took under each setting, with the rule and with its fix."""
    if not processes:
        return "a number that is not recorded"
    return ", ".join(
        f"{sum(rule.inference_faults):,} with it and {sum(fix.inference_faults):,} with the fix "
        f"({setting})"
        for setting, (rule, fix) in processes.items()
    )


def caches(evidence: Gathered) -> Finding:
    """Claim 6: it lowers cache and TLB performance."""
    streams = evidence.streams
    source = cited(f"{FIX}: up to 600 % in cactuBSSN, on some processors")
    if isinstance(streams, NotObservable):
        return Finding(
            Verdict.IN_PART,
            "The commit that changed the rule reports it of one program on some processors and "
            f"suspects aliasing of TLB or cache. {streams}",
            (source,),
        )
    slower = streams.rule.differs and streams.rule.value > 1
    effect = "which is slower" if slower else "which is not slower"
    effect = effect if streams.rule.differs else "which shows no difference"
    visible = streams.control.differs and streams.control.value > 1
    control = "can be seen here" if visible else "cannot be seen here"
    return Finding(
        Verdict.CONFIRMED if slower else Verdict.IN_PART,
        "The commit that changed the rule reports it of one program on some processors; on this "
        f"host {STREAMS} such streams take {streams.rule} times as long placed by the rule as by "
        f"its fix, {effect}, and {streams.control} times as long as a few cache lines apart, so "
        f"that aliasing {control}.",
        (source, live(f"{STREAMS} streams read in step")),
    )


def inference(evidence: Gathered) -> Finding:
    """Claim 7: it makes inference slower."""
    processes = footprints(evidence.kernels)
    warm = bounds(evidence.bench, ["steady"])
    if not processes or not warm:
        return untestable(NotObservable("there is no record of inference to judge from"))
    costlier = [
        sum(rule.inference_faults) > sum(fix.inference_faults) for rule, fix in processes.values()
    ]
    gains = [bound for bound in warm if bound.gains]
    verdict = Verdict.NOT_HERE
    if gains and any(costlier):
        verdict = Verdict.CONFIRMED if all(costlier) else Verdict.IN_PART
    most = max((bound.ratio for bound in gains), key=lambda ratio: ratio.value, default=None)
    largest = f", by {most} at most" if most else ""
    return Finding(
        verdict,
        f"OpenVINO took more faults with the rule than with its fix under {sum(costlier)} of "
        f"{len(costlier)} recorded settings; and with no huge pages at all, warm inference was "
        f"slower in {len(gains)} of {len(warm)} comparisons{largest}.",
        (kernels_source(evidence), bench_source(evidence)),
    )
