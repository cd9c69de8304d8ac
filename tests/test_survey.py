"""The survey: on recorded trees, on a fleet of real processes, and what a page says about both."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import getpass
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from hugeprobe import optional, probe
from hugeprobe.errors import NotObservable
from hugeprobe.figures import fleets as figures
from hugeprobe.host import host_facts
from hugeprobe.placement import Rule
from hugeprobe.survey import cluster, differences, table
from hugeprobe.survey.node import Answer, Count
from hugeprobe.survey.outcome import NoAnswer, Node, Survey
from hugeprobe.survey.question import ANSWERS, Question, understood

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    Tree = Callable[[str], Path]

NOTEBOOKS = Path(__file__).parents[1] / "notebooks"
FLEET = Path(__file__).with_name("fleet.py")
PARQUET = optional.load("pyarrow.parquet", cluster.EXTRA)
LONG = 300
"""Seconds that real processes may take on a machine that has other things to do."""


# Answers of kernels that were recorded ------------------------------------------------------------


def an_answer(root: Path, **changes: Any) -> Answer:
    answer = Answer("0.1.0", "key", host_facts(root), Rule.MULTIPLES, "It follows it.", None)
    return dataclasses.replace(answer, **changes)


def with_mode(answer: Answer, mode: str) -> Answer:
    return dataclasses.replace(answer, facts=dataclasses.replace(answer.facts, thp_mode=mode))


def test_the_node_that_differs_is_named_with_the_reason(tree: Tree) -> None:
    usual = an_answer(tree("linux-6.18-vm"))
    answers = {1: usual, 2: with_mode(usual, "never"), 3: usual, 4: usual}
    found = differences.differences(answers)
    assert [(each.common.fact.column, each.value, each.nodes) for each in found] == [
        ("thp_mode", "never", (2,)),
        ("advised_sizes_kib", "none", (2,)),
    ]
    assert found[0].sentence.startswith("THP mode: never, where 3 of 4 have madvise. ")


def test_equal_nodes_do_not_differ(tree: Tree) -> None:
    answer = an_answer(tree("linux-6.18-vm"))
    assert differences.differences({1: answer, 2: answer}) == []
    assert differences.doubts({1: answer, 2: answer}) == []


def test_every_fact_of_a_recorded_kernel_is_compared(tree: Tree) -> None:
    answers = {
        1: an_answer(tree("linux-6.18-vm")),
        2: an_answer(tree("linux-6.12-aarch64-64k"), rule=Rule.PACKED),
    }
    differing = {each.common.fact.column for each in differences.differences(answers)}
    assert {"rule", "kernel", "architecture", "cpu", "base_kib", "pmd_kib", "thp_mode"} <= differing


def test_counts_are_compared_way_by_way(tree: Tree) -> None:
    some = (Count("map, touch", 16384, 0), Count("map, advise, touch", 32, 65536))
    fewer = (some[0], Count("map, advise, touch", 543, 64512))
    answer = an_answer(tree("linux-6.18-vm"), counts=some)
    found = differences.differences(
        {1: answer, 2: answer, 3: dataclasses.replace(answer, counts=fewer)}
    )
    assert [(each.common.fact.column, each.common.value, each.value) for each in found] == [
        ("huge_kib_map_advise_touch", 65536, 64512),
        ("faults_map_advise_touch", 32, 543),
    ]


@pytest.mark.parametrize(
    ("release", "rule"),
    [
        ("4.18.0-553.el8", Rule.PACKED),
        ("6.6.87", Rule.PACKED),
        ("6.7", Rule.FORCED),
        ("6.8.0-56-generic", Rule.FORCED),
        ("6.11.6", Rule.FORCED),
        ("6.11.7", Rule.MULTIPLES),
        ("6.12.0+", Rule.MULTIPLES),
        ("7.3.4", Rule.MULTIPLES),
        ("unknown", None),
    ],
)
def test_the_rule_that_a_release_suggests(release: str, rule: Rule | None) -> None:
    assert differences.rule_by_release(release) is rule


def test_doubts(tree: Tree) -> None:
    answer = an_answer(tree("linux-6.8-ubuntu"))
    assert answer.facts.kernel
    found = differences.doubts(
        {
            1: answer,
            2: dataclasses.replace(answer, version="9.9"),
            3: dataclasses.replace(answer, rule=None, finding="It follows none."),
            4: dataclasses.replace(answer, rule=Rule.FORCED, counts=NotObservable("of that")),
        }
    )
    assert {each.sentence.partition(",")[0]: each.nodes for each in found} == {
        f"Its kernel calls itself {answer.facts.kernel}": (1, 2),
        "It answered as hugeprobe 9.9": (2,),
        "It follows none.": (3,),
        "Nothing was counted there": (4,),
    }


@pytest.mark.parametrize(
    ("nodes", "words"),
    [([7], "node 7"), ([3, 1, 2], "nodes 1-3"), ([5, 1, 2, 9], "nodes 1-2, 5, 9")],
)
def test_numbers(nodes: list[int], words: str) -> None:
    assert differences.numbers(nodes) == words


# What comes back from a worker --------------------------------------------------------------------


def ended(status: int, out: str = "", error: str = "") -> subprocess.CompletedProcess[bytes]:
    return subprocess.CompletedProcess(["/secret"], status, out.encode(), error.encode())


@pytest.mark.parametrize(
    ("said", "words"),
    [
        (subprocess.TimeoutExpired("/secret", 9), "no answer within 9 s"),
        (OSError("tcp://10.1.2.3:4 secret"), "broke while it was asked (OSError)"),
        (FileNotFoundError(2, "none", "/secret"), "could not start Python"),
        (BlockingIOError(11, "fork", "/secret"), "could not start Python"),
        (ended(-9), "killed there by signal 9"),
        (ended(1, error="x\nhugeprobe: There is no /proc."), "There is no /proc."),
        (ended(1, error='File "/secret"\nzipimport.ZipImportError: /secret'), "ZipImportError"),
        (ended(2), "status 2"),
        (ended(0, "[]"), "another form"),
        (ended(0, "not JSON /secret"), "another form"),
    ],
)
def test_what_goes_wrong_is_a_sentence_without_names(said: object, words: str) -> None:
    found = understood(said, Question(("", ""), b"", 9))
    assert isinstance(found, NoAnswer)
    assert words in found.reason
    assert found.reason.endswith(".")
    assert "secret" not in found.reason


class SlowFirst:
    """A client whose first node answers only once the second has been asked."""

    def __init__(self, answer: str) -> None:
        self.answer = answer
        self.second = asyncio.Event()

    async def run(self, *_: object, workers: list[str], **__: object) -> dict[str, Any]:
        if workers == ["first"]:
            await self.second.wait()
        self.second.set()
        await asyncio.sleep(0 if workers == ["first"] else 0.01)
        return {workers[0]: ended(0, self.answer)}


def test_a_late_answer_is_kept(tree: Tree, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cluster, "_AT_ONCE", 1)
    answer = an_answer(tree("linux-6.18-vm"))

    async def ask() -> list[Answer | NoAnswer]:
        client = SlowFirst(json.dumps(dataclasses.asdict(answer)))
        places = [cluster._Place((name,), name) for name in ("first", "second")]
        return await cluster._ask_all(client, places, Question(("", ""), b"", 0.5))

    assert asyncio.run(ask()) == [answer, answer]


def test_addresses_are_sorted_as_numbers() -> None:
    hosts = ["10.0.0.10", "node-b", "10.0.0.9", "node-a"]
    assert sorted(hosts, key=cluster._in_order) == ["10.0.0.9", "10.0.0.10", "node-a", "node-b"]


# The page -----------------------------------------------------------------------------------------


def test_the_page_shows_silent_nodes_too(tree: Tree) -> None:
    answer = an_answer(tree("linux-6.18-vm"))
    nodes = (Node(1, answer), Node(2, NoAnswer("It is gone.")), Node(3, with_mode(answer, "never")))
    survey = Survey(nodes, missing=2)
    outcome = repr(figures.outcome(survey))
    assert outcome.startswith(
        "2 of 3 nodes answered, on 1 running kernel; 2 more were expected, but never joined. "
        "Node 3: THP mode: never, where 1 of 2 have madvise. "
    )
    rows = repr(figures.answers_table(survey)).splitlines()
    (mode,) = (row for row in rows if "THP mode" in row)
    assert [cell.strip() for cell in mode.split("|")[2:5]] == ["madvise", "no answer", "never"]


# The table ----------------------------------------------------------------------------------------


def test_the_table_has_a_row_for_each_node(tree: Tree, tmp_path: Path) -> None:
    answer = an_answer(tree("linux-6.18-vm"))
    path = tmp_path / "survey.parquet"
    table.write(Survey((Node(1, answer), Node(2, NoAnswer("It is gone.")))), path)
    rows = PARQUET.read_table(path).to_pylist()
    assert [(row["node"], row["failure"], row["thp_mode"]) for row in rows] == [
        (1, None, "madvise"),
        (2, "It is gone.", None),
    ]
    assert ANSWERS.validate_json(rows[0]["answer"]) == answer
    assert "name" not in rows[0]
    assert not path.with_name("survey.parquet.new").exists()


def test_tables_of_any_two_surveys_fit_together(tree: Tree, tmp_path: Path) -> None:
    nodes = [Node(1, NoAnswer("It is gone.")), Node(1, an_answer(tree("linux-6.8-ubuntu")))]
    schemas = []
    for node in nodes:
        table.write(Survey((node,)), tmp_path / "survey.parquet")
        schemas.append(PARQUET.read_schema(tmp_path / "survey.parquet"))
    assert schemas[0] == schemas[1]


# A fleet of real processes ------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Fleet:
    address: str
    pids: list[int]


@contextlib.contextmanager
def started(folder: Path, workers: list[tuple[str, str]]) -> Iterator[Fleet]:
    """Start a fleet whose own hugeprobe, if it used one, would end its Python."""
    wrong = folder / "wrong/hugeprobe"
    wrong.mkdir(parents=True)
    (wrong / "__init__.py").write_text("raise SystemExit('the wrong hugeprobe')")
    process = subprocess.Popen(
        [sys.executable, FLEET, folder, json.dumps(workers)],
        env={**os.environ, "PYTHONPATH": str(wrong.parent)},
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        ready = folder / "started.json"
        wait_for(lambda: ready.exists() or process.poll() is not None)
        yield Fleet(**json.loads(ready.read_text()))
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def wait_for(ready: Callable[[], bool]) -> None:
    """Wait until something that other processes do has been done."""
    deadline = time.monotonic() + LONG
    while not ready():
        assert time.monotonic() < deadline, "it was not done"
        time.sleep(0.05)


@contextlib.contextmanager
def killed(pids: list[int], when: Callable[[], bool]) -> Iterator[None]:
    """Kill processes without warning once something has happened, whatever is done meanwhile."""

    def kill() -> None:
        wait_for(when)
        for pid in pids:
            os.kill(pid, signal.SIGKILL)

    killer = threading.Thread(target=kill)
    killer.start()
    yield
    killer.join()


def stand_in(folder: Path, name: str, script: str) -> str:
    """Write a program that workers take for their Python; ``real`` is the true one."""
    path = folder / name
    path.write_text(f'#!/bin/sh\nreal() {{ exec "{sys.executable}" "$@"; }}\n{script}\n')
    path.chmod(0o755)
    return str(path)


def survey_by_command(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "hugeprobe", "survey", *arguments],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(NOTEBOOKS), "TMPDIR": str(folder)},
        capture_output=True,
        text=True,
        timeout=2 * LONG,
        check=False,
    )


def test_this_machine_alone(tmp_path: Path) -> None:
    done = survey_by_command(tmp_path, "--bench", "--names", "--output", "here.parquet", "--json")
    assert (done.returncode, done.stderr) == (0, "")
    found = json.loads(done.stdout)
    assert found["sentence"] == "1 of 1 nodes answered."
    assert (found["silent"], found["missing"], found["differences"]) == ([], 0, [])
    assert found["answers"]["1"]["rule"] == probe.find_rule().rule
    (row,) = PARQUET.read_table(tmp_path / "here.parquet").to_pylist()
    assert row["kernel"] == host_facts().kernel
    assert "127.0.0.1" in row["name"]
    counts = found["answers"]["1"]["counts"]
    if "reason" not in counts:
        assert row["faults_map_touch"] == counts[0]["minor_faults"]
    assert [path.name for path in tmp_path.iterdir()] == ["here.parquet"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--scheduler", "tcp://127.0.0.1:1", "--timeout", "1"], "Timed out trying to connect"),
        (["--scheduler", "nonsense://"], "unknown address scheme"),
        (["--timeout", "0"], "some time"),
        (["--expect", "0"], "at least one node"),
        (["--output", "no/such/folder.parquet"], "that folder does not exist"),
    ],
)
def test_mistakes_are_sentences(tmp_path: Path, arguments: list[str], words: str) -> None:
    done = survey_by_command(tmp_path, *arguments)
    assert done.returncode == 1
    assert done.stderr.startswith("hugeprobe: ")
    assert words in done.stderr
    assert "Traceback" not in done.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("package", ["distributed", "pyarrow"])
def test_without_the_optional_packages_a_sentence_says_what_to_install(
    tmp_path: Path, package: str
) -> None:
    program = f"import sys; sys.modules['{package}'] = None; from hugeprobe.cli import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", program, "survey"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(NOTEBOOKS)},
        capture_output=True,
        text=True,
        timeout=LONG,
        check=False,
    )
    assert done.returncode == 1
    assert f"needs the package {package}" in done.stderr
    assert "pip install 'hugeprobe[fleet]'" in done.stderr


def test_every_kind_of_failure_is_named_and_no_answer_is_lost(tmp_path: Path) -> None:
    rule = probe.find_rule().rule
    release = "6.12.1-lie" if rule is Rule.PACKED else "6.6.1-lie"
    asked = tmp_path / "asked"
    waits = stand_in(tmp_path, "waits", f"touch {asked}; exec sleep {LONG}")
    lies = stand_in(
        tmp_path,
        "lies",
        f"""real "$@" | sed 's/"version": "[^"]*"/"version": "9.9"/;"""
        f"""s/"kernel": "[^"]*"/"kernel": "{release}"/'""",
    )
    breaks = stand_in(tmp_path, "breaks", f"echo 'OSError: {tmp_path}' >&2; exit 1")
    late = stand_in(tmp_path, "late", f"exec sleep {LONG}")
    workers = [
        ("127.0.0.2", sys.executable),
        ("127.0.0.3", waits),  # and is then killed
        ("127.0.0.4", lies),
        ("127.0.0.5", breaks),
        ("127.0.0.6", "/nonexistent/python"),
        ("127.0.0.7", late),
        ("127.0.0.8", sys.executable),
        ("127.0.0.9", breaks),
        ("127.0.0.9", sys.executable),  # answers in place of the other
    ]
    with started(tmp_path, workers) as running, killed([running.pids[1]], asked.exists):
        done = survey_by_command(
            tmp_path, "--scheduler", running.address, "--expect", "8", "--timeout", "20"
        )
    assert (done.returncode, done.stderr) == (3, "")
    printed = dict(line.split(": ", 1) for line in done.stdout.splitlines() if ": " in line)
    assert "4 of 8 nodes answered, on 1 running kernel." in done.stdout
    assert "The connection to it broke while it was asked" in printed["node 2"]
    assert "no answer within 20 s" in printed["node 6"]
    rows = PARQUET.read_table(tmp_path / "survey.parquet").to_pylist()
    failures = {row["node"]: row["failure"] for row in rows}
    assert [number for number, failure in failures.items() if failure] == [2, 4, 5, 6]
    assert failures[4] == "The probe broke there (OSError)."
    assert "could not start Python" in failures[5]
    said = [line for line in done.stdout.splitlines() if line.startswith("node 3: ")]
    assert any(f"kernel release: {release}, where 3 of 4 have" in line for line in said)
    assert any("answered as hugeprobe 9.9" in line for line in said)
    assert rule is None or any(f"follows `{rule.value}`" in line for line in said)
    for secret in (str(tmp_path), "127.0.0"):
        assert secret not in done.stdout
        assert secret not in repr(rows)
    cells = {value for row in rows for value in row.values()}
    assert cells.isdisjoint({socket.gethostname(), getpass.getuser()})


def test_a_survey_of_200_nodes_names_the_5_percent_that_die_and_loses_no_answer(
    tmp_path: Path,
) -> None:
    asked = tmp_path / "asked"
    asked.mkdir()
    waits = stand_in(tmp_path, "waits", f"touch {asked}/$$; exec sleep {LONG}")
    dying = range(10, 200, 20)
    workers = [
        (f"127.0.1.{node}", waits if node in dying else sys.executable) for node in range(1, 201)
    ]
    with (
        started(tmp_path, workers) as running,
        killed(
            [running.pids[node - 1] for node in dying],
            when=lambda: len(list(asked.iterdir())) == len(dying),
        ),
    ):
        found = cluster.survey(running.address, expect=200, timeout=LONG)
    assert [node.number for node in found.nodes] == list(range(1, 201))
    assert [node.number for node in found.silent] == list(dying)
    assert all("The connection to it broke" in str(node.answer) for node in found.silent)
    assert len(found.answers) == 190
    assert {answer.rule for answer in found.answers.values()} == {probe.find_rule().rule}
