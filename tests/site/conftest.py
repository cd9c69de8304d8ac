"""The built site, and a browser to look at it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from playwright.sync_api import Browser, sync_playwright

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

REPOSITORY = Path(__file__).parents[2]
CHROMIUM_NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


def sphinx(builder: str, doctrees: Path, out: Path) -> None:
    """Build the guide as the gate does; a warning fails the test."""
    command = [sys.executable, "-m", "sphinx", "-W", "-n", "-T", "-q", "-b", builder]
    folders = ["-d", str(doctrees), ".", str(out)]
    done = subprocess.run(
        [*command, *folders], cwd=REPOSITORY, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def newest_source() -> float:
    """Return when what the site is made of last changed, in seconds since the epoch."""
    files = [REPOSITORY / "conf.py"]
    for folder in ("docs", "notebooks"):
        files += [p for p in (REPOSITORY / folder).rglob("*") if "__pycache__" not in p.parts]
    return max(path.stat().st_mtime for path in files if path.is_file())


@pytest.fixture(scope="session")
def build(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return ``_build`` if it is newer than its sources; else build the guide elsewhere.

    The folder has ``html`` and ``doctrees``, like ``_build``.
    """
    ready = REPOSITORY / "_build"
    written_last = ready / "html/searchindex.js"
    if written_last.exists() and written_last.stat().st_mtime > newest_source():
        return ready
    fresh = tmp_path_factory.mktemp("build")
    sphinx("html", fresh / "doctrees", fresh / "html")
    return fresh


@pytest.fixture(scope="session")
def site(build: Path) -> Path:
    """Return the folder of the built pages."""
    return build / "html"


@pytest.fixture(scope="session")
def write_as(build: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Return what writes the same doctrees with another builder, and returns the folder."""

    def write(builder: str) -> Path:
        folder = tmp_path_factory.mktemp(builder)
        sphinx(builder, build / "doctrees", folder)
        return folder

    return write


@pytest.fixture(scope="module")  # Playwright's event loop runs until it ends; others need theirs
def browser() -> Iterator[Browser]:
    """Return Chromium; without it skip, but in CI fail."""
    path = os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, CHROMIUM_NAMES)), None)
    if path is None:
        reason = "Chromium is not installed; install it or set CHROMIUM to its path."
        if os.environ.get("CI") == "true":
            pytest.fail(reason)
        pytest.skip(reason)
    with sync_playwright() as playwright:
        sandbox = [] if os.geteuid() else ["--no-sandbox"]  # root cannot use the sandbox
        browser = playwright.chromium.launch(executable_path=path, args=sandbox)
        yield browser
        browser.close()
