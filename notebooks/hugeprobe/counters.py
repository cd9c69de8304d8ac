"""What happened meanwhile: page faults of this thread, and the huge page events of the system.

Page faults are counted by the kernel for every thread, exactly (``getrusage(2)``). Huge page events
are counted for the whole system only (``/proc/vmstat``, and a folder for each page size): on a busy
host they include what others did, and every name below says so.
"""

from __future__ import annotations

import resource
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal, TypeAlias

from hugeprobe.errors import MalformedError, NotLinuxError, ProcessGoneError
from hugeprobe.host import mthp_sizes
from hugeprobe.linux import require_linux

if TYPE_CHECKING:
    from types import TracebackType

    from hugeprobe.smaps import Pid

Of: TypeAlias = Literal["thread", "process"]


@dataclass(frozen=True, slots=True)
class Faults:
    """Page faults: minor ones needed no input or output, major ones did."""

    minor: int
    major: int


@dataclass(frozen=True, slots=True)
class SystemWideSize:
    """Faults in anonymous memory of all processes, by the huge page size tried for them.

    Parameters
    ----------
    kib
        The size in KiB.
    fault_alloc
        Faults answered with a page of this size.
    fault_fallback
        Faults for which this size was permitted and fitted, but could not be had.
    """

    kib: int
    fault_alloc: int
    fault_fallback: int


@dataclass(frozen=True, slots=True)
class SystemWide:
    """Huge page events of all processes; None for what this kernel does not count.

    Names are those of ``/proc/vmstat`` without ``thp_``, and count pages of the PMD size. ``sizes``
    has every size, largest first, and is empty before Linux 6.10.
    """

    fault_alloc: int | None
    fault_fallback: int | None
    collapse_alloc: int | None
    collapse_alloc_failed: int | None
    split_page: int | None
    split_pmd: int | None
    sizes: tuple[SystemWideSize, ...]

    def __sub__(self, earlier: SystemWide) -> SystemWide:
        """Return what was counted since ``earlier``."""
        events = {
            name: _difference(getattr(self, name), getattr(earlier, name)) for name in _EVENTS
        }
        before = {size.kib: size for size in earlier.sizes}
        sizes = tuple(
            SystemWideSize(
                size.kib,
                size.fault_alloc - before[size.kib].fault_alloc,
                size.fault_fallback - before[size.kib].fault_fallback,
            )
            for size in self.sizes
            if size.kib in before
        )
        return SystemWide(**events, sizes=sizes)


_EVENTS: Final = tuple(field.name for field in fields(SystemWide) if field.name != "sizes")


def _difference(later: int | None, earlier: int | None) -> int | None:
    return None if later is None or earlier is None else later - earlier


def system_wide(root: Path = Path("/")) -> SystemWide:
    """Return the huge page events since boot."""
    try:
        text = (root / "proc/vmstat").read_text()
    except OSError:
        text = ""
    counted = dict(line.split(maxsplit=1) for line in text.splitlines())
    events = {name: _integer(counted.get(f"thp_{name}")) for name in _EVENTS}
    sizes = []
    for size in mthp_sizes(root):
        stats = {stat.name: stat.count for stat in size.stats}
        if "anon_fault_alloc" in stats:
            alloc, fallback = stats["anon_fault_alloc"], stats.get("anon_fault_fallback", 0)
            sizes.append(SystemWideSize(size.kib, alloc, fallback))
    return SystemWide(**events, sizes=tuple(sizes))


def _integer(text: str | None) -> int | None:
    return None if text is None else int(text)


class Counting:
    """A block of code whose page faults are counted; made by :func:`counting`.

    Its attributes can be read once the block has ended.
    """

    faults: Faults
    """Of the thread or process, whichever was asked for."""
    system_wide: SystemWide
    """Of all processes, while the block ran."""

    def __init__(self, of: Of, root: Path) -> None:
        require_linux()
        self._who = resource.RUSAGE_THREAD if of == "thread" else resource.RUSAGE_SELF
        self._root = root

    @property
    def minor_faults(self) -> int:
        """Minor faults of the thread or process, exactly those of the block."""
        return self.faults.minor

    @property
    def major_faults(self) -> int:
        """Major faults of the thread or process, exactly those of the block."""
        return self.faults.major

    def __enter__(self) -> Counting:
        self._system_before = system_wide(self._root)
        # The first call touches the pages that the second one needs, so that the second, which is
        # the last thing done before the block, faults on none after the kernel has taken its count.
        self._before = resource.getrusage(self._who)
        self._before = resource.getrusage(self._who)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        after = resource.getrusage(self._who)
        before = self._before
        self.faults = Faults(after.ru_minflt - before.ru_minflt, after.ru_majflt - before.ru_majflt)
        self.system_wide = system_wide(self._root) - self._system_before


def counting(of: Of = "thread", root: Path = Path("/")) -> Counting:
    """Count the page faults of a block of code, and the system's huge page events meanwhile.

    The counts of the thread are exact: the kernel's count is the last thing read before the block
    and the first after it. A block of Python may fault for the interpreter's own memory, too.

    Parameters
    ----------
    of
        This thread, or the whole process.
    root
        Where ``proc`` and ``sys`` are, for the events of the system.

    Raises
    ------
    NotLinuxError
        If this is another operating system.

    Examples
    --------
    >>> with counting() as counted:
    ...     pass
    >>> counted.minor_faults
    0
    """
    return Counting(of, root)


def faults_of(pid: Pid, root: Path = Path("/"), *, children: bool = False) -> Faults:
    """Return the page faults of another process so far (``/proc/PID/stat``).

    Parameters
    ----------
    pid
        Process number, or ``"self"``.
    root
        Where ``proc`` is.
    children
        Whether to add those of its children that have ended and been waited for.

    Raises
    ------
    ProcessGoneError
        If there is no such process.
    NotLinuxError
        If there is no ``/proc``.
    MalformedError
        If the file is not what ``proc_pid_stat(5)`` describes.
    """
    try:
        text = (root / "proc" / str(pid) / "stat").read_text(errors="replace")
    except (FileNotFoundError, ProcessLookupError) as error:
        if not (root / "proc/self").exists():
            raise NotLinuxError(
                f"The page faults of process {pid} were asked for, but there is no /proc/self. "
                "Run this on Linux, with /proc mounted."
            ) from error
        raise ProcessGoneError(
            f"The page faults of process {pid} were asked for, but there is no such process to be "
            "seen. It may have ended: look for it with `ps -e`."
        ) from error
    # The second field is the command in parentheses, and may hold spaces and parentheses itself.
    numbers = text.rpartition(")")[2].split()[7:11]
    if len(numbers) < 4 or not all(number.isdecimal() for number in numbers):
        raise MalformedError(
            f"The page faults of process {pid} were asked for, but its stat file does not have "
            "fields 10 to 13 as proc_pid_stat(5) describes them. Please report it with the "
            "kernel's version."
        )
    minor, minor_of_children, major, major_of_children = map(int, numbers)
    if not children:
        return Faults(minor, major)
    return Faults(minor + minor_of_children, major + major_of_children)
