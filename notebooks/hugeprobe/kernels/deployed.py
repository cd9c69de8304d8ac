"""What runs inside a guest that was started as a page says: its settings, and what they come to.

``python -m hugeprobe.kernels.deployed REQUEST``, inside a guest. It tells what sysfs says after the
boot, what systemd's own program makes of the temporary-files line by line, what each choice of page
sizes costs and brings, and what a control group with a limit does to huge pages.
"""

from __future__ import annotations

import ctypes
import json
import os
import re
import subprocess
import sys
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from hugeprobe import emulate, host, linux
from hugeprobe.areas import aligned_area, resident, touch
from hugeprobe.errors import NotObservable, ProbeError
from hugeprobe.kernels.guest import make_repeatable, require_guest, tell
from hugeprobe.linux import Advice
from hugeprobe.placement import Touch
from hugeprobe.sizes import KIB, MIB, page_sizes

if TYPE_CHECKING:
    from collections.abc import Sequence

_THP: Final = Path("/sys/kernel/mm/transparent_hugepage")
_GROUPS: Final = Path("/sys/fs/cgroup")

BUFFERS: Final = (1536 * KIB,) * 16
"""Buffers that are written as they are mapped: too short for the PMD size."""
PMDS: Final = 12
"""Ranges of the PMD size in which one byte each is written: as much memory as the buffers."""
LIMITED_PMDS: Final = 16
LIMIT: Final = 20 * MIB
"""Of the group in which :data:`LIMITED_PMDS` ranges are touched, which as huge pages are 32 MiB."""
SPILLED_PMDS: Final = 64
"""Ranges of the PMD size by which memory is larger than what the processor's node has free."""
CHOICES: Final = (
    ("base pages", "never", ()),
    ("64 KiB", "never", (64,)),
    ("64 KiB to 1 MiB", "never", (64, 128, 256, 512, 1024)),
    ("2 MiB", "always", ()),
)
"""Name, mode of the PMD size, and sizes in KiB below it that are ``always``."""


@dataclass(frozen=True, slots=True)
class Request:
    """What a guest is told to do.

    Parameters
    ----------
    tmpfiles
        The text of a file for systemd-tmpfiles, empty for none.
    costs
        Whether page sizes and limits are measured, too.
    nodes
        Whether memory is written that does not fit on the processor's own node.
    """

    tmpfiles: str = ""
    costs: bool = False
    nodes: bool = False

    def encode(self) -> str:
        """Return it as one line of JSON."""
        return json.dumps(asdict(self))

    @staticmethod
    def decode(line: str) -> Request:
        """Read it back from :meth:`encode`."""
        return Request(**json.loads(line))


def main(arguments: Sequence[str]) -> None:
    """Tell everything; the argument is a :class:`Request`, or a group and how to touch in it."""
    require_guest()
    if arguments[0] == "--limited":
        _touch_limited(huge=arguments[1] == "huge")
        return
    request = Request.decode(arguments[0])
    tell(about="booted", release=os.uname().release, settings=settings())
    if request.tmpfiles:
        said = _create(request.tmpfiles)
        tell(about="created", settings=settings(), said=said)
    if request.costs:
        make_repeatable()
        for name, mode, sizes in CHOICES:
            if _choose(mode, sizes):
                tell(about="choice", name=name, **_cost())
        _choose("madvise", ())
        for kind in ("base", "huge"):
            tell(about="limited", kind=kind, **_limited(kind))
    if request.nodes:
        make_repeatable()
        for defrag in ("madvise", "defer"):
            tell(about="spilled", defrag=defrag, **_spill(defrag))


def settings(thp: Path = _THP) -> dict[str, str]:
    """Return the word in force of every setting that pages name, by its path below ``thp``."""
    files = [thp / name for name in ("enabled", "defrag", "shmem_enabled")]
    files += sorted(thp.glob("hugepages-*kB/enabled"))
    found = {str(file.relative_to(thp)): host.choice(file) for file in files}
    return {name: word for name, word in found.items() if word is not None}


def _create(text: str) -> str:
    """Let systemd's own program apply the file; return what it said, nothing if it took it."""
    with tempfile.NamedTemporaryFile("w", suffix=".conf") as file:
        file.write(text)
        file.flush()
        done = subprocess.run(
            ["systemd-tmpfiles", "--create", file.name],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
    if done.returncode:
        raise ProbeError(f"systemd-tmpfiles refused the file, and said: {done.stdout}")
    return done.stdout.strip()


# What sizes cost ----------------------------------------------------------------------------------


def _choose(mode: str, sizes: Sequence[int]) -> bool:
    """Set the page sizes; return False where this kernel does not have them all."""
    pmd_kib = page_sizes().pmd // KIB
    files = {int(file.parent.name[10:-2]): file for file in _THP.glob("hugepages-*kB/enabled")}
    if not set(sizes) <= set(files):
        return False
    (_THP / "enabled").write_text(mode)
    for size, file in files.items():
        file.write_text("inherit" if size == pmd_kib else "always" if size in sizes else "never")
    return True


def _cost() -> dict[str, Any]:
    """Return the faults of writing buffers in whole, and the memory of writing here and there."""
    filled = emulate.observe(BUFFERS, Touch.EACH)
    if isinstance(filled, NotObservable):
        raise ProbeError(f"A guest was to write buffers, but could not, because {filled.reason}.")
    sizes = page_sizes()
    with aligned_area(PMDS * sizes.pmd, sizes) as span:
        for start in range(span.start, span.end, sizes.pmd):
            ctypes.memset(start, 1, 1)
        scattered = resident(span)
    return {"minor_faults": filled.layout.minor_faults, "scattered_kib": scattered.anon_kib}


# Limits -------------------------------------------------------------------------------------------


def _limited(kind: str) -> dict[str, Any]:
    """Touch here and there in a group with a limit, in a process that the kernel may kill."""
    group = _GROUPS / "limited"
    if not (_GROUPS / "cgroup.controllers").exists():
        subprocess.run(["mount", "-t", "cgroup2", "none", str(_GROUPS)], check=True)
    (_GROUPS / "cgroup.subtree_control").write_text("+memory")
    group.mkdir()
    (group / "memory.max").write_text(str(LIMIT))
    declined = _event("thp_fault_fallback_charge")
    command = (sys.executable, "-m", "hugeprobe.kernels.deployed", "--limited", kind)
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    events = _fields(group / "memory.events")
    names = [name for name in _fields(group / "memory.stat") if "thp" in name]
    told = {
        "survived": done.returncode == 0,
        "killed": events.get("oom_kill", 0),
        "declined": _event("thp_fault_fallback_charge") - declined,
        "names": names,
        **(json.loads(done.stdout) if done.returncode == 0 else {}),
    }
    group.rmdir()
    return told


def _touch_limited(*, huge: bool) -> None:
    """Join the group, touch, and print what the memory came to; Python itself stays outside."""
    sizes = page_sizes()
    (_GROUPS / "limited/cgroup.procs").write_text(str(os.getpid()))
    with aligned_area(LIMITED_PMDS * sizes.pmd, sizes) as span:
        linux.advise(span.start, span.length, Advice.HUGEPAGE if huge else Advice.NOHUGEPAGE)
        for start in range(span.start, span.end, sizes.pmd):
            ctypes.memset(start, 1, 1)
        found = resident(span)
        stat = _fields(_GROUPS / "limited/memory.stat")
        print(
            json.dumps(
                {
                    **asdict(found),
                    "stat_anon_kib": stat["anon"] // KIB,
                    "stat_huge_kib": stat["anon_thp"] // KIB,
                }
            )
        )


# Nodes --------------------------------------------------------------------------------------------


def _spill(defrag: str) -> dict[str, Any]:
    """Write to more advised memory than the processor's node has free; tell what lies where."""
    (_THP / "enabled").write_text("madvise")
    (_THP / "defrag").write_text(defrag)
    # Balancing moves pages, and takes translations away to see who uses them, while it is counted.
    Path("/proc/sys/kernel/numa_balancing").write_text("0")
    sizes = page_sizes()
    free = _free_on_node(0) // sizes.pmd * sizes.pmd
    with aligned_area(free + SPILLED_PMDS * sizes.pmd, sizes) as span:
        linux.advise(span.start, span.length, Advice.HUGEPAGE)
        touch(span)
        found = resident(span)
        pages = re.compile(r" N(\d+)=(\d+)")
        where: dict[str, int] = {}
        for line in Path("/proc/self/numa_maps").read_text().splitlines():
            if span.start <= int(line.split()[0], 16) < span.end:
                for node, count in pages.findall(line):
                    where[node] = where.get(node, 0) + int(count) * sizes.base // KIB
    return {
        "length_kib": span.length // KIB,
        "free_kib": free // KIB,
        **asdict(found),
        "node_kib": where,
    }


def _free_on_node(node: int) -> int:
    text = Path(f"/sys/devices/system/node/node{node}/meminfo").read_text()
    (kib,) = re.findall(r"MemFree:\s+(\d+) kB", text)
    return int(kib) * KIB


def _fields(path: Path) -> dict[str, int]:
    pairs = (line.split() for line in path.read_text().splitlines())
    return {name: int(value) for name, value in pairs}


def _event(name: str) -> int:
    return _fields(Path("/proc/vmstat")).get(name, 0)


if __name__ == "__main__":
    main(sys.argv[1:])
