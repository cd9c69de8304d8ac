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
)

WORKLOADS: Final[Mapping[str, Workload]] = MappingProxyType({work.name: work for work in _ALL})
"""Every workload under its name."""


def find(name: str) -> Workload:
    """Return the workload of that name.

    Raises
    ------
    BadRequestError
        If there is none.
    """
    try:
        return WORKLOADS[name]
    except KeyError:
        raise BadRequestError(
            f"There is no workload named {name!r}; choose one of {', '.join(WORKLOADS)}."
        ) from None
