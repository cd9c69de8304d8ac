"""What a benchmark keeps of every run, and the file that it is recorded in."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from hugeprobe import records
from hugeprobe.coverage import Backing
from hugeprobe.errors import NotObservable, ProbeError
from hugeprobe.runtimes import Stage  # noqa: TC001 - pydantic reads the types
from hugeprobe.workloads import Shape  # noqa: TC001

if TYPE_CHECKING:
    from hugeprobe.bench.plan import Task
    from hugeprobe.inference import Phase, Report

RECORDS: Final = Path(__file__).parents[2] / "records"
COMMAND: Final = "nox -s bench"
SCHEMA: Final = 1
_DIGITS: Final = 5
_KEPT: Final[tuple[Stage, ...]] = ("load", "first", "repeat", "collapse", "steady")


@records.EXACTLY
@dataclass(frozen=True, slots=True)
class StageResult:
    """One stage of one run.

    Parameters
    ----------
    stage
        See :data:`hugeprobe.runtimes.Stage`.
    steps
        Steps that it had: of ``load`` one, of the others inferences.
    faults, seconds
        Minor faults and wall-clock time of all steps at each shape, in the order in which the
        shapes came; one figure where the stage has no shapes.
    anon_kib, huge_kib, resident_kib
        Anonymous memory, the part of it that is PMD-mapped, and all resident memory, after the last
        step.
    vmas
        Number of mappings then.
    """

    stage: Stage
    steps: int
    faults: tuple[int, ...]
    seconds: tuple[float, ...]
    anon_kib: int
    huge_kib: int
    resident_kib: int
    vmas: int

    @staticmethod
    def of(stage: Stage, phases: tuple[Phase, ...]) -> StageResult:
        """Sum up the phases of one stage."""
        memory = phases[-1].memory
        faults: defaultdict[Shape | None, int] = defaultdict(int)
        seconds: defaultdict[Shape | None, float] = defaultdict(float)
        for phase in phases:
            faults[phase.step.shape] += phase.step.minor_faults
            seconds[phase.step.shape] += phase.step.seconds
        return StageResult(
            stage,
            len(phases),
            tuple(faults.values()),
            tuple(round(value, _DIGITS) for value in seconds.values()),
            memory.coverage.anonymous_kib,
            memory.coverage.kib[Backing.HUGE],
            memory.resident_kib,
            memory.vmas,
        )


@records.EXACTLY
@dataclass(frozen=True, slots=True)
class Run:
    """One run of one arm.

    Parameters
    ----------
    workload, runtime, arm, round
        Which run it is; ``runtime`` is the label of the cell's runtime.
    stages
        What it did; empty where it did not finish.
    failure
        Why it did not, as a sentence; else None.
    """

    workload: str
    runtime: str
    arm: str
    round: int
    stages: tuple[StageResult, ...] = ()
    failure: str | None = None

    @staticmethod
    def of(task: Task, outcome: Report | NotObservable | ProbeError | str) -> Run:
        """Keep what is needed of a run's outcome, whatever it was."""
        if isinstance(outcome, NotObservable | ProbeError | str):
            return Run(*task.key, failure=str(outcome))
        results = (
            StageResult.of(stage, phases) for stage in _KEPT if (phases := outcome.at(stage))
        )
        return Run(*task.key, stages=tuple(results))

    @property
    def key(self) -> tuple[str, str, str, int]:
        """What tells it from every other run of the plan."""
        return self.workload, self.runtime, self.arm, self.round

    def at(self, stage: Stage) -> StageResult | None:
        """Return one stage, or None where the run does not have it."""
        return next((each for each in self.stages if each.stage == stage), None)


@records.EXACTLY
@dataclass(frozen=True, slots=True)
class CellFacts:
    """What was run in one cell, so that the record explains itself.

    Parameters
    ----------
    workload, runtime
        Names, as in :class:`Run`.
    description, source
        Of the workload.
    arms
        Names of the arms; the first is what the others are compared to.
    shapes
        Input shapes, in the order they arrived.
    rounds, steady
        Runs of each arm, and rounds over all shapes at the end of each run.
    spare_kib
        What an arm touched that had memory touched, or backed by the host, beforehand.
    """

    workload: str
    runtime: str
    description: str
    source: str
    arms: tuple[str, ...]
    shapes: tuple[Shape, ...]
    rounds: int
    steady: int
    spare_kib: int


@records.EXACTLY
@dataclass(frozen=True, slots=True)
class ArmFacts:
    """What an arm was.

    Parameters
    ----------
    name, description
        As in :class:`hugeprobe.arms.Arm`.
    mode
        Host mode that it needed, else None.
    env
        Environment variables that it added, as pairs of name and value.
    """

    name: str
    description: str
    mode: str | None
    env: tuple[tuple[str, str], ...]


@records.EXACTLY
@dataclass(frozen=True, slots=True)
class BenchRecord:
    """One benchmark.

    Parameters
    ----------
    schema
        Version of this form.
    date
        Day of the first run, in UTC.
    command
        What makes it anew.
    host
        Facts of the host, as pairs of name and value (:func:`hugeprobe.host.described`).
    versions
        Versions of the packages, as pairs of name and version.
    seed
        Of the order of arms and of the inputs.
    threads
        Threads that computed.
    cells, arms
        What was run.
    runs
        Every run, in the order in which it was made.
    """

    schema: int
    date: str
    command: str
    host: tuple[tuple[str, str], ...]
    versions: tuple[tuple[str, str], ...]
    seed: int
    threads: int
    cells: tuple[CellFacts, ...]
    arms: tuple[ArmFacts, ...]
    runs: tuple[Run, ...]

    def of(self, cell: CellFacts, arm: str) -> tuple[Run, ...]:
        """Return the runs of one arm in one cell that finished."""
        return tuple(
            run
            for run in self.runs
            if (run.workload, run.runtime, run.arm) == (cell.workload, cell.runtime, arm)
            and run.failure is None
        )


def read(path: Path) -> BenchRecord | NotObservable:
    """Return one record; raises as :func:`hugeprobe.records.read` does."""
    return records.read(path, BenchRecord)


def newest(folder: Path | None = None) -> BenchRecord | NotObservable:
    """Return the newest benchmark that is recorded, by the date in its name.

    Parameters
    ----------
    folder
        Where to look; by default among the records of this package.
    """
    paths = sorted((folder or RECORDS).glob("bench-*.json"))
    if not paths:
        return NotObservable(f"no benchmark has been recorded yet; `{COMMAND}` makes one")
    return read(paths[-1])
