"""Tuning: the chart, its answers, what is said of each action, and the recipes as they stand."""

from __future__ import annotations

import asyncio
import json
import os
import re
import shutil
import subprocess
import sys
from contextlib import aclosing
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.main import get_command

from hugeprobe import arms, children, host, inference, profiles
from hugeprobe.bench import record as bench_record
from hugeprobe.cli import app
from hugeprobe.counters import system_wide
from hugeprobe.coverage import Backing, Coverage
from hugeprobe.errors import NotObservable, NotPermittedError
from hugeprobe.figures import effects
from hugeprobe.figures import tuning as figures
from hugeprobe.figures.effects import Evidence
from hugeprobe.host import effective_sizes
from hugeprobe.kernels import guest, recipe
from hugeprobe.kernels import record as kernels_record
from hugeprobe.kernels.machine import Machine
from hugeprobe.kernels.recipe import Recipe
from hugeprobe.tuning import answers, chart, trials
from hugeprobe.tuning.actions import ACTIONS, by_outcome
from hugeprobe.tuning.answers import Situation
from hugeprobe.tuning.chart import Course
from hugeprobe.tuning.promises import Promise, promises
from hugeprobe.tuning.trials import Blocks, Trials
from hugeprobe.workloads import bert

if TYPE_CHECKING:
    from collections.abc import Callable

    from hugeprobe.kernels.images import Kernel

ROOT = Path(__file__).parents[1]
NOTEBOOKS = ROOT / "notebooks"
PAGE = (ROOT / "docs/tuning.md").read_text(encoding="utf-8")
THP = "/sys/kernel/mm/transparent_hugepage"
MISSING = NotObservable("it has not been made yet")
NOWHERE = Evidence(
    Trials(
        dict.fromkeys((arm.name for arm in trials.WAYS), MISSING),
        MISSING,
        MISSING,
        MISSING,
        (Blocks(MISSING, MISSING),),
        MISSING,
        MISSING,
    ),
    MISSING,
    MISSING,
)


def block(name: str) -> str:
    """Return the code of the block of the page that has this name."""
    (found,) = re.findall(rf"^```.*\n:name: {name}\n\n((?:.*\n)*?)```", PAGE, re.MULTILINE)
    return str(found)


# The chart ----------------------------------------------------------------------------------------

ANSWERS = st.fixed_dictionaries({question.key: st.booleans() for question in chart.QUESTIONS})


@given(ANSWERS)
def test_a_way_asks_no_further_than_it_has_to(given_answers: dict[str, bool]) -> None:
    path = chart.walk(given_answers)
    *before, last = path.asked
    assert path.asked == chart.QUESTIONS[: len(path.asked)]
    assert not any(given_answers[each.key] is each.leaves for each in before)
    assert path.ended is (given_answers[last.key] is last.leaves)
    assert path.ended or path.asked == chart.QUESTIONS


NOT_LEFT = {each.key: not each.leaves for each in chart.QUESTIONS}
ENDS = [NOT_LEFT, *({**NOT_LEFT, each.key: each.leaves} for each in chart.QUESTIONS)]


def test_every_outcome_can_be_reached() -> None:
    assert {chart.walk(each).outcome for each in ENDS} == set(Course)


@pytest.mark.parametrize("given_answers", ENDS, ids=["", *(each.key for each in chart.QUESTIONS)])
def test_the_picture_marks_where_the_answers_end(given_answers: dict[str, bool]) -> None:
    found = {key: answers.Reply(yes, "") for key, yes in given_answers.items()}
    text = figures.chart_picture(found).text
    (marked,) = (line for line in text.splitlines() if line.endswith("<- here"))
    path = answers.path(found)
    assert marked.endswith(f"{path.outcome.value}, {path.detail.replace('`', '')} <- here")


def test_the_picture_is_text_in_the_colours_of_the_page() -> None:
    picture = figures.chart_picture(MISSING)
    written = " ".join(re.findall(r"<text[^>]*>([^<]*)", picture.svg))
    for question in chart.QUESTIONS:
        for part in (question.text, question.check, question.detail, question.outcome.value):
            assert part.replace("`", "") in written
    assert not set(re.findall(r"(?:fill|stroke): ?(#\w+)", picture.svg))
    assert "(here)" not in written


def test_the_alternative_text_asks_the_same_questions_in_the_same_order() -> None:
    (alt,) = re.findall(r"#chart\n:name: .*\n:alt: (.*)", PAGE)
    outcomes = [question.outcome.value.lower() for question in chart.QUESTIONS]
    words = re.findall(r"leave it|ask the operator|start it differently|changes the program", alt)
    assert words == [*(each.replace(" as it is", "") for each in outcomes), "changes the program"]


# The answers --------------------------------------------------------------------------------------


def held(**mib: int) -> Coverage:
    return Coverage(
        dict.fromkeys(Backing, 0) | {Backing(name): size * 1024 for name, size in mib.items()}
    )


def ways(root: Path, glibc: str | None, coverage: Coverage, started: bool) -> Course:
    facts = replace(host.host_facts(root), glibc=glibc)
    return answers.path(answers.answers(Situation(facts, coverage, started))).outcome


@pytest.mark.parametrize(
    ("name", "glibc", "coverage", "started", "outcome"),
    [
        ("linux-6.18-vm", "2.36", held(unadvised=9), False, Course.START),
        ("linux-6.18-vm", "2.36", held(huge=6, cut=4), False, Course.LEAVE),
        ("linux-6.18-vm", "2.36", held(huge=4, short=6), True, Course.OPERATOR),
        ("linux-6.18-vm", "2.36", held(huge=4, cut=6), True, Course.PROGRAM),
        ("linux-6.18-vm", "2.31", held(misaligned=9), False, Course.PROGRAM),
        ("linux-6.18-vm", None, held(short=9), False, Course.OPERATOR),
        ("linux-6.1-debian", "2.36", held(huge=4, short=6), True, Course.PROGRAM),
        ("linux-6.6-no-thp", "2.36", held(off=9), False, Course.OPERATOR),
    ],
)
def test_a_host_and_a_server_lead_to(  # noqa: PLR0917 - a row of a table
    tree: Callable[[str], Path],
    name: str,
    glibc: str | None,
    coverage: Coverage,
    started: bool,
    outcome: Course,
) -> None:
    assert ways(tree(name), glibc, coverage, started) is outcome


# What is said -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def evidence() -> Evidence:
    return Evidence(NOWHERE.here, bench_record.newest(), kernels_record.read())


def test_every_action_has_one_effect_and_one_table() -> None:
    assert len({action.key for action in ACTIONS}) == len(ACTIONS)
    assert {action.outcome for action in ACTIONS} == set(Course) - {Course.LEAVE}
    for action in ACTIONS:
        assert effects.effect(action.key, NOWHERE).counts
        assert action in by_outcome(action.outcome)


@pytest.mark.parametrize("outcome", list(Course)[1:])
def test_what_is_missing_is_a_sentence_in_its_cell(outcome: Course) -> None:
    table = str(figures.effects_table(outcome, NOWHERE))
    assert table.count(str(MISSING)) >= len(by_outcome(outcome)) - 1
    assert len(table.splitlines()) == 2 + len(by_outcome(outcome))


def test_missing_evidence_is_a_sentence() -> None:
    assert str(figures.times_table(MISSING)) == str(MISSING)
    assert str(figures.promises_table(MISSING)) == str(MISSING)
    for found in (figures.answers_here(NOWHERE.here), figures.answers_again(NOWHERE.here)):
        assert str(figures.way(found)) == str(MISSING)


def test_no_time_is_claimed_whose_interval_includes_one(evidence: Evidence) -> None:
    text = str(figures.times_table(evidence.bench))
    intervals = re.findall(r"\(([\d.]+) to ([\d.]+)\)", text)
    assert intervals
    assert not [each for each in intervals if float(each[0]) <= 1 <= float(each[1])]


@pytest.mark.parametrize("arm", figures.TIMED, ids=lambda arm: str(arm.name))
def test_a_tally_counts_every_comparison_once(evidence: Evidence, arm: arms.Arm) -> None:
    assert not isinstance(evidence.bench, NotObservable)
    found = effects.tally(evidence.bench, arm, "load")
    counted = sum(map(int, re.findall(r"\d+", effects.counts(found))))
    assert counted == len(found.effects) > 0


def test_checks_are_commands_that_exist() -> None:
    commands = get_command(app).commands  # type: ignore[attr-defined]
    texts = [f"`{question.check}`" for question in chart.QUESTIONS]
    texts += [text for each in ACTIONS for text in (each.check, each.action)]
    calls = re.findall(r"`hugeprobe (\w+)([^`]*)`", " ".join(texts))
    assert len(calls) > 10
    for name, rest in calls:
        known = {opt for each in commands[name].params for opt in each.opts}
        assert set(re.findall(r"(?<!\S)--[\w-]+", rest)) <= known, (name, rest)


def test_what_is_counted_here() -> None:
    """A tiny server, so that what the notebook measures for its page is measured here, too."""
    if missing := inference.missing(inference.OPENVINO):
        pytest.skip(str(missing))
    here = trials.trials(bert.TINY)
    found = Evidence(here, MISSING, MISSING)
    plain, kept = (here.served[arm.name] for arm in (arms.DEFAULT, arms.KEEP))
    assert not isinstance(plain, NotObservable)
    assert not isinstance(kept, NotObservable)
    for key in ("keep", "advise", "collapse", "largest", "own", "pool", "cut"):
        assert effects.effect(key, found).counts.startswith("Here"), key
    facts = host.host_facts()
    if profiles.obstacle(profiles.KEEP, facts.glibc) is None and effective_sizes(
        facts, advised=True
    ):
        assert kept.minor_faults("load") < plain.minor_faults("load")
    for answered in (figures.answers_here(here), figures.answers_again(here)):
        assert str(figures.way(answered)).endswith(".")


# The recipe without root --------------------------------------------------------------------------


@pytest.mark.skipif(not host.host_facts().glibc, reason="there is no glibc to ask")
def test_the_settings_by_hand_are_those_of_keep() -> None:
    lines = block("start-by-hand").replace("python server.py", "env")
    done = subprocess.run(
        ["sh", "-e"],
        input=lines,
        capture_output=True,
        text=True,
        check=True,
        env=children.environment({}),
    )
    assert f"GLIBC_TUNABLES={profiles.KEEP.env['GLIBC_TUNABLES']}" in done.stdout.splitlines()


# The recipe for the operator ----------------------------------------------------------------------


def operator_recipe() -> Recipe:
    commands = re.findall(r"^\$ (.*)$", block("operator-check"), re.MULTILINE)
    checks = tuple(f"{command} --json" for command in commands)
    return Recipe(block("operator-apply"), block("operator-undo"), checks)


def promised() -> tuple[Promise, ...]:
    found = promises(kernels_record.read())
    assert not isinstance(found, NotObservable), found
    return found


def test_the_checks_are_those_whose_counts_are_promised() -> None:
    expected = [
        f"hugeprobe layout {each.length_kib}K*{each.count} --touch each"
        + ("" if each.advised else " --unadvised")
        for each in promised()
    ]
    written = [check.removesuffix(" --json") for check in operator_recipe().checks]
    assert [each.replace("4M", "4096K") for each in written] == expected
    assert "tuning.ipynb#promises" in PAGE


@pytest.mark.parametrize("mode", ["always", "madvise", "never"])
def test_the_recipe_notes_down_what_it_changes(tmp_path: Path, mode: str) -> None:
    """On files in place of the kernel's, which would show the word in force in brackets."""
    settings = {
        "enabled": " ".join(f"[{each}]" if each == mode else each for each in guest.THP_MODES),
        "hugepages-2048kB/enabled": "always [inherit] madvise never",
        "hugepages-64kB/enabled": "always inherit madvise [never]",
    }
    for name, text in settings.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(f"{text}\n")
    env = {**os.environ, "HOME": str(tmp_path)}

    def paste(lines: str) -> dict[str, str]:
        script = lines.replace(THP, str(tmp_path))
        subprocess.run(["sh", "-eu"], input=script, text=True, check=True, env=env)
        return {name: (tmp_path / name).read_text().strip() for name in settings}

    apply = operator_recipe().apply
    assert apply.count(f"cd {THP}\n") == 1
    applied = paste(apply)
    assert applied["enabled"] == ("madvise" if mode == "never" else settings["enabled"])
    assert applied["hugepages-64kB/enabled"] == "always"
    assert paste(apply) == applied  # twice, and the notes are still those of the first time
    undone = paste(operator_recipe().undo)
    assert undone == {
        "enabled": mode,
        "hugepages-2048kB/enabled": "inherit",
        "hugepages-64kB/enabled": "never",
    }
    assert not (tmp_path / "thp-undo.sh").exists()


@pytest.mark.parametrize("lacks", ["", "hugepages-64kB"])
def test_the_recipe_changes_nothing_where_it_cannot_work(tmp_path: Path, lacks: str) -> None:
    """Neither the settings nor, where it was pasted, the folder."""
    folder, here = tmp_path / "thp", tmp_path / "here"
    here.mkdir()
    if lacks:
        folder.mkdir()
        (folder / "enabled").write_text("always madvise [never]\n")
    done = subprocess.run(
        ["sh"],
        input=operator_recipe().apply.replace(THP, str(folder)),
        capture_output=True,
        text=True,
        check=False,
        cwd=here,
        env={**os.environ, "HOME": str(here)},
    )
    assert done.returncode
    assert (lacks or "cd") in done.stderr
    assert not list(here.iterdir())
    assert not lacks or (folder / "enabled").read_text() == "always madvise [never]\n"


def test_a_recipe_is_pasted_in_guests_only() -> None:
    with pytest.raises(NotPermittedError, match="outside one of its guests"):
        recipe.main([operator_recipe().encode()])


async def _pasted(kernel: Kernel, busybox: Path) -> list[dict[str, Any]]:
    command = (sys.executable, "-m", recipe.__name__, operator_recipe().encode())
    env = {
        "PYTHONPATH": str(NOTEBOOKS),
        "PYTHONDONTWRITEBYTECODE": "1",
        **recipe.ENVIRONMENT,
    }
    async with aclosing(Machine(busybox).lines(kernel, command, 300.0, env)) as lines:
        return [told async for told in lines]


def test_the_promised_counts_come_out_where_the_recipe_is_pasted(
    bootable: tuple[Kernel, Path],
) -> None:
    """A real kernel, in a guest, from every THP mode that a host may have been in."""
    told = {(each["mode"], each["about"]): each for each in asyncio.run(_pasted(*bootable))}
    assert len(told) == len(guest.THP_MODES) * 3
    before = [(each.before.minor_faults, each.before.huge_kib) for each in promised()]
    after = [(each.after.minor_faults, each.after.huge_kib) for each in promised()]
    for mode in guest.THP_MODES:
        first, applied, undone = (told[mode, each] for each in ("before", "applied", "undone"))
        counts = [_counts(each) for each in applied["checks"]]
        # In mode `always` the kernel does not wait to be asked, so the last promise is exceeded.
        assert counts[:2] == after[:2], mode
        assert counts[2] == (after[1] if mode == "always" else after[2]), mode
        if mode == "never":
            assert [_counts(each) for each in first["checks"]] == before
        assert undone["settings"] == first["settings"]
        changed = dict(set(applied["settings"].items()) - set(first["settings"].items()))
        assert changed.pop("hugepages-64kB/enabled").startswith("[always]")
        assert list(changed) == (["enabled"] if mode == "never" else [])


def _counts(answer: dict[str, Any]) -> tuple[int, int]:
    return answer["measured"]["minor_faults"], answer["measured"]["huge_kib"]


# The recipes for the author -----------------------------------------------------------------------

MAIN_C = r"""
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>

int main(void)
{
    enum { COUNT = 16, SIZE = 3 << 20 };
    void *blocks[COUNT];
    struct rusage before, after;
    char line[256];
    long faults = 0, start, end, kib, huge = 0, inside = 0;
    FILE *smaps;

    for (int i = 0; i < COUNT; i++) {
        blocks[i] = huge_alloc(SIZE);
        if (!blocks[i])
            return 1;
        getrusage(RUSAGE_SELF, &before);
        memset(blocks[i], 1, SIZE);
        getrusage(RUSAGE_SELF, &after);
        if (i > 0) /* with the first come faults of code that runs for the first time */
            faults += after.ru_minflt - before.ru_minflt;
    }
    smaps = fopen("/proc/self/smaps", "r");
    while (smaps && fgets(line, sizeof line, smaps)) {
        if (sscanf(line, "%lx-%lx ", (unsigned long *)&start, (unsigned long *)&end) == 2) {
            inside = 0;
            for (int i = 0; i < COUNT; i++)
                inside |= start <= (long)blocks[i] && (long)blocks[i] < end;
        } else if (inside && sscanf(line, "AnonHugePages: %ld", &kib) == 1)
            huge += kib;
    }
    for (int i = 0; i < COUNT; i++)
        free(blocks[i]);
    printf("{\"faults\": %ld, \"huge_kib\": %ld}\n", faults, huge);
    return 0;
}
"""


@pytest.mark.parametrize(("compiler", "name"), [("cc", "blocks.c"), ("c++", "blocks.cc")])
def test_the_recipe_in_c_gives_what_it_promises(tmp_path: Path, compiler: str, name: str) -> None:
    if not shutil.which(compiler) and not (os.environ.get("CI") == "true" and compiler == "cc"):
        pytest.skip(f"no {compiler} here")
    (tmp_path / name).write_text(block("program-c") + MAIN_C)
    flags = ("-Wall", "-Wextra", "-Werror", "-O1")
    subprocess.run([compiler, *flags, "-o", tmp_path / "blocks", tmp_path / name], check=True)
    events = system_wide()
    done = subprocess.run(
        [tmp_path / "blocks"],
        env=children.environment({}),
        capture_output=True,
        text=True,
        check=True,
    )
    told = json.loads(done.stdout)
    facts = host.host_facts()
    if facts.pmd_kib != 2048 or facts.pmd_kib not in effective_sizes(facts, advised=True):
        pytest.skip("huge pages of 2 MiB are off here; the program ran")
    if (system_wide() - events).fault_fallback:
        pytest.skip("the kernel had no free huge page for some of it; the program ran")
    assert told == {"faults": 15 * 2, "huge_kib": 16 * 2 * 2048}


def test_the_recipe_in_python_answers_as_ever_and_without_faults(tmp_path: Path) -> None:
    openvino = pytest.importorskip("openvino", reason="needs openvino")
    model = bert.TINY.model_path(tmp_path)
    if isinstance(model, NotObservable):
        pytest.skip(str(model))
    largest, smaller = (2, 24), (1, 8)
    code = block("program-python")
    for written, tiny in (
        ('"bert.onnx"', repr(str(model))),
        ("768", str(bert.TINY.config.hidden_size)),
        ("(8, 512)", repr(largest)),
    ):
        assert written in code
        code = code.replace(written, tiny)
    program: dict[str, Any] = {}
    exec(code, program)
    ids = np.arange(smaller[1], dtype=np.int64).reshape(smaller)
    found = program["answer"](ids)
    again = openvino.Core().compile_model(str(model), "CPU")
    expected = again({"input_ids": ids, "attention_mask": np.ones_like(ids)})
    np.testing.assert_allclose(found, expected["last_hidden_state"], rtol=1e-5, atol=1e-6)
    addresses = {found.ctypes.data, program["answer"](ids).ctypes.data}
    assert len(addresses) == 1, "a smaller shape got memory of its own"
