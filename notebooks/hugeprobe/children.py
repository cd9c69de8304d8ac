"""Processes that are started to be measured: what they inherit, how they tell, how they end.

A measured process inherits nothing that steers allocation, and leaves nothing behind. It tells its
parent of each step by one line, and waits for one until the parent has looked at its memory.
"""

from __future__ import annotations

import os
import re
import resource
import signal
import socket
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Final, TextIO

from hugeprobe.errors import ProbeError, ProcessGoneError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

_STEERS_ALLOCATION: Final = re.compile(
    r"GLIBC_TUNABLES|LD_PRELOAD|(?:MI|TC)?MALLOC_\w+|NUMPY_MADVISE_HUGEPAGE|TBB_ENABLE_SANITIZERS"
)
_FOLDERS: Final = re.compile(r"(?:/[^\s/:'\"()]+)+/")
_NO_CORE: Final = 1
"""Limit in bytes under which the kernel neither writes a core nor pipes it to a program, as it does
under 0 (``core(5)``; ``fs/coredump.c``)."""


@dataclass(frozen=True, slots=True)
class Child:
    """A process that tells of its steps; see :func:`talking`.

    Parameters
    ----------
    pid
        Its number.
    connection, channel
        The socket, and the same as a file of lines.
    ends
        When its time is over, on the clock :func:`time.monotonic`.
    """

    pid: int
    connection: socket.socket
    channel: TextIO
    ends: float

    def steps(self, request: str) -> Iterator[str]:
        """Send the request, and return each line of the process, which goes on after it.

        Raises
        ------
        TimeoutError
            If its time is over.
        """
        print(request, file=self.channel, flush=True)
        for line in self.channel:
            yield line
            self.connection.settimeout(max(0.001, self.ends - time.monotonic()))
            print(file=self.channel, flush=True)


@contextmanager
def talking(
    module: str,
    arguments: Sequence[str],
    added: Mapping[str, str],
    timeout: float,
    handed_on: Sequence[int] = (),
) -> Iterator[Child]:
    """Start a module of this package with the descriptor of a socket as its first argument.

    Parameters and errors are those of :func:`started`.
    """
    ours, theirs = socket.socketpair()
    told = [str(theirs.fileno()), *arguments]
    inherited = [theirs.fileno(), *handed_on]
    with ours, theirs, started(module, told, added, timeout, inherited) as process:
        theirs.close()
        ours.settimeout(timeout)
        with ours.makefile("rw") as channel:
            yield Child(process.pid, ours, channel, time.monotonic() + timeout)


@contextmanager
def started(
    module: str,
    arguments: Sequence[str],
    added: Mapping[str, str],
    timeout: float,
    handed_on: Sequence[int] = (),
) -> Iterator[subprocess.Popen[bytes]]:
    """Start a module of this package; at the end wait for it, and say how it failed if it did.

    Parameters
    ----------
    module, arguments
        What is run.
    added
        Environment variables that it gets beside those of :func:`environment`.
    timeout
        Seconds for all of it.
    handed_on
        Descriptors that it inherits, under the same numbers.

    Raises
    ------
    ProbeError
        If it crashed or did not finish in time; what it said last is in the text.
    """
    ends = time.monotonic() + timeout
    with tempfile.TemporaryFile() as said:
        process = subprocess.Popen(
            [sys.executable, "-m", module, *arguments],
            env=environment(added),
            pass_fds=handed_on,
            stdout=said,
            stderr=said,
        )
        try:
            _leave_no_core(process.pid)
            # If it is gone, its status and its last words tell why.
            with suppress(ConnectionError, ProcessGoneError):
                yield process
            status = process.wait(max(0.0, ends - time.monotonic()))
        except (TimeoutError, subprocess.TimeoutExpired):
            raise ProbeError(
                f"The measured process was given {timeout:g} s and did not finish. "
                "Choose fewer or smaller shapes, or a longer time."
            ) from None
        finally:
            process.kill()
            process.wait()
        if status:
            raise ProbeError(f"The measured process {_ending(status)}{_last_words(said)}.")


def environment(added: Mapping[str, str]) -> dict[str, str]:
    """Return this environment without what steers allocation, plus ``added`` and this package.

    Both runtimes report their use to their makers from a thread of their own, and leave files for
    that. What is measured here does neither. ONNX Runtime has a variable for it; OpenVINO is silent
    in CI, or where the user's whole account has opted out. Sources:
    https://github.com/microsoft/onnxruntime/blob/main/docs/Privacy.md and
    https://docs.openvino.ai/2026/about-openvino/additional-resources/telemetry.html.
    """
    kept = {
        name: value for name, value in os.environ.items() if not _STEERS_ALLOCATION.fullmatch(name)
    }
    packages = [str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH", "")]
    silent = {"ORT_DISABLE_TELEMETRY": "1", "CI": "true"}
    return {**silent, **kept, "PYTHONPATH": os.pathsep.join(filter(None, packages)), **added}


def _leave_no_core(pid: int) -> None:
    _, highest = resource.prlimit(pid, resource.RLIMIT_CORE)
    if highest:
        resource.prlimit(pid, resource.RLIMIT_CORE, (_NO_CORE, highest))


def _ending(status: int) -> str:
    if status > 0:
        return f"failed with status {status}"
    return f"was ended by {signal.Signals(-status).name}"


def _last_words(said: IO[bytes]) -> str:
    """Return the last line that the process wrote, without the folders that it names."""
    said.seek(0)
    lines = said.read().decode(errors="replace").split("\n")
    last = next((line.strip() for line in reversed(lines) if line.strip()), "")
    return last and f": {without_folders(last)[:300].rstrip('.')}"


def without_folders(text: str) -> str:
    """Cut paths in a message down to the file name, so that it can be published.

    >>> without_folders("no such file: '/home/someone/models/a.onnx'")
    "no such file: 'a.onnx'"
    """
    return _FOLDERS.sub("", text)
