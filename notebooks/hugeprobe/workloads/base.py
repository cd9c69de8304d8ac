"""What a workload is: a model, the input shapes it meets, and inputs drawn once per seed."""

from __future__ import annotations

import inspect
from abc import ABC, abstractmethod
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar, Final, Generic, Protocol, TypeAlias, TypeVar

import numpy as np
from numpy.typing import NDArray

from hugeprobe.workloads.graphs import built

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from onnx import ModelProto

    from hugeprobe.errors import NotObservable

Shape: TypeAlias = tuple[int, ...]
"""What varies: ``(batch, length)`` of texts, ``(batch, 3, height, width)`` of images."""

Inputs: TypeAlias = dict[str, NDArray[Any]]
"""Arrays by the name of the model's input."""

Outputs: TypeAlias = list[NDArray[Any]]
"""Arrays in the order of the model's outputs, without those that only carry its state."""

_STATELESS: Final[Mapping[str, str]] = MappingProxyType({})


class Model(Protocol):
    """A model that a runtime has loaded."""

    def __call__(self, inputs: Inputs) -> Outputs:
        """Infer once."""

    def reset(self) -> None:
        """Forget the state that earlier calls left."""

    def release(self) -> None:
        """Give back the memory that only an inference needs, where the runtime can."""


class Workload(Protocol):
    """One model and the sequence of inputs that it is measured with."""

    @property
    def name(self) -> str:
        """Short name, as the command line and the records spell it."""

    @property
    def description(self) -> str:
        """What it is, in one sentence."""

    @property
    def licence(self) -> str:
        """SPDX identifier of the licence of the weights."""

    @property
    def source(self) -> str:
        """Where the weights come from, in a few words."""

    @property
    def shapes(self) -> tuple[Shape, ...]:
        """Input shapes in the order they arrive; one that occurred before is a *return* to it."""

    @property
    def memory_kib(self) -> int:
        """Upper bound of what one run may hold resident, in KiB, including building the model."""

    @property
    def state(self) -> Mapping[str, str]:
        """Name of each input that is not given but is an output of the call before, and of that."""

    def model_path(self, cache: Path) -> Path | NotObservable:
        """Return the file to load, building it in the folder ``cache`` where it has to be built."""

    def spec(self, model: Path) -> str:
        """Return what :func:`hugeprobe.workloads.find` makes it of in the measured process.

        Parameters
        ----------
        model
            The file that is loaded there.
        """

    def inputs(self, shape: Shape, seed: int) -> Inputs:
        """Draw the inputs of one shape; the same shape and seed always give the same arrays.

        It happens in the measured process, so it must not free large arrays: the first block that
        is freed raises the threshold above which glibc maps every later one (``mallopt(3)``).
        """

    def infer(self, model: Model, inputs: Inputs) -> Outputs:
        """Answer one request: usually one call of the model."""


class Named:
    """The part that is the same for every workload that is found by its name."""

    __slots__ = ()
    name: str

    def spec(self, model: Path) -> str:
        """Return the name, by which it is found in every process."""
        return self.name


class Stateless(Named):
    """The part that is the same for every workload of a name whose requests are one call each."""

    __slots__ = ()

    @property
    def state(self) -> Mapping[str, str]:
        """No input comes from the call before."""
        return _STATELESS

    def infer(self, model: Model, inputs: Inputs) -> Outputs:
        """Call the model once."""
        return model(inputs)


Config = TypeVar("Config")
"""The sizes of one kind of model."""


@dataclass(frozen=True, slots=True)
class Drawn(Named, ABC, Generic[Config]):
    """The part that is the same for every model that is built here, with weights drawn at random.

    Parameters
    ----------
    name
        Short name.
    config
        Sizes of the model.
    shapes
        Input shapes in the order they arrive; each kind of model says what they are of.
    memory_kib
        Upper bound of the resident memory of one run, in KiB.
    weight_seed
        Seed of the weights; inputs have a seed of their own.
    """

    name: str
    config: Config
    shapes: tuple[Shape, ...]
    memory_kib: int
    weight_seed: int = 0

    shards: ClassVar[bool] = False
    """Whether each large array of weights becomes a file of its own."""

    @property
    def licence(self) -> str:
        """SPDX identifier of the licence of the weights."""
        return "Apache-2.0"

    @property
    def source(self) -> str:
        """Where the weights come from."""
        return f"random weights, seed {self.weight_seed}, built here"

    def model_path(self, cache: Path) -> Path | NotObservable:
        """Return the ONNX file, built on first use, which takes up to 20 s for each GiB."""
        recipe = (self.config, self.weight_seed)
        module = inspect.getfile(type(self))
        return built(cache, self.name, recipe, module, self.build, shards=self.shards)

    @abstractmethod
    def build(self) -> ModelProto:
        """Build the model.

        Raises
        ------
        ModuleNotFoundError
            If the package onnx is not installed.
        """


def generator(seed: int, shape: Shape) -> np.random.Generator:
    """Return the generator of one shape's inputs, independent of the other shapes drawn."""
    return np.random.default_rng([seed, *shape])
