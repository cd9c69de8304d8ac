"""The contribution to OpenVINO: its parts, its patches, and what its readers type."""

from __future__ import annotations

import ast
import json
import os
import re
import subprocess
import sys
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import house_rules
import pytest
import upstream

from hugeprobe import profiles
from hugeprobe.figures.host import measured_on
from hugeprobe.host import host_facts

DOCS = Path(__file__).parents[1] / "docs"
SOURCE = (upstream.SOURCES / Path(upstream.ARTICLE).name).read_text(encoding="utf-8")
SHARED = re.findall(r"^\.\. shared: (.+)$", SOURCE, re.MULTILINE)
SVG = (
    '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 300 150" class="hp-figure" role="img" '
    'aria-label="A finding"><path style="fill: var(--hp-huge, #1f7a8c); stroke: currentColor"/>'
    "</svg>"
)
PAPERS = (upstream.NOTE, upstream.REQUEST)
TABLE = "| run | `faults` |\n|:--|--:|\n| a | 1 |"


def make_build(folder: Path, **other: dict[str, str]) -> upstream.Build:
    """Make notebooks that put out what the sources want, or what ``other`` says by cell."""
    texts = [path.read_text(encoding="utf-8") for path in upstream.SOURCES.iterdir()]
    marks = set(re.findall(r"\{\{([\w-]+#[\w-]+)(?:\|\d+)?\}\}", "".join(texts)))
    outputs: dict[str, dict[str, str]] = {
        mark: {"text/markdown": TABLE if "table" in mark or "why" in mark else "It took `1` step."}
        for mark in marks
    }
    outputs |= {cell: {"text/html": SVG} for cell in upstream.FIGURES.values()}
    outputs |= {"measured-on#box": {"text/markdown": str(measured_on(host_facts()))}, **other}
    notebooks: dict[str, list[Any]] = {}
    for cell, data in outputs.items():
        name, _, label = cell.partition("#")
        made = {"metadata": {"label": label}, "outputs": [{"data": data}]}
        notebooks.setdefault(name, []).append(made)
    for name, cells in notebooks.items():
        (folder / f"{name}.ipynb").write_text(json.dumps({"cells": cells}), encoding="utf-8")
    return upstream.Build(folder)


@pytest.fixture
def files(tmp_path: Path) -> dict[str, str]:
    return upstream.contribution(make_build(tmp_path))


def test_everything_is_there_with_nothing_left_to_fill(files: dict[str, str]) -> None:
    pictures = {f"docs/articles_en/assets/images/{name}" for name in upstream.FIGURES}
    assert set(files) == {upstream.ARTICLE, *PAPERS} | pictures | set(upstream.PATCHES)
    for name, content in files.items():
        assert "{{" not in content, name
        assert "shared:" not in content, name
        assert content.endswith("\n"), name


def test_figures_say_where_they_were_measured(files: dict[str, str]) -> None:
    article = " ".join(files[upstream.ARTICLE].split())
    assert article.count("Measured on 20") == len(upstream.FIGURES)
    (kernel,) = set(re.findall(r"Measured on [\d-]+: Linux ([^,]+),", article))
    assert kernel == host_facts().kernel
    assert TABLE in files[upstream.NOTE]
    assert "It took ``1`` step." in article


def test_columns_that_only_the_guide_needs_are_left_out() -> None:
    assert upstream.first_columns(TABLE, 1) == "| run |\n|:--|\n| a |"


def test_where_the_evidence_is_is_said_or_asked_for(files: dict[str, str], tmp_path: Path) -> None:
    assert "`Issue that asks for this article" in files[upstream.ARTICLE]
    assert all(upstream.TO_ADD in " ".join(files[name].split()) for name in PAPERS)
    files = upstream.contribution(make_build(tmp_path), "https://example.org/guide/")
    for name in (upstream.ARTICLE, *PAPERS):
        assert "<https://example.org/guide/>" in files[name], name
        assert "to be added" not in files[name], name


def test_a_picture_has_its_own_colours_size_and_name(files: dict[str, str]) -> None:
    for name in upstream.FIGURES:
        svg = files[f"docs/articles_en/assets/images/{name}"]
        root = ET.fromstring(svg)
        assert (root.attrib["width"], root.attrib["height"]) == ("600", "300")
        assert [child.tag.partition("}")[2] for child in root] == ["title", "rect", "path"]
        assert root[0].text == "A finding"
        assert root[2].attrib["style"] == "fill: #1f7a8c; stroke: #1b1f23"


@pytest.mark.parametrize(
    ("broken", "says"),
    [
        ("no notebook", "has no alignment.ipynb. Build the guide first"),
        ("no cell", "no such cell. Build the guide again"),
        ("a sentence", "it says: no detector. Build the guide on a host"),
    ],
)
def test_what_was_not_measured_is_refused(tmp_path: Path, broken: str, says: str) -> None:
    sentence = {"text/markdown": "no detector", "text/plain": "no detector"}
    build = make_build(tmp_path, **{"dynamic-inference#growth": sentence})
    if broken == "no notebook":
        (tmp_path / "alignment.ipynb").unlink()
    if broken == "no cell":
        (tmp_path / "alignment.ipynb").write_text('{"cells": []}')
    with pytest.raises(upstream.CannotExportError, match=re.escape(says)):
        upstream.contribution(build)


def test_the_command_writes_or_says_why_not(tmp_path: Path) -> None:
    (tmp_path / "ran").mkdir()
    build = make_build(tmp_path / "ran")
    command = [sys.executable, upstream.__file__, "--output", str(tmp_path / "out"), "--build"]
    done = subprocess.run([*command, str(build.folder)], capture_output=True, text=True, check=True)
    assert len(done.stdout.splitlines()) == 7
    assert (tmp_path / "out" / upstream.ARTICLE).is_file()
    failed = subprocess.run([*command, str(tmp_path)], capture_output=True, text=True, check=False)
    assert failed.returncode == 1
    assert failed.stderr.endswith("Build the guide first: nox -s docs.\n")
    assert "Traceback" not in failed.stderr


# The rules of the house ---------------------------------------------------------------------------


def test_the_article_keeps_the_rules(files: dict[str, str]) -> None:
    assert house_rules.breaches(files[upstream.ARTICLE]) == []


def test_patches_add_lines_of_the_same_width(files: dict[str, str]) -> None:
    added = [
        line[1:]
        for name in upstream.PATCHES
        for line in files[name].splitlines()
        if line[:1] == "+"
    ]
    assert len(added) > 20
    assert [line for line in added if len(line) > house_rules.LONGEST and "++ b/" not in line] == []


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        (f"Decides\n{'#' * 59}", f"Decides\n{'-' * 59}", "cannot follow here"),
        ("Linux\n===============================", "Linux\n=====", "is shorter than the text"),
        ("Additional Resources\n#", "Resources\n#", "last section is not called"),
        (".. meta::", ".. note::", "is not followed by '.. meta::'"),
        ("                 inference with", "   inference with", "is not aligned"),
        ("Linux gives memory", "Linux" + " gives" * 20 + " memory", "break it before 100"),
        ("Linux gives memory to a", "Linux gives memory\nto a", "fill it to 70"),
        ("hugetlb=1\n", "hugetlb=1\n" * 30, "write 150 to 250"),
        ("29025>`__", "29025>`_", "is not written `text <https://...>`__"),
        ("<https://docs.kernel", "<http://docs.kernel", "is not written `text <https://...>`__"),
        ("``MALLOC_CONF=thp:always``", "https://example.org/", "stands in the text"),
        ("Transparent Huge Pages on", ".. _thp:\n\nTransparent", "A label stands at the top"),
        (":doc:`CPU Device <../cpu-device>`", "{doc}`../cpu-device`", "is a role in braces"),
        ("``MALLOC_CONF=thp:always``", "[this](x.md)", "is a link of Markdown"),
        (".. warning::", "```{warning}", "is a fence"),
        (".. warning::", ".. mermaid::", "directive 'mermaid' is not one"),
        (":doc:`CPU Device", ":term:`CPU Device", "role 'term' is not one"),
        ("   :alt: Two panels", "   :width: 3", "has no ':alt:'"),
        ("Fewer faults are not", "It is 1.5x faster. They are not", "'1.5x' is bare"),
        ("Page faults fall at", "Page faults fall by 30 % at", "'30 %' is bare"),
        ("close to zero.", "3 ms.", "'3 ms' is bare"),
        ("once is behind", "once {{measured-on}}", "mark of the exporter"),
    ],
)
def test_a_breach_is_named(files: dict[str, str], old: str, new: str, says: str) -> None:
    article = files[upstream.ARTICLE]
    assert old in article
    found = house_rules.breaches(article.replace(old, new, 1))
    assert any(says in sentence for sentence in found), found


# What is said in two places -----------------------------------------------------------------------


@pytest.mark.parametrize("name", SHARED)
def test_a_shared_passage_ends_and_is_shown_in_the_guide(name: str) -> None:
    assert SOURCE.count(f"\n.. end of shared: {name}\n") == 1
    marks = f"   :start-after: .. shared: {name}\n   :end-before: .. end of shared: {name}\n"
    assert any(marks in page.read_text(encoding="utf-8") for page in DOCS.glob("*.md"))


def test_there_are_shared_passages() -> None:
    assert {"first-write", "keep", "preload"} <= set(SHARED)


# What readers do with it --------------------------------------------------------------------------


def code(language: str) -> list[str]:
    """Return the code blocks of the article in one language."""
    pattern = rf"^( *)\.\. code-block:: {language}\n\n((?:\1   .*\n|\n)+)"
    found = re.findall(pattern, SOURCE, re.MULTILINE)
    return [
        "".join(line[len(margin) + 3 :] for line in text.splitlines(keepends=True))
        for margin, text in found
    ]


def test_the_settings_are_those_of_the_profiles() -> None:
    exports = [block for block in code("sh") if block.startswith("export ")]
    told = []
    for block in exports:
        script = f"{block}\nenv"
        done = subprocess.run(["sh", "-ec", script], capture_output=True, text=True, check=True)
        told += re.findall(r"^GLIBC_TUNABLES=(.*)$", done.stdout, re.MULTILINE)
    profile = [profiles.ADVISE, profiles.KEEP]
    assert told == [each.env["GLIBC_TUNABLES"] for each in profile]


def test_the_commands_that_read_work() -> None:
    lines = [line for block in code("sh") for line in block.splitlines()]
    commands = [line for line in lines if line.startswith(("cat ", "grep "))]
    assert len(commands) == 3
    for command in commands:
        file = command.split()[-1].replace("PID", str(os.getpid()))
        if Path(file).exists():  # neither is there without THP, or in every sandbox
            line = command.replace("PID", str(os.getpid()))
            done = subprocess.run(["sh", "-c", line], capture_output=True, text=True, check=False)
            assert done.returncode == 0, line
            assert done.stdout, line


def test_the_python_code_turns_mapping_off() -> None:
    (script,) = code("py")
    shown = f"{script}\nprint([bool(core.get_property(props.enable_mmap)), True])"
    run = [sys.executable, "-c", shown]
    done = subprocess.run(run, capture_output=True, text=True, check=True)
    assert ast.literal_eval(done.stdout) == [False, True]
