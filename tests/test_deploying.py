"""Settings to copy: what the pages give, what real kernels made of it, and what it costs."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import re
import shutil
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from snippets import ROOT, Block, all_blocks, commands

from hugeprobe import accounting, memorycost, permitted, profiles
from hugeprobe.areas import Resident
from hugeprobe.errors import MalformedError, NotObservable, NotPermittedError
from hugeprobe.figures import containers as container_figures
from hugeprobe.figures import deploying as figures
from hugeprobe.kernels import deployed, deployment, symbols
from hugeprobe.kernels.deployed import Request
from hugeprobe.kernels.machine import Machine
from hugeprobe.memorycost import Cost, Costs
from hugeprobe.sizes import KIB

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from hugeprobe.kernels.deployment import BootedGuest, DeploymentRecord
    from hugeprobe.kernels.images import Kernel

THP = "/sys/kernel/mm/transparent_hugepage"
NAMED = {block.name: block for block in all_blocks() if block.name.startswith("file-")}
MISSING = NotObservable("it is not there")


def block(name: str) -> Block:
    return NAMED[f"file-{name}"]


def tmpfiles() -> dict[str, str]:
    lines = [line.split() for line in block("tmpfiles").code.splitlines()]
    return {line[1]: line[-1] for line in lines if line[0] == "w"}


def recorded() -> DeploymentRecord:
    record = deployment.read()
    assert not isinstance(record, NotObservable), record
    return record


def guests(**wanted: object) -> list[BootedGuest]:
    return [
        guest
        for guest in recorded().guests
        if all(getattr(guest, name) == value for name, value in wanted.items())
    ]


# The pages and the record -------------------------------------------------------------------------


def test_what_was_tried_is_what_pages_give_to_copy() -> None:
    assert tuple(block("boot").code.split()) == deployment.PARAMETERS
    assert tmpfiles() == deployment.TMPFILES == recorded().tmpfiles
    lines = [line for line in block("fragment").code.splitlines() if not line.startswith("#")]
    assert lines == [f"CONFIG_{name}=y" for name in deployment.FRAGMENT]
    assert recorded().merged.fragment == deployment.FRAGMENT


def test_the_boot_loader_hands_over_what_was_tried() -> None:
    """GRUB reads its file with a shell, and later the line that it makes of it."""
    script = f'GRUB_CMDLINE_LINUX=quiet\n{block("grub").code}\nprintf %s "$GRUB_CMDLINE_LINUX"'
    done = subprocess.run(["sh", "-c", script], capture_output=True, text=True, check=True)
    assert tuple(done.stdout.split()) == ("quiet", *deployment.PARAMETERS)


def test_no_line_of_the_fragment_was_dropped() -> None:
    assert recorded().merged.dropped == ()


def test_every_line_of_the_fragment_is_a_symbol_of_every_recorded_kernel() -> None:
    record = symbols.read()
    assert not isinstance(record, NotObservable)
    for kernel in record.kernels:
        assert set(deployment.FRAGMENT) <= set(kernel.values), kernel.origin


def test_boot_parameters_do_what_the_page_says() -> None:
    booted = guests(parameters=deployment.PARAMETERS)
    assert len(booted) == 3
    for guest in booted:
        assert guest.booted["enabled"] == "madvise"
        if guest.release.startswith("6.1."):
            assert not any("hugepages" in name for name in guest.booted)
            continue
        assert guest.booted["hugepages-64kB/enabled"] == "always"
        assert guest.booted["hugepages-2048kB/enabled"] == "inherit"


def test_a_size_that_is_not_named_becomes_never() -> None:
    for guest in guests(parameters=deployment.INCOMPLETE):
        assert guest.booted.get("hugepages-2048kB/enabled", "never") == "never"


def test_temporary_files_do_what_the_page_says_on_old_kernels_too() -> None:
    plain = guests(parameters=(), nodes=1)
    assert {guest.booted["enabled"] for guest in plain} == {"always"}  # Debian's default
    for guest in plain:
        assert guest.created is not None
        assert guest.created["enabled"] == "madvise"
        assert guest.created.get("hugepages-64kB/enabled", "always") == "always"


def test_sizes_bring_and_cost_what_arithmetic_says() -> None:
    buffers = sum(deployed.BUFFERS) // KIB
    page = {"base pages": 4, "64 KiB": 64, "64 KiB to 1 MiB": 1024, "2 MiB": 2048}
    for guest in guests(parameters=deployment.PARAMETERS):
        for choice in guest.choices:
            assert choice.scattered_kib == deployed.PMDS * page[choice.name]
            if page[choice.name] <= 64:
                assert choice.minor_faults == buffers // page[choice.name]
        found = {choice.name: choice.minor_faults for choice in guest.choices}
        assert found["2 MiB"] == found["base pages"]  # buffers of 1.5 MiB hold no such page


def test_a_limit_makes_huge_pages_fewer_and_kills_nobody() -> None:
    for guest in guests(parameters=deployment.PARAMETERS):
        base, huge = guest.limited
        assert base.survived
        assert huge.survived
        assert (base.killed, huge.killed, base.declined) == (0, 0, 0)
        assert base.anon_kib == deployed.LIMITED_PMDS * 4
        assert 0 < huge.huge_kib == huge.stat_huge_kib <= deployed.LIMIT // KIB
        assert huge.declined == deployed.LIMITED_PMDS - huge.huge_kib // 2048
        assert {"anon_thp", "file_thp", "shmem_thp"} <= set(huge.names)


def test_advised_memory_stays_huge_on_another_node_unless_no_fault_may_wait() -> None:
    spilled = [each for guest in guests(nodes=2) for each in guest.spilled]
    assert len(spilled) == 6
    for each in spilled:
        assert each.anon_kib == each.length_kib
        assert each.node_kib["1"] > 0
        assert (each.huge_kib == each.anon_kib) is (each.defrag == "madvise")


def test_an_edited_record_is_refused(tmp_path: Path) -> None:
    edited = deployment.RECORD.read_text().replace('"declined":7', '"declined":0', 1)
    (tmp_path / "deployment.json").write_text(edited)
    with pytest.raises(MalformedError, match="changed after it was measured"):
        deployment.read(tmp_path / "deployment.json")


def test_a_missing_record_says_what_makes_it(tmp_path: Path) -> None:
    found = deployment.read(tmp_path / "deployment.json")
    assert isinstance(found, NotObservable)
    assert deployment.COMMAND in found.reason


# A real kernel ------------------------------------------------------------------------------------


def test_settings_are_changed_in_guests_only() -> None:
    with pytest.raises(NotPermittedError, match="outside one of its guests"):
        deployed.main([Request(costs=True).encode()])


def test_a_real_kernel_takes_the_parameters_of_the_page(bootable: tuple[Kernel, Path]) -> None:
    kernel, busybox = bootable
    machine = Machine(busybox, parameters=tuple(block("boot").code.split()))
    guest = asyncio.run(deployment.boot(machine, kernel, Request()))
    (before,) = guests(parameters=deployment.PARAMETERS, release=guest.release) or [guest]
    assert guest.booted == before.booted
    assert guest.booted["hugepages-64kB/enabled"] == "always"
    assert guest.booted["hugepages-2048kB/enabled"] == "inherit"
    assert guest.booted["hugepages-128kB/enabled"] == "never"


def test_systemd_sets_a_real_kernel_from_the_file_of_the_page(
    bootable: tuple[Kernel, Path],
) -> None:
    if shutil.which("systemd-tmpfiles") is None:
        pytest.skip("systemd-tmpfiles is not installed")
    kernel, busybox = bootable
    request = Request(tmpfiles=block("tmpfiles").code)
    guest = asyncio.run(deployment.boot(Machine(busybox), kernel, request))
    assert guest.created is not None
    for path, word in tmpfiles().items():
        assert guest.created[path.removeprefix(f"{THP}/")] == word


# Clusters and images ------------------------------------------------------------------------------


def daemons_script() -> str:
    manifest: dict[str, Any] = yaml.safe_load(block("daemonset").code)
    spec = manifest["spec"]["template"]["spec"]
    (container,) = spec["initContainers"]
    (mount,) = container["volumeMounts"]
    (volume,) = spec["volumes"]
    assert (mount["name"], mount["mountPath"]) == (volume["name"], "/thp")
    assert volume["hostPath"] == {"path": THP, "type": "Directory"}
    assert container["securityContext"] == {"privileged": True}
    assert (
        manifest["spec"]["selector"]["matchLabels"]
        == (manifest["spec"]["template"]["metadata"]["labels"])
    )
    shell, option, script = container["command"]
    assert (shell, option) == ("sh", "-ec")
    return str(script)


@pytest.mark.parametrize(
    ("kernel", "mode", "sets"),
    [
        ("linux-6.12-container", "always madvise [never]", {"enabled", "hugepages-64kB/enabled"}),
        ("linux-6.12-container", "always [madvise] never", {"hugepages-64kB/enabled"}),
        ("linux-6.12-container", "[always] madvise never", {"hugepages-64kB/enabled"}),
        ("linux-6.1-debian", "[always] madvise never", set()),
    ],
)
def test_the_script_for_nodes_sets_what_is_needed_only(
    kernel: str, mode: str, sets: set[str], tree: Callable[[str], Path]
) -> None:
    folder = tree(kernel) / THP[1:]
    (folder / "enabled").write_text(mode)
    files = {str(file.relative_to(folder)): file for file in folder.rglob("*") if file.is_file()}
    before = {name: file.read_text() for name, file in files.items()}
    script = daemons_script().replace("cd /thp", f"cd {folder}")
    done = subprocess.run(["sh", "-ec", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert mode in done.stdout, "what the node said before is in the log"
    assert {name for name, file in files.items() if file.read_text() != before[name]} == sets
    for name in sets:
        word = "madvise" if name == "enabled" else "always"
        assert files[name].read_text() == f"{word}\n"


def test_pods_and_images_carry_the_settings_of_keep() -> None:
    (name, wanted), *_ = profiles.KEEP.env.items()
    pod = yaml.safe_load(block("pod").code)
    (container,) = pod["spec"]["containers"]
    assert container["env"] == [{"name": name, "value": wanted}]
    assert f"ENV {name}={wanted}\n" in block("image").code
    assert f"Environment={name}={wanted}\n" in block("unit").code


def test_the_line_that_forbids_huge_pages_forbids_them_to_what_it_starts() -> None:
    """With Python in place of the server: bit 0 of PR_GET_THP_DISABLE (42)."""
    (found,) = (each for each in all_blocks() if "prctl(41" in each.code)
    line = commands(found.code).partition("\n")[2]
    asked = "import ctypes; print(ctypes.CDLL(None).prctl(42, 0, 0, 0, 0))"
    line = line.replace("python3", sys.executable).replace(
        "redis-server", f"{sys.executable} -c '{asked}'"
    )
    done = subprocess.run(["sh", "-c", line], capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == ("1\n", "")


# What it costs ------------------------------------------------------------------------------------


def test_base_pages_cost_what_is_written_and_a_fork_nothing_more() -> None:
    costs = memorycost.measure()
    if isinstance(costs, NotObservable):
        pytest.skip(str(costs))
    base, huge = costs.base, costs.huge
    pages = costs.length_kib // memorycost.STRIDE_KIB
    assert base.apart.anon_kib == pages * 4
    assert (base.apart.huge_kib, base.full.huge_kib, base.forked.huge_kib) == (0, 0, 0)
    assert base.full.anon_kib == huge.full.anon_kib == costs.length_kib
    assert base.forked.anon_kib == huge.forked.anon_kib == costs.length_kib
    # A huge page that is there at the first write was there whole.
    assert huge.apart.anon_kib >= huge.apart.huge_kib
    assert huge.forked.huge_kib <= huge.full.huge_kib
    if huge.full.huge_kib == costs.length_kib:
        assert huge.forked.huge_kib == 0


STAT_2 = "anon 40960\nanon_thp 20971520\nfile_thp 0\nthp_fault_alloc 3\n"
STAT_1 = "cache 1\nrss 40960\nrss_huge 6291456\ntotal_rss_huge 8388608\n"


@pytest.mark.parametrize(
    ("group", "folder", "stat", "books"),
    [
        ("0::/service", "sys/fs/cgroup/service", STAT_2, accounting.Books(2, 20480)),
        ("0::/not-here", "sys/fs/cgroup", STAT_2, accounting.Books(2, 20480)),
        ("4:memory:/service", "sys/fs/cgroup/memory/service", STAT_1, accounting.Books(1, 6144)),
    ],
)
def test_the_books_of_both_versions(
    group: str, folder: str, stat: str, books: accounting.Books, tmp_path: Path
) -> None:
    (tmp_path / "proc/self").mkdir(parents=True)
    (tmp_path / "proc/self/cgroup").write_text(f"{group}\n")
    (tmp_path / folder).mkdir(parents=True)
    (tmp_path / folder / "memory.stat").write_text(stat)
    assert accounting.books(root=tmp_path) == books


def test_a_group_that_keeps_no_books_is_a_sentence(tmp_path: Path) -> None:
    assert isinstance(accounting.books(root=tmp_path), NotObservable)


def test_the_group_of_this_process_is_charged_or_cannot_be_seen() -> None:
    charged = accounting.charge()
    if isinstance(charged, NotObservable):
        pytest.skip(str(charged))
    assert charged.before.version == charged.during.version


# What may be changed ------------------------------------------------------------------------------


def test_a_container_reads_what_the_host_reads_and_changes_nothing() -> None:
    contained = permitted.contained()
    if isinstance(contained, NotObservable):
        pytest.skip(str(contained))
    assert [each.value for each in contained] == [each.value for each in permitted.settings()]
    assert not any(each.changeable for each in contained)


def test_settings_of_a_recorded_kernel(tree: Callable[[str], Path]) -> None:
    found = {each.path: each for each in permitted.settings(tree("linux-6.1-debian"))}
    assert found[f"{THP}/enabled"].changeable  # a file of our own
    assert found[f"{THP}/hugepages-64kB/enabled"].value is None
    assert not found[f"{THP}/hugepages-64kB/enabled"].changeable


def test_without_unshare_it_is_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    assert "unshare" in str(permitted.contained())


# Figures ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "figure",
    [
        *(figures.choices, figures.sizes_table, figures.sizes_origin, figures.booted_table),
        *(figures.merged_sentence, figures.symbols_table, figures.symbols_origin),
        *(figures.cost_picture, figures.cost_sentence, container_figures.charge_sentence),
        *(container_figures.limited_table, container_figures.limited_origin),
        container_figures.spilled_table,
    ],
)
def test_what_is_missing_is_a_sentence(figure: Callable[[Any], Any]) -> None:
    assert "it is not there" in figure(MISSING).markdown


def test_settings_without_a_container_to_compare_with() -> None:
    table = container_figures.settings_table(permitted.settings(), MISSING)
    assert table.markdown.count("not observable here") == len(permitted.SETTINGS)
    assert str(MISSING) in container_figures.contained_sentence([], MISSING).markdown


def test_a_host_that_gives_no_huge_pages_says_so() -> None:
    none = Resident(32768, 0)
    cost = Cost(False, none, none, none)
    costs = Costs(32768, 2048, cost, dataclasses.replace(cost, huge=True))
    assert "got no huge page" in figures.cost_sentence(costs).markdown


def test_a_dropped_line_is_named() -> None:
    record = recorded()
    merged = dataclasses.replace(record.merged, dropped=("MEMCG",))
    sentence = figures.merged_sentence(dataclasses.replace(record, merged=merged)).markdown
    assert sentence.endswith("dropped: MEMCG.")


def test_symbols_are_read_from_a_configuration() -> None:
    config = '# CONFIG_NUMA is not set\nCONFIG_TMPFS=y\nCONFIG_OTHER="x"\nCONFIG_VIRTIO_BALLOON=m\n'
    assert symbols.values(config) == {"TMPFS": "y", "NUMA": "n", "VIRTIO_BALLOON": "m"}


def test_records_name_nothing_of_the_machine_that_made_them() -> None:
    text = deployment.RECORD.read_text() + symbols.RECORD.read_text()
    assert not re.search(r"/(?:home|root|tmp|work)/", text)
    assert json.loads(deployment.RECORD.read_text())["command"] == deployment.COMMAND
    assert (ROOT / "notebooks/records").samefile(deployment.RECORD.parent)
