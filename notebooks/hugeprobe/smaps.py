"""One snapshot of a process's memory, from ``/proc/PID/smaps``.

The kernel needs microseconds to describe a mapping, and a line-by-line parser in Python needs
several times that. The text is therefore read in columns: every record of one kernel has the same
lines, so the ends of all lines form a table, and each field is one column of it, converted at once.
Text that is not regular in this way is read line by line, with the same result.

Sources: ``fs/proc/task_mmu.c``, ``Documentation/filesystems/proc.rst`` and ``proc_pid_smaps(5)``.
A snapshot of a running process is not atomic: the kernel drops its lock every few mappings.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, fields
from enum import Enum
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple, NoReturn, TypeAlias, overload

import numpy as np

from hugeprobe.errors import (
    BadRequestError,
    MalformedError,
    NotLinuxError,
    NotPermittedError,
    ProbeError,
    ProcessGoneError,
)

if TYPE_CHECKING:
    from collections.abc import Iterator
    from collections.abc import Mapping as MappingType
    from io import FileIO

    from numpy.typing import NDArray

    Chars: TypeAlias = NDArray[np.uint8]
    Words: TypeAlias = NDArray[np.uint64]
    Indices: TypeAlias = NDArray[np.int64]

Pid: TypeAlias = int | Literal["self"]

_FIELDS: Final = {
    b"Size": "size_kib",
    b"KernelPageSize": "kernel_page_kib",
    b"MMUPageSize": "mmu_page_kib",
    b"Rss": "rss_kib",
    b"Pss": "pss_kib",
    b"Referenced": "referenced_kib",
    b"Anonymous": "anonymous_kib",
    b"LazyFree": "lazy_free_kib",
    b"AnonHugePages": "anon_huge_kib",
    b"ShmemPmdMapped": "shmem_pmd_kib",
    b"FilePmdMapped": "file_pmd_kib",
    b"Shared_Hugetlb": "shared_hugetlb_kib",
    b"Private_Hugetlb": "private_hugetlb_kib",
    b"Swap": "swap_kib",
    b"Locked": "locked_kib",
    b"THPeligible": "thp_eligible",
}
_FLAGS: Final = b"VmFlags:"
_NUMBERS: Final = tuple(_FIELDS.values())
MISSING: Final = -1
"""Stands in a column for a field that the kernel did not write; no field is negative."""

_RANGE: Final = re.compile(rb"([0-9a-f]{1,16})-([0-9a-f]{1,16}) ")
_TAIL: Final = re.compile(
    rb"([r-][w-][x-][ps]) ([0-9a-f]+) ([0-9a-f]+:[0-9a-f]+) ([0-9]+)(?: +(.*))?", re.DOTALL
)
_FIELD: Final = re.compile(rb"([A-Z][A-Za-z0-9_]*):(.*)", re.DOTALL)
_KIB: Final = re.compile(rb" *([0-9]+) kB")
_ROLLUP_LINE: Final = re.compile(rb"^(\w+): +([0-9]+) kB$", re.MULTILINE)
_ELIGIBLE: Final = re.compile(rb"[ \t]*([01])")


class NoSmapsError(ProbeError):
    """The kernel was built without ``/proc/PID/smaps``."""


class Kind(str, Enum):
    """What a mapping is for, as far as its name and its permissions tell."""

    HEAP = "heap"
    """The ``brk`` heap; large chunks and further arenas of glibc are :attr:`ANONYMOUS`."""
    STACK = "stack"
    """The stack of the first thread; those of other threads are :attr:`ANONYMOUS`."""
    ANONYMOUS = "anonymous"
    FILE = "file"
    """Named by a file; one on a tmpfs elsewhere than ``/dev/shm`` is in here, as its name does not
    tell."""
    SHARED = "shared memory"
    """Shared anonymous memory, memfd, System V and POSIX (``/dev/shm``) shared memory."""
    SPECIAL = "special"
    """Mapped by the kernel for itself: vdso, vvar, vsyscall, uprobes."""

    def __str__(self) -> str:
        return self.value


_KINDS: Final = tuple(Kind)


class Mapping(NamedTuple):
    r"""One mapping (VMA) of a process; fields that this kernel does not write are None.

    Parameters
    ----------
    start, end
        Addresses; ``end`` is the first that does not belong to it.
    permissions
        Four letters such as ``rw-p``; the last is ``p`` for private, ``s`` for shared.
    offset
        Offset into the file in bytes.
    device, inode
        The file's device as ``major:minor`` in hexadecimal, and its inode; 0 without a file.
    name
        Path or bracketed name, as the kernel writes it: a newline in it is ``\012``.
    size_kib
        Length in KiB, like every other field that ends so.
    rss_kib, pss_kib
        Resident memory, and the same with shared pages divided by the number that share them.
    anonymous_kib
        Resident memory that belongs to no file, also in a file mapping once it was written to.
    anon_huge_kib, shmem_pmd_kib, file_pmd_kib
        Resident memory that a PMD maps: anonymous, shmem, page cache. Smaller huge pages (mTHP) are
        not in it and appear in no field.
    shared_hugetlb_kib, private_hugetlb_kib
        hugetlbfs pages, which ``rss_kib`` leaves out.
    swap_kib, locked_kib, referenced_kib, lazy_free_kib
        Swapped out; locked; marked as accessed; given up by ``MADV_FREE`` but not taken yet.
    kernel_page_kib, mmu_page_kib
        Page size of the mapping; it differs from the base page for hugetlbfs only, never for THP.
    thp_eligible
        Whether a huge page of any enabled size fits into the mapping and settings permit it.
    vm_flags
        Two-letter flags; ``hg`` is advised for, ``nh`` against huge pages.
    kind
        What it is for.
    """

    start: int
    end: int
    permissions: str
    offset: int
    device: str
    inode: int
    name: str
    kind: Kind
    size_kib: int | None
    kernel_page_kib: int | None
    mmu_page_kib: int | None
    rss_kib: int | None
    pss_kib: int | None
    referenced_kib: int | None
    anonymous_kib: int | None
    lazy_free_kib: int | None
    anon_huge_kib: int | None
    shmem_pmd_kib: int | None
    file_pmd_kib: int | None
    shared_hugetlb_kib: int | None
    private_hugetlb_kib: int | None
    swap_kib: int | None
    locked_kib: int | None
    thp_eligible: bool | None
    vm_flags: tuple[str, ...]

    @property
    def huge_kib(self) -> int:
        """Resident memory in KiB that a PMD maps, of every sort but hugetlbfs."""
        return (self.anon_huge_kib or 0) + (self.shmem_pmd_kib or 0) + (self.file_pmd_kib or 0)

    def as_dict(self) -> dict[str, Any]:
        """Return the fields by name, for JSON."""
        return self._asdict()


@dataclass(frozen=True, slots=True)
class Rollup:
    """Sums over mappings in KiB; a field that the kernel does not write adds nothing.

    Kernels without ``ShmemPmdMapped`` (before 4.8) or ``FilePmdMapped`` (before 5.4) map no such
    memory by PMD, so that the sum is right for them, too.
    """

    mappings: int
    size_kib: int
    rss_kib: int
    anonymous_kib: int
    anon_huge_kib: int
    shmem_pmd_kib: int
    file_pmd_kib: int
    swap_kib: int

    @property
    def huge_kib(self) -> int:
        """Resident memory in KiB that a PMD maps, of every sort but hugetlbfs."""
        return self.anon_huge_kib + self.shmem_pmd_kib + self.file_pmd_kib


@dataclass(frozen=True, slots=True)
class Held:
    """What a process holds, in KiB: resident, of that anonymous, and of that mapped by PMDs."""

    rss_kib: int
    anonymous_kib: int
    anon_huge_kib: int


_SUMMED: Final = tuple(field.name for field in fields(Rollup))[1:]


class _Tail(NamedTuple):
    """What the header of a record says after the address range."""

    permissions: str
    offset: int
    device: str
    inode: int
    name: str
    kind: Kind


@dataclass(frozen=True, slots=True, eq=False)
class _Records:
    """All records of one text, as columns of equal length.

    Parameters
    ----------
    text
        What was parsed; flags are looked up in it when they are asked for.
    columns
        ``start`` and ``end`` (uint64), and ``_NUMBERS`` (int64, ``MISSING`` where not written).
    tails
        The distinct ends of header lines.
    tail
        Index into ``tails``, of each record.
    flags
        Where in ``text`` each record's flags begin and end, shape (records, 2).
    """

    text: Chars
    columns: dict[str, NDArray[Any]]
    tails: tuple[_Tail, ...]
    tail: NDArray[np.int64]
    flags: NDArray[np.int64]

    def take(self, which: NDArray[Any] | slice) -> _Records:
        """Return some of the records."""
        columns = {name: column[which] for name, column in self.columns.items()}
        return _Records(self.text, columns, self.tails, self.tail[which], self.flags[which])

    def mappings(self) -> Iterator[Mapping]:
        """Make the records into objects."""
        tails = zip(*(self.tails[index] for index in self.tail.tolist()), strict=True)
        columns = (
            self.columns["start"].tolist(),
            self.columns["end"].tolist(),
            *tails,
            *map(self._with_none, _NUMBERS),
            self._split_flags(),
        )
        return map(Mapping._make, zip(*columns, strict=True))

    def _split_flags(self) -> list[tuple[str, ...]]:
        text = self.text.data
        flags = [bytes(text[begin:end]) for begin, end in self.flags.tolist()]
        split = {each: tuple(each.decode(errors="backslashreplace").split()) for each in set(flags)}
        return [split[each] for each in flags]

    def _with_none(self, name: str) -> list[int | bool | None]:
        column = self.columns[name]
        values: list[int | bool | None]
        values = (column.astype(bool) if name == "thp_eligible" else column).tolist()
        for index in np.flatnonzero(column == MISSING).tolist():
            values[index] = None
        return values


class Snapshot(Sequence[Mapping]):
    """The mappings of a process, as they were read.

    The figures are kept as columns, and :class:`Mapping` objects are made when they are asked for:
    a sum over a column costs microseconds, a loop over 20,000 objects tens of milliseconds.

    Parameters
    ----------
    pid
        The process, as it was asked for.
    """

    def __init__(self, pid: Pid, records: _Records) -> None:
        self.pid: Final = pid
        self._records: Final = records
        for column in records.columns.values():
            column.flags.writeable = False

    @property
    def columns(self) -> MappingType[str, NDArray[Any]]:
        """The numeric fields of :class:`Mapping` as read-only arrays, one value a mapping.

        ``start`` and ``end`` are uint64 addresses; every other is int64, with :data:`MISSING` where
        the kernel wrote none.
        """
        return MappingProxyType(self._records.columns)

    def __len__(self) -> int:
        return len(self._records.tail)

    @overload
    def __getitem__(self, index: int) -> Mapping: ...
    @overload
    def __getitem__(self, index: slice) -> Snapshot: ...
    def __getitem__(self, index: int | slice) -> Mapping | Snapshot:
        if isinstance(index, slice):
            return Snapshot(self.pid, self._records.take(index))
        one = range(len(self))[index]
        return next(self._records.take(slice(one, one + 1)).mappings())

    def __iter__(self) -> Iterator[Mapping]:
        return self._records.mappings()

    def __repr__(self) -> str:
        return f"<Snapshot of {self.pid}: {len(self)} mappings>"

    def within(self, start: int, end: int) -> Snapshot:
        """Return the mappings that have at least one byte in ``start`` to ``end``, whole."""
        columns = self._records.columns
        inside = (columns["start"] < np.uint64(end)) & (columns["end"] > np.uint64(start))
        return Snapshot(self.pid, self._records.take(inside))

    def rollup(self) -> dict[Kind, Rollup]:
        """Return the sums of each kind of which there are mappings."""
        code_of_tail = np.array([_KINDS.index(tail.kind) for tail in self._records.tails])
        codes = code_of_tail[self._records.tail]
        return {_KINDS[code]: self._sum(codes == code) for code in np.unique(codes).tolist()}

    @property
    def total(self) -> Rollup:
        """The sums of all mappings."""
        return self._sum(np.ones(len(self), bool))

    def _sum(self, chosen: NDArray[np.bool_]) -> Rollup:
        present = ((name, self._records.columns[name]) for name in _SUMMED)
        sums = {name: int(column[chosen & (column != MISSING)].sum()) for name, column in present}
        return Rollup(mappings=int(chosen.sum()), **sums)

    @property
    def coverage(self) -> float | None:
        """Share of the resident anonymous memory that is PMD-mapped; None where there is none."""
        total = self.total
        return total.anon_huge_kib / total.anonymous_kib if total.anonymous_kib else None


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
        raise _malformed("sums of Rss, Anonymous and AnonHugePages", text)
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
        records = _by_columns(chars)
    except _IrregularError:
        records = _by_lines(chars)
    return Snapshot(pid, records)


# Reading ------------------------------------------------------------------------------------------


def _read(pid: Pid, root: Path, name: str = "smaps") -> Chars:
    if pid != "self" and pid < 1:
        raise BadRequestError(f"Process {pid} was asked for, but process numbers begin at 1.")
    process = root / "proc" / str(pid)
    try:
        with (process / name).open("rb", buffering=0) as file:
            text = _read_all(file)
    except PermissionError as error:
        raise _hidden(pid) from error
    except FileNotFoundError as error:
        explain_missing(pid, root, error)
    except ProcessLookupError as error:
        _explain_empty(pid, process, error)
    if not text.size:
        _explain_empty(pid, process, None)
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


def _hidden(pid: Pid) -> NotPermittedError:
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
        raise _hidden(pid) from cause  # /proc is mounted with hidepid
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


def _explain_empty(pid: Pid, process: Path, cause: OSError | None) -> NoReturn:
    """Say why a process has no memory map."""
    try:
        status = (process / "status").read_text(errors="replace")
    except OSError:
        status = ""
    if re.search(r"^State:\s+[^ZX]", status, re.MULTILINE) and "VmSize:" not in status:
        raise BadRequestError(
            f"The memory map of process {pid} was asked for, but it is a kernel thread, which has "
            "none. Give the number of a program."
        ) from cause
    raise ProcessGoneError(
        f"The memory map of process {pid} was asked for, but the process has ended. "
        "Look at it while it runs."
    ) from cause


# Parsing: what both ways share --------------------------------------------------------------------


def _tail(text: bytes) -> _Tail:
    """Read the end of a header line, from the permissions on."""
    match = _TAIL.fullmatch(text)
    if not match:
        raise _malformed("a mapping's permissions, offset, device, inode and name", text)
    name = (match[5] or b"").decode(errors="backslashreplace")
    permissions = match[1].decode()
    kind = _kind(name, shared=permissions.endswith("s"))
    return _Tail(permissions, int(match[2], 16), match[3].decode(), int(match[4]), name, kind)


def _kind(name: str, *, shared: bool) -> Kind:
    """Return what a mapping of this name is for (``get_vma_name()``, ``shmem_zero_setup()``)."""
    if name.startswith("["):
        return _bracketed_kind(name)
    if name.startswith(("/dev/shm/", "/memfd:", "/SYSV", "/dev/zero (deleted)")):
        return Kind.SHARED
    if name in ("", "/dev/zero", "/anon_hugepage (deleted)"):
        return Kind.SHARED if shared else Kind.ANONYMOUS
    return Kind.FILE


def _bracketed_kind(name: str) -> Kind:
    for start, kind in (
        ("[heap]", Kind.HEAP),
        ("[stack", Kind.STACK),
        ("[anon:", Kind.ANONYMOUS),
        ("[anon_shmem:", Kind.SHARED),
    ):
        if name.startswith(start):
            return kind
    return Kind.SPECIAL


def _malformed(expected: str, found: bytes) -> MalformedError:
    return MalformedError(
        f"smaps was read and {expected} expected, but found was {found[:80]!r}. If this is a "
        "kernel's own text, please report it with the kernel's version."
    )


def _number_tails(tails: list[bytes]) -> tuple[tuple[_Tail, ...], NDArray[np.int64]]:
    """Return the distinct tails, and for every tail its index among them."""
    numbers: dict[bytes, int] = {}
    index = [numbers.setdefault(tail, len(numbers)) for tail in tails]
    return tuple(map(_tail, numbers)), np.array(index, np.int64)


# Parsing any text, line by line: the reference ----------------------------------------------------


def _by_lines(chars: Chars) -> _Records:
    """Parse line by line: slow, and right for every text that can be understood at all."""
    text = chars.tobytes()
    if not text.endswith(b"\n"):
        raise _malformed("a complete last line", text[-80:])
    rows: list[dict[str, int]] = []
    tails: list[bytes] = []
    flags: list[tuple[int, int]] = []
    last_labels: list[bytes] = []
    end = -1
    for line in text.split(b"\n")[:-1]:
        start, end = end + 1, end + 1 + len(line)
        if header := _RANGE.match(line):
            rows.append({"start": int(header[1], 16), "end": int(header[2], 16)})
            tails.append(line[header.end() :])
            flags.append((0, 0))
            last_labels.append(b"")
            continue
        field = _FIELD.fullmatch(line)
        if not (field and rows):
            raise _malformed("a header or a field", line)
        rows[-1].update(_field(field[1], field[2]))
        last_labels[-1] = field[1]
        if line.startswith(_FLAGS):
            flags[-1] = (start + len(_FLAGS), end)
    if not all("size_kib" in row for row in rows):
        raise _malformed("a size of every mapping (as in smaps, not in maps)", text[:80])
    if not rows or last_labels[-1] != last_labels[0]:
        raise _malformed("a last mapping as complete as the first", text[-80:])
    columns: dict[str, NDArray[Any]] = {
        name: np.array([row[name] for row in rows], np.uint64) for name in ("start", "end")
    }
    for name in _NUMBERS:
        columns[name] = np.array([row.get(name, MISSING) for row in rows], np.int64)
    return _Records(chars, columns, *_number_tails(tails), np.array(flags, np.int64))


def _field(label: bytes, value: bytes) -> dict[str, int]:
    """Read a field; one that is not known has no value."""
    name = _FIELDS.get(label)
    if name is None:
        return {}
    pattern, expected = (
        (_ELIGIBLE, "0 or 1") if name == "thp_eligible" else (_KIB, "a number of kB")
    )
    if not (match := pattern.fullmatch(value)):
        raise _malformed(expected, label + b":" + value)
    return {name: int(match[1])}


# Parsing regular text, by columns -----------------------------------------------------------------

_RECORD_END: Final = re.compile(rb"\n(?=[0-9a-f]+-[0-9a-f]+ )")
_NUMBER_LINE: Final = re.compile(rb"([A-Z][A-Za-z0-9_]*): *([0-9]+)(?=( kB)?\n)")
_WORD: Final = 8
"""Characters of a machine word, and columns of a value (``%8lu``)."""
_BLOCK: Final = 1 << 21
"""Bytes of text that are parsed at a time, so that they stay in the processor's cache."""
_NO_FILE: Final = b" 00000000 00:00 0 "
_EACH_BYTE: Final = np.uint64(0x0101010101010101)
_NOUGHT: Final = np.frombuffer(b"       0", "<u8")[0]


class _IrregularError(Exception):
    """The text does not have the form that makes reading it by columns possible."""


@dataclass(frozen=True, slots=True, eq=False)
class _Layout:
    """What follows the header of a record, as a C structure, taken from the first record.

    It reaches from the first field to the word ``VmFlags:``, and begins early enough, within the
    header, to be whole machine words.

    Parameters
    ----------
    lines
        Lines of a whole record.
    early
        Bytes by which it begins before the first field.
    values
        Where in it each value stands, as a machine word.
    outside
        The bits of the structure that belong to no value, and not to the header.
    expected
        What these bits are.
    """

    lines: int
    early: int
    values: np.dtype[np.void]
    outside: Words
    expected: Words

    @classmethod
    def of(cls, record: bytes) -> _Layout:
        begin = record.find(b"\n") + 1
        end = record.rfind(b"\n" + _FLAGS) + 1 + len(_FLAGS)
        early = (begin - end) % _WORD
        shape = np.frombuffer(record[begin - early : end], np.uint8)
        outside = np.full(len(shape), 255, np.uint8)
        outside[:early] = 0
        offsets: dict[str, int] = {}
        for line in _NUMBER_LINE.finditer(record, begin, end):
            last = line.end() - begin + early
            if not line.end(1) < line.end() - _WORD <= line.start(2):
                raise _IrregularError  # fewer columns than a word has, or more digits
            outside[last - _WORD : last] = 0
            if (name := _FIELDS.get(line[1])) is not None:
                if (line[3] is None) != (name == "thp_eligible"):
                    raise _IrregularError
                offsets[name] = last - _WORD
        plain = _by_lines(np.frombuffer(record, np.uint8)).columns
        if {name for name in _NUMBERS if plain[name][0] != MISSING} != set(offsets):
            raise _IrregularError  # written in another way than the others
        if record.count(b"\n", end) != 1:
            raise _IrregularError  # flags are not the last line
        values = np.dtype(
            {
                "names": list(offsets),
                "formats": ["<u8"] * len(offsets),
                "offsets": list(offsets.values()),
                "itemsize": len(shape),
            }
        )
        expected = (shape & outside).view("<u8")
        lines = record.count(b"\n")
        return cls(lines, early, values, outside.view("<u8"), expected)


def _by_columns(chars: Chars) -> _Records:
    """Parse text whose records all have the same lines, the last of them ``VmFlags``.

    Raises
    ------
    _IrregularError
        If the text does not have this form.
    """
    second = _RECORD_END.search(chars.data)
    layout = _Layout.of(chars[: second.end() if second else None].tobytes())
    tails: dict[bytes, int] = {}
    blocks = []
    start = 0
    while start < len(chars):
        cut = _RECORD_END.search(chars.data, start + _BLOCK)
        end = cut.end() if cut else len(chars)
        blocks.append(_block(chars[start:end], layout, tails))
        blocks[-1]["flags"] += start
        start = end
    columns = {name: np.concatenate([block[name] for block in blocks]) for name in blocks[0]}
    tail, flags = columns.pop("tail"), columns.pop("flags")
    return _Records(chars, columns, tuple(map(_tail, tails)), tail, flags)


def _block(chars: Chars, layout: _Layout, tails: dict[bytes, int]) -> dict[str, NDArray[Any]]:
    """Return the columns of a text that begins with a header; number the new ends of headers."""
    newlines = np.flatnonzero(chars == ord("\n"))
    if len(newlines) % layout.lines or chars[-1] != ord("\n"):
        raise _IrregularError
    ends = newlines.reshape(-1, layout.lines)
    headers = np.concatenate(([0], ends[:-1, -1] + 1))
    flags = ends[:, -2] + 1 + len(_FLAGS)
    numbers, odd = _numbers(chars, ends[:, 0] + 1, flags, layout)
    if odd.size:
        try:
            plain = _by_lines(_joined_records(chars, headers[odd], ends[odd, -1] + 1))
        except MalformedError as error:
            raise _IrregularError from error  # among all records it may be well-formed
        if (plain.flags[:, 0] == 0).any():
            raise _IrregularError
        for name, column in numbers.items():
            column[odd] = plain.columns[name]
    return {
        **_headers(chars, headers, ends[:, 0], tails),
        **numbers,
        "flags": np.stack((flags, ends[:, -1]), axis=1),
    }


def _joined_records(chars: Chars, starts: Indices, ends: Indices) -> Chars:
    spans = zip(starts.tolist(), ends.tolist(), strict=True)
    return np.concatenate([chars[start:end] for start, end in spans])


def _windows(chars: Chars, starts: Indices, width: int) -> Chars:
    """Return the ``width`` bytes from each start on, as rows."""
    if starts.min() < 0 or starts.max() + width > len(chars):
        raise _IrregularError
    windows: Chars = np.ndarray((len(chars) - width + 1, width), np.uint8, chars.data, 0, (1, 1))
    return windows[starts]


def _headers(
    chars: Chars, starts: Indices, ends: Indices, tails: dict[bytes, int]
) -> dict[str, NDArray[Any]]:
    """Return the address columns of header lines, and the number of what follows in each.

    Most mappings of a large process have addresses of one length, and are private anonymous memory
    that differs in its permissions only. The others are read one by one.
    """
    middle = chars[starts[len(starts) // 2] :]
    digits = middle[:17].tobytes().find(b"-")
    if digits < 1:
        raise _IrregularError
    rest = 2 * digits + 2
    width = rest + 4 + len(_NO_FILE)
    rows = _windows(chars, starts, width)
    text = np.full((len(rows), 2, 16), ord("0"), np.uint8)
    text[:, 0, 16 - digits :] = rows[:, :digits]
    text[:, 1, 16 - digits :] = rows[:, digits + 1 : rest - 1]
    addresses, valid = _hexadecimal(text.reshape(-1, 16).view("<u8"))
    addresses = addresses.reshape(-1, 2)
    usual = valid.reshape(-1, 2).all(axis=1)
    usual &= (rows[:, digits] == ord("-")) & (rows[:, rest - 1] == ord(" "))
    no_file = np.ascontiguousarray(rows[:, rest + 4 :]).view(f"S{len(_NO_FILE)}")[:, 0] == _NO_FILE
    permissions = np.ascontiguousarray(rows[:, rest : rest + 4]).view("<u4")[:, 0]
    bare = usual & no_file & (ends - starts == width)
    tail = np.empty(len(rows), np.int64)

    def number(row: int, begin: int) -> int:
        text = chars[starts[row] + begin : ends[row]].tobytes()
        return tails.setdefault(text, len(tails))

    left = bare.copy()
    while left.any():
        first = int(left.argmax())
        alike = left & (permissions == permissions[first])
        tail[alike] = number(first, rest)
        left ^= alike
    for row in np.flatnonzero(~bare).tolist():
        begin = rest
        if not usual[row]:
            header = _RANGE.match(chars[starts[row] : ends[row]].tobytes())
            if not header:
                raise _IrregularError
            addresses[row] = int(header[1], 16), int(header[2], 16)
            begin = header.end()
        tail[row] = number(row, begin)
    return {"start": addresses[:, 0], "end": addresses[:, 1], "tail": tail}


def _hexadecimal(words: Words) -> tuple[Words, NDArray[np.bool_]]:
    """Read pairs of words of hexadecimal digits; return the numbers and which were of that form.

    A digit is 0x30 and its value, a letter 0x27 more: one bit, 0x40, tells which it is.
    """
    letters = words >> np.uint64(6) & _EACH_BYTE
    digits = (words & (15 * _EACH_BYTE)) + 9 * letters
    wrong: Words = words ^ (0x30 * _EACH_BYTE + digits + 0x27 * letters)  # neither
    wrong |= digits & (16 * _EACH_BYTE)  # a letter after f
    wrong |= (digits + 6 * _EACH_BYTE) >> np.uint64(4) & _EACH_BYTE ^ letters  # 10 is a, not :
    high, low = _joined(digits, 16).T
    return high << np.uint64(32) | low, (wrong == 0).all(axis=1)


def _joined(digits: Words, base: int) -> Words:
    """Return the number whose eight digits are the bytes of each word, the first byte highest.

    Neighbours are joined in place, all at once: digits to pairs, pairs to fours, fours to eights.
    """
    for bits, kept in ((8, 0x00FF00FF00FF00FF), (16, 0x0000FFFF0000FFFF), (32, 0xFFFFFFFF)):
        digits = (digits * np.uint64(base) + (digits >> np.uint64(bits))) & np.uint64(kept)
        base *= base
    return digits


def _numbers(
    chars: Chars, starts: Indices, ends: Indices, layout: _Layout
) -> tuple[dict[str, NDArray[np.int64]], Indices]:
    """Return the columns of the numeric fields, and which records they could not be read from.

    A record could not be read that differs from the first outside its values, for instance because
    a value of 100 GiB took more columns.
    """
    size = layout.values.itemsize
    odd = ends - starts != size - layout.early
    records = _windows(chars, np.where(odd, ends[0], ends) - size, size)
    names = layout.values.names or ()
    values = records.view(layout.values)[:, 0]
    words = np.stack([values[name] for name in names])
    bits = records.view("<u8")
    bits &= layout.outside
    odd |= (bits != layout.expected).any(axis=1)
    numbers, unreadable = _decimal(words)
    odd[unreadable] = True
    if "thp_eligible" in names:
        odd |= numbers[names.index("thp_eligible")] > 1
    columns = {name: np.full(len(starts), MISSING) for name in _NUMBERS if name not in names}
    columns.update(zip(names, numbers, strict=True))
    return columns, np.flatnonzero(odd)


def _decimal(words: Words) -> tuple[NDArray[np.int64], Indices]:
    """Read words of spaces and then digits; return the numbers and the columns with another form.

    A digit is 0x30 and its value, a space 0x20: without the value, one bit tells which it is.
    """
    flat = words.ravel()
    some = np.flatnonzero(flat != _NOUGHT)  # most fields of most mappings are nought
    chosen = flat[some]
    mark = 16 * _EACH_BYTE
    digits = chosen & (15 * _EACH_BYTE)
    written = chosen ^ digits ^ (32 * _EACH_BYTE)
    wrong = written & ~mark  # neither
    wrong |= (digits + 6 * _EACH_BYTE) & mark  # above 9
    wrong |= digits & ~(written - (written >> np.uint64(4)))  # not quite a space
    wrong |= (written & ~(written >> np.uint64(8))) ^ np.uint64(16 << 56)  # a space after a digit
    numbers = np.zeros(len(flat), np.int64)
    numbers[some] = _joined(digits, 10)
    return numbers.reshape(words.shape), some[wrong != 0] % words.shape[1]
