"""Any model in a local file: ONNX, or an OpenVINO IR.

Its inputs are drawn from what the file declares. The file is read by the process that starts the
runs; the measured one gets the declarations, so that reading them leaves no trace in its memory.
"""

from __future__ import annotations

import json
import re
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeAlias
from xml.etree import ElementTree as ET

import numpy as np

from hugeprobe.errors import BadRequestError, NotObservable
from hugeprobe.workloads.base import Inputs, Model, Outputs, Shape, Stateless, generator

if TYPE_CHECKING:
    from numpy.typing import NDArray

ONNX: Final = ".onnx"
IR: Final = ".xml"
_SPEC: Final = re.compile(r"(?P<model>.+?)(?:@(?P<shapes>\d+(?:x\d+)*(?:,\d+(?:x\d+)*)*))?")
_OF_IR: Final = {
    "boolean": "bool",
    **{f"f{bits}": f"float{bits}" for bits in (16, 32, 64)},
    **{f"i{bits}": f"int{bits}" for bits in (8, 16, 32, 64)},
    **{f"u{bits}": f"uint{bits}" for bits in (8, 16, 32, 64)},
}
_SMALL: Final = 100  # below the number of tokens of any vocabulary

Size: TypeAlias = "int | str | None"
"""A fixed size, the name of a changing one, or None where it has no name."""


@dataclass(frozen=True, slots=True)
class Declared:
    """One input as the model declares it.

    Parameters
    ----------
    name
        Its name.
    kind
        Element type, as NumPy calls it.
    sizes
        Of its dimensions.
    """

    name: str
    kind: str
    sizes: tuple[Size, ...]

    def __str__(self) -> str:
        written = ("?" if size is None else str(size) for size in self.sizes)
        return f"{self.name} of {' x '.join(written)}"


@dataclass(frozen=True, slots=True)
class LocalModel(Stateless):
    """A model file, of which nothing but the name is published.

    Parameters
    ----------
    name
        Name of the file, without folder and extension.
    declared
        Inputs; the first is the one whose shapes are given.
    shapes
        Of the first input.
    memory_kib
        Upper bound of the resident memory of one run, in KiB, guessed from the size of the file.
    path
        The file; None in the measured process, which does not need it.
    """

    name: str
    declared: tuple[Declared, ...]
    shapes: tuple[Shape, ...] = ()
    memory_kib: int = 0
    path: Path | None = None

    def spec(self, model: Path) -> str:
        """Name and inputs as JSON, from which :func:`decode` makes it again."""
        return json.dumps({"name": self.name, "declared": [asdict(each) for each in self.declared]})

    @property
    def description(self) -> str:
        """What it is, in one sentence."""
        return "A model from a local file, with inputs drawn at random."

    @property
    def licence(self) -> str:
        """Nothing is known about it (``NOASSERTION`` of SPDX)."""
        return "NOASSERTION"

    @property
    def source(self) -> str:
        """Where the weights come from."""
        return "a local file"

    def model_path(self, cache: Path) -> Path | NotObservable:
        """Return the file itself."""
        return self.path or NotObservable(f"the file of {self.name} is not known to this process")

    def inputs(self, shape: Shape, seed: int) -> Inputs:
        """Draw every input: masks are ones, types zeros, other integers small, numbers normal.

        A changing dimension of another input is as large as the one of that name of the first
        input, or else as the one at the same place.

        Raises
        ------
        BadRequestError
            If the shape does not fit the first input, or does not say how large another is.
        """
        first, rng = self.declared[0], generator(seed, shape)
        if len(first.sizes) != len(shape) or any(
            isinstance(size, int) and size != given
            for size, given in zip(first.sizes, shape, strict=True)
        ):
            raise BadRequestError(
                f"{self.name} has the input {first}, but was given {'x'.join(map(str, shape))}; "
                "choose a shape that fits."
            )
        named = dict(zip(first.sizes, shape, strict=True))
        return {
            each.name: _drawn(each, self._sizes(each, shape, named), rng) for each in self.declared
        }

    def infer(self, model: Model, inputs: Inputs) -> Outputs:
        """Call the model once, without what it remembers."""
        model.reset()
        return model(inputs)

    def _sizes(self, of: Declared, shape: Shape, named: dict[Size, int]) -> Shape:
        found = []
        for place, size in enumerate(of.sizes):
            if isinstance(size, int):
                found.append(size)
            elif isinstance(size, str) and size in named:
                found.append(named[size])
            elif place < len(shape):
                found.append(shape[place])
            else:
                raise BadRequestError(
                    f"{self.name} has the input {of}, whose size does not follow from the "
                    f"shape of {self.declared[0].name}; fix it in the model."
                )
        return tuple(found)


def find(spec: str) -> LocalModel | None:
    """Read the declarations of a file; None if ``spec`` is not the path of a model.

    Parameters
    ----------
    spec
        Path of an ONNX file or of an IR, and where sizes change, shapes of its first input, as in
        ``model.onnx@8x64,8x128,8x64``.

    Raises
    ------
    BadRequestError
        If there is no such file, it is no model, or shapes are missing or do not fit.
    """
    file, shapes = with_shapes(spec)
    if (path := Path(file)).suffix not in (ONNX, IR):
        return None
    if not path.is_file():
        raise BadRequestError(f"The model {path.name} was asked for, but there is no such file.")
    inputs = declared(path)
    weights = (path, path.with_suffix(".bin"))
    kib = sum(file.stat().st_size for file in weights if file.is_file()) // 1024
    work = LocalModel(
        path.stem, inputs, shapes or _fixed(path, inputs), 4 * kib + (1 << 20), path.resolve()
    )
    for shape in work.shapes:
        work.inputs(shape, seed=0)
    return work


def with_shapes(spec: str) -> tuple[str, tuple[Shape, ...]]:
    """Split ``model@8x64,8x128`` into the model and the shapes, of which there may be none.

    >>> with_shapes("model.onnx@8x64,1x8")
    ('model.onnx', ((8, 64), (1, 8)))
    """
    parts = _SPEC.fullmatch(spec)
    if parts is None or parts["shapes"] is None:
        return spec, ()
    shapes = (shape.split("x") for shape in parts["shapes"].split(","))
    return parts["model"], tuple(tuple(map(int, shape)) for shape in shapes)


def declared(path: Path) -> tuple[Declared, ...]:
    """Read the inputs that a model declares.

    Raises
    ------
    BadRequestError
        If it is no model, or a model without inputs.
    """
    found = _of_onnx(path) if path.suffix == ONNX else _of_ir(path)
    if not found:
        raise BadRequestError(f"The model {path.name} has no inputs, so nothing can be inferred.")
    return found


def decode(spec: str) -> LocalModel:
    """Make it again from :attr:`LocalModel.spec`."""
    fields = json.loads(spec)
    return LocalModel(
        fields["name"],
        tuple(
            Declared(each["name"], each["kind"], tuple(each["sizes"]))
            for each in fields["declared"]
        ),
    )


def _fixed(path: Path, inputs: tuple[Declared, ...]) -> tuple[Shape, ...]:
    """Return the only shape of the first input, where no size changes."""
    first, *_ = inputs
    fixed = tuple(size for size in first.sizes if isinstance(size, int))
    if any(not isinstance(size, int) for each in inputs for size in each.sizes):
        example = "x".join(str(size if isinstance(size, int) else 8) for size in first.sizes)
        raise BadRequestError(
            f"The sizes of {path.name} change: it has the input {first}. Say which to use, "
            f"such as {path.name}@{example}."
        )
    return (fixed,)


def _drawn(of: Declared, sizes: Shape, rng: np.random.Generator) -> NDArray[Any]:
    kind: np.dtype[Any] = np.dtype(of.kind)
    if kind.kind == "b" or "mask" in of.name:
        return np.ones(sizes, kind)
    if "type" in of.name:
        return np.zeros(sizes, kind)
    if kind.kind in "iu":
        return rng.integers(_SMALL, size=sizes, dtype=kind)
    return rng.standard_normal(sizes, dtype=np.float32).astype(kind, copy=False)


def _of_onnx(path: Path) -> tuple[Declared, ...]:
    try:
        import onnx  # noqa: PLC0415 - an optional package
    except ModuleNotFoundError:
        raise BadRequestError(
            f"The inputs of {path.name} are read with the package onnx, which is not installed; "
            "python -m pip install onnx adds it."
        ) from None
    try:
        graph = onnx.load(path, load_external_data=False).graph
        weights = {array.name for array in graph.initializer}
        return tuple(
            Declared(
                value.name,
                onnx.helper.tensor_dtype_to_np_dtype(value.type.tensor_type.elem_type).name,
                tuple(
                    size.dim_value if size.HasField("dim_value") else size.dim_param or None
                    for size in value.type.tensor_type.shape.dim
                ),
            )
            for value in graph.input
            if value.name not in weights
        )
    except Exception as error:  # protobuf's errors have no common base that onnx would name
        raise _no_model(path, "an ONNX file", error) from error


def _of_ir(path: Path) -> tuple[Declared, ...]:
    try:
        layers = ET.parse(path).getroot().iterfind("layers/layer[@type='Parameter']")
        return tuple(_of_layer(layer) for layer in layers)
    except (ET.ParseError, KeyError) as error:
        raise _no_model(path, "an OpenVINO IR", error) from error


def _of_layer(layer: ET.Element) -> Declared:
    data, port = layer.find("data"), layer.find("output/port")
    if data is None or port is None:
        raise KeyError("its Parameter has no data or no output")
    name = port.attrib.get("names", layer.attrib["name"]).split(",")[0]
    written = filter(None, data.attrib["shape"].split(","))
    sizes = tuple(int(size) if size.isdecimal() else None for size in written)
    return Declared(name, _OF_IR[data.attrib["element_type"]], sizes)


def _no_model(path: Path, kind: str, error: Exception) -> BadRequestError:
    found = " ".join(str(error).split())[:200].rstrip(".")
    return BadRequestError(f"{path.name} was to be read as {kind}, but it is none: {found}.")
