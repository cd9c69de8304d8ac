"""A model that is nearly all weights, in a file for each matrix, as large models are exported.

Inference is a few products with one vector; what is measured is the load. Both runtimes map files
of weights, but what they compute with may be a copy in another layout, in anonymous memory.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from hugeprobe.errors import BadRequestError
from hugeprobe.workloads.base import Inputs, Shape, Stateless, generator
from hugeprobe.workloads.graphs import Graph, built

if TYPE_CHECKING:
    from pathlib import Path

    from onnx import ModelProto

    from hugeprobe.errors import NotObservable


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
class Shards(Stateless):
    """A stack of dense layers.

    Parameters
    ----------
    name
        Short name.
    config
        Sizes of the model.
    shapes
        ``(batch, width)``.
    memory_kib
        Upper bound of the resident memory of one run, in KiB.
    weight_seed
        Seed of the weights; inputs have a seed of their own.
    """

    name: str
    config: LayersConfig
    shapes: tuple[Shape, ...]
    memory_kib: int
    weight_seed: int = 0

    @property
    def description(self) -> str:
        """What it is, in one sentence."""
        return (
            f"Dense layers in fp32, {self.config.kib // 1024} MiB in {self.config.layers} files, "
            "with next to no arithmetic."
        )

    @property
    def licence(self) -> str:
        """SPDX identifier of the licence of the weights."""
        return "Apache-2.0"

    @property
    def source(self) -> str:
        """Where the weights come from."""
        return f"random weights, seed {self.weight_seed}, built here"

    def model_path(self, cache: Path) -> Path | NotObservable:
        """Return the ONNX file, built on first use with its shards (about 10 s for each GiB)."""
        recipe = (self.config, self.weight_seed)
        return built(cache, self.name, recipe, __file__, lambda: build(*recipe), shards=True)

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
