"""Watch a process over time: one that is started here, up to its largest, or one that runs.

How much a process holds is asked often, because the kernel sums it quickly (``smaps_rollup``); the
whole map is read only when memory has grown and rests, so that watching costs it little.
"""

from __future__ import annotations

import resource
import subprocess
import time
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

import psutil

from hugeprobe import doctor, process, smaps
from hugeprobe.counters import faults_of, system_wide
from hugeprobe.errors import BadRequestError, NotPermittedError, ProbeError, ProcessGoneError
from hugeprobe.sizes import format_kib

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from hugeprobe.doctor import Diagnosis
    from hugeprobe.examine import Examined
    from hugeprobe.host import HostFacts
    from hugeprobe.smaps import Held, Pid

_SHORTEST_PAUSE: Final = 0.02
_SHARE_OF_TIME: Final = 0.05
"""Of its time, a process that is watched at most spends this part on being looked at."""
_GROWN: Final = 1.02
"""Growth since the last reading of the map from which on it is read again, once memory rests."""
_GROWN_MUCH: Final = 1.25
"""The same while memory still grows."""
_LITTLE_KIB: Final = 1024
"""Memory rests if it grew by less than this since the look before."""
_MISSED: Final = 0.9
"""Part of the highest resident memory below which the reading of the map missed something."""
_TIME_TO_END: Final = 10.0


@dataclass(frozen=True, slots=True)
class Observed:
    """A command that was run and watched.

    Parameters
    ----------
    diagnosis
        Its memory when it held most.
    status
        Exit status as a shell gives it, 128 and the signal for one that a signal ended; 0 where it
        was ended here because its time was up.
    """

    diagnosis: Diagnosis
    status: int


def observe(
    command: Sequence[str],
    *,
    after: float | None = None,
    children: bool = False,
    stdout: int | None = None,
) -> Observed:
    """Start a command, watch it, and say why its memory is not huge when it holds most.

    Its standard input, output and error are those of this process.

    Parameters
    ----------
    command
        Program and arguments.
    after
        Seconds after which it is ended; None to wait for it.
    children
        Whether the processes that it starts are looked at, too.
    stdout
        Descriptor for its standard output, in place of that of this process.

    Raises
    ------
    BadRequestError
        If there is no such program.
    ProbeError
        If it ended before it could be looked at, or may not be looked at.
    """
    host = doctor.this_host()
    before = _highest_kib()
    with _running(command, stdout) as child:
        peak = _Peak(child.pid, host.facts, children)
        status = _watch(child, peak, after)
    if not peak.examined:
        raise ProbeError(
            f"{command[0]} was started, but ended with status {status} before its memory could be "
            "looked at. Diagnose a command that runs for a second or more."
        )
    host = replace(host, events=system_wide() - host.events, since="it was started")
    diagnosis = doctor.diagnosis_of(peak.examined, host)
    highest, seen = _highest_kib(), diagnosis.resident_kib
    if before < highest and seen < _MISSED * highest:
        note = (
            f"At its highest it held {format_kib(highest)}, and {format_kib(seen)} when its map "
            "was read: it grew and shrank too quickly to be looked at in between."
        )
        diagnosis = replace(diagnosis, notes=(*diagnosis.notes, note))
    return Observed(diagnosis, status)


def _highest_kib() -> int:
    """Return the most resident memory that any ended child ever held; Linux counts it in KiB."""
    return resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss


@contextmanager
def _running(command: Sequence[str], stdout: int | None) -> Iterator[subprocess.Popen[bytes]]:
    """Start a command; at the end of the block end it, and what it started, if they still run."""
    try:
        child = subprocess.Popen(command, stdout=stdout)
    except OSError as error:
        raise BadRequestError(
            f"'{command[0]}' was to be diagnosed, but it is neither a process number nor a program "
            f"that can be started ({error.strerror}). Find numbers with `pgrep -a python`."
        ) from error
    try:
        yield child
    finally:
        _end(child)


def _end(child: subprocess.Popen[bytes]) -> None:
    if child.poll() is not None:
        return
    started: list[psutil.Process] = []
    with suppress(psutil.Error):
        started = psutil.Process(child.pid).children(recursive=True)
    child.terminate()
    with suppress(subprocess.TimeoutExpired):
        child.wait(_TIME_TO_END)
    child.kill()
    child.wait()
    for each in started:
        with suppress(psutil.Error):
            each.terminate()
    _, left = psutil.wait_procs(started, _TIME_TO_END)
    for each in left:
        with suppress(psutil.Error):
            each.kill()


def _watch(child: subprocess.Popen[bytes], peak: _Peak, after: float | None) -> int:
    """Look at a command until it ends or its time is up; return its exit status.

    An interrupt from the keyboard reaches the command, too; it is the command that decides.
    """
    ends = None if after is None else time.monotonic() + after
    while ends is None or time.monotonic() < ends:
        try:
            pause = peak.look()
            left = pause if ends is None else max(0.0, min(pause, ends - time.monotonic()))
            status = child.wait(left)
        except (subprocess.TimeoutExpired, KeyboardInterrupt):
            continue
        return status if status >= 0 else 128 - status
    peak.look_once_more()
    return 0


@dataclass(slots=True)
class _Peak:
    """A process, and those that it started, as they were when they held most."""

    pid: int
    facts: HostFacts
    children: bool
    examined: tuple[Examined, ...] = ()
    examined_kib: int = 0
    last_kib: int = 0

    def look(self) -> float:
        """Sum what they hold, and read their maps if that grew and rests, or grew much.

        Returns
        -------
        float
            Seconds until they should be looked at again.
        """
        began = time.thread_time()  # what the kernel does for this thread, not what it waits
        with suppress(ProcessGoneError):
            kib = self._anonymous_kib()
            seconds = time.thread_time() - began
            rests = kib - self.last_kib < _LITTLE_KIB
            if kib > self.examined_kib * (_GROWN if rests else _GROWN_MUCH):
                self._examine()
            self.last_kib = kib
            return max(_SHORTEST_PAUSE, seconds / _SHARE_OF_TIME)
        return _SHORTEST_PAUSE

    def look_once_more(self) -> None:
        """Read their maps if they hold more than when they were last read."""
        with suppress(ProcessGoneError):
            if self._anonymous_kib() > self.examined_kib:
                self._examine()

    def _examine(self) -> None:
        self.examined = doctor.examine_all(self.pid, self.facts, children=self.children)
        self.examined_kib = sum(
            mapping.anonymous_kib or 0 for each in self.examined for mapping in each.mappings
        )

    def _anonymous_kib(self) -> int:
        kib = smaps.held(self.pid).anonymous_kib
        for child in process.descendants(self.pid) if self.children else ():
            with suppress(ProcessGoneError, NotPermittedError):
                kib += smaps.held(child).anonymous_kib
        return kib


@dataclass(frozen=True, slots=True)
class Sample:
    """A running process at one moment.

    Parameters
    ----------
    held
        What it holds.
    minor_faults
        Since the sample before.
    diagnosis
        Of the last time that its anonymous memory had changed.
    """

    held: Held
    minor_faults: int
    diagnosis: Diagnosis

    @property
    def coverage(self) -> float:
        """Share of the resident anonymous memory that is huge, 0 to 1."""
        return self.held.anon_huge_kib / (self.held.anonymous_kib or 1)


def watch(pid: Pid, every: float, *, children: bool = False) -> Iterator[Sample]:
    """Look at a process again and again, until it ends.

    Parameters
    ----------
    pid
        Process number, or ``"self"``.
    every
        Seconds between two looks.
    children
        Whether diagnoses are also of the processes that it started; what is held and faults are
        its own.

    Raises
    ------
    ProbeError
        At the first look, as :func:`hugeprobe.doctor.diagnose`.
    """
    started = process.started(pid)
    diagnosis = doctor.diagnose(pid, children=children)
    held, faults = smaps.held(pid), faults_of(pid).minor
    with suppress(ProcessGoneError):
        while process.started(pid) == started:
            now, faults_now = smaps.held(pid), faults_of(pid).minor
            if _differ(held, now):
                diagnosis = doctor.diagnose(pid, children=children)
            yield Sample(now, faults_now - faults, diagnosis)
            held, faults = now, faults_now
            time.sleep(every)


def _differ(held: Held, now: Held) -> bool:
    """Return whether anonymous memory differs, in amount or in what backs it."""
    return (held.anonymous_kib, held.anon_huge_kib) != (now.anonymous_kib, now.anon_huge_kib)
