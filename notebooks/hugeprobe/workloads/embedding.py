"""A recommendation model: rows of large tables, summed, and a small network on top.

The shape is that of DLRM (Naumov et al., 2019, https://arxiv.org/abs/1906.00091). Rows are asked
for at random with equal chances, which defeats the TLB most; real requests favour some rows.

The tables are inside the ONNX file, so that both runtimes hold them in anonymous memory. Tables in
files of their own would be mapped by both, and backed by whatever the page cache holds.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from hugeprobe.workloads.base import Drawn, Inputs, Shape, Stateless, generator
from hugeprobe.workloads.graphs import Graph

if TYPE_CHECKING:
    from onnx import ModelProto


@dataclass(frozen=True, slots=True)
class TablesConfig:
    """Sizes of the model.

    Parameters
    ----------
    tables
        Number of tables, one for each kind of thing that a user did.
    rows
        Of each table.
    width
        Numbers in a row.
    hidden
        Width of the layer between the sums and the answer.
    """

    tables: int
    rows: int
    width: int
    hidden: int = 64

    @property
    def kib(self) -> int:
        """Size of all tables."""
        return self.tables * self.rows * self.width * 4 // 1024


@dataclass(frozen=True, slots=True)
class Embedding(Drawn[TablesConfig], Stateless):
    """A recommendation model whose batch and number of lookups are dynamic.

    A shape is ``(batch, lookups in each table)``.
    """

    @property
    def description(self) -> str:
        """What it is, in one sentence."""
        return (
            f"Recommendation model in fp32: rows of {self.config.tables} tables of together "
            f"{self.config.kib // 1024} MiB are gathered at random and summed."
        )

    def build(self) -> ModelProto:
        """Build it from its sizes, with weights from its seed."""
        return build(self.config, self.weight_seed)

    def inputs(self, shape: Shape, seed: int) -> Inputs:
        """Draw row numbers, independently for each table."""
        rng, config = generator(seed, shape), self.config
        return {
            _rows(table): rng.integers(config.rows, size=shape) for table in range(config.tables)
        }


def _rows(table: int) -> str:
    return f"rows.{table}"


def build(config: TablesConfig, seed: int) -> ModelProto:
    """Build the model: row numbers of every table in, ``(batch, 1)`` probabilities out.

    Raises
    ------
    ModuleNotFoundError
        If the package onnx is not installed.
    """
    graph = Graph(rng=np.random.default_rng(seed))
    sums = []
    for table in range(config.tables):
        values = graph.draw(f"table.{table}", config.rows, config.width)
        rows = graph.add("Gather", values, _rows(table))
        sums.append(graph.add("ReduceSum", rows, graph.integers(1), keepdims=0))
    joined = graph.add("Concat", *sums, axis=1)
    width = config.tables * config.width
    hidden = graph.add("MatMul", joined, graph.draw("hidden", width, config.hidden, deviation=1.0))
    spread = 1 / math.sqrt(config.hidden)
    answer = graph.draw("answer", config.hidden, 1, deviation=spread)
    graph.add(
        "Sigmoid", graph.add("MatMul", graph.add("Relu", hidden), answer), output="probability"
    )
    numbers = (np.int64, ("batch", "lookups"))
    return graph.model(
        "recommendation",
        inputs={_rows(table): numbers for table in range(config.tables)},
        outputs={"probability": (np.float32, ("batch", 1))},
    )


GIB: Final = Embedding(
    name="embedding-1gib",
    config=TablesConfig(tables=8, rows=1 << 21, width=16),
    shapes=((1024, 32), (4096, 32), (1024, 32), (4096, 32)),
    memory_kib=3584 * 1024,
)
"""Tables of 1 GiB, rows of 64 bytes (one cache line): just within what one ONNX file may hold."""
