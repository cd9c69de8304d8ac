"""A model that is nearly all weights, in a file for each matrix, as large models are exported.

Inference is a few products with one vector; what is measured is the load. Both runtimes map files
of weights, but what they compute with may be a copy in another layout, in anonymous memory.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Final

import numpy as np

from hugeprobe.errors import BadRequestError
from hugeprobe.workloads.base import Drawn, Inputs, Shape, Stateless, generator
from hugeprobe.workloads.graphs import Graph

if TYPE_CHECKING:
    from onnx import ModelProto


@dataclass(frozen=True, slots=True)
class LayersConfig:
    """Sizes of the model.

    Parameters
    ----------
    layers
        Number of square matrices, each in a file of its own from 1 MiB on.
    width
        Rows and columns of each.
    """

    layers: int
    width: int

    @property
    def kib(self) -> int:
        """Size of all matrices."""
        return self.layers * self.width**2 * 4 // 1024


@dataclass(frozen=True, slots=True)
class Shards(Drawn[LayersConfig], Stateless):
    """A stack of dense layers; a shape is ``(batch, width)``."""

    shards: ClassVar[bool] = True

    @property
    def description(self) -> str:
        """What it is, in one sentence."""
        return (
            f"Dense layers in fp32, {self.config.kib // 1024} MiB in {self.config.layers} files, "
            "with next to no arithmetic."
        )

    def build(self) -> ModelProto:
        """Build it from its sizes, with weights from its seed."""
        return build(self.config, self.weight_seed)

    def inputs(self, shape: Shape, seed: int) -> Inputs:
        """Draw normally distributed vectors.

        Raises
        ------
        BadRequestError
            If they are not as long as the matrices have rows.
        """
        if shape[-1] != self.config.width:
            raise BadRequestError(
                f"{self.name} reads vectors of {self.config.width} numbers, "
                f"but was given {shape[-1]}; choose such vectors."
            )
        return {"values": generator(seed, shape).standard_normal(shape, dtype=np.float32)}


def build(config: LayersConfig, seed: int) -> ModelProto:
    """Build the stack: vectors in, ``(batch, width)`` vectors out.

    Raises
    ------
    ModuleNotFoundError
        If the package onnx is not installed.
    """
    graph = Graph(rng=np.random.default_rng(seed))
    values = "values"
    spread = math.sqrt(2 / config.width)  # keeps the size of the numbers from layer to layer
    for layer in range(config.layers):
        name = f"layer.{layer}"
        weights = graph.draw(f"{name}.weight", config.width, config.width, deviation=spread)
        values = graph.add("Relu", graph.add("MatMul", values, weights))
    graph.add("Identity", values, output="found")
    vectors = (np.float32, ("batch", config.width))
    return graph.model("shards", inputs={"values": vectors}, outputs={"found": vectors})


GIB: Final = Shards(
    name="shards-1gib",
    config=LayersConfig(layers=16, width=4096),
    shapes=((1, 4096), (2, 4096), (1, 4096)),
    memory_kib=3584 * 1024,
)
"""16 files of 64 MiB."""

SMALL: Final = Shards(
    name="shards-64mib",
    config=LayersConfig(layers=4, width=2048),
    shapes=((1, 2048), (2, 2048), (1, 2048)),
    memory_kib=512 * 1024,
)
"""4 files of 16 MiB, for pages that show the same in seconds."""
