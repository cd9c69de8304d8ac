"""Run a plan: every finished run is kept at once, so an interruption loses one run at most."""

from __future__ import annotations

import dataclasses
import json
import tempfile
import time
from contextlib import nullcontext, suppress
from dataclasses import dataclass
from datetime import datetime, timezone
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Protocol, TypeAlias

from pydantic import TypeAdapter, ValidationError

from hugeprobe import hostmodes, inference
from hugeprobe.bench import record
from hugeprobe.bench.record import ArmFacts, BenchRecord, CellFacts, Run
from hugeprobe.errors import NotObservable, ProbeError
from hugeprobe.host import described, host_facts, usable_memory_kib
from hugeprobe.inference import Report
from hugeprobe.workloads.files import digest

if TYPE_CHECKING:
    from collections.abc import Iterator

    from hugeprobe.arms import Arm
    from hugeprobe.bench.plan import Cell, Plan, Task

Outcome: TypeAlias = Report | NotObservable | ProbeError
_PACKAGES: Final = ("openvino", "onnxruntime", "onnx", "numpy")
_SECONDS: Final = 300.0
"""For one run; the slowest takes some 30 s on two processors."""
_TOUCHED_KIB: Final = 256 * 1024
"""What is touched beyond the peak that the warm-up saw."""


class Watcher(Protocol):
    """Is told how the benchmark goes on."""

    def begins(self, doing: str, left: float | None) -> None:
        """Say what begins; ``left`` is the time left in seconds, None until it can be told."""

    def ends(self, run: Run) -> None:
        """Take a run that ended."""


@dataclass(frozen=True, slots=True)
class Warm:
    """What the warm-up of a cell found: one run of its first arm that does not count.

    Parameters
    ----------
    seconds
        How long it took.
    spare_kib
        What an arm has to touch that has memory touched, or backed by the host, beforehand.
    failure
        Why the cell cannot be run here, as a sentence; else None.
    """

    seconds: float = 0.0
    spare_kib: int = 0
    failure: str | None = None

    @staticmethod
    def of(outcome: Outcome, seconds: float) -> Warm:
        """Take what later runs need from the outcome of a run."""
        if isinstance(outcome, NotObservable | ProbeError):
            return Warm(seconds, failure=str(outcome))
        peak = max(phase.memory.coverage.anonymous_kib for phase in outcome.phases)
        return Warm(seconds, peak + peak // 4 + _TOUCHED_KIB)


class Journal:
    """The file that keeps each run as a line, until all are made.

    Parameters
    ----------
    path
        The file; None keeps nothing.
    heading
        What runs must have in common to be of one record. A file with another heading is of another
        benchmark: it is set aside, not written over. Cells, arms and rounds may be added.
    """

    def __init__(self, path: Path | None, heading: dict[str, Any]) -> None:
        self.path = path
        self.heading = json.loads(json.dumps(heading))

    def kept(self) -> list[Run]:
        """Return the runs in the file; a last line that was cut off is left out."""
        if self.path is None or not self.path.exists():
            return []
        first, *lines = self.path.read_text(encoding="utf-8").split("\n")
        if first != json.dumps(self.heading):
            self.path.replace(self.path.with_name(self.path.name + ".old"))
            return []
        runs = []
        for line in lines:
            try:
                runs.append(TypeAdapter(Run).validate_json(line, strict=True))
            except ValidationError:
                break
        return runs

    def begin(self, runs: list[Run]) -> None:
        """Write the file anew with what is known."""
        if self.path is not None:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self.path.write_text(json.dumps(self.heading) + "\n", encoding="utf-8")
        for run in runs:
            self.add(run)

    def add(self, run: Run) -> None:
        """Keep one more run."""
        if self.path is not None:
            with self.path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(dataclasses.asdict(run)) + "\n")


@dataclass(frozen=True, slots=True)
class Session:
    """One benchmark.

    Parameters
    ----------
    plan
        What to run.
    cache
        Folder for models that are built or converted.
    journal
        File for the runs made so far; the same benchmark on the same host goes on from it.
    command
        What the record says it was made by.
    """

    plan: Plan
    cache: Path
    journal: Path | None = None
    command: str = record.COMMAND

    def run(self, watcher: Watcher) -> BenchRecord:
        """Make every run that the journal does not have yet, and return them all.

        Raises
        ------
        NotPermittedError
            If the plan changes settings of the host, and this user may not.
        """
        journal = Journal(self.journal, self._heading())
        kept = journal.kept()
        journal.begin(kept)
        done = {run.key for run in kept}
        tasks = [task for task in self.plan.tasks() if task.key not in done]
        planned = {task.key for task in self.plan.tasks()}
        runs = [run for run in kept if run.key in planned]
        with hostmodes.keeper() if self.plan.needs_root else nullcontext() as keeper:
            warm = self._warm_up(tasks, watcher)
            for run in self._measured(tasks, warm, keeper, watcher):
                journal.add(run)
                runs.append(run)
                watcher.ends(run)
        return self._record(runs, warm)

    def _heading(self) -> dict[str, Any]:
        heading = {
            "schema": record.SCHEMA,
            "seed": self.plan.seed,
            "kernel": host_facts().kernel,
            "versions": _versions(),
        }
        models = sorted({cell.model for cell in self.plan.cells if cell.model})
        # Another model, or other shapes, would be run under the same name.
        return heading | ({"models": digest(*map(str.encode, models))} if models else {})

    def _warm_up(self, tasks: list[Task], watcher: Watcher) -> dict[str, Warm]:
        """Run every cell once, which also builds its model and fills the page cache."""
        warm = {}
        for cell in {task.cell.name: task.cell for task in tasks}.values():
            watcher.begins(f"{cell.name}: warm-up", None)
            began = time.monotonic()
            outcome = self._infer(cell, cell.arms[0])
            warm[cell.name] = Warm.of(outcome, time.monotonic() - began)
        return warm

    def _measured(
        self,
        tasks: list[Task],
        warm: dict[str, Warm],
        keeper: hostmodes.Keeper | None,
        watcher: Watcher,
    ) -> Iterator[Run]:
        """Make the runs; what cannot run here is asked once, and so is one row."""
        impossible = set()
        left = sum(warm[task.cell.name].seconds for task in tasks)
        for task in tasks:
            cell, arm = task.cell, task.arm
            known = warm[cell.name]
            if (cell.name, arm.name) not in impossible:
                watcher.begins(f"{cell.name}: {arm.name}, round {task.round + 1}", left)
                outcome = known.failure or self._under_mode(cell, arm, known.spare_kib, keeper)
                if isinstance(outcome, NotObservable | str):
                    impossible.add((cell.name, arm.name))
                yield Run.of(task, outcome)
            left -= known.seconds

    def _under_mode(
        self, cell: Cell, arm: Arm, spare_kib: int, keeper: hostmodes.Keeper | None
    ) -> Outcome:
        """Run one arm, with the settings of the host that it needs for as long as it runs."""
        if arm.mode is None or keeper is None:
            return self._infer(cell, arm, spare_kib)
        with keeper.applied(arm.mode) as changes:
            if isinstance(changes, NotObservable):
                return changes
            return self._infer(cell, arm, spare_kib)

    def _infer(self, cell: Cell, arm: Arm, spare_kib: int = 0) -> Outcome:
        needed = 2 * spare_kib if arm.touched or arm.backed else 0
        if needed > (usable := usable_memory_kib()):
            return NotObservable(
                f"the arm {arm.name} needs {needed // 1024:,} MiB here, and this process may use "
                f"{usable // 1024:,} MiB"
            )
        try:
            return inference.run(
                cell.work,
                cell.runtime,
                arm,
                cache=self.cache,
                seed=self.plan.seed,
                repeats=cell.repeats,
                steady=cell.steady,
                spare_kib=spare_kib,
                timeout=_SECONDS,
            )
        except ProbeError as error:
            return error

    def _record(self, runs: list[Run], warm: dict[str, Warm]) -> BenchRecord:
        """Put everything together."""
        arms = {arm.name: arm for cell in self.plan.cells for arm in cell.arms}
        return BenchRecord(
            schema=record.SCHEMA,
            date=datetime.now(timezone.utc).date().isoformat(),
            command=self.command,
            host=tuple(described(host_facts())),
            versions=tuple(_versions().items()),
            seed=self.plan.seed,
            threads=inference.usable_threads(),
            cells=tuple(_cell_facts(cell, warm) for cell in self.plan.cells),
            arms=tuple(_arm_facts(arm) for arm in arms.values()),
            runs=tuple(runs),
        )


class _Unwatched:
    def begins(self, doing: str, left: float | None) -> None:
        """Do nothing."""

    def ends(self, run: Run) -> None:
        """Do nothing."""


def measure(plan: Plan) -> BenchRecord:
    """Run a plan in silence, keep nothing, and return what it found: for notebooks."""
    with tempfile.TemporaryDirectory(prefix="hugeprobe-") as cache:
        return Session(plan, Path(cache), command="the notebook").run(_Unwatched())


def _cell_facts(cell: Cell, warm: dict[str, Warm]) -> CellFacts:
    work = cell.work
    return CellFacts(
        workload=work.name,
        runtime=cell.runtime.label,
        description=work.description,
        source=work.source,
        arms=tuple(arm.name for arm in cell.arms),
        shapes=work.shapes,
        rounds=cell.rounds,
        steady=cell.steady,
        spare_kib=warm.get(cell.name, Warm()).spare_kib,
    )


def _arm_facts(arm: Arm) -> ArmFacts:
    mode = None if arm.mode is None else arm.mode.name
    return ArmFacts(arm.name, arm.description, mode, tuple(sorted(arm.env.items())))


def _versions() -> dict[str, str]:
    """Return the versions of what is installed of the packages that take part."""
    found = {}
    for name in _PACKAGES:
        with suppress(metadata.PackageNotFoundError):
            found[name] = metadata.version(name)
    return found
