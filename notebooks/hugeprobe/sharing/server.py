"""A server that gets tensors from another process: ``python -m hugeprobe.sharing.server FD``.

It is started by :mod:`hugeprobe.sharing.handover`. Either the tensors come and go through pipes, or
the runtime computes from one piece of shared memory into another.
"""

from __future__ import annotations

import importlib
import json
import math
import mmap
import os
import resource
import socket
import sys
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, TextIO, TypeAlias

import numpy as np
from numpy.typing import NDArray

from hugeprobe import runtimes
from hugeprobe.loaders import LOADERS, compile_openvino, open_onnxruntime

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from hugeprobe.runtimes import RuntimeName

Arrays: TypeAlias = dict[str, NDArray[Any]]


@dataclass(frozen=True, slots=True)
class Field:
    """A tensor in a piece of memory, behind those before it.

    Parameters
    ----------
    name
        Its name in the model.
    dtype
        NumPy's name of the type of its elements.
    shape
        Its shape.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]

    @property
    def size(self) -> int:
        """Its bytes."""
        return math.prod(self.shape) * np.dtype(self.dtype).itemsize


@dataclass(frozen=True, slots=True)
class Request:
    """What the server is told.

    Parameters
    ----------
    model
        The ONNX file.
    runtime
        Library to use.
    threads
        Threads that compute.
    inputs, output
        The tensors.
    source, target
        Descriptors that inputs come from and the output goes to.
    shared
        Whether these are shared memory; else they are pipes.
    static
        OpenVINO: whether the shapes are fixed before compilation.
    """

    model: str
    runtime: RuntimeName
    threads: int
    inputs: tuple[Field, ...]
    output: Field
    source: int
    target: int
    shared: bool
    static: bool

    @property
    def input_size(self) -> int:
        """Bytes of all inputs."""
        return sum(field.size for field in self.inputs)

    def encode(self) -> str:
        """Return it as one line of JSON."""
        return json.dumps(asdict(self))

    @staticmethod
    def decode(line: str) -> Request:
        """Read it back from :meth:`encode`."""
        told = json.loads(line)
        inputs, output = tuple(map(_field, told["inputs"])), _field(told["output"])
        return Request(**{**told, "inputs": inputs, "output": output})

    def loading(self) -> runtimes.Request:
        """Return what the loaders of a runtime are told."""
        return runtimes.Request(
            "", self.model, (), 0, 0, self.runtime, self.threads, mmap=True, arena=True
        )


def _field(told: dict[str, Any]) -> Field:
    return Field(told["name"], told["dtype"], tuple(told["shape"]))


@dataclass(frozen=True, slots=True)
class Served:
    """What the server tells after each inference.

    Parameters
    ----------
    minor_faults
        Of the whole process while it got the inputs, inferred and gave the output.
    bound, in_place
        Tensors of which the runtime tells its address, and those among them that it has in the
        shared memory itself.
    """

    minor_faults: int
    bound: int
    in_place: int

    def encode(self) -> str:
        """Return it as one line of JSON."""
        return json.dumps(asdict(self))

    @staticmethod
    def decode(line: str) -> Served:
        """Read it back from :meth:`encode`."""
        return Served(**json.loads(line))


@dataclass(frozen=True, slots=True)
class _Serving:
    """A loaded model with its tensors: how it infers once, and where the runtime has them.

    Parameters
    ----------
    infer
        Gets inputs, infers, gives the output.
    addresses
        Pairs of an address that the runtime tells and the one that it was given.
    kept
        Arrays in memory that the runtime knows by address only: it must outlive the binding.
    """

    infer: Callable[[], object]
    addresses: Callable[[], Sequence[tuple[int, int]]] = tuple
    kept: Sequence[NDArray[Any]] = ()


def arrays(memory: bytes | mmap.mmap, fields: Sequence[Field]) -> Arrays:
    """Return the tensors that lie one behind the other in ``memory``, without copying them."""
    found, offset = {}, 0
    for field in fields:
        flat = np.frombuffer(memory, field.dtype, math.prod(field.shape), offset)
        found[field.name] = flat.reshape(field.shape)
        offset += field.size
    return found


def _through_pipes(request: Request) -> _Serving:
    model = LOADERS[request.runtime](request.loading())
    source, target = os.fdopen(request.source, "rb"), os.fdopen(request.target, "wb")

    def infer() -> None:
        inputs = arrays(source.read(request.input_size), request.inputs)
        (output,) = model(inputs)
        target.write(output.data)
        target.flush()

    return _Serving(infer)


def _openvino(request: Request, inputs: Arrays, output: NDArray[Any]) -> _Serving:
    openvino: Any = importlib.import_module("openvino")
    shapes = {field.name: field.shape for field in request.inputs} if request.static else None
    compiled = compile_openvino(request.loading(), shapes=shapes)
    running = compiled.create_infer_request()
    for name, array in inputs.items():
        running.set_tensor(name, openvino.Tensor(array, shared_memory=True))
    running.set_output_tensor(openvino.Tensor(output, shared_memory=True))

    def addresses() -> Sequence[tuple[int, int]]:
        told = [running.get_tensor(name).data for name in inputs]
        told.append(running.get_output_tensor().data)
        given = [*inputs.values(), output]
        return [(a.ctypes.data, b.ctypes.data) for a, b in zip(told, given, strict=True)]

    return _Serving(running.infer, addresses, (*inputs.values(), output))


def _onnxruntime(request: Request, inputs: Arrays, output: NDArray[Any]) -> _Serving:
    session = open_onnxruntime(request.loading())
    binding = session.io_binding()
    for name, array in inputs.items():
        binding.bind_input(name, "cpu", 0, array.dtype, array.shape, array.ctypes.data)
    binding.bind_output(
        request.output.name, "cpu", 0, output.dtype, output.shape, output.ctypes.data
    )
    return _Serving(
        lambda: session.run_with_iobinding(binding),
        lambda: [(binding.get_outputs()[0].data_ptr(), output.ctypes.data)],
        (*inputs.values(), output),
    )


def _in_place(request: Request) -> _Serving:
    inputs = arrays(mmap.mmap(request.source, request.input_size), request.inputs)
    memory = mmap.mmap(request.target, request.output.size)
    (output,) = arrays(memory, [request.output]).values()
    bound = {"openvino": _openvino, "onnxruntime": _onnxruntime}[request.runtime]
    return bound(request, inputs, output)


def _serve(channel: TextIO) -> None:
    request = Request.decode(channel.readline())
    serving = _in_place(request) if request.shared else _through_pipes(request)
    while channel.readline():
        faults = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        serving.infer()
        faults = resource.getrusage(resource.RUSAGE_SELF).ru_minflt - faults
        pairs = serving.addresses()
        served = Served(faults, len(pairs), sum(told == given for told, given in pairs))
        channel.write(served.encode() + "\n")
        channel.flush()


def main() -> None:
    """Serve the socket whose descriptor is the first argument, until it is closed."""
    with socket.socket(fileno=int(sys.argv[1])) as connection, connection.makefile("rw") as channel:
        _serve(channel)


if __name__ == "__main__":
    main()
