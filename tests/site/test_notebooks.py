"""The notebooks as the build ran them: what their labelled cells put out, held against the host."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from hugeprobe.host import effective_sizes, host_facts

REPOSITORY = Path(__file__).parents[2]
NAMES = sorted(path.stem for path in (REPOSITORY / "notebooks").glob("*.ipynb"))
FACTS = host_facts()
ONLY_PMD = (FACTS.pmd_kib,) == effective_sizes(FACTS, advised=True)


@pytest.fixture(scope="module")
def outputs(build: Path) -> dict[str, dict[str, str]]:
    """Return the text of every labelled cell, by notebook and label."""
    found: dict[str, dict[str, str]] = {}
    for name in NAMES:
        cells = labelled(build / f"jupyter_execute/notebooks/{name}.ipynb")
        found[name] = {label: text_of(cell) for label, cell in cells.items()}
    return found


def labelled(path: Path) -> dict[str, Any]:
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    return {cell["metadata"]["label"]: cell for cell in cells if "label" in cell["metadata"]}


def text_of(cell: Any) -> str:
    bundles = [output.get("data", {}) for output in cell["outputs"]]
    return "\n".join("".join(data.get("text/markdown", data["text/plain"])) for data in bundles)


@pytest.mark.parametrize("name", NAMES)
def test_every_label_is_shown_on_a_page(name: str) -> None:
    pages = "\n".join(path.read_text() for path in (REPOSITORY / "docs").rglob("*.md"))
    labels = labelled(REPOSITORY / f"notebooks/{name}.ipynb")
    assert labels
    unused = [label for label in labels if f"notebooks/{name}.ipynb#{label}" not in pages]
    assert unused == []


def test_every_labelled_cell_says_something(outputs: dict[str, dict[str, str]]) -> None:
    silent = [
        f"{name}#{label}"
        for name, cells in outputs.items()
        for label, text in cells.items()
        if not text.strip() or " object at 0x" in text
    ]
    assert silent == []


def test_model_and_measurement_agree_where_huge_pages_can_be_had(
    outputs: dict[str, dict[str, str]],
) -> None:
    text = outputs["alignment"]["agreement"]
    if not ONLY_PMD:
        assert "not a measurement, because" in text
        return
    equal, all_ = re.findall(r"[\d,]+", text)[:2]
    assert equal == all_


def test_the_central_finding_is_on_the_page(outputs: dict[str, dict[str, str]]) -> None:
    rows = outputs["alignment"]["table"].splitlines()
    row = next(row for row in rows if "2,052 KiB" in row and "| each" in row)
    assert re.findall(r"(\d+)% · ([\d,]+)", row) == [("6", "7,697"), ("100", "32"), ("6", "7,697")]


def test_faults_count_pages(outputs: dict[str, dict[str, str]]) -> None:
    text = outputs["how-huge-pages-reach-a-process"]["arrivals-table"]
    faults = dict(re.findall(r"\| (map, [^|]+?) +\| +([\d,]+) \|", text))
    if (FACTS.base_kib, FACTS.pmd_kib) == (4, 2048):
        assert faults["map, forbid, touch"] == "16,384"
        assert faults["map, advise, touch"] == "32" or not ONLY_PMD


def test_shared_memory_obeys_its_own_switch(outputs: dict[str, dict[str, str]]) -> None:
    """Written on base pages, memory costs a fault for each; huge, one for each 2 MiB."""
    text = outputs["shared-memory"]["shared-faults"]
    faults = dict(re.findall(r"\| ([^|]+?) +\| +([\d,]+) \|", text))
    if (FACTS.base_kib, FACTS.pmd_kib) == (4, 2048):
        assert faults["memfd"] == "8,192" or FACTS.shmem_enabled != "never"
        assert faults.get("tmpfs huge=always", "16") == "16" or not ONLY_PMD


def test_shared_tensors_are_not_moved(outputs: dict[str, dict[str, str]]) -> None:
    moved = re.findall(
        r"\| [^|]+, shared memory[^|]* +\| +(\S+) \|", outputs["shared-memory"]["passing"]
    )
    assert set(moved) <= {"0", "-"}


def test_the_verdict_fits_the_mode(outputs: dict[str, dict[str, str]]) -> None:
    verdict = outputs["check-your-host"]["verdict"]
    words = {"always": "to every process", "madvise": "asks for them", "never": "no huge pages"}
    if ONLY_PMD and FACTS.thp_mode:
        assert words[FACTS.thp_mode] in verdict


def test_glibc_maps_a_page_more_on_the_page(outputs: dict[str, dict[str, str]]) -> None:
    if FACTS.glibc and FACTS.base_kib == 4:
        rows = re.findall(r"\| (.+?) +\| (.+?) +\|", outputs["allocators"]["mappings"])
        maps = dict(rows)
        assert (maps["2 MiB - 24 B"], maps["2 MiB"]) == ("2 MiB", "2 MiB + 4 KiB")


def test_the_recorded_kernels_equal_the_model(outputs: dict[str, dict[str, str]]) -> None:
    equal, all_ = re.findall(r"[\d,]+", outputs["real-kernels"]["agreement"])[:2]
    assert equal == all_


def test_both_nodes_of_the_small_fleet_answer(outputs: dict[str, dict[str, str]]) -> None:
    assert outputs["fleets"]["outcome"].startswith("2 of 2 nodes answered, on 1 running kernel.")
    assert str(FACTS.kernel) in outputs["fleets"]["answers"]


def test_every_claim_has_a_verdict_on_the_page(outputs: dict[str, dict[str, str]]) -> None:
    found = outputs["claims"]
    assert len(re.findall(r"\]\(#claim-\d+\)", found["overview"])) == 16
    for number in range(1, 17):
        verdict = re.findall(
            r'^<span class="verdict [\w-]+">[\w ]+</span>', found[f"verdict-{number}"]
        )
        assert verdict
        assert verdict[0] in found["overview"]


def test_the_box_names_kernel_and_mode(outputs: dict[str, dict[str, str]]) -> None:
    box = outputs["measured-on"]["box"]
    assert str(FACTS.kernel) in box
    assert str(FACTS.thp_mode) in box
