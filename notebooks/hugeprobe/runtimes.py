"""Run one model on one runtime, step by step, and count the minor faults of every step.

This is the process that is measured: ``python -m hugeprobe.runtimes FD``, started by
:mod:`hugeprobe.inference`, which looks at its memory from outside between two steps. It therefore
reads no kernel file, and keeps nothing between steps that the runtime did not ask for.
"""

from __future__ import annotations

import ctypes
import gc
import hashlib
import importlib
import json
import os
import resource
import socket
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final, Literal, TextIO, TypeVar

import numpy as np

from hugeprobe import linux, workloads
from hugeprobe.loaders import LOADERS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from hugeprobe.workloads import Inputs, Model, Shape, Workload

RuntimeName = Literal["openvino", "onnxruntime"]
Stage = Literal[
    "start",
    "load",
    "first",
    "repeat",
    "back",
    "lock",
    "collapse",
    "steady",
    "release",
    "drop",
    "reload",
    "again",
]
"""``start``: imports and inputs; ``load``: read and compile; ``first``: a shape not seen before;
``repeat``: the same input again; ``back``: a shape seen before another one; ``lock``: lock what
there is; ``collapse``: make it huge; ``steady``: every shape in turn, once all have been seen;
``release``: ask the runtime to give memory back; ``drop``, ``reload``, ``again``: the model is
dropped, loaded again, and run once."""

Lock = Literal["never", "at the start", "at the start, on fault", "once warm"]
"""When the process locks its memory: all that there is and will be, from its beginning, at once or
as it is touched; or what there is after the first inferences."""

_AT_THE_START: Final[Mapping[str, linux.Locked]] = MappingProxyType(
    {
        "at the start": linux.Locked.CURRENT | linux.Locked.FUTURE,
        "at the start, on fault": (
            linux.Locked.CURRENT | linux.Locked.FUTURE | linux.Locked.ON_FAULT
        ),
    }
)

_ANY: Final = 1 / 512
"""Share of a huge page that one base page is: a range that holds anything is collapsed."""
THP_OFF: Final = "--thp-off"
EXPORT_IR: Final = "--export-ir"

Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class Request:
    """Everything that the measured process is told.

    Parameters
    ----------
    workload
        What finds the workload, which draws the inputs.
    model
        File to load: ONNX, or the ``.xml`` of an OpenVINO IR.
    shapes
        Input shapes in the order they arrive.
    seed
        Seed of the inputs.
    repeats
        Inferences after the first at each new shape.
    runtime
        Library to use.
    threads
        Threads that compute.
    mmap
        OpenVINO: map the weights file (``ENABLE_MMAP``) rather than read it.
    arena
        ONNX Runtime: keep freed memory (``enable_cpu_mem_arena``).
    hint
        OpenVINO: ``PERFORMANCE_HINT``.
    steady
        Rounds over all shapes at the end, in one step for each shape and round.
    collapse
        Whether to collapse what can be huge before those rounds (``MADV_COLLAPSE``).
    touched_kib
        Heap memory that is touched, and freed again, before anything is loaded.
    reloads
        How many times the model is dropped at the end, loaded again, and run once.
    lock
        When the process locks its memory.
    blobs, cache_mode
        OpenVINO: folder of compiled models (``CACHE_DIR``), empty for none, and ``CACHE_MODE``.
    """

    workload: str
    model: str
    shapes: tuple[Shape, ...]
    seed: int
    repeats: int
    runtime: RuntimeName
    threads: int
    mmap: bool
    arena: bool
    hint: str = "LATENCY"
    steady: int = 0
    collapse: bool = False
    touched_kib: int = 0
    reloads: int = 0
    lock: Lock = "never"
    blobs: str = ""
    cache_mode: str = ""

    def encode(self) -> str:
        """Return it as one line of JSON."""
        return json.dumps(asdict(self))

    @staticmethod
    def decode(line: str) -> Request:
        """Read it back from :meth:`encode`."""
        fields = json.loads(line)
        return Request(**{**fields, "shapes": tuple(map(tuple, fields["shapes"]))})


@dataclass(frozen=True, slots=True)
class Step:
    """What one step did, as the measured process saw it.

    Parameters
    ----------
    stage, shape
        What was done, and with which input shape (None before the first inference).
    minor_faults
        Of all threads of the process during the step (``ru_minflt`` of ``getrusage(2)``).
    seconds
        Wall-clock time of the step.
    checksum
        Of every byte that came out of an inference, else None.
    """

    stage: Stage
    shape: Shape | None
    minor_faults: int
    seconds: float
    checksum: str | None

    def encode(self) -> str:
        """Return it as one line of JSON."""
        return json.dumps(asdict(self))

    @staticmethod
    def decode(line: str) -> Step:
        """Read it back from :meth:`encode`."""
        fields = json.loads(line)
        shape = fields["shape"]
        return Step(**{**fields, "shape": None if shape is None else tuple(shape)})


def export_ir(model: Path, ir: Path) -> None:
    """Convert an ONNX file to an OpenVINO IR with the weights as they are (fp32 stays fp32)."""
    openvino: Any = importlib.import_module("openvino")
    ir.parent.mkdir(parents=True, exist_ok=True)
    openvino.save_model(openvino.Core().read_model(model), ir, compress_to_fp16=False)


def stages(shapes: tuple[Shape, ...], repeats: int) -> Iterator[tuple[Stage, Shape]]:
    """Name each inference of the warm-up: ``first``, ``repeat``… at a new shape, else ``back``.

    >>> [stage for stage, _ in stages(((1,), (2,), (1,)), 1)]
    ['first', 'repeat', 'first', 'repeat', 'back']
    """
    seen: set[Shape] = set()
    for shape in shapes:
        if shape in seen:
            yield "back", shape
            continue
        seen.add(shape)
        yield "first", shape
        for _ in range(repeats):
            yield "repeat", shape


def touch_heap(kib: int) -> None:
    """Touch so much of the heap, and free it again, for later allocations to find.

    glibc keeps it only if it was started with a high trim threshold, and serves large blocks from
    it only if it was told not to map them (``mallopt(3)``).
    """
    if not kib:
        return
    libc = ctypes.CDLL(None)
    libc.malloc.restype = ctypes.c_void_p
    libc.malloc.argtypes = (ctypes.c_size_t,)
    libc.free.argtypes = (ctypes.c_void_p,)
    if block := libc.malloc(kib * 1024):
        ctypes.memset(block, 1, kib * 1024)
        libc.free(block)


def _minor_faults() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt


def _checksum(outputs: list[np.ndarray[Any, Any]]) -> str:
    digest = hashlib.sha256()
    for output in outputs:
        digest.update(np.ascontiguousarray(output).data)
    return digest.hexdigest()[:16]


@dataclass(frozen=True, slots=True)
class _Teller:
    """Does the steps, tells the watching process of each, and waits until it has looked."""

    channel: TextIO

    def step(self, stage: Stage, work: Callable[[], Result], shape: Shape | None = None) -> Result:
        faults, began = _minor_faults(), time.perf_counter()
        result = work()
        seconds, faults = time.perf_counter() - began, _minor_faults() - faults
        checksum = _checksum(result) if shape is not None and isinstance(result, list) else None
        self.channel.write(Step(stage, shape, faults, seconds, checksum).encode() + "\n")
        self.channel.flush()
        self.channel.readline()
        return result


def _serve(channel: TextIO) -> None:
    request = Request.decode(channel.readline())
    teller = _Teller(channel)

    def start() -> tuple[Workload, dict[Shape, Inputs]]:
        if locked := _AT_THE_START.get(request.lock):
            linux.lock_all(locked)
        importlib.import_module(request.runtime)
        touch_heap(request.touched_kib)
        workload = workloads.find(request.workload)
        return workload, {shape: workload.inputs(shape, request.seed) for shape in request.shapes}

    def load() -> None:
        loaded.append(LOADERS[request.runtime](request, workload.state))

    def drop() -> None:
        loaded.clear()
        gc.collect()

    workload, inputs = teller.step("start", start)
    loaded: list[Model] = []
    teller.step("load", load)

    def infer(stage: Stage, shape: Shape) -> None:
        teller.step(stage, lambda: workload.infer(loaded[0], inputs[shape]), shape)

    for stage, shape in stages(request.shapes, request.repeats):
        infer(stage, shape)
    if request.lock == "once warm":
        teller.step("lock", lambda: linux.lock_all(linux.Locked.CURRENT))
    if request.collapse:
        collapse = importlib.import_module("hugeprobe.collapse")
        teller.step("collapse", lambda: collapse.collapse_self(min_resident=_ANY))
    for _ in range(request.steady):
        for shape in dict.fromkeys(request.shapes):
            infer("steady", shape)
    if request.reloads:
        teller.step("release", loaded[0].release)
    for _ in range(request.reloads):
        teller.step("drop", drop)
        teller.step("reload", load)
        infer("again", request.shapes[0])


def main() -> None:
    """Serve the socket whose descriptor is the first argument, or convert a model."""
    if sys.argv[1] == EXPORT_IR:
        export_ir(*map(Path, sys.argv[2:]))
        return
    if THP_OFF in sys.argv:
        # Inherited over exec, so that the interpreter itself starts without huge pages too.
        linux.set_thp_disabled(True)
        os.execv(sys.executable, [word for word in sys.orig_argv if word != THP_OFF])
    with socket.socket(fileno=int(sys.argv[1])) as connection, connection.makefile("rw") as channel:
        _serve(channel)


if __name__ == "__main__":
    main()
