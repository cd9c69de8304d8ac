"""What of a host decides about huge pages: the kernel's settings, the processor, the memory.

Only the files named here are read, and of them only what has a field below: a name of a machine or
a user, an address, a path or a command line has no field to get into. What others may have written
their own words into, the kernel's release before all, is kept as far as :mod:`hugeprobe.public`
knows the words. Sources of the settings:
``Documentation/admin-guide/mm/transhuge.rst`` and ``mm/huge_memory.c``.
"""

from __future__ import annotations

import math
import os
import platform
import re
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Final

from hugeprobe import public
from hugeprobe.errors import NotLinuxError
from hugeprobe.sizes import KIB, format_kib

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from hugeprobe.smaps import Pid

THP: Final = "sys/kernel/mm/transparent_hugepage"
"""Folder of the settings, below the root."""
_KNOWN: Final = frozenset(
    {"defrag", "enabled", "hpage_pmd_size", "shmem_enabled", "shrink_underused", "use_zero_page"}
)
_LIVE: Final = Path("/")


@dataclass(frozen=True, slots=True)
class Stat:
    """One event counter of a page size, since boot and over all processes."""

    name: str
    count: int


@dataclass(frozen=True, slots=True)
class MthpSize:
    """Settings of one huge page size (multi-size THP, since Linux 6.8).

    Parameters
    ----------
    kib
        The size in KiB.
    enabled
        ``always``, ``inherit``, ``madvise`` or ``never``; None for a size that only shmem can have.
    shmem_enabled
        ``always``, ``inherit``, ``within_size``, ``advise`` or ``never``; None before Linux 6.11.
    stats
        Event counters; empty before Linux 6.10.
    """

    kib: int
    enabled: str | None
    shmem_enabled: str | None
    stats: tuple[Stat, ...]


@dataclass(frozen=True, slots=True)
class Khugepaged:
    """Settings of the kernel thread that collapses base pages; None where this kernel has none."""

    defrag: bool | None
    pages_to_scan: int | None
    scan_sleep_millisecs: int | None
    alloc_sleep_millisecs: int | None
    max_ptes_none: int | None
    max_ptes_swap: int | None
    max_ptes_shared: int | None


@dataclass(frozen=True, slots=True)
class Memory:
    """Memory of the host, and what the control groups of this process leave of it.

    Parameters
    ----------
    total_mib, available_mib
        ``MemTotal`` and ``MemAvailable``.
    cgroup_version
        Version of the control group that sets the limit, or None without a limit.
    cgroup_limit_mib
        The smallest limit of this process's group and the groups above it, or None.
    """

    total_mib: int | None
    available_mib: int | None
    cgroup_version: int | None
    cgroup_limit_mib: int | None


@dataclass(frozen=True, slots=True)
class Cpu:
    """The processor.

    Parameters
    ----------
    model
        As ``/proc/cpuinfo`` names it, in words that are known.
    usable
        Logical processors that this process may run on.
    numa_nodes
        Memory nodes of the host.
    tlb
        Size of the TLB in the kernel's words; only AMD processors tell it.
    """

    model: str | None
    usable: int | None
    numa_nodes: int | None
    tlb: str | None


@dataclass(frozen=True, slots=True)
class HostFacts:
    """All facts; None is what this kernel does not have or does not tell.

    Parameters
    ----------
    kernel
        Release, as ``uname -r`` gives it, without what its builder added.
    architecture
        As ``uname -m`` gives it.
    thp_built_in
        Whether the kernel was built with transparent huge pages.
    thp_mode
        ``always``, ``madvise`` or ``never``; None where there is no such setting.
    thp_allowed_for_process
        False in a process that ``PR_SET_THP_DISABLE`` forbids every huge page. What Linux 6.18 can
        do with it, allowing them in advised memory only, is not told here.
    defrag
        How hard a fault tries to find a huge page: ``always``, ``defer``, ``defer+madvise``,
        ``madvise`` or ``never``.
    shmem_enabled
        Huge pages for shared anonymous memory and memfd.
    use_zero_page, shrink_underused
        Whether reads are answered with a huge zero page; whether huge pages that are mostly zero
        are split under memory pressure.
    base_kib, pmd_kib
        Size of a base page, and of what one PMD entry maps, also where THP is not built in.
    sizes
        Settings of each huge page size, largest first; empty before Linux 6.8.
    unknown_settings
        Names of THP settings that this package does not know: the kernel is newer, or not stock.
    virtualisation
        The hypervisor in words, or ``none seen``.
    container
        ``docker``, ``podman``, ``kubernetes``, ``lxc`` or ``unknown``; None where none is seen.
    glibc, python
        Versions in this process; None for a recorded tree, and ``glibc`` with another C library.
    """

    kernel: str | None
    architecture: str | None
    thp_built_in: bool
    thp_mode: str | None
    thp_allowed_for_process: bool | None
    defrag: str | None
    khugepaged: Khugepaged | None
    shmem_enabled: str | None
    use_zero_page: bool | None
    shrink_underused: bool | None
    base_kib: int | None
    pmd_kib: int | None
    sizes: tuple[MthpSize, ...]
    unknown_settings: tuple[str, ...]
    max_map_count: int | None
    overcommit_memory: int | None
    memory: Memory
    cpu: Cpu
    virtualisation: str
    container: str | None
    glibc: str | None
    python: str | None


def host_facts(root: Path = _LIVE) -> HostFacts:
    """Read the facts of this host, or of a recorded tree of ``proc`` and ``sys`` under ``root``.

    Raises
    ------
    NotLinuxError
        If there is no ``/proc`` to read.
    """
    if not (root / "proc/meminfo").exists():
        raise NotLinuxError(
            "The facts of this host were asked for, but there is no /proc/meminfo. "
            "Run this on Linux, with /proc mounted."
        )
    live = root == _LIVE
    thp = root / THP
    status = _fields(root / "proc/self/status")
    base, pmd = _page_sizes(root)
    return HostFacts(
        kernel=_known(public.kernel_release, _text(root / "proc/sys/kernel/osrelease")),
        architecture=_known(
            public.architecture,
            _text(root / "proc/sys/kernel/arch") or (platform.machine() if live else None),
        ),
        thp_built_in=thp.exists() or "AnonHugePages" in _fields(root / "proc/meminfo"),
        thp_mode=choice(thp / "enabled"),
        thp_allowed_for_process={"0": False, "1": True}.get(status.get("THP_enabled", "")),
        defrag=choice(thp / "defrag"),
        khugepaged=_khugepaged(thp / "khugepaged"),
        shmem_enabled=choice(thp / "shmem_enabled"),
        use_zero_page=_switch(thp / "use_zero_page"),
        shrink_underused=_switch(thp / "shrink_underused"),
        base_kib=base,
        pmd_kib=pmd,
        sizes=mthp_sizes(root),
        unknown_settings=tuple(
            sorted(each.name for each in _files(thp) if each.name not in _KNOWN and each.is_file())
        ),
        max_map_count=_number(root / "proc/sys/vm/max_map_count"),
        overcommit_memory=_number(root / "proc/sys/vm/overcommit_memory"),
        memory=_memory(root),
        cpu=_cpu(root, status),
        virtualisation=_virtualisation(root),
        container=_container(root),
        glibc=_glibc() if live else None,
        python=public.version(platform.python_version()) if live else None,
    )


def effective_sizes(facts: HostFacts, *, advised: bool) -> tuple[int, ...]:
    """Return the huge page sizes that a fault in private anonymous memory may be answered with.

    They are what the settings permit (``thp_vma_allowable_orders()``); a fault gets the largest
    that fits into the mapping and that the kernel has a free page of.

    Parameters
    ----------
    facts
        The host.
    advised
        Whether the memory was advised with ``MADV_HUGEPAGE``.

    Returns
    -------
    tuple of int
        Sizes in KiB, largest first.
    """
    permitting = ("always", "madvise") if advised else ("always",)
    if facts.thp_mode is None or facts.thp_allowed_for_process is False:
        return ()
    if not facts.sizes:
        inherited = facts.thp_mode in permitting and facts.pmd_kib is not None
        return (facts.pmd_kib,) if inherited and facts.pmd_kib else ()
    return tuple(
        size.kib
        for size in facts.sizes
        if (facts.thp_mode if size.enabled == "inherit" else size.enabled) in permitting
    )


def usable_memory_kib(root: Path = _LIVE) -> int:
    """Return the KiB that this process could still use without being killed or swapping.

    That is ``MemAvailable``, or what is left below a control group's limit if that is less. Page
    cache that the kernel can drop at once (``inactive_file``) counts as left, as Kubernetes does.
    """
    available = _kib(_fields(root / "proc/meminfo"), "MemAvailable") or 0
    return max(0, min([available, *(group.left // KIB for group in _limited_groups(root))]))


def group_room_kib(pid: Pid = "self", root: Path = _LIVE) -> int | None:
    """Return the KiB below the tightest limit of a process's control groups; None without one.

    Page cache that the kernel can drop at once counts as room.
    """
    return min((max(0, group.left // KIB) for group in _limited_groups(root, pid)), default=None)


def free_huge_pages(facts: HostFacts, root: Path = _LIVE) -> int | None:
    """Return how many pages of the PMD size are free now, in one piece (``/proc/buddyinfo``).

    The kernel can make more by moving pages, so 0 says that it would have to. None where this
    kernel does not tell.
    """
    if not (facts.base_kib and facts.pmd_kib and (text := _text(root / "proc/buddyinfo"))):
        return None
    order = (facts.pmd_kib // facts.base_kib).bit_length() - 1
    rows = [line.split()[4:] for line in text.splitlines()]  # "Node 0, zone Normal", then numbers
    return sum(
        int(count) << (each - order)
        for row in rows
        for each, count in enumerate(row)
        if each >= order
    )


def described(facts: HostFacts) -> list[tuple[str, str]]:
    """Return the facts that a reader compares hosts by, as pairs of name and value."""
    memory, cpu = facts.memory, facts.cpu
    rows = [
        ("Kernel", facts.kernel),
        ("Architecture", facts.architecture),
        ("Processor", cpu.model),
        ("Logical processors usable", cpu.usable),
        ("NUMA nodes", cpu.numa_nodes),
        ("TLB", cpu.tlb),
        ("Memory", _mib(memory.total_mib)),
        ("Memory available", _mib(memory.available_mib)),
        ("Memory limit (control group)", _mib(memory.cgroup_limit_mib) or "none"),
        ("THP mode", facts.thp_mode or ("not told" if facts.thp_built_in else "not built in")),
        ("THP in this process", "forbidden" if facts.thp_allowed_for_process is False else None),
        ("Huge page sizes, memory as it is", _size_list(effective_sizes(facts, advised=False))),
        ("Huge page sizes, advised memory", _size_list(effective_sizes(facts, advised=True))),
        ("Base page", facts.base_kib and format_kib(facts.base_kib)),
        ("PMD size", facts.pmd_kib and format_kib(facts.pmd_kib)),
        ("Defrag", facts.defrag),
        ("Shared memory (shmem_enabled)", facts.shmem_enabled),
        ("Settings unknown to this package", ", ".join(facts.unknown_settings)),
        ("vm.max_map_count", facts.max_map_count),
        ("Virtualisation", facts.virtualisation),
        ("Container", facts.container or "none seen"),
        ("glibc", facts.glibc),
        ("Python", facts.python),
    ]
    return [(name, str(value)) for name, value in rows if value not in (None, "")]


def _mib(value: int | None) -> str | None:
    return None if value is None else format_kib(value * KIB)


def _size_list(sizes: tuple[int, ...]) -> str:
    return ", ".join(map(format_kib, sizes)) or "none"


# Files --------------------------------------------------------------------------------------------


def _text(path: Path) -> str | None:
    """Return the stripped text of a file; None where there is none, or it may not be read."""
    try:
        return path.read_text(errors="replace").strip()
    except OSError:
        return None


def _known(publishable: Callable[[str], str], text: str | None) -> str | None:
    """Return what may be published of a text; None where there is none."""
    return publishable(text) if text else None


def _number(path: Path) -> int | None:
    text = _text(path)
    return int(text) if text and text.isascii() and text.isdecimal() else None


def _switch(path: Path) -> bool | None:
    number = _number(path)
    return None if number is None else bool(number)


def choice(path: Path) -> str | None:
    """Return the word in force of ``always [madvise] never``; None where none can be read."""
    match = re.search(r"\[([a-z+_]+)\]", _text(path) or "")
    return match[1] if match else None


def _fields(path: Path) -> dict[str, str]:
    """Return the lines ``name: value`` of a file; of repeated names the first."""
    fields: dict[str, str] = {}
    for line in (_text(path) or "").splitlines():
        name, colon, value = line.partition(":")
        if colon:
            fields.setdefault(name.strip(), value.strip())
    return fields


def _kib(fields: dict[str, str], name: str) -> int | None:
    number, _, unit = fields.get(name, "").partition(" ")
    return int(number) if number.isdecimal() and unit == "kB" else None


def _files(folder: Path) -> list[Path]:
    try:
        return sorted(folder.iterdir())
    except OSError:
        return []


# Huge page settings -------------------------------------------------------------------------------


def _page_sizes(root: Path) -> tuple[int | None, int | None]:
    """Return the sizes of a base page and of what a PMD entry maps, in KiB.

    A page table is one base page of 8-byte entries, so each size follows from the other.
    """
    base = os.sysconf("SC_PAGE_SIZE") if root == _LIVE else None
    pmd = _number(root / THP / "hpage_pmd_size")
    if pmd and not base:
        base = math.isqrt(8 * pmd)
    if not base:
        recorded = _kib(_fields(root / "proc/self/smaps"), "KernelPageSize")
        base = recorded and recorded * KIB
    pmd = pmd or (base and base * base // 8)
    return base and base // KIB, pmd and pmd // KIB


def mthp_sizes(root: Path = _LIVE) -> tuple[MthpSize, ...]:
    """Return the settings and counters of each huge page size, largest first."""
    folders = {
        int(match[1]): folder
        for folder in _files(root / THP)
        if (match := re.fullmatch(r"hugepages-(\d+)kB", folder.name))
    }
    return tuple(
        MthpSize(
            kib,
            choice(folder / "enabled"),
            choice(folder / "shmem_enabled"),
            tuple(
                Stat(file.name, count)
                for file in _files(folder / "stats")
                if (count := _number(file)) is not None
            ),
        )
        for kib, folder in sorted(folders.items(), reverse=True)
    )


def _khugepaged(folder: Path) -> Khugepaged | None:
    if not folder.exists():
        return None
    return Khugepaged(
        defrag=_switch(folder / "defrag"),
        pages_to_scan=_number(folder / "pages_to_scan"),
        scan_sleep_millisecs=_number(folder / "scan_sleep_millisecs"),
        alloc_sleep_millisecs=_number(folder / "alloc_sleep_millisecs"),
        max_ptes_none=_number(folder / "max_ptes_none"),
        max_ptes_swap=_number(folder / "max_ptes_swap"),
        max_ptes_shared=_number(folder / "max_ptes_shared"),
    )


# Memory and its limits ----------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Group:
    """A control group with a memory limit; sizes in bytes."""

    version: int
    limit: int
    left: int


def _memory(root: Path) -> Memory:
    fields = _fields(root / "proc/meminfo")
    total, available = _kib(fields, "MemTotal"), _kib(fields, "MemAvailable")
    group = min(_limited_groups(root), key=lambda each: each.limit, default=None)
    return Memory(
        total_mib=total and total // KIB,
        available_mib=available and available // KIB,
        cgroup_version=group.version if group else None,
        cgroup_limit_mib=group.limit // KIB**2 if group else None,
    )


def _limited_groups(root: Path, pid: Pid = "self") -> list[_Group]:
    """Return the groups that limit a process: its own, and those above it."""
    total = (_kib(_fields(root / "proc/meminfo"), "MemTotal") or 0) * KIB
    groups = []
    for version, folder in memory_groups(root, pid):
        names = _GROUP_FILES[version]
        limit = _number(folder / names[0])
        if limit is None or limit >= total:  # "max", or version 1's way of saying so
            continue
        stat = re.search(rf"^{names[2]} (\d+)$", _text(folder / "memory.stat") or "", re.MULTILINE)
        used = (_number(folder / names[1]) or 0) - (int(stat[1]) if stat else 0)
        groups.append(_Group(version, limit, limit - max(0, used)))
    return groups


_GROUP_FILES: Final = {
    1: ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
    2: ("memory.max", "memory.current", "inactive_file"),
}


def memory_groups(root: Path, pid: Pid) -> Iterator[tuple[int, Path]]:
    """Yield version and folder of each memory group of a process, innermost first.

    They are looked for where groups are mounted by convention, and need not exist.

    A container that sees the host's group name, but has its own group mounted as the topmost, has
    no folder of that name; the topmost is then the one that counts.
    """
    mounts = root / "sys/fs/cgroup"
    for line in (_text(root / "proc" / str(pid) / "cgroup") or "").splitlines():
        number, controllers, name = [*line.split(":", 2), "", ""][:3]
        if number == "0" and not controllers:
            version, mount = 2, mounts
        elif "memory" in controllers.split(","):
            version, mount = 1, mounts / "memory"
        else:
            continue
        group = PurePosixPath(name.removeprefix("/"))
        for each in (group, *group.parents):
            if ".." not in each.parts:
                yield version, mount / each


# Processor and surroundings -----------------------------------------------------------------------


def _cpu(root: Path, status: dict[str, str]) -> Cpu:
    info = _fields(root / "proc/cpuinfo")
    model = info.get("model name")
    if not model and "CPU part" in info:
        model = f"Arm, implementer {info.get('CPU implementer')}, part {info['CPU part']}"
    nodes = [
        each
        for each in _files(root / "sys/devices/system/node")
        if re.fullmatch(r"node\d+", each.name)
    ]
    allowed = status.get("Cpus_allowed_list", "")
    return Cpu(
        model=_known(public.processor, model),
        usable=sum(map(_range_length, allowed.split(","))) if allowed else None,
        numa_nodes=len(nodes) or None,
        tlb=_known(public.tlb, info.get("TLB size")),
    )


def _range_length(text: str) -> int:
    """Return how many processors ``0-3`` or ``7`` names."""
    first, _, last = text.partition("-")
    return int(last or first) - int(first) + 1


_VENDORS: Final = {
    "Amazon EC2": "KVM (Amazon EC2)",
    "Google": "KVM (Google Compute Engine)",
    "Microsoft Corporation": "Hyper-V",
    "QEMU": "QEMU",
    "VMware, Inc.": "VMware",
    "Xen": "Xen",
    "innotek GmbH": "VirtualBox",
}
_CLOCKS: Final = {"kvm-clock": "KVM", "hyperv": "Hyper-V", "xen": "Xen"}


_NO_HYPERVISOR: Final = "none seen"
_SOME_HYPERVISOR: Final = "a hypervisor without a name"
HYPERVISORS: Final = (*_VENDORS.values(), *_CLOCKS.values(), _SOME_HYPERVISOR, _NO_HYPERVISOR)
"""What :attr:`HostFacts.virtualisation` can say."""
CONTAINERS: Final = ("docker", "podman", "kubernetes", "lxc", "unknown")
"""What :attr:`HostFacts.container` can say where a container is seen."""


def _virtualisation(root: Path) -> str:
    """Name the hypervisor by the maker of the virtual machine, or by the clock it offers."""
    info = _fields(root / "proc/cpuinfo")
    guest = "hypervisor" in info.get("flags", "").split()
    vendor = _VENDORS.get(_text(root / "sys/class/dmi/id/sys_vendor") or "")
    if vendor and (guest or "flags" not in info):
        return vendor
    clocks = _text(root / "sys/devices/system/clocksource/clocksource0/available_clocksource")
    for clock, name in _CLOCKS.items():
        if clock in (clocks or ""):
            return name
    return _SOME_HYPERVISOR if guest else _NO_HYPERVISOR


def _container(root: Path) -> str | None:
    """Name the kind of container by the marks that it leaves.

    A disk as the root directory means a machine of its own, although its image may have been made
    from a container's and carry such marks.
    """
    mounts = _text(root / "proc/self/mountinfo") or ""
    if re.search(r"^\d+ \d+ \S+ / / .* - \S+ /dev/", mounts, re.MULTILINE):
        return None
    groups = _text(root / "proc/self/cgroup") or ""
    for name, seen in (
        ("kubernetes", "kubepods" in groups),
        ("kubernetes", (root / "var/run/secrets/kubernetes.io").exists()),
        ("docker", (root / ".dockerenv").exists() or "/docker" in groups),
        ("podman", (root / "run/.containerenv").exists() or "libpod" in groups),
        ("lxc", (root / "dev/lxd").exists() or "/lxc" in groups),
        ("unknown", re.search(r"^\d+ \d+ \S+ \S+ / .* - overlay ", mounts, re.MULTILINE)),
    ):
        if seen:
            return name
    return None


def _glibc() -> str | None:
    """Return the version of glibc that this process runs on."""
    try:
        version = os.confstr("CS_GNU_LIBC_VERSION")
    except (ValueError, OSError):
        return None
    return public.version(version.removeprefix("glibc ")) if version else None
