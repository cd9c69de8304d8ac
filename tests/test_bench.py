"""The benchmark: order, what is kept, what follows from it, and what an interruption leaves."""

from __future__ import annotations

import dataclasses
import itertools
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from hugeprobe import arms, inference, records, runtimes, workloads
from hugeprobe.bench import plan as plans
from hugeprobe.bench import record, session, summary
from hugeprobe.bench.plan import Cell, Plan
from hugeprobe.bench.record import Run, StageResult
from hugeprobe.bench.session import Session
from hugeprobe.cli import app
from hugeprobe.coverage import Backing, Coverage
from hugeprobe.errors import BadRequestError, NotObservable, ProbeError
from hugeprobe.inference import OPENVINO, Memory, Phase, Report
from hugeprobe.runtimes import Step
from hugeprobe.workloads import bert
from hugeprobe.workloads.graphs import Graph

if TYPE_CHECKING:
    from hugeprobe.runtimes import Stage
    from hugeprobe.workloads import Shape

PACKAGE = Path(inference.__file__).parents[1]
ARMS = (arms.DEFAULT, arms.AGAIN, arms.OFF, arms.ADVISE, arms.TOUCHED)
CELL = Cell("bert-tiny", OPENVINO, ARMS, rounds=5, steady=2)
SHAPES = tuple(dict.fromkeys(bert.TINY.shapes))


class Silent:
    """Watches a session and remembers what it was told."""

    def __init__(self) -> None:
        self.begun: list[str] = []
        self.ended: list[Run] = []

    def begins(self, doing: str, left: float | None) -> None:
        self.begun.append(doing)

    def ends(self, run: Run) -> None:
        self.ended.append(run)


def memory(huge_kib: int = 0) -> Memory:
    kib = dict.fromkeys(Backing, 0) | {Backing.HUGE: huge_kib, Backing.EDGE: 1024}
    return Memory({"heap": 4096}, {"heap": Coverage(kib)}, 0, 0, 0, 0, vmas=12, holes_kib=0)


def report(arm: arms.Arm, faults: int = 1024, seconds: float = 1.0, steady: int = 2) -> Report:
    """A run that did every step in the same time and with the same faults."""
    warm = list(runtimes.stages(bert.TINY.shapes, 1))
    last: list[tuple[Stage, Shape | None]] = [("steady", x) for _ in range(steady) for x in SHAPES]
    done: list[tuple[Stage, Shape | None]] = [("start", None), ("load", None), *warm, *last]
    steps = (Step(stage, shape, faults, seconds, None) for stage, shape in done)
    phases = (Phase(step, memory(2048)) for step in steps)
    return Report("bert-tiny", OPENVINO, arm, "1", 2, tuple(phases))


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int]]:
    """Replace the measured process by one that takes longer in some arms; list what was run."""
    calls: list[tuple[str, int]] = []
    seconds = {"default": 1.0, "again": 1.0, "off": 2.0, "advise": 0.5, "touched": 0.25}

    def run(work: object, runtime: object, arm: arms.Arm, **told: Any) -> Report | NotObservable:
        calls.append((arm.name, told["spare_kib"]))
        jitter = 1 + len(calls) % 5 / 100
        return report(arm, seconds=seconds[arm.name] * jitter, steady=told["steady"])

    monkeypatch.setattr(inference, "run", run)
    return calls


def test_each_round_has_every_arm_in_an_order_of_its_own() -> None:
    tasks = list(Plan((CELL,), seed=3).tasks())
    rounds = [list(group) for _, group in itertools.groupby(tasks, key=lambda task: task.round)]
    assert [len(group) for group in rounds] == [len(ARMS)] * CELL.rounds
    orders = [tuple(task.arm.name for task in group) for group in rounds]
    assert {frozenset(order) for order in orders} == {frozenset(arm.name for arm in ARMS)}
    assert len(set(orders)) > 1
    assert [t.key for t in Plan((CELL,), 3).tasks()] == [task.key for task in tasks]
    assert [t.key for t in Plan((CELL,), 4).tasks()] != [task.key for task in tasks]


def test_plans_name_workloads_and_arms_that_exist() -> None:
    for plan in (plans.full(host_modes=True), plans.quick()):
        for cell in plan.cells:
            assert workloads.find(cell.workload).name == cell.workload
            assert cell.arms[0] is arms.DEFAULT
            assert len({arm.name for arm in cell.arms}) == len(cell.arms)
            assert all(arm.only in (None, cell.runtime.name) for arm in cell.arms)
            assert cell.rounds >= 5, "fewer give no interval"


def test_nothing_takes_root_unless_asked() -> None:
    assert not plans.full().needs_root
    assert not plans.quick().needs_root
    assert plans.full(host_modes=True).needs_root


def test_arms_that_are_named_alike_do_not_exist() -> None:
    assert len(arms.ARMS) == len(arms.UNPRIVILEGED) + len(arms.HOST_MODES)


def test_chosen_arms_always_have_the_default() -> None:
    plan = plans.chosen(plans.quick(), ["bert-mini"], ["off"], rounds=2)
    assert [cell.workload for cell in plan.cells] == ["bert-mini"]
    assert [arm.name for arm in plan.cells[0].arms] == ["default", "off"]
    assert plan.cells[0].rounds == 2


def test_a_workload_that_is_not_in_the_plan_is_added_on_both_runtimes() -> None:
    cells = plans.chosen(plans.quick(), ["bert-tiny"]).cells
    assert [cell.runtime for cell in cells] == list(inference.RUNTIMES)


@pytest.mark.parametrize(
    ("workload", "arm", "rounds", "said"),
    [
        (["resnet"], [], None, "resnet"),
        ([], ["fast"], None, "There is no arm named 'fast'"),
        ([], [], 0, "0 rounds"),
    ],
)
def test_what_does_not_exist_is_a_sentence(
    workload: list[str], arm: list[str], rounds: int | None, said: str
) -> None:
    with pytest.raises(BadRequestError, match=said):
        plans.chosen(plans.quick(), workload, arm, rounds)


def test_session_warms_up_first_and_runs_everything(
    measured: list[tuple[str, int]], tmp_path: Path
) -> None:
    watcher = Silent()
    made = Session(Plan((CELL,)), tmp_path).run(watcher)
    assert measured[0] == ("default", 0)
    assert len(measured) == 1 + CELL.rounds * len(ARMS)
    assert [run.key for run in made.runs] == [task.key for task in Plan((CELL,)).tasks()]
    assert watcher.ended == list(made.runs)
    touched = {kib for name, kib in measured[1:] if name == "touched"}
    assert touched == {made.cells[0].spare_kib}
    assert touched.pop() > 256 * 1024


def test_record_comes_back_as_it_was(measured: list[tuple[str, int]], tmp_path: Path) -> None:
    made = Session(Plan((CELL,)), tmp_path).run(Silent())
    path = tmp_path / "bench-2026-01-02.json"
    records.write(path, made)
    assert record.read(path) == made
    assert record.newest(tmp_path) == made


def test_record_names_nobody(
    measured: list[tuple[str, int]], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Folders and the environment do not get into it; the arms' own variables do."""
    monkeypatch.setenv("HUGEPROBE_SECRET", "s3cr3t-word")
    text = json.dumps(dataclasses.asdict(Session(Plan((CELL,)), tmp_path).run(Silent())))
    assert "glibc.malloc.hugetlb=1" in text
    for private in (str(tmp_path), str(PACKAGE), "s3cr3t-word"):
        assert private not in text


def test_record_names_a_model_of_the_user_by_its_file_only(
    measured: list[tuple[str, int]], tmp_path: Path
) -> None:
    pytest.importorskip("onnx", reason="The package onnx is not installed.")
    file = tmp_path / "secret-folder" / "some-model.onnx"
    file.parent.mkdir()
    graph = Graph()
    graph.add("Relu", "values", output="found")
    numbers = (np.float32, ("batch",))
    model = graph.model("relu", {"values": numbers}, {"found": numbers})
    file.write_bytes(model.SerializeToString())

    plan = plans.chosen(plans.quick(), [f"{file}@2,3"], ["off"], rounds=1)
    made = Session(plan, tmp_path, tmp_path / "journal").run(Silent())
    assert {cell.workload for cell in made.cells} == {"some-model"}
    assert all(made.of(cell, "off") for cell in made.cells)
    assert "secret-folder" not in json.dumps(dataclasses.asdict(made))
    assert "secret-folder" not in (tmp_path / "journal").read_text()

    before = len(measured)
    other = plans.chosen(plans.quick(), [f"{file}@4,3"], ["off"], rounds=1)
    Session(other, tmp_path, tmp_path / "journal").run(Silent())
    assert len(measured) > before, "runs with other shapes were taken for these"


def test_missing_record_is_a_sentence(tmp_path: Path) -> None:
    assert "nox -s bench" in str(record.newest(tmp_path))


def test_effects_say_what_was_put_in(measured: list[tuple[str, int]], tmp_path: Path) -> None:
    made = Session(Plan((CELL,)), tmp_path).run(Silent())
    found = {effect.arm: effect for effect in summary.effects(made, made.cells[0], "first")}
    assert found["default"].speedup is None
    assert found["default"].verdict == ""
    assert found["off"].verdict == "slower"
    assert found["advise"].verdict == "faster"
    assert found["again"].verdict == "no difference shown"
    advise = found["advise"].speedup
    assert advise is not None
    assert advise.low < 2 < advise.high
    assert {effect.faults.median for effect in found.values()} == {1024 * len(SHAPES)}
    assert found["default"].floor_faults == 1024 * len(SHAPES) // 512
    assert found["default"].floor_seconds == found["touched"].seconds.median
    assert found["default"].coverage == 2048 / 3072
    assert summary.chance(made) == summary.Chance(comparisons=3, differing=0)


def test_warm_figures_are_of_one_inference_and_one_round(
    measured: list[tuple[str, int]], tmp_path: Path
) -> None:
    made = Session(Plan((CELL,)), tmp_path).run(Silent())
    steady = next(summary.effects(made, made.cells[0], "steady"))
    assert steady.faults.median == 1024
    assert steady.seconds.median == pytest.approx(len(SHAPES), rel=0.05)


def test_few_runs_have_no_interval(measured: list[tuple[str, int]], tmp_path: Path) -> None:
    few = dataclasses.replace(CELL, rounds=4)
    made = Session(Plan((few,)), tmp_path).run(Silent())
    effects = list(summary.everything(made))
    assert effects
    assert all(effect.speedup is None for effect in effects)


@given(st.lists(st.integers(0, 10**6), min_size=1, max_size=30))
def test_floor_is_a_page_for_each_512_faults(faults: list[int]) -> None:
    made = StageResult("first", len(faults), tuple(faults), (0.0,), 4, 0, 4, 1)
    floor = summary.floor_faults([summary.faults_at(made)])
    assert floor is not None
    assert (floor - 1) * 512 < sum(faults) <= floor * 512


def test_a_run_that_dies_is_a_row(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def run(work: object, runtime: object, arm: arms.Arm, **_: Any) -> Report:
        if arm is arms.ADVISE:
            raise ProbeError("The measured process was ended by SIGABRT: free(): invalid pointer.")
        return report(arm)

    monkeypatch.setattr(inference, "run", run)
    made = Session(Plan((CELL,)), tmp_path).run(Silent())
    failed = [run for run in made.runs if run.failure]
    assert {run.arm for run in failed} == {"advise"}
    assert len(failed) == CELL.rounds
    (row,) = summary.failures(made)
    assert "SIGABRT" in str(row.failure)
    assert "advise" not in {effect.arm for effect in summary.everything(made)}


def test_what_cannot_run_is_asked_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    asked = []

    def run(work: object, runtime: object, arm: arms.Arm, **_: Any) -> Report | NotObservable:
        asked.append(arm.name)
        return NotObservable("a library is missing") if arm is arms.ADVISE else report(arm)

    monkeypatch.setattr(inference, "run", run)
    made = Session(Plan((CELL,)), tmp_path).run(Silent())
    assert asked.count("advise") == 1
    assert [run.failure for run in made.runs if run.failure] == [
        "Not observable here, because a library is missing."
    ]


def test_a_cell_that_cannot_run_is_one_row_an_arm(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(inference, "run", lambda *_, **__: NotObservable("it is not installed"))
    made = Session(Plan((CELL,)), tmp_path).run(Silent())
    assert [run.arm for run in made.runs] == [
        task.arm.name for task in Plan((CELL,)).tasks() if task.round == 0
    ]
    assert not list(summary.everything(made))


def test_too_little_memory_for_an_arm_is_a_sentence(
    measured: list[tuple[str, int]], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(session, "usable_memory_kib", lambda: 300 * 1024)
    made = Session(Plan((CELL,)), tmp_path).run(Silent())
    (row,) = summary.failures(made)
    assert row.arm == "touched"
    assert "300 MiB" in str(row.failure)


class Interrupting(Silent):
    """Presses Ctrl-C after some runs."""

    def ends(self, run: Run) -> None:
        super().ends(run)
        if len(self.ended) == 7:
            raise KeyboardInterrupt


def test_an_interrupted_session_goes_on(measured: list[tuple[str, int]], tmp_path: Path) -> None:
    journal = tmp_path / "bench.json.runs"
    interrupted = Session(Plan((CELL,)), tmp_path, journal)
    with pytest.raises(KeyboardInterrupt):
        interrupted.run(Interrupting())
    with journal.open("a") as file:
        file.write('{"workload": "bert-ti')  # killed while it wrote
    measured.clear()
    watcher = Silent()
    made = Session(Plan((CELL,)), tmp_path, journal).run(watcher)
    assert len(watcher.ended) == CELL.rounds * len(ARMS) - 7
    assert [run.key for run in made.runs] == [task.key for task in Plan((CELL,)).tasks()]


def test_rounds_can_be_added(measured: list[tuple[str, int]], tmp_path: Path) -> None:
    journal = tmp_path / "bench.json.runs"
    Session(Plan((CELL,)), tmp_path, journal).run(Silent())
    more = Plan((dataclasses.replace(CELL, rounds=6),))
    watcher = Silent()
    made = Session(more, tmp_path, journal).run(watcher)
    assert len(watcher.ended) == len(ARMS)
    assert {run.key for run in made.runs} == {task.key for task in more.tasks()}


def test_runs_with_another_seed_are_set_aside(
    measured: list[tuple[str, int]], tmp_path: Path
) -> None:
    journal = tmp_path / "bench.json.runs"
    with pytest.raises(KeyboardInterrupt):
        Session(Plan((CELL,)), tmp_path, journal).run(Interrupting())
    kept = journal.read_text()
    made = Session(Plan((CELL,), seed=1), tmp_path, journal).run(Silent())
    assert len(made.runs) == CELL.rounds * len(ARMS)
    assert (tmp_path / "bench.json.runs.old").read_text() == kept


def test_command_line_writes_a_record(tmp_path: Path) -> None:
    output = tmp_path / "bench.json"
    options = ["--workload", "bert-tiny", "--arm", "off", "--rounds", "1", "--output", str(output)]
    done = CliRunner().invoke(app, ["bench", *options, "--json"])
    assert done.exit_code == 0, done.output
    made = record.read(output)
    assert not isinstance(made, NotObservable)
    assert json.loads(done.stdout)["cells"][0]["workload"] == "bert-tiny"
    assert not list(tmp_path.glob("*.runs"))
    for run in made.runs:
        if run.failure is None:
            assert [result.stage for result in run.stages] == ["load", "first", "repeat", "steady"]


def test_a_host_mode_needs_to_be_asked_for_twice() -> None:
    done = CliRunner().invoke(app, ["bench", "--arm", "mthp"])
    assert isinstance(done.exception, BadRequestError)
    assert "--host-modes" in str(done.exception)


def test_ctrl_c_keeps_what_was_measured(tmp_path: Path) -> None:
    output = tmp_path / "bench.json"
    journal = tmp_path / "bench.json.runs"
    command = [sys.executable, "-m", "hugeprobe", "bench", "--workload", "bert-tiny"]
    process = subprocess.Popen(
        [*command, "--rounds", "50", "--output", str(output)],
        env={**os.environ, "PYTHONPATH": str(PACKAGE)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    with process:
        for _ in range(600):
            if journal.exists() and journal.read_text().count("\n") > 2:
                break
            time.sleep(0.1)
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "goes on from there" in " ".join(said.split())
    assert "Traceback" not in said
    assert not output.exists()
    assert journal.read_text().count("\n") > 2
