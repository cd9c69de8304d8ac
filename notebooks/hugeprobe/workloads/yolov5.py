"""Object detectors of the YOLOv5 architecture with random weights, for images of any size.

The layers are those of release 6 (https://doi.org/10.5281/zenodo.7347926): a backbone of C3 blocks
after CSPNet (Wang et al., 2019, https://arxiv.org/abs/1911.11929), spatial pyramid pooling, a path
aggregation neck (Liu et al., 2018, https://arxiv.org/abs/1803.01534) and three heads. Batch
normalisation is folded into the convolutions, as every export does. Left out is the arithmetic that
turns the numbers of the heads into pixels.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np

from hugeprobe.errors import BadRequestError
from hugeprobe.workloads.base import Drawn, Inputs, Shape, Stateless, generator
from hugeprobe.workloads.graphs import Graph

if TYPE_CHECKING:
    from onnx import ModelProto

_STRIDE: Final = 32  # of the coarsest head
_ANCHORS: Final = 3
_BOX: Final = 5  # centre, size, and whether there is an object


@dataclass(frozen=True, slots=True)
class YoloConfig:
    """How the sizes differ from those of the largest published variant.

    Parameters
    ----------
    depth
        Factor of the number of blocks in a row.
    width
        Factor of the number of channels.
    classes
        Kinds of objects; 80 in the COCO data set.
    """

    depth: float
    width: float
    classes: int = 80


@dataclass(frozen=True, slots=True)
class Yolo(Drawn[YoloConfig], Stateless):
    """A detector whose batch, height and width are dynamic.

    A shape is ``(batch, 3, height, width)``; height and width are multiples of 32.
    """

    @property
    def description(self) -> str:
        """What it is, in one sentence."""
        return "Object detector in fp32 with the layers of YOLOv5, image sizes that change."

    def build(self) -> ModelProto:
        """Build it from its sizes, with weights from its seed."""
        return build(self.config, self.weight_seed)

    def inputs(self, shape: Shape, seed: int) -> Inputs:
        """Draw an image of noise in [0, 1).

        Raises
        ------
        BadRequestError
            If a side is not a multiple of 32, so that the maps of the neck would not fit.
        """
        *_, height, width = shape
        if height % _STRIDE or width % _STRIDE:
            raise BadRequestError(
                f"{self.name} reads images whose sides are multiples of {_STRIDE}, "
                f"but was given {height} x {width}; choose such sides."
            )
        return {"images": generator(seed, shape).random(shape, dtype=np.float32)}


class _Maps(NamedTuple):
    """The output of a node, and how many channels it has."""

    name: str
    channels: int


@dataclass(slots=True)
class _Network(Graph):
    """The blocks of which the network is made."""

    def plain(self, maps: _Maps, channels: int, kernel: int = 1, stride: int = 1) -> _Maps:
        """Convolve; the padding keeps the size up to the stride."""
        name = f"conv.{len(self.nodes)}"
        inputs = maps.channels * kernel**2
        # The spread that keeps the size of the numbers about the same from layer to layer.
        spread = math.sqrt(2 / inputs)
        weight = self.draw(
            f"{name}.weight", channels, maps.channels, kernel, kernel, deviation=spread
        )
        bias = self.draw(f"{name}.bias", channels, deviation=0.1)
        size, pads = [kernel] * 2, [(kernel - 1) // 2] * 4
        output = self.add(
            "Conv", maps.name, weight, bias, kernel_shape=size, pads=pads, strides=[stride] * 2
        )
        return _Maps(output, channels)

    def conv(self, maps: _Maps, channels: int, kernel: int = 1, stride: int = 1) -> _Maps:
        """Convolve, then SiLU (https://arxiv.org/abs/1702.03118)."""
        convolved = self.plain(maps, channels, kernel, stride).name
        return _Maps(self.add("Mul", convolved, self.add("Sigmoid", convolved)), channels)

    def concat(self, *parts: _Maps) -> _Maps:
        """Put the channels of several maps one after another."""
        output = self.add("Concat", *(part.name for part in parts), axis=1)
        return _Maps(output, sum(part.channels for part in parts))

    def c3(self, maps: _Maps, channels: int, blocks: int, *, shortcut: bool = True) -> _Maps:
        """Send half of the channels through bottlenecks, and the other half past them."""
        half = channels // 2
        inner = self.conv(maps, half)
        for _ in range(blocks):
            block = self.conv(self.conv(inner, half), half, kernel=3)
            inner = _Maps(self.add("Add", inner.name, block.name), half) if shortcut else block
        return self.conv(self.concat(inner, self.conv(maps, half)), channels)

    def pool(self, maps: _Maps, channels: int) -> _Maps:
        """Concatenate maxima over ever larger windows."""
        parts = [self.conv(maps, maps.channels // 2)]
        for _ in range(3):
            output = self.add("MaxPool", parts[-1].name, kernel_shape=[5, 5], pads=[2] * 4)
            parts.append(_Maps(output, parts[-1].channels))
        return self.conv(self.concat(*parts), channels)

    def enlarge(self, maps: _Maps) -> _Maps:
        """Double height and width by repetition."""
        factors = self.constant(np.array([1, 1, 2, 2], dtype=np.float32))
        output = self.add(
            "Resize",
            maps.name,
            "",
            factors,
            mode="nearest",
            coordinate_transformation_mode="asymmetric",
            nearest_mode="floor",
        )
        return _Maps(output, maps.channels)

    def head(self, maps: _Maps, numbers: int) -> str:
        """Return the ``numbers`` of every anchor at every place, in [0, 1]."""
        found = self.plain(maps, _ANCHORS * numbers).name
        split = self.add("Reshape", found, self.integers(0, _ANCHORS, numbers, -1))
        rows = self.add("Transpose", split, perm=(0, 1, 3, 2))
        return self.add("Sigmoid", self.add("Reshape", rows, self.integers(0, -1, numbers)))


def build(config: YoloConfig, seed: int) -> ModelProto:
    """Build the detector: images in, ``(batch, boxes, 5 + classes)`` out.

    Raises
    ------
    ModuleNotFoundError
        If the package onnx is not installed.
    """
    net = _Network(rng=np.random.default_rng(seed))
    # Widths and depths of the variant whose factors are 1; channels come in eights.
    c64, c128, c256, c512, c1024 = (
        math.ceil(width * config.width / 8) * 8 for width in (64, 128, 256, 512, 1024)
    )
    d3, d6, d9 = (max(round(depth * config.depth), 1) for depth in (3, 6, 9))

    quarter = net.conv(net.conv(_Maps("images", 3), c64, kernel=6, stride=2), c128, 3, 2)
    eighth = net.c3(net.conv(net.c3(quarter, c128, d3), c256, 3, 2), c256, d6)
    sixteenth = net.c3(net.conv(eighth, c512, 3, 2), c512, d9)
    coarsest = net.pool(net.c3(net.conv(sixteenth, c1024, 3, 2), c1024, d3), c1024)

    top = net.conv(coarsest, c512)
    joined = net.c3(net.concat(net.enlarge(top), sixteenth), c512, d3, shortcut=False)
    middle = net.conv(joined, c256)
    fine = net.c3(net.concat(net.enlarge(middle), eighth), c256, d3, shortcut=False)
    medium = net.c3(net.concat(net.conv(fine, c256, 3, 2), middle), c512, d3, shortcut=False)
    coarse = net.c3(net.concat(net.conv(medium, c512, 3, 2), top), c1024, d3, shortcut=False)

    numbers = _BOX + config.classes
    heads = [net.head(maps, numbers) for maps in (fine, medium, coarse)]
    net.add("Concat", *heads, output="boxes", axis=1)
    return net.model(
        "yolov5",
        inputs={"images": (np.float32, ("batch", 3, "height", "width"))},
        outputs={"boxes": (np.float32, ("batch", "count", numbers))},
    )


def _images(*sides: int) -> tuple[Shape, ...]:
    return tuple((1, 3, side, side) for side in sides)


SMALL: Final = Yolo(
    name="yolov5s",
    config=YoloConfig(depth=1 / 3, width=1 / 2),
    shapes=_images(320, 416, 512, 640, 320, 640),
    memory_kib=768 * 1024,
)
"""The variant that most comparisons use: 7.2 million weights, 28 MiB."""
