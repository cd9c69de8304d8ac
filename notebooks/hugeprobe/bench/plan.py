"""What is run: cells, the arms and rounds of each, and the order."""

from __future__ import annotations

import random
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from hugeprobe import arms as _arms
from hugeprobe import workloads
from hugeprobe.errors import BadRequestError
from hugeprobe.inference import ONNXRUNTIME, OPENVINO, Runtime

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from hugeprobe.arms import Arm
    from hugeprobe.workloads import Workload


@dataclass(frozen=True, slots=True)
class Cell:
    """One workload on one runtime: what its arms are compared within.

    Parameters
    ----------
    workload
        Its name.
    runtime
        What it runs on, before an arm changes it.
    arms
        The first is what the others are compared to.
    rounds
        Runs of each arm.
    steady
        Rounds over all shapes in each run, once it is warm.
    repeats
        Inferences after the first at each new shape; see :func:`hugeprobe.inference.run`.
    model
        What finds the workload where it is a model of the user; it is not published.
    """

    workload: str
    runtime: Runtime
    arms: tuple[Arm, ...]
    rounds: int
    steady: int
    repeats: int = 2
    model: str | None = None

    @property
    def work(self) -> Workload:
        """The workload itself."""
        return workloads.find(self.model or self.workload)

    @property
    def name(self) -> str:
        """Workload and runtime, as tables show them."""
        return f"{self.workload}, {self.runtime.label}"


@dataclass(frozen=True, slots=True)
class Task:
    """One run to be made.

    Parameters
    ----------
    cell, arm
        What is run.
    round
        Counts from 0; within a round every arm of the cell has its turn, in random order.
    """

    cell: Cell
    arm: Arm
    round: int

    @property
    def key(self) -> tuple[str, str, str, int]:
        """What tells it from every other run of the plan."""
        return self.cell.workload, self.cell.runtime.label, self.arm.name, self.round


@dataclass(frozen=True, slots=True)
class Plan:
    """Everything that one benchmark runs.

    Parameters
    ----------
    cells
        One after the other, because arms are compared within a cell only.
    seed
        Of the order of arms and of the inputs.
    """

    cells: tuple[Cell, ...]
    seed: int = 0

    def tasks(self) -> Iterator[Task]:
        """Yield every run in the order in which it is made; the same seed gives the same order."""
        for cell in self.cells:
            order = random.Random(f"{self.seed} {cell.name}")
            for number in range(cell.rounds):
                for arm in order.sample(cell.arms, len(cell.arms)):
                    yield Task(cell, arm, number)

    @property
    def needs_root(self) -> bool:
        """Whether any arm changes settings of the host."""
        return any(arm.mode for cell in self.cells for arm in cell.arms)


_MAIN: Final = (_arms.DEFAULT, _arms.AGAIN, _arms.OFF, _arms.ADVISE, _arms.KEEP, _arms.TOUCHED)
_SLOW: Final = (_arms.DEFAULT, _arms.OFF, _arms.KEEP, _arms.TOUCHED)
_ALLOCATORS: Final = (_arms.JEMALLOC, _arms.TCMALLOC, _arms.MIMALLOC, _arms.MIMALLOC_ADVISE)
_BACKED: Final = (_arms.BACKED, _arms.ADVISE_BACKED, _arms.KEEP_BACKED)
_LATER: Final = (_arms.COLLAPSE,)
_ARENA: Final = (
    _arms.NO_ARENA,
    _arms.NO_ARENA_ADVISE,
    _arms.NO_ARENA_KEEP,
    _arms.MTHP_NO_ARENA,
)
_WEIGHTS: Final = (_arms.IR_MAPPED, _arms.IR_READ, _arms.IR_READ_ADVISE)
_HINT: Final = (_arms.THROUGHPUT,)
_MODES: Final = (
    _arms.ALWAYS,
    _arms.MTHP_64K,
    _arms.MTHP,
    _arms.MTHP_64K_ADVISE,
    _arms.MTHP_ADVISE,
)

_BOTH: Final = (*_MAIN, *_BACKED, *_ALLOCATORS, *_LATER)
_FULL: Final = (
    Cell("bert-mini", OPENVINO, (*_BOTH, *_WEIGHTS, *_HINT, *_MODES), rounds=5, steady=2),
    Cell("bert-mini", ONNXRUNTIME, (*_BOTH, *_ARENA, *_MODES), rounds=5, steady=2),
    Cell("ppocr-detector", OPENVINO, (*_BOTH, *_HINT, *_MODES), rounds=6, steady=3),
    Cell("ppocr-detector", ONNXRUNTIME, (*_BOTH, *_ARENA, *_MODES), rounds=6, steady=3),
    Cell("embedding-1gib", OPENVINO, (*_MAIN, *_LATER), rounds=5, steady=10),
    Cell("embedding-1gib", ONNXRUNTIME, (*_MAIN, *_LATER), rounds=5, steady=10),
    Cell("yolov5s", OPENVINO, (*_MAIN, *_LATER), rounds=5, steady=1, repeats=1),
    Cell("yolov5s", ONNXRUNTIME, (*_SLOW, _arms.NO_ARENA), rounds=5, steady=1),
    Cell("gpt-decoder", OPENVINO, _SLOW, rounds=5, steady=1, repeats=1),
    Cell("gpt-decoder", ONNXRUNTIME, _SLOW, rounds=5, steady=1, repeats=1),
    Cell("bert-mini-batches", OPENVINO, _SLOW, rounds=5, steady=1, repeats=1),
    Cell("bert-mini-batches", ONNXRUNTIME, _SLOW, rounds=5, steady=1),
    Cell("bert-base", OPENVINO, _SLOW, rounds=5, steady=1, repeats=1),
    Cell("shards-1gib", OPENVINO, (*_MAIN, *_WEIGHTS), rounds=5, steady=1),
    Cell("shards-1gib", ONNXRUNTIME, _MAIN, rounds=5, steady=1),
)
_QUICK_ARMS: Final = (_arms.DEFAULT, _arms.OFF, _arms.ADVISE, _arms.KEEP, _arms.TOUCHED)
_QUICK: Final = (
    Cell("bert-mini", OPENVINO, _QUICK_ARMS, rounds=5, steady=1),
    Cell("ppocr-detector", OPENVINO, _QUICK_ARMS, rounds=5, steady=1),
    Cell("ppocr-detector", ONNXRUNTIME, (*_QUICK_ARMS, *_ARENA[:3]), rounds=5, steady=1),
)


def full(seed: int = 0, *, host_modes: bool = False) -> Plan:
    """Return the matrix that is recorded; with ``host_modes`` also what takes root."""
    cells = (
        cell if host_modes else replace(cell, arms=tuple(a for a in cell.arms if not a.mode))
        for cell in _FULL
    )
    return Plan(tuple(cells), seed)


def quick(seed: int = 0) -> Plan:
    """Return the subset that takes minutes."""
    return Plan(_QUICK, seed)


def chosen(
    plan: Plan, workload: Sequence[str] = (), arm: Sequence[str] = (), rounds: int | None = None
) -> Plan:
    """Return the plan with some workloads and arms only; the default arm always stays.

    A workload that the plan does not have (such as a file) is added on both runtimes.

    Raises
    ------
    BadRequestError
        If there is no such workload or arm, or fewer than one round is asked for.
    """
    if rounds is not None and rounds < 1:
        raise BadRequestError(f"{rounds} rounds were asked for; choose 1 or more, 5 for intervals.")
    asked = _arms.find([_arms.DEFAULT.name, *arm]) if arm else None
    cells = []
    for name in dict.fromkeys(workload or (cell.workload for cell in plan.cells)):
        of_plan = [cell for cell in plan.cells if cell.workload == name]
        cells += of_plan or [
            Cell(workloads.find(name).name, runtime, _QUICK_ARMS, rounds=5, steady=1, model=name)
            for runtime in (OPENVINO, ONNXRUNTIME)
        ]
    return Plan(
        tuple(
            replace(cell, arms=asked or cell.arms, rounds=rounds or cell.rounds) for cell in cells
        ),
        plan.seed,
    )
