"""Text models of Hugging Face Transformers, from a local folder or installed, as OpenVINO IR.

The conversion is ``optimum-cli export openvino`` of the package ``optimum-intel``, in a process of
its own and without a network, so that nothing is downloaded.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib import metadata
from itertools import chain
from pathlib import Path
from typing import Final

from hugeprobe import children
from hugeprobe.errors import BadRequestError, NotObservable, ProbeError
from hugeprobe.workloads import files
from hugeprobe.workloads.local import Declared, LocalModel, declared, with_shapes

_INSTALLED: Final = "hf:"
_PACKAGE: Final = "optimum-intel"
_CONVERTER: Final = "optimum.commands.optimum_cli"
_IR: Final = "openvino_model.xml"
_SECONDS: Final = 1200.0
_TEXTS: Final = tuple(
    Declared(name, "int64", ("batch", "length")) for name in ("input_ids", "attention_mask")
)


@dataclass(frozen=True, slots=True)
class HuggingFace(LocalModel):
    """A text model, of which nothing but the last part of its name is published.

    Parameters
    ----------
    model
        Its folder, or the name under which it is installed.
    """

    model: str = ""

    @property
    def description(self) -> str:
        """What it is, in one sentence."""
        return "A text model of Hugging Face Transformers, with inputs drawn at random."

    @property
    def source(self) -> str:
        """Where the weights come from."""
        return "a local model of Hugging Face Transformers"

    def spec(self, model: Path) -> str:
        """Name and inputs as JSON; which inputs there are is known once it is converted."""
        return LocalModel(self.name, declared(model)).spec(model)

    def model_path(self, cache: Path) -> Path | NotObservable:
        """Return the IR, converted on first use.

        Raises
        ------
        ProbeError
            If it cannot be converted; what was said is in the text.
        """
        try:
            converter = metadata.version(_PACKAGE)
        except metadata.PackageNotFoundError:
            return NotObservable(
                f"the package {_PACKAGE}, which converts {self.name}, is not installed; "
                f"python -m pip install {_PACKAGE} adds it, with PyTorch and Transformers"
            )
        version = files.version(*_files(self.model))
        made_of = (part.encode() for part in (self.model, converter, version))
        folder = cache / f"{self.name}-{files.digest(*made_of)}"
        if not folder.exists():
            with files.whole(folder) as part:
                self._convert(part)
        return folder / _IR

    def _convert(self, folder: Path) -> None:
        options = {
            "--model": self.model,
            "--task": "feature-extraction",
            "--library": "transformers",
            "--weight-format": "fp32",
        }
        arguments = ["export", "openvino", *chain.from_iterable(options.items()), str(folder)]
        try:
            with children.started(_CONVERTER, arguments, {"HF_HUB_OFFLINE": "1"}, _SECONDS):
                pass
        except ProbeError as error:
            raise ProbeError(
                f"{self.name} was to be converted to an OpenVINO IR, but the {_PACKAGE} of this "
                f"host cannot: {error} Choose a text model that is complete here."
            ) from error


def find(spec: str) -> HuggingFace | None:
    """Return the model that ``spec`` names; None if it names none.

    Parameters
    ----------
    spec
        A folder that holds a ``config.json``, or ``hf:`` and the name of a model in the cache of
        Hugging Face; with shapes, as in ``folder@8x64,8x128,8x64``.

    Raises
    ------
    BadRequestError
        If there are no shapes, or others than of batch and length.
    """
    model, shapes = with_shapes(spec)
    if not model.startswith(_INSTALLED):
        if not (Path(model) / "config.json").is_file():
            return None
        model = str(Path(model).resolve())
    name = Path(model.removeprefix(_INSTALLED)).name
    if not shapes or any(len(shape) != len(_TEXTS[0].sizes) for shape in shapes):
        raise BadRequestError(
            f"{name} reads texts of any number and length; say which to use, such as {name}@8x64."
        )
    return HuggingFace(
        name, _TEXTS, shapes, _memory_kib(model), model=model.removeprefix(_INSTALLED)
    )


def _files(model: str) -> list[Path]:
    return [file for file in Path(model).glob("*") if file.is_file()]


def _memory_kib(model: str) -> int:
    """Guess from the weights: PyTorch, the conversion and the runtime hold a copy each."""
    kib = sum(file.stat().st_size for file in _files(model)) // 1024
    return 4 * kib + (2 << 20)
