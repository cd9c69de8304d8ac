"""A real server from "why is it not huge?" to a fixed one: diagnosed, collapsed, started better.

The server is the measured process of :mod:`hugeprobe.inference`: it loads a model, answers at every
shape, and waits between two answers, which is when it is looked at and changed from outside.
"""

from __future__ import annotations

import itertools
import tempfile
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from hugeprobe import arms, children, collapse, doctor, inference
from hugeprobe.errors import NotObservable, NotPermittedError, ProbeError
from hugeprobe.runtimes import Request, Step, stages

if TYPE_CHECKING:
    from collections.abc import Iterator

    from hugeprobe.arms import Arm
    from hugeprobe.collapse import Outcome
    from hugeprobe.doctor import Diagnosis
    from hugeprobe.inference import Runtime
    from hugeprobe.workloads import Shape, Workload

_SECONDS: Final = 120.0
_MODULE: Final = "hugeprobe.runtimes"


@dataclass(frozen=True, slots=True)
class Served:
    """A server that has met every shape, under one arm.

    Parameters
    ----------
    arm
        How it was started.
    first_faults
        Minor faults of the first inference at each shape, in all.
    diagnosis
        What of its memory is huge then, and why the rest is not.
    """

    arm: Arm
    first_faults: int
    diagnosis: Diagnosis


@dataclass(frozen=True, slots=True)
class Story:
    """The same server as it is, collapsed while it runs, and started better.

    Parameters
    ----------
    plain
        Started as it is.
    collapsed
        What a collapse of the running process did, or why it could not be had.
    after
        The diagnosis after it.
    same_answers
        Whether it gave the same outputs before the collapse and after it.
    started
        Started with the settings of the arm ``keep``.
    """

    plain: Served
    collapsed: Outcome | NotObservable
    after: Diagnosis
    same_answers: bool
    started: Served


def tell(workload: Workload, runtime: Runtime = inference.OPENVINO) -> Story | NotObservable:
    """Serve the workload twice, and fix the first server while it runs.

    Parameters
    ----------
    workload, runtime
        What is served, and by what.

    Returns
    -------
    Story or NotObservable
        The latter where the runtime or the model is missing.
    """
    with tempfile.TemporaryDirectory(prefix="hugeprobe-") as cache:
        model = inference.missing(runtime) or workload.model_path(Path(cache))
        if isinstance(model, NotObservable):
            return model
        request = _request(workload, runtime, model)
        with _warm(request, arms.DEFAULT) as server:
            plain = server.served(arms.DEFAULT)
            collapsed = _collapsed(server.pid)
            after = doctor.diagnose(server.pid)
            same = server.answers() == server.answers_again()
        with _warm(request, arms.KEEP) as server:
            return Story(plain, collapsed, after, same, server.served(arms.KEEP))


def _request(workload: Workload, runtime: Runtime, model: Path) -> Request:
    return Request(
        workload=workload.name,
        model=str(model),
        shapes=workload.shapes,
        seed=0,
        repeats=2,
        runtime=runtime.name,
        threads=inference.usable_threads(),
        mmap=runtime.mmap,
        arena=runtime.arena,
        steady=1,
    )


@dataclass(frozen=True, slots=True)
class _Server:
    """A process that has done its warm-up and waits; what it does then comes one by one."""

    pid: int
    done: tuple[Step, ...]
    rest: Iterator[Step]

    def served(self, arm: Arm) -> Served:
        faults = sum(step.minor_faults for step in self.done if step.stage == "first")
        return Served(arm, faults, doctor.diagnose(self.pid))

    def answers(self) -> dict[Shape | None, str | None]:
        """Return the checksum of the first answer at each shape."""
        return {step.shape: step.checksum for step in self.done if step.stage == "first"}

    def answers_again(self) -> dict[Shape | None, str | None]:
        """Let it answer at each shape once more."""
        return {step.shape: step.checksum for step in self.rest}


@contextmanager
def _warm(request: Request, arm: Arm) -> Iterator[_Server]:
    """Start a server and have it meet every shape; at the end let it finish."""
    added = arm.environment()
    if isinstance(added, NotObservable):
        raise ProbeError(f"A server was to start under the arm {arm.name}, but {added.reason}.")
    warm_up = 2 + len(tuple(stages(request.shapes, request.repeats)))
    with children.talking(_MODULE, [], added, _SECONDS) as child:
        steps = map(Step.decode, child.steps(request.encode()))
        server = _Server(child.pid, tuple(itertools.islice(steps, warm_up)), steps)
        yield server
        for _ in server.rest:
            pass


def _collapsed(pid: int) -> Outcome | NotObservable:
    """Collapse from outside, which takes a privilege that notebooks often lack."""
    try:
        return collapse.collapse(pid)
    except NotPermittedError as error:
        return NotObservable(f"a process may not do that to another one here ({error})")
