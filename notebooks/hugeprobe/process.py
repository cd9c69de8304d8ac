"""A process as a whole: whether it is still the same one, and what it may have, beside its map.

Sources: ``proc_pid_stat(5)``, ``proc_pid_status(5)``, ``numa_maps`` in ``numa(7)``.
"""

from __future__ import annotations

import re
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final

import psutil

from hugeprobe.errors import BadRequestError, NotObservable, ProcessGoneError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from hugeprobe.smaps import Pid

_LIVE: Final = Path("/")
_STARTED: Final = 19
"""Place of ``starttime`` behind the name in ``/proc/PID/stat``."""


def parse_pid(text: str) -> Pid:
    """Return the process that ``text`` names: a number, or ``self``."""
    if text == "self":
        return "self"
    if text.isascii() and text.isdecimal() and int(text) > 0:
        return int(text)
    raise BadRequestError(
        f"Process '{text}' was asked for, which is neither a process number nor self. "
        "Find the number with `pgrep -a python`."
    )


def started(pid: Pid, root: Path = _LIVE) -> int | None:
    """Return when a process started, in clock ticks since boot; None where that is not to be seen.

    A number is given to another process once its own has ended; number and start are not.
    """
    text = _text(root / "proc" / str(pid) / "stat") or ""
    fields = text.rpartition(")")[2].split()  # a name may hold spaces and parentheses
    return int(fields[_STARTED]) if len(fields) > _STARTED else None


@contextmanager
def same(pid: Pid, root: Path = _LIVE) -> Iterator[None]:
    """Raise :class:`ProcessGoneError` unless ``pid`` is the same process when the block ends."""
    before = started(pid, root)
    yield
    if started(pid, root) != before:
        raise ProcessGoneError(
            f"Process {pid} was looked at, but it ended meanwhile, and its number may belong to "
            "another. Look at it while it runs."
        )


def thp_allowed(pid: Pid, root: Path = _LIVE) -> bool | None:
    """Return False where ``PR_SET_THP_DISABLE`` forbids every huge page; None before Linux 5.0."""
    text = _text(root / "proc" / str(pid) / "status") or ""
    match = re.search(r"^THP_enabled:\s+([01])$", text, re.MULTILINE)
    return match[1] == "1" if match else None


def policies(pid: Pid, root: Path = _LIVE) -> Mapping[int, str] | NotObservable:
    """Return the NUMA memory policy of each mapping, such as ``bind:0``, by its first address.

    It costs the kernel about as much as smaps does.
    """
    text = _text(root / "proc" / str(pid) / "numa_maps")
    if text is None:
        return NotObservable(
            "this kernel does not tell memory policies (CONFIG_NUMA), or not to us"
        )
    rows = (line.split(maxsplit=2) for line in text.splitlines())
    return {int(row[0], 16): row[1] for row in rows if len(row) > 1}


def descendants(pid: Pid) -> tuple[int, ...]:
    """Return the processes that ``pid`` started, and those that these started, as of now."""
    try:
        process = psutil.Process(None if pid == "self" else pid)
        return tuple(child.pid for child in process.children(recursive=True))
    except psutil.NoSuchProcess as error:
        raise ProcessGoneError(
            f"The children of process {pid} were asked for, but it has ended. "
            "Look at it while it runs."
        ) from error
    except psutil.AccessDenied:
        return ()


def _text(path: Path) -> str | None:
    try:
        return path.read_text(errors="replace")
    except OSError:
        return None
