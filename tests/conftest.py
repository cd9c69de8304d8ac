"""What the tests of several modules need."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import signal
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pytest
from hypothesis import settings

from hugeprobe.kernels import images
from hugeprobe.kernels.archive import Archive
from hugeprobe.kernels.images import Kernel
from hugeprobe.kernels.machine import QEMU

if TYPE_CHECKING:
    from collections.abc import Callable

# A busy host is slow, which is no failure.
settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")

# A job in the background ignores Ctrl-C, and so would the programs that tests interrupt.
signal.signal(signal.SIGINT, signal.default_int_handler)

# Tests that import ONNX Runtime report nothing to its maker.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

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


STOCK: Final = "6.12."
"""Version of the kernel that tests boot: the first in the record with smaller huge pages."""


@pytest.fixture(scope="session")
def bootable() -> tuple[Kernel, Path]:
    """Return a stock kernel and a busybox; in CI, what the archive offers where none is cached."""
    cache = images.default_cache()
    kernels = sorted((cache / "kernels").glob(f"{images.STOCK}_{STOCK}*"))
    tools = sorted((cache / "tools").glob(f"{images.BUSYBOX}_*/**/bin/busybox"))
    if os.environ.get("CI") != "true" and not (shutil.which(QEMU) and kernels and tools):
        pytest.skip("no QEMU or no stock kernel here; `nox -s kernels` brings the kernel")
    if kernels and tools:
        return Kernel(kernels[0]), tools[0]
    return asyncio.run(_from_archive(cache))


async def _from_archive(cache: Path) -> tuple[Kernel, Path]:
    cache.mkdir(parents=True, exist_ok=True)
    archive = await Archive.open(cache / "apt")
    return await images.stock(archive, STOCK, cache), await images.busybox(archive, cache)


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
