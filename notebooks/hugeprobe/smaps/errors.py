"""Why the memory map of a process cannot be read, as sentences."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Final, NoReturn

from hugeprobe.errors import (
    BadRequestError,
    MalformedError,
    NotLinuxError,
    NotPermittedError,
    ProbeError,
    ProcessGoneError,
)

if TYPE_CHECKING:
    from hugeprobe.smaps.fields import Pid


_KERNEL_THREAD: Final = r"^(Kthread:\s+1|PPid:\s+[02])$"
"""In ``status``: what newer kernels say, and that a thread was started by ``kthreadd`` or is it. A
program has no memory map either, for a moment, while it ends."""


class NoSmapsError(ProbeError):
    """The kernel was built without ``/proc/PID/smaps``."""


def malformed(expected: str, found: bytes) -> MalformedError:
    """Return the error of a text that is not as expected."""
    return MalformedError(
        f"smaps was read and {expected} expected, but found was {found[:80]!r}. If this is a "
        "kernel's own text, please report it with the kernel's version."
    )


def hidden(pid: Pid) -> NotPermittedError:
    """Return the error of a process that this user must not look into."""
    return NotPermittedError(
        f"The memory map of process {pid} was asked for, and the kernel refused it to this user. "
        "Run as the user who owns the process, or with CAP_SYS_PTRACE; inside a container, allow "
        "ptrace."
    )


def explain_missing(pid: Pid, root: Path, cause: OSError) -> NoReturn:
    """Raise what says why there is no ``/proc/PID/smaps``, or no ``/proc/PID`` at all."""
    if (root / "proc" / str(pid)).exists():
        raise NoSmapsError(
            f"The memory map of process {pid} was asked for, but this kernel writes no smaps. "
            "It needs a kernel built with CONFIG_PROC_PAGE_MONITOR."
        ) from cause
    if not (root / "proc/self").exists():
        raise NotLinuxError(
            f"The memory map of process {pid} was asked for, but there is no /proc/self here. "
            "Run this on Linux, with /proc mounted."
        ) from cause
    if pid != "self" and root == Path("/") and _lives(pid):
        raise hidden(pid) from cause  # /proc is mounted with hidepid
    raise ProcessGoneError(
        f"The memory map of process {pid} was asked for, but there is no such process. It may have "
        "ended, or live outside this container: look for it with `ps -e`."
    ) from cause


def _lives(pid: int) -> bool:
    """Return whether there is a process ``pid``, also where /proc does not show it."""
    try:
        os.kill(pid, 0)  # signal 0 is only a question
    except PermissionError:
        return True
    except (OSError, OverflowError):
        return False
    return True


def explain_empty(pid: Pid, process: Path, cause: OSError | None) -> NoReturn:
    """Say why a process has no memory map."""
    try:
        status = (process / "status").read_text(errors="replace")
    except OSError:
        status = ""
    if re.search(_KERNEL_THREAD, status, re.MULTILINE) and "VmSize:" not in status:
        raise BadRequestError(
            f"The memory map of process {pid} was asked for, but it is a kernel thread, which has "
            "none. Give the number of a program."
        ) from cause
    raise ProcessGoneError(
        f"The memory map of process {pid} was asked for, but the process has ended. "
        "Look at it while it runs."
    ) from cause
