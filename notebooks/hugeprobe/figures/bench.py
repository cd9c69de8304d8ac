"""What pages show of a benchmark, recorded or made by the notebook."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from hugeprobe import arms
from hugeprobe.bench import summary
from hugeprobe.drawing import (
    ACCENT,
    BASE,
    GAP,
    HUGE,
    Mark,
    MarkdownTable,
    Picture,
    Sentence,
    bars,
    intervals,
    markdown_table,
)
from hugeprobe.errors import NotObservable

if TYPE_CHECKING:
    from collections.abc import Sequence

    from hugeprobe.arms import Arm
    from hugeprobe.bench.record import BenchRecord, CellFacts
    from hugeprobe.bench.summary import Effect, Moment
    from hugeprobe.compare import Ratio

MOMENTS: Final[dict[Moment, str]] = {
    "load": "loading",
    "first": "first at a shape",
    "steady": "once warm",
}
_SERIES: Final = (HUGE, BASE, ACCENT, GAP)


def origin(record: BenchRecord | NotObservable) -> Sentence:
    """Say when, how and on what the record was made."""
    if isinstance(record, NotObservable):
        return Sentence(str(record))
    host = dict(record.host)
    versions = ", ".join(f"{name} {version}" for name, version in record.versions)
    failed = sum(run.failure is not None for run in record.runs)
    return Sentence(
        f"Recorded on {record.date} with `{record.command}`: {len(record.runs) - failed:,} runs, "
        f"each in a new process, on Linux {host.get('Kernel', 'unknown')}, "
        f"{host.get('Processor', 'processor unknown')}, {record.threads} threads, virtualisation: "
        f"{host.get('Virtualisation', 'unknown')}, THP `{host.get('THP mode', 'unknown')}`; "
        f"{versions}."
    )


def find_cell(record: BenchRecord, workload: str, runtime: str) -> CellFacts | NotObservable:
    """Return one cell of a record."""
    for cell in record.cells:
        if (cell.workload, cell.runtime) == (workload, runtime):
            return cell
    return NotObservable(f"the record has no {workload} on {runtime}")


def faults_by_shape(
    record: BenchRecord | NotObservable, workload: str, runtime: str, chosen: Sequence[Arm]
) -> Picture | Sentence:
    """Draw the median faults of the first inference at each shape, by arm."""
    if isinstance(record, NotObservable):
        return Sentence(str(record))
    cell = find_cell(record, workload, runtime)
    if isinstance(cell, NotObservable):
        return Sentence(str(cell))
    shapes = [" x ".join(map(str, shape)) for shape in dict.fromkeys(cell.shapes)]
    rows = {}
    for arm in chosen:
        faults = [result.faults for run in record.of(cell, arm.name) if (result := run.at("first"))]
        if faults:
            medians = (float(sorted(each)[len(each) // 2]) for each in zip(*faults, strict=True))
            rows[arm.name] = dict(zip(shapes, medians, strict=True))
    if not rows:
        return Sentence(str(NotObservable(f"{workload} did not run on {runtime}")))
    colours = {shape: _SERIES[index % len(_SERIES)] for index, shape in enumerate(shapes)}
    return bars(rows, colours, "minor faults", "Minor faults of the first inference at each shape")


def arms_table(
    record: BenchRecord | NotObservable, workload: str, runtime: str, moment: Moment
) -> MarkdownTable | Sentence:
    """Return what each arm came to at one moment: counts, distance to the floor, and time."""
    if isinstance(record, NotObservable):
        return Sentence(str(record))
    cell = find_cell(record, workload, runtime)
    if isinstance(cell, NotObservable):
        return Sentence(str(cell))
    rows = [
        [
            f"`{effect.arm}`",
            f"{effect.faults.median:,.0f}",
            _spread(effect),
            _over_floor(effect),
            f"{effect.coverage:.0%}",
            f"{effect.seconds.median * 1000:,.0f}",
            speedup(effect),
        ]
        for effect in summary.effects(record, cell, moment)
    ]
    columns = ["arm", "faults", "least to most", "x floor", "huge", "ms", "speed-up (95 %)"]
    return markdown_table(columns, rows, numeric=(1, 2, 3, 4, 5, 6))


def _spread(effect: Effect) -> str:
    faults = effect.faults
    return "same" if faults.least == faults.most else f"{faults.least:,.0f} to {faults.most:,.0f}"


def _over_floor(effect: Effect) -> str:
    return f"{effect.faults.median / effect.floor_faults:,.1f}" if effect.floor_faults else ""


def speedup(effect: Effect) -> str:
    """Return the ratio of times only where it may be claimed; else say that none was shown."""
    if effect.speedup is None:
        return ""
    if not effect.speedup.differs:
        return f"none shown ({effect.speedup.low:.2f} to {effect.speedup.high:.2f})"
    return str(effect.speedup)


def _mark(ratio: Ratio) -> Mark:
    return Mark(ratio.value, ratio.low, ratio.high)


def where_it_pays(record: BenchRecord | NotObservable, chosen: Sequence[Arm]) -> Picture | Sentence:
    """Draw the speed-up of some arms for every workload at every moment, with intervals."""
    if isinstance(record, NotObservable):
        return Sentence(str(record))
    names = [arm.name for arm in chosen]
    panels: dict[str, dict[str, dict[str, Mark]]] = {}
    for moment, title in MOMENTS.items():
        panels[title] = {
            f"{cell.workload}\n{cell.runtime}": {
                effect.arm: _mark(effect.speedup)
                for effect in summary.effects(record, cell, moment)
                if effect.arm in names and effect.speedup is not None
            }
            for cell in record.cells
        }
    if not any(marks for panel in panels.values() for marks in panel.values()):
        return Sentence(str(NotObservable("no arm ran often enough for an interval")))
    colours = dict(zip(names, _SERIES, strict=False))
    label = "times as fast as default; hollow: no difference shown"
    return intervals(panels, colours, label, "Speed-up by workload and moment")


def tally(record: BenchRecord | NotObservable, arm: Arm, moment: Moment) -> Sentence:
    """Say for how many workloads an arm is faster, slower, or not shown to differ."""
    if isinstance(record, NotObservable):
        return Sentence(str(record))
    found = [
        effect
        for cell in record.cells
        for effect in summary.effects(record, cell, moment)
        if effect.arm == arm.name and effect.speedup is not None
    ]
    verdicts = [effect.verdict for effect in found]
    return Sentence(
        f"Under `{arm.name}`, {MOMENTS[moment]}: faster in {verdicts.count('faster')}, slower in "
        f"{verdicts.count('slower')}, no difference shown in "
        f"{verdicts.count('no difference shown')} of {len(verdicts)}."
    )


def chance(record: BenchRecord | NotObservable) -> Sentence:
    """Say how often two equal arms seemed to differ."""
    if isinstance(record, NotObservable):
        return Sentence(str(record))
    found = summary.chance(record)
    return Sentence(
        f"The default arm ran a second time under the name `{arms.AGAIN.name}`: in "
        f"{found.differing} of {found.comparisons} comparisons of these equal arms the interval "
        "excludes 1. Expect as many such accidents among the others."
    )


def not_run(record: BenchRecord | NotObservable) -> MarkdownTable | Sentence:
    """Return the runs that could not be made or did not finish, with the reason."""
    if isinstance(record, NotObservable):
        return Sentence(str(record))
    failed = summary.failures(record)
    if not failed:
        return Sentence("Every run that was planned took place and finished.")
    rows = [(f"{run.workload}, {run.runtime}", f"`{run.arm}`", run.failure) for run in failed]
    return markdown_table(["workload", "arm", "because"], rows)
