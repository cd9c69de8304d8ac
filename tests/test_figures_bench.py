"""What pages show of a benchmark: sentences where there is none, no gain that does not stand."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from hugeprobe import arms, realweights
from hugeprobe.bench import record, summary
from hugeprobe.drawing import Mark, intervals
from hugeprobe.errors import NotObservable
from hugeprobe.figures import bench, benchmarking, fixing
from hugeprobe.host import host_facts

if TYPE_CHECKING:
    from hugeprobe.bench.record import BenchRecord

MISSING = NotObservable("it has not been made yet")
NUMBERS = re.compile(r"([\d.]+) \(([\d.]+) to ([\d.]+)\)")


@pytest.fixture(scope="module")
def recorded() -> BenchRecord:
    found = record.newest()
    assert not isinstance(found, NotObservable)
    return found


@pytest.mark.parametrize(
    "figure",
    [
        bench.origin,
        bench.chance,
        bench.not_run,
        bench.standing,
        bench.backing,
        bench.host_modes,
        bench.arms_described,
        bench.cells_described,
        benchmarking.drift_sentence,
        benchmarking.touches_picture,
        benchmarking.touches_sentence,
        benchmarking.weights_table,
        fixing.before_and_after,
        fixing.collapse_table,
        fixing.collapse_sentence,
        fixing.faults_sentence,
        fixing.why,
        fixing.what_is_left,
        fixing.owners,
        fixing.space,
    ],
)
def test_what_is_missing_is_a_sentence(figure: object) -> None:
    assert callable(figure)
    assert str(figure(MISSING)) == str(MISSING)


def test_a_cell_that_is_missing_is_a_sentence(recorded: BenchRecord) -> None:
    for made in (MISSING, recorded):
        table = bench.arms_table(made, "resnet", "OpenVINO", "first")
        assert str(table).startswith("Not observable here")
        picture = bench.faults_by_shape(made, "resnet", "OpenVINO", [arms.DEFAULT])
        assert str(picture).startswith("Not observable here")
        assert "Not observable" in str(bench.fall(made, "resnet", "OpenVINO", arms.KEEP))


def test_every_speed_up_that_is_printed_excludes_one(recorded: BenchRecord) -> None:
    tables = [
        str(bench.arms_table(recorded, cell.workload, cell.runtime, moment))
        for cell in recorded.cells
        for moment in summary.MOMENTS
    ]
    found = [row for table in [*tables, str(bench.standing(recorded))] for row in table.split("|")]
    claimed = [NUMBERS.search(cell) for cell in found if "none shown" not in cell]
    ratios = [match for match in claimed if match]
    assert len(ratios) > 20
    for match in ratios:
        _, low, high = map(float, match.groups())
        assert low > 1 or high < 1, match.group()


def test_tally_counts_every_workload_once(recorded: BenchRecord) -> None:
    for moment in summary.MOMENTS:
        counts = list(
            map(int, re.findall(r"in (\d+)", str(bench.tally(recorded, arms.KEEP, moment))))
        )
        total = int(re.findall(r"of (\d+)\.", str(bench.tally(recorded, arms.KEEP, moment)))[0])
        assert sum(counts[:3]) == total == len(recorded.cells)


def test_map_draws_what_may_be_no_difference_hollow(recorded: BenchRecord) -> None:
    assert Mark(1.1, 0.9, 1.2).stands is False
    assert Mark(1.3, 1.2, 1.4).stands is True
    picture = intervals(
        {"load": {"a": {"keep": Mark(1.1, 0.9, 1.2)}}}, {"keep": "#000000"}, "x", "t"
    )
    assert "0.90 to 1.20" in picture.text
    whole = bench.where_it_pays(recorded, [arms.ADVISE, arms.KEEP])
    assert all(cell.workload in str(whole) for cell in recorded.cells)


def test_equal_arms_are_counted(recorded: BenchRecord) -> None:
    found = summary.chance(recorded)
    assert found.comparisons > 10
    assert f"{found.differing} of {found.comparisons}" in str(bench.chance(recorded))


def test_arms_of_the_record_are_those_of_the_program(recorded: BenchRecord) -> None:
    for arm in recorded.arms:
        assert dict(arm.env) == dict(arms.ARMS[arm.name].env), arm.name


def test_a_record_without_host_modes_says_so(recorded: BenchRecord) -> None:
    plain = replace(recorded, arms=tuple(replace(arm, mode=None) for arm in recorded.arms))
    assert "without host modes" in str(bench.host_modes(plain))
    assert "`mthp`" in str(bench.host_modes(recorded))


def test_weights_and_warm_up_come_from_records(recorded: BenchRecord) -> None:
    assert "drawn anew" in str(benchmarking.weights_table(realweights.recorded()))
    table = str(benchmarking.warm_up_table(recorded, "ppocr-detector"))
    assert "OpenVINO" in table
    assert "ONNX Runtime" in table


def test_khugepaged_is_arithmetic_or_a_sentence() -> None:
    facts = host_facts()
    assert "Not observable" in str(
        benchmarking.khugepaged_sentence(replace(facts, khugepaged=None))
    )
