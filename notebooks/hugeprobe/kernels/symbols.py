"""Configuration symbols about huge pages, as the stock kernels of the laboratory have them.

``python -m hugeprobe.kernels.symbols`` unpacks the stock kernels, reads the configuration that each
was built with, and writes ``records/kernel-symbols.json``: it shows that a symbol exists, and what
those who build for others chose.
"""

from __future__ import annotations

import asyncio
import dataclasses
import re
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Final

from hugeprobe import records
from hugeprobe.kernels import images
from hugeprobe.kernels.archive import Archive

if TYPE_CHECKING:
    from hugeprobe.errors import NotObservable

RECORD: Final = Path(__file__).parents[2] / "records" / "kernel-symbols.json"
COMMAND: Final = "python -m hugeprobe.kernels.symbols"

SYMBOLS: Final = (
    "TRANSPARENT_HUGEPAGE",
    "TRANSPARENT_HUGEPAGE_ALWAYS",
    "TRANSPARENT_HUGEPAGE_MADVISE",
    "TRANSPARENT_HUGEPAGE_NEVER",
    "READ_ONLY_THP_FOR_FS",
    "COMPACTION",
    "MIGRATION",
    "ADVISE_SYSCALLS",
    "SHMEM",
    "TMPFS",
    "HUGETLBFS",
    "PROC_PAGE_MONITOR",
    "VM_EVENT_COUNTERS",
    "MEMCG",
    "NUMA",
    "NUMA_BALANCING",
    "NUMA_BALANCING_DEFAULT_ENABLED",
    "PAGE_REPORTING",
    "VIRTIO_BALLOON",
)
_LINE: Final = re.compile(r"^(?:CONFIG_(\w+)=(.*)|# CONFIG_(\w+) is not set)$", re.MULTILINE)


@records.EXACTLY
@dataclass(frozen=True, slots=True)
class KernelSymbols:
    """One kernel.

    Parameters
    ----------
    origin
        Where it comes from.
    config_digest
        SHA-256 of its configuration.
    values
        ``y``, ``m`` or ``n`` of each of :data:`SYMBOLS`; what the kernel does not know is absent.
    """

    origin: str
    config_digest: str
    values: dict[str, str]


@records.EXACTLY
@dataclass(frozen=True, slots=True)
class SymbolsRecord:
    """All kernels.

    Parameters
    ----------
    date
        Day of the reading, in UTC.
    command
        What makes it anew.
    kernels
        Each stock kernel, oldest first.
    """

    date: str
    command: str
    kernels: tuple[KernelSymbols, ...]


def values(config: str) -> dict[str, str]:
    """Return the value of each of :data:`SYMBOLS` that a kernel's configuration names."""
    found = {set_ or unset: value or "n" for set_, value, unset in _LINE.findall(config)}
    return {name: found[name] for name in SYMBOLS if name in found}


def of_kernel(kernel: images.Kernel) -> KernelSymbols:
    """Return what one kernel on disk was built with."""
    config = (kernel.folder / "config").read_text()
    return KernelSymbols(kernel.origin, kernel.config_digest, values(config))


def read(path: Path = RECORD) -> SymbolsRecord | NotObservable:
    """Return what was recorded; raises as :func:`records.read` does."""
    return records.read(path, SymbolsRecord)


async def _kernels(cache: Path) -> list[images.Kernel]:
    archive = await Archive.open(cache / "apt")
    return [await images.stock(archive, version, cache) for version in images.STOCK_VERSIONS]


def main() -> None:
    """Unpack the stock kernels and write the record."""
    kernels = asyncio.run(_kernels(images.default_cache()))
    today = datetime.now(timezone.utc).date().isoformat()
    record = SymbolsRecord(today, COMMAND, tuple(map(of_kernel, kernels)))
    records.write(RECORD, record)
    for kernel in record.kernels:
        print(dataclasses.asdict(kernel))


if __name__ == "__main__":
    main()
