"""Figures of what could not be observed are sentences; the others hold what was counted."""

from __future__ import annotations

import re

import pytest

from hugeprobe.arms import ADVISE, DEFAULT, Arm
from hugeprobe.coverage import Backing, Coverage
from hugeprobe.errors import NotObservable
from hugeprobe.figures import alignment, host, inference, kernels
from hugeprobe.host import host_facts
from hugeprobe.inference import ONNXRUNTIME, OPENVINO, Memory, Phase, Report
from hugeprobe.kernels import record
from hugeprobe.kernels.record import KernelsRecord
from hugeprobe.placement import Rule, Touch
from hugeprobe.runtimes import Stage, Step
from hugeprobe.sweep import sweep

MISSING = NotObservable("it is not installed")


@pytest.mark.parametrize(
    "figure",
    [
        kernels.origin,
        kernels.agreement,
        kernels.matrix,
        kernels.winners,
        kernels.malloc,
        kernels.holes,
        kernels.small_buffers,
        kernels.openvino,
        kernels.openvino_sentence,
        kernels.difference,
    ],
)
def test_a_missing_record_is_a_sentence_in_every_figure(figure: object) -> None:
    assert callable(figure)
    assert str(figure(MISSING)) == str(MISSING)


def test_without_a_record_the_curve_has_no_marks() -> None:
    assert kernels.marks(MISSING, Touch.EACH) == []
    picture = alignment.coverage_curve(sweep([1536, 3072]), MISSING)
    assert "real kernels" not in picture.svg


@pytest.mark.parametrize(
    "figure",
    [
        inference.unobservable,
        inference.kinds_picture,
        inference.why_picture,
        inference.why_table,
        inference.stages_picture,
        inference.stages_table,
        inference.shapes_table,
        inference.steady_sentence,
    ],
)
def test_runs_that_could_not_take_place_are_a_sentence(figure: object) -> None:
    assert callable(figure)
    assert str(figure([MISSING, MISSING])) == (
        "0 of 2 runs took place, each in a new process. "
        "Not observable here, because it is not installed."
    )


def report(arm: Arm, runtime: str, load: int, first: int) -> Report:
    kib = dict.fromkeys(Backing, 0) | {Backing.HUGE: 3 * 1024, Backing.EDGE: 1024}
    coverage = Coverage(kib)
    memory = Memory(
        by_kind={"heap": 1024, "anonymous": 3072, "file": 512, "stack": 4},
        anonymous={"heap": coverage},
        eligible_kib=0,
        file_pmd_kib=0,
        weights_kib=0,
        weights_pmd_kib=0,
        vmas=10,
        holes_kib=0,
    )
    steps: list[tuple[Stage, tuple[int, ...] | None, int]] = [
        ("load", None, load),
        ("first", (1, 8), first),
        ("repeat", (1, 8), 2),
    ]
    return Report(
        "model",
        OPENVINO if runtime == "openvino" else ONNXRUNTIME,
        arm,
        "1",
        1,
        tuple(
            Phase(Step(stage=stage, shape=shape, minor_faults=n, seconds=1, checksum=None), memory)
            for stage, shape, n in steps
        ),
    )


REPORTS = [
    report(DEFAULT, "openvino", 900, 100),
    report(ADVISE, "openvino", 90, 10),
    report(DEFAULT, "onnxruntime", 400, 100),
    report(ADVISE, "onnxruntime", 200, 50),
]


def test_the_fold_of_faults_is_the_smallest_to_the_largest() -> None:
    text = str(inference.growth_sentence(REPORTS))
    assert "fell 2.0-fold to 10.0-fold" in text
    assert "nothing to compare" in str(inference.growth_sentence(REPORTS[:1]))


def test_tables_hold_what_was_counted() -> None:
    stages = str(inference.stages_table(REPORTS)).splitlines()[2]
    assert re.findall(r"[\d,]+%?", stages.split("default")[1]) == ["900", "100", "2", "75%"]
    assert "0 to" not in str(inference.steady_sentence(REPORTS))
    assert "2 to 2 minor faults" in str(inference.steady_sentence(REPORTS))


def test_kinds_are_of_the_first_arm_and_add_up() -> None:
    text = str(inference.kinds_picture(REPORTS))
    assert text.count("model, OpenVINO") == 1
    assert "advise" not in text


@pytest.fixture(scope="module")
def recorded() -> KernelsRecord:
    found = record.read()
    assert isinstance(found, KernelsRecord)
    return found


def test_every_recorded_layout_is_what_the_model_says(recorded: KernelsRecord) -> None:
    differences = [
        text
        for kernel in recorded.kernels
        for layout in kernel.layouts
        if (text := kernels.first_difference(kernel, layout))
    ]
    assert differences == []


def test_a_wrong_figure_in_a_record_would_be_named(recorded: KernelsRecord) -> None:
    kernel = recorded.kernels[0]
    other = next(k for k in recorded.kernels if k.rule is Rule.FORCED and k.thp_mode == "always")
    wrong = next(layout for layout in other.layouts if layout.gap_kib)
    assert "the model says" in kernels.first_difference(kernel, wrong)


def test_kernels_of_one_rule_share_a_column(recorded: KernelsRecord) -> None:
    head = str(kernels.winners(recorded)).splitlines()[0]
    assert [head.count(f"`{rule.value}`") for rule in Rule] == [1, 1, 1]


def test_settings_name_the_mode() -> None:
    facts = host_facts()
    assert str(facts.thp_mode) in str(host.settings_table(facts))
