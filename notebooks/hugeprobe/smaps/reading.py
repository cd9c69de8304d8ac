"""Reading the memory map of a process: all of it, or only its sums."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np

from hugeprobe.errors import BadRequestError
from hugeprobe.smaps.columns import IrregularError, by_columns
from hugeprobe.smaps.errors import (
    NoSmapsError,
    explain_empty,
    explain_missing,
    hidden,
    malformed,
)
from hugeprobe.smaps.lines import by_lines
from hugeprobe.smaps.mapping import Held
from hugeprobe.smaps.snapshots import Snapshot

if TYPE_CHECKING:
    from io import FileIO

    from hugeprobe.smaps.fields import Pid
    from hugeprobe.smaps.records import Chars

_ROLLUP_LINE: Final = re.compile(rb"^(\w+): +([0-9]+) kB$", re.MULTILINE)


def snapshot(pid: Pid = "self", root: Path = Path("/")) -> Snapshot:
    """Read the mappings of a process.

    Parameters
    ----------
    pid
        Process number, or ``"self"``.
    root
        Where ``proc`` is; another one than ``/`` is a recorded tree.

    Raises
    ------
    ProcessGoneError
        If there is no such process, or it ended meanwhile.
    NotPermittedError
        If it belongs to someone else.
    BadRequestError
        If it is a kernel thread, or ``pid`` is not a process number.
    NoSmapsError, NotLinuxError
        If this kernel has no smaps.
    MalformedError
        If the text is not what ``proc_pid_smaps(5)`` describes.
    """
    return _parsed(_read(pid, root), pid)


def held(pid: Pid = "self", root: Path = Path("/")) -> Held:
    """Return what a process holds: the sums of :func:`snapshot`, for a fraction of its cost.

    They come from ``smaps_rollup``, and before Linux 4.14 from a snapshot, whose errors they have.
    """
    try:
        text = _read(pid, root, "smaps_rollup").tobytes()
    except NoSmapsError:
        total = snapshot(pid, root).total
        return Held(total.rss_kib, total.anonymous_kib, total.anon_huge_kib)
    sums = dict(_ROLLUP_LINE.findall(text))
    if not {b"Rss", b"Anonymous", b"AnonHugePages"} <= sums.keys():
        raise malformed("sums of Rss, Anonymous and AnonHugePages", text)
    return Held(int(sums[b"Rss"]), int(sums[b"Anonymous"]), int(sums[b"AnonHugePages"]))


def parse(text: bytes, pid: Pid = "self") -> Snapshot:
    """Return what ``text``, the contents of a smaps file, describes.

    Raises
    ------
    MalformedError
        If the text is cut off, or is not what ``proc_pid_smaps(5)`` describes. Nothing tells that a
        single record was cut off between two lines: it then lacks fields.
    """
    return _parsed(np.frombuffer(bytes(text), np.uint8), pid)


def read(pid: Pid = "self", root: Path = Path("/")) -> bytes:
    """Return the text of ``/proc/PID/smaps``; raises what :func:`snapshot` raises but for form."""
    return _read(pid, root).tobytes()


def _parsed(chars: Chars, pid: Pid) -> Snapshot:
    try:
        records = by_columns(chars)
    except IrregularError:
        records = by_lines(chars)
    return Snapshot(pid, records)


def _read(pid: Pid, root: Path, name: str = "smaps") -> Chars:
    if pid != "self" and pid < 1:
        raise BadRequestError(f"Process {pid} was asked for, but process numbers begin at 1.")
    process = root / "proc" / str(pid)
    try:
        with (process / name).open("rb", buffering=0) as file:
            text = _read_all(file)
    except PermissionError as error:
        raise hidden(pid) from error
    except FileNotFoundError as error:
        explain_missing(pid, root, error)
    except ProcessLookupError as error:
        explain_empty(pid, process, error)
    if not text.size:
        explain_empty(pid, process, None)
    return text


def _read_all(file: FileIO) -> Chars:
    """Read a file of unknown size.

    NumPy advises huge pages for large arrays, which saves thousands of page faults here; a buffer
    that grows by little, like Python's own, has them all.
    """
    text = np.empty(1 << 19, np.uint8)
    size = 0
    while count := file.readinto(text.data[size:]):
        size += count
        if size == len(text):
            text, full = np.empty(32 * size, np.uint8), text
            text[:size] = full
    return text[:size]
