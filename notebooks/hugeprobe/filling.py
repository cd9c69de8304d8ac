"""Fill tensors of changing shapes, in new NumPy arrays and in a pool, and count what that costs.

Each of the two is a process of its own (``python -m hugeprobe.filling FD``), because an allocator
remembers what it was asked before.
"""

from __future__ import annotations

import json
import math
import socket
import sys
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Final, Literal, TypeAlias

import numpy as np

from hugeprobe import smaps
from hugeprobe.areas import too_much, touch
from hugeprobe.children import talking
from hugeprobe.placement import Span
from hugeprobe.sizes import KIB
from hugeprobe.tensors import HugePool
from hugeprobe.workloads import bert

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from hugeprobe.errors import NotObservable
    from hugeprobe.workloads import Shape

Source: TypeAlias = Literal["new", "pool"]
"""``new``: a NumPy array for each tensor, dropped after it; ``pool``: one name of a
:class:`~hugeprobe.tensors.HugePool`."""

SHAPES: Final = tuple(
    (8, length, bert.BASE.config.hidden_size) for length in (64, 128, 256, 512, 64, 512)
)
"""The result of BERT-base, ``[batch, length, hidden]``, for texts of growing length and back."""
_ITEM: Final = np.dtype(np.float32).itemsize
_TIMEOUT: Final = 60.0


@dataclass(frozen=True, slots=True)
class Filling:
    """One tensor, made and written once.

    Parameters
    ----------
    shape
        Its shape; it is of type float32.
    kib
        Its size.
    minor_faults
        What the first write to every byte of it cost this thread.
    huge_kib
        Huge memory of the process, above what it had before the first tensor.
    overhead_kib
        What rounding up to whole PMDs adds at most; 0 without a pool.
    """

    shape: Shape
    kib: int
    minor_faults: int
    huge_kib: int
    overhead_kib: int


def filled(source: Source, shapes: Sequence[Shape] = SHAPES) -> tuple[Filling, ...] | NotObservable:
    """Fill tensors of ``shapes``, one after another, in a process of its own.

    Raises
    ------
    ProbeError
        If that process failed, or did not finish in time.
    """
    if missing := too_much(2 * _ITEM * max(map(math.prod, shapes))):
        return missing
    with talking("hugeprobe.filling", [], {}, _TIMEOUT) as child:
        fields = map(json.loads, child.steps(json.dumps([source, shapes])))
        return tuple(Filling(**{**each, "shape": tuple(each["shape"])}) for each in fields)


def fill(source: Source, shapes: Sequence[Shape]) -> Iterator[Filling]:
    """Fill tensors of ``shapes`` in this process."""
    with HugePool() as pool:
        before = _huge_kib()
        for shape in shapes:
            array = np.empty(shape, np.float32) if source == "new" else pool.array("tensor", shape)
            start = array.ctypes.data
            faults = touch(Span(start, start + array.nbytes))
            huge = _huge_kib() - before
            yield Filling(shape, array.nbytes // KIB, faults, huge, pool.overhead_kib)
            del array


def _huge_kib() -> int:
    return smaps.snapshot("self").total.anon_huge_kib


def main() -> None:
    """Serve the socket whose descriptor is the first argument: a line for each tensor."""
    with socket.socket(fileno=int(sys.argv[1])) as connection, connection.makefile("rw") as channel:
        source, shapes = json.loads(channel.readline())
        for filling in fill(source, shapes):
            print(json.dumps(asdict(filling)), file=channel, flush=True)
            channel.readline()


if __name__ == "__main__":
    main()
