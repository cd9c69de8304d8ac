"""``hugeprobe bench``."""

from __future__ import annotations

import signal
import tempfile
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn

from hugeprobe import records
from hugeprobe.bench import plan as plans
from hugeprobe.bench import summary
from hugeprobe.bench.record import COMMAND
from hugeprobe.bench.session import Session
from hugeprobe.cli.output import AsJson, app, print_json, table
from hugeprobe.errors import BadRequestError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from hugeprobe.bench.plan import Plan
    from hugeprobe.bench.record import BenchRecord, Run


_MOMENTS: Final = {
    "load": "loading",
    "first": "first inference at each shape",
    "steady": "once warm, every shape",
}


@app.command("bench")
def bench(  # noqa: PLR0917 - Typer reads the options from the parameters
    workload: Annotated[
        list[str] | None,
        typer.Option(help="Name of a workload, or a model file; may be given several times."),
    ] = None,
    arm: Annotated[
        list[str] | None,
        typer.Option(help="Name of an arm to compare with default; may be given several times."),
    ] = None,
    full: Annotated[
        bool, typer.Option("--full/--quick", help="All workloads and arms, or those of minutes.")
    ] = False,
    host_modes: Annotated[
        bool,
        typer.Option(
            help="As root: also set the THP mode and multi-size THP of the whole host for some "
            "runs, and put them back after each."
        ),
    ] = False,
    rounds: Annotated[int | None, typer.Option(help="Runs of each arm.")] = None,
    seed: Annotated[int, typer.Option(help="Of the order of arms and of the inputs.")] = 0,
    output: Annotated[
        Path | None,
        typer.Option(help="Record to write. If interrupted, the same command goes on from it."),
    ] = None,
    cache: Annotated[
        Path | None, typer.Option(help="Folder for models that are built; else a temporary one.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Measure what huge pages change for inference, arm by arm, each run in a new process.

    Arms alternate in random order; times are medians with 95 % intervals of the ratio to the arm
    default, and counts of faults and memory are exact. Only --host-modes changes anything outside
    of the processes that it starts.
    """
    plan = plans.full(seed, host_modes=host_modes) if full or host_modes else plans.quick(seed)
    plan = plans.chosen(plan, workload or (), arm or (), rounds)
    if plan.needs_root and not host_modes:
        raise BadRequestError(
            "An arm was asked for that sets the THP mode of the whole host. That takes root and "
            "--host-modes; every setting is put back after each run."
        )
    journal = output and output.with_name(output.name + ".runs")
    record = _measured(plan, cache, journal)
    if output is not None and journal is not None:
        records.write(output, record)
        journal.unlink(missing_ok=True)
    if as_json:
        print_json(record)
        return
    print_summary(record)


def _measured(plan: Plan, cache: Path | None, journal: Path | None) -> BenchRecord:
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    total = sum(1 for _ in plan.tasks())
    try:
        with (
            tempfile.TemporaryDirectory(prefix="hugeprobe-") as temporary,
            Progress(*columns, console=console) as progress,
            _terminable(),
        ):
            watcher = _Bar(progress, progress.add_task("prepare", total=total))
            return Session(plan, cache or Path(temporary), journal, _command(plan)).run(watcher)
    except KeyboardInterrupt:
        kept = f"What was measured is in {journal}; the same command goes on from there."
        console.print(f"Interrupted. {kept if journal else 'Nothing was kept.'}", markup=False)
        raise typer.Exit(130) from None


def _command(plan: Plan) -> str:
    """Return what a record says it was made by."""
    if plan.needs_root:
        return f"{COMMAND} -- --host-modes"
    return COMMAND


@contextmanager
def _terminable() -> Iterator[None]:
    """Let SIGTERM, which nox and service managers send, end things as Ctrl-C does."""
    earlier = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, earlier)


@dataclass(frozen=True, slots=True)
class _Bar:
    """Shows the progress on a terminal, and each run elsewhere."""

    progress: Progress
    task: TaskID

    def begins(self, doing: str, left: float | None) -> None:
        minutes = "" if left is None else f", about {left / 60:.0f} min left"
        self.progress.update(self.task, description=f"{doing}{minutes}")

    def ends(self, run: Run) -> None:
        self.progress.advance(self.task)
        if run.failure:
            name = f"{run.workload}, {run.runtime}, {run.arm}"
            self.progress.console.print(f"{name}: {run.failure}", markup=False)


def print_summary(record: BenchRecord) -> None:
    """Print a table for each cell and moment, and what could not be run."""
    for cell in record.cells:
        for moment in summary.MOMENTS:
            if found := list(summary.effects(record, cell, moment)):
                table(
                    f"{cell.workload} on {cell.runtime}, {_MOMENTS[moment]}; {_floor(found[0])}",
                    ("arm", "runs", "faults", "huge", "time", "speed-up (95 %)", ""),
                    map(_row, found),
                )
    if failed := summary.failures(record):
        table(
            "What could not be run",
            ("workload", "runtime", "arm", "because"),
            ((run.workload, run.runtime, run.arm, run.failure) for run in failed),
        )


def _row(effect: summary.Effect) -> tuple[object, ...]:
    return (
        effect.arm,
        effect.runs,
        f"{effect.faults.median:,.0f}",
        f"{effect.coverage:.0%}",
        f"{effect.seconds.median * 1000:,.0f} ms",
        effect.speedup or "",
        effect.verdict,
    )


def _floor(effect: summary.Effect) -> str:
    faults, seconds = effect.floor_faults, effect.floor_seconds
    parts = [
        "" if faults is None else f"{faults:,} faults",
        "" if seconds is None else f"{seconds * 1000:,.0f} ms",
    ]
    return f"floor {', '.join(filter(None, parts)) or 'not measured'}"
