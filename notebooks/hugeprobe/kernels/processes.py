"""Run other programs, and leave none of them behind however this one ends."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final

from hugeprobe.errors import ProbeError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping, Sequence

_LONGEST_LINE: Final = 1 << 24
_LAST_LINES: Final = 8
_PACKAGES: Final = {
    "qemu-system-x86_64": "qemu-system-x86",
    "setpriv": "util-linux",
    "xz": "xz-utils",
}
"""Debian package of a program, where the names differ."""


def require(*programs: str) -> None:
    """Raise :class:`ProbeError` naming every one of ``programs`` that is not installed."""
    missing = [program for program in programs if shutil.which(program) is None]
    if missing:
        packages = " ".join(_PACKAGES.get(program, program) for program in missing)
        raise ProbeError(
            f"The kernel laboratory needs {', '.join(missing)}, which this machine does not have. "
            f"On Debian and its relatives `apt-get install {packages}` adds it."
        )


def require_space(folder: Path, gib: int, purpose: str) -> None:
    """Raise :class:`ProbeError` unless ``folder``'s file system has ``gib`` GiB free."""
    free = shutil.disk_usage(folder).free / (1 << 30)
    if free < gib:
        raise ProbeError(
            f"{purpose} needs {gib} GiB of disk space, and the cache folder has {free:.1f} GiB "
            "free. Free some, or name a folder elsewhere with --cache."
        )


@asynccontextmanager
async def started(
    command: Sequence[str | Path],
    *,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
    stderr: int | None = asyncio.subprocess.STDOUT,
) -> AsyncIterator[asyncio.subprocess.Process]:
    """Start a program in a process group of its own, all of which is killed at the end.

    ``setpriv`` has the kernel end it even when this process is killed and can do nothing.
    """
    process = await asyncio.create_subprocess_exec(
        *("setpriv", "--pdeathsig", "KILL", *command),
        cwd=cwd,
        env=None if env is None else {**os.environ, **env},
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=stderr,
        start_new_session=True,
        limit=_LONGEST_LINE,
    )
    try:
        yield process
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        # Shielded, so that a second Ctrl-C does not leave a zombie behind.
        await asyncio.shield(process.wait())


async def run(
    command: Sequence[str | Path],
    purpose: str,
    *,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
) -> str:
    """Run a program to its end and return what it printed.

    Raises
    ------
    ProbeError
        If it fails; with its last lines, and ``purpose`` to say what was wanted of it.
    """
    async with started(command, cwd=cwd, env=env) as process:
        said = (await process.communicate())[0].decode(errors="replace")
        if process.returncode:
            last = "\n".join(said.strip().splitlines()[-_LAST_LINES:])
            raise ProbeError(
                f"{purpose} failed: {Path(command[0]).name} ended with status "
                f"{process.returncode} and said:\n{last}"
            )
    return said
