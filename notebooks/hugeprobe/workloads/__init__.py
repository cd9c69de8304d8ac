"""The models that are measured, by name; each module holds one kind."""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from hugeprobe.errors import BadRequestError
from hugeprobe.workloads import bert, decoder, embedding, shards, yolov5
from hugeprobe.workloads.base import Inputs, Model, Outputs, Shape, Workload
from hugeprobe.workloads.detector import DETECTOR

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["WORKLOADS", "Inputs", "Model", "Outputs", "Shape", "Workload", "find"]

_ALL: Final[tuple[Workload, ...]] = (
    DETECTOR,
    yolov5.SMALL,
    bert.MINI,
    bert.MINI_BATCHES,
    bert.BASE,
    bert.TINY,
    embedding.GIB,
    decoder.GPT,
    shards.GIB,
    shards.SMALL,
)

WORKLOADS: Final[Mapping[str, Workload]] = MappingProxyType({work.name: work for work in _ALL})
"""Every workload under its name."""


def find(spec: str) -> Workload:
    """Return the workload of that name, or the one that runs a local model.

    Parameters
    ----------
    spec
        A name; or a model, as :func:`hugeprobe.workloads.local.find` and
        :func:`hugeprobe.workloads.huggingface.find` take it; or what
        :meth:`Workload.spec` returned.

    Raises
    ------
    BadRequestError
        If there is none.
    """
    if spec in WORKLOADS:
        return WORKLOADS[spec]
    # Not at the top: a process that measures a workload of a name imports no more than that.
    from hugeprobe.workloads import huggingface, local  # noqa: PLC0415

    if spec.startswith("{"):
        return local.decode(spec)
    if work := local.find(spec) or huggingface.find(spec):
        return work
    raise BadRequestError(
        f"There is no workload named {spec!r}; choose one of {', '.join(WORKLOADS)}, "
        "or give a model: a file that ends in .onnx or .xml, or a folder of Hugging Face."
    )
