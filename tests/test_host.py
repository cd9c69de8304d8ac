"""Host facts on trees of several kernels, and on this host."""

from __future__ import annotations

import dataclasses
import getpass
import json
import socket
import sys
from typing import TYPE_CHECKING

import pytest

from hugeprobe.errors import NotLinuxError
from hugeprobe.host import (
    HostFacts,
    Stat,
    described,
    effective_sizes,
    host_facts,
    usable_memory_kib,
)

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    Tree = Callable[[str], Path]

TREES = [
    "linux-6.1-debian",
    "linux-6.12-aarch64-64k",
    "linux-6.12-container",
    "linux-6.18-vm",
    "linux-6.6-no-thp",
    "linux-6.8-ubuntu",
]
THP = "sys/kernel/mm/transparent_hugepage"

linux = pytest.mark.skipif(sys.platform != "linux", reason="there is no host to look at")


@pytest.mark.parametrize(
    ("name", "mode", "as_it_is", "advised"),
    [
        ("linux-6.1-debian", "always", (2048,), (2048,)),
        ("linux-6.12-aarch64-64k", "always", (524288,), (524288,)),
        ("linux-6.12-container", "never", (), ()),
        ("linux-6.18-vm", "madvise", (), (2048,)),
        ("linux-6.6-no-thp", None, (), ()),
        ("linux-6.8-ubuntu", "madvise", (64,), (2048, 64, 32)),
    ],
)
def test_mode_and_the_sizes_it_amounts_to(
    tree: Tree, name: str, mode: str | None, as_it_is: tuple[int, ...], advised: tuple[int, ...]
) -> None:
    facts = host_facts(tree(name))
    assert facts.thp_mode == mode
    assert facts.thp_built_in == (name != "linux-6.6-no-thp")
    assert effective_sizes(facts, advised=False) == as_it_is
    assert effective_sizes(facts, advised=True) == advised


def test_a_size_may_be_on_while_the_mode_is_never(tree: Tree) -> None:
    root = tree("linux-6.12-container")
    (root / THP / "hugepages-64kB/enabled").write_text("[always] inherit madvise never")
    assert effective_sizes(host_facts(root), advised=False) == (64,)


def test_a_process_that_is_forbidden_huge_pages_gets_none(tree: Tree) -> None:
    root = tree("linux-6.1-debian")
    (root / "proc/self/status").write_text("THP_enabled:\t0\n")
    facts = host_facts(root)
    assert facts.thp_allowed_for_process is False
    assert effective_sizes(facts, advised=True) == ()
    assert ("THP in this process", "forbidden") in described(facts)


@pytest.mark.parametrize(
    ("name", "base", "pmd"),
    [
        ("linux-6.1-debian", 4, 2048),
        ("linux-6.12-aarch64-64k", 64, 512 * 1024),
        ("linux-6.6-no-thp", 4, 2048),
    ],
)
def test_page_sizes(tree: Tree, name: str, base: int, pmd: int) -> None:
    facts = host_facts(tree(name))
    assert (facts.base_kib, facts.pmd_kib) == (base, pmd)


def test_settings(tree: Tree) -> None:
    facts = host_facts(tree("linux-6.18-vm"))
    assert facts.kernel == "6.18.44"
    assert facts.architecture == "x86_64"
    assert facts.defrag == "madvise"
    assert facts.shmem_enabled == "never"
    assert facts.use_zero_page is True
    assert facts.shrink_underused is True
    assert facts.khugepaged is not None
    assert facts.khugepaged.max_ptes_none == 511
    assert facts.khugepaged.alloc_sleep_millisecs == 60_000
    assert facts.max_map_count == 65_530
    assert facts.overcommit_memory == 0
    assert facts.unknown_settings == ("anon_beside_full",)


def test_sizes(tree: Tree) -> None:
    sizes = host_facts(tree("linux-6.18-vm")).sizes
    assert [size.kib for size in sizes] == [2048, 1024, 64, 8]
    assert (sizes[0].enabled, sizes[0].shmem_enabled) == ("inherit", "inherit")
    assert Stat("anon_fault_fallback", 0) in sizes[0].stats
    assert sizes[-1].enabled is None
    assert sizes[-1].shmem_enabled == "never"
    assert host_facts(tree("linux-6.1-debian")).sizes == ()


def test_processor(tree: Tree) -> None:
    cpu = host_facts(tree("linux-6.8-ubuntu")).cpu
    assert cpu.model == "Intel(R) Xeon(R) Gold 6338 CPU @ 2.00GHz"
    assert (cpu.usable, cpu.numa_nodes, cpu.tlb) == (8, 2, None)
    assert host_facts(tree("linux-6.18-vm")).cpu.tlb == "3584 4K pages"
    assert host_facts(tree("linux-6.12-container")).cpu.usable == 3
    arm = host_facts(tree("linux-6.12-aarch64-64k")).cpu
    assert arm.model == "Arm, implementer 0x41, part 0xd0c"


@pytest.mark.parametrize(
    ("name", "virtualisation", "container"),
    [
        ("linux-6.1-debian", "none seen", None),
        ("linux-6.12-container", "KVM (Amazon EC2)", "docker"),
        ("linux-6.18-vm", "KVM", None),
    ],
)
def test_surroundings(tree: Tree, name: str, virtualisation: str, container: str | None) -> None:
    facts = host_facts(tree(name))
    assert (facts.virtualisation, facts.container) == (virtualisation, container)


def test_a_disk_as_root_is_no_container_whatever_its_image_was_made_from(tree: Tree) -> None:
    root = tree("linux-6.18-vm")
    (root / ".dockerenv").touch()
    assert host_facts(root).container is None


@pytest.mark.parametrize(
    ("group", "file", "kind"),
    [
        ("0::/kubepods.slice/pod", None, "kubernetes"),
        ("0::/", "run/.containerenv", "podman"),
        ("0::/", "dev/lxd/sock", "lxc"),
        ("0::/", None, "unknown"),
    ],
)
def test_containers(tree: Tree, group: str, file: str | None, kind: str) -> None:
    root = tree("linux-6.12-container")
    (root / ".dockerenv").unlink()
    (root / "proc/self/cgroup").write_text(group)
    if file:
        (root / file).parent.mkdir(parents=True)
        (root / file).touch()
    assert host_facts(root).container == kind


# Memory -------------------------------------------------------------------------------------------


def test_memory_without_a_limit(tree: Tree) -> None:
    root = tree("linux-6.18-vm")
    memory = host_facts(root).memory
    assert memory.total_mib == 24_684_084 // 1024
    assert (memory.cgroup_version, memory.cgroup_limit_mib) == (None, None)
    assert usable_memory_kib(root) == memory_field(root, "MemAvailable")


def memory_field(root: Path, name: str) -> int:
    text = (root / "proc/meminfo").read_text()
    return int(text.partition(f"{name}:")[2].split()[0])


def test_the_limit_of_a_group_above_counts(tree: Tree) -> None:
    root = tree("linux-6.12-container")
    memory = host_facts(root).memory
    assert (memory.cgroup_version, memory.cgroup_limit_mib) == (2, 2048)
    # 2 GiB, less 1 GiB used, of which 256 MiB are page cache that can go at once
    assert usable_memory_kib(root) == (2048 - 1024 + 256) * 1024


def test_the_smallest_limit_counts(tree: Tree) -> None:
    root = tree("linux-6.12-container")
    inner = root / "sys/fs/cgroup/inner"
    (inner / "memory.max").write_text(str(512 * 2**20))
    (inner / "memory.current").write_text(str(600 * 2**20))
    assert host_facts(root).memory.cgroup_limit_mib == 512
    assert usable_memory_kib(root) == 0


def test_control_groups_of_version_1(tree: Tree) -> None:
    root = tree("linux-6.18-vm")
    (root / "proc/self/cgroup").write_text("5:cpu,cpuacct:/\n4:memory:/not/visible/here\n0::/\n")
    top = root / "sys/fs/cgroup/memory"
    (top / "memory.limit_in_bytes").write_text(str(2**30))
    (top / "memory.usage_in_bytes").write_text(str(2**29))
    (top / "memory.stat").write_text(f"inactive_file 1\ntotal_inactive_file {2**28}\n")
    memory = host_facts(root).memory
    assert (memory.cgroup_version, memory.cgroup_limit_mib) == (1, 1024)
    assert usable_memory_kib(root) == (1024 - 512 + 256) * 1024


def test_a_group_outside_of_what_is_mounted(tree: Tree) -> None:
    root = tree("linux-6.12-container")
    (root / "proc/self/cgroup").write_text("0::/../other")
    assert host_facts(root).memory.cgroup_limit_mib == 2048


# Robustness and privacy ---------------------------------------------------------------------------


@pytest.mark.parametrize("name", TREES)
def test_facts_are_json_and_rows(tree: Tree, name: str) -> None:
    facts = host_facts(tree(name))
    assert json.loads(json.dumps(dataclasses.asdict(facts)))["kernel"] == facts.kernel
    assert all(value and value != "None" for _, value in described(facts))


def test_not_linux(tmp_path: Path) -> None:
    with pytest.raises(NotLinuxError, match="/proc/meminfo"):
        host_facts(tmp_path)


def test_nothing_but_memory_can_be_read(tmp_path: Path) -> None:
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc/meminfo").write_text("MemTotal: much\nMemAvailable: 10 kB\n")
    facts = host_facts(tmp_path)
    assert facts.thp_mode is None
    assert effective_sizes(facts, advised=True) == ()
    assert facts.memory.total_mib is None
    assert usable_memory_kib(tmp_path) == 10
    assert dict(described(facts))["THP mode"] == "not built in"


def test_recorded_trees_tell_nothing_of_this_process(tree: Tree) -> None:
    facts = host_facts(tree("linux-6.1-debian"))
    assert (facts.glibc, facts.python) == (None, None)


def test_no_secret_gets_into_the_facts(tree: Tree) -> None:
    root = tree("linux-6.12-container")
    secret = "x-secret-x"
    for path in (
        "proc/sys/kernel/hostname",
        "proc/sys/kernel/domainname",
        "proc/version",
        "proc/cmdline",
        "proc/self/cmdline",
        "proc/self/environ",
        "proc/self/comm",
        "proc/net/arp",
        "etc/hostname",
        "etc/machine-id",
        "sys/class/dmi/id/sys_vendor",
        "sys/class/dmi/id/product_serial",
        f"sys/fs/cgroup/{secret}/memory.max",
    ):
        file = root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(secret)
    (root / "proc/self/cgroup").write_text(f"0::/docker/{secret}")
    (root / "proc/self/mountinfo").write_text(f"1 0 0:1 / /{secret} - overlay {secret} rw\n")
    with (root / "proc/self/status").open("a") as status:
        status.write(f"\nName:\t{secret}\nUid:\t{secret}\n")
    facts = host_facts(root)
    assert facts.container == "docker"
    for text in (repr(facts), json.dumps(dataclasses.asdict(facts)), repr(described(facts))):
        assert secret not in text


@linux
def test_this_host() -> None:
    facts = host_facts()
    assert facts.kernel
    assert facts.architecture
    assert facts.base_kib in (4, 16, 64)
    assert facts.pmd_kib == facts.base_kib**2 * 128
    assert facts.memory.total_mib
    assert facts.cpu.usable
    assert facts.python == ".".join(map(str, sys.version_info[:3]))
    assert facts.thp_mode in (None, "always", "madvise", "never")
    assert set(effective_sizes(facts, advised=False)) <= set(effective_sizes(facts, advised=True))
    assert 0 < usable_memory_kib() <= facts.memory.total_mib * 1024
    assert facts == dataclasses.replace(host_facts(), memory=facts.memory, sizes=facts.sizes)


@linux
def test_this_host_stays_private() -> None:
    text = json.dumps(dataclasses.asdict(host_facts()))
    for name in (socket.gethostname(), getpass.getuser(), sys.argv[0]):
        if len(name) > 4:
            assert name not in text


def test_facts_compare(tree: Tree) -> None:
    root = tree("linux-6.1-debian")
    facts: HostFacts = host_facts(root)
    assert facts == host_facts(root)
    assert hash(facts) == hash(host_facts(root))
