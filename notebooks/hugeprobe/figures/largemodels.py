"""What the page "Large models" shows."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from hugeprobe.coverage import Backing
from hugeprobe.drawing import (
    ACCENT,
    BASE,
    HUGE,
    MarkdownTable,
    Picture,
    Sentence,
    bars,
    markdown_table,
)
from hugeprobe.errors import NotObservable
from hugeprobe.inference import Report
from hugeprobe.sizes import KIB

if TYPE_CHECKING:
    from collections.abc import Sequence

    from hugeprobe.inference import Memory
    from hugeprobe.locking import BroughtIn
    from hugeprobe.runtimes import Stage
    from hugeprobe.sharing.takein import TakenIn
    from hugeprobe.sharing.weights import Fleet

_PARTS: Final = {"file, mapped": ACCENT, "anonymous, huge": HUGE, "anonymous, base pages": BASE}
_FAULTS: Final = {"minor faults": BASE, "major faults": ACCENT}
_MOMENTS: Final[dict[str, Stage]] = {"loaded": "load", "after one inference": "first"}


def observed(reports: Sequence[Report | NotObservable]) -> list[Report]:
    """Return the runs that took place."""
    return [report for report in reports if isinstance(report, Report)]


def not_observed(reports: Sequence[Report | NotObservable]) -> Sentence:
    """Say how many runs took place, and why the others did not."""
    ran = f"{len(observed(reports))} of {len(reports)} runs took place, each in a new process."
    reasons = dict.fromkeys(str(each) for each in reports if isinstance(each, NotObservable))
    return Sentence(" ".join([ran, *reasons]))


def _name(report: Report) -> str:
    return f"{report.runtime.label}, {report.arm.name}"


def _parts(memory: Memory) -> dict[str, float]:
    """Return MiB as the parts of a bar."""
    huge, anonymous = memory.coverage.kib[Backing.HUGE], memory.coverage.anonymous_kib
    values = (memory.by_kind.get("file", 0), huge, anonymous - huge)
    return {part: kib / KIB for part, kib in zip(_PARTS, values, strict=True)}


def _held(memory: Memory, start: Memory) -> dict[str, float]:
    """Return MiB that came after the start, as the parts of a bar."""
    before = _parts(start)
    return {part: max(0.0, mib - before[part]) for part, mib in _parts(memory).items()}


def where_picture(reports: Sequence[Report | NotObservable]) -> Picture | Sentence:
    """Draw what a process holds more than before it loaded the model: loaded, and run once."""
    if not (found := observed(reports)):
        return not_observed(reports)
    rows = {
        f"{_name(report)}, {words}": _held(
            report.at(stage)[-1].memory, report.at("start")[-1].memory
        )
        for report in found
        for words, stage in _MOMENTS.items()
    }
    return bars(rows, _PARTS, "MiB more than before loading", "Where the weights are")


def faults_table(reports: Sequence[Report | NotObservable]) -> MarkdownTable | Sentence:
    """Return the minor faults of each step of each run."""
    if not (found := observed(reports)):
        return not_observed(reports)
    steps: dict[str, Stage] = {"load": "load", "first": "first", "repeated": "repeat"}
    rows = [
        [_name(each), *(f"{each.at(stage)[-1].step.minor_faults:,}" for stage in steps.values())]
        for each in found
    ]
    return markdown_table(["run", *steps], rows, numeric=range(1, 4))


def reload_table(reports: Sequence[Report | NotObservable]) -> MarkdownTable | Sentence:
    """Return what dropping the model and loading it again costs, each time."""
    if not (found := observed(reports)):
        return not_observed(reports)
    rows = []
    for each in found:
        faults = [
            " · ".join(f"{phase.step.minor_faults:,}" for phase in each.at(stage))
            for stage in ("reload", "again")
        ]
        held = [
            " · ".join(f"{phase.memory.resident_kib / KIB:,.0f}" for phase in each.at(stage))
            for stage in ("first", "release", "drop", "again")
        ]
        rows.append([_name(each), *faults, *held])
    columns = [
        "run",
        "faults, loading again",
        "inference after it",
        "MiB, run once",
        "asked to release",
        "dropped",
        "loaded and run again",
    ]
    return markdown_table(columns, rows, numeric=range(1, 7))


def copies_sentence(reports: Sequence[Report | NotObservable], size_kib: int) -> Sentence:
    """Say how many times over the weights are in memory after the first inference."""
    parts = []
    for each in observed(reports):
        held = _held(each.at("first")[-1].memory, each.at("start")[-1].memory)
        parts.append(f"{sum(held.values()) * KIB / size_kib:.1f} times with {_name(each)}")
    if not parts:
        return not_observed(reports)
    return Sentence(
        f"Of {size_kib // KIB} MiB of weights, the process holds after its first inference: "
        f"{', '.join(parts)}."
    )


def locking_table(found: Sequence[BroughtIn | NotObservable]) -> MarkdownTable | Sentence:
    """Return what each order of calls came to."""
    rows = [
        [
            each.way.name,
            f"{each.faults:,}",
            f"{each.later:,}",
            f"{each.resident.coverage:.0%}",
            f"{each.locked_kib / KIB:.0f}",
        ]
        for each in found
        if not isinstance(each, NotObservable)
    ]
    if not rows:
        return Sentence(" ".join(dict.fromkeys(map(str, found))))
    columns = ["the program", "faults of the calls", "of writing later", "huge", "MiB locked"]
    return markdown_table(columns, rows, numeric=range(1, 5))


def locking_refused(found: Sequence[BroughtIn | NotObservable]) -> Sentence:
    """Say which order of calls this host refused, and why."""
    reasons = dict.fromkeys(str(each) for each in found if isinstance(each, NotObservable))
    return Sentence(" ".join(reasons) or "Nothing of it was refused on this host.")


def cached_table(reports: Sequence[Report | NotObservable]) -> MarkdownTable | Sentence:
    """Return what comes of loading a model that was compiled before."""
    if not (found := observed(reports)):
        return not_observed(reports)
    rows = []
    for each in found:
        start, loaded, first = (each.at(stage)[-1] for stage in ("start", "load", "first"))
        held = _held(loaded.memory, start.memory)
        rows.append(
            [
                each.runtime.label,
                f"{held['file, mapped']:,.0f}",
                f"{loaded.memory.weights_kib / KIB:,.0f}",
                f"{loaded.step.minor_faults:,}",
                f"{first.step.minor_faults:,}",
            ]
        )
    columns = ["model", "MiB of files", "`.bin` of it", "faults, loading", "first inference"]
    return markdown_table(columns, rows, numeric=range(1, 5))


def _taken(found: Sequence[TakenIn | NotObservable]) -> list[TakenIn]:
    return [each for each in found if not isinstance(each, NotObservable)]


def _refusals(found: Sequence[object]) -> str:
    return " ".join(dict.fromkeys(str(each) for each in found if isinstance(each, NotObservable)))


def taken_picture(found: Sequence[TakenIn | NotObservable]) -> Picture | Sentence:
    """Draw the faults of having a file, by what was done before and how it is taken in."""
    rows = {
        f"{each.beforehand.name}: {each.way.name}": {
            "minor faults": float(each.minor_faults),
            "major faults": float(each.major_faults),
        }
        for each in _taken(found)
    }
    if not rows:
        return taken_sentence(found)
    return bars(rows, _FAULTS, "faults", "Faults to have a mapped file in memory")


def taken_table(found: Sequence[TakenIn | NotObservable]) -> MarkdownTable | Sentence:
    """Return the same in figures, and on which pages the file is mapped."""
    rows = [
        [
            each.beforehand.name,
            each.way.name,
            f"{each.in_memory_before / each.length:.0%}",
            f"{each.minor_faults:,}",
            f"{each.major_faults:,}",
            f"{each.later:,}",
            f"{each.pmd_kib * KIB / each.length:.0%}",
            f"{each.locked_kib * KIB / each.length:.0%}",
        ]
        for each in _taken(found)
    ]
    if not rows:
        return taken_sentence(found)
    columns = [
        "the file",
        "the program",
        "in memory before",
        "minor faults",
        "major faults",
        "of reading later",
        "huge",
        "locked",
    ]
    return markdown_table(columns, rows, numeric=range(2, 8))


def taken_sentence(found: Sequence[TakenIn | NotObservable]) -> Sentence:
    """Say how many combinations this host gave, and why not the others."""
    gave = f"This host gave {len(_taken(found))} of {len(found)}."
    return Sentence(f"{gave} {_refusals(found)}".strip())


def second_table(found: Sequence[Fleet | NotObservable]) -> MarkdownTable | Sentence:
    """Return what a second server of the model costs, by how the weights file was found."""
    rows = [
        [
            each.supply.name,
            *(f"{faults:,}" for faults in each.load_faults[:2]),
            f"{each.stages[-1][-1].weights_huge_kib / each.weights_kib:.0%}",
            f"{each.stages[-1][-1].anonymous_kib / KIB:,.0f}",
        ]
        for each in found
        if not isinstance(each, NotObservable)
    ]
    if not rows:
        return Sentence(_refusals(found))
    columns = [
        "weights",
        "faults, loading: first server",
        "second server",
        "file it maps huge",
        "MiB of its own",
    ]
    return markdown_table(columns, rows, numeric=range(1, 5))


_UNTIL_WARM: Final[tuple[Stage, ...]] = ("start", "load", "first", "lock")


def _warm(report: Report) -> Memory:
    """Return what the process holds once it is warm, and locked if it is to be."""
    return [phase for stage in _UNTIL_WARM for phase in report.at(stage)][-1].memory


def locked_picture(reports: Sequence[Report | NotObservable]) -> Picture | Sentence:
    """Draw all memory of a process that serves a model, by when it locks it."""
    if not (found := observed(reports)):
        return not_observed(reports)
    rows = {each.arm.name: _parts(_warm(each)) for each in found}
    return bars(rows, _PARTS, "MiB in memory", "What locking brings in")


def locked_table(reports: Sequence[Report | NotObservable]) -> MarkdownTable | Sentence:
    """Return faults and memory of a process that serves a model, by when it locks it."""
    if not (found := observed(reports)):
        return not_observed(reports)
    rows = []
    for each in found:
        memory = _warm(each)
        faults = sum(each.minor_faults(stage) for stage in _UNTIL_WARM)
        parts = _parts(memory)
        rows.append(
            [
                each.arm.name,
                f"{faults:,}",
                f"{sum(parts.values()):,.0f}",
                f"{parts['anonymous, huge']:,.0f}",
                f"{memory.locked_kib / KIB:,.0f}",
            ]
        )
    columns = ["process", "faults", "MiB in memory", "huge", "locked"]
    return markdown_table(columns, rows, numeric=range(1, 5))


def locked_sentence(reports: Sequence[Report | NotObservable]) -> Sentence:
    """Compare the memory of each locked process with the one that differs in nothing else."""
    found = observed(reports)
    parts = [
        f"{_total(each) / _total(free):.1f} times ({each.arm.name})"
        for free in found
        for each in found
        if free.arm.lock == "never" != each.arm.lock and free.arm.env == each.arm.env
    ]
    words = "Compared with the same process that locks nothing, a locked one holds in memory: "
    said = [f"{words}{', '.join(parts)}."] if parts else []
    return Sentence(" ".join([*said, _refusals(reports)]).strip())


def _total(report: Report) -> float:
    return sum(_parts(_warm(report)).values())
