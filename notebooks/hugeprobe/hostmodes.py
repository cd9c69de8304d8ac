"""Set huge page settings of the whole host for a benchmark, and put them back whatever happens.

This is the only module that writes to ``/sys`` of the host, and only for a user who asked for it as
root. A second process, the watchdog, knows from the start what to put back, and does so when the
benchmark ends, in order or not: it waits for the end of a pipe, which the kernel closes when a
process dies, also by SIGKILL. It shares the lock that keeps a second benchmark out, so that nobody
takes settings for the host's own that are still to be put back.

Nothing can be done where both processes are killed at once, as with ``cgroup.kill``, or where the
machine stops; a boot sets every value anew. The lock is on a folder of sysfs, which each network
namespace has a copy of: two containers that may write to ``/sys`` do not see each other's.

Source of the settings: ``Documentation/admin-guide/mm/transhuge.rst`` of the kernel.
"""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import sys
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from hugeprobe import host
from hugeprobe.errors import MalformedError, NotObservable, NotPermittedError, ProbeError
from hugeprobe.sizes import KIB, format_kib, page_sizes

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

_LIVE: Final = Path("/")
_SYSTEM: Final = "enabled"
_READY: Final = b"ready\n"
_PATIENCE: Final = 10.0  # seconds; a write to sysfs takes a moment, unless someone stopped us


@dataclass(frozen=True, slots=True)
class HostMode:
    """Settings to measure under; what is not named here stays as the host has it.

    Parameters
    ----------
    name
        Short name.
    description
        What it does, in one sentence.
    system
        THP mode of the system, which the PMD size then inherits; None leaves both alone.
    sizes_kib
        Smaller huge page sizes (multi-size THP), of which those are set that the kernel offers.
    per_size
        What they are set to.
    """

    name: str
    description: str
    system: str | None = None
    sizes_kib: tuple[int, ...] = ()
    per_size: str = "always"

    def settings(self, root: Path = _LIVE) -> dict[str, str] | NotObservable:
        """Return the value for each file below ``/sys/kernel/mm/transparent_hugepage``."""
        folder = root / host.THP
        if not folder.exists():
            return NotObservable("this kernel was built without transparent huge pages")
        if self.sizes_kib and not host.mthp_sizes(root):
            return NotObservable(
                "this kernel has no settings for each huge page size; they came with Linux 6.8"
            )
        chosen: dict[str, str] = {}
        if self.system is not None:
            pmd = _of_size(page_sizes(root).pmd // KIB)
            chosen[_SYSTEM] = self.system
            chosen |= {pmd: "inherit"} if (folder / pmd).exists() else {}
        offered = [kib for kib in self.sizes_kib if (folder / _of_size(kib)).exists()]
        if self.sizes_kib and not offered:
            sizes = " or ".join(map(format_kib, self.sizes_kib))
            return NotObservable(f"this kernel offers no huge pages of {sizes}")
        return chosen | {_of_size(kib): self.per_size for kib in offered}


def _of_size(kib: int) -> str:
    return f"hugepages-{kib}kB/enabled"


_64_KIB: Final = (64,)
_UP_TO_1_MIB: Final = (64, 128, 256, 512, 1024)

ALWAYS: Final = HostMode("thp-always", "All memory may have PMD-size pages.", system="always")
MTHP_64K_ALWAYS: Final = HostMode(
    "mthp-64k-always", "All memory may have pages of 64 KiB.", sizes_kib=_64_KIB
)
MTHP_ALWAYS: Final = HostMode(
    "mthp-always", "All memory may have pages of 64 KiB to 1 MiB.", sizes_kib=_UP_TO_1_MIB
)
# glibc looks at the mode of the system, and advises only where that is madvise.
MTHP_64K_MADVISE: Final = HostMode(
    "mthp-64k-madvise",
    "Advised memory may have pages of 64 KiB and of the PMD size.",
    system="madvise",
    sizes_kib=_64_KIB,
    per_size="madvise",
)
MTHP_MADVISE: Final = HostMode(
    "mthp-madvise",
    "Advised memory may have pages of 64 KiB to 1 MiB and of the PMD size.",
    system="madvise",
    sizes_kib=_UP_TO_1_MIB,
    per_size="madvise",
)
HOST_MODES: Final = (ALWAYS, MTHP_64K_ALWAYS, MTHP_ALWAYS, MTHP_64K_MADVISE, MTHP_MADVISE)


@dataclass(frozen=True, slots=True)
class Change:
    """One setting, as the host had it and as it was measured under; they may be the same.

    Parameters
    ----------
    setting
        File below ``/sys/kernel/mm/transparent_hugepage``.
    before, after
        The words in force.
    """

    setting: str
    before: str
    after: str


@dataclass(frozen=True, slots=True)
class Keeper:
    """What the host's settings were, and the way to change them; made by :func:`keeper`.

    Parameters
    ----------
    root
        The host, or a recorded tree.
    remembered
        The word in force of every setting that a mode may change.
    """

    root: Path
    remembered: Mapping[str, str]
    _watchdog: subprocess.Popen[bytes]

    @contextmanager
    def applied(self, mode: HostMode) -> Iterator[tuple[Change, ...] | NotObservable]:
        """Set ``mode``, one at a time, and put back what was there on leaving, for any reason.

        Yields
        ------
        tuple of Change or NotObservable
            Every setting of the mode; the latter, with nothing changed, where this kernel does
            not have them.

        Raises
        ------
        NotPermittedError
            If the kernel refused a value; what was set before it is put back.
        ProbeError
            If the watchdog is found gone, before or after, or a setting could not be put back.
        """
        settings = mode.settings(self.root)
        if isinstance(settings, NotObservable):
            yield settings
            return
        self._require_watchdog()
        try:
            for name, value in settings.items():
                self._set(name, value)
            yield tuple(
                Change(name, self.remembered[name], value) for name, value in settings.items()
            )
        finally:
            put_back(self.root / host.THP, self.remembered)
        self._require_watchdog()

    def _set(self, name: str, value: str) -> None:
        try:
            (self.root / host.THP / name).write_text(value)
        except OSError as error:
            raise NotPermittedError(
                f"The huge page setting {name} was to be {value}, but the kernel refused: "
                f"{error.strerror}. All settings were put back; leave this arm out."
            ) from error

    def _require_watchdog(self) -> None:
        if self._watchdog.poll() is not None:
            raise ProbeError(
                "The process that would put the host's settings back after a crash was ended by "
                "someone else. The settings were put back, and nothing more is changed without "
                "it; run the benchmark again."
            )


@contextmanager
def keeper(root: Path = _LIVE) -> Iterator[Keeper]:
    """Remember every setting that a mode may change, and see that it is put back at the end.

    Put it around a whole benchmark. Processes that the benchmark starts must be started by exec,
    as :mod:`subprocess` does: one that is only forked keeps the watchdog waiting for its end, too.

    Raises
    ------
    NotPermittedError
        If this user may not change the settings.
    ProbeError
        If there are none, another benchmark is changing them, or the watchdog does not start.
    MalformedError
        If a setting does not say which value is in force.
    """
    root = root.resolve()  # the watchdog has another working directory
    folder = root / host.THP
    names = [
        str(file.relative_to(folder))
        for pattern in (_SYSTEM, "hugepages-*kB/enabled")
        for file in sorted(folder.glob(pattern))
    ]
    _require_permission(folder, names)
    with _alone(folder) as lock:
        remembered = {name: _in_force(folder / name) for name in names}
        with _watchdog(folder, remembered, lock) as process:
            yield Keeper(root, remembered, process)


def _require_permission(folder: Path, names: list[str]) -> None:
    if not names:
        raise ProbeError(
            "The host's huge page settings were to be changed, but this kernel was built without "
            "transparent huge pages. Leave out the host modes."
        )
    if not all(os.access(folder / name, os.W_OK) for name in names):
        raise NotPermittedError(
            "The host's huge page settings were to be changed, but this process may not write "
            f"to {folder}. Run it as root, where /sys is not mounted read-only as in most "
            "containers, or leave out the host modes."
        )


@contextmanager
def _alone(folder: Path) -> Iterator[int]:
    """Hold the lock for as long as the descriptor is open here or in the watchdog."""
    lock = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ProbeError(
                "The host's huge page settings were to be changed, but another benchmark is "
                "changing them now. Wait until it has ended."
            ) from None
        yield lock
    finally:
        os.close(lock)


def _in_force(file: Path) -> str:
    value = host.choice(file)
    if value is None:
        raise MalformedError(
            f"The setting {file} was to be remembered, but it does not mark the value in force "
            "by brackets, so it could not be put back. Nothing was changed."
        )
    return value


def put_back(folder: Path, remembered: Mapping[str, str]) -> None:
    """Write what is not in force; several processes and threads may do so at once.

    Raises
    ------
    ProbeError
        If a value could not be written; the others are.
    """
    failed = []
    for name, value in remembered.items():
        file = folder / name
        try:
            if host.choice(file) != value:
                file.write_text(value)
        except OSError as error:
            failed.append(f"{value} to {file} ({error.strerror})")
    if failed:
        raise ProbeError(
            "The host's huge page settings were to be put back, but not all could be. "
            f"Write, as root, {', '.join(failed)}."
        )


# The watchdog -------------------------------------------------------------------------------------


@contextmanager
def _watchdog(
    folder: Path, remembered: Mapping[str, str], lock: int
) -> Iterator[subprocess.Popen[bytes]]:
    """Start the watchdog; at the end let it do its work, and do it ourselves where it did not."""
    values = [f"{name}={value}" for name, value in remembered.items()]
    process = subprocess.Popen(
        [sys.executable, "-m", "hugeprobe.hostmodes", str(folder), *values],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        pass_fds=[lock],
        cwd="/",  # it holds no folder busy, and imports nothing from one
        env={**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[1])},
        start_new_session=True,  # out of reach of Ctrl-C
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        with process.stdin, process.stdout:
            if process.stdout.readline() != _READY:
                raise ProbeError(
                    "The process that would put the host's settings back after a crash did not "
                    "start. Nothing was changed; look above for what it said."
                )
            yield process
    finally:
        with suppress(subprocess.TimeoutExpired):
            process.wait(_PATIENCE)
        process.kill()
        process.wait()
        put_back(folder, remembered)


def main() -> None:
    """Wait until the benchmark is gone, and put back what the arguments name."""
    for number in (signal.SIGHUP, signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    folder, *values = sys.argv[1:]
    sys.stdout.buffer.write(_READY)
    sys.stdout.flush()
    sys.stdin.read()
    try:
        put_back(Path(folder), dict(value.split("=", 1) for value in values))
    except ProbeError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
