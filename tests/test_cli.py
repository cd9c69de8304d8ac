"""The command line as a user sees it: tables, JSON, and sentences for what goes wrong."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

NOTEBOOKS = Path(__file__).parents[1] / "notebooks"


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "hugeprobe", *arguments],
        cwd=NOTEBOOKS,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def run_json(*arguments: str) -> dict[str, Any]:
    done = run(*arguments, "--json")
    assert (done.returncode, done.stderr) == (0, "")
    result: dict[str, Any] = json.loads(done.stdout)
    return result


def test_layout_model_as_json() -> None:
    found = run_json("layout", "2052K*16", "--rule", "multiples", "--touch", "each", "--model-only")
    assert (found["rule"], found["touch"], found["top_offset"]) == ("multiples", "each", 0)
    assert found["measured"] is None
    assert found["reason"].startswith("Not observable here, because")
    model = found["model"]
    assert (model["minor_faults"], model["huge_kib"], model["anon_kib"]) == (7697, 2048, 32832)
    assert (model["vmas"], model["gap_kib"]) == (1, 0)
    first = model["mappings"][0]
    assert first["start_offset"] == first["length"] == 2052 * 1024
    assert first["aligned"] is False


@pytest.mark.parametrize("rule", ["packed", "forced", "multiples"])
def test_layout_measures_what_it_models(rule: str) -> None:
    found = run_json("layout", "3M*4", "--rule", rule, "--touch", "after", "--top-offset", "64K")
    if found["reason"]:
        pytest.skip(found["reason"])
    assert {**found["measured"], "huge_offsets": None} == {**found["model"], "huge_offsets": None}
    assert found["top_offset"] == 64 * 1024


def test_layout_by_the_kernel_itself() -> None:
    found = run_json("layout", "2052K*4", "--rule", "kernel")
    assert found["rule"] == "kernel"
    assert len(found["measured"]["mappings"]) == 4


def test_rule_as_json() -> None:
    found = run_json("rule")
    assert found["rule"] in {"packed", "forced", "multiples", None}
    assert len(found["evidence"]) == 7


def test_host_as_json() -> None:
    found = run_json("host")
    assert found["thp_mode"] in {"always", "madvise", "never", None}


def test_maps_of_itself() -> None:
    found = run_json("maps", "self")
    assert found["mappings"]
    total = sum(mapping["rss_kib"] for mapping in found["mappings"])
    assert total == sum(sums["rss_kib"] for sums in found["rollup"].values())


def test_names_in_brackets_are_shown() -> None:
    assert "[heap]" in run("maps", "self").stdout


@pytest.mark.parametrize("command", [["host"], ["rule"], ["layout", "3M*2"], ["maps", "self"]])
def test_tables(command: list[str]) -> None:
    done = run(*command)
    assert (done.returncode, done.stderr) == (0, "")
    assert len(done.stdout.splitlines()) > 4


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["layout", "3X"], "Write lengths such as"),
        (["layout", "3M*0"], "Write a list such as"),
        (["layout", "3M", "--top-offset", "3"], "Give an offset such as"),
        (["maps", "somebody"], "neither a process number nor self"),
        (["maps", "999999999"], "999999999"),
    ],
)
def test_mistakes_are_sentences(arguments: list[str], words: str) -> None:
    done = run(*arguments)
    assert done.returncode == 1
    assert done.stderr.startswith("hugeprobe: ")
    assert words in done.stderr
    assert "Traceback" not in done.stderr


def test_a_layout_too_large_for_this_machine_is_not_tried() -> None:
    found = run_json("layout", "900G", "--rule", "packed")
    assert found["measured"] is None
    assert "at most half" in found["reason"]
