"""A stranger gets from clone to first figure, and back, with the commands of the page alone."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING

import lab
import notebook_shape
import pytest
import stranger
from stranger import OfflineError, Stranger

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(scope="module")
def arrived() -> Iterator[Stranger]:
    """Return a stranger who has done what the page says; without a package index skip."""
    try:
        with stranger.bare_jupyterlab() as jupyter, stranger.arrived(jupyter) as somebody:
            yield somebody
    except OfflineError as error:
        reason = f"No package index can be reached, and JupyterLab comes from there. {error}"
        if os.environ.get("CI") == "true":
            pytest.fail(reason)
        pytest.skip(reason)


def test_the_readme_says_the_same_as_the_page() -> None:
    assert stranger.commands(stranger.ROOT / "README.md") == stranger.commands(stranger.PAGE)


def test_the_page_promises_what_is_checked() -> None:
    words = " ".join(stranger.PAGE.read_text(encoding="utf-8").split())
    assert f"more than {lab.MOST_SECONDS} s with its installation" in words
    assert f"a process takes more than {lab.MOST_MIB // 1024} GiB" in words
    assert f"packages take more than {lab.MOST_MIB_ON_DISK // 1024} GiB" in words


def test_a_notebook_that_fails_is_found_out(arrived: Stranger) -> None:
    """An error, a complaint, a cell that shows nothing, and a file that is left behind."""
    cells = [
        notebook_shape.code("leaves", "open('left-behind', 'w').close()", {}),
        notebook_shape.code("mute", "None", {"label": "mute"}),
        notebook_shape.code("loud", "import sys; print('careful', file=sys.stderr)", {}),
        notebook_shape.code("wrong", "1 / 0", {}),
        notebook_shape.code("later", "open('never', 'w').close()", {}),
    ]
    content = {"cells": cells, "metadata": {}, "nbformat": 4, "nbformat_minor": 5}
    (arrived.clone / "notebooks/faulty.ipynb").write_text(json.dumps(content), encoding="utf-8")
    assert lab.run_in(arrived, "faulty").faults == [
        "cell mute shows nothing",
        "cell loud complained: careful\n",
        "cell wrong failed: ZeroDivisionError: division by zero",
        "it left guide/notebooks/left-behind",
    ]


def test_from_clone_to_the_first_figure_and_back(arrived: Stranger) -> None:
    outcome = lab.run_in(arrived, "start-here")
    assert outcome.faults == []
    assert any("image/png" in bundle for bundle in outcome.labelled["ways"].bundles)
    (verdict,) = outcome.labelled["verdict"].bundles
    assert "This host gives" in verdict["text/markdown"] or "because" in verdict["text/markdown"]
    (following,) = outcome.labelled["next"].bundles
    named = following["text/markdown"].split("`")[1]
    assert (arrived.clone / "notebooks" / named).is_file()

    arrived.type(stranger.commands(stranger.PAGE, "kernelspec uninstall"))
    assert not arrived.clone.exists()
    assert not list(arrived.home.rglob(f"kernels/{stranger.KERNEL}"))
