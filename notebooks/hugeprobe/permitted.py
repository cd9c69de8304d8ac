"""What of the settings of huge pages this process could change: on a host, or in a container.

Nothing is written to find out: the kernel is asked for access (``access(2)``), which takes account
of the user, of capabilities and of a file system that is mounted read-only.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

from hugeprobe.children import environment
from hugeprobe.errors import NotObservable

_READ_ONLY: Final = "ro,nosuid,nodev,noexec"
_AS_MOUNTED: Final = " && ".join(
    f"mount --rbind {folder} {folder} && mount -o remount,bind,{_READ_ONLY} {folder}"
    for folder in ("/sys", "/proc/sys")
)
"""What container engines do with both folders, for a shell in namespaces of its own."""
_SECONDS: Final = 60.0

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


def contained() -> list[Setting] | NotObservable:
    """Return the same as a container sees it: root of a user namespace, and read-only mounts.

    That is how container engines mount both folders unless told otherwise (``oci/defaults.go`` of
    Moby); namespaces of one's own need no root (``user_namespaces(7)``).
    """
    unshare = shutil.which("unshare")
    if unshare is None:
        return NotObservable("the program unshare of util-linux is not installed")
    script = f'{_AS_MOUNTED} && exec "$0" -m hugeprobe.permitted'
    try:
        done = subprocess.run(
            [unshare, "--user", "--map-root-user", "--mount", "sh", "-c", script, sys.executable],
            env=environment({}),
            capture_output=True,
            text=True,
            timeout=_SECONDS,
            check=False,
        )
    except OSError as error:
        return NotObservable(f"unshare could not be started ({error.strerror})")
    if done.returncode:
        return NotObservable(
            "this host lets no process without root make namespaces and mounts of its own, or not "
            "within what this one runs in"
        )
    return [Setting(**each) for each in json.loads(done.stdout)]


def _setting(root: Path, path: str) -> Setting:
    file = root / path
    try:
        value: str | None = file.read_text().strip()
    except OSError:
        value = None
    return Setting(f"/{path}", value, os.access(file, os.W_OK))


if __name__ == "__main__":
    print(json.dumps([asdict(each) for each in settings()]))
