"""Snapshots: what is read, what is summed, and that both parsers agree."""

from __future__ import annotations

import json
import mmap
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import psutil
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hugeprobe import smaps
from hugeprobe.errors import (
    BadRequestError,
    MalformedError,
    NotLinuxError,
    NotPermittedError,
    ProbeError,
    ProcessGoneError,
)
from hugeprobe.smaps import Kind, Snapshot, columns, lines
from hugeprobe.smaps.fields import FIELDS

if TYPE_CHECKING:
    from collections.abc import Iterator

TREES = Path(__file__).parent / "trees"
NEW = (TREES / "smaps-6.18.txt").read_bytes()
OLD = (TREES / "smaps-4.19.txt").read_bytes()

linux = pytest.mark.skipif(sys.platform != "linux", reason="there is no /proc to read")


def by_lines(text: bytes) -> Snapshot:
    return Snapshot("self", lines.by_lines(np.frombuffer(text, np.uint8)))


def by_columns(text: bytes) -> Snapshot:
    return Snapshot("self", columns.by_columns(np.frombuffer(text, np.uint8)))


# What a sample means ------------------------------------------------------------------------------


def test_every_field_of_a_mapping() -> None:
    mapping = smaps.parse(NEW)[2]
    assert mapping.as_dict() == {
        "start": 0x7F2C00000000,
        "end": 0x7F2C00600000,
        "permissions": "rw-p",
        "offset": 0,
        "device": "00:00",
        "inode": 0,
        "name": "",
        "kind": Kind.ANONYMOUS,
        "size_kib": 6144,
        "kernel_page_kib": 4,
        "mmu_page_kib": 4,
        "rss_kib": 6144,
        "pss_kib": 6144,
        "referenced_kib": 6144,
        "anonymous_kib": 6144,
        "lazy_free_kib": 0,
        "anon_huge_kib": 4096,
        "shmem_pmd_kib": 0,
        "file_pmd_kib": 0,
        "shared_hugetlb_kib": 0,
        "private_hugetlb_kib": 0,
        "swap_kib": 0,
        "locked_kib": 0,
        "thp_eligible": True,
        "vm_flags": ("rd", "wr", "mr", "mw", "me", "ac", "hg"),
    }


def test_header_of_a_mapped_file() -> None:
    mapping = smaps.parse(NEW)[7]
    assert (mapping.name, mapping.device) == ("/srv/models/a model (2).bin", "fe:00")
    assert (mapping.offset, mapping.inode) == (0x200000, 2**53 + 1)
    assert (mapping.permissions, mapping.kind) == ("r--s", Kind.FILE)


def test_addresses_of_every_length() -> None:
    snapshot = smaps.parse(NEW)
    assert snapshot[0].start == 0x400000  # 8 digits
    assert snapshot[1].start == 0x35B1800000  # 10
    assert snapshot[-1].end == 0xFFFFFFFFFF601000  # 16


def test_a_value_that_needs_more_columns() -> None:
    assert smaps.parse(NEW)[4].size_kib == (0x7F4540000000 - 0x7F2C20000000) // 1024 > 10**8 - 1


def test_rollup_and_total() -> None:
    snapshot = smaps.parse(NEW)
    rollup = snapshot.rollup()
    assert {kind: sums.mappings for kind, sums in rollup.items()} == {
        Kind.FILE: 2,
        Kind.HEAP: 1,
        Kind.ANONYMOUS: 3,
        Kind.SHARED: 2,
        Kind.STACK: 1,
        Kind.SPECIAL: 2,
    }
    assert rollup[Kind.ANONYMOUS].anon_huge_kib == 4096
    assert rollup[Kind.SHARED].shmem_pmd_kib == 4096
    assert rollup[Kind.FILE].file_pmd_kib == 2048
    assert snapshot.total.huge_kib == 4096 + 4096 + 2048
    assert snapshot.total.swap_kib == 4
    assert snapshot.coverage == 4096 / (136 + 6144 + 8 + 32)


def test_no_coverage_without_anonymous_memory() -> None:
    assert smaps.parse(NEW)[4:5].coverage is None


def test_fields_that_an_old_kernel_lacks() -> None:
    snapshot = smaps.parse(OLD)
    assert {mapping.thp_eligible for mapping in snapshot} == {None}
    assert {mapping.file_pmd_kib for mapping in snapshot} == {None}
    assert (snapshot.columns["file_pmd_kib"] == smaps.MISSING).all()
    assert snapshot.total.file_pmd_kib == 0
    assert snapshot[2].anon_huge_kib == 4096
    assert snapshot[2].huge_kib == 4096


def test_columns_are_the_objects_figures_and_cannot_be_changed() -> None:
    snapshot = smaps.parse(NEW)
    for name, column in snapshot.columns.items():
        assert column.tolist() == [getattr(mapping, name) for mapping in snapshot]
    for column in (*snapshot.columns.values(), *snapshot.within(0, 2**64 - 1).columns.values()):
        with pytest.raises(ValueError, match="read-only"):
            column[0] = 1


def test_it_is_a_sequence() -> None:
    snapshot = smaps.parse(NEW)
    assert len(snapshot) == 11
    assert list(snapshot) == [snapshot[index] for index in range(len(snapshot))]
    assert snapshot[-1] == snapshot[10]
    assert list(snapshot[2:4]) == [snapshot[2], snapshot[3]]
    with pytest.raises(IndexError):
        snapshot[11]


def test_within_takes_every_mapping_it_touches() -> None:
    snapshot = smaps.parse(NEW)
    start, end = snapshot[2].start, snapshot[2].end
    assert list(snapshot.within(start, end)) == [snapshot[2]]
    assert list(snapshot.within(end - 1, end)) == [snapshot[2]]
    assert list(snapshot.within(end, snapshot[3].start)) == []
    assert list(snapshot.within(start, snapshot[3].start + 1)) == [snapshot[2], snapshot[3]]
    assert snapshot.within(0, 2**64 - 1).total == snapshot.total
    assert snapshot.within(end, end).rollup() == {}


@pytest.mark.parametrize(
    ("name", "permissions", "kind"),
    [
        ("", "rw-p", Kind.ANONYMOUS),
        ("[anon: glibc: malloc]", "rw-p", Kind.ANONYMOUS),
        ("[anon_shmem:tensor]", "rw-s", Kind.SHARED),
        ("/dev/zero", "rw-p", Kind.ANONYMOUS),
        ("/dev/zero (deleted)", "rw-s", Kind.SHARED),
        ("/anon_hugepage (deleted)", "rw-p", Kind.ANONYMOUS),
        ("/anon_hugepage (deleted)", "rw-s", Kind.SHARED),
        ("/dev/shm/x", "rw-s", Kind.SHARED),
        ("/memfd:x (deleted)", "rw-s", Kind.SHARED),
        ("/SYSV00000000 (deleted)", "rw-s", Kind.SHARED),
        ("/dev/dri/renderD128", "rw-s", Kind.FILE),
        ("/usr/lib/libc.so.6 (deleted)", "r-xp", Kind.FILE),
        ("[heap]", "rw-p", Kind.HEAP),
        ("[stack]", "rw-p", Kind.STACK),
        ("[vvar_vclock]", "r--p", Kind.SPECIAL),
        ("anon_inode:[perf_event]", "rw-s", Kind.FILE),
    ],
)
def test_kinds(name: str, permissions: str, kind: Kind) -> None:
    text = NEW.split(b"\n", 1)[1].split(b"00000000 fe:00")[0]
    fields = text[: text.index(b"35b1800000")].decode()
    header = f"00400000-00452000 {permissions} 00000000 00:00 0 ".ljust(72) + f" {name}"
    assert smaps.parse(f"{header}\n{fields}".encode())[0].kind is kind


def test_rollup_as_json() -> None:
    rollup = smaps.parse(NEW).rollup()
    assert set(json.loads(json.dumps(dict.fromkeys(rollup)))) == {str(kind) for kind in rollup}


# Both parsers -------------------------------------------------------------------------------------

KNOWN = [label.decode() for label in FIELDS if label not in (b"Size", b"THPeligible")]
NAMES = st.one_of(
    st.sampled_from(
        ["", "", "[heap]", "[anon:a b]", "/a b/c (deleted)", "/x\\012y", "/\u00e9\r\x1c"]
    ),
    st.text(st.characters(exclude_characters="\n", codec="utf-8"), max_size=9).map("/{}".format),
)
NARROW = st.one_of(st.just(0), st.integers(0, 10**8 - 1))
KIB = st.one_of(NARROW, st.integers(10**8, 10**15))
ADDRESS = st.one_of(st.integers(0, 2**32 - 1), st.integers(0, 2**47 - 1), st.integers(0, 2**64 - 1))


@st.composite
def records(
    draw: st.DrawFn, labels: list[str], flags: bool, eligible: bool, kib: st.SearchStrategy[int]
) -> str:
    """One record as the kernel formats it."""
    start, end, offset = draw(ADDRESS), draw(ADDRESS), draw(ADDRESS)
    permissions = "".join(draw(st.sampled_from(pair)) for pair in ("r-", "w-", "x-", "ps"))
    inode = draw(st.sampled_from([0, 0, 5, 2**64 - 1]))
    header = f"{start:08x}-{end:08x} {permissions} {offset:08x} fe:00 {inode} "
    if name := draw(NAMES):
        header = f"{header:72} {name}"
    lines = [header, *(f"{label + ':':16}{draw(kib):8} kB" for label in labels)]
    if eligible:
        lines.append(f"THPeligible:    {draw(st.integers(0, 1)):8}")
    if flags:
        lines.append("VmFlags: " + draw(st.sampled_from(["rd wr mr ", "rd hg ", ""])))
    return "".join(f"{line}\n" for line in lines)


@st.composite
def texts(draw: st.DrawFn, *, regular: bool = False) -> str:
    """All records of a process, from a kernel with any set of fields."""
    unknown = st.sampled_from(["Pss_Dirty", "KSM", "SwapPss", "Novel", "Shared_Clean"])
    labels = draw(st.lists(st.one_of(st.sampled_from(KNOWN), unknown), unique=True))
    labels = ["Size", *labels]
    flags, eligible = regular or draw(st.booleans()), draw(st.booleans())
    record = records(labels, flags, eligible, KIB)
    some = draw(st.lists(record, min_size=1, max_size=8))
    if regular:  # the record from which the layout of the others is taken
        some.insert(0, draw(records(labels, flags, eligible, NARROW)))
    elif draw(st.booleans()):  # a record with fewer fields among them
        some.insert(1, draw(records(labels[:1], flags, eligible, KIB)))
        some.append(draw(record))
    return "".join(some)


def equal(first: Snapshot, second: Snapshot) -> bool:
    columns = (first.columns, second.columns)
    assert set(columns[0]) == set(columns[1])
    return list(first) == list(second) and all(
        column.dtype == columns[1][name].dtype and (column == columns[1][name]).all()
        for name, column in columns[0].items()
    )


@settings(deadline=None)
@given(texts(regular=True))
def test_columns_and_lines_agree(text: str) -> None:
    assert equal(by_columns(text.encode()), by_lines(text.encode()))


@settings(deadline=None)
@given(texts())
def test_any_text_is_parsed_as_line_by_line(text: str) -> None:
    assert equal(smaps.parse(text.encode()), by_lines(text.encode()))


@settings(deadline=None)
@given(texts(regular=True), st.data())
def test_cut_off_text_is_an_error_or_fewer_records(text: str, data: st.DataObject) -> None:
    whole = text.encode()
    cut = data.draw(st.integers(0, len(whole) - 1))
    try:
        snapshot = smaps.parse(whole[:cut])
    except MalformedError:
        return
    assert whole[cut - 1 : cut] == b"\n"
    assert equal(snapshot, by_lines(whole[:cut]))
    if len(snapshot) > 1:  # a single record may be cut between two lines, and nothing tells
        assert list(snapshot) == list(smaps.parse(whole))[: len(snapshot)]


@settings(deadline=None)
@given(texts(regular=True), st.data())
def test_a_changed_byte_is_read_alike_or_an_error(text: str, data: st.DataObject) -> None:
    changed = bytearray(text.encode())
    changed[data.draw(st.integers(0, len(changed) - 1))] = data.draw(st.integers(0, 127))
    try:
        expected = by_lines(bytes(changed))
    except MalformedError:
        with pytest.raises(MalformedError):
            smaps.parse(bytes(changed))
    else:
        assert equal(smaps.parse(bytes(changed)), expected)


def test_an_unknown_last_field_beside_a_wide_value_is_read_alike() -> None:
    record = NEW[: NEW.index(b"\n", NEW.index(b"VmFlags")) + 1]
    unknown = record.replace(b"VmFlags:", b"V0Flags:")
    wide = record.replace(b"Pss:                 328 kB", b"Pss:            100000000 kB")
    assert len(wide) > len(record)
    text = record + unknown + wide
    assert equal(smaps.parse(text), by_lines(text))


@settings(max_examples=20, deadline=None)
@given(st.integers(2, 40), st.integers(1, 4000))
def test_blocks_of_any_size_give_the_same(times: int, block: int) -> None:
    text = b"".join(NEW for _ in range(times))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(columns, "_BLOCK", block)
        assert equal(by_columns(text), by_lines(text))


@pytest.mark.parametrize("text", [NEW, OLD])
def test_samples_take_the_quick_way(text: bytes) -> None:
    assert equal(by_columns(text), by_lines(text))


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"\n",
        b"no smaps\n",
        b"Size:                  4 kB\n",
        NEW.split(b"\n")[0] + b"\n",  # a line of maps
        NEW[:-1],
        NEW.replace(b"6144 kB", b"6x44 kB"),
        NEW.replace(b"6144 kB", b"6144 MB"),
        NEW.replace(b"rw-p", b"rw?p"),
        NEW.replace(b"THPeligible:           1", b"THPeligible:           2"),
        NEW.replace(b"7f2c00000000-", b"7f2c0000g000-"),
        NEW.replace(b"VmFlags: ex \n", b""),
    ],
)
def test_malformed_text(text: bytes) -> None:
    with pytest.raises(MalformedError, match="expected, but found was"):
        smaps.parse(text)


# Processes ----------------------------------------------------------------------------------------


def test_a_recorded_tree(tmp_path: Path) -> None:
    (tmp_path / "proc/self").mkdir(parents=True)
    (tmp_path / "proc/self/smaps").write_bytes(NEW)
    assert list(smaps.snapshot("self", tmp_path)) == list(smaps.parse(NEW))
    assert smaps.read("self", tmp_path) == NEW


def test_a_text_larger_than_the_first_buffer(tmp_path: Path) -> None:
    (tmp_path / "proc/7").mkdir(parents=True)
    text = NEW * (3 * 2**20 // len(NEW))
    (tmp_path / "proc/7/smaps").write_bytes(text)
    assert smaps.read(7, tmp_path) == text
    assert len(smaps.snapshot(7, tmp_path)) == 11 * (3 * 2**20 // len(NEW))


@pytest.mark.parametrize(
    ("files", "error", "says"),
    [
        ({}, NotLinuxError, "there is no /proc/self"),
        ({"self/status": ""}, ProcessGoneError, "no such process"),
        ({"self/status": "", "7/status": ""}, smaps.NoSmapsError, "CONFIG_PROC_PAGE_MONITOR"),
        ({"7/smaps": "", "7/status": "State:\tZ (zombie)\n"}, ProcessGoneError, "has ended"),
        (
            {"7/smaps": "", "7/status": "State:\tI (idle)\nPPid:\t2\n"},
            BadRequestError,
            "kernel thread",
        ),
        ({"7/smaps": "", "7/status": "Kthread:\t1\n"}, BadRequestError, "kernel thread"),
        ({"7/smaps": "", "7/status": "State:\tR\nPPid:\t6\n"}, ProcessGoneError, "has ended"),
        ({"7/smaps": ""}, ProcessGoneError, "has ended"),
    ],
)
def test_processes_without_a_map(
    tmp_path: Path, files: dict[str, str], error: type[ProbeError], says: str
) -> None:
    for name, text in files.items():
        file = tmp_path / "proc" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    with pytest.raises(error, match=says):
        smaps.snapshot(7, tmp_path)


@pytest.mark.parametrize(
    ("raised", "error"),
    [
        (PermissionError(), NotPermittedError),
        (ProcessLookupError(), ProcessGoneError),
    ],
)
def test_what_the_kernel_refuses(
    monkeypatch: pytest.MonkeyPatch, raised: OSError, error: type[ProbeError]
) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise raised

    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(error, match="process 7 was asked for"):
        smaps.snapshot(7)


@pytest.mark.parametrize("pid", [0, -1])
def test_numbers_that_no_process_has(pid: int) -> None:
    with pytest.raises(BadRequestError, match="begin at 1"):
        smaps.snapshot(pid)


@linux
def test_a_process_that_has_ended() -> None:
    child = subprocess.Popen([sys.executable, "-c", ""])
    child.wait()
    with pytest.raises(ProcessGoneError):
        smaps.snapshot(child.pid)


@linux
def test_a_zombie() -> None:
    child = subprocess.Popen([sys.executable, "-c", ""])
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    try:
        with pytest.raises(ProcessGoneError, match="has ended"):
            smaps.snapshot(child.pid)
    finally:
        child.wait()


@pytest.fixture
def sleeper() -> Iterator[int]:
    """A child that does nothing, so that its map stays as it is."""
    with subprocess.Popen(
        [sys.executable, "-c", "print(flush=True); input()"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as child:
        assert child.stdout
        child.stdout.readline()
        yield child.pid


@linux
def test_a_living_process_as_psutil_sees_it(sleeper: int) -> None:
    ours = smaps.snapshot(sleeper)
    theirs = psutil.Process(sleeper).memory_maps(grouped=False)
    assert [mapping.rss_kib for mapping in ours] == [each.rss // 1024 for each in theirs]
    assert [f"{m.start:08x}-{m.end:08x}" for m in ours] == [each.addr for each in theirs]


@linux
def test_the_kernels_own_text_takes_the_quick_way(sleeper: int) -> None:
    text = smaps.read(sleeper)
    if b"\nVmFlags:" not in text:
        pytest.skip("this kernel writes no flags")
    assert equal(by_columns(text), by_lines(text))


@linux
def test_this_process() -> None:
    memory = mmap.mmap(-1, 64 * mmap.PAGESIZE)
    memory[0] = 1
    snapshot = smaps.snapshot()
    total = snapshot.total
    assert total.mappings == len(snapshot) > 0
    assert all(mapping.size_kib == (mapping.end - mapping.start) // 1024 for mapping in snapshot)
    assert 0 < total.anonymous_kib <= total.rss_kib <= total.size_kib
    assert snapshot.coverage is not None
    assert 0 <= snapshot.coverage <= 1
    assert Kind.FILE in snapshot.rollup()
    assert sum(sums.rss_kib for sums in snapshot.rollup().values()) == total.rss_kib
    memory.close()


@linux
def test_many_threads_at_once(sleeper: int) -> None:
    with ThreadPoolExecutor(8) as pool:
        totals = list(pool.map(lambda _: smaps.snapshot(sleeper).total, range(32)))
    assert len(set(totals)) == 1
