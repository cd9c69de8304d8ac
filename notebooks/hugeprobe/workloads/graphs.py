"""ONNX graphs with random weights: the nodes in the making, and the file that they become."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from hugeprobe.errors import NotObservable
from hugeprobe.workloads import files

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from onnx import ModelProto, NodeProto, ValueInfoProto

Array: TypeAlias = NDArray[Any]
Value: TypeAlias = "tuple[type[np.generic], Sequence[int | str]]"
"""Element type and dimensions of an input or output; a dimension with a name is dynamic."""

_OPSET: Final = 17  # the first with LayerNormalization
_SHARD_FROM: Final = 1 << 20
_IR_VERSION: Final = 8  # the one that belongs to opset 17; older runtimes refuse newer ones


@dataclass(slots=True)
class Graph:
    """Nodes in the making; each method adds some and returns the name of what comes out.

    Parameters
    ----------
    nodes
        In the order of computation.
    weights
        By name.
    constants
        Small arrays by name.
    rng
        What :meth:`draw` draws from.
    """

    nodes: list[NodeProto] = field(default_factory=list)
    weights: dict[str, Array] = field(default_factory=dict)
    constants: dict[str, Array] = field(default_factory=dict)
    rng: np.random.Generator = field(default_factory=np.random.default_rng)

    def draw(self, name: str, *shape: int, deviation: float = 0.02) -> str:
        """Add normally distributed weights of mean zero, and return their name."""
        values = self.rng.standard_normal(shape, dtype=np.float32)
        values *= np.float32(deviation)
        self.weights[name] = values
        return name

    def add(self, operator: str, *inputs: str, output: str | None = None, **attributes: Any) -> str:
        """Add one node, whose output gets a name if it has none."""
        from onnx import helper  # noqa: PLC0415 - an optional package

        output = output or f"{operator}.{len(self.nodes)}"
        self.nodes.append(helper.make_node(operator, inputs, [output], name=output, **attributes))
        return output

    def constant(self, values: Array) -> str:
        """Return the name of a small constant; equal ones share a name."""
        name = f"constant.{values.dtype}.{values.tolist()}"
        self.constants[name] = values
        return name

    def integers(self, *values: int) -> str:
        """Return the name of a constant vector."""
        return self.constant(np.array(values, dtype=np.int64))

    def scalar(self, value: float) -> str:
        """Return the name of a constant of no dimension."""
        return self.constant(np.array(value, dtype=np.float32))

    def dense(self, values: str, name: str) -> str:
        """Multiply with a matrix of weights, and add a bias."""
        return self.add("Add", self.add("MatMul", values, f"{name}.weight"), f"{name}.bias")

    def norm(self, values: str, name: str, epsilon: float) -> str:
        """Normalise over the last dimension (Ba et al., 2016, https://arxiv.org/abs/1607.06450)."""
        scale, bias = f"{name}.scale", f"{name}.bias"
        return self.add("LayerNormalization", values, scale, bias, axis=-1, epsilon=epsilon)

    def gelu(self, values: str) -> str:
        """Apply GELU in its exact form (https://arxiv.org/abs/1606.08415)."""
        erf = self.add("Erf", self.add("Div", values, self.scalar(np.sqrt(2.0))))
        halved = self.add("Mul", values, self.scalar(0.5))
        return self.add("Mul", halved, self.add("Add", erf, self.scalar(1.0)))

    def model(
        self, name: str, inputs: Mapping[str, Value], outputs: Mapping[str, Value]
    ) -> ModelProto:
        """Close the graph; the weights leave this object, so that large ones are held once."""
        from onnx import helper, numpy_helper  # noqa: PLC0415 - an optional package

        initializers = [
            numpy_helper.from_array(arrays.pop(key), key)
            for arrays in (self.weights, self.constants)
            for key in tuple(arrays)
        ]
        proto = helper.make_graph(
            self.nodes,
            name,
            _declared(inputs),
            _declared(outputs),
            initializer=initializers,
        )
        return helper.make_model(
            proto, opset_imports=[helper.make_opsetid("", _OPSET)], ir_version=_IR_VERSION
        )


def _declared(values: Mapping[str, Value]) -> list[ValueInfoProto]:
    from onnx import helper  # noqa: PLC0415 - an optional package

    return [
        helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(np.dtype(kind)), dims)
        for name, (kind, dims) in values.items()
    ]


def built(
    cache: Path,
    name: str,
    recipe: object,
    source: str,
    build: Callable[[], ModelProto],
    *,
    shards: bool = False,
) -> Path | NotObservable:
    """Return the file of a model, which is built on first use.

    Parameters
    ----------
    cache
        Folder that holds models.
    name
        Name of the model, with which the name of the file begins.
    recipe
        Everything that ``build`` depends on; it must have a ``repr`` that tells.
    source
        Path of the module that builds. Neither it, nor this one, nor the recipe can change without
        a new file, because the name carries a digest of them.
    build
        Makes the model.
    shards
        Whether each tensor of a MiB or more becomes a file of its own beside the model, which then
        may exceed the 2 GiB of one ONNX file (``onnx.external_data_helper``).

    Returns
    -------
    pathlib.Path or NotObservable
        The latter where the package onnx is not installed.
    """
    modules = (Path(source).read_bytes(), Path(__file__).read_bytes())
    folder = cache / f"{name}-{files.digest(repr(recipe).encode(), *modules)}"
    path = folder / f"{folder.name}.onnx"
    if path.exists():
        return path
    try:
        import onnx  # noqa: PLC0415 - an optional package
    except ModuleNotFoundError:
        return NotObservable(
            f"the package onnx, which builds the graph of {name}, is not installed; "
            "python -m pip install onnx adds it"
        )
    with files.whole(folder) as part:
        onnx.save_model(
            build(),
            part / path.name,
            save_as_external_data=shards,
            all_tensors_to_one_file=False,
            size_threshold=_SHARD_FROM,
        )
    return path
