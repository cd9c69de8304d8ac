"""What the tests of several modules need."""

from __future__ import annotations

import re
import signal
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import settings

if TYPE_CHECKING:
    from collections.abc import Callable

# A busy host is slow, which is no failure.
settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")

# A job in the background ignores Ctrl-C, and so would the programs that tests interrupt.
signal.signal(signal.SIGINT, signal.default_int_handler)

TREES = Path(__file__).parent / "trees"


@pytest.fixture
def tree(tmp_path: Path) -> Callable[[str], Path]:
    """Unpack a tree of kernel files; its form is described in ``tests/trees/README``."""

    def unpack(name: str) -> Path:
        root = tmp_path / name
        text = (TREES / f"{name}.txt").read_text()
        _, *sections = re.split(r"^==> (\S+) <==\n", text, flags=re.MULTILINE)
        for path, content in zip(sections[::2], sections[1::2], strict=True):
            file = root / path
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(content.removesuffix("\n"))
        return root

    return unpack


@pytest.fixture
def write_program() -> Callable[[Path, str], Path]:
    """Write a shell script that can be run at once.

    Another process writes it: what any thread of this one forks meanwhile would hold the file open
    for writing, and such a file cannot be run (``ETXTBSY``).
    """

    def write(path: Path, script: str) -> Path:
        text = f"#!/bin/sh\n{script}\n"
        subprocess.run(["tee", path], input=text, stdout=subprocess.DEVNULL, text=True, check=True)
        path.chmod(0o755)
        return path

    return write
