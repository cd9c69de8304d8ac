"""Figures of allocators: what was counted, what is missing, and what a finding rests on."""

from __future__ import annotations

import dataclasses
import re
from typing import TYPE_CHECKING

import pytest

from hugeprobe.allocators import GLIBC, JEMALLOC, Allocation, Allocator, Preloaded
from hugeprobe.areas import Resident
from hugeprobe.blocks import Blocks, Request
from hugeprobe.errors import NotObservable
from hugeprobe.figures import allocators
from hugeprobe.host import MthpSize, host_facts
from hugeprobe.inference import ONNXRUNTIME, OPENVINO, Runtime
from hugeprobe.placement import Touch

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

MISSING = NotObservable("it is not installed")


def allocation(allocator: Allocator, size: int, touch: Touch, huge: float) -> Allocation:
    """Sixteen blocks with a header of 16 bytes each, one after the other from a boundary on."""
    pages = -(-(size + 24) // 4096) * 4096
    starts = tuple((1 << 40) + i * pages + 16 for i in range(16))
    kib = pages * 16 // 1024
    return Allocation(
        allocator,
        Request(size, 16, touch, allocator.numpy),
        Blocks(starts, (pages - 16,) * 16, 1000 + size % 1000),
        Resident(kib, int(huge * kib)),
    )


TWO_MIB = 2 << 20
ALLOCATIONS: list[Allocation | NotObservable] = [
    allocation(GLIBC, TWO_MIB, Touch.EACH, 0.06),
    allocation(GLIBC, TWO_MIB, Touch.AFTER, 0.5),
    allocation(JEMALLOC, TWO_MIB, Touch.EACH, 0.93),
    allocation(JEMALLOC, TWO_MIB, Touch.AFTER, 0.91),
    MISSING,
]


@pytest.mark.parametrize(
    "figure",
    [
        allocators.coverage_picture,
        allocators.faults_table,
        allocators.winners_sentence,
        allocators.order_sentence,
        allocators.mappings_table,
        allocators.edge_sentence,
        allocators.preload_table,
        allocators.preload_sentence,
    ],
)
def test_allocators_that_could_not_be_measured_are_a_sentence(figure: object) -> None:
    assert callable(figure)
    assert str(figure([MISSING])) == (
        "Nothing could be measured. Not observable here, because it is not installed."
    )


def test_allocators_are_measured_and_missing_ones_named(tree: Callable[[str], Path]) -> None:
    text = str(allocators.measured(ALLOCATIONS, host_facts()))
    assert text.startswith("4 of 5 measurements took place, each in a new process.")
    assert text.endswith(str(MISSING))
    off = host_facts(tree("linux-6.6-no-thp"))
    assert "Huge pages are off" in str(allocators.measured(ALLOCATIONS, off))
    assert allocators.telling_sizes(off) == (TWO_MIB,)


def test_pages_that_do_not_count_as_huge_are_said() -> None:
    small = (MthpSize(64, "inherit", None, ()),)
    facts = dataclasses.replace(
        host_facts(), thp_mode="madvise", thp_allowed_for_process=True, sizes=small
    )
    assert "also gives pages of 64 KiB" in str(allocators.measured(ALLOCATIONS, facts))
    never = dataclasses.replace(facts, thp_mode="never")
    assert "also gives" not in str(allocators.measured(ALLOCATIONS, never))


def test_coverage_of_allocators_is_in_both_tables() -> None:
    text = str(allocators.coverage_picture(ALLOCATIONS))
    assert re.findall(r"\d+%", text) == ["6%", "93%", "50%", "91%"]
    assert text.index("touched at once") < text.index("touched after all")


def test_only_what_is_huge_in_both_orders_wins() -> None:
    assert str(allocators.winners_sentence(ALLOCATIONS)) == (
        "On this host 1 of 2 settings made at least 80% of the memory huge at every size: "
        "`jemalloc, advise`."
    )
    assert "0 of 1 settings" in str(allocators.winners_sentence(ALLOCATIONS[:2]))


def test_the_order_counts_where_it_changes_coverage() -> None:
    assert "in 1 of 2 cases" in str(allocators.order_sentence(ALLOCATIONS))
    assert "in 0 of 1 cases" in str(allocators.order_sentence(ALLOCATIONS[2:]))


def test_what_is_held_is_the_worst_of_all_sizes() -> None:
    row = str(allocators.faults_table(ALLOCATIONS)).splitlines()[2]
    assert [cell.strip() for cell in row.strip("|").split("|")] == ["glibc", "1,152", "100%"]


@pytest.mark.parametrize(
    ("size", "asked", "maps", "aligned"),
    [
        (TWO_MIB, "2 MiB", "2 MiB + 4 KiB", "1 of 16"),
        (TWO_MIB - 24, "2 MiB - 24 B", "2 MiB", "16 of 16"),
        (TWO_MIB - 4120, "2 MiB - 4,120 B", "2 MiB - 4 KiB", "1 of 16"),
        ((4 << 20) - 4096, "4 MiB - 4 KiB", "4 MiB", "16 of 16"),
        (3 << 20, "3 MiB", "4 MiB - 1,020 KiB", "1 of 16"),
    ],
)
def test_mappings_are_named_by_multiples(size: int, asked: str, maps: str, aligned: str) -> None:
    found = allocation(GLIBC, size, Touch.EACH, 0)
    row = str(allocators.mappings_table([found])).splitlines()[2]
    assert [cell.strip() for cell in row.strip("|").split("|")][:3] == [asked, maps, aligned]


def test_one_byte_more_is_said_with_its_faults() -> None:
    edges = [allocation(GLIBC, TWO_MIB - less, Touch.EACH, 0) for less in (24, 23)]
    assert str(allocators.edge_sentence(edges)) == (
        "On this host, 16 blocks of 2,097,128 bytes cost 1,128 minor faults, and blocks of one "
        "byte more 1,129."
    )


def preloaded(allocator: Allocator, runtime: Runtime, *, cured: bool, ends: bool) -> Preloaded:
    failure = "The measured process was ended by SIGABRT: free(): invalid pointer."
    return Preloaded(allocator, runtime, "1", cured, failure if ends else None)


def test_a_wheel_that_does_not_abort_reads_right() -> None:
    for ends in (True, False):
        runs = [
            preloaded(JEMALLOC, ONNXRUNTIME, cured=False, ends=False),
            preloaded(JEMALLOC, OPENVINO, cured=False, ends=ends),
            preloaded(JEMALLOC, OPENVINO, cured=True, ends=False),
        ]
        assert str(allocators.preload_sentence(runs)) == (
            f"On this host {int(ends)} of 1 preloaded allocators ended OpenVINO 1 while it loaded "
            "a model; with `TBB_ENABLE_SANITIZERS=1`, 0 of 1 did."
        )
        table = str(allocators.preload_table(runs))
        assert table.count("worked") == 3 - ends
        assert table.count("ended by SIGABRT: free(): invalid pointer") == ends
