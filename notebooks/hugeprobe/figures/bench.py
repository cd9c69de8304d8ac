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
    from hugeprobe.workloads import Shape

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


def shape_name(shape: Shape) -> str:
    """Return a shape as a table shows it.

    >>> shape_name((8, 512))
    '8 x 512'
    """
    return " x ".join(map(str, shape))


def faults_by_shape(
    record: BenchRecord | NotObservable, workload: str, runtime: str, chosen: Sequence[Arm]
) -> Picture | Sentence:
    """Draw the median faults of the first inference at each shape, by arm."""
    if isinstance(record, NotObservable):
        return Sentence(str(record))
    cell = find_cell(record, workload, runtime)
    if isinstance(cell, NotObservable):
        return Sentence(str(cell))
    shapes = [shape_name(shape) for shape in dict.fromkeys(cell.shapes)]
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


def _effects(record: BenchRecord, workload: str, runtime: str, moment: Moment) -> dict[str, Effect]:
    """Return the effects of one cell by the name of the arm; nothing where it is not there."""
    cell = find_cell(record, workload, runtime)
    if isinstance(cell, NotObservable):
        return {}
    return {effect.arm: effect for effect in summary.effects(record, cell, moment)}


def fall(record: BenchRecord | NotObservable, workload: str, runtime: str, arm: Arm) -> Sentence:
    """Say how many faults of first inferences an arm leaves, of those of the default arm."""
    if isinstance(record, NotObservable):
        return Sentence(str(record))
    found = _effects(record, workload, runtime, "first")
    before, after = found.get(arms.DEFAULT.name), found.get(arm.name)
    if before is None or after is None:
        return Sentence(str(NotObservable(f"{workload} did not run on {runtime} under both arms")))
    floor = "" if after.floor_faults is None else f", the floor is {after.floor_faults:,}"
    return Sentence(
        f"First inferences took {before.faults.median:,.0f} faults under `{before.arm}` and "
        f"{after.faults.median:,.0f} under `{after.arm}` on this host{floor}."
    )


def warm_faults(*made: BenchRecord | NotObservable) -> Sentence:
    """Say how many faults a warm inference takes, over all workloads that keep their memory."""
    kept = (arms.DEFAULT.name, arms.OFF.name, arms.ADVISE.name, arms.KEEP.name)
    counts = [
        effect.faults.median
        for record in made
        if not isinstance(record, NotObservable)
        for effect in summary.everything(record)
        if effect.moment == "steady" and effect.arm in kept
    ]
    if not counts:
        return Sentence(str(NotObservable("nothing ran until it was warm")))
    return Sentence(
        f"Once warm, an inference took {min(counts):,.0f} to {max(counts):,.0f} faults (medians of "
        f"{len(counts)} arms and workloads, live and recorded): next to nothing is left to save."
    )


def backing(record: BenchRecord | NotObservable) -> MarkdownTable | Sentence:
    """Return first inferences with memory as it comes and with memory that the host has ready."""
    if isinstance(record, NotObservable):
        return Sentence(str(record))
    pairs = (
        (arms.DEFAULT, arms.BACKED),
        (arms.ADVISE, arms.ADVISE_BACKED),
        (arms.KEEP, arms.KEEP_BACKED),
    )
    rows = []
    for cell in record.cells:
        found = _effects(record, cell.workload, cell.runtime, "first")
        if arms.BACKED.name in found:
            for plain, backed in pairs:
                rows.append(
                    [
                        f"{cell.workload}, {cell.runtime}",
                        f"`{plain.name}`",
                        *(
                            f"{found[arm.name].seconds.median * 1000:,.0f}"
                            if arm.name in found
                            else ""
                            for arm in (plain, backed)
                        ),
                        speedup(found[backed.name]) if backed.name in found else "",
                    ]
                )
    if not rows:
        return Sentence(str(NotObservable("the record does not compare backed memory")))
    columns = ["workload", "arm", "ms as it comes", "ms backed", "backed, against default"]
    return markdown_table(columns, rows, numeric=(2, 3, 4))


def standing(record: BenchRecord | NotObservable) -> MarkdownTable | Sentence:
    """Return, for each workload and moment, the comparisons whose interval excludes 1.

    Floors and equal arms are left out: the first cannot be had, the second is chance.
    """
    if isinstance(record, NotObservable):
        return Sentence(str(record))
    left_out = (arms.TOUCHED.name, arms.AGAIN.name)
    rows = []
    for cell in record.cells:
        for moment, words in MOMENTS.items():
            found = [
                (effect.speedup, effect.arm)
                for effect in summary.effects(record, cell, moment)
                if effect.speedup is not None
                and effect.speedup.differs
                and effect.arm not in left_out
            ]
            faster = sorted((each for each in found if each[0].value > 1), key=_value, reverse=True)
            slower = sorted((each for each in found if each[0].value < 1), key=_value)
            if found:
                named = f"{cell.workload}, {cell.runtime}"
                rows.append([named, words, _extreme(faster), _extreme(slower)])
    if not rows:
        return Sentence("No comparison of the record has an interval that excludes 1.")
    return markdown_table(["workload", "moment", "faster than default", "slower"], rows)


def _value(each: tuple[Ratio, str]) -> float:
    return each[0].value


def _extreme(found: Sequence[tuple[Ratio, str]]) -> str:
    """Name the arm that differs most, with its interval, and the others."""
    if not found:
        return ""
    (ratio, arm), *others = found
    rest = ", ".join(f"`{name}`" for _, name in others)
    return f"`{arm}` {ratio}" + (f"; also {rest}" if rest else "")


def against(
    record: BenchRecord | NotObservable, where: tuple[str, str, Moment], pair: tuple[Arm, Arm]
) -> Sentence:
    """Compare two arms with each other, neither of which is the default.

    Parameters
    ----------
    record
        Of whatever origin.
    where
        Workload, label of the runtime, and moment.
    pair
        The second one's time is compared to the first one's.
    """
    if isinstance(record, NotObservable):
        return Sentence(str(record))
    workload, runtime, moment = where
    first, second = (arm.name for arm in pair)
    found = _effects(record, workload, runtime, moment)
    cell = find_cell(record, workload, runtime)
    if isinstance(cell, NotObservable) or first not in found or second not in found:
        return Sentence(str(NotObservable(f"{workload} did not run on {runtime} under both arms")))
    counts = (
        f"{MOMENTS[moment].capitalize()}, an inference took {found[first].faults.median:,.0f} "
        f"faults under `{first}` and {found[second].faults.median:,.0f} under `{second}`"
    )
    gain = summary.between(record, cell, moment, first, second)
    if gain is None or not gain.differs:
        return Sentence(f"{counts}; no difference of times was shown.")
    return Sentence(f"{counts}, and the second was {gain} times as fast.")


def host_modes(record: BenchRecord | NotObservable) -> MarkdownTable | Sentence:
    """Return first inferences and warm ones under settings of the whole host."""
    if isinstance(record, NotObservable):
        return Sentence(str(record))
    names = {arm.name for arm in record.arms if arm.mode is not None}
    rows = []
    for cell in record.cells:
        first = _effects(record, cell.workload, cell.runtime, "first")
        warm = _effects(record, cell.workload, cell.runtime, "steady")
        if names & set(first):
            shown = [arms.DEFAULT.name, *(name for name in first if name in names)]
            for name in shown:
                rows.append(
                    [
                        f"{cell.workload}, {cell.runtime}",
                        f"`{name}`",
                        f"{first[name].faults.median:,.0f}",
                        f"{first[name].seconds.median * 1000:,.0f}",
                        speedup(first[name]),
                        speedup(warm[name]) if name in warm else "",
                    ]
                )
    if not rows:
        return Sentence(str(NotObservable("the record was made without host modes")))
    columns = ["workload", "arm", "faults, first", "ms, first", "speed-up, first", "once warm"]
    return markdown_table(columns, rows, numeric=(2, 3, 4, 5))


def arms_described(record: BenchRecord | NotObservable) -> MarkdownTable | Sentence:
    """Return what each arm of the record was."""
    if isinstance(record, NotObservable):
        return Sentence(str(record))
    rows = [
        [
            f"`{arm.name}`",
            arm.description,
            ", ".join(f"`{name}={value}`" for name, value in arm.env) or "",
        ]
        for arm in record.arms
    ]
    return markdown_table(["arm", "what it changes", "environment"], rows)


def cells_described(record: BenchRecord | NotObservable) -> MarkdownTable | Sentence:
    """Return the workloads of the record: what they are, where weights come from, their shapes."""
    if isinstance(record, NotObservable):
        return Sentence(str(record))
    by_workload = {cell.workload: cell for cell in record.cells}
    rows = [
        [
            f"`{cell.workload}`",
            cell.description,
            cell.source,
            ", ".join(shape_name(shape) for shape in cell.shapes),
        ]
        for cell in by_workload.values()
    ]
    return markdown_table(["workload", "what it is", "weights", "shapes"], rows)
