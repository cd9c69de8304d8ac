"""Judges of what is said about the fix and its effect: claims 8 to 14."""

from __future__ import annotations

import statistics
from typing import TYPE_CHECKING, Final

from hugeprobe import arms
from hugeprobe.bench import summary
from hugeprobe.claims.bounds import bounds, is_claimed, largest, speedup
from hugeprobe.claims.pairs import footprints, pairs
from hugeprobe.claims.rule import COMMIT, FIX, NO_PAIR, bench_source, kernels_source
from hugeprobe.claims.verdict import Finding, Verdict, cited, live, untestable
from hugeprobe.errors import NotObservable
from hugeprobe.placement import Rule
from hugeprobe.sizes import format_kib

if TYPE_CHECKING:
    from hugeprobe.bench.record import BenchRecord, CellFacts
    from hugeprobe.bench.summary import Effect, Moment
    from hugeprobe.claims.evidence import Gathered

HIGH: Final = 0.9
"""Share of huge pages that the issue names."""
CLAIMED: Final = 32
"""Largest speed-up that the issue names."""
NEAR: Final = 0.1
"""Share of the limit on mappings from which a process counts as near it."""
MOMENT_WORDS: Final[dict[Moment, str]] = {
    "load": "loading",
    "first": "first inferences",
    "steady": "warm inferences",
}
_NO_BENCH: Final = NotObservable("there is no recorded benchmark of it")
_ABOVE_HIGH: Final = f"more than {HIGH:.0%} huge"


def prevents(evidence: Gathered) -> Finding:
    """Claim 8: aligning only multiples prevents gaps, lets VMAs merge, and enables coalescing."""
    found = pairs(evidence.kernels)
    equal = [pair.multiples for pair in found if pair.is_equal]
    mixed = [pair.multiples for pair in found if not pair.is_equal]
    with_rule, with_fix = (evidence.coalesced[rule] for rule in (Rule.FORCED, Rule.MULTIPLES))
    if not equal:
        return untestable(NO_PAIR)
    if isinstance(with_rule, NotObservable):
        return untestable(with_rule)
    if isinstance(with_fix, NotObservable):
        return untestable(with_fix)
    whole = sum(layout.gap_kib == 0 and layout.vmas == 1 for layout in equal)
    broken = sum(layout.gap_kib > 0 for layout in mixed)
    coalesces = with_fix.after > with_rule.after
    verdict = Verdict.IN_PART
    if whole == len(equal) and coalesces and not broken:
        verdict = Verdict.CONFIRMED
    elif not whole and not coalesces:
        verdict = Verdict.REFUTED
    return Finding(
        verdict,
        f"With the fix, equal lengths are one VMA without holes in {whole} of {len(equal)} "
        f"recorded lists, and a collapse makes {with_fix.after:.0%} of them huge where the rule "
        f"ends at {with_rule.after:.0%}; lists that mix multiples with other lengths keep holes "
        f"({broken} of {len(mixed)} mixed lists).",
        (
            kernels_source(evidence),
            live("a collapse under each rule"),
        ),
    )


def high_share(evidence: Gathered) -> Finding:
    """Claim 9: with the fix, more than 90 % is huge."""
    fixed = [case for case in evidence.cases if case.rule is Rule.MULTIPLES]
    if not fixed:
        return untestable(NotObservable("nothing was swept"))
    measured = sum(case.is_measured for case in fixed)
    high = sum(case.layout.coverage > HIGH for case in fixed)
    verdict = Verdict.IN_PART if high else Verdict.NOT_HERE
    verdict = Verdict.CONFIRMED if high == len(fixed) else verdict
    shares = sorted(case.layout.coverage for case in fixed)
    how = live(f"{measured} of {len(fixed)} lists, the others by the model")
    how = live(f"{measured} lists of mappings") if measured == len(fixed) else how
    return Finding(
        verdict,
        f"With the fix, {high} of {len(fixed)} lists of mappings are {_ABOVE_HIGH}, and the least "
        f"of them is {shares[0]:.0%} huge"
        f"{_share_of_processes(evidence.bench)}.",
        (how, bench_source(evidence)),
    )


def _share_of_processes(record: BenchRecord | NotObservable) -> str:
    """Say how much of whole processes was huge, as they come and at best."""
    if isinstance(record, NotObservable):
        return ""
    warm = [effect for effect in summary.everything(record) if effect.moment == "steady"]
    default, keep = (
        [effect.coverage for effect in warm if effect.arm == arm.name]
        for arm in (arms.DEFAULT, arms.KEEP)
    )
    if not default or not keep:
        return ""
    return (
        f"; recorded processes have {max(default):.0%} at most as they come, and "
        f"{min(keep):.0%} to {max(keep):.0%} under `{arms.KEEP.name}`"
    )


def throughput(evidence: Gathered) -> Finding:
    """Claim 10: throughput improves by up to 32 times."""
    record = evidence.bench
    if isinstance(record, NotObservable):
        return untestable(record)
    effects = [
        effect
        for effect in summary.everything(record)
        if effect.arm != arms.AGAIN.name and effect.speedup is not None
    ]
    to_be_had = [effect for effect in effects if effect.arm != arms.TOUCHED.name]
    best, floor = largest(to_be_had), largest(effects)
    verdict = Verdict.NOT_HERE
    if best and speedup(best) >= CLAIMED:
        verdict = Verdict.CONFIRMED if is_claimed(best.cell) else Verdict.IN_PART
    claimed = largest([effect for effect in to_be_had if is_claimed(effect.cell)])
    most = f"{best.speedup}, {_where(best)}" if best else "none"
    within = f"{claimed.speedup}" if claimed else "none that is faster"
    bound = f"{floor.speedup}" if floor else "none"
    return Finding(
        verdict,
        f"Of {len(to_be_had)} comparisons the largest speed-up that stands is {most}; at the "
        f"batches and lengths of the claim it is {within}, and with all memory touched beforehand, "
        f"which no setting gives, {bound}.",
        (bench_source(evidence),),
    )


def _where(effect: Effect) -> str:
    return f"{MOMENT_WORDS[effect.moment]} of {effect.cell.workload} on {effect.cell.runtime}"


def yolov5(evidence: Gathered) -> Finding:
    """Claim 11: YOLOv5 with changing sizes regresses, and is restored."""
    record = evidence.bench
    found = bounds(record, ["first", "steady"], lambda cell: cell.workload.startswith("yolo"))
    if isinstance(record, NotObservable) or not found:
        return untestable(_NO_BENCH)
    gains = [bound for bound in found if bound.gains]
    verdict = Verdict.IN_PART if gains else Verdict.NOT_HERE
    verdict = Verdict.CONFIRMED if len(gains) == len(found) else verdict
    counts = " and ".join(
        _fewer_faults(record, cell) for cell in record.cells if cell.workload.startswith("yolo")
    )
    return Finding(
        verdict,
        f"First inferences at growing sizes took {counts}; a difference of time between no huge "
        f"pages and some is shown in {len(gains)} of {len(found)} comparisons, and the two kernels "
        "were not compared in time.",
        (bench_source(evidence),),
    )


def _fewer_faults(record: BenchRecord, cell: CellFacts, arm: str = arms.KEEP.name) -> str:
    """Say how many faults first inferences took without huge pages and under an arm."""
    off, some = (_first_faults(record, cell, name) for name in (arms.OFF.name, arm))
    return f"{off:,.0f} faults without huge pages and {some:,.0f} under `{arm}` ({cell.runtime})"


def _first_faults(record: BenchRecord, cell: CellFacts, arm: str) -> float:
    """Return the median of faults of first inferences; not a number where the arm did not run."""
    counted = [
        summary.faults_at(result)
        for run in record.of(cell, arm)
        if (result := run.at("first")) is not None
    ]
    return statistics.median(counted) if counted else float("nan")


def bert(evidence: Gathered) -> Finding:
    """Claim 12: BERT on both runtimes is affected."""
    record = evidence.bench
    if isinstance(record, NotObservable):
        return untestable(record)
    cells = [
        cell
        for cell in record.cells
        if cell.workload.startswith("bert") and {arms.OFF.name, arms.ADVISE.name} <= {*cell.arms}
    ]
    runtimes = {cell.runtime for cell in cells}
    if len(runtimes) < 2:
        return untestable(_NO_BENCH)
    fewer = [
        cell
        for cell in cells
        if _first_faults(record, cell, arms.ADVISE.name)
        < _first_faults(record, cell, arms.OFF.name)
    ]
    found = bounds(record, ["first", "steady"], lambda cell: cell in cells)
    gains = [bound for bound in found if bound.gains]
    verdict = Verdict.NOT_HERE
    if {cell.runtime for cell in fewer} == runtimes:
        faster = {bound.cell.runtime for bound in gains if bound.moment == "steady"}
        verdict = Verdict.CONFIRMED if faster == runtimes else Verdict.IN_PART
    counts = " and ".join(_fewer_faults(record, cell, arms.ADVISE.name) for cell in cells)
    warm = sum(bound.moment == "steady" for bound in gains)
    return Finding(
        verdict,
        f"First inferences of BERT took {counts}; huge pages are shown to be faster in "
        f"{len(gains)} of {len(found)} comparisons of first and warm inferences, {warm} of them "
        "warm, and the two kernels were compared with OpenVINO only, in counts.",
        (bench_source(evidence),),
    )


def allocation_errors(evidence: Gathered) -> Finding:
    """Claim 13: allocation errors occur, and vanish with the fix."""
    counted = evidence.mapcount
    most = _most_vmas(evidence)
    if isinstance(counted, NotObservable):
        return untestable(counted)
    share = most / counted.limit
    verdict = Verdict.NOT_HERE
    if counted.forced is None:
        verdict = Verdict.REFUTED
    elif counted.multiples is None and share >= NEAR:
        verdict = Verdict.CONFIRMED if share >= 1 else Verdict.IN_PART
    with_rule = "never"
    if counted.forced:
        whole = format_kib(counted.forced * counted.length_kib)
        with_rule = f"after {counted.forced:,} mappings ({whole} once written)"
    with_fix = f"after {counted.multiples:,}" if counted.multiples else "never"
    return Finding(
        verdict,
        f"Under `vm.max_map_count` {counted.limit:,}, mappings of {counted.length_kib:,} KiB were "
        f"refused {with_rule} as the rule places them and {with_fix} as its fix does; the largest "
        f"recorded process of inference had {most:,} mappings.",
        (
            live("mapping until the kernel refuses, by rule"),
            kernels_source(evidence),
            bench_source(evidence),
        ),
    )


def _most_vmas(evidence: Gathered) -> int:
    """Return the mappings of the largest process that any record knows."""
    counts = [0]
    for rule, fix in footprints(evidence.kernels).values():
        counts += [rule.vmas, fix.vmas]
    if not isinstance(evidence.bench, NotObservable):
        counts += [stage.vmas for run in evidence.bench.runs for stage in run.stages]
    return max(counts)


def authorship(evidence: Gathered) -> Finding:
    """Claim 14: the fix is the reporter's; 6.6 is affected, 6.6.8 is patched."""
    here = evidence.rule.rule
    is_66 = evidence.release.split(".")[:2] == ["6", "6"]
    sources = (
        cited(COMMIT),
        cited(FIX),
        cited("[the mail](https://lore.kernel.org/all/28338f055b3c9afa8b69ff6f05ea20ed@kenip.in/)"),
    )
    if is_66 and here is Rule.FORCED:
        return Finding(
            Verdict.IN_PART,
            "This host runs a 6.6 that follows `forced`, as distributions may make it, so a 6.6 "
            "can be affected; the fix in Linux is Vlastimil Babka's.",
            (live("the rule of this kernel"), *sources),
        )
    return Finding(
        Verdict.REFUTED,
        "The idea is the same, but the change that Linux carries was written by Vlastimil Babka in "
        "October 2024; the rule came with 6.7, so Linux 6.6 and 6.6.8 have neither the rule nor "
        "its fix.",
        sources,
    )
