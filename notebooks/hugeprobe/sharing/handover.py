"""Tensors passed to a server in another process and back, and every copy on the way, counted.

What the kernel copies for the server is what its ``read`` and ``write`` calls moved
(``/proc/PID/io``). What the runtime copies is looked for: after an inference, the private memory of
the server is searched for the whole input and the whole output (``/proc/PID/mem``).
"""

from __future__ import annotations

import mmap
import os
import socket
import tempfile
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Final, Protocol

import numpy as np
import psutil

from hugeprobe import children, inference, linux, smaps
from hugeprobe.errors import NotObservable, NotPermittedError
from hugeprobe.inference import ONNXRUNTIME, OPENVINO, Runtime
from hugeprobe.sharing import kinds
from hugeprobe.sharing.server import Field, Request, Served, arrays
from hugeprobe.workloads import bert

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from contextlib import AbstractContextManager
    from io import FileIO

    from numpy.typing import NDArray

    from hugeprobe.children import Child
    from hugeprobe.workloads import Inputs, Shape

_SERVER: Final = "hugeprobe.sharing.server"
_ROUNDS: Final = 3
"""ONNX Runtime plans its memory in the first and allocates it in the second."""
_TIMEOUT: Final = 60.0
_CHUNK: Final = 1 << 24
_CLOSE: Final = 1e-4
"""Static shapes are computed in another order; numbers differ by less, in what is about one."""


@dataclass(frozen=True, slots=True)
class Passing:
    """A way to pass tensors.

    Parameters
    ----------
    name
        What tables call it.
    runtime
        The library that infers.
    shared
        Through shared memory; else through pipes.
    static
        OpenVINO: with shapes fixed before compilation.
    """

    name: str
    runtime: Runtime
    shared: bool
    static: bool = False


PASSINGS: Final = (
    Passing("OpenVINO, pipes", OPENVINO, shared=False),
    Passing("OpenVINO, shared memory", OPENVINO, shared=True),
    Passing("OpenVINO, shared memory, static shapes", OPENVINO, shared=True, static=True),
    Passing("ONNX Runtime, pipes", ONNXRUNTIME, shared=False),
    Passing("ONNX Runtime, shared memory", ONNXRUNTIME, shared=True),
)


@dataclass(frozen=True, slots=True)
class Copies:
    """Where the server has the tensors of an inference, but for shared memory.

    Parameters
    ----------
    inputs, outputs
        Places in its private memory that hold the whole first input, or the whole output.
    """

    inputs: int
    outputs: int


@dataclass(frozen=True, slots=True)
class Passed:
    """What one way came to in the last of three rounds, each with inputs of its own.

    Parameters
    ----------
    way
        The way.
    tensor_bytes
        Bytes of inputs and output.
    moved_bytes
        Bytes that system calls moved in and out of the server.
    copies
        What was found in its private memory.
    served
        What it told.
    output
        What the client got.
    """

    way: Passing
    tensor_bytes: int
    moved_bytes: int | NotObservable
    copies: Copies | NotObservable
    served: Served
    output: NDArray[Any]

    def agrees(self, other: Passed) -> bool:
        """Return whether both got the same output, as far as floating point repeats."""
        return bool(np.allclose(self.output, other.output, rtol=_CLOSE, atol=_CLOSE))


class _Route(Protocol):
    """The client's end of a way."""

    @property
    def handed_on(self) -> tuple[int, int]:
        """Descriptors of the server's ends."""

    def exchange(self, child: Child, inputs: Inputs) -> tuple[Served, bytes]:
        """Pass inputs, and return what the server told and the output."""


@dataclass(frozen=True, slots=True)
class _SharedMemory:
    """Two pieces of shared memory, and the tensors in them."""

    handed_on: tuple[int, int]
    inputs: Inputs
    output: NDArray[Any]

    def exchange(self, child: Child, inputs: Inputs) -> tuple[Served, bytes]:
        for name, array in inputs.items():
            self.inputs[name][:] = array
        _go(child)
        return _told(child), self.output.tobytes()


@dataclass(frozen=True, slots=True)
class _Pipes:
    """Two pipes."""

    handed_on: tuple[int, int]
    source: IO[bytes]
    target: IO[bytes]
    output_size: int

    def exchange(self, child: Child, inputs: Inputs) -> tuple[Served, bytes]:
        _go(child)
        for array in inputs.values():
            self.source.write(array.data)
        self.source.flush()
        output = self.target.read(self.output_size)
        return _told(child), output


def _go(child: Child) -> None:
    print(file=child.channel, flush=True)


def _told(child: Child) -> Served:
    if line := child.channel.readline():
        return Served.decode(line)
    raise ConnectionError  # it ended; how it did is told by who started it


@contextmanager
def _shared_memory(fields: Sequence[Field], output: Field) -> Iterator[_SharedMemory]:
    sizes = sum(field.size for field in fields), output.size
    with kinds.memfd(sizes[0]) as source, kinds.memfd(sizes[1]) as target:
        inputs = arrays(mmap.mmap(source, sizes[0]), fields)
        (result,) = arrays(mmap.mmap(target, sizes[1]), [output]).values()
        yield _SharedMemory((source, target), inputs, result)


@contextmanager
def _pipes(output: Field) -> Iterator[_Pipes]:
    theirs_read, ours_write = os.pipe()
    ours_read, theirs_write = os.pipe()
    try:
        with os.fdopen(ours_write, "wb") as source, os.fdopen(ours_read, "rb") as target:
            yield _Pipes((theirs_read, theirs_write), source, target, output.size)
    finally:
        os.close(theirs_read)
        os.close(theirs_write)


def _route(way: Passing, fields: Sequence[Field], output: Field) -> AbstractContextManager[_Route]:
    return _shared_memory(fields, output) if way.shared else _pipes(output)


def pass_all(
    ways: Sequence[Passing] = PASSINGS, *, cache: Path | None = None
) -> list[Passed | NotObservable]:
    """Pass tensors in every way, one server after the other.

    Parameters
    ----------
    ways
        What to try.
    cache
        Folder for the model; by default a temporary one that is removed at the end.
    """
    with tempfile.TemporaryDirectory(prefix="hugeprobe-") as temporary:
        return [pass_tensors(way, cache=cache or Path(temporary)) for way in ways]


def pass_tensors(
    way: Passing, workload: bert.Bert = bert.TINY, shape: Shape | None = None, *, cache: Path
) -> Passed | NotObservable:
    """Start a server, pass it tensors in one ``way`` three times, and count the last.

    Parameters
    ----------
    way
        One of :data:`PASSINGS`.
    workload
        The model.
    shape
        Shape of its inputs, by default the largest that it is measured with.
    cache
        Folder for the model.
    """
    linux.require_linux()
    if refusal := inference.missing(way.runtime) or inference.too_little(workload):
        return refusal
    model = inference.model_file(workload, way.runtime, cache, _TIMEOUT)
    if isinstance(model, NotObservable):
        return model
    shape = shape or max(workload.shapes)
    inputs = [workload.inputs(shape, seed) for seed in range(_ROUNDS)]
    fields = tuple(Field(name, str(array.dtype), array.shape) for name, array in inputs[0].items())
    output = Field("last_hidden_state", "float32", (*shape, workload.config.hidden_size))
    with _route(way, fields, output) as route:
        source, target = route.handed_on
        request = Request(
            str(model),
            way.runtime.name,
            inference.usable_threads(),
            fields,
            output,
            source,
            target,
            way.shared,
            way.static,
        )
        with children.talking(_SERVER, [], {}, _TIMEOUT, route.handed_on) as child:
            return _rounds(way, request, route, child, inputs)


def _rounds(
    way: Passing, request: Request, route: _Route, child: Child, inputs: Sequence[Inputs]
) -> Passed:
    print(request.encode(), file=child.channel, flush=True)
    *earlier, last = inputs
    for each in earlier:
        route.exchange(child, each)
    moved = [_moved(child.pid)]
    served, output = route.exchange(child, last)
    moved.append(_moved(child.pid))
    copies = _copies(child.pid, last[request.inputs[0].name].tobytes(), output)
    child.connection.shutdown(socket.SHUT_WR)  # which ends the server
    return Passed(
        way,
        request.input_size + request.output.size,
        _difference(*moved),
        copies,
        served,
        np.frombuffer(output, request.output.dtype).reshape(request.output.shape),
    )


def _moved(pid: int) -> int | NotObservable:
    """Return the bytes that read and write calls of a process have moved (``proc_pid_io(5)``)."""
    try:
        counted = psutil.Process(pid).io_counters()
    except (psutil.Error, OSError, NotImplementedError):
        return NotObservable("this system does not tell what a process reads and writes")
    return int(counted.read_chars + counted.write_chars)


def _difference(earlier: int | NotObservable, later: int | NotObservable) -> int | NotObservable:
    if isinstance(earlier, NotObservable):
        return earlier
    return later if isinstance(later, NotObservable) else later - earlier


def _copies(pid: int, inputs: bytes, output: bytes) -> Copies | NotObservable:
    """Search the private memory of a process for both, whole."""
    found = [0, 0]
    try:
        with Path(f"/proc/{pid}/mem").open("rb", buffering=0) as memory:
            for mapping in smaps.snapshot(pid):
                if mapping.anonymous_kib and mapping.permissions == "rw-p":
                    found[0] += _places(memory, mapping, inputs)
                    found[1] += _places(memory, mapping, output)
    except (OSError, smaps.NoSmapsError, NotPermittedError):
        return NotObservable("this system does not show the memory of a process to its parent")
    return Copies(*found)


def _places(memory: FileIO, mapping: smaps.Mapping, sought: bytes) -> int:
    """Count where ``sought`` begins in a mapping, which is read in pieces that overlap."""
    count = 0
    for at in range(mapping.start, mapping.end, _CHUNK):
        memory.seek(at)
        count += memory.read(min(_CHUNK + len(sought) - 1, mapping.end - at)).count(sought)
    return count
