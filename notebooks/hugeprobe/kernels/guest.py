"""What runs inside a guest: every layout under every setting, each result as one line of JSON.

Only here does anything of this project write to ``/sys``, and only after it has made sure that it
runs in a guest made for the purpose. One process goes through all layouts, because starting Python
takes longer under emulation than measuring one.
"""

from __future__ import annotations

import ctypes
import dataclasses
import itertools
import json
import os
import resource
import subprocess
import sys
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from hugeprobe import emulate, probe, smaps
from hugeprobe.emulate import Measurement
from hugeprobe.errors import NotObservable, NotPermittedError
from hugeprobe.freespace import known_top
from hugeprobe.kernels.machine import GUEST_MARK
from hugeprobe.placement import Action, Layout, Span, Touch, describe, steps
from hugeprobe.sizes import KIB, page_sizes

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

THP_MODES: Final = ("always", "madvise", "never")
MTHP_SIZES: Final = ((), (64,), (64, 128, 256, 512, 1024))
"""Sizes in KiB below the PMD that are set to ``always``; the empty list is the kernel's default."""

LENGTHS: Final = (
    *((1536,), (2048,), (2052,), (3072,), (4096,), (4632,)),
    *((4096, 3072), (2052, 1536)),
)
"""KiB; each list is repeated until there are :data:`COUNT` mappings."""
COUNT: Final = 16

TOP_OFFSETS: Final = (0, 724 * KIB)
"""Bytes that the first top lies above a PMD boundary."""

_THP: Final = Path("/sys/kernel/mm/transparent_hugepage")
_M_MMAP_THRESHOLD: Final = -3
_CHUNK_HEADER: Final = 16
_CHUNK_FLAGS: Final = 7


@dataclass(frozen=True, slots=True)
class Setting:
    """The guest's THP settings.

    Parameters
    ----------
    thp_mode
        ``enabled``: ``always``, ``madvise`` or ``never``.
    mthp
        Sizes in KiB below the PMD that are ``always``; all others are ``never``, and the PMD size
        follows ``thp_mode``.
    """

    thp_mode: str
    mthp: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Case:
    """One list of mappings.

    Parameters
    ----------
    lengths
        KiB of each, in the order they are mapped.
    touch
        When they are written to.
    top_offset
        Bytes that the free address space ends above a PMD boundary.
    """

    lengths: tuple[int, ...]
    touch: Touch
    top_offset: int = 0

    @property
    def in_bytes(self) -> tuple[int, ...]:
        """The lengths in bytes."""
        return tuple(length * KIB for length in self.lengths)


def settings(sizes: Sequence[int]) -> list[Setting]:
    """Return all settings of a kernel that has mTHP of ``sizes`` KiB."""
    possible = [each for each in MTHP_SIZES if set(each) <= set(sizes)]
    return [Setting(mode, each) for mode in THP_MODES for each in possible]


def cases(setting: Setting) -> list[Case]:
    """Return the layouts to measure under ``setting``: the second offset with THP alone."""
    offsets = TOP_OFFSETS if setting == Setting("always", ()) else TOP_OFFSETS[:1]
    return [
        Case(tuple(itertools.islice(itertools.cycle(lengths), COUNT)), touch, offset)
        for lengths, touch, offset in itertools.product(LENGTHS, Touch, offsets)
    ]


def results(mthp_sizes: Sequence[int], *, with_model: bool) -> int:
    """Return how many results a guest tells whose kernel has mTHP of ``mthp_sizes`` KiB."""
    everything = settings(mthp_sizes)
    layouts = sum(len(cases(each)) * (1 if each.mthp else 2) for each in everything)
    inferences = sum(len(_advice(setting)) for setting in everything)
    return layouts + (inferences if with_model else 0)


def _advice(setting: Setting) -> tuple[bool, ...]:
    """Return whether glibc advises in each run of OpenVINO under ``setting``; empty for no run.

    glibc does so in mode ``madvise`` only, which is also the mode that all mTHP sizes join.
    """
    if setting.mthp:
        return (False,) if setting == Setting("madvise", MTHP_SIZES[-1]) else ()
    return (False, True) if setting.thp_mode == "madvise" else (False,)


def main(arguments: Sequence[str]) -> None:
    """Measure everything; the argument is the model for OpenVINO, or a word that begins with ``-``.

    Parameters
    ----------
    arguments
        ``--brief`` measures the layouts of the first setting only; else the path of an ONNX file,
        or ``--no-model``.
    """
    require_guest()
    brief = "--brief" in arguments
    sizes = _mthp_sizes()
    rule = probe.find_rule().rule
    tell(about="kernel", release=os.uname().release, rule=rule, mthp_sizes=sizes)
    everything = settings(sizes)
    make_repeatable()
    for setting in everything[:1] if brief else everything:
        _apply(setting)
        tell(about="setting", **dataclasses.asdict(setting))
        for case in cases(setting):
            with _per_size_faults() as counted:
                measured = emulate.observe(case.in_bytes, case.touch, top_offset=case.top_offset)
            _tell_layout("layouts", case, measured, counted)
        if brief:
            continue
        for case in () if setting.mthp else cases(setting):
            with _per_size_faults() as counted:
                measured = _malloc(case)
            _tell_layout("malloc", case, measured, counted)
        if arguments and not arguments[0].startswith("-"):
            for advised in _advice(setting):
                tell(about="openvino", **_infer(Path(arguments[0]), advised=advised))


def require_guest() -> None:
    """Make sure that settings which are about to change are those of a guest.

    Raises
    ------
    NotPermittedError
        Anywhere else.
    """
    if GUEST_MARK not in Path("/proc/cmdline").read_text().split():
        raise NotPermittedError(
            "The probes of the kernel laboratory were started outside one of its guests. They "
            "change settings of the machine; start them with `python -m hugeprobe.kernels`."
        )


def tell(**fields: Any) -> None:
    """Hand one result to the host."""
    print(json.dumps(fields, default=lambda value: value.value), flush=True)


def _tell_layout(
    about: str, case: Case, measured: Measurement | NotObservable, counted: dict[int, int]
) -> None:
    if isinstance(measured, NotObservable):
        tell(about=about, **dataclasses.asdict(case), reason=measured.reason)
        return
    layout = dataclasses.asdict(measured.layout)
    del layout["huge_offsets"]  # cannot be seen from outside the kernel
    tell(about=about, **dataclasses.asdict(case), **layout, faults_by_size=counted)


def _mthp_sizes() -> list[int]:
    """Return the sizes in KiB that this kernel can give anonymous memory; shmem has others, too."""
    files = _THP.glob("hugepages-*kB/enabled")
    return sorted(int(file.parent.name.removeprefix("hugepages-")[:-2]) for file in files)


def make_repeatable() -> None:
    """Stop what would make counts differ from one run to the next.

    khugepaged joins pages behind the back of whoever counts them; it does one last round and then
    sleeps for weeks. Random addresses let chance decide where a process's first top lies. glibc's
    threshold for mapping a chunk stays at its first 128 KiB, as in a process that has freed nothing
    yet: it would else rise with the first large chunk freed, and later ones come from the heap.
    """
    (_THP / "khugepaged/pages_to_scan").write_text("1")
    (_THP / "khugepaged/scan_sleep_millisecs").write_text(str(2**32 - 1))
    Path("/proc/sys/kernel/randomize_va_space").write_text("0")
    ctypes.CDLL(None).mallopt(_M_MMAP_THRESHOLD, 128 * KIB)


def _apply(setting: Setting) -> None:
    (_THP / "enabled").write_text(setting.thp_mode)
    pmd_kib = page_sizes().pmd // KIB
    for size in _mthp_sizes():
        wanted = "inherit" if size == pmd_kib else "always" if size in setting.mthp else "never"
        (_THP / f"hugepages-{size}kB/enabled").write_text(wanted)


@contextmanager
def _per_size_faults() -> Iterator[dict[int, int]]:
    """Count the faults of the whole guest that were answered with each size, in KiB.

    Empty on kernels without ``stats/anon_fault_alloc`` (before 6.10).
    """

    def read() -> dict[int, int]:
        files = {size: _THP / f"hugepages-{size}kB/stats/anon_fault_alloc" for size in sizes}
        return {size: int(file.read_text()) for size, file in files.items() if file.exists()}

    sizes, counted = _mthp_sizes(), dict[int, int]()
    before = read()
    yield counted
    counted.update((size, n - before[size]) for size, n in read().items() if n > before[size])


# glibc --------------------------------------------------------------------------------------------


def _malloc(case: Case) -> Measurement:
    """Measure chunks from glibc, which advises nothing and writes a header into each at once."""
    libc = ctypes.CDLL(None)
    libc.malloc.restype = ctypes.c_void_p
    libc.malloc.argtypes = (ctypes.c_size_t,)
    libc.free.argtypes = (ctypes.c_void_p,)
    sizes = page_sizes()
    chunks: list[int] = []
    spans: list[Span] = []
    with known_top(case.top_offset, sizes) as top:
        before = resource.getrusage(resource.RUSAGE_THREAD).ru_minflt
        for action, index in steps(len(case.lengths), case.touch):
            if action is Action.MAP:
                chunks.append(libc.malloc(case.in_bytes[index]))
                spans.append(_chunk(chunks[-1]))
            else:
                ctypes.memset(chunks[index], 1, case.in_bytes[index])
        faults = resource.getrusage(resource.RUSAGE_THREAD).ru_minflt - before
        lowest = min(span.start for span in spans)
        ours = [each for each in smaps.snapshot().within(lowest, top) if each.permissions == "rw-p"]
        for chunk in chunks:
            libc.free(chunk)
    mappings, gap_kib = describe(spans, top, sizes.pmd)
    layout = Layout(
        mappings,
        gap_kib,
        vmas=len(ours),
        anon_kib=sum(each.anonymous_kib or 0 for each in ours),
        huge_kib=sum(each.anon_huge_kib or 0 for each in ours),
        minor_faults=faults,
    )
    return Measurement(layout, None)


def _chunk(pointer: int) -> Span:
    """Return the mapping of a chunk that glibc mapped for itself, from the size in its header."""
    start = pointer - _CHUNK_HEADER
    size = ctypes.c_size_t.from_address(pointer - ctypes.sizeof(ctypes.c_size_t)).value
    return Span(start, start + (size & ~_CHUNK_FLAGS))


# OpenVINO -----------------------------------------------------------------------------------------


def _infer(model: Path, *, advised: bool) -> dict[str, Any]:
    """Run inferences of changing shape in a fresh process, with glibc's advice or without."""
    tunables = {"GLIBC_TUNABLES": "glibc.malloc.hugetlb=1"} if advised else {}
    command = (sys.executable, "-m", "hugeprobe.kernels.inference", str(model))
    done = subprocess.run(
        command, env={**os.environ, **tunables}, stdout=subprocess.PIPE, text=True, check=True
    )
    told: dict[str, Any] = json.loads(done.stdout)
    return {"advised": advised, **told}


if __name__ == "__main__":
    main(sys.argv[1:])
