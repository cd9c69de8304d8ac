"""The contribution of this build, in a small tree like OpenVINO's, with the versions of its own."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

import pytest
import upstream
from bs4 import BeautifulSoup

if TYPE_CHECKING:
    from collections.abc import Iterator

REPOSITORY = Path(__file__).parents[2]
OUTLINES = REPOSITORY / "tests/upstream"
RUNNING = "openvino-workflow/running-inference"
DEVICES = f"{RUNNING}/inference-devices-and-modes"
CHILDREN = {
    "index": ["openvino-workflow"],
    "openvino-workflow": ["openvino-workflow/running-inference"],
    RUNNING: [
        "running-inference/inference-devices-and-modes",
        "running-inference/optimize-inference",
    ],
    DEVICES: ["inference-devices-and-modes/cpu-device"],
    f"{DEVICES}/cpu-device/performance-hint-and-thread-scheduling": [],
    f"{RUNNING}/optimize-inference": ["optimize-inference/optimizing-memory-usage"],
}
"""Documents around the article, by their names in OpenVINO's repository, with what they contain."""

OUTLINED = {
    f"{DEVICES}/cpu-device": "cpu-device.rst",
    f"{RUNNING}/optimize-inference/optimizing-memory-usage": "optimizing-memory-usage.rst",
}


def outline(file: str) -> str:
    return (OUTLINES / file).read_text(encoding="utf-8")


def stub(name: str, children: list[str]) -> str:
    """Return a document with a title and a table of contents."""
    title = name.rpartition("/")[2]
    contents = [".. toctree::", "   :hidden:", "", *(f"   {child}" for child in children), ""]
    return "\n".join([title, "=" * len(title), "", *(contents if children else ())])


@pytest.fixture(scope="module")
def toolchain() -> Path:
    """Return a Python with the versions of OpenVINO's documentation, kept in ``_build``.

    Without a network to get them from, skip, but in CI fail.
    """
    wanted = outline("requirements.txt") + sys.version
    folder = REPOSITORY / "_build/upstream-toolchain"
    python, complete = folder / "bin/python", folder / "complete"
    if complete.exists() and complete.read_text(encoding="utf-8") == wanted:
        return python
    shutil.rmtree(folder, ignore_errors=True)
    subprocess.run([sys.executable, "-m", "venv", folder], check=True)
    wheels = ["-m", "pip", "install", "-q", "-r", str(OUTLINES / "requirements.txt")]
    done = subprocess.run([python, *wheels], capture_output=True, text=True, check=False)
    if done.returncode:
        reason = f"The versions of OpenVINO's documentation cannot be installed: {done.stderr}"
        if os.environ.get("CI") == "true":
            pytest.fail(reason)
        pytest.skip(reason)
    complete.write_text(wanted, encoding="utf-8")
    return python


@pytest.fixture(scope="module")
def files(build: Path) -> dict[str, str]:
    """Return the contribution of the last build."""
    try:
        return upstream.contribution(upstream.Build(build / "jupyter_execute/notebooks"))
    except upstream.CannotExportError as error:
        if "on the host of the last build it says" in str(error):
            pytest.skip(str(error))
        raise


@pytest.fixture(scope="module")
def tree(files: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the small tree with the contribution in it, as a contributor puts it there."""
    root = tmp_path_factory.mktemp("openvino")
    there = {f"{name}.rst": stub(name, children) for name, children in CHILDREN.items()}
    there |= {f"{name}.rst": outline(file) for name, file in OUTLINED.items()}
    there["conf.py"] = outline("conf.py")
    there = {f"{upstream.ARTICLES}/{name}": content for name, content in there.items()}
    for name, content in (there | files).items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content, encoding="utf-8")
    git = ["git", "-c", "core.autocrlf=false", "apply", "--whitespace=error-all"]
    subprocess.run([*git, "--check", *upstream.PATCHES], cwd=root, check=True)
    subprocess.run([*git, *upstream.PATCHES], cwd=root, check=True)
    return root


@pytest.fixture(scope="module")
def pages(tree: Path, toolchain: Path) -> Path:
    """Return the pages that the toolchain makes of the tree, without a message."""
    out = tree / "html"
    run = ["-m", "sphinx", "-W", "-n", "-T", "-q", "-b", "html"]
    folders = [tree / upstream.ARTICLES, out]
    env = {**os.environ, "PYTHONWARNINGS": "ignore:Sphinx 8 will drop"}  # breathe's, of itself
    done = subprocess.run(
        [toolchain, *run, *folders], capture_output=True, text=True, check=False, env=env
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    return out


def addresses(page: Path) -> Iterator[str]:
    text = BeautifulSoup(page.read_text(encoding="utf-8"), "html.parser")
    for tag, attribute in (("a", "href"), ("img", "src")):
        yield from (str(each[attribute]) for each in text.select(f"article {tag}[{attribute}]"))


def test_the_article_is_a_page_without_a_message(pages: Path) -> None:
    name = Path(upstream.ARTICLE).relative_to(upstream.ARTICLES).with_suffix(".html")
    article = BeautifulSoup((pages / name).read_text(encoding="utf-8"), "html.parser")
    assert [h.get_text().rstrip("#") for h in article.select("h1")] == [
        "Transparent Huge Pages on Linux"
    ]
    (description,) = article.select("meta[name=description]")
    assert "OpenVINO™ Runtime" in str(description["content"])
    assert len(article.select("article figure img[alt]")) == len(upstream.FIGURES)
    assert len(article.select("article .sd-tab-set label")) == 2
    assert not article.select(".problematic, .system-message")


def test_every_link_inside_leads_somewhere(pages: Path) -> None:
    seen = 0
    for name in [*CHILDREN, *OUTLINED, upstream.ARTICLE.removeprefix("docs/articles_en/")[:-4]]:
        page = pages / f"{name}.html"
        for address in addresses(page):
            parts = urlsplit(address)
            if parts.scheme:
                assert parts.scheme == "https", address
                continue
            target = (page.parent / unquote(parts.path)).resolve() if parts.path else page
            assert target.is_file(), f"{name}: {address}"
            if parts.fragment:
                assert f'id="{parts.fragment}"' in target.read_text(encoding="utf-8"), address
            seen += 1
    assert seen > 20


def test_the_pages_around_lead_to_the_article(pages: Path) -> None:
    name = Path(upstream.ARTICLE).stem
    for page in OUTLINED:
        assert any(f"{name}.html" in each for each in addresses(pages / f"{page}.html")), page
    menu = BeautifulSoup((pages / f"{DEVICES}/cpu-device.html").read_text(), "html.parser")
    assert menu.select(f'nav a[href$="{name}.html"]')


def test_the_caution_about_other_allocators_is_still_needed(build: Path) -> None:
    notebooks = upstream.Build(build / "jupyter_execute/notebooks")
    sentence = notebooks.output("allocators#preload-sentence", "text/markdown")
    found = re.search(r"(\d+) of (\d+) preloaded .* (\d+) of \d+ did", sentence)
    if found is None:
        pytest.skip(sentence)
    ended, _, cured = map(int, found.groups())
    assert (ended > 0, cured) == (True, 0), f"The article says otherwise: {sentence}"


def test_nothing_private_is_in_it(files: dict[str, str]) -> None:
    host = re.escape(os.uname().nodename)
    private = re.compile(rf"{re.escape(str(REPOSITORY))}|{re.escape(str(Path.home()))}/|\b{host}\b")
    for name, content in files.items():
        found = None if host == "localhost" else private.search(content)
        assert found is None, f"{name} says {found}"
