"""Blocks of real allocators in processes of their own: exact counts on this host."""

from __future__ import annotations

import ctypes
import ctypes.util
import resource
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from hugeprobe import allocators, areas, blocks, children, inference, preload, smaps
from hugeprobe.allocators import (
    GLIBC,
    GLIBC_ADVISE,
    GLIBC_KEEP,
    GLIBC_LATER,
    JEMALLOC_PLAIN,
    NUMPY,
    PRELOADED,
    Allocation,
    Allocator,
    Preloaded,
    allocate,
    run_preloaded,
)
from hugeprobe.blocks import Blocks, Request
from hugeprobe.coverage import mode_of
from hugeprobe.errors import NotObservable, NotPermittedError, ProbeError
from hugeprobe.host import effective_sizes, host_facts
from hugeprobe.inference import ONNXRUNTIME, OPENVINO
from hugeprobe.placement import Rule, Touch
from hugeprobe.probe import find_rule
from hugeprobe.sizes import KIB, MIB

if TYPE_CHECKING:
    from collections.abc import Callable

FACTS = host_facts()
COUNT = allocators.COUNT
needs_glibc = pytest.mark.skipif(
    FACTS.glibc is None or FACTS.base_kib != 4, reason="needs glibc and pages of 4 KiB"
)
needs_advice = pytest.mark.skipif(
    mode_of(FACTS) != "madvise"
    or effective_sizes(FACTS, advised=True) != (2048,)
    or tuple(map(int, (FACTS.glibc or "0.0").split("."))) < (2, 35),
    reason="needs mode madvise, pages of 2 MiB alone, and a glibc that advises",
)


def measured(allocator: Allocator, size: int, touch: Touch = Touch.EACH) -> Allocation:
    found = allocate(allocator, size, touch)
    if isinstance(found, NotObservable):
        pytest.skip(str(found))
    return found


def test_messages_come_back_as_they_went() -> None:
    request = Request(5, 6, Touch.AFTER, numpy=True, freed=7)
    assert Request.decode(request.encode()) == request
    told = Blocks((1, 2), (3, 4), 5)
    assert Blocks.decode(told.encode()) == told


@pytest.mark.parametrize(("touch", "order"), [(Touch.EACH, "awawaw"), (Touch.AFTER, "aaawww")])
def test_blocks_are_written_in_the_order_that_was_asked_for(
    monkeypatch: pytest.MonkeyPatch, touch: Touch, order: str
) -> None:
    done: list[str] = []

    def allocated(size: int) -> int:
        done.append("a")
        return size

    monkeypatch.setattr(ctypes, "memset", lambda *_: done.append("w"))
    starts, _ = blocks.fill(Request(4096, 3, touch, numpy=False), allocated)
    assert starts == [4096] * 3
    assert "".join(done) == order


@needs_glibc
@pytest.mark.parametrize(
    ("size", "kib"),
    [
        (2 * MIB - 4120, 2044),
        (2 * MIB - 4119, 2048),
        (2 * MIB - 24, 2048),
        (2 * MIB - 23, 2052),
        (2 * MIB, 2052),
        (4 * MIB, 4100),
    ],
)
def test_glibc_maps_a_page_more_than_a_round_request(size: int, kib: int) -> None:
    assert {span.length for span in measured(GLIBC, size).spans} == {kib * KIB}


@needs_glibc
def test_glibc_aligns_nothing_and_the_kernel_only_multiples() -> None:
    exact, over = (measured(GLIBC, size).spans for size in (2 * MIB - 24, 2 * MIB))
    aligned = [sum(span.start % (2 * MIB) == 0 for span in spans) for spans in (exact, over)]
    expected = {Rule.MULTIPLES: [COUNT, 0], Rule.FORCED: [COUNT, COUNT]}
    if (rule := find_rule().rule) not in expected:
        pytest.skip("this kernel aligns by chance or by another rule")
    assert aligned[0] == expected[rule][0]
    # The lengths put one of them onto a boundary by chance, at most.
    assert aligned[1] in (expected[rule][1], expected[rule][1] + 1)


@needs_glibc
@pytest.mark.parametrize("touch", list(Touch))
@pytest.mark.parametrize("allocator", [GLIBC, NUMPY], ids=lambda allocator: allocator.name)
def test_without_advice_every_page_faults(allocator: Allocator, touch: Touch) -> None:
    if effective_sizes(FACTS, advised=False):
        pytest.skip("this host gives larger pages without advice")
    found = measured(allocator, 2 * MIB, touch)
    assert found.blocks.minor_faults // COUNT == 513
    assert found.coverage == 0
    assert found.resident.anon_kib // COUNT == 2052


@needs_glibc
@needs_advice
@pytest.mark.parametrize("touch", list(Touch))
def test_advice_helps_where_the_mapping_is_a_multiple(touch: Touch) -> None:
    if find_rule().rule is not Rule.MULTIPLES:
        pytest.skip("this kernel follows another rule")
    exact, over = (measured(GLIBC_ADVISE, size, touch) for size in (2 * MIB - 24, 2 * MIB))
    assert exact.blocks.minor_faults // COUNT == 1
    assert exact.coverage > 0.99
    # Each lies a page lower in its range than the one before. Where they cross a boundary, the one
    # on it has a whole range of its own, and so has the next.
    assert over.blocks.minor_faults >= 513 * (COUNT - 2)
    assert over.resident.huge_kib <= 2 * 2048


@needs_glibc
@needs_advice
@pytest.mark.parametrize("size", [1536 * KIB, 2 * MIB, 3 * MIB])
@pytest.mark.parametrize("allocator", [GLIBC_LATER, GLIBC_KEEP], ids=lambda each: each.name)
def test_blocks_from_the_heap_are_huge(allocator: Allocator, size: int) -> None:
    found = measured(allocator, size)
    assert found.coverage > 0.9
    assert found.blocks.minor_faults < found.asked_kib / 2048 * 2 + COUNT


@needs_advice
@pytest.mark.parametrize(
    ("library", "plain", "told"),
    [
        ("libjemalloc.so.2", JEMALLOC_PLAIN, allocators.JEMALLOC),
        ("libmimalloc.so.2", allocators.MIMALLOC_PLAIN, allocators.MIMALLOC),
    ],
)
def test_an_allocator_that_is_told_to_advise_does(
    library: str, plain: Allocator, told: Allocator
) -> None:
    if preload.library(str(plain.library)) != library:
        pytest.skip(f"{library} is what is known to do so")
    if Path("/proc/sys/vm/nr_hugepages").read_text().strip() != "0":
        pytest.skip("mimalloc takes reserved huge pages where there are some")
    assert measured(plain, 3 * MIB).coverage == 0
    assert measured(told, 3 * MIB).coverage > 0.9


@pytest.mark.parametrize("allocator", allocators.ALLOCATORS, ids=lambda each: each.name)
def test_blocks_are_apart_and_hold_what_was_asked(allocator: Allocator) -> None:
    found = measured(allocator, 3 * MIB)
    inside = sorted(zip(found.blocks.starts, found.blocks.usable, strict=True))
    assert len(inside) == COUNT
    assert all(usable >= 3 * MIB for _, usable in inside)
    ends = [start + 3 * MIB for start, _ in inside]
    assert all(end <= start for end, (start, _) in zip(ends, inside[1:], strict=False))
    if allocator is not allocators.MIMALLOC:  # which may take reserved huge pages
        assert found.resident.anon_kib >= 0.95 * found.asked_kib


def test_a_missing_library_is_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ctypes.util, "find_library", lambda _: None)
    for allocator in PRELOADED:
        found = allocate(allocator, 2 * MIB, Touch.EACH)
        assert isinstance(found, NotObservable)
        assert "is not installed; Debian and Ubuntu have it in the package lib" in str(found)


def test_too_little_memory_is_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(areas, "usable_memory_kib", lambda: 40 * KIB)
    found = allocate(GLIBC, 2 * MIB, Touch.EACH)
    assert isinstance(found, NotObservable)
    assert "would touch 32 MiB" in str(found)


def test_hidden_memory_maps_are_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: int) -> None:
        raise NotPermittedError("not yours")

    monkeypatch.setattr(smaps, "snapshot", refuse)
    found = allocate(GLIBC, 2 * MIB, Touch.EACH, count=1)
    assert isinstance(found, NotObservable)
    assert "does not show the memory map" in str(found)


# Preloading ---------------------------------------------------------------------------------------


def test_a_process_that_ends_is_a_result(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def end(*_: object, **__: object) -> None:
        raise ProbeError("The measured process was ended by SIGABRT: free(): invalid pointer.")

    pytest.importorskip("openvino")
    monkeypatch.setattr(inference, "run", end)
    ended = run_preloaded(JEMALLOC_PLAIN, OPENVINO, cured=False, cache=tmp_path)
    assert isinstance(ended, Preloaded)
    assert "SIGABRT" in str(ended.failure)


def test_a_missing_runtime_is_a_sentence(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    missing = NotObservable("it is not installed")
    monkeypatch.setattr(inference, "run", lambda *_, **__: missing)
    assert run_preloaded(JEMALLOC_PLAIN, OPENVINO, cured=True, cache=tmp_path) is missing


@pytest.mark.parametrize("allocator", PRELOADED, ids=lambda allocator: allocator.name)
def test_the_cure_and_onnx_runtime_work(allocator: Allocator, tmp_path: Path) -> None:
    for runtime, cured in ((OPENVINO, True), (ONNXRUNTIME, False)):
        run = run_preloaded(allocator, runtime, cured=cured, cache=tmp_path)
        if isinstance(run, NotObservable):
            pytest.skip(str(run))
        assert run.failure is None


def test_a_process_that_aborts_leaves_no_core(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, write_program: Callable[[Path, str], Path]
) -> None:
    """The limit in blocks of 512 bytes, as the shell says it, is that of a core of one byte."""
    before = resource.getrlimit(resource.RLIMIT_CORE)
    resource.setrlimit(resource.RLIMIT_CORE, (before[1], before[1]))
    fake = write_program(tmp_path / "python", "sleep 0.2; ulimit -c; kill -ABRT $$")
    monkeypatch.setattr(sys, "executable", str(fake))
    monkeypatch.chdir(tmp_path)
    try:
        with (
            pytest.raises(ProbeError, match="was ended by SIGABRT: 0"),
            children.started("none", [], {}, 30),
        ):
            pass
    finally:
        resource.setrlimit(resource.RLIMIT_CORE, before)
    assert [path.name for path in tmp_path.iterdir()] == ["python"]
