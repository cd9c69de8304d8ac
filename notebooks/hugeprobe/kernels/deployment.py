"""The settings that the page on deploying gives to copy, tried on real kernels.

``python -m hugeprobe.kernels.deployment`` merges the fragment into the configuration of a stock
kernel with the kernel's own tools, boots each stock kernel with the boot parameters and without,
applies the temporary-files there, and writes what came of it to ``records/deployment.json``.
"""

from __future__ import annotations

import asyncio
import sys
import tempfile
from contextlib import aclosing
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from pydantic import TypeAdapter

from hugeprobe import records
from hugeprobe.errors import NotObservable
from hugeprobe.kernels import deployed, images
from hugeprobe.kernels.archive import Archive
from hugeprobe.kernels.deployed import Request
from hugeprobe.kernels.machine import Accelerator, Machine, working_accelerator
from hugeprobe.kernels.processes import require, require_space, run

if TYPE_CHECKING:
    from hugeprobe.kernels.images import Kernel

RECORD: Final = Path(__file__).parents[2] / "records" / "deployment.json"
COMMAND: Final = "python -m hugeprobe.kernels.deployment"

PARAMETERS: Final = ("transparent_hugepage=madvise", "thp_anon=64K:always;2M:inherit")
INCOMPLETE: Final = ("transparent_hugepage=madvise", "thp_anon=64K:always")
"""The same without the PMD size, which ``thp_anon`` then turns off."""

_THP: Final = "/sys/kernel/mm/transparent_hugepage"
TMPFILES: Final = {
    f"{_THP}/enabled": "madvise",
    f"{_THP}/hugepages-64kB/enabled": "always",
}
"""What systemd's temporary-files write, by file."""

FRAGMENT: Final = (
    "TRANSPARENT_HUGEPAGE",
    "TRANSPARENT_HUGEPAGE_MADVISE",
    "COMPACTION",
    "MIGRATION",
    "ADVISE_SYSCALLS",
    "SHMEM",
    "TMPFS",
    "PROC_PAGE_MONITOR",
    "VM_EVENT_COUNTERS",
    "MEMCG",
)
"""Symbols that the fragment for kernels of one's own sets to ``y``."""

_SECONDS: Final = 300.0
_SPACE_GIB: Final = 3


@records.EXACTLY
@dataclass(frozen=True, slots=True)
class SizesChoice:
    """What a choice of page sizes costs and brings.

    Parameters
    ----------
    name
        The sizes.
    minor_faults
        Faults of writing :data:`deployed.BUFFERS`, each as it is mapped.
    scattered_kib
        Memory after one byte in each of :data:`deployed.PMDS` ranges was written.
    """

    name: str
    minor_faults: int
    scattered_kib: int


@records.EXACTLY
@dataclass(frozen=True, slots=True)
class LimitedGroup:
    """Scattered writes in a control group whose limit is too low for them on huge pages.

    Parameters
    ----------
    kind
        ``base`` or ``huge``: whether huge pages were forbidden to the memory, or asked for.
    survived, killed
        Whether the process ended well, and how many the kernel killed in the group.
    declined
        Huge pages for which the group had no room (``thp_fault_fallback_charge``).
    names
        Fields of the group's ``memory.stat`` that tell of huge pages.
    anon_kib, huge_kib
        The memory, and the huge part of it, as smaps tells.
    stat_anon_kib, stat_huge_kib
        The same of the whole group, as ``anon`` and ``anon_thp`` of its ``memory.stat`` tell.
    """

    kind: str
    survived: bool
    killed: int
    declined: int
    names: tuple[str, ...]
    anon_kib: int
    huge_kib: int
    stat_anon_kib: int
    stat_huge_kib: int


@records.EXACTLY
@dataclass(frozen=True, slots=True)
class SpilledMemory:
    """Advised memory that does not fit on the memory node of the processor.

    Parameters
    ----------
    defrag
        The setting of that name.
    length_kib, free_kib
        Length of the memory, and what the node had free, in whole huge pages.
    anon_kib, huge_kib
        What became resident, and the huge part of it.
    node_kib
        Memory by node; the processor is on node 0.
    """

    defrag: str
    length_kib: int
    free_kib: int
    anon_kib: int
    huge_kib: int
    node_kib: dict[str, int]


@records.EXACTLY
@dataclass(frozen=True, slots=True)
class BootedGuest:
    """One boot of one kernel.

    Parameters
    ----------
    release
        What it calls itself.
    parameters
        What the boot loader said.
    nodes
        Memory nodes.
    booted
        Settings after the boot, by their path below ``/sys/kernel/mm/transparent_hugepage``.
    created
        The same after systemd applied the temporary-files; None where it did not.
    choices, limited, spilled
        What was measured, empty where it was not.
    """

    release: str
    parameters: tuple[str, ...]
    nodes: int
    booted: dict[str, str]
    created: dict[str, str] | None = None
    choices: tuple[SizesChoice, ...] = ()
    limited: tuple[LimitedGroup, ...] = ()
    spilled: tuple[SpilledMemory, ...] = ()


@records.EXACTLY
@dataclass(frozen=True, slots=True)
class MergedFragment:
    """The fragment, merged into a configuration by the kernel's own tools.

    Parameters
    ----------
    source, base
        Whose tools, and whose configuration.
    fragment
        The symbols that it sets.
    dropped
        Those that the tools did not keep.
    """

    source: str
    base: str
    fragment: tuple[str, ...]
    dropped: tuple[str, ...]


@records.EXACTLY
@dataclass(frozen=True, slots=True)
class DeploymentRecord:
    """Everything that one run found.

    Parameters
    ----------
    date
        Day of the run, in UTC.
    command
        What makes it anew.
    accelerator
        What ran the guests.
    tmpfiles
        The temporary-files that were applied.
    merged
        What became of the fragment.
    guests
        Every boot.
    """

    date: str
    command: str
    accelerator: Accelerator
    tmpfiles: dict[str, str]
    merged: MergedFragment
    guests: tuple[BootedGuest, ...]


def tmpfiles_text(files: dict[str, str]) -> str:
    """Return settings as systemd reads them (``tmpfiles.d(5)``)."""
    return "".join(f"w {path} - - - - {value}\n" for path, value in files.items())


def read(path: Path = RECORD) -> DeploymentRecord | NotObservable:
    """Return what the last run recorded; raises as :func:`records.read` does."""
    found = records.read(path, DeploymentRecord)
    if isinstance(found, NotObservable):
        return NotObservable(f"{found.reason}; `{COMMAND}` makes it")
    return found


async def boot(machine: Machine, kernel: Kernel, request: Request) -> BootedGuest:
    """Boot one kernel, and return what its guest told.

    Raises
    ------
    ProbeError
        If the guest failed.
    """
    command = (sys.executable, "-m", deployed.__name__, request.encode())
    env = {"PYTHONPATH": str(Path(__file__).parents[2]), "PYTHONDONTWRITEBYTECODE": "1"}
    found: dict[str, Any] = {"parameters": machine.parameters, "nodes": machine.nodes}
    async with aclosing(machine.lines(kernel, command, _SECONDS, env)) as lines:
        async for told in lines:
            match told:
                case {"about": "booted", "release": release, "settings": settings}:
                    found |= {"release": release, "booted": settings}
                case {"about": "created", "settings": settings}:
                    found["created"] = settings
                case {"about": "choice", **choice}:
                    found.setdefault("choices", []).append(choice)
                case {"about": about, **result}:
                    found.setdefault(about, []).append(result)
    return TypeAdapter(BootedGuest).validate_python(found)


async def merge(archive: Archive, kernel: Kernel, cache: Path) -> MergedFragment:
    """Merge the fragment as the page says, and return what was dropped."""
    require("make", "gcc", "flex", "bison", "tar", "xz")
    require_space(cache, _SPACE_GIB, "Unpacking a kernel's source")
    source = await archive.newest(images.SOURCE)
    lines = [f"CONFIG_{name}=y" for name in FRAGMENT]
    with tempfile.TemporaryDirectory(dir=cache) as temporary:
        folder = Path(temporary)
        await archive.unpack(source, folder)
        packed = next(folder.rglob(f"{images.SOURCE}.tar.*"))
        await run(("tar", "-xf", packed), "Unpacking the source", cwd=folder)
        tree = folder / images.SOURCE
        (tree / ".config").write_bytes((kernel.folder / "config").read_bytes())
        (tree / "huge-pages.config").write_text("\n".join(lines) + "\n")
        merging = ("scripts/kconfig/merge_config.sh", "-m", ".config", "huge-pages.config")
        await run(merging, "Merging the fragment", cwd=tree)
        await run(("make", "-s", "olddefconfig"), "Completing the configuration", cwd=tree)
        kept = set((tree / ".config").read_text().splitlines())
    dropped = tuple(name for name, line in zip(FRAGMENT, lines, strict=True) if line not in kept)
    return MergedFragment(str(source), kernel.origin, FRAGMENT, dropped)


async def _record(cache: Path) -> DeploymentRecord:
    archive = await Archive.open(cache / "apt")
    kernels = [await images.stock(archive, version, cache) for version in images.STOCK_VERSIONS]
    busybox = await images.busybox(archive, cache)
    accelerator = await working_accelerator(kernels[0], busybox)
    merged = await merge(archive, kernels[1], cache)
    boots = (
        (Machine(busybox, accelerator), Request(tmpfiles=tmpfiles_text(TMPFILES))),
        (Machine(busybox, accelerator, PARAMETERS), Request(costs=True)),
        (Machine(busybox, accelerator, INCOMPLETE), Request()),
        (Machine(busybox, accelerator, nodes=2), Request(nodes=True)),
    )
    guests = []
    for kernel in kernels:
        for machine, request in boots:
            guests.append(await boot(machine, kernel, request))
            print(kernel.origin, *machine.parameters, f"nodes: {machine.nodes}")
    today = datetime.now(timezone.utc).date().isoformat()
    return DeploymentRecord(today, COMMAND, accelerator, TMPFILES, merged, tuple(guests))


def main() -> None:
    """Try everything, and write the record."""
    cache = images.default_cache()
    cache.mkdir(parents=True, exist_ok=True)
    record = asyncio.run(_record(cache))
    records.write(RECORD, record)
    print(f"The kernel's tools dropped: {', '.join(record.merged.dropped) or 'nothing'}.")


if __name__ == "__main__":
    main()
