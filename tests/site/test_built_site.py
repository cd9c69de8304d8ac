"""The built site: every link, image and id; nothing private; nothing from another host."""

from __future__ import annotations

import functools
import getpass
import json
import re
import socket
import sys
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

import pytest
from bs4 import BeautifulSoup

if TYPE_CHECKING:
    from collections.abc import Callable

REPOSITORY = Path(__file__).parents[2]
ADDRESSES = {"a": "href", "link": "href", "img": "src", "script": "src"}
LOADED = {"link": "href", "object": "data"} | dict.fromkeys(
    ("script", "img", "iframe", "source", "video", "audio", "embed", "track"), "src"
)
PUBLISHED_TEXT = {".html", ".txt", ".md", ".ipynb", ".js", ".svg", ".css"}


def pages_of(site: Path) -> list[Path]:
    return sorted(path for path in site.rglob("*.html") if "_static" not in path.parts)


@functools.cache
def parse(path: Path) -> BeautifulSoup:
    return BeautifulSoup(path.read_text(encoding="utf-8"), "html.parser")


@functools.cache
def ids(path: Path) -> list[str]:
    return [str(element["id"]) for element in parse(path).select("[id]")]


def addresses(path: Path, attributes: dict[str, str]) -> list[str]:
    """Return the values of the given attribute of each given tag."""
    found = parse(path).find_all(list(attributes))
    return [str(tag[attributes[tag.name]]) for tag in found if attributes[tag.name] in tag.attrs]


def fault_of(page: Path, url: str) -> str | None:
    """Say what is wrong with an address on a page; None if it is well."""
    parts = urlsplit(url)
    if parts.scheme or parts.netloc:
        return None if parts.scheme in {"https", "mailto", "data"} else "is not https"
    target = (page.parent / unquote(parts.path)).resolve() if parts.path else page
    target = target / "index.html" if target.is_dir() else target
    if not target.is_file():
        return "leads to no file"
    if parts.fragment and unquote(parts.fragment) not in ids(target):
        return "leads to no such anchor"
    return None


@pytest.fixture(scope="module", params=["html", "dirhtml"])
def built(request: pytest.FixtureRequest, site: Path, write_as: Callable[[str], Path]) -> Path:
    """Return the site as it is, and once more with a folder for each page."""
    return site if request.param == "html" else write_as(request.param)


def test_every_address_leads_somewhere(built: Path) -> None:
    faults = [
        f"{page.relative_to(built)}: {url} {fault}"
        for page in pages_of(built)
        for url in addresses(page, ADDRESSES)
        if (fault := fault_of(page, url))
    ]
    assert faults == []


def test_the_root_leads_to_the_guide(built: Path) -> None:
    root = built / "index.html"
    (refresh,) = parse(root).select("meta[http-equiv=refresh]")
    target = str(refresh["content"]).partition("url=")[2]
    assert fault_of(root, target) is None
    assert (built / target).resolve().is_relative_to(built.resolve() / "docs")


@pytest.mark.parametrize("builder", ["latex", "text"])
def test_other_builders_have_no_warning(write_as: Callable[[str], Path], builder: str) -> None:
    assert any(write_as(builder).iterdir())


def test_ids_are_unique(site: Path) -> None:
    for page in pages_of(site):
        seen = ids(page)
        assert sorted({name for name in seen if seen.count(name) > 1}) == [], page.name
        assert [name for name in seen if not name or re.search(r"\s", name)] == [], page.name


def test_every_page_has_one_title(site: Path) -> None:
    for page in pages_of(site):
        assert len(parse(page).select("h1")) == 1, page.name
        assert all(title.get_text(strip=True) for title in parse(page).select("h1, title"))
        assert parse(page).select("html[lang=en]"), page.name


def test_every_picture_has_words(site: Path) -> None:
    for page in pages_of(site):
        for image in parse(page).select("main img"):
            alt = str(image.get("alt", "")).strip()
            assert alt, f"{page.name}: no alt for {image['src']}"
            assert not re.search(r"\.(png|svg|jpe?g|gif)$", alt), f"{page.name}: {alt} as alt"
        for drawing in parse(page).select("main svg"):
            around = [drawing, *drawing.parents]
            named = any(e.get("role") == "img" and e.get("aria-label") for e in around)
            titled = drawing.get("role") == "img" and drawing.find("title")
            hidden = any(e.get("aria-hidden") == "true" for e in around)
            assert named or titled or hidden, f"{page.name}: a drawing without words"


def test_nothing_is_loaded_from_another_host(site: Path) -> None:
    for page in pages_of(site):
        assert [url for url in addresses(page, LOADED) if urlsplit(url).netloc] == [], page.name
    for sheet in site.rglob("*.css"):
        text = sheet.read_text(encoding="utf-8")
        assert not re.search(r"(url\(|@import)\s*[\"']?(https?:)?//", text), sheet.name


def test_nothing_private_is_published(site: Path) -> None:
    """Look for folders and names of this host, except what the sources themselves say."""
    sources = "\n".join(
        path.read_text(encoding="utf-8", errors="replace")
        for folder in ("docs", "notebooks")
        for path in (REPOSITORY / folder).rglob("*")
        if path.suffix in {".md", ".ipynb", ".py", ".css", ".html"}
    )
    names = {str(path) for path in (REPOSITORY, Path.home(), Path(sys.prefix), site)}
    names |= {socket.gethostname(), socket.getfqdn(), getpass.getuser()} - {"localhost"}
    patterns = [rf"(?<!\w){re.escape(name)}(?!\w)" for name in names if len(name) > 2]
    patterns += [r"\bipykernel_\d+"]
    private = re.compile("|".join(word for word in patterns if not re.search(word, sources)))
    for path in site.rglob("*"):
        of_the_theme = "_static" in path.parts
        if path.suffix in PUBLISHED_TEXT and not of_the_theme:
            found = private.search(path.read_text(encoding="utf-8", errors="replace"))
            assert not found, f"{path.relative_to(site)} says {found[0]!r}"


def test_only_what_readers_need_is_published(site: Path) -> None:
    unwanted = {".pickle", ".doctree", ".log", ".pyc"}
    assert [path for path in site.rglob("*") if path.suffix in unwanted] == []


@pytest.mark.parametrize(
    "source", sorted(REPOSITORY.glob("notebooks/*.ipynb")), ids=lambda p: p.stem
)
def test_notebook_is_offered_without_outputs(site: Path, source: Path) -> None:
    page = parse(site / "notebooks" / f"{source.stem}.html")
    without, with_outputs = page.select("a[download]")
    assert str(with_outputs["href"]) == f"../executed/notebooks/{source.name}"
    offered = (site / "notebooks" / str(without["href"])).resolve()
    cells = json.loads(offered.read_text(encoding="utf-8"))["cells"]
    assert cells
    assert not any(cell.get("outputs") for cell in cells)
