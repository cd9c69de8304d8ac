"""What the page "Where OpenVINO's memory lives" shows."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from hugeprobe.arms import ADVISE, DEFAULT, OFF
from hugeprobe.coverage import COULD_BE_HUGE
from hugeprobe.coverage import Backing as Why
from hugeprobe.drawing import (
    ACCENT,
    BASE,
    GAP,
    HUGE,
    MarkdownTable,
    Picture,
    Sentence,
    bars,
    markdown_table,
)
from hugeprobe.errors import NotObservable
from hugeprobe.sizes import KIB

if TYPE_CHECKING:
    from collections.abc import Sequence

    from hugeprobe.arms import Arm
    from hugeprobe.host import HostFacts
    from hugeprobe.inference import Report
    from hugeprobe.runtimes import Stage

_WHY: Final = {
    "huge": (HUGE, (Why.HUGE,)),
    "could be, but is not": (BASE, tuple(set(COULD_BE_HUGE) - {Why.HUGE})),
    "cannot be as it is mapped": (GAP, tuple(set(Why) - set(COULD_BE_HUGE))),
}


_STAGES: Final[dict[str, tuple[str, tuple[Stage, ...]]]] = {
    "loading": (ACCENT, ("load",)),
    "first inference at a shape": (BASE, ("first",)),
    "repeats, and shapes seen before": (HUGE, ("repeat", "back")),
}


_KINDS: Final = {"heap": ACCENT, "anonymous": BASE, "file": HUGE, "other": GAP}


def telling_arms(facts: HostFacts) -> tuple[Arm, ...]:
    """Return the arms that differ on this host: without huge pages, and with what it can give."""
    return {"always": (OFF, DEFAULT), "madvise": (DEFAULT, ADVISE)}.get(
        facts.thp_mode or "never", (DEFAULT,)
    )


def _observed(reports: Sequence[Report | NotObservable]) -> list[Report]:
    return [report for report in reports if not isinstance(report, NotObservable)]


def _run_name(report: Report) -> str:
    return f"{report.workload}, {report.runtime.label}, {report.arm.name}"


def unobservable(reports: Sequence[Report | NotObservable]) -> Sentence:
    """Say how many runs there were, and what could not run here and why."""
    missing = list(dict.fromkeys(str(r) for r in reports if isinstance(r, NotObservable)))
    ran = f"{len(_observed(reports))} of {len(reports)} runs took place, each in a new process."
    return Sentence(" ".join([ran, *missing]))


def kinds_picture(reports: Sequence[Report | NotObservable]) -> Picture | Sentence:
    """Draw resident memory by kind of mapping at the end of each run without settings."""
    rows = {}
    for report in _observed(reports):
        if report.arm is not _observed(reports)[0].arm:
            continue
        by_kind = report.phases[-1].memory.by_kind
        named = {kind: by_kind.get(kind, 0) / KIB for kind in ("heap", "anonymous", "file")}
        other = report.phases[-1].memory.resident_kib / KIB - sum(named.values())
        rows[f"{report.workload}, {report.runtime.label}"] = {**named, "other": other}
    if not rows:
        return unobservable(reports)
    return bars(rows, _KINDS, "MiB resident", "Resident memory by kind of mapping")


def why_picture(reports: Sequence[Report | NotObservable]) -> Picture | Sentence:
    """Draw anonymous memory at the end of each run by what backs it and why."""
    rows = {
        _run_name(report): {
            name: sum(report.phases[-1].memory.coverage.kib[why] for why in reasons) / KIB
            for name, (_, reasons) in _WHY.items()
        }
        for report in _observed(reports)
    }
    if not rows:
        return unobservable(reports)
    colours = {name: colour for name, (colour, _) in _WHY.items()}
    return bars(rows, colours, "MiB of anonymous memory", "Anonymous memory by what backs it")


def why_table(reports: Sequence[Report | NotObservable]) -> MarkdownTable | Sentence:
    """Return the MiB of anonymous memory by each single reason."""
    observed = _observed(reports)
    if not observed:
        return unobservable(reports)
    last = [report.phases[-1].memory.coverage for report in observed]
    seen = [why for why in Why if any(coverage.kib[why] for coverage in last)]
    rows = [
        [_run_name(report), *(f"{coverage.kib[why] / KIB:,.0f}" for why in seen)]
        for report, coverage in zip(observed, last, strict=True)
    ]
    columns = ["MiB at the end of", *(why.value for why in seen)]
    return markdown_table(columns, rows, numeric=range(1, len(columns)))


def stages_picture(reports: Sequence[Report | NotObservable]) -> Picture | Sentence:
    """Draw minor faults of each run by stage."""
    rows = {
        _run_name(report): {
            name: float(sum(report.minor_faults(stage) for stage in stages))
            for name, (_, stages) in _STAGES.items()
        }
        for report in _observed(reports)
    }
    if not rows:
        return unobservable(reports)
    colours = {name: colour for name, (colour, _) in _STAGES.items()}
    return bars(rows, colours, "minor faults", "Minor faults by stage of a run")


def stages_table(reports: Sequence[Report | NotObservable]) -> MarkdownTable | Sentence:
    """Return the minor faults of each run by stage, and coverage at the end."""
    rows = [
        [
            _run_name(report),
            f"{report.minor_faults('load'):,}",
            f"{report.minor_faults('first'):,}",
            f"{max(phase.step.minor_faults for phase in report.steady):,}",
            f"{report.phases[-1].memory.coverage.share:.0%}",
        ]
        for report in _observed(reports)
    ]
    if not rows:
        return unobservable(reports)
    columns = ["run", "loading", "all first inferences", "steady, at most", "coverage"]
    return markdown_table(columns, rows, numeric=(1, 2, 3, 4))


def shapes_table(reports: Sequence[Report | NotObservable]) -> MarkdownTable | Sentence:
    """Return the faults of each inference in the order in which the shapes arrived."""
    rows = [
        [
            _run_name(report),
            " x ".join(str(size) for size in phase.step.shape or ()),
            {"first": "first", "repeat": "again", "back": "back to it"}[phase.step.stage],
            f"{phase.step.minor_faults:,}",
        ]
        for report in _observed(reports)
        for phase in report.phases
        if phase.step.stage in {"first", "repeat", "back"}
    ]
    if not rows:
        return unobservable(reports)
    return markdown_table(["run", "shape", "inference", "minor faults"], rows, numeric=(3,))


def steady_sentence(reports: Sequence[Report | NotObservable]) -> Sentence:
    """Say how many faults an inference costs once every shape has been seen."""
    counts = [phase.step.minor_faults for report in _observed(reports) for phase in report.steady]
    if not counts:
        return unobservable(reports)
    return Sentence(
        f"On this host an inference at a shape seen before cost {min(counts):,} to "
        f"{max(counts):,} minor faults, in every run."
    )


def fault_cost_sentence(microseconds: float | NotObservable) -> Sentence:
    """Do the arithmetic of what ten thousand base pages cost on this host."""
    if isinstance(microseconds, NotObservable):
        return Sentence(str(microseconds))
    return Sentence(
        f"The first write to a base page took {microseconds:.2f} µs on this host (median at this "
        f"build), so 10,000 of them are {microseconds * 10:.0f} ms."
    )


def growth_sentence(reports: Sequence[Report | NotObservable]) -> Sentence:
    """Say what the last arm removed of the faults of loading and growing."""
    observed = _observed(reports)
    arms = list(dict.fromkeys(report.arm.name for report in observed))
    if len(arms) < 2:
        return Sentence("This host gives no huge pages at a fault, so there is nothing to compare.")

    def faults(arm: str) -> dict[str, int]:
        return {
            f"{report.workload}, {report.runtime.label}": report.minor_faults("load")
            + report.minor_faults("first")
            for report in observed
            if report.arm.name == arm
        }

    before, after = faults(arms[0]), faults(arms[-1])
    ratios = sorted(before[name] / max(1, after[name]) for name in before if name in after)
    return Sentence(
        f"From `{arms[0]}` to `{arms[-1]}`, the faults of loading and of first inferences fell "
        f"{ratios[0]:.1f}-fold to {ratios[-1]:.1f}-fold on this host."
    )
