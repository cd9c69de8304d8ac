"""Diagnosis: every reason by a process made to have it, sums, precision, and what goes wrong."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
import sys
from collections import Counter
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hugeprobe import doctor, examine, observe, owners, pagemap, process, remedies, smaps
from hugeprobe.cli.diagnosis import sparkline
from hugeprobe.counters import Faults
from hugeprobe.coverage import Backing, Mode, mode_of, pieces
from hugeprobe.errors import NotObservable, ProbeError, ProcessGoneError
from hugeprobe.figures import doctor as figures
from hugeprobe.host import Khugepaged, host_facts, usable_memory_kib
from hugeprobe.pagemap import Anonymous
from hugeprobe.remedies import Cut
from hugeprobe.smaps import Mapping
from hugeprobe.smaps.headers import kind_of
from hugeprobe.strips import State, strips

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from hugeprobe.doctor import Diagnosis
    from hugeprobe.examine import Examined

NOTEBOOKS = Path(__file__).parents[1] / "notebooks"
KIB, MIB = 1 << 10, 1 << 20
PMD = 2 * MIB
BASE = 0x7F0000000000  # on a 2 MiB boundary

linux = pytest.mark.skipif(sys.platform != "linux", reason="there is no process to look at")


def mapping(
    start: int,
    length: int,
    anonymous: int,
    *,
    huge: int = 0,
    flags: str = "rd wr mr mw me ac",
    name: str = "",
    permissions: str = "rw-p",
    eligible: bool | None = None,
    rss: int | None = None,
) -> Mapping:
    """One mapping; sizes in KiB, addresses in bytes."""
    shared = permissions.endswith("s")
    fields = dict.fromkeys(Mapping._fields) | {
        "start": start,
        "end": start + length,
        "permissions": permissions,
        "offset": 0,
        "device": "00:00",
        "inode": 0,
        "name": name,
        "kind": kind_of(name, shared=shared),
        "size_kib": length // KIB,
        "rss_kib": anonymous if rss is None else rss,
        "anonymous_kib": anonymous,
        "anon_huge_kib": huge,
        "thp_eligible": eligible,
        "vm_flags": tuple(flags.split()),
    }
    return Mapping(**fields)  # type: ignore[arg-type]


def text(mappings: Sequence[Mapping]) -> str:
    """What the kernel writes for mappings, as far as it matters here."""
    lines = []
    for each in mappings:
        lines += [
            f"{each.start:x}-{each.end:x} {each.permissions} 00000000 00:00 0 {each.name}".rstrip(),
            f"Size:           {each.size_kib:8} kB",
            f"Rss:            {each.rss_kib:8} kB",
            f"Anonymous:      {each.anonymous_kib:8} kB",
            f"AnonHugePages:  {each.anon_huge_kib:8} kB",
            f"VmFlags: {' '.join(each.vm_flags)} ",
        ]
    return "\n".join(lines) + "\n"


def sums(found: Sequence[Mapping], mode: Mode = "madvise", **options: Any) -> Counter[Backing]:
    """KiB by backing."""
    kib: Counter[Backing] = Counter()
    for piece in pieces(found, mode, **options):
        kib[piece.backing] += piece.kib
    return kib


# Geometry: which reason wins --------------------------------------------------------------------


def test_two_mappings_that_share_a_range_are_cut() -> None:
    low = mapping(BASE, 3 * MIB, 3072, flags="rd wr hg")
    high = mapping(BASE + 3 * MIB, 3 * MIB, 3072)
    found = list(pieces([low, high], "madvise"))
    cut = [piece for piece in found if piece.backing is Backing.CUT]
    assert [(piece.kib, piece.mapping, piece.across) for piece in cut] == [
        (1024, low, high),
        (1024, high, low),
    ]
    assert sums([low, high]) == {Backing.WAITING: 2048, Backing.CUT: 2048, Backing.UNADVISED: 2048}


def test_three_short_mappings_in_one_range_are_cut_not_short() -> None:
    found = [
        mapping(BASE, MIB, 1024),
        mapping(BASE + MIB, 512 * KIB, 512, permissions="r--p"),
        mapping(BASE + 3 * MIB // 2, MIB // 2, 512),
    ]
    assert sums(found) == {Backing.CUT: 2048}


@pytest.mark.parametrize(
    "neighbour",
    [
        mapping(BASE + MIB, MIB, 0, permissions="---p"),
        mapping(BASE + MIB, MIB, 0, name="/srv/data"),
        mapping(BASE + MIB, MIB, 0, permissions="rw-s"),
        mapping(BASE + MIB + 4096, MIB - 4096, 1020),
        mapping(BASE + MIB, MIB - 4096, 1020),
        mapping(BASE + MIB, MIB, 0, flags="rd wr ht"),
    ],
    ids=["reserved", "file", "shared", "gap", "too little", "hugetlbfs"],
)
def test_what_could_never_be_joined_cuts_nothing(neighbour: Mapping) -> None:
    found = sums([mapping(BASE, MIB, 1024), neighbour])
    assert found[Backing.CUT] == 0
    assert found[Backing.SHORT] >= 1024


@pytest.mark.parametrize(
    ("other", "policies", "difference"),
    [
        ({"permissions": "r--p"}, {}, Cut.PROTECTION),
        ({"flags": "rd wr mr mw me ac hg"}, {}, Cut.ADVICE),
        ({"flags": "rd wr mr mw me ac nh"}, {}, Cut.ADVICE),
        ({"name": "[anon:part]"}, {}, Cut.NAME),
        ({"flags": "rd wr mr mw me ac dd"}, {}, Cut.FLAGS),
        ({"flags": "rd wr mr mw me ac sd"}, {}, Cut.UNKNOWN),
        ({"name": "[heap]"}, {}, Cut.UNKNOWN),
        ({}, {BASE: "default", BASE + MIB: "bind:0"}, Cut.POLICY),
        ({}, {BASE: "bind:0", BASE + MIB: "bind:0"}, Cut.UNKNOWN),
    ],
)
def test_what_keeps_two_mappings_apart(
    other: dict[str, Any], policies: dict[int, str], difference: Cut
) -> None:
    one, two = mapping(BASE, MIB, 1024), mapping(BASE + MIB, MIB, 1024, **other)
    assert examine.cut_between(one, two, policies) is difference
    assert examine.cut_between(two, one, policies) is difference


def test_memory_that_is_partly_resident_is_where_it_lies() -> None:
    found = [mapping(BASE + MIB, 6 * MIB, 1536)]
    # Resident are the head and 512 KiB of the first whole range.
    start = np.array([BASE + MIB])
    where = Anonymous(start, start + 3 * MIB // 2, np.array([False]))
    assert sums(found) == {Backing.UNADVISED: 1536}
    assert sums(found, located=where.located()) == {Backing.EDGE: 1024, Backing.UNADVISED: 512}


def test_copies_of_file_pages_are_copies_in_shared_memory_too() -> None:
    found = [
        mapping(BASE, 4 * MIB, 1024, name="/usr/lib/libexample.so"),
        mapping(BASE + 8 * MIB, 4 * MIB, 512, name="/memfd:example (deleted)"),
    ]
    assert sums(found, "always") == {Backing.COPIED: 1536}


drawn_mappings = st.lists(
    st.tuples(
        st.sampled_from([0, 0, 0, 1, 100, 700]),  # base pages between it and the one before
        st.integers(1, 1600),  # base pages
        st.floats(0, 1),  # resident
        st.floats(0, 1.2),  # huge
        st.sampled_from(["rw-p", "r--p", "---p", "rw-s"]),
        st.sampled_from(["rd wr", "rd wr hg", "rd wr nh", "rd ht"]),
        st.sampled_from(["", "", "", "[heap]", "[anon:x]", "/srv/f", "/memfd:x", "[stack]"]),
        st.sampled_from([None, True, False]),
    ),
    min_size=1,
    max_size=12,
)
Drawn = list[tuple[int, int, float, float, str, str, str, "bool | None"]]


def arbitrary(drawn: Drawn) -> list[Mapping]:
    at, found = BASE + 4096, []
    for gap, pages, filled, huge, permissions, flags, name, eligible in drawn:
        start = at + gap * 4096
        at = start + pages * 4096
        anonymous = int(pages * filled) * 4
        found.append(
            mapping(
                start,
                pages * 4096,
                anonymous,
                huge=int(anonymous * huge) // 2048 * 2048,
                permissions=permissions,
                flags=flags,
                name=name,
                eligible=eligible,
            )
        )
    return found


@given(drawn_mappings, st.sampled_from(["always", "madvise", "never", "forbidden"]), st.booleans())
def test_every_kib_of_every_mapping_has_one_reason(drawn: Drawn, mode: Mode, known: bool) -> None:
    """Whatever the mappings, and even if what lies where changed since they were read."""
    found = arbitrary(drawn)
    ends = np.array([each.end for each in found])
    where = Anonymous(ends - 8192, ends, np.zeros(len(ends), np.bool_))
    for each in found:
        of_each: Counter[int] = Counter()
        for piece in pieces(found, mode, located=where.located() if known else None):
            assert piece.kib > 0
            of_each[piece.mapping.start] += piece.kib
        assert of_each[each.start] == (each.anonymous_kib or 0)


# Diagnoses of recorded processes ------------------------------------------------------------------


@pytest.fixture
def recorded(tree: Callable[[str], Path]) -> Callable[[Sequence[Mapping]], Path]:
    """A host with THP ``madvise``, on which process 7 has given mappings."""

    def with_process(mappings: Sequence[Mapping]) -> Path:
        root = tree("linux-6.8-ubuntu")
        folder = root / "proc/7"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "smaps").write_text(text(mappings))
        (folder / "stat").write_text(stat(started=100))
        (folder / "status").write_text("State:\tS (sleeping)\nVmSize:\t 100 kB\nTHP_enabled:\t1\n")
        return root

    return with_process


def stat(started: int) -> str:
    fields = ["S", *["0"] * 6, "1200", "0", "3", *["0"] * 9, str(started), *["0"] * 30]
    return f"7 (a (b) c) {' '.join(fields)}\n"


def reasons(diagnosis: Diagnosis) -> dict[str, int]:
    return {finding.reason: finding.kib for finding in diagnosis.reasons}


@settings(deadline=None, max_examples=30)
@given(drawn_mappings)
def test_reasons_and_huge_memory_sum_to_anonymous_memory(
    tmp_path_factory: pytest.TempPathFactory, drawn: Drawn
) -> None:
    root = tmp_path_factory.mktemp("tree")
    (root / "proc/self").mkdir(parents=True)
    (root / "proc/meminfo").write_text("MemTotal: 4194304 kB\n")
    (root / "proc/7").mkdir()
    found = arbitrary(drawn)
    (root / "proc/7/smaps").write_text(text(found))
    (root / "proc/7/stat").write_text(stat(started=1))
    diagnosis = doctor.diagnose(7, root=root)
    assert diagnosis.anon_kib == sum(each.anonymous_kib or 0 for each in found)
    assert diagnosis.huge_kib + sum(each.kib for each in diagnosis.reasons) == diagnosis.anon_kib
    assert diagnosis.could_be_kib <= diagnosis.anon_kib
    assert len(reasons(diagnosis)) == len(diagnosis.reasons)
    assert not diagnosis.exact


def test_a_recorded_process(recorded: Callable[[Sequence[Mapping]], Path]) -> None:
    root = recorded(
        [
            mapping(BASE, 8 * MIB, 8192, huge=4096, flags="rd wr hg"),
            mapping(BASE + 16 * MIB, 32 * MIB, 32768),
            mapping(BASE + 64 * MIB, MIB, 1024),
            mapping(BASE + 72 * MIB, 8 * MIB, 512, name="/usr/lib/libx.so", rss=6144),
        ]
    )
    found = doctor.diagnose(7, root=root)
    assert (found.anon_kib, found.huge_kib, found.could_be_kib) == (42496, 4096, 40960)
    assert reasons(found) == {"unadvised": 32768, "waiting": 4096, "short": 1024, "copied": 512}
    assert [finding.reason for finding in found.reasons][-1] == "copied"  # nothing to be won
    assert (found.mode, found.processes, found.faults) == ("madvise", 1, Faults(1200, 3))
    assert {finding.reason: finding.kib for finding in found.files} == {"library": 5632}
    assert found.reasons[0].action == "Start it with: hugeprobe run -- COMMAND"
    assert any("could not be read" in note for note in found.notes)
    assert found.headline.startswith("10% of the 41.5 MiB")


def test_a_full_control_group_and_fragmented_memory_keep_memory_waiting(
    recorded: Callable[[Sequence[Mapping]], Path],
) -> None:
    root = recorded([mapping(BASE, 8 * MIB, 8192, flags="rd wr hg")])
    (root / "proc/buddyinfo").write_text("Node 0, zone   Normal" + 11 * "      3" + "\n")
    assert reasons(doctor.diagnose(7, root=root)) == {"waiting": 8192}
    (root / "proc/buddyinfo").write_text("Node 0, zone   Normal" + 9 * "      3" + "   0  0\n")
    assert reasons(doctor.diagnose(7, root=root)) == {"fragmented": 8192}
    (root / "proc/7/cgroup").write_text("0::/server\n")
    group = root / "sys/fs/cgroup/server"
    group.mkdir(parents=True)
    (group / "memory.max").write_text(f"{64 * MIB}\n")
    (group / "memory.current").write_text(f"{63 * MIB}\n")
    assert reasons(doctor.diagnose(7, root=root)) == {"limited": 8192}
    (group / "memory.stat").write_text(f"inactive_file {32 * MIB}\n")  # can be dropped at once
    assert reasons(doctor.diagnose(7, root=root)) == {"fragmented": 8192}


@pytest.mark.parametrize(
    ("fallbacks", "says"),
    [("0", "touched too early"), ("3", "at most 6 MiB"), (None, "")],
)
def test_waiting_memory_says_what_the_counters_know(
    recorded: Callable[[Sequence[Mapping]], Path], fallbacks: str | None, says: str
) -> None:
    root = recorded([mapping(BASE, 8 * MIB, 8192, flags="rd wr hg")])
    (root / "proc/vmstat").write_text(f"thp_fault_fallback {fallbacks}\n" if fallbacks else "a 1\n")
    notes = [note for note in doctor.diagnose(7, root=root).notes if "since boot" in note]
    assert says in "".join(notes)
    assert bool(notes) is bool(says)


def test_an_unavoidable_wait_is_estimated() -> None:
    thread = Khugepaged(True, 4096, 10_000, 60_000, 511, 64, 256)
    known = replace(host_facts(), base_kib=4, khugepaged=thread)
    assert remedies.khugepaged_sentence(1 << 20, known) == "khugepaged needs 11 min at the least"
    assert remedies.khugepaged_sentence(16384, known) == "khugepaged needs 10 s at the least"
    idle = replace(known, khugepaged=replace(thread, pages_to_scan=0))
    assert remedies.khugepaged_sentence(1024, idle) == "khugepaged does not run"


def test_modes_other_than_madvise(recorded: Callable[[Sequence[Mapping]], Path]) -> None:
    root = recorded([mapping(BASE, 8 * MIB, 8192)])
    status = root / "proc/7/status"
    status.write_text(status.read_text().replace("THP_enabled:\t1", "THP_enabled:\t0"))
    assert reasons(doctor.diagnose(7, root=root)) == {"forbidden": 8192}
    status.write_text("State:\tS\n")
    (root / "sys/kernel/mm/transparent_hugepage/enabled").write_text("always madvise [never]\n")
    never = doctor.diagnose(7, root=root)
    assert reasons(never) == {"off": 8192}
    assert never.reasons[0].action.startswith("As root: echo madvise > /sys/kernel/mm/")


def test_a_32_bit_process_is_named(recorded: Callable[[Sequence[Mapping]], Path]) -> None:
    (one,) = [mapping(BASE, 8 * MIB, 8192)]
    root = recorded([one._replace(start=0x10000000, end=0x10800000)])
    assert any("32-bit" in note for note in doctor.diagnose(7, root=root).notes)


# Precision: what the work grows with --------------------------------------------------------------


def many(count: int) -> list[Mapping]:
    """Mappings of every sort, which partly touch each other."""
    found, at = [], BASE
    for number in range(count):
        length = (4 * KIB, 3 * MIB, 64 * KIB, 2 * MIB)[number % 4]
        at += MIB if number % 7 == 0 else 0
        permissions = "r--p" if number % 2 else "rw-p"
        found.append(mapping(at, length, length // KIB, permissions=permissions))
        at += length
    return found


def work(run: Callable[[], object]) -> int:
    """How many lines of Python ``run`` executes."""
    lines = 0

    def count(_frame: object, event: str, _argument: object) -> Any:
        nonlocal lines
        lines += event == "line"
        return count

    before = sys.gettrace()
    sys.settrace(count)
    try:
        run()
    finally:
        sys.settrace(before)
    return lines


def test_work_is_linear_in_mappings(recorded: Callable[[Sequence[Mapping]], Path]) -> None:
    lines = []
    for count in (500, 1000, 2000):
        root = recorded(many(count))
        lines.append(work(lambda root=root: doctor.diagnose(7, root=root)))  # type: ignore[misc]
    first, second = lines[1] - lines[0], lines[2] - lines[1]
    assert first > 500
    assert second <= 2.1 * first


def test_a_hundred_thousand_mappings(recorded: Callable[[Sequence[Mapping]], Path]) -> None:
    found = many(100_000)
    diagnosis = doctor.diagnose(7, root=recorded(found))
    assert diagnosis.anon_kib == sum(each.anonymous_kib or 0 for each in found)
    assert diagnosis.huge_kib + sum(each.kib for each in diagnosis.reasons) == diagnosis.anon_kib


# Real processes, each made to have one reason -----------------------------------------------------


@contextmanager
def constructed(name: str) -> Iterator[tuple[int, int]]:
    """A process that has memory of one sort; give its number and where that memory begins."""
    with subprocess.Popen(
        [sys.executable, str(Path(__file__).with_name("constructed.py")), name],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(NOTEBOOKS)},
    ) as child:  # on leaving, its standard input is closed, and so it ends
        assert child.stdout
        said = child.stdout.readline().strip()
        if not said.isdecimal():
            pytest.skip(said or "the process could not be started")
        yield child.pid, int(said)


def within(found: Examined, start: int) -> dict[str, int]:
    """KiB by reason of the memory that was constructed, which is in 16 MiB from ``start`` on."""
    kib: Counter[str] = Counter()
    for piece in found.pieces:
        if start <= piece.start < start + 16 * MIB:
            cut = found.cut(piece)
            kib[f"{piece.backing} by {cut}" if cut else piece.backing.value] += piece.kib
    return dict(kib)


@pytest.fixture(scope="module")
def mode() -> Mode:
    """What this host does; the constructs are of ranges of 2 MiB."""
    facts = host_facts()
    if (facts.base_kib, facts.pmd_kib) != (4, 2048):
        pytest.skip("pages of this host have other sizes")
    return mode_of(facts)


@linux
@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("short", {"short": 1024}),
        ("misaligned", {"misaligned": 2560}),
        ("edge", {"edge": 1536}),
        ("cut_by_advice", {"cut by advice": 4096}),
        ("cut_by_protection", {"cut by protection": 4096}),
        ("cut_by_name", {"cut by name": 4096}),
        ("cut_by_memory_policy", {"cut by memory policy": 4096}),
        ("cut_by_flags", {"cut by flags": 4096}),
        ("copied", {"copied": 1024}),
        ("forbidden", {"forbidden": 4096}),
    ],
)
@pytest.mark.usefixtures("mode")
def test_a_process_with_one_reason_in_every_mode(name: str, expected: dict[str, int]) -> None:
    """Geometry and prohibition come before the mode.

    Before it is cut, memory may have been huge: a cut splits huge pages where they are.
    """
    with constructed(name) as (pid, start):
        found = examine.examine(pid, host_facts())
        diagnosis = doctor.diagnose(pid)
    assert within(found, start) == expected
    assert diagnosis.huge_kib + sum(each.kib for each in diagnosis.reasons) == diagnosis.anon_kib
    ((reason, kib),) = expected.items()
    assert reasons(diagnosis)[reason] >= kib


@linux
@pytest.mark.parametrize(
    ("name", "kib", "by_mode"),
    [
        ("plain", 8192, {"madvise": "unadvised"}),
        ("advised", 8192, {}),
        ("early", 4096, {"always": "waiting", "madvise": "waiting"}),
        ("excluded", 4096, {"always": "excluded", "madvise": "excluded"}),
    ],
)
def test_a_process_with_one_reason_by_mode(
    mode: Mode, name: str, kib: int, by_mode: dict[Mode, str]
) -> None:
    """What is allowed is huge, or waits if no huge page was free; khugepaged may end the wait."""
    if mode == "forbidden":
        by_mode = {"forbidden": "forbidden"}
    expected = {"never": "off"} | by_mode
    with constructed(name) as (pid, start):
        found = within(examine.examine(pid, host_facts()), start)
    assert sum(found.values()) == kib
    assert found.keys() <= {expected.get(mode, "huge"), *_ALSO.get(expected.get(mode), ())}


_ALSO: dict[str | None, tuple[str, ...]] = {None: ("waiting",), "waiting": ("huge",)}


@linux
def test_growth_is_what_is_missing_in_the_ranges(mode: Mode) -> None:
    with constructed("sparse") as (pid, start):
        found = examine.examine(pid, host_facts())
        diagnosis = doctor.diagnose(pid)
    if isinstance(found.where, NotObservable):
        pytest.skip(str(found.where))
    assert sum(within(found, start).values()) == 16
    reason = {"never": "off", "forbidden": "forbidden"}.get(mode, "excluded")
    (finding,) = [each for each in diagnosis.reasons if each.reason == reason]
    assert finding.grows_kib is not None
    assert finding.grows_kib >= 4 * 2048 - 16


@linux
@pytest.mark.usefixtures("mode")
def test_shared_memory_is_beside_the_sum() -> None:
    with constructed("shared") as (pid, start):
        snapshot = smaps.snapshot(pid).within(start, start + 4 * MIB)
        diagnosis = doctor.diagnose(pid)
    of_files = {each.reason: each.kib for each in diagnosis.files}
    base = snapshot.total.rss_kib - snapshot.total.shmem_pmd_kib
    assert snapshot.total.rss_kib == 4096
    assert of_files.get("shared off", 0) + of_files.get("shared waiting", 0) == base


@linux
@pytest.mark.usefixtures("mode")
def test_old_kernels_read_where_memory_lies_from_the_page_map(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What only Linux 6.7 tells at once, and what every kernel tells page by page, agree."""
    with constructed("edge") as (pid, start):
        new = examine.examine(pid, host_facts())
        monkeypatch.setattr(
            pagemap.PageMap, "anonymous", lambda *_: NotObservable("this kernel is old")
        )
        old = examine.examine(pid, host_facts())
        monkeypatch.setattr(
            pagemap.PageMap, "_words", lambda *_: pytest.fail("nothing else is to be read")
        )
    assert within(old, start) == within(new, start) == {"edge": 1536}
    assert isinstance(old.where, NotObservable)


@linux
@pytest.mark.usefixtures("mode")
def test_cells_of_a_strip_show_the_same_as_the_sums() -> None:
    with constructed("plain") as (pid, start):
        found = examine.examine(pid, host_facts())
    (strip,) = [each for each in strips(found, 100) if each.length_kib == 8192]
    assert strip.anon_kib == 8192
    assert strip.cell_kib == 2048
    kinds = {State.of(piece.backing) for piece in found.pieces if piece.start == start}
    assert set(strip.cells) == kinds
    assert len(strip.cells) == 4


_MANY_VMAS = """
import sys
from hugeprobe.areas import reserved
from hugeprobe.linux import map_anonymous
import ctypes
with reserved(60_000 * 4096) as area:
    for start in range(area.start, area.end, 8192):
        ctypes.memset(map_anonymous(4096, at=start), 1, 4096)
    print(flush=True)
    sys.stdin.read()
"""


@linux
def test_a_real_process_with_sixty_thousand_mappings() -> None:
    limit = host_facts().max_map_count or 0
    if limit < 62_000 or usable_memory_kib() < 512 * 1024:
        pytest.skip(f"vm.max_map_count is {limit}, or there is little memory")
    with subprocess.Popen(
        [sys.executable, "-c", _MANY_VMAS],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env={**os.environ, "PYTHONPATH": str(NOTEBOOKS)},
    ) as child:
        assert child.stdout
        assert child.stdout.readline()
        found = doctor.diagnose(child.pid)
    assert reasons(found)["short"] >= 30_000 * 4
    assert found.huge_kib + sum(each.kib for each in found.reasons) == found.anon_kib


# Processes that change or may not be looked at ----------------------------------------------------


@pytest.fixture
def sleeper() -> Iterator[subprocess.Popen[bytes]]:
    """A child that holds 4 MiB, and becomes another program when its standard input ends."""
    script = (
        "import os, sys; kept = bytearray(4 << 20); print(flush=True);"
        "sys.stdin.read(); os.execvp('sleep', ['sleep', '9'])"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as child:
        assert child.stdout
        child.stdout.readline()
        yield child
        child.kill()


def after_reading(monkeypatch: pytest.MonkeyPatch, event: Callable[[], object]) -> None:
    """Have something happen between the reading of the map and the end of an examination."""
    read = smaps.snapshot

    def snapshot(*arguments: Any) -> smaps.Snapshot:
        found = read(*arguments)
        event()
        return found

    monkeypatch.setattr(smaps, "snapshot", snapshot)


@linux
def test_a_process_that_executes_another_program_meanwhile(
    sleeper: subprocess.Popen[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    def execute() -> None:
        assert sleeper.stdin
        sleeper.stdin.close()
        name = Path(f"/proc/{sleeper.pid}/comm")
        while name.read_text() != "sleep\n":
            assert sleeper.poll() is None

    after_reading(monkeypatch, execute)
    with pytest.raises(ProcessGoneError, match=r"execute[sd] another program"):
        doctor.diagnose(sleeper.pid)


@linux
def test_a_process_that_ends_meanwhile(
    sleeper: subprocess.Popen[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    def end() -> None:
        sleeper.kill()
        sleeper.wait()

    after_reading(monkeypatch, end)
    with pytest.raises(ProcessGoneError, match="ended"):
        doctor.diagnose(sleeper.pid)


def test_a_number_that_is_given_to_another_process(
    recorded: Callable[[Sequence[Mapping]], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    root = recorded([mapping(BASE, MIB, 1024)])
    after_reading(monkeypatch, lambda: (root / "proc/7/stat").write_text(stat(started=101)))
    with pytest.raises(ProcessGoneError, match="may belong to another"):
        doctor.diagnose(7, root=root)


@linux
def test_children_are_looked_at_if_asked_for() -> None:
    script = (
        "import subprocess, sys; child = subprocess.Popen(['sleep', '60']); print(flush=True);"
        "sys.stdin.read(); child.kill()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as child:
        assert child.stdout
        child.stdout.readline()
        alone, together = doctor.diagnose(child.pid), doctor.diagnose(child.pid, children=True)
    assert (alone.processes, together.processes) == (1, 2)
    assert together.anon_kib > alone.anon_kib
    assert together.huge_kib + sum(each.kib for each in together.reasons) == together.anon_kib


def test_a_child_that_may_not_be_looked_at_is_left_out(
    recorded: Callable[[Sequence[Mapping]], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    root = recorded([mapping(BASE, MIB, 1024)])
    monkeypatch.setattr(process, "descendants", lambda _: (8,))
    assert doctor.diagnose(7, children=True, root=root).processes == 1


# Owners -------------------------------------------------------------------------------------------


def test_owners_by_form_name_policy_and_advice() -> None:
    arena = BASE  # 64 MiB of address space
    found = [
        mapping(0x600000000000, MIB, 1024, name="[heap]"),
        mapping(0x600000100000, MIB, 1024, name="[heap]"),
        mapping(arena, MIB, 1024, flags="rd wr nr"),
        mapping(arena + MIB, 63 * MIB, 0, permissions="---p", flags="nr"),
        mapping(arena + 64 * MIB, MIB, 1024, flags="rd wr nr"),  # another reservation's
        mapping(arena + 80 * MIB, 4096, 0, permissions="---p"),
        mapping(arena + 80 * MIB + 4096, 8 * MIB, 8),
        mapping(arena + 100 * MIB, MIB, 1024, flags="rd wr hg"),
        mapping(arena + 102 * MIB, MIB, 1024),
        mapping(arena + 104 * MIB, MIB, 0, name="/srv/secret.bin"),
        mapping(arena + 106 * MIB, MIB, 0, name="/usr/lib/libopenvino.so.2641"),
        mapping(arena + 108 * MIB, MIB, 0, permissions="rw-s"),
    ]
    policies = {each.start: "default" for each in found} | {0x600000100000: "bind:0"}
    assert [owner.name for owner in owners.owners(found, policies)] == [
        *("HEAP", "BOUND", "ARENA", "ARENA", "ARENA", "BLOCKS", "STACK"),
        *("ADVISED", "BLOCKS", "MODEL", "FILE", "SHARED"),
    ]
    everywhere = {each.start: "bind:0" for each in found}  # numactl --membind
    assert owners.Owner.BOUND not in set(owners.owners(found, everywhere))


def test_programs_are_told_by_their_libraries() -> None:
    paths = ["/a/libopenvino.so.2641", "/b/libonnxruntime.so.1.32.0", "/c/libjemalloc.so.2", "/d/x"]
    found = [mapping(BASE + number * MIB, MIB, 0, name=path) for number, path in enumerate(paths)]
    assert owners.programs(found) == ("OpenVINO", "ONNX Runtime", "jemalloc")


def test_no_path_is_published(recorded: Callable[[Sequence[Mapping]], Path]) -> None:
    root = recorded(
        [
            mapping(BASE, 4 * MIB, 4096, name="[anon:secret]"),
            mapping(BASE + 8 * MIB, MIB, 4, name="/home/secret/libopenvino.so.1", rss=1024),
            mapping(BASE + 16 * MIB, 4 * MIB, 0, name="/srv/secret.bin", rss=4096),
        ]
    )
    diagnosis = doctor.diagnose(7, root=root)
    assert diagnosis.programs == ("OpenVINO",)
    assert "secret" not in json.dumps(diagnosis.as_dict(), default=str)
    assert {each.reason: each.kib for each in diagnosis.files}["small folios"] == 4096


# Remedies -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("collapse", remedies.Collapse)
@pytest.mark.parametrize("programs", [(), ("OpenVINO",), ("ONNX Runtime", "jemalloc")])
@pytest.mark.parametrize("backing", [each for each in Backing if each is not Backing.HUGE])
def test_every_reason_has_one_action_and_a_cost(
    backing: Backing, programs: tuple[str, ...], collapse: remedies.Collapse
) -> None:
    for advised in (False, True):
        case = remedies.Case(host_facts(), "7", collapse, programs, glibc_advises=advised)
        for cut in Cut if backing is Backing.CUT else [None]:
            found = remedies.remedy(backing, cut, 4096, 1024, case)
            assert found.why
            assert found.action
            assert found.cost
            collapses = "hugeprobe collapse 7" in found.action
            assert not (collapses and collapse is remedies.Collapse.NO)


def test_remedies_fit_the_process(tree: Callable[[str], Path]) -> None:
    facts = replace(host_facts(tree("linux-6.8-ubuntu")), glibc="2.39", architecture="x86_64")
    one_node = replace(facts, cpu=replace(facts.cpu, numa_nodes=1))
    two_nodes = replace(facts, cpu=replace(facts.cpu, numa_nodes=2))
    plain = remedies.Case(one_node, "7", remedies.Collapse.YES, (), glibc_advises=False)
    openvino = replace(plain, programs=("OpenVINO",))
    advised = replace(openvino, facts=two_nodes, glibc_advises=True)
    unprivileged = replace(plain, collapse=remedies.Collapse.PRIVILEGED)

    def action(backing: Backing, cut: Cut | None, case: remedies.Case) -> str:
        return remedies.remedy(backing, cut, 4096, 0, case).action

    run = "Start it with: hugeprobe run -- COMMAND"
    assert action(Backing.UNADVISED, None, plain) == "hugeprobe collapse 7"
    assert "collapse_self()" in action(Backing.UNADVISED, None, replace(plain, target="self"))
    assert action(Backing.UNADVISED, None, unprivileged) == run
    assert action(Backing.WAITING, None, unprivileged).startswith("As root")
    assert "numactl" in action(Backing.CUT, Cut.POLICY, plain)
    assert action(Backing.CUT, Cut.POLICY, openvino) == run
    assert "PERFORMANCE_HINT" in action(Backing.CUT, Cut.POLICY, advised)
    assert action(Backing.CUT, Cut.ADVICE, advised) == run
    assert "Advise whole blocks" in action(Backing.CUT, Cut.ADVICE, plain)
    assert "hugeprobe.tensors" in action(Backing.EDGE, None, plain)
    assert action(Backing.EDGE, None, openvino) == run
    assert "hugeprobe.tensors" in action(Backing.EDGE, None, advised)


@linux
def test_whether_memory_can_be_collapsed_is_found_out_by_trying() -> None:
    own = doctor.collapse_of("self")
    assert own is not remedies.Collapse.PRIVILEGED
    assert (doctor.collapse_of(os.getpid()) is remedies.Collapse.NO) == (
        own is remedies.Collapse.NO
    )


# Commands that are started and watched ------------------------------------------------------------

_GROW = "import time; kept = bytearray(48 << 20); time.sleep(1.5); print('done')"


@linux
def test_a_command_is_diagnosed_when_it_holds_most() -> None:
    script = f"{_GROW}; del kept; time.sleep(0.2)"
    observed = observe.observe([sys.executable, "-c", script])
    assert observed.status == 0
    assert observed.diagnosis.anon_kib >= 48 * 1024


@linux
def test_a_command_that_takes_too_long_is_ended_with_all_that_it_started() -> None:
    started = "import subprocess, time; print(subprocess.Popen(['sleep', '99']).pid, flush=True)"
    with subprocess.Popen(["cat"], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as said:
        assert said.stdin
        assert said.stdout
        observed = observe.observe(
            [sys.executable, "-c", f"{started}; time.sleep(99)"],
            after=1.0,
            children=True,
            stdout=said.stdin.fileno(),
        )
        said.stdin.close()
        grandchild = int(said.stdout.read())
    assert observed.status == 0
    assert observed.diagnosis.processes == 2
    with pytest.raises(ProcessLookupError):
        os.kill(grandchild, 0)


@linux
def test_a_command_that_ends_at_once_is_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    def gone(*_: object) -> None:
        raise ProcessGoneError

    monkeypatch.setattr(smaps, "held", gone)
    with pytest.raises(ProbeError, match="ended with status 0 before"):
        observe.observe(["true"])


@linux
def test_samples_end_with_the_process(sleeper: subprocess.Popen[bytes]) -> None:
    samples = observe.watch(sleeper.pid, 0.01)
    first = next(samples)
    assert first.held.anonymous_kib > 0
    assert 0 <= first.coverage <= 1
    sleeper.kill()
    sleeper.wait()
    assert len(list(samples)) <= 1


# The command line ---------------------------------------------------------------------------------


def hugeprobe(*arguments: str, **options: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "hugeprobe", "doctor", *arguments],
        cwd=NOTEBOOKS,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        **options,
    )


@linux
def test_json_of_a_running_process(sleeper: subprocess.Popen[bytes]) -> None:
    done = hugeprobe(str(sleeper.pid), "--json")
    assert (done.returncode, done.stderr) == (0, "")
    found = json.loads(done.stdout)
    assert found["huge_kib"] + sum(each["kib"] for each in found["reasons"]) == found["anon_kib"]
    assert all(each["reason"] and each["action"] and each["cost"] for each in found["reasons"])
    assert found["anon_kib"] == sum(each["anon_kib"] for each in found["owners"])


@linux
def test_a_command_speaks_for_itself() -> None:
    done = hugeprobe("--json", "--", sys.executable, "-c", _GROW)
    assert (done.returncode, done.stderr) == (0, "done\n")
    assert json.loads(done.stdout)["anon_kib"] >= 48 * 1024
    done = hugeprobe("--", sys.executable, "-c", f"{_GROW}; raise SystemExit(3)")
    assert done.returncode == 3
    first, second, *_ = done.stdout.splitlines()
    assert first == "done"
    assert "of anonymous memory of the process is huge" in second


@linux
def test_required_coverage(sleeper: subprocess.Popen[bytes]) -> None:
    assert hugeprobe(str(sleeper.pid), "--require-coverage", "0").returncode == 0
    done = hugeprobe(str(sleeper.pid), "--require-coverage", "1")
    assert done.returncode == 1
    assert done.stderr.startswith("hugeprobe: Coverage of 100% was required")


@linux
@pytest.mark.parametrize("columns", ["80", "50"])
def test_what_people_see_fits_their_terminal(
    sleeper: subprocess.Popen[bytes], columns: str
) -> None:
    for encoding in ("utf-8", "ascii"):
        environment = {**os.environ, "COLUMNS": columns, "PYTHONIOENCODING": encoding}
        done = hugeprobe(str(sleeper.pid), env=environment)
        assert (done.returncode, done.stderr) == (0, "")
        assert max(map(len, done.stdout.splitlines())) <= int(columns)
        for heading in ("Why the rest is", "Where it lies", "Whose memory it is"):
            assert heading in done.stdout


@linux
@pytest.mark.parametrize("how", ["end", "interrupt"])
def test_a_live_view_ends_with_the_process_or_with_ctrl_c(
    sleeper: subprocess.Popen[bytes], how: str
) -> None:
    command = [sys.executable, "-m", "hugeprobe", "doctor", "--watch", "--every", "0.1"]
    terminal, for_child = pty.openpty()
    with subprocess.Popen([*command, str(sleeper.pid)], cwd=NOTEBOOKS, stdout=for_child) as live:
        os.close(for_child)
        said = b""
        while b"coverage" not in said:
            said += os.read(terminal, 4096)
        sleeper.send_signal(signal.SIGKILL) if how == "end" else live.send_signal(signal.SIGINT)
        with suppress(OSError):  # which Linux raises once nobody has the terminal open
            while more := os.read(terminal, 4096):
                said += more
    os.close(terminal)
    assert live.returncode == 0
    assert b"Traceback" not in said


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["999999999"], "no such process"),
        (["2"], "process 2"),
        (["0"], "neither a process number nor a program"),
        (["--", "no-such-program", "--its-option"], "neither a process number nor a program"),
        (["--watch", "--", "true"], "in another terminal"),
        (["--watch", "--json", "1"], "choose one of them"),
        (["--after", "1", "1"], "with a command behind --"),
    ],
)
@linux
def test_mistakes_are_sentences(arguments: list[str], says: str) -> None:
    done = hugeprobe(*arguments)
    assert done.returncode == 1
    assert done.stderr.startswith("hugeprobe: ")
    assert says in done.stderr
    assert "Traceback" not in done.stderr


# Figures ------------------------------------------------------------------------------------------


def test_figures_of_a_diagnosis_and_of_none(
    recorded: Callable[[Sequence[Mapping]], Path],
) -> None:
    root = recorded([mapping(BASE, 8 * MIB, 8192, huge=4096, flags="rd wr hg")])
    found, none = doctor.diagnose(7, root=root), NotObservable("there is no process")
    assert str(figures.headline(found)) == found.headline
    assert "`waiting`" in str(figures.reasons_table(found))
    (finding,) = found.reasons
    running = replace(found, reasons=(replace(finding, action="hugeprobe collapse 4711"),))
    assert "hugeprobe collapse PID" in str(figures.reasons_table(running))
    assert "advised blocks" in str(figures.owners_table(found))
    assert "advised blocks: 8 MiB, a cell is 2 MiB" in str(figures.space_picture(found))
    assert "4" in str(figures.coverage_picture({"now": found, "then": none}))
    for figure in (figures.headline, figures.reasons_table, figures.space_picture):
        assert str(figure(none)) == str(none)
    assert str(figures.coverage_picture({"then": none})) == str(none)


def test_a_sparkline_reaches_from_nothing_to_the_highest() -> None:
    assert sparkline([0, 5, 10], 10) == "▁▅█"
    assert sparkline([0, 0], 0) == "▁▁"
