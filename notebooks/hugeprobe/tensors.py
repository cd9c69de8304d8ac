"""Tensors on huge pages: memory that is aligned, rounded up, advised, and kept for the next shape.

What works under every placement rule and with every allocator is to lay out the memory oneself:
start on a PMD boundary, round up to whole PMDs, advise, then touch. A :class:`HugePool` does that
for NumPy arrays, and both runtimes compute in them without a copy::

    import openvino
    from hugeprobe.tensors import HugePool, bind_openvino

    request = openvino.Core().compile_model("bert.onnx", "CPU").create_infer_request()
    with HugePool() as pool:
        for text in texts:  # each of another length
            shape = (1, len(text))
            ids = pool.array("ids", shape, "int64")
            mask = pool.array("mask", shape, "int64")
            hidden = pool.array("hidden", (*shape, 768), "float32")
            ids[:], mask[:] = text, 1
            tensors = {"input_ids": ids, "attention_mask": mask, "last_hidden_state": hidden}
            bind_openvino(request, tensors)
            request.infer()  # the result is in hidden

A name is one piece of memory. Its arrays begin at the same address and overlap: asking for the next
one is like reusing the buffer of the last. What a new array holds is undefined, as in
:func:`numpy.empty`.

**Lifetime.** Memory lives as long as the pool or any array, view or tensor on it, and is unmapped
at the moment the last of them goes: at the end of the ``with`` block if the program holds none.
Closing a pool therefore never takes memory away from an array. A runtime holds bare pointers, which
nobody can count: :func:`bind_openvino` and :func:`bind_onnxruntime` hold the arrays on its behalf,
until the request goes.

**Output shapes.** They have to be known before the inference, which for an encoder they are:
``[batch, length, hidden]``. OpenVINO also takes an output that is larger than the result and fills
the front of it; ONNX Runtime wants the exact shape.

**Threads.** A pool is not locked, as two threads that use one name would overwrite each other's
tensors anyway. Give each inference request a pool of its own.

**Fork.** Parent and child have the memory each for itself, but the kernel copies what either writes
in base pages. Make the pool after the fork.
"""

from __future__ import annotations

import importlib
import math
import mmap
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final
from weakref import WeakKeyDictionary

import numpy as np

from hugeprobe import areas
from hugeprobe.areas import Resident
from hugeprobe.errors import BadRequestError, NoMemoryError, NotObservable
from hugeprobe.host import usable_memory_kib
from hugeprobe.linux import (
    MAP_ANONYMOUS,
    MAP_NORESERVE,
    MAP_PRIVATE,
    Advice,
    advise,
    require_linux,
)
from hugeprobe.placement import Span
from hugeprobe.sizes import KIB, MIB, PageSizes, format_kib, page_sizes

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import DTypeLike, NDArray

    from hugeprobe.workloads import Shape

_RESERVE: Final = 64 * MIB


class HugePool:
    """Memory for tensors, by name; a name's memory grows to the largest tensor asked for.

    Where the kernel gives no huge pages the pool works all the same, on base pages.

    Parameters
    ----------
    reserve
        Bytes of address space for each name. Within it a name grows in place: the address stays,
        and only what is new faults. A larger tensor gets a new piece of its own size, and what was
        there before faults again. Address space costs no memory, except that
        ``vm.overcommit_memory=2`` counts it.
    prefault
        Whether to fault memory in when a name grows, rather than at the first write.
    sizes
        Page sizes; those of this machine if not given.

    Raises
    ------
    NotLinuxError
        If this is another operating system.
    """

    def __init__(
        self, *, reserve: int = _RESERVE, prefault: bool = False, sizes: PageSizes | None = None
    ) -> None:
        require_linux()
        self._reserve = reserve
        self._prefault = prefault
        self._sizes = sizes or page_sizes()
        self._blocks: dict[str, _Block] = {}
        self._closed = False

    def array(self, name: str, shape: Shape, dtype: DTypeLike = np.float32) -> NDArray[Any]:
        """Return the memory called ``name`` as a C-contiguous array that starts on a PMD boundary.

        Raises
        ------
        NoMemoryError
            If the name would have to grow by more than this process may use, or the kernel refuses
            the address space (``ulimit -v``).
        BadRequestError
            If the pool is closed, or no array of that shape and type can be made.
        """
        kind = np.dtype(dtype)
        if self._closed or kind.hasobject or min(shape, default=0) < 0:
            raise BadRequestError(
                f"An array of shape {shape} and type {kind} was asked for, but "
                + ("the pool is closed. " if self._closed else "no such array can be made. ")
                + "Ask an open pool for sizes of at least 0 and for plain numbers."
            )
        block = self._grown(name, math.prod(shape) * kind.itemsize)
        return np.ndarray(shape, kind, buffer=block.memory, offset=block.offset)

    def _grown(self, name: str, length: int) -> _Block:
        """Return the block called ``name``, of which at least ``length`` bytes are in use."""
        block = self._blocks.get(name)
        if block is None or length > block.span.length:
            block = _map(max(length, self._reserve), self._sizes)
        if length > block.used:
            _check_room(name, length - block.used)
            if self._prefault:
                block.prefault(length, self._sizes.base)
            block.used = length
        self._blocks[name] = block
        return block

    @property
    def advised(self) -> bool:
        """Whether the kernel took the advice; one without THP refuses it (``EINVAL``)."""
        return all(block.advised for block in self._blocks.values())

    @property
    def used_kib(self) -> int:
        """The largest tensor of each name, added up."""
        return sum(_rounded(block.used, KIB) for block in self._blocks.values()) // KIB

    @property
    def overhead_kib(self) -> int:
        """What rounding up to whole PMDs adds to :attr:`used_kib` where all memory is huge."""
        whole = sum(_rounded(block.used, self._sizes.pmd) for block in self._blocks.values())
        return whole // KIB - self.used_kib

    def resident(self) -> Resident | NotObservable:
        """Return what the pool holds in memory, and how much of it is huge."""
        if not self.advised:
            return NotObservable(
                "the kernel takes no advice on huge pages, and without it smaps does not tell the "
                "pool from its neighbours"
            )
        held = [areas.resident(block.span) for block in self._blocks.values()]
        return Resident(sum(each.anon_kib for each in held), sum(each.huge_kib for each in held))

    def close(self) -> None:
        """Give back all memory that no array uses; the rest goes with its last array."""
        self._closed = True
        self._blocks.clear()

    def __enter__(self) -> HugePool:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


@dataclass(slots=True)
class _Block:
    """The memory of one name.

    Parameters
    ----------
    memory
        The mapping. It is never closed: arrays refer to it, and the last reference unmaps it.
    offset
        Bytes in front of the first PMD boundary.
    span
        The whole PMDs.
    advised
        Whether the kernel took the advice.
    used
        Bytes of the largest tensor so far.
    """

    memory: mmap.mmap
    offset: int
    span: Span
    advised: bool
    used: int = 0

    def prefault(self, length: int, base: int) -> None:
        """Fault in what lies between the bytes in use and ``length``, and change none of them."""
        begin, end = _rounded(self.used, base), _rounded(length, base)
        try:
            advise(self.span.start + begin, end - begin, Advice.POPULATE_WRITE)
        except OSError:  # before Linux 5.14
            pages = np.ndarray(self.span.length, np.uint8, self.memory, self.offset)
            pages[begin:end:base] = 0


def _map(length: int, sizes: PageSizes) -> _Block:
    """Map and advise whole PMDs for ``length`` bytes.

    A mapping is placed where the kernel likes, so it is made one PMD longer to have a boundary in
    it. At least one base page stays unadvised at each end, which keeps the PMDs a VMA of their own.
    """
    length = _rounded(max(length, 1), sizes.pmd)
    try:
        # Private, because shared anonymous memory follows other settings (shmem_enabled).
        flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE
        memory = mmap.mmap(-1, length + sizes.pmd + sizes.base, flags=flags)
    except (OSError, OverflowError) as error:
        raise NoMemoryError(
            f"{format_kib(length / KIB)} of address space was needed for a tensor, but the kernel "
            f"refused it: {error}. Choose a smaller reserve, or look at `ulimit -v`."
        ) from error
    address = np.ndarray(1, np.uint8, memory).ctypes.data
    start = _rounded(address + sizes.base, sizes.pmd)
    span = Span(start, start + length)
    try:
        advise(span.start, span.length, Advice.HUGEPAGE)
        advised = True
    except OSError:  # a kernel without THP
        advised = False
    return _Block(memory, start - address, span, advised)


def _rounded(value: int, unit: int) -> int:
    return -(-value // unit) * unit


def _check_room(name: str, more: int) -> None:
    """Refuse to grow beyond what the kernel would end this process for."""
    usable = usable_memory_kib()
    if more > usable * KIB:
        raise NoMemoryError(
            f"'{name}' was to grow by {format_kib(more / KIB)}, but this process may use "
            f"{format_kib(usable)} more. Choose a smaller shape, or give it more memory."
        )


# Runtimes -----------------------------------------------------------------------------------------

_BOUND: Final[WeakKeyDictionary[Any, dict[str, NDArray[Any]]]] = WeakKeyDictionary()
"""Arrays by the request that has a pointer to them, and by the name of its tensor."""


def openvino_tensor(array: NDArray[Any]) -> Any:
    """Return an ``openvino.Tensor`` that *is* the array; it keeps the array alive.

    Raises
    ------
    BadRequestError
        If OpenVINO is not installed, or has no such tensor without a copy.
    """
    openvino = _runtime("openvino")
    try:
        tensor = openvino.Tensor(array, shared_memory=True)
    except (RuntimeError, ValueError) as error:
        raise _copied("OpenVINO", array) from error
    if array.size and tensor.data.ctypes.data != array.ctypes.data:
        raise _copied("OpenVINO", array)
    return tensor


def onnxruntime_value(array: NDArray[Any]) -> Any:
    """Return an ``onnxruntime.OrtValue`` that *is* the array; it keeps the array alive.

    Raises
    ------
    BadRequestError
        If ONNX Runtime is not installed, or has no such value without a copy.
    """
    onnxruntime = _runtime("onnxruntime")
    try:
        value = onnxruntime.OrtValue.ortvalue_from_numpy(array)
    except (RuntimeError, ValueError) as error:
        raise _copied("ONNX Runtime", array) from error
    # It copies what is not contiguous without saying so.
    if array.size and value.data_ptr() != array.ctypes.data:
        raise _copied("ONNX Runtime", array)
    return value


def bind_openvino(request: Any, arrays: Mapping[str, NDArray[Any]]) -> None:
    """Let an ``openvino.InferRequest`` read inputs from, and write outputs to, arrays.

    The request holds them until others are bound under the same names, or it goes.

    Parameters
    ----------
    request
        From ``CompiledModel.create_infer_request``.
    arrays
        By the name of the model's input or output.

    Raises
    ------
    BadRequestError
        If an array cannot be used without a copy.
    """
    for name, array in arrays.items():
        request.set_tensor(name, openvino_tensor(array))
        _BOUND.setdefault(request, {})[name] = array


def bind_onnxruntime(
    binding: Any, inputs: Mapping[str, NDArray[Any]], outputs: Mapping[str, NDArray[Any]]
) -> None:
    """Let a run of ONNX Runtime read ``inputs`` from, and write ``outputs`` to, arrays.

    The binding holds them until others are bound under the same names, or it goes.

    Parameters
    ----------
    binding
        From ``InferenceSession.io_binding``; run it with ``run_with_iobinding``.
    inputs, outputs
        By the name of the model's input or output. An output has the shape of the result.

    Raises
    ------
    BadRequestError
        If an array cannot be used without a copy.
    """
    for arrays, bind in (
        (inputs, binding.bind_ortvalue_input),
        (outputs, binding.bind_ortvalue_output),
    ):
        for name, array in arrays.items():
            bind(name, onnxruntime_value(array))
            _BOUND.setdefault(binding, {})[name] = array


def _runtime(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        raise BadRequestError(
            f"A tensor of the package {name} was asked for, but it is not installed. "
            f"Install it with `python -m pip install {name}`."
        ) from error


def _copied(runtime: str, array: NDArray[Any]) -> BadRequestError:
    contiguous = "" if array.flags.c_contiguous else ", not contiguous,"
    return BadRequestError(
        f"{runtime} was to compute in an array of shape {array.shape} and type {array.dtype}"
        f"{contiguous} and would not without a copy. Give it a whole array of a pool, of a type "
        "that the model has."
    )
