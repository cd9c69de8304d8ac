"""What each action of the page "Tuning" brings: counted here, or recorded with its origin."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, TypeAlias

from hugeprobe import arms
from hugeprobe.bench import summary
from hugeprobe.errors import NotObservable
from hugeprobe.figures.bench import MOMENTS, find_cell
from hugeprobe.kernels.inference import WORKLOAD
from hugeprobe.sizes import KIB, format_kib
from hugeprobe.tuning.promises import STOCK, promises

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from hugeprobe.arms import Arm
    from hugeprobe.bench.record import BenchRecord
    from hugeprobe.bench.summary import Effect, Moment
    from hugeprobe.compare import Ratio
    from hugeprobe.filling import Filling
    from hugeprobe.inference import Report
    from hugeprobe.kernels.inference import Footprint
    from hugeprobe.kernels.record import KernelsRecord, RecordedFootprint
    from hugeprobe.tuning.trials import Blocks, Trials


Range: TypeAlias = tuple[float, float]
COMPUTE: Final = ("bert-mini", "bert-mini-batches", "bert-base", "ppocr-detector", "yolov5s")
"""Workloads that compute for longer than they read: encoders and convolutions, of many rows."""


@dataclass(frozen=True, slots=True)
class Evidence:
    """What effects are read from.

    Parameters
    ----------
    here
        Measured at this build.
    bench
        The recorded benchmark.
    kernels
        The recorded kernel laboratory.
    """

    here: Trials
    bench: BenchRecord | NotObservable
    kernels: KernelsRecord | NotObservable


@dataclass(frozen=True, slots=True)
class Told:
    """An effect, in words.

    Parameters
    ----------
    counts
        Faults, coverage and memory.
    times
        For how many workloads it is faster or slower.
    """

    counts: str
    times: str = "not timed"


def effect(key: str, evidence: Evidence) -> Told:
    """Return the effect of the action called ``key``."""
    return _EFFECTS[key](evidence)


@dataclass(frozen=True, slots=True)
class Tally:
    """One arm at one moment, over all workloads of the benchmark that ran under it.

    Parameters
    ----------
    effects
        The arm's, each against the default arm of the same workload.
    faults_left, resident
        Least and most of its faults, and of its resident memory, over those of the default arm.
    """

    effects: tuple[Effect, ...]
    faults_left: Range | None
    resident: Range | None

    def of(self, verdict: str) -> list[Effect]:
        """Return those with a verdict, the one farthest from 1 first."""
        found = [each for each in self.effects if each.verdict == verdict]
        return sorted(found, key=_distance, reverse=True)


def _distance(found: Effect) -> float:
    assert found.speedup is not None
    return max(found.speedup.value, 1 / found.speedup.value)


def tally(
    record: BenchRecord, arm: Arm, moment: Moment, among: Sequence[str] | None = None
) -> Tally:
    """Sum up one arm at one moment, over all workloads, or over those ``among`` names."""
    chosen, shares, sizes = [], [], []
    for cell in record.cells:
        if among is not None and cell.workload not in among:
            continue
        found = {each.arm: each for each in summary.effects(record, cell, moment)}
        ours, first = found.get(arm.name), found.get(cell.arms[0])
        if ours is None or ours.speedup is None or first is None:
            continue
        chosen.append(ours)
        sizes.append(ours.resident_kib / first.resident_kib)
        if first.faults.median >= 1:
            shares.append(ours.faults.median / first.faults.median)
    return Tally(tuple(chosen), _range(shares), _range(sizes))


def _range(values: Sequence[float]) -> Range | None:
    return (min(values), max(values)) if values else None


def counts(found: Tally) -> str:
    """Say in how many workloads an arm is faster, slower, or not shown to differ."""
    verdicts = ("faster", "slower", "no difference shown")
    told = [f"{len(each)} {verdict}" for verdict in verdicts if (each := found.of(verdict))]
    return ", ".join(told) or "not compared"


def _recorded(evidence: Evidence, arm: Arm, *moments: Moment) -> str:
    record = evidence.bench
    if isinstance(record, NotObservable):
        return str(record)
    words = [f"{MOMENTS[moment]}: {counts(tally(record, arm, moment))}" for moment in moments]
    return f"Recorded. {'; '.join(words).capitalize()}."


# Measured here ------------------------------------------------------------------------------------


def _served(evidence: Evidence, arm: Arm) -> str:
    """Compare the server that was started under ``arm`` with the one started as it is."""
    pair = [evidence.here.served[name] for name in (arms.DEFAULT.name, arm.name)]
    for report in pair:
        if isinstance(report, NotObservable):
            return str(report)
    plain, other = (report for report in pair if not isinstance(report, NotObservable))
    load, first = (
        _arrow(plain.minor_faults(stage), other.minor_faults(stage)) for stage in _STAGES
    )
    huge = f"{_coverage(plain):.0%} → {_coverage(other):.0%}"
    resident = _arrow(*(_resident_mib(report) for report in (plain, other)))
    return (
        f"Here: faults of loading {load}, of first inferences {first}; huge {huge}; "
        f"resident {resident} MiB."
    )


_STAGES: Final[tuple[Moment, ...]] = ("load", "first")


def _arrow(before: float, after: float) -> str:
    return f"{before:,.0f} → {after:,.0f}"


def _coverage(report: Report) -> float:
    return report.phases[-1].memory.coverage.share


def _resident_mib(report: Report) -> float:
    return report.phases[-1].memory.resident_kib / KIB


def _nothing(evidence: Evidence) -> Told:
    """Say that what computes gains nothing once warm, and that what reads memory does."""
    record = evidence.bench
    if isinstance(record, NotObservable):
        return Told(str(record))
    others = [cell.workload for cell in record.cells if cell.workload not in COMPUTE]
    computing, reading = (tally(record, arms.KEEP, "steady", among) for among in (COMPUTE, others))
    return Told(
        f"Recorded: {_most_faults(record):,.0f} faults an inference at the most.",
        f"Recorded, `keep`. Encoders and convolutions: {counts(computing)}; tables, and weights "
        f"read once: {counts(reading)}.",
    )


def _most_faults(record: BenchRecord) -> float:
    """Return the most faults that a warm inference takes under the default arm."""
    return max(
        each.faults.median
        for cell in record.cells
        for each in summary.effects(record, cell, "steady")
        if each.arm == cell.arms[0]
    )


def _started(arm: Arm) -> Callable[[Evidence], Told]:
    """Return the effect of starting the server under ``arm``."""

    def found(evidence: Evidence) -> Told:
        return Told(_served(evidence, arm), _recorded(evidence, arm, *_STAGES))

    return found


def _collapse(evidence: Evidence) -> Told:
    times = _recorded(evidence, arms.COLLAPSE, "steady")
    report = evidence.here.served[arms.COLLAPSE.name]
    if isinstance(report, NotObservable):
        return Told(str(report), times)
    at = next(n for n, phase in enumerate(report.phases) if phase.step.stage == "collapse")
    before, after = (report.phases[n].memory.coverage.share for n in (at - 1, at))
    return Told(f"Here: huge {before:.0%} → {after:.0%}, at once.", times)


def _largest(evidence: Evidence) -> Told:
    growing, falling = evidence.here.served[arms.DEFAULT.name], evidence.here.largest_first
    if isinstance(growing, NotObservable) or isinstance(falling, NotObservable):
        return Told(str(falling if isinstance(falling, NotObservable) else growing))
    faults = _arrow(_later(growing), _later(falling))
    return Told(f"Here: faults of first inferences, once one shape has been served, {faults}.")


def _later(report: Report) -> int:
    """Return the faults of first inferences at all shapes but the one that came first."""
    return sum(phase.step.minor_faults for phase in report.at("first")[1:])


def _own(evidence: Evidence) -> Told:
    return Told(" ".join(map(_blocks, evidence.here.blocks)))


def _blocks(blocks: Blocks) -> str:
    malloc, own = blocks.malloc, blocks.own
    if isinstance(malloc, NotObservable) or isinstance(own, NotObservable):
        return str(malloc if isinstance(malloc, NotObservable) else own)
    return (
        f"Here, {own.count} blocks of {format_kib(own.size / KIB)}: faults "
        f"{_arrow(malloc.blocks.minor_faults, own.minor_faults)}, huge {malloc.coverage:.0%} → "
        f"{own.resident.coverage:.0%}."
    )


def _pool(evidence: Evidence) -> Told:
    new, pool = evidence.here.new, evidence.here.pool
    if isinstance(new, NotObservable) or isinstance(pool, NotObservable):
        return Told(str(new if isinstance(new, NotObservable) else pool))
    faults = _arrow(_faults(new), _faults(pool))
    return Told(f"Here: faults of {len(new)} results in turn {faults}.")


def _faults(fillings: Sequence[Filling]) -> int:
    return sum(filling.minor_faults for filling in fillings)


def _cut(evidence: Evidence) -> Told:
    bound, refused = evidence.here.bound, evidence.here.refused
    if isinstance(bound, NotObservable) or isinstance(refused, NotObservable):
        return Told(str(bound if isinstance(bound, NotObservable) else refused))
    before, after = bound.footprint, refused.footprint
    vmas = _arrow(before.anon_vmas, after.anon_vmas)
    huge = f"{_huge(before):.0%} → {_huge(after):.0%}"
    return Told(f"Here, `keep` → `whole`: anonymous VMAs {vmas}, huge {huge}.")


def _huge(footprint: Footprint) -> float:
    return footprint.huge_kib / (footprint.anon_kib or 1)


# Recorded -----------------------------------------------------------------------------------------


def _against(
    workload: str, runtime: str, moment: Moment, pair: tuple[Arm, Arm]
) -> Callable[[Evidence], Told]:
    """Return how two arms of one workload compare with each other."""

    def found(evidence: Evidence) -> Told:
        record = evidence.bench
        if isinstance(record, NotObservable):
            return Told(str(record))
        cell = find_cell(record, workload, runtime)
        if isinstance(cell, NotObservable):
            return Told(str(cell))
        effects = {each.arm: each for each in summary.effects(record, cell, moment)}
        first, second = (arm.name for arm in pair)
        if first not in effects or second not in effects:
            return Told(str(NotObservable(f"{workload} did not run under both arms")))
        faults = _arrow(*(effects[name].faults.median for name in (first, second)))
        gain = summary.between(record, cell, moment, first, second)
        return Told(
            f"Recorded, `{workload}` on {runtime}, {MOMENTS[moment]}: faults {faults}.",
            f"Recorded. `{first}` → `{second}`: {_ratio(gain)}.",
        )

    return found


def _ratio(gain: Ratio | None) -> str:
    if gain is None:
        return "too few runs for an interval"
    if not gain.differs:
        return f"no difference shown ({gain.low:.2f} to {gain.high:.2f})"
    return f"{gain} times as fast"


def _hint(evidence: Evidence) -> Told:
    record = evidence.bench
    if isinstance(record, NotObservable):
        return Told(str(record))
    left = tally(record, arms.THROUGHPUT, "first").faults_left
    return Told(
        f"Recorded: {_to(left)} of the faults of first inferences are left.",
        _recorded(evidence, arms.THROUGHPUT, "first", "steady"),
    )


def _mode(arm: Arm) -> Callable[[Evidence], Told]:
    """Return the effect of a host mode on the recorded workloads."""

    def found(evidence: Evidence) -> Told:
        record = evidence.bench
        if isinstance(record, NotObservable):
            return Told(str(record))
        load, first = (tally(record, arm, moment) for moment in _STAGES)
        return Told(
            f"Recorded: {_to(load.faults_left)} of the faults of loading and "
            f"{_to(first.faults_left)} of those of first inferences are left; resident memory "
            f"then {_to(first.resident)} of what it was.",
            _recorded(evidence, arm, "load", "first", "steady"),
        )

    return found


def _to(found: Range | None) -> str:
    return "an unknown share" if found is None else f"{found[0]:.0%} to {found[1]:.0%}"


def _small(evidence: Evidence) -> Told:
    """Say what pages of 64 KiB do for blocks that are shorter than 2 MiB, and for the workloads."""
    workloads = _mode(arms.MTHP_64K)(evidence)
    promised = promises(evidence.kernels)
    if isinstance(promised, NotObservable):
        return Told(f"{promised} {workloads.counts}", workloads.times)
    short = promised[0]
    faults = _arrow(short.before.minor_faults, short.after.minor_faults)
    blocks = f"{short.count} blocks of {format_kib(short.length_kib)}: faults {faults}"
    return Told(f"Recorded, {blocks}. {workloads.counts}", workloads.times)


def _madvise(evidence: Evidence) -> Told:
    """Say what mode ``madvise`` brings to OpenVINO, as it is and advised, on a stock kernel."""
    record = evidence.kernels
    if isinstance(record, NotObservable):
        return Told(str(record))
    found: dict[tuple[str, bool], RecordedFootprint] = {
        (kernel.thp_mode, process.advised): process
        for kernel in record.kernels
        if kernel.release.startswith(STOCK) and kernel.origin.startswith("Debian")
        if not kernel.mthp
        for process in kernel.openvino
    }
    wanted = (("never", False), ("madvise", False), ("madvise", True))
    if not all(key in found for key in wanted):
        return Told(str(NotObservable("the record has no process of OpenVINO under these modes")))
    faults = [found[key].load_faults + sum(found[key].inference_faults) for key in wanted]
    return Told(
        f"Recorded, `{WORKLOAD}` on OpenVINO and Linux {STOCK.rstrip('.')}: faults {faults[0]:,} "
        f"under `never`, {faults[1]:,} under `madvise` as it is, {faults[2]:,} with `advise`."
    )


_EFFECTS: Final[dict[str, Callable[[Evidence], Told]]] = {
    "nothing": _nothing,
    "keep": _started(arms.KEEP),
    "advise": _started(arms.ADVISE),
    "collapse": _collapse,
    "arena": _against(
        "ppocr-detector", "ONNX Runtime", "steady", (arms.NO_ARENA, arms.NO_ARENA_KEEP)
    ),
    "madvise": _madvise,
    "mthp-64k": _small,
    "mthp": _mode(arms.MTHP),
    "mthp-64k-advise": _mode(arms.MTHP_64K_ADVISE),
    "always": _mode(arms.ALWAYS),
    "largest": _largest,
    "own": _own,
    "pool": _pool,
    "cut": _cut,
    "hint": _hint,
    "mmap": _against("shards-1gib", "OpenVINO", "load", (arms.IR_READ, arms.IR_MAPPED)),
}
