"""Shared memory, live with several processes: exact counts where this host can show them."""

from __future__ import annotations

import io
import os
import tempfile
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING

import numpy as np
import psutil
import pytest

from hugeprobe import areas, host
from hugeprobe.errors import NotObservable
from hugeprobe.figures import sharing as figures
from hugeprobe.host import host_facts
from hugeprobe.linux import Advice
from hugeprobe.sharing import handover, kinds, pagecache, pair, weights
from hugeprobe.sharing.handover import Copies, Passed
from hugeprobe.sharing.kinds import Sharing
from hugeprobe.sharing.server import Served
from hugeprobe.sharing.toucher import Request
from hugeprobe.sharing.weights import Fleet, Server
from hugeprobe.sizes import KIB, page_sizes
from hugeprobe.workloads import bert

if TYPE_CHECKING:
    from hugeprobe.sharing.pair import Shared

SIZES = page_sizes()
FACTS = host_facts()
MISSING = NotObservable("it is not installed")
KINDS = {kind.name: kind for kind in (*kinds.SHARED, *kinds.FILES)}
THP_GIVEN = FACTS.thp_built_in and FACTS.thp_allowed_for_process is not False
ONLY_BASE_PAGES = FACTS.shmem_enabled == "never" and {
    size.shmem_enabled for size in FACTS.sizes
} <= {None, "never", "inherit"}


@pytest.fixture(scope="module")
def found() -> dict[str, Shared | NotObservable]:
    return pair.share_all(KINDS.values())


def shared(found: dict[str, Shared | NotObservable], name: str) -> Shared:
    result = found[name]
    if isinstance(result, NotObservable):
        pytest.skip(str(result))
    return result


def one_kind(kind: Sharing) -> str:
    return str(pair.share(kind))


@pytest.mark.parametrize("name", KINDS)
def test_both_have_all_of_it_and_each_is_charged_half(
    found: dict[str, Shared | NotObservable], name: str
) -> None:
    result = shared(found, name)
    for view in (result.alone, result.first, result.second):
        held = (view.mapping.rss_kib or 0) + view.hugetlb_kib
        assert held * KIB == view.mapping.end - view.mapping.start
    assert result.alone.mapping.pss_kib == result.alone.mapping.rss_kib
    for view in (result.first, result.second):
        assert view.mapping.pss_kib == (view.mapping.rss_kib or 0) // 2


@pytest.mark.parametrize("name", ["anonymous, MAP_SHARED", "memfd", "memfd, advised"])
def test_shared_memory_follows_its_own_switch(
    found: dict[str, Shared | NotObservable], name: str
) -> None:
    """With ``shmem_enabled`` at ``never``, advice changes nothing: one fault a page written."""
    if not ONLY_BASE_PAGES:
        pytest.skip("this host gives larger pages to shared memory")
    result = shared(found, name)
    pages = (result.first.mapping.rss_kib or 0) * KIB // SIZES.base
    assert result.first.minor_faults == pages
    assert result.second.minor_faults < pages
    assert result.second.mapping.huge_kib == 0


def test_a_collapse_needs_no_setting_but_a_boundary_in_each_process(
    found: dict[str, Shared | NotObservable],
) -> None:
    on = shared(found, "memfd, collapsed")
    off = shared(found, "memfd, collapsed, off boundary")
    length = on.first.mapping.end - on.first.mapping.start
    for view in (on.first, on.second, off.first):
        assert (view.mapping.shmem_pmd_kib or 0) * KIB == length
    assert on.second.minor_faults == length // SIZES.pmd
    assert off.second.mapping.start % SIZES.pmd == SIZES.base
    assert off.second.mapping.huge_kib == 0


def test_a_collapse_off_a_boundary_is_refused() -> None:
    if isinstance(pair.share(KINDS["memfd, collapsed"]), NotObservable):
        pytest.skip("this host refuses every collapse of shared memory")
    with kinds.memfd(2 * SIZES.pmd) as descriptor:
        request = Request(
            descriptor,
            2 * SIZES.pmd,
            SIZES.base,
            SIZES.pmd,
            SIZES.base,
            write=True,
            after=Advice.COLLAPSE,
        )
        with pair._touching(request) as steps:
            assert next(steps).refusal == "Invalid argument"


@pytest.mark.parametrize("name", ["tmpfs huge=always", "tmpfs huge=within_size"])
def test_a_tmpfs_of_ones_own_is_huge_at_the_first_touch(
    found: dict[str, Shared | NotObservable], name: str
) -> None:
    if not THP_GIVEN or FACTS.shmem_enabled == "deny":
        pytest.skip("this host gives no huge pages")
    result = shared(found, name)
    pmds = (result.first.mapping.rss_kib or 0) * KIB // SIZES.pmd
    assert (result.first.minor_faults, result.second.minor_faults) == (pmds, pmds)
    assert result.second.base_kib == 0
    assert result.aligned == result.placed


def test_a_tmpfs_with_advise_waits_for_advice(
    found: dict[str, Shared | NotObservable],
) -> None:
    if not THP_GIVEN or FACTS.shmem_enabled in {"deny", "force"}:
        pytest.skip("this host gives no huge pages, or gives them to all")
    assert shared(found, "tmpfs huge=advise").second.mapping.huge_kib == 0
    assert shared(found, "tmpfs huge=advise, advised").second.base_kib == 0


def test_who_brings_a_file_in_decides_for_all(
    found: dict[str, Shared | NotObservable],
) -> None:
    plain, advised = (shared(found, f"from the disk{each}") for each in ("", ", advised"))
    if not (plain.first.major_faults and advised.first.major_faults):
        pytest.skip("the file did not leave memory")
    for result in (plain, advised):
        assert result.second.mapping.huge_kib == result.first.mapping.huge_kib
        assert result.second.major_faults == 0
    assert advised.second.mapping.huge_kib >= plain.second.mapping.huge_kib


def test_nothing_is_left_behind() -> None:
    def traces() -> tuple[set[str], ...]:
        folders = (Path(tempfile.gettempdir()), kinds.POSIX_SHARED)
        ours = {str(path) for folder in folders for path in folder.glob("hugeprobe-*")}
        mounts = {mount.mountpoint for mount in psutil.disk_partitions(all=True)}
        return ours, mounts, {path.name for path in Path("/proc/self/fd").iterdir()}

    pair.share(KINDS["memfd"])  # what is loaded once is loaded now
    before = traces()
    for name in ("tmpfs huge=always", "file in /dev/shm", "from the disk", "memfd from hugetlbfs"):
        pair.share(KINDS[name])
    assert traces()[1:] == before[1:]
    assert traces()[0] <= before[0]


def test_what_the_host_refuses_is_a_sentence(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(os, "posix_fallocate", full)
        assert "vm.nr_hugepages" in one_kind(KINDS["memfd from hugetlbfs"])
    with monkeypatch.context() as patched:
        patched.setattr(os, "fstatvfs", lambda _: SimpleNamespace(f_bavail=256, f_frsize=4096))
        assert "has room for 1 MiB" in one_kind(KINDS["file in /dev/shm"])
    with monkeypatch.context() as patched:
        patched.setattr(kinds, "POSIX_SHARED", tmp_path / "missing")
        text = one_kind(Sharing("none", kinds.posix))
        assert text == (
            "Not observable here, because the kernel refused it (No such file or directory)."
        )
    with monkeypatch.context() as patched:
        patched.setenv("PATH", str(tmp_path))
        assert "unshare" in one_kind(KINDS["tmpfs huge=always"])
    with monkeypatch.context() as patched:
        patched.setattr(pagecache, "file_system", lambda _: pagecache.FileSystem("tmpfs", ()))
        assert "on a disk" in one_kind(KINDS["from the disk"])
    with monkeypatch.context() as patched:
        patched.setattr(areas, "usable_memory_kib", lambda: 100)
        assert "at most half" in one_kind(KINDS["memfd"])


def test_a_refused_mount_names_no_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    fake = tmp_path / "unshare"
    fake.write_text('#!/bin/sh\necho "mount: $HOME/secret/place: permission denied." >&2; exit 1\n')
    fake.chmod(0o755)
    monkeypatch.setenv("HOME", "/home/someone")
    monkeypatch.setattr("shutil.which", lambda _: str(fake))
    text = one_kind(KINDS["tmpfs huge=always"])
    assert "permission denied" in text
    assert "someone" not in text


@pytest.fixture
def mounts(monkeypatch: pytest.MonkeyPatch) -> None:
    def mount(point: str, kind: str, options: str = "rw") -> SimpleNamespace:
        return SimpleNamespace(mountpoint=point, fstype=kind, opts=options)

    table = [
        mount("/", "ext4"),
        mount("/data", "ext4"),
        mount("/data", "tmpfs", "rw,size=64k,huge=within_size"),
        mount("/data/models", "xfs"),
    ]
    monkeypatch.setattr(psutil, "disk_partitions", lambda **_: table)


@pytest.mark.usefixtures("mounts")
def test_the_nearest_mount_counts_and_the_last_of_several() -> None:
    tmpfs, disk = map(pagecache.file_system, (Path("/data/x"), Path("/database")))
    assert tmpfs is not None
    assert disk is not None
    assert (tmpfs.kind, tmpfs.huge) == ("tmpfs", "within_size")
    assert (disk.kind, disk.huge) == ("ext4", "never")


def test_a_file_brought_in_is_whole(tmp_path: Path) -> None:
    file = tmp_path / "weights.bin"
    content = os.urandom(3 * SIZES.base + 1)
    file.write_bytes(content)
    pagecache.bring_in(file)
    pagecache.bring_in(file, huge=False)
    assert file.read_bytes() == content


# Tensors ------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("models")


@pytest.fixture(scope="module")
def passed(cache: Path) -> dict[str, Passed | NotObservable]:
    results = handover.pass_all(cache=cache)
    return {way.name: result for way, result in zip(handover.PASSINGS, results, strict=True)}


@pytest.mark.parametrize("runtime", ["OpenVINO", "ONNX Runtime"])
def test_shared_memory_moves_nothing_and_gives_the_same(
    passed: dict[str, Passed | NotObservable], runtime: str
) -> None:
    pipes, shared_ = passed[f"{runtime}, pipes"], passed[f"{runtime}, shared memory"]
    if isinstance(pipes, NotObservable) or isinstance(shared_, NotObservable):
        pytest.skip(str(pipes))
    assert shared_.agrees(pipes)
    assert not replace(shared_, output=shared_.output + 1).agrees(pipes)
    assert shared_.served.in_place == shared_.served.bound > 0
    if not isinstance(pipes.moved_bytes, NotObservable):
        assert (pipes.moved_bytes, shared_.moved_bytes) == (pipes.tensor_bytes, 0)


@pytest.mark.parametrize(
    "name", ["OpenVINO, shared memory, static shapes", "ONNX Runtime, shared memory"]
)
def test_no_copy_is_found_where_pipes_leave_some(
    passed: dict[str, Passed | NotObservable], name: str
) -> None:
    in_place, pipes = passed[name], passed[f"{name.partition(',')[0]}, pipes"]
    if isinstance(in_place, NotObservable) or isinstance(pipes, NotObservable):
        pytest.skip(str(in_place))
    if isinstance(in_place.copies, NotObservable) or isinstance(pipes.copies, NotObservable):
        pytest.skip(str(in_place.copies))
    assert in_place.copies == Copies(0, 0)
    assert pipes.copies.inputs > 0
    assert pipes.copies.outputs > 0


def test_a_copy_is_found_across_the_pieces_that_are_read(
    monkeypatch: pytest.MonkeyPatch, found: dict[str, Shared | NotObservable]
) -> None:
    monkeypatch.setattr(handover, "_CHUNK", 8)
    mapping = shared(found, "memfd").first.mapping._replace(start=4, end=40)
    memory = io.BytesIO(
        b"sought.." + b"." * 2 + b"sought" + b"." * 10 + b"soughtsought" + b"sought"
    )
    places = handover._places(memory, mapping, b"sought")  # type: ignore[arg-type]
    assert places == memory.getvalue()[4:40].count(b"sought") == 3


def test_a_missing_runtime_is_a_sentence(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    text = str(handover.pass_tensors(handover.PASSINGS[0], cache=cache))
    assert "pip install openvino" in text
    assert "pip install openvino" in str(weights.serve(weights.SUPPLIES[0], cache=cache))


# Weights ------------------------------------------------------------------------------------------


def test_mapped_weights_are_charged_once(cache: Path) -> None:
    fleets = weights.serve_all(workload=bert.TINY, servers=2, cache=cache)
    for fleet in fleets:
        if isinstance(fleet, NotObservable):
            pytest.skip(str(fleet))
        assert list(map(len, fleet.stages)) == [1, 2]
        (alone,), both = fleet.stages
        if not fleet.supply.runtime.mmap:
            assert [server.weights_vmas for server in (alone, *both)] == [0, 0, 0]
            continue
        assert alone.weights_pss_kib == alone.weights_kib > 0
        for server in both:
            assert server.weights_pss_kib < server.weights_kib


def test_several_servers_need_memory_for_several(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(host, "usable_memory_kib", lambda: 2 * bert.TINY.memory_kib)
    monkeypatch.setattr("hugeprobe.inference.missing", lambda _: None)
    text = str(weights.serve(weights.SUPPLIES[0], bert.TINY, servers=3, cache=cache))
    assert "bert-tiny may need 1536 MiB" in text


def server(pss: int, weights_pss: int) -> Server:
    return Server(100, pss, 40, 50, weights_pss, 0, 1)


MAPPED = Fleet(
    weights.SUPPLIES[1], 60, (9, 8), ((server(100, 50),), (server(75, 25), server(75, 25)))
)
READ = replace(MAPPED, supply=weights.SUPPLIES[0], stages=((server(90, 0),), (server(90, 0),) * 2))


def test_a_mapped_file_counts_once_and_whole() -> None:
    assert MAPPED.total_kib == (110, 160)
    assert MAPPED.further_kib == 50
    assert READ.total_kib == (90, 180)


# Figures ------------------------------------------------------------------------------------------


def test_what_is_missing_is_a_sentence_in_every_figure() -> None:
    nothing = {"memfd": MISSING}
    assert str(MISSING) in str(figures.refused(nothing))
    assert str(MISSING) in str(figures.second_picture(nothing))
    assert "| memfd" in str(figures.faults_table(nothing))
    assert "| memfd" in str(figures.fields_table(nothing))
    for passing in (figures.passing_table, figures.passing_sentence):
        assert str(passing([MISSING, MISSING])) == str(MISSING)
    for serving in (figures.servers_picture, figures.servers_table, figures.servers_sentence):
        assert str(serving([MISSING])) == str(MISSING)


def test_what_only_a_part_of_could_be_observed_is_said() -> None:
    output = np.zeros((1, 2), np.float32)
    hidden = Passed(handover.PASSINGS[1], 2048, MISSING, MISSING, Served(7, 3, 3), output)
    assert "2 KiB" in str(figures.passing_sentence([hidden]))
    assert str(figures.passing_sentence([hidden])).endswith(str(MISSING))
    cells = str(figures.passing_table([hidden])).splitlines()[2].split("|")
    assert [cell.strip() for cell in cells[2:-1]] == ["-", "-", "-", "3 of 3", "7"]


def test_the_cost_of_a_further_server_is_said_for_each_supply() -> None:
    text = str(figures.servers_sentence([READ, MAPPED, MISSING]))
    assert "0 MiB (read), 0 MiB (mapped, from the disk)" in text
    assert str(MISSING) in text


@pytest.mark.usefixtures("mounts")
def test_settings_name_both_switches(monkeypatch: pytest.MonkeyPatch) -> None:
    facts = replace(FACTS, shmem_enabled="advise")
    assert "no tmpfs" in str(figures.settings_sentence(facts))
    monkeypatch.setattr(kinds, "POSIX_SHARED", Path("/data"))
    text = str(figures.settings_sentence(facts))
    assert text == (
        "On this host `shmem_enabled` is `advise`, and `/dev/shm` is mounted with "
        "`huge=within_size`."
    )
