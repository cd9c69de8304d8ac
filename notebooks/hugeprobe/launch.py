"""Start a command under a profile, watch its memory, and tell in the end what came of it.

The command keeps its standard streams and its terminal, gets the signals that are sent to this
process, and is looked at from outside, so seldom that it does not notice. Its faults are counted by
the kernel (``wait4(2)``). Everything is done to the new process alone: environment, ``prctl`` and a
filter, all of which it passes on to the processes that it starts.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import time
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Final

import psutil

from hugeprobe import host, linux, smaps
from hugeprobe.coverage import Coverage, Mode, cover, mode_of
from hugeprobe.errors import BadRequestError, NotObservable, ProbeError
from hugeprobe.smaps import Kind

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from hugeprobe.profiles import Profile

_FORWARDED: Final = frozenset(
    {
        *(signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGTERM),
        *(signal.SIGUSR1, signal.SIGUSR2),
    }
)
_SHORTEST_PAUSE: Final = 0.2
_PART_OF_TIME: Final = 50
"""At most one part in so many of the time is spent with looking."""
_STILL_LARGEST: Final = 0.9
"""The command counts as at its largest while it holds this share of the most that was seen, so that
the last look of that time tells, by which huge pages had time to come."""
_GLIBC: Final = re.compile(r"/libc(?:\.so\.6|-2\.\d+\.so)$")
_PMD_KIB: Final = 2048  # where the kernel does not tell


@dataclass(frozen=True, slots=True)
class Look:
    """Memory of a command and of the processes that it started, at one moment.

    Parameters
    ----------
    coverage
        Resident anonymous memory by what backs it; what processes share since a fork counts for
        each of them.
    resident_kib
        All resident memory, in the same way.
    processes
        How many processes there were.
    glibc
        Whether one of them uses glibc, which alone knows ``GLIBC_TUNABLES``.
    """

    coverage: Coverage
    resident_kib: int
    processes: int
    glibc: bool


@dataclass(frozen=True, slots=True)
class Watched:
    """What came of a command.

    Parameters
    ----------
    profile
        Name of the profile that it was started under.
    status
        Exit status as a shell has it: 128 and the signal's number where a signal ended it.
    seconds
        Wall-clock time from start to end.
    minor_faults, major_faults
        Of the command and of the processes that it started and waited for.
    largest
        The last look while it held about its most memory; NotObservable where it was never seen.
    """

    profile: str
    status: int
    seconds: float
    minor_faults: int
    major_faults: int
    largest: Look | NotObservable


def run(command: Sequence[str], profile: Profile, env: Mapping[str, str]) -> Watched:
    """Run a command to its end, and watch it.

    Signals that would end this process are passed on to the command in the meantime; so call it
    from the main thread.

    Parameters
    ----------
    command
        Program and arguments.
    profile
        What is done to the process, beside its environment.
    env
        The whole environment; see :func:`hugeprobe.profiles.merge`.

    Raises
    ------
    BadRequestError
        If there is no such program, or it cannot be executed.
    ProbeError
        If the kernel does not let the profile be applied.
    """
    linux.require_linux()
    facts = host.host_facts()
    watch = _Watch("never" if profile.thp_disabled else mode_of(facts), facts.pmd_kib or _PMD_KIB)
    began = time.monotonic()
    with _held_back(_FORWARDED | {signal.SIGCHLD}) as mask:
        process = _start(command, profile, env, mask)
        pause = _SHORTEST_PAUSE
        while True:
            _wait(process.pid, pause)
            ended, status, usage = os.wait4(process.pid, os.WNOHANG)
            if ended:
                break
            pause = watch.look(process.pid)
    process.returncode = os.waitstatus_to_exitcode(status)
    return Watched(
        profile.name,
        process.returncode if process.returncode >= 0 else 128 - process.returncode,
        time.monotonic() - began,
        usage.ru_minflt,
        usage.ru_majflt,
        watch.largest,
    )


@contextmanager
def _held_back(signals: frozenset[signal.Signals]) -> Iterator[set[int]]:
    """Keep signals waiting to be asked for; yield the mask from before.

    Those that nobody asked for came when the command had ended, and have nobody to end any more.
    """
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, signals)
    try:
        yield {int(each) for each in mask}
    finally:
        while signal.sigtimedwait(signals, 0):
            pass
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)


def _start(
    command: Sequence[str], profile: Profile, env: Mapping[str, str], mask: set[int]
) -> subprocess.Popen[bytes]:
    try:
        return subprocess.Popen(
            command,
            env=dict(env),
            close_fds=False,  # sockets that a service manager hands over are for the command
            preexec_fn=partial(_apply, profile, mask),  # noqa: PLW1509 - no threads are started here
        )
    except FileNotFoundError as error:
        raise BadRequestError(
            f"The command '{command[0]}' was to be started, but there is no such program. Give its "
            "path, or look at PATH."
        ) from error
    except PermissionError as error:
        raise BadRequestError(
            f"The command '{command[0]}' was to be started, but it may not be executed. Look at "
            "its permissions."
        ) from error
    except subprocess.SubprocessError as error:
        raise ProbeError(
            f"The command '{command[0]}' was to be started under the profile {profile.name}, but "
            "the kernel refused that. Choose the profile keep or plain."
        ) from error


def _apply(profile: Profile, mask: set[int]) -> None:
    """Do to the new process what the profile says, before it executes the command."""
    signal.pthread_sigmask(signal.SIG_SETMASK, mask)
    if profile.thp_disabled:
        linux.set_thp_disabled(True)
    if profile.mbind_refused:
        linux.refuse_mbind()


def _wait(pid: int, seconds: float) -> None:
    """Wait, up to ``seconds``, for the end of the process; pass on the signals that come.

    What a terminal sends, for Ctrl-C, goes to all processes in its foreground; of these the command
    is one, unless it has left the group, and must not get it twice.
    """
    ends = time.monotonic() + seconds
    while (left := ends - time.monotonic()) > 0:
        came = signal.sigtimedwait(_FORWARDED | {signal.SIGCHLD}, left)
        if came is None or came.si_signo == signal.SIGCHLD:
            return
        with suppress(ProcessLookupError):
            if came.si_code <= 0 or os.getpgid(pid) != os.getpgrp():  # sent by a process
                os.kill(pid, came.si_signo)


class _Watch:
    """Looks at a command from time to time, and keeps what it held at its largest."""

    def __init__(self, mode: Mode, pmd_kib: int) -> None:
        self._mode = mode
        self._pmd_kib = pmd_kib
        self._most = 0
        self.largest: Look | NotObservable = NotObservable(
            "the command ended before it was looked at"
        )

    def look(self, pid: int) -> float:
        """Look once; return how long to wait until the next time, in seconds."""
        began = time.monotonic()
        seen = self._seen(pid)
        if isinstance(seen, NotObservable):
            if isinstance(self.largest, NotObservable):
                self.largest = seen
        else:
            held = seen.coverage.anonymous_kib
            self._most = max(self._most, held)
            if held >= _STILL_LARGEST * self._most:
                self.largest = seen
        return max(_SHORTEST_PAUSE, _PART_OF_TIME * (time.monotonic() - began))

    def _seen(self, pid: int) -> Look | NotObservable:
        snapshots, why = [], self.largest
        for each in _family(pid):
            try:
                snapshots.append(smaps.snapshot(each))
            except ProbeError as error:
                why = NotObservable(f"its memory could not be read: {str(error).rstrip('.')}")
        if not snapshots:
            return why if isinstance(why, NotObservable) else NotObservable("it had ended")
        return Look(
            Coverage.total(cover(each, self._mode, self._pmd_kib) for each in snapshots),
            sum(each.total.rss_kib for each in snapshots),
            len(snapshots),
            any(
                _GLIBC.search(mapping.name)
                for snapshot in snapshots
                for mapping in snapshot
                if mapping.kind is Kind.FILE
            ),
        )


def _family(pid: int) -> list[int]:
    """Return a process and those that descend from it."""
    with suppress(psutil.Error):
        return [pid, *(child.pid for child in psutil.Process(pid).children(recursive=True))]
    return [pid]
