"""Apply a recipe in a guest as an operator would, and tell what it changed.

``python -m hugeprobe.kernels.recipe RECIPE``, inside a guest: the recipe is a JSON object of the
blocks to paste (``apply``, ``undo``) and of the commands that count (``checks``), as text. They run
once from each THP mode that a host may have been in. A guest's files are the host's, read-only, so
nothing but the guest itself can change.
"""

from __future__ import annotations

import contextlib
import io
import json
import shlex
import subprocess
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from typer.main import get_command

from hugeprobe.cli import app
from hugeprobe.errors import ProbeError
from hugeprobe.kernels.guest import THP_MODES, make_repeatable, require_guest, tell

if TYPE_CHECKING:
    from collections.abc import Sequence

ENVIRONMENT: Final = {"PYTHONMALLOC": "malloc", "GLIBC_TUNABLES": "glibc.malloc.mmap_max=0"}
"""What to start it with: Python and glibc then map no memory of their own, which could come to lie
between the mappings that are counted when many commands run in one process."""

_THP: Final = Path("/sys/kernel/mm/transparent_hugepage")
_PROGRAM: Final = "hugeprobe"


@dataclass(frozen=True, slots=True)
class Recipe:
    """What is pasted into a root shell.

    Parameters
    ----------
    apply, undo
        Lines for the shell.
    checks
        Commands of ``hugeprobe`` that answer with JSON.
    """

    apply: str
    undo: str
    checks: tuple[str, ...]

    def encode(self) -> str:
        """Return it as one line of JSON."""
        return json.dumps(asdict(self))

    @staticmethod
    def decode(line: str) -> Recipe:
        """Read it back from :meth:`encode`."""
        fields = json.loads(line)
        return Recipe(fields["apply"], fields["undo"], tuple(fields["checks"]))


def main(arguments: Sequence[str]) -> None:
    """Go through the recipe, from every THP mode, and tell settings and counts at each point."""
    require_guest()
    recipe = Recipe.decode(arguments[0])
    make_repeatable()
    for mode in THP_MODES:
        (_THP / "enabled").write_text(mode)
        for moment, block in (("before", ""), ("applied", recipe.apply), ("undone", recipe.undo)):
            _paste(block)
            counted = [] if moment == "undone" else [_answer(check) for check in recipe.checks]
            tell(about=moment, mode=mode, settings=_settings(), checks=counted)


def _paste(block: str) -> None:
    done = subprocess.run(["/bin/sh"], input=block, capture_output=True, text=True, check=False)
    if done.returncode or done.stderr:
        raise ProbeError(
            f"A block of the recipe ended with status {done.returncode} and said: {done.stderr}"
        )


def _settings() -> dict[str, str]:
    """Return every setting of a huge page size, and the mode, as the kernel prints them."""
    files = [_THP / "enabled", *sorted(_THP.glob("hugepages-*kB/enabled"))]
    return {str(file.relative_to(_THP)): file.read_text().strip() for file in files}


def _answer(command: str) -> dict[str, Any]:
    """Run a command of ``hugeprobe`` in this process: starting Python is slow under emulation."""
    program, *words = shlex.split(command)
    if program != _PROGRAM:
        raise ProbeError(f"A check of a recipe is a command of {_PROGRAM}, not of {program}.")
    with contextlib.redirect_stdout(io.StringIO()) as said:
        get_command(app).main(words, standalone_mode=False)
    answer: dict[str, Any] = json.loads(said.getvalue())
    return answer


if __name__ == "__main__":
    main(sys.argv[1:])
