"""The arms of a comparison: what is changed about an inference process, and nothing else.

An arm is data. Those without a host mode need no privilege: they change the environment, the
process's own THP switch, or an option of the runtime.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from hugeprobe import hostmodes, preload, profiles
from hugeprobe.errors import BadRequestError, NotObservable

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from hugeprobe.hostmodes import HostMode
    from hugeprobe.runtimes import Lock, RuntimeName


@dataclass(frozen=True, slots=True)
class Arm:
    """What is changed about the process.

    Parameters
    ----------
    name
        Short name, as the command line and the records spell it.
    description
        What it does, in one sentence.
    env
        Environment variables it adds. Variables that steer allocation are otherwise removed.
    thp_disabled
        Whether the process starts with ``PR_SET_THP_DISABLE``.
    allocator
        Name of the allocator that is preloaded in place of glibc's.
    collapse
        Whether the process collapses what can be huge once it is warm (``MADV_COLLAPSE``).
    touched
        Whether as much heap as a run needs is touched before anything is loaded.
    backed
        Whether the host is made to have memory behind the free huge pages of this machine before
        each step, where this is a virtual machine; see :mod:`hugeprobe.firsttouch`.
    only
        The runtime that has what is changed; None for both.
    options
        Fields of :class:`hugeprobe.inference.Runtime` that it sets.
    mode
        Settings of the whole host that it needs, which takes root.
    lock
        When the process locks its memory.
    """

    name: str
    description: str
    env: Mapping[str, str] = field(default_factory=dict)
    thp_disabled: bool = False
    allocator: str | None = None
    collapse: bool = False
    touched: bool = False
    backed: bool = False
    only: RuntimeName | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    mode: HostMode | None = None
    lock: Lock = "never"

    def environment(self) -> dict[str, str] | NotObservable:
        """Return the variables of the process, with the preloaded library if there is to be one."""
        if self.allocator is None:
            return dict(self.env)
        library = preload.library(self.allocator)
        if isinstance(library, NotObservable):
            return library
        return {"LD_PRELOAD": library, **self.env}


_SANITIZERS: Final = {"TBB_ENABLE_SANITIZERS": "1"}
"""Without it, the OpenVINO wheel aborts under another allocator; see ``docs/allocators.md``."""

_NEVER_TRIMMED: Final = 1 << 62  # bytes

DEFAULT: Final = Arm("default", "Nothing is changed.")
AGAIN: Final = Arm("again", "Nothing is changed either: how far two equal arms differ by chance.")
OFF: Final = Arm("off", "Huge pages are forbidden to the process.", thp_disabled=True)
ADVISE: Final = Arm(
    "advise",
    "glibc (2.35 or newer) advises huge pages for what it takes from the kernel.",
    env=profiles.ADVISE.env,
)
KEEP: Final = Arm(
    "keep", "As `advise`, and glibc keeps what it has instead of giving it back.", profiles.KEEP.env
)
JEMALLOC: Final = Arm(
    "jemalloc",
    "jemalloc in place of glibc's allocator, told to advise huge pages everywhere.",
    env={**_SANITIZERS, **preload.ADVICE["jemalloc"]},
    allocator="jemalloc",
)
TCMALLOC: Final = Arm(
    "tcmalloc", "tcmalloc in place of glibc's allocator.", env=_SANITIZERS, allocator="tcmalloc"
)
MIMALLOC: Final = Arm(
    "mimalloc",
    "mimalloc in place of glibc's allocator, as it is.",
    env=_SANITIZERS,
    allocator="mimalloc",
)
MIMALLOC_ADVISE: Final = Arm(
    "mimalloc-advise",
    "mimalloc in place of glibc's allocator, told to advise huge pages.",
    env={**_SANITIZERS, **preload.ADVICE["mimalloc"]},
    allocator="mimalloc",
)
COLLAPSE: Final = Arm(
    "collapse", "Once it is warm, the process makes huge what can be.", collapse=True
)
NO_ARENA: Final = Arm(
    "arena-off",
    "ONNX Runtime gives freed memory back to the allocator.",
    only="onnxruntime",
    options={"arena": False},
)
NO_ARENA_ADVISE: Final = Arm(
    "arena-off-advise",
    "As `arena-off`, with the advice of `advise`.",
    env=ADVISE.env,
    only="onnxruntime",
    options={"arena": False},
)
NO_ARENA_KEEP: Final = Arm(
    "arena-off-keep",
    "As `arena-off`, with the settings of `keep`.",
    env=KEEP.env,
    only="onnxruntime",
    options={"arena": False},
)
IR_MAPPED: Final = Arm(
    "ir-mapped",
    "OpenVINO loads an IR whose weights it maps (`ENABLE_MMAP`).",
    only="openvino",
    options={"ir": True},
)
IR_READ: Final = Arm(
    "ir-read",
    "OpenVINO loads an IR whose weights it reads (`ENABLE_MMAP` off).",
    only="openvino",
    options={"ir": True, "mmap": False},
)
IR_READ_ADVISE: Final = Arm(
    "ir-read-advise",
    "As `ir-read`, with the advice of `advise`.",
    env=ADVISE.env,
    only="openvino",
    options={"ir": True, "mmap": False},
)
THROUGHPUT: Final = Arm(
    "throughput",
    "OpenVINO under the hint THROUGHPUT in place of LATENCY.",
    only="openvino",
    options={"hint": "THROUGHPUT"},
)
BACKED: Final = Arm(
    "backed", "Nothing is changed, and the host has memory behind free huge pages.", backed=True
)
ADVISE_BACKED: Final = Arm(
    "advise-backed", "As `advise`, with memory as in `backed`.", env=ADVISE.env, backed=True
)
KEEP_BACKED: Final = Arm(
    "keep-backed", "As `keep`, with memory as in `backed`.", env=KEEP.env, backed=True
)
TOUCHED: Final = Arm(
    "touched",
    "The floor of times: all the memory that it needs was touched before it began.",
    env={
        "GLIBC_TUNABLES": (
            "glibc.malloc.mmap_max=0:glibc.malloc.arena_max=1:"
            f"glibc.malloc.trim_threshold={_NEVER_TRIMMED}"
        )
    },
    touched=True,
)
ALWAYS: Final = Arm("always", "THP `always` on the whole host.", mode=hostmodes.ALWAYS)
MTHP_64K: Final = Arm("mthp-64k", "Huge pages of 64 KiB `always`.", mode=hostmodes.MTHP_64K_ALWAYS)
MTHP: Final = Arm("mthp", "Huge pages of 64 KiB to 1 MiB `always`.", mode=hostmodes.MTHP_ALWAYS)
MTHP_64K_ADVISE: Final = Arm(
    "mthp-64k-advise",
    "Huge pages of 64 KiB `madvise`, with the advice of `advise`.",
    env=ADVISE.env,
    mode=hostmodes.MTHP_64K_MADVISE,
)
MTHP_ADVISE: Final = Arm(
    "mthp-advise",
    "Huge pages of 64 KiB to 1 MiB `madvise`, with the advice of `advise`.",
    env=ADVISE.env,
    mode=hostmodes.MTHP_MADVISE,
)
MTHP_NO_ARENA: Final = Arm(
    "arena-off-mthp",
    "As `arena-off`, with huge pages of 64 KiB to 1 MiB `always`.",
    only="onnxruntime",
    options={"arena": False},
    mode=hostmodes.MTHP_ALWAYS,
)

UNPRIVILEGED: Final = (
    DEFAULT,
    AGAIN,
    OFF,
    ADVISE,
    KEEP,
    JEMALLOC,
    TCMALLOC,
    MIMALLOC,
    MIMALLOC_ADVISE,
    COLLAPSE,
    NO_ARENA,
    NO_ARENA_ADVISE,
    NO_ARENA_KEEP,
    IR_MAPPED,
    IR_READ,
    IR_READ_ADVISE,
    THROUGHPUT,
    BACKED,
    ADVISE_BACKED,
    KEEP_BACKED,
    TOUCHED,
)
HOST_MODES: Final = (ALWAYS, MTHP_64K, MTHP, MTHP_64K_ADVISE, MTHP_ADVISE, MTHP_NO_ARENA)
ARMS: Final = {arm.name: arm for arm in (*UNPRIVILEGED, *HOST_MODES)}
"""Every arm under its name, in the order in which tables show them."""


def find(names: Iterable[str]) -> tuple[Arm, ...]:
    """Return the arms of these names, in the order of :data:`ARMS`.

    Raises
    ------
    BadRequestError
        If there is none of one of the names.
    """
    wanted = set(names)
    if unknown := sorted(wanted - set(ARMS)):
        raise BadRequestError(
            f"There is no arm named {unknown[0]!r}; choose from {', '.join(ARMS)}."
        )
    return tuple(arm for name, arm in ARMS.items() if name in wanted)
