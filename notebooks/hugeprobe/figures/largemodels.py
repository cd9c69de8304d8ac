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

_PARTS: Final = {"file, mapped": ACCENT, "anonymous, huge": HUGE, "anonymous, base pages": BASE}
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


def _held(memory: Memory, start: Memory) -> dict[str, float]:
    """Return MiB that came after the start, as the parts of a bar."""
    huge = memory.coverage.kib[Backing.HUGE] - start.coverage.kib[Backing.HUGE]
    anonymous = memory.coverage.anonymous_kib - start.coverage.anonymous_kib
    files = memory.by_kind.get("file", 0) - start.by_kind.get("file", 0)
    values = (files, huge, anonymous - huge)
    return {part: max(0, kib) / KIB for part, kib in zip(_PARTS, values, strict=True)}


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
        held = [phase.memory.resident_kib / KIB for phase in (*each.at("first"), *each.at("again"))]
        rows.append([_name(each), *faults, " · ".join(f"{mib:,.0f}" for mib in held)])
    columns = ["run", "loading again", "inference after it", "MiB resident, each time"]
    return markdown_table(columns, rows, numeric=(1, 2, 3))


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
