"""A GPT decoder with random weights that reads text token by token, with a key-value cache.

The layers are those of GPT-2 (Radford et al., 2019): self-attention and a feed-forward block with
GELU, each behind a normalisation. The state of the model, keys and values of earlier tokens, grows
with every token; that growth is why it is measured. Each token is given rather than chosen from the
answer before, so that every runtime does the same work.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from hugeprobe.errors import BadRequestError
from hugeprobe.workloads.base import Drawn, Inputs, Model, Outputs, Shape, generator
from hugeprobe.workloads.graphs import Graph, Value

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from onnx import ModelProto

_EPSILON: Final = 1e-5
_MASKED: Final = float(np.finfo(np.float32).min)


@dataclass(frozen=True, slots=True)
class DecoderConfig:
    """Sizes of the network.

    Parameters
    ----------
    layers
        Number of layers.
    width
        Numbers for each token between two layers.
    heads
        Attention heads, which share the width.
    vocabulary
        Number of tokens that there are.
    positions
        Tokens that a text may have.
    """

    layers: int
    width: int
    heads: int
    vocabulary: int
    positions: int

    def __post_init__(self) -> None:
        if self.width % self.heads:
            raise BadRequestError(
                f"A decoder of width {self.width} cannot be split over {self.heads} attention "
                "heads; choose a divisor."
            )


@dataclass(frozen=True, slots=True)
class Decoder(Drawn[DecoderConfig]):
    """A decoder whose batch is dynamic, and whose cache grows by one token a call.

    A shape is ``(batch, tokens)``: so many texts at once, so many calls one after another.
    """

    @property
    def description(self) -> str:
        """What it is, in one sentence."""
        c = self.config
        return (
            f"GPT decoder in fp32, {c.layers} layers of width {c.width}, token by token with a "
            "growing key-value cache."
        )

    @property
    def state(self) -> Mapping[str, str]:
        """The cached keys and values of each layer."""
        return {f"past.{name}": f"present.{name}" for name in _caches(self.config)}

    def build(self) -> ModelProto:
        """Build it from its sizes, with weights from its seed."""
        return build(self.config, self.weight_seed)

    def inputs(self, shape: Shape, seed: int) -> Inputs:
        """Draw token numbers.

        Raises
        ------
        BadRequestError
            If there are more tokens than the model has embeddings of positions for.
        """
        _, tokens = shape
        if tokens > self.config.positions:
            raise BadRequestError(
                f"{self.name} decodes up to {self.config.positions} tokens, "
                f"but was given {tokens}; choose a shorter text."
            )
        rng = generator(seed, shape)
        return {"input_ids": rng.integers(self.config.vocabulary, size=shape)}

    def infer(self, model: Model, inputs: Inputs) -> Outputs:
        """Read the texts token by token, and return what is expected after the last."""
        model.reset()
        outputs: Outputs = []
        for token in np.split(inputs["input_ids"], inputs["input_ids"].shape[1], axis=1):
            outputs = model({"input_ids": token})
        return outputs


def _caches(config: DecoderConfig) -> Iterator[str]:
    for layer in range(config.layers):
        yield f"{layer}.key"
        yield f"{layer}.value"


@dataclass(slots=True)
class _Network(Graph):
    """The parts of which the network is made."""

    def linear(self, values: str, name: str, rows: int, columns: int) -> str:
        self.draw(f"{name}.weight", rows, columns)
        self.draw(f"{name}.bias", columns)
        return self.dense(values, name)

    def normalised(self, values: str, name: str, width: int) -> str:
        self.weights[f"{name}.scale"] = np.ones(width, dtype=np.float32)
        self.weights[f"{name}.bias"] = np.zeros(width, dtype=np.float32)
        return self.norm(values, name, _EPSILON)

    def size(self, values: str, axis: int) -> str:
        """Return the length of one dimension, itself without dimension."""
        return self.add("Gather", self.add("Shape", values), self.constant(np.array(axis)))

    def attention(self, config: DecoderConfig, values: str, future: str, layer: int) -> str:
        """Let each token look at itself and those before it, which the cache holds."""
        width, heads = config.width, config.heads

        def heads_of(name: str) -> str:
            dense = self.linear(values, f"{layer}.{name}", width, width)
            parts = self.add("Reshape", dense, self.integers(0, 0, heads, width // heads))
            return self.add("Transpose", parts, perm=(0, 2, 1, 3))

        def cached(name: str) -> str:
            past, present = f"past.{layer}.{name}", f"present.{layer}.{name}"
            return self.add("Concat", past, heads_of(name), output=present, axis=2)

        query = self.add("Div", heads_of("query"), self.scalar(np.sqrt(width // heads)))
        keys = self.add("Transpose", cached("key"), perm=(0, 1, 3, 2))
        scores = self.add("Add", self.add("MatMul", query, keys), future)
        context = self.add("MatMul", self.add("Softmax", scores, axis=-1), cached("value"))
        joined = self.add("Transpose", context, perm=(0, 2, 1, 3))
        flat = self.add("Reshape", joined, self.integers(0, 0, width))
        return self.linear(flat, f"{layer}.attended", width, width)

    def layer(self, config: DecoderConfig, values: str, future: str, layer: int) -> str:
        """Add what attention and what the feed-forward block find."""
        width, inner = config.width, 4 * config.width
        normal = self.normalised(values, f"{layer}.attention.norm", width)
        values = self.add("Add", values, self.attention(config, normal, future, layer))
        normal = self.normalised(values, f"{layer}.inner.norm", width)
        found = self.gelu(self.linear(normal, f"{layer}.inner", width, inner))
        return self.add("Add", values, self.linear(found, f"{layer}.outer", inner, width))

    def begin(self, config: DecoderConfig) -> tuple[str, str]:
        """Embed the tokens; return also what hides the future when added to scores."""
        past = self.size("past.0.key", 2)
        total = self.add("Add", past, self.size("input_ids", 1))
        start, step = self.constant(np.array(0)), self.constant(np.array(1))
        here = self.add("Range", past, total, step)
        words = self.draw("embeddings.word", config.vocabulary, config.width)
        places = self.draw("embeddings.position", config.positions, config.width)
        values = self.add(
            "Add", self.add("Gather", words, "input_ids"), self.add("Gather", places, here)
        )
        rows = self.add("Unsqueeze", here, self.integers(1))
        later = self.add("Greater", self.add("Range", start, total, step), rows)
        hidden = self.add("Mul", self.add("Cast", later, to=1), self.scalar(_MASKED))  # to float32
        return values, hidden


def build(config: DecoderConfig, seed: int) -> ModelProto:
    """Build the decoder: tokens and the cache in, ``logits`` and the longer cache out.

    Raises
    ------
    ModuleNotFoundError
        If the package onnx is not installed.
    """
    net = _Network(rng=np.random.default_rng(seed))
    values, future = net.begin(config)
    for layer in range(config.layers):
        values = net.layer(config, values, future, layer)
    normal = net.normalised(values, "norm", config.width)
    words = net.draw("words", config.width, config.vocabulary)
    net.add("MatMul", normal, words, output="logits")

    def cache(time: str, length: str) -> dict[str, Value]:
        sizes = ("batch", config.heads, length, config.width // config.heads)
        return {f"{time}.{name}": (np.float32, sizes) for name in _caches(config)}

    return net.model(
        "decoder",
        inputs={"input_ids": (np.int64, ("batch", "length")), **cache("past", "past")},
        outputs={
            "logits": (np.float32, ("batch", "length", config.vocabulary)),
            **cache("present", "total"),
        },
    )


GPT: Final = Decoder(
    name="gpt-decoder",
    config=DecoderConfig(layers=8, width=512, heads=8, vocabulary=4096, positions=1024),
    shapes=((1, 64), (8, 64), (1, 64)),
    memory_kib=1024 * 1024,
)
"""30 million weights, 114 MiB; a token adds 32 KiB to the cache of a text."""
