from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hugeprobe import children, host, inference, runtimes, smaps
from hugeprobe.arms import ADVISE, DEFAULT, OFF, Arm
from hugeprobe.coverage import COULD_BE_HUGE, Backing, Mode, cover, mode_of, whole_kib
from hugeprobe.errors import NotObservable, ProbeError
from hugeprobe.inference import ARMS, Report, Runtime
from hugeprobe.workloads import bert

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

MIB = 1 << 20
BASE = 0x7F0000000000  # on a 2 MiB boundary


def smaps_text(
    start: int,
    length: int,
    *,
    anonymous: int,
    huge: int = 0,
    flags: str = "rd wr mr mw me ac",
    eligible: int = 0,
    name: str = "",
) -> str:
    """One mapping as the kernel prints it; sizes in KiB, addresses in bytes."""
    inode = 77 if name.startswith("/") else 0
    sizes = {
        "Size": length // 1024,
        "KernelPageSize": 4,
        "MMUPageSize": 4,
        "Rss": anonymous,
        "Pss": anonymous,
        "Shared_Clean": 0,
        "Shared_Dirty": 0,
        "Private_Clean": 0,
        "Private_Dirty": anonymous,
        "Referenced": anonymous,
        "Anonymous": anonymous,
        "LazyFree": 0,
        "AnonHugePages": huge,
        "ShmemPmdMapped": 0,
        "FilePmdMapped": 0,
        "Shared_Hugetlb": 0,
        "Private_Hugetlb": 0,
        "Swap": 0,
        "SwapPss": 0,
        "Locked": 0,
    }
    lines = [f"{start:x}-{start + length:x} rw-p 00000000 00:00 {inode}    {name}".rstrip()]
    lines += [f"{key + ':':<16}{kib:8} kB" for key, kib in sizes.items()]
    lines += [f"THPeligible:{eligible:12}", f"VmFlags: {flags} "]
    return "\n".join(lines) + "\n"


def split(tmp_path: Path, text: str, mode: Mode = "madvise") -> dict[Backing, int]:
    process = tmp_path / "proc" / "41"
    process.mkdir(parents=True, exist_ok=True)
    (process / "smaps").write_text(text)
    covered = cover(smaps.snapshot(41, root=tmp_path), mode)
    assert set(covered.kib) == set(Backing)
    return {backing: kib for backing, kib in covered.kib.items() if kib}


def test_short_mapping(tmp_path: Path) -> None:
    text = smaps_text(BASE, 2 * MIB - 4096, anonymous=1536)
    assert split(tmp_path, text) == {Backing.SHORT: 1536}


def test_long_mapping_without_an_aligned_range(tmp_path: Path) -> None:
    text = smaps_text(BASE + 4096, 3 * MIB, anonymous=3072)
    assert split(tmp_path, text) == {Backing.MISALIGNED: 3072}


def test_edges_of_a_mapping_that_holds_a_range(tmp_path: Path) -> None:
    text = smaps_text(BASE - MIB, 4 * MIB, anonymous=4096)
    assert split(tmp_path, text) == {Backing.UNADVISED: 2048, Backing.EDGE: 2048}


def test_what_is_huge_leaves_no_room_for_more(tmp_path: Path) -> None:
    text = smaps_text(BASE - MIB, 4 * MIB, anonymous=4096, huge=2048, flags="rd wr hg", eligible=1)
    assert split(tmp_path, text) == {Backing.HUGE: 2048, Backing.EDGE: 2048}


@pytest.mark.parametrize(
    ("mode", "flags", "eligible", "expected"),
    [
        ("madvise", "rd wr", 0, Backing.UNADVISED),
        ("madvise", "rd wr hg", 1, Backing.WAITING),
        ("always", "rd wr", 1, Backing.WAITING),
        ("always", "rd wr nh", 0, Backing.EXCLUDED),
        ("always", "rd wr pf", 0, Backing.EXCLUDED),
        ("always", "rd wr hg", 0, Backing.EXCLUDED),
        ("always", "rd wr", 0, Backing.FORBIDDEN),
        ("never", "rd wr hg", 0, Backing.OFF),
        ("forbidden", "rd wr hg", 0, Backing.FORBIDDEN),
    ],
)
def test_permission_inside_a_whole_range(
    tmp_path: Path, mode: Mode, flags: str, eligible: int, expected: Backing
) -> None:
    text = smaps_text(BASE, 4 * MIB, anonymous=4096, flags=flags, eligible=eligible)
    assert split(tmp_path, text, mode) == {expected: 4096}


@pytest.mark.parametrize(
    ("enabled", "pmd_size", "status", "expected"),
    [
        ("[always] madvise never", None, "THP_enabled:\t1", "always"),
        ("always [madvise] never", None, "", "madvise"),
        ("always madvise [never]", None, "", "never"),
        ("[always] madvise never", None, "THP_enabled:\t0", "forbidden"),
        ("always [madvise] never", "always [inherit] madvise never", "", "madvise"),
        ("always madvise [never]", "[always] inherit madvise never", "", "always"),
        ("[always] madvise never", "always inherit madvise [never]", "", "never"),
    ],
)
def test_mode_of_pages_of_pmd_size(
    tmp_path: Path, enabled: str, pmd_size: str | None, status: str, expected: Mode
) -> None:
    thp = tmp_path / "sys/kernel/mm/transparent_hugepage"
    (thp / "hugepages-2048kB").mkdir(parents=True)
    (thp / "hugepages-64kB").mkdir()
    (thp / "hugepages-64kB/enabled").write_text("[always] inherit madvise never\n")
    (thp / "enabled").write_text(enabled + "\n")
    (thp / "hpage_pmd_size").write_text("2097152\n")
    inherited = "always [inherit] madvise never"
    (thp / "hugepages-2048kB/enabled").write_text((pmd_size or inherited) + "\n")
    (tmp_path / "proc/self").mkdir(parents=True)
    (tmp_path / "proc/meminfo").write_text("MemTotal: 4194304 kB\nAnonHugePages: 0 kB\n")
    (tmp_path / "proc/self/status").write_text(status + "\n")
    assert mode_of(host.host_facts(tmp_path)) == expected


def test_host_without_huge_pages_has_them_off(tmp_path: Path) -> None:
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc/meminfo").write_text("MemTotal: 4194304 kB\n")
    assert mode_of(host.host_facts(tmp_path)) == "never"


def test_private_copies_of_file_pages_are_never_huge(tmp_path: Path) -> None:
    text = smaps_text(BASE, 8 * MIB, anonymous=512, name="/usr/lib/libexample.so")
    assert split(tmp_path, text, "always") == {Backing.COPIED: 512}


@given(
    st.lists(
        st.tuples(
            st.integers(0, 2000), st.integers(1, 4000), st.floats(0, 1), st.sampled_from("hn-")
        ),
        min_size=1,
        max_size=8,
    ),
    st.sampled_from(["always", "madvise", "never"]),
)
def test_every_kib_has_one_reason(
    tmp_path_factory: pytest.TempPathFactory,
    drawn: list[tuple[int, int, float, str]],
    mode: Mode,
) -> None:
    """The reasons sum to the anonymous memory, none is negative, and no range is counted twice."""
    at, text, anonymous, room = BASE, "", 0, 0
    for gap, pages, filled, advice in drawn:
        start = at + gap * 4096
        at = start + pages * 4096
        whole = whole_kib(start, at, 2048)
        huge = int(filled * whole) // 2048 * 2048
        resident = huge + int(filled * (pages * 4 - huge)) // 4 * 4
        flags = {"h": "rd hg", "n": "rd nh", "-": "rd"}[advice]
        text += smaps_text(start, pages * 4096, anonymous=resident, huge=huge, flags=flags)
        anonymous += resident
        room += whole
    covered = split(tmp_path_factory.mktemp("tree"), text, mode)
    assert sum(covered.values()) == anonymous
    assert min(covered.values(), default=0) >= 0
    assert sum(covered.get(backing, 0) for backing in COULD_BE_HUGE) <= room


def test_stages_of_a_sequence() -> None:
    named = list(runtimes.stages(((1,), (2,), (1,), (2,)), 2))
    assert [stage for stage, _ in named] == [
        *("first", "repeat", "repeat"),
        *("first", "repeat", "repeat"),
        *("back", "back"),
    ]


def test_messages_come_back_as_they_went() -> None:
    request = runtimes.Request(
        "bert-tiny", "model.onnx", ((1, 2), (3, 4)), 5, 6, "openvino", 1, mmap=True, arena=False
    )
    assert runtimes.Request.decode(request.encode()) == request
    for shape in (None, (1, 2)):
        step = runtimes.Step("first", shape, 7, 0.5, "ab")
        assert runtimes.Step.decode(step.encode()) == step


@pytest.mark.parametrize(
    ("said", "published"),
    [
        ("cannot open '/home/someone/m.onnx': gone", "cannot open 'm.onnx': gone"),
        ('File "/a/b/c.py", line 3', 'File "c.py", line 3'),
        ("free(): invalid pointer", "free(): invalid pointer"),
        ("3/4 of 1 MiB/s", "3/4 of 1 MiB/s"),
    ],
)
def test_messages_name_no_folder(said: str, published: str) -> None:
    assert children.without_folders(said) == published


def test_arms_start_from_an_environment_that_steers_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in ("GLIBC_TUNABLES", "LD_PRELOAD", "MALLOC_ARENA_MAX", "NUMPY_MADVISE_HUGEPAGE"):
        monkeypatch.setenv(name, "1")
    added = children.environment({}).keys() & {*os.environ} ^ {*os.environ}
    assert added >= {"GLIBC_TUNABLES", "LD_PRELOAD", "MALLOC_ARENA_MAX", "NUMPY_MADVISE_HUGEPAGE"}
    assert children.environment(ADVISE.env)["GLIBC_TUNABLES"] == "glibc.malloc.hugetlb=1"


@pytest.mark.parametrize(("name", "silent"), [("ORT_DISABLE_TELEMETRY", "1"), ("CI", "true")])
def test_runs_report_nothing_unless_asked_to(
    monkeypatch: pytest.MonkeyPatch, name: str, silent: str
) -> None:
    monkeypatch.delenv(name, raising=False)
    assert children.environment({})[name] == silent
    monkeypatch.setenv(name, "0")
    assert children.environment({})[name] == "0"


@pytest.mark.parametrize("runtime", ["openvino", "onnxruntime"])
def test_runtimes_leave_nothing_behind(tmp_path: Path, runtime: str) -> None:
    """Neither in the home nor among temporary files, as they do where they report their use."""
    places = {"HOME": str(tmp_path), "TMPDIR": str(tmp_path), "PYTHONDONTWRITEBYTECODE": "1"}
    subprocess.run(
        [sys.executable, "-c", f"import {runtime}"], env=children.environment(places), check=True
    )
    assert list(tmp_path.iterdir()) == []


def test_too_little_memory_is_a_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host, "usable_memory_kib", lambda: 100 * 1024)
    monkeypatch.setattr(inference, "missing", lambda _: None)
    answer = inference.run(bert.TINY, cache=tmp_path)
    assert isinstance(answer, NotObservable)
    assert "512 MiB" in str(answer)
    assert "100 MiB" in str(answer)


def test_missing_runtime_is_a_sentence(tmp_path: Path) -> None:
    absent = Runtime("no_such_runtime", "None")  # type: ignore[arg-type]
    answer = inference.run(bert.TINY, absent, cache=tmp_path)
    assert isinstance(answer, NotObservable)
    assert "pip install" in str(answer)


def runnable(tmp_path: Path, runtime: Runtime, arm: Arm = DEFAULT) -> Report:
    report = inference.run(bert.TINY, runtime, arm, cache=tmp_path)
    if isinstance(report, NotObservable):
        pytest.skip(str(report))
    return report


@pytest.fixture(scope="module", params=inference.RUNTIMES, ids=lambda runtime: runtime.name)
def reports(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Report]:
    cache = tmp_path_factory.mktemp("models")
    return {arm.name: runnable(cache, request.param, arm) for arm in ARMS}


def test_run_has_every_phase_in_order(reports: dict[str, Report]) -> None:
    for report in reports.values():
        done = [phase.step.stage for phase in report.phases]
        assert done == ["start", "load", *["first", "repeat", "repeat"] * 3, "back", "back"]

        written = json.loads(report.to_json())["phases"][-1]
        assert written["step"]["stage"] == "back"
        heap = written["memory"]["anonymous"]["heap"]["kib"]
        assert heap == {backing.value: heap[backing.value] for backing in Backing}


def test_outputs_are_equal_in_every_arm_and_repeat(reports: dict[str, Report]) -> None:
    assert len({report.checksums for report in reports.values()}) == 1
    by_shape: dict[object, set[str | None]] = {}
    for phase in reports["default"].phases[2:]:
        by_shape.setdefault(phase.step.shape, set()).add(phase.step.checksum)
    assert all(len(checksums) == 1 for checksums in by_shape.values())


def test_memory_adds_up(reports: dict[str, Report]) -> None:
    for report in reports.values():
        for phase in report.phases:
            memory = phase.memory
            assert 0 < memory.coverage.anonymous_kib <= memory.resident_kib
            assert 0 <= memory.coverage.share <= memory.coverage.possible_share <= 1
            assert memory.vmas > 0


def test_load_touches_memory(reports: dict[str, Report]) -> None:
    """Base pages come one fault at a time, so a step can gain no more pages than it faulted.

    Only where huge pages are off, and for anonymous memory, which is not mapped around a fault.
    What the process touches to report a step belongs to none; it gets a MiB.
    """
    if host.host_facts().base_kib != 4:
        pytest.skip("Base pages are larger than 4 KiB here.")
    phases = reports["off"].phases
    for before, after in itertools.pairwise(phases):
        gained = after.memory.coverage.anonymous_kib - before.memory.coverage.anonymous_kib
        assert after.step.minor_faults * 4 + 1024 >= gained


def test_growth_faults_and_steady_state_does_not(reports: dict[str, Report]) -> None:
    """The largest shape needs some MiB of new blocks; repeating it needs none."""
    off = reports["off"]
    largest = off.at("first")[-1]
    (steady,) = (phase for phase in off.steady if phase.step.shape == largest.step.shape)
    assert largest.step.minor_faults > 256
    assert steady.step.minor_faults < largest.step.minor_faults / 4


def test_forbidden_huge_pages_do_not_appear(reports: dict[str, Report]) -> None:
    for phase in reports["off"].phases:
        assert phase.memory.coverage.kib[Backing.HUGE] == 0
        assert phase.memory.eligible_kib == 0


def test_mapped_weights_are_seen(tmp_path: Path) -> None:
    mapped = runnable(tmp_path, inference.OPENVINO_IR)
    read = runnable(tmp_path, inference.OPENVINO_IR_READ)
    assert mapped.at("load")[0].memory.weights_kib > 0
    assert read.at("load")[0].memory.weights_kib == 0
    assert mapped.checksums == read.checksums


def test_crash_is_a_sentence_without_paths(tmp_path: Path) -> None:
    class Broken(bert.Bert):
        def model_path(self, cache: Path) -> Path:
            broken = cache / "broken.onnx"
            broken.write_bytes(b"not a model")
            return broken

    tiny = bert.TINY
    broken = Broken(tiny.name, tiny.config, tiny.shapes, tiny.memory_kib)
    if isinstance(reason := inference.missing(inference.OPENVINO), NotObservable):
        pytest.skip(str(reason))
    with pytest.raises(ProbeError, match="The measured process failed with status 1") as caught:
        inference.run(broken, cache=tmp_path)
    assert str(tmp_path) not in str(caught.value)


def test_signal_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, write_program: Callable[[Path, str], Path]
) -> None:
    fake = write_program(tmp_path / "python", "kill -TERM $$")
    monkeypatch.setattr(sys, "executable", str(fake))
    request = runtimes.Request(
        "bert-tiny", "none.onnx", ((1, 2),), 0, 0, "openvino", 1, mmap=True, arena=True
    )
    with pytest.raises(ProbeError, match="was ended by SIGTERM"):
        list(inference.phases(request, DEFAULT, timeout=30))


def test_slow_run_is_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, write_program: Callable[[Path, str], Path]
) -> None:
    fake = write_program(tmp_path / "python", "exec sleep 60")
    monkeypatch.setattr(sys, "executable", str(fake))
    request = runtimes.Request(
        "bert-tiny", "none.onnx", ((1, 2),), 0, 0, "openvino", 1, mmap=True, arena=True
    )
    with pytest.raises(ProbeError, match=r"given 0\.2 s and did not finish"):
        list(inference.phases(request, OFF, timeout=0.2))
