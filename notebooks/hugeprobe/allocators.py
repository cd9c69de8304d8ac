"""What an allocator makes of a request for memory: where its blocks lie, and how much is huge.

Every measurement is a process of its own, because an allocator remembers what it was asked before.
What is to be compared is data: an :class:`Allocator` says which library serves ``malloc`` and with
which settings.
"""

from __future__ import annotations

import tempfile
from dataclasses import dataclass, field, replace
from importlib import metadata
from itertools import product
from mmap import PAGESIZE
from pathlib import Path
from typing import TYPE_CHECKING, Final

from hugeprobe import children, inference, preload, profiles, smaps
from hugeprobe.areas import Resident, too_much
from hugeprobe.arms import Arm
from hugeprobe.blocks import Blocks, Request
from hugeprobe.errors import NotObservable, NotPermittedError, ProbeError
from hugeprobe.inference import ONNXRUNTIME, OPENVINO
from hugeprobe.placement import Span, Touch
from hugeprobe.sizes import KIB, MIB
from hugeprobe.workloads import bert

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from hugeprobe.inference import Runtime

SIZES: Final = (1536 * KIB, 2 * MIB - 4 * KIB, 2 * MIB, 3 * MIB, 8 * MIB)
"""Bytes to ask for: less than a huge page, what glibc maps 2 MiB for, and round sizes."""

EDGES: Final = tuple(k * 2 * MIB - less for k in (1, 2) for less in (24, 23, 0))
"""Bytes to ask for, on either side of where glibc maps one page of 4 KiB more."""

COUNT: Final = 16
"""Blocks of each measurement."""

_SECONDS: Final = 60.0


@dataclass(frozen=True, slots=True)
class Allocator:
    """An allocator with its settings.

    Parameters
    ----------
    name
        What figures call it.
    description
        What is set, in one sentence.
    env
        Environment variables of the process.
    library
        What is preloaded, by the name that :func:`hugeprobe.preload.library` knows; None for glibc.
    numpy
        Whether NumPy's arrays are the blocks, else ``malloc`` gives them.
    freed
        Bytes of a block that is freed before; glibc raises its threshold with it (``mallopt(3)``).
    """

    name: str
    description: str
    env: Mapping[str, str] = field(default_factory=dict)
    library: str | None = None
    numpy: bool = False
    freed: int = 0

    @property
    def arm(self) -> Arm:
        """The same as what is changed about an inference process."""
        return Arm(self.name, self.description, self.env, allocator=self.library)


GLIBC: Final = Allocator("glibc", "glibc as it is.")
GLIBC_ADVISE: Final = Allocator(
    "glibc, advise",
    "glibc (2.35 or newer) advises huge pages for each piece of 2 MiB that it takes.",
    env=profiles.ADVISE.env,
)
GLIBC_LATER: Final = Allocator(
    "glibc, advise, later",
    "The same once a block of 16 MiB was freed: glibc takes shorter ones from its heap then.",
    env=profiles.ADVISE.env,
    freed=16 * MIB,
)
GLIBC_KEEP: Final = Allocator(
    "glibc, keep",
    "glibc advises, takes 64 MiB at a time, and keeps every block in its heap.",
    env=profiles.KEEP.env,
)
NUMPY: Final = Allocator("NumPy", "Arrays of NumPy, on glibc as it is.", numpy=True)
JEMALLOC_PLAIN: Final = Allocator("jemalloc", "jemalloc as it is.", library="jemalloc")
JEMALLOC: Final = Allocator(
    "jemalloc, advise",
    "jemalloc advises huge pages for all that it takes.",
    env=preload.ADVICE["jemalloc"],
    library="jemalloc",
)
TCMALLOC: Final = Allocator(
    "tcmalloc", "tcmalloc as it is; it has no setting for huge pages.", library="tcmalloc"
)
MIMALLOC_PLAIN: Final = Allocator("mimalloc", "mimalloc as it is.", library="mimalloc")
MIMALLOC: Final = Allocator(
    "mimalloc, advise",
    "mimalloc takes reserved huge pages, and where there are none advises transparent ones.",
    env=preload.ADVICE["mimalloc"],
    library="mimalloc",
)
ON_GLIBC: Final = (GLIBC, GLIBC_ADVISE, GLIBC_LATER, GLIBC_KEEP, NUMPY)
IN_PLACE_OF_GLIBC: Final = (JEMALLOC_PLAIN, JEMALLOC, TCMALLOC, MIMALLOC_PLAIN, MIMALLOC)
ALLOCATORS: Final = (*ON_GLIBC, *IN_PLACE_OF_GLIBC)
PRELOADED: Final = (JEMALLOC_PLAIN, TCMALLOC, MIMALLOC_PLAIN)


@dataclass(frozen=True, slots=True)
class Allocation:
    """Blocks of one size from one allocator, allocated and written in a process of their own.

    Parameters
    ----------
    allocator
        What gave them.
    request
        What was asked for.
    blocks
        Where they are, and the faults that they cost.
    resident
        What the process holds more than before, including what the allocator took ahead.
    """

    allocator: Allocator
    request: Request
    blocks: Blocks
    resident: Resident

    @property
    def asked_kib(self) -> int:
        """What was asked for and written."""
        return self.request.size * self.request.count // KIB

    @property
    def coverage(self) -> float:
        """Share of it that is huge, 0 to 1; khugepaged may meanwhile add what was there before."""
        return min(1.0, self.resident.coverage)

    @property
    def spans(self) -> tuple[Span, ...]:
        """From the first page of each block to its end: its mapping, where glibc maps it alone."""
        return tuple(
            Span(start // PAGESIZE * PAGESIZE, start + usable)
            for start, usable in zip(self.blocks.starts, self.blocks.usable, strict=True)
        )


def allocate(
    allocator: Allocator, size: int, touch: Touch, *, count: int = COUNT
) -> Allocation | NotObservable:
    """Measure ``count`` blocks of ``size`` bytes.

    Parameters
    ----------
    allocator
        What gives them.
    size
        Bytes of each, 1 MiB at least: smaller ones may share what the heap had left.
    touch
        Whether each is written as soon as it is allocated, or all once the last one is.
    count
        Number of blocks.

    Returns
    -------
    Allocation or NotObservable
        The latter where the library, smaps or the memory is missing.

    Raises
    ------
    ProbeError
        If the process crashed or did not finish in time.
    """
    added = allocator.arm.environment()
    if isinstance(added, NotObservable):
        return added
    if refusal := too_much(size * count):
        return refusal
    request = Request(size, count, touch, allocator.numpy, allocator.freed)
    told, held = [], []
    try:
        with children.talking("hugeprobe.blocks", [], added, _SECONDS) as child:
            for line in child.steps(request.encode()):
                told.append(line)
                held.append(smaps.snapshot(child.pid).total)
    except (smaps.NoSmapsError, NotPermittedError):
        return NotObservable("this system does not show the memory map of a process to its parent")
    before, after = held
    resident = Resident(
        after.anonymous_kib - before.anonymous_kib,
        after.anon_huge_kib - before.anon_huge_kib,
    )
    return Allocation(allocator, request, Blocks.decode(told[-1]), resident)


def allocations(
    allocators: Sequence[Allocator] = ALLOCATORS,
    sizes: Sequence[int] = SIZES,
    touches: Sequence[Touch] = tuple(Touch),
) -> list[Allocation | NotObservable]:
    """Measure every size in every order from every allocator, one process after another."""
    return [
        allocate(allocator, size, touch)
        for allocator, touch, size in product(allocators, touches, sizes)
    ]


# Preloading into an inference process -------------------------------------------------------------

CURE: Final = {"TBB_ENABLE_SANITIZERS": "1"}
"""Makes oneTBB open its helper libraries without ``RTLD_DEEPBIND`` (oneTBB #1645)."""


@dataclass(frozen=True, slots=True)
class Preloaded:
    """One run of a tiny model under a preloaded allocator.

    Parameters
    ----------
    allocator
        What was preloaded.
    runtime
        What ran the model.
    version
        Version of the runtime.
    cured
        Whether :data:`CURE` was set.
    failure
        How the process ended and what it said last, as a sentence; None where it worked.
    """

    allocator: Allocator
    runtime: Runtime
    version: str
    cured: bool
    failure: str | None


def run_preloaded(
    allocator: Allocator, runtime: Runtime, *, cured: bool, cache: Path
) -> Preloaded | NotObservable:
    """Load a tiny model and infer once, in a process that ``allocator`` is preloaded into.

    Parameters
    ----------
    allocator, runtime, cured
        What to run; see :class:`Preloaded`.
    cache
        Folder for the model, which is built there.
    """
    arm = replace(allocator.arm, env={**allocator.env, **(CURE if cured else {})})
    shapes = bert.TINY.shapes[:1]
    failure = None
    try:
        report = inference.run(bert.TINY, runtime, arm, cache=cache, shapes=shapes, repeats=0)
    except ProbeError as error:
        failure = str(error)
    else:
        if isinstance(report, NotObservable):
            return report
    return Preloaded(allocator, runtime, metadata.version(runtime.name), cured, failure)


def preloadings() -> list[Preloaded | NotObservable]:
    """Preload each allocator into both runtimes, and into OpenVINO with the cure."""
    with tempfile.TemporaryDirectory(prefix="hugeprobe-") as folder:
        return [
            run_preloaded(allocator, runtime, cured=cured, cache=Path(folder))
            for allocator in PRELOADED
            for runtime, cured in ((ONNXRUNTIME, False), (OPENVINO, False), (OPENVINO, True))
        ]
