"""The question as it travels to a node, and what comes back.

It consists of names of the standard library and of an archive of this package, for a Python process
of its own: a node needs no hugeprobe, one that has another version does not use it, other threads
of the worker do not map memory while the probe does, and nothing is left behind.
"""

from __future__ import annotations

import io
import re
import subprocess
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from pydantic import TypeAdapter, ValidationError

from hugeprobe.survey.node import Answer
from hugeprobe.survey.outcome import NoAnswer

ANSWERS: Final = TypeAdapter(Answer)
"""Reads what nodes send, and refuses what is not an answer."""

_PACKAGE: Final = Path(__file__).parents[1]
_PARTS: Final = ("*.py", "survey/__init__.py", "survey/node.py")

_START: Final = """
import os, sys
if sys.version_info < (3, 10):
    sys.exit("hugeprobe: Its worker runs Python %d.%d, and 3.10 is needed." % sys.version_info[:2])
archive = os.memfd_create("hugeprobe")
with open(archive, "wb", closefd=False) as file:
    file.write(sys.stdin.buffer.read())
sys.path.insert(0, f"/proc/self/fd/{archive}")
from hugeprobe.survey.node import main
main()
"""
"""Program that takes the archive in and runs it from memory: nothing is written on the node."""

_RUN: Final = """__import__("subprocess").run(
    [__import__("sys").executable, "-c", start, *arguments],
    input=archive, capture_output=True, timeout=seconds, check=False,
)"""


@dataclass(frozen=True, slots=True)
class Question:
    """What every node is asked.

    Parameters
    ----------
    arguments
        Of :func:`hugeprobe.survey.node.main`.
    archive
        The package, as a ZIP file.
    seconds
        Until when the answer must be there.
    """

    arguments: tuple[str, str]
    archive: bytes
    seconds: float

    @property
    def call(self) -> tuple[str, dict[str, object]]:
        """An expression that asks the question where it is evaluated, and the names in it.

        Text, because compiled functions fit one version of Python only.
        """
        return _RUN, {
            "start": _START,
            "arguments": self.arguments,
            "archive": self.archive,
            "seconds": self.seconds,
        }

    @property
    def too_late(self) -> NoAnswer:
        """What is said of a node that took longer."""
        return NoAnswer(
            f"It gave no answer within {self.seconds:g} s: it is overloaded, stopped or cut off."
        )


def packed_modules() -> bytes:
    """Return the modules that a node needs, as a ZIP file."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for part in _PARTS:
            for file in sorted(_PACKAGE.glob(part)):
                archive.write(file, file.relative_to(_PACKAGE.parent))
    return buffer.getvalue()


def understood(said: object, question: Question) -> Answer | NoAnswer:
    """Return the answer in what a worker sent back, be it an exception.

    Texts of exceptions name machines and paths, so only their kinds are passed on.
    """
    if isinstance(said, subprocess.TimeoutExpired):
        return question.too_late
    if isinstance(said, subprocess.CompletedProcess) and said.returncode:
        return NoAnswer(_end_of(said))
    if isinstance(said, subprocess.CompletedProcess):
        try:
            return ANSWERS.validate_json(said.stdout)
        except ValidationError as error:
            where = ".".join(map(str, error.errors()[0]["loc"]))
            return NoAnswer(f"Its answer has another form than asked for (at '{where}').")
    if isinstance(said, OSError) and said.errno is None:  # Dask's own, not a system call's
        return NoAnswer(
            f"The connection to it broke while it was asked ({type(said).__name__}): "
            "its worker or the node itself is gone."
        )
    return NoAnswer(f"Its worker could not start Python for the question ({type(said).__name__}).")


def _end_of(process: subprocess.CompletedProcess[bytes]) -> str:
    """Say why the process on the node failed."""
    if process.returncode < 0:
        return f"The probe was killed there by signal {-process.returncode}."
    last = process.stderr.decode(errors="replace").strip().rpartition("\n")[2]
    if last.startswith("hugeprobe: "):
        return last.removeprefix("hugeprobe: ")
    kind = re.match(r"[\w.]+", last)
    return f"The probe broke there ({kind[0] if kind else f'status {process.returncode}'})."
