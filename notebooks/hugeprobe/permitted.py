"""What of the settings of huge pages this process could change: on a host, or in a container.

Nothing is written to find out: the kernel is asked for access (``access(2)``), which takes account
of the user, of capabilities and of a file system that is mounted read-only.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Final

SETTINGS: Final = (
    "sys/kernel/mm/transparent_hugepage/enabled",
    "sys/kernel/mm/transparent_hugepage/defrag",
    "sys/kernel/mm/transparent_hugepage/shmem_enabled",
    "sys/kernel/mm/transparent_hugepage/hugepages-64kB/enabled",
    "sys/kernel/mm/transparent_hugepage/khugepaged/pages_to_scan",
    "proc/sys/vm/nr_hugepages",
    "proc/sys/vm/max_map_count",
)


@dataclass(frozen=True, slots=True)
class Setting:
    """One file that decides.

    Parameters
    ----------
    path
        Its path, absolute on the host.
    value
        What it says; None where there is no such file, or it may not be read.
    changeable
        Whether this process could write to it.
    """

    path: str
    value: str | None
    changeable: bool


def settings(root: Path = Path("/")) -> list[Setting]:
    """Return the files of :data:`SETTINGS`, with what this process may do with them."""
    return [_setting(root, path) for path in SETTINGS]


def _setting(root: Path, path: str) -> Setting:
    file = root / path
    try:
        value: str | None = file.read_text().strip()
    except OSError:
        value = None
    return Setting(f"/{path}", value, os.access(file, os.W_OK))
