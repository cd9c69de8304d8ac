"""Large models: where weights are, what brings a file in, and what locking memory does."""

from __future__ import annotations

import re
import resource
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from hugeprobe import arms, inference, linux, locking
from hugeprobe.areas import aligned_area, touch
from hugeprobe.coverage import Backing, Coverage
from hugeprobe.errors import NotObservable
from hugeprobe.figures import largemodels as figures
from hugeprobe.inference import OPENVINO_CACHED, OPENVINO_CACHED_BARE, OPENVINO_IR, Memory, Report
from hugeprobe.locking import BroughtIn, Way
from hugeprobe.runtimes import Stage, Step
from hugeprobe.sharing import takein
from hugeprobe.sharing.takein import TakenIn
from hugeprobe.sizes import KIB, page_sizes
from hugeprobe.workloads.shards import SMALL

SIZES = page_sizes()
MISSING = NotObservable("it is not installed")
PAGE = Path(__file__).parents[1] / "docs" / "large-models.md"


# New memory ---------------------------------------------------------------------------------------


def brought_in(name: str) -> BroughtIn:
    way: Way = next(way for way in locking.WAYS if way.name == name)
    found = locking.bring_in(way)
    if isinstance(found, NotObservable):
        pytest.skip(str(found))
    return found


@pytest.mark.parametrize("name", ["map, lock, advise", "map, advise, lock"])
def test_a_lock_takes_all_faults_and_leaves_none(name: str) -> None:
    found = brought_in(name)
    assert found.faults > 0
    assert found.later == 0
    assert found.locked_kib == found.resident.anon_kib == 2 * SIZES.pmd // KIB


def test_a_lock_on_fault_takes_no_faults_and_locks_all_the_same() -> None:
    found = brought_in("map, lock on fault, advise")
    assert found.faults == 0
    assert found.later > 0
    assert found.locked_kib == found.resident.anon_kib


def test_advice_is_as_good_with_a_lock_on_fault_as_without() -> None:
    free, locked = map(brought_in, ("map, advise", "map, lock on fault, advise"))
    assert (locked.later, locked.resident.huge_kib) == (free.later, free.resident.huge_kib)


def test_locked_memory_can_be_collapsed() -> None:
    found = brought_in("map, lock, collapse")
    assert found.resident.coverage == 1
    assert found.locked_kib == found.resident.anon_kib


def test_what_khugepaged_met_is_done_again(monkeypatch: pytest.MonkeyPatch) -> None:
    counts = iter([0, 1, 1, 1])
    monkeypatch.setattr(locking, "_collapsed", lambda: next(counts))
    locking.bring_in(Way("map", ()))
    assert not list(counts)
    monkeypatch.setattr(locking, "_collapsed", iter(range(100)).__next__)
    assert "khugepaged" in str(locking.bring_in(Way("map", ())))


def test_what_the_kernel_refuses_is_a_sentence() -> None:
    def refuse(_: object) -> None:
        raise OSError(12, "Cannot allocate memory")

    found = locking.bring_in(Way("map, lock", (refuse,)))
    assert re.search(r"refused .map, lock. for .* may lock (any size|[\d.]+ \w+)", str(found))


@pytest.mark.parametrize("refused", [False, True])
def test_a_limit_counts_only_if_the_kernel_applies_it(
    monkeypatch: pytest.MonkeyPatch, *, refused: bool
) -> None:
    def lock(*_: int, on_fault: bool = False) -> None:
        assert on_fault
        if refused:
            raise OSError(12, "Cannot allocate memory")

    monkeypatch.setattr(locking, "lock", lock)
    monkeypatch.setattr(resource, "getrlimit", lambda _: (8 << 20, 8 << 20))
    found = locking.refused_all()
    assert found is None or "may lock 8 MiB here" in str(found)
    assert (found is not None) == refused


def test_pages_in_memory_are_counted() -> None:
    with aligned_area(SIZES.pmd, SIZES) as span:
        assert linux.in_memory(span.start, span.length, SIZES.base) == 0
        touch(span)
        whole = span.length // SIZES.base
        assert linux.in_memory(span.start, span.length, SIZES.base) == whole


# Files --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("beforehand", takein.BEFOREHAND, ids=lambda each: each.name)
@pytest.mark.parametrize("way", takein.WAYS, ids=lambda each: each.name)
def test_a_file_that_was_taken_in_costs_nothing_later(
    beforehand: takein.Beforehand, way: Way
) -> None:
    found = takein.take_in(beforehand, way)
    if isinstance(found, NotObservable):
        pytest.skip(str(found))
    assert found.resident_kib == found.length // KIB
    assert found.later == 0
    assert found.minor_faults + found.major_faults > 0
    assert found.pmd_kib <= found.resident_kib
    assert found.locked_kib == (found.resident_kib if locking.lock_now in way.calls else 0)
    assert 0 <= found.in_memory_before <= found.length


def test_locking_a_file_in_memory_changes_nothing_about_its_pages() -> None:
    written = takein.BEFOREHAND[1]
    found = [takein.take_in(written, way) for way in takein.WAYS]
    seen = [each for each in found if isinstance(each, TakenIn)]
    if not seen:
        pytest.skip(str(found[0]))
    assert {each.in_memory_before for each in seen} == {seen[0].length}
    assert len({(each.minor_faults, each.major_faults, each.pmd_kib) for each in seen}) == 1


# Models -------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("models")


def run(
    cache: Path, runtime: inference.Runtime, arm: arms.Arm = arms.DEFAULT, **how: Any
) -> Report:
    pytest.importorskip("onnx")
    found = inference.run(SMALL, runtime, arm, cache=cache, repeats=0, **how)
    if isinstance(found, NotObservable):
        pytest.skip(str(found))
    return found


def test_a_model_from_the_cache_answers_alike(cache: Path) -> None:
    plain, whole, bare = (
        run(cache, runtime) for runtime in (OPENVINO_IR, OPENVINO_CACHED, OPENVINO_CACHED_BARE)
    )
    assert plain.at("first")[0].step.checksum is not None
    assert plain.checksums == whole.checksums == bare.checksums
    sizes = [
        sum(file.stat().st_size for file in cache.glob(f"*{each.runtime.cache_mode}/*.blob"))
        for each in (whole, bare)
    ]
    assert sizes[0] > SMALL.config.kib * KIB > sizes[1] > 0
    of_bin = [each.at("load")[0].memory.weights_kib for each in (plain, whole, bare)]
    assert of_bin[0] > 0 == of_bin[1] < of_bin[2]


def test_dropping_gives_back_what_releasing_does_not(cache: Path) -> None:
    found = run(cache, OPENVINO_IR, reloads=1)
    first, release, drop, again = (
        found.at(stage)[0].memory.coverage.anonymous_kib
        for stage in ("first", "release", "drop", "again")
    )
    assert first - release < SMALL.config.kib / 2 < release - drop
    assert again - drop > SMALL.config.kib / 2
    assert found.at("again")[0].step.checksum == found.at("first")[0].step.checksum


def test_only_a_lock_on_fault_leaves_memory_as_it_is(cache: Path) -> None:
    free, at_once, on_fault = (
        run(cache, OPENVINO_IR, replace(locking.ARMS[0], name=when, lock=when))
        for when in ("never", "at the start", "at the start, on fault")
    )
    held = [each.at("first")[0].memory for each in (free, at_once, on_fault)]
    assert held[0].locked_kib == 0 < min(held[1].locked_kib, held[2].locked_kib)
    anonymous = [each.coverage.anonymous_kib for each in held]
    assert anonymous[1] - anonymous[0] > 4 * abs(anonymous[2] - anonymous[0])
    assert free.checksums == at_once.checksums == on_fault.checksums


def test_the_recipe_locks_or_says_so() -> None:
    (recipe,) = re.findall(r":name: lock-python\n\n(.*?)```", PAGE.read_text(), re.DOTALL)
    shown = "print(open('/proc/self/status').read())"
    done = subprocess.run(
        [sys.executable, "-c", f"{recipe}\n{shown}"], capture_output=True, text=True, check=True
    )
    (locked,) = re.findall(r"VmLck:\s+(\d+) kB", done.stdout)
    assert (int(locked) == 0) == ("not locked" in done.stdout)


# Figures ------------------------------------------------------------------------------------------

MIB_OF = {Backing.HUGE: 3 * KIB, Backing.EDGE: KIB}


def report(arm: arms.Arm, file_mib: int = 2) -> Report:
    coverage = Coverage(dict.fromkeys(Backing, 0) | MIB_OF)
    memory = Memory({"heap": 4 * KIB, "file": file_mib * KIB}, {"heap": coverage}, 0, 0, 0, 0, 1, 0)
    stages: tuple[Stage, ...] = ("start", "load", "first", "repeat", "release", "drop", "again")
    steps = (Step(stage, None, 1234, 0.1, None) for stage in stages)
    done = tuple(inference.Phase(step, memory) for step in steps)
    return Report("model", OPENVINO_IR, arm, "1", 1, done)


@pytest.mark.parametrize(
    "figure",
    [
        figures.where_picture,
        figures.faults_table,
        figures.reload_table,
        figures.cached_table,
        figures.locked_picture,
        figures.locked_table,
        figures.locked_sentence,
        figures.locking_table,
        figures.locking_refused,
        figures.taken_picture,
        figures.taken_table,
        figures.taken_sentence,
        figures.second_table,
    ],
)
def test_what_could_not_be_observed_is_a_sentence(figure: Any) -> None:
    assert str(MISSING) in str(figure([MISSING, MISSING]))


def test_locked_processes_are_compared_with_their_like() -> None:
    free, locked, other, *_ = locking.ARMS
    assert (free.lock, locked.lock, other.lock) == ("never", "at the start", "never")
    said = str(figures.locked_sentence([report(free), report(locked, 8), report(other), MISSING]))
    assert f"holds in memory: 2.0 times ({locked.name}). {MISSING}" in said
    table = str(figures.locked_table([report(free), report(locked, 8)]))
    assert re.search(r"default, locked at the start\s*\|\s*3,702\s*\|\s*12\s*\|\s*3\s*\|", table)


def test_taken_files_are_told_as_shares() -> None:
    way, beforehand = takein.WAYS[2], takein.BEFOREHAND[0]
    found = TakenIn(beforehand, way, 4 << 20, 2 << 20, 66, 1, 0, 4096, 1024, 4096)
    table = str(figures.taken_table([found, MISSING]))
    row = ["50%", "66", "1", "0", "25%", "100%"]
    assert re.search(r"\s*\|\s*".join([way.name, *row]), table)
    assert str(figures.taken_sentence([found, MISSING])) == f"This host gave 1 of 2. {MISSING}"
