"""Run a workload on a runtime in a fresh process, and see every MiB of it after every step.

Each run is a process of its own, because an allocator remembers what it was asked before. What is
to be compared is data: the :class:`Runtime` says which library loads which form of the model, the
:class:`Arm` under which environment the process starts.
"""

from __future__ import annotations

import importlib.util
import json
import os
import tempfile
from collections import defaultdict
from dataclasses import asdict, dataclass, replace
from importlib import metadata
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Final

from hugeprobe import children, firsttouch, host, linux, locking, smaps
from hugeprobe.arms import ADVISE, DEFAULT, OFF, Arm
from hugeprobe.coverage import Coverage, Mode, cover, mode_of
from hugeprobe.errors import NotObservable, NotPermittedError, ProbeError
from hugeprobe.runtimes import EXPORT_IR, THP_OFF, Request, RuntimeName, Stage, Step
from hugeprobe.workloads import files

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from hugeprobe.workloads import Shape, Workload

_LOCKED_TIMES: Final = 2
_PMD_KIB: Final = 2048  # where the kernel does not tell
_THREADS_AT_MOST: Final = 4  # so that counts of hosts with many processors stay comparable
MEASURED: Final = "hugeprobe.runtimes"
"""The module that the measured process runs."""
_IR: Final = ".xml"


@dataclass(frozen=True, slots=True)
class Runtime:
    """A library and the form in which it gets the model.

    Parameters
    ----------
    name
        Package to import.
    label
        What figures call it.
    ir
        OpenVINO: load an IR, converted from the ONNX file, in place of the ONNX file.
    mmap
        OpenVINO: map the weights file rather than read it.
    arena
        ONNX Runtime: keep freed memory.
    hint
        OpenVINO: ``PERFORMANCE_HINT``.
    cache_mode
        OpenVINO: load what an earlier process compiled and stored in this mode (``CACHE_MODE``),
        empty for compiling each time. The model must have no state.
    """

    name: RuntimeName
    label: str
    ir: bool = False
    mmap: bool = True
    arena: bool = True
    hint: str = "LATENCY"
    cache_mode: str = ""


OPENVINO: Final = Runtime("openvino", "OpenVINO")
OPENVINO_IR: Final = Runtime("openvino", "OpenVINO, IR mapped", ir=True)
OPENVINO_IR_READ: Final = Runtime("openvino", "OpenVINO, IR read", ir=True, mmap=False)
OPENVINO_CACHED: Final = Runtime(
    "openvino", "OpenVINO, cached with weights", ir=True, cache_mode="OPTIMIZE_SPEED"
)
OPENVINO_CACHED_BARE: Final = Runtime(
    "openvino", "OpenVINO, cached without weights", ir=True, cache_mode="OPTIMIZE_SIZE"
)
ONNXRUNTIME: Final = Runtime("onnxruntime", "ONNX Runtime")
ONNXRUNTIME_NO_ARENA: Final = Runtime("onnxruntime", "ONNX Runtime, arena off", arena=False)
RUNTIMES: Final = (OPENVINO, ONNXRUNTIME)


ARMS: Final = (DEFAULT, ADVISE, OFF)
"""What :func:`compare` compares, where it is not told."""


@dataclass(frozen=True, slots=True)
class Memory:
    """What the process held after a step. Sizes are KiB.

    Parameters
    ----------
    by_kind
        Resident memory by kind of mapping.
    anonymous
        Resident anonymous memory by kind of mapping, and in each by what backs it.
    eligible_kib
        Resident anonymous memory in mappings that say ``THPeligible: 1``.
    file_pmd_kib
        Memory of files that is mapped by PMDs.
    weights_kib
        Resident part of the mapped weights file, 0 where the weights are not mapped.
    weights_pmd_kib
        What of it is mapped by PMDs.
    vmas
        Number of mappings.
    holes_kib
        Gaps shorter than a huge page between two neighbouring mappings: what alignment leaves.
    locked_kib
        What the kernel may not take away. Memory that several processes lock counts in parts.
    """

    by_kind: Mapping[str, int]
    anonymous: Mapping[str, Coverage]
    eligible_kib: int
    file_pmd_kib: int
    weights_kib: int
    weights_pmd_kib: int
    vmas: int
    holes_kib: int
    locked_kib: int = 0

    @property
    def coverage(self) -> Coverage:
        """Resident anonymous memory of all kinds by what backs it."""
        return Coverage.total(self.anonymous.values())

    @property
    def resident_kib(self) -> int:
        """All resident memory."""
        return sum(self.by_kind.values())


@dataclass(frozen=True, slots=True)
class Phase:
    """One step of a run, and the memory after it; see :class:`hugeprobe.runtimes.Step`.

    Parameters
    ----------
    step
        What was done, its faults and time.
    memory
        What the process held when the step was done.
    """

    step: Step
    memory: Memory


@dataclass(frozen=True, slots=True)
class Report:
    """One run, in the order in which it happened.

    Parameters
    ----------
    workload
        Name of the workload.
    runtime, arm
        What it ran on, and under what.
    version
        Version of the runtime.
    threads
        Threads that computed.
    phases
        Every step; the first is ``start``, the second ``load``.
    """

    workload: str
    runtime: Runtime
    arm: Arm
    version: str
    threads: int
    phases: tuple[Phase, ...]

    def at(self, stage: Stage) -> tuple[Phase, ...]:
        """Return the phases of one stage, in order."""
        return tuple(phase for phase in self.phases if phase.step.stage == stage)

    def minor_faults(self, stage: Stage) -> int:
        """Return the minor faults of all phases of one stage."""
        return sum(phase.step.minor_faults for phase in self.at(stage))

    def seconds(self, stage: Stage) -> float:
        """Return the wall-clock seconds of all phases of one stage."""
        return sum(phase.step.seconds for phase in self.at(stage))

    @property
    def steady(self) -> tuple[Phase, ...]:
        """The last repeat at each shape: what every further inference looks like."""
        return tuple({phase.step.shape: phase for phase in self.at("repeat")}.values())

    @property
    def checksums(self) -> tuple[str | None, ...]:
        """Checksums of every step, by which the outputs of two arms are compared."""
        return tuple(phase.step.checksum for phase in self.phases)

    def to_json(self) -> str:
        """Return it as one JSON object."""
        return json.dumps(asdict(self))


def usable_threads() -> int:
    """Return the number of threads a run uses: the processors of this process, up to 4."""
    return min(len(os.sched_getaffinity(0)), _THREADS_AT_MOST)


def run(
    workload: Workload,
    runtime: Runtime = OPENVINO,
    arm: Arm = DEFAULT,
    *,
    cache: Path,
    shapes: Sequence[Shape] | None = None,
    seed: int = 0,
    repeats: int = 2,
    steady: int = 0,
    reloads: int = 0,
    spare_kib: int = 0,
    threads: int | None = None,
    timeout: float = 120.0,
) -> Report | NotObservable:
    """Run one workload once, in a process of its own.

    Parameters
    ----------
    workload, runtime, arm
        What to run, on what, and under what.
    cache
        Folder for the model where it has to be built or converted.
    shapes
        Input shapes in the order they arrive, in place of the workload's own.
    seed
        Seed of the inputs.
    repeats
        Inferences after the first at each new shape. ONNX Runtime plans its memory in the first
        and allocates it in the second, so the steady state begins with the third.
    steady
        Rounds over all shapes at the end.
    reloads
        How many times the model is dropped at the end, loaded again, and run once.
    spare_kib
        What an arm touches beforehand that has memory touched, or backed by the host.
    threads
        Threads that compute, by default :func:`usable_threads`.
    timeout
        Seconds for the whole run.

    Returns
    -------
    Report or NotObservable
        The latter where the runtime, the model, a library of the arm or the memory is missing, or
        where the runtime does not have what the arm changes.

    Raises
    ------
    ProbeError
        If the process crashed or did not finish in time; what it said is in the text.
    """
    linux.require_linux()
    if refusal := missing(runtime) or _unfit(runtime, arm) or _no_room(workload, arm):
        return refusal
    runtime = replace(runtime, **arm.options)
    model = model_file(workload, runtime, cache, timeout)
    if isinstance(model, NotObservable):
        return model
    request = Request(
        workload=workload.spec(model),
        model=str(model),
        shapes=tuple(shapes or workload.shapes),
        seed=seed,
        repeats=repeats,
        runtime=runtime.name,
        threads=threads or usable_threads(),
        mmap=runtime.mmap,
        arena=runtime.arena,
        hint=runtime.hint,
        steady=steady,
        reloads=reloads,
        collapse=arm.collapse,
        touched_kib=spare_kib if arm.touched else 0,
        lock=arm.lock,
        blobs=str(cache / f"{model.stem}-{runtime.cache_mode}") if runtime.cache_mode else "",
        cache_mode=runtime.cache_mode,
    )
    version = metadata.version(runtime.name)
    try:
        _fill(request, timeout)
        done = tuple(phases(request, arm, timeout, spare_kib if arm.backed else 0))
    except (smaps.NoSmapsError, NotPermittedError):
        return NotObservable("this system does not show the memory map of a process to its parent")
    return Report(workload.name, runtime, arm, version, request.threads, done)


def compare(
    workload: Workload,
    runtimes: Sequence[Runtime] = RUNTIMES,
    arms: Sequence[Arm] = ARMS,
    *,
    cache: Path | None = None,
    shapes: Sequence[Shape] | None = None,
    repeats: int = 2,
) -> list[Report | NotObservable]:
    """Run one workload on every runtime under every arm, one process after another.

    Parameters
    ----------
    workload, runtimes, arms
        What to run.
    cache
        Folder for built models; by default a temporary one that is removed at the end.
    shapes, repeats
        As for :func:`run`.
    """
    with tempfile.TemporaryDirectory(prefix="hugeprobe-") as temporary:
        folder = cache or Path(temporary)
        return [
            run(workload, runtime, arm, cache=folder, shapes=shapes, repeats=repeats)
            for runtime in runtimes
            for arm in arms
        ]


def missing(runtime: Runtime) -> NotObservable | None:
    """Say that the runtime is not installed, if so, without importing it."""
    if importlib.util.find_spec(runtime.name) is not None:
        return None
    return NotObservable(
        f"the package {runtime.name} is not installed; python -m pip install {runtime.name} adds it"
    )


def _fill(request: Request, timeout: float) -> None:
    """Compile the model into the folder of blobs, unless an earlier run has."""
    if request.blobs and not any(Path(request.blobs).glob("*.blob")):
        once = replace(request, shapes=request.shapes[:1], repeats=0, reloads=0, lock="never")
        for _ in phases(once, DEFAULT, timeout):
            pass


def _unfit(runtime: Runtime, arm: Arm) -> NotObservable | None:
    if arm.only not in (None, runtime.name):
        return NotObservable(f"{runtime.label} does not have what the arm {arm.name} changes")
    environment = arm.environment()
    if isinstance(environment, NotObservable):
        return environment
    return locking.refused_all() if arm.lock != "never" else None


def _no_room(workload: Workload, arm: Arm) -> NotObservable | None:
    """Say that the run does not fit into memory, if so.

    Locked memory is there in full, also what a program asks for in advance and never touches. It is
    a multiple of what it uses.
    """
    return too_little(workload, 1 if arm.lock == "never" else _LOCKED_TIMES)


def too_little(workload: Workload, processes: int = 1) -> NotObservable | None:
    """Say that so many processes at a time would not fit into memory, if so."""
    needed, usable = processes * workload.memory_kib, host.usable_memory_kib()
    if usable >= needed:
        return None
    return NotObservable(
        f"{workload.name} may need {needed // 1024} MiB "
        f"and this process may use {usable // 1024} MiB"
    )


def model_file(
    workload: Workload, runtime: Runtime, cache: Path, timeout: float
) -> Path | NotObservable:
    """Return the file that the runtime loads, built or converted in the folder ``cache``."""
    model = workload.model_path(cache)
    if isinstance(model, NotObservable):
        return model
    if model.suffix == _IR and runtime.name != OPENVINO.name:
        return NotObservable(
            f"{workload.name} is an OpenVINO IR, which {runtime.label} cannot read"
        )
    if not runtime.ir or model.suffix == _IR:
        return model
    return _exported(model, cache, timeout)


def _exported(model: Path, cache: Path, timeout: float) -> Path:
    """Convert to IR in a process of its own, so that this one stays free of the runtime."""
    folder = cache / f"{model.stem}-ir-{files.version(model)}"
    if not folder.exists():
        with files.whole(folder) as part:
            arguments = [EXPORT_IR, str(model), str(part / "model.xml")]
            with children.started(MEASURED, arguments, {}, timeout):
                pass
    return folder / "model.xml"


def phases(request: Request, arm: Arm, timeout: float, backed_kib: int = 0) -> Iterator[Phase]:
    """Start the measured process, and look at it after every step; see :func:`run`.

    Before each step it sees to it that so much memory is backed by the host.
    """
    facts = host.host_facts()
    mode: Mode = "forbidden" if arm.thp_disabled else mode_of(facts)
    pmd_kib = facts.pmd_kib or _PMD_KIB
    weights = str(Path(request.model).with_suffix(".bin").resolve())
    added = arm.environment()
    if isinstance(added, NotObservable):
        raise ProbeError(f"A process was to start under the arm {arm.name}, but {added.reason}.")
    arguments = [THP_OFF] if arm.thp_disabled else []
    with children.talking(MEASURED, arguments, added, timeout) as child:
        for line in child.steps(request.encode()):
            step, snapshot = Step.decode(line), smaps.snapshot(child.pid)
            yield Phase(step, _memory(snapshot, mode, pmd_kib, weights))
            firsttouch.back(backed_kib)


def _memory(snapshot: smaps.Snapshot, mode: Mode, pmd_kib: int, weights: str) -> Memory:
    of_kind: defaultdict[smaps.Kind, list[smaps.Mapping]] = defaultdict(list)
    for mapping in snapshot:
        of_kind[mapping.kind].append(mapping)
    gaps = [(after.start - before.end) // 1024 for before, after in pairwise(snapshot)]
    mapped = [mapping for mapping in snapshot if mapping.name == weights]
    return Memory(
        by_kind={kind.value: sums.rss_kib for kind, sums in snapshot.rollup().items()},
        anonymous={kind.value: cover(of_kind[kind], mode, pmd_kib) for kind in of_kind},
        eligible_kib=sum(each.anonymous_kib or 0 for each in snapshot if each.thp_eligible),
        file_pmd_kib=snapshot.total.file_pmd_kib,
        weights_kib=sum(mapping.rss_kib or 0 for mapping in mapped),
        weights_pmd_kib=sum(mapping.file_pmd_kib or 0 for mapping in mapped),
        vmas=len(snapshot),
        holes_kib=sum(gap for gap in gaps if gap < pmd_kib),
        locked_kib=sum(mapping.locked_kib or 0 for mapping in snapshot),
    )
