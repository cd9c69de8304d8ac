"""BERT encoders with random weights, built from a Hugging Face style configuration.

The weights are random because neither the number nor the size of the memory blocks depends on
their values, as :mod:`hugeprobe.realweights` has recorded. The graph is the usual export of
``BertModel``: embeddings, then per layer self-attention under a padding mask and a feed-forward
block with GELU, each with a residual sum and a layer normalisation (Devlin et al., 2018,
https://arxiv.org/abs/1810.04805).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

import numpy as np

from hugeprobe.errors import BadRequestError
from hugeprobe.workloads.base import Drawn, Inputs, Shape, Stateless, generator
from hugeprobe.workloads.graphs import Graph

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from onnx import ModelProto

_MASKED: Final = np.finfo(np.float32).min


@dataclass(frozen=True, slots=True)
class BertConfig:
    """The fields of ``transformers.BertConfig`` that decide sizes, under the same names."""

    hidden_size: int = 768
    num_hidden_layers: int = 12
    num_attention_heads: int = 12
    intermediate_size: int = 3072
    vocab_size: int = 30522
    max_position_embeddings: int = 512
    layer_norm_eps: float = 1e-12
    initializer_range: float = 0.02

    def __post_init__(self) -> None:
        if self.hidden_size % self.num_attention_heads:
            raise BadRequestError(
                f"A BERT of hidden_size {self.hidden_size} cannot be split over "
                f"{self.num_attention_heads} attention heads; choose a divisor."
            )


@dataclass(frozen=True, slots=True)
class Bert(Drawn[BertConfig], Stateless):
    """A BERT encoder whose batch and length are dynamic; a shape is ``(batch, length)``."""

    @property
    def description(self) -> str:
        """What it is, in one sentence."""
        c = self.config
        return (
            f"BERT encoder in fp32, {c.num_hidden_layers} layers of width {c.hidden_size}, "
            "batch and length dynamic."
        )

    def build(self) -> ModelProto:
        """Build it from its sizes, with weights from its seed."""
        return build(self.config, self.weight_seed)

    def inputs(self, shape: Shape, seed: int) -> Inputs:
        """Draw token numbers, and a mask that pads each text after half its length or later.

        Raises
        ------
        BadRequestError
            If the length exceeds the positions that the model has embeddings for.
        """
        batch, length = shape
        if length > self.config.max_position_embeddings:
            raise BadRequestError(
                f"{self.name} reads up to {self.config.max_position_embeddings} tokens, "
                f"but was given {length}; choose a shorter input."
            )
        rng = generator(seed, shape)
        lengths = rng.integers(length // 2, length, size=(batch, 1), endpoint=True)
        return {
            "input_ids": rng.integers(self.config.vocab_size, size=shape, dtype=np.int64),
            "attention_mask": (np.arange(length) < np.maximum(lengths, 1)).astype(np.int64),
        }


def sizes(config: BertConfig) -> dict[str, tuple[int, ...]]:
    """Return the shape of every array of weights, by name."""
    width, inner = config.hidden_size, config.intermediate_size
    shapes: dict[str, tuple[int, ...]] = {
        "embeddings.word": (config.vocab_size, width),
        "embeddings.position": (config.max_position_embeddings, width),
        "embeddings.token_type": (width,),
        "embeddings.norm.scale": (width,),
        "embeddings.norm.bias": (width,),
    }
    for layer in range(config.num_hidden_layers):
        for name, rows, columns in (
            ("query", width, width),
            ("key", width, width),
            ("value", width, width),
            ("attended", width, width),
            ("inner", width, inner),
            ("outer", inner, width),
        ):
            shapes[f"layer.{layer}.{name}.weight"] = (rows, columns)
            shapes[f"layer.{layer}.{name}.bias"] = (columns,)
        for name in ("attended.norm", "outer.norm"):
            shapes[f"layer.{layer}.{name}.scale"] = (width,)
            shapes[f"layer.{layer}.{name}.bias"] = (width,)
    return shapes


def weights(config: BertConfig, seed: int) -> dict[str, NDArray[np.float32]]:
    """Draw every weight of the encoder, by name, as float32."""
    rng = np.random.default_rng(seed)
    drawn = {}
    for name, shape in sizes(config).items():
        values = rng.standard_normal(shape, dtype=np.float32)
        values *= np.float32(config.initializer_range)
        drawn[name] = values + np.float32(name.endswith(".scale"))  # scales lie around one
    return drawn


def _embeddings(graph: Graph, config: BertConfig) -> str:
    words = graph.add("Gather", "embeddings.word", "input_ids")
    shape = graph.add("Shape", "input_ids")
    length = graph.add("Slice", shape, graph.integers(1), graph.integers(2))
    start = graph.integers(0)
    positions = graph.add("Slice", "embeddings.position", start, length, start)
    summed = graph.add("Add", graph.add("Add", words, "embeddings.token_type"), positions)
    return graph.norm(summed, "embeddings.norm", config.layer_norm_eps)


def _mask(graph: Graph) -> str:
    """Turn 1 (read) and 0 (padding) into 0 and the most negative number, to add to the scores."""
    spread = graph.add("Unsqueeze", "attention_mask", graph.integers(1, 2))
    padding = graph.add("Sub", graph.scalar(1.0), graph.add("Cast", spread, to=1))  # 1 is float32
    return graph.add("Mul", padding, graph.scalar(float(_MASKED)))


def _attention(graph: Graph, config: BertConfig, values: str, mask: str, layer: str) -> str:
    heads = config.num_attention_heads
    size = config.hidden_size // heads

    def split(name: str, *order: int) -> str:
        dense = graph.dense(values, f"{layer}.{name}")
        parts = graph.add("Reshape", dense, graph.integers(0, 0, heads, size))
        return graph.add("Transpose", parts, perm=order)

    scores = graph.add("MatMul", split("query", 0, 2, 1, 3), split("key", 0, 2, 3, 1))
    scaled = graph.add("Div", scores, graph.scalar(np.sqrt(size)))
    shares = graph.add("Softmax", graph.add("Add", scaled, mask), axis=-1)
    context = graph.add("MatMul", shares, split("value", 0, 2, 1, 3))
    joined = graph.add("Transpose", context, perm=(0, 2, 1, 3))
    return graph.add("Reshape", joined, graph.integers(0, 0, config.hidden_size))


def _layer(graph: Graph, config: BertConfig, values: str, mask: str, layer: str) -> str:
    context = _attention(graph, config, values, mask, layer)
    attended = graph.add("Add", graph.dense(context, f"{layer}.attended"), values)
    attended = graph.norm(attended, f"{layer}.attended.norm", config.layer_norm_eps)
    inner = graph.gelu(graph.dense(attended, f"{layer}.inner"))
    outer = graph.add("Add", graph.dense(inner, f"{layer}.outer"), attended)
    return graph.norm(outer, f"{layer}.outer.norm", config.layer_norm_eps)


def build(config: BertConfig, seed: int) -> ModelProto:
    """Build the encoder: token arrays in, ``last_hidden_state`` out.

    Raises
    ------
    ModuleNotFoundError
        If the package onnx is not installed.
    """
    graph = Graph(weights=dict(weights(config, seed)))
    values, mask = _embeddings(graph, config), _mask(graph)
    for layer in range(config.num_hidden_layers):
        values = _layer(graph, config, values, mask, f"layer.{layer}")
    graph.add("Identity", values, output="last_hidden_state")
    tokens = (np.int64, ("batch", "length"))
    return graph.model(
        "bert",
        inputs={"input_ids": tokens, "attention_mask": tokens},
        outputs={"last_hidden_state": (np.float32, ("batch", "length", config.hidden_size))},
    )


BASE: Final = Bert(
    name="bert-base",
    config=BertConfig(),
    shapes=((8, 64), (16, 64), (8, 64)),
    memory_kib=2560 * 1024,
)
"""BERT-base of the original paper: 110 million weights, 418 MiB."""

MINI: Final = Bert(
    name="bert-mini",
    config=BertConfig(
        hidden_size=384, num_hidden_layers=6, num_attention_heads=12, intermediate_size=1536
    ),
    shapes=((4, 32), (4, 64), (4, 128), (4, 256), (4, 32), (4, 256)),
    memory_kib=1024 * 1024,
)
"""The sizes of all-MiniLM-L6-v2, the usual sentence encoder: 23 million weights, 87 MiB."""

MINI_BATCHES: Final = replace(
    MINI,
    name="bert-mini-batches",
    shapes=((8, 64), (16, 128), (32, 64), (8, 512), (8, 64), (8, 512)),
    memory_kib=1536 * 1024,
)
"""The same encoder at batches of 8 to 32 and lengths of 64 to 512."""

TINY: Final = Bert(
    name="bert-tiny",
    config=BertConfig(
        hidden_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=256,
        vocab_size=1024,
    ),
    shapes=((2, 16), (8, 64), (8, 256), (2, 16), (8, 256)),
    memory_kib=512 * 1024,
)
"""For tests and slow guests: next to no arithmetic, yet blocks of a few MiB at the last shape."""
