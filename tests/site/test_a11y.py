"""Every page in Chromium: axe, both themes, a telephone and a desk, with and without JavaScript.

That axe finds nothing does not make a page usable; that it finds something makes it less so.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

    from playwright.sync_api import Browser, Page, Route

REPOSITORY = Path(__file__).parents[2]
SOURCES = [*REPOSITORY.glob("docs/[!_]*.md"), *REPOSITORY.glob("docs/[!_]*/**/*.md")]
SOURCES += REPOSITORY.glob("notebooks/*.ipynb")
PAGES = [
    "search",
    *sorted(path.relative_to(REPOSITORY).with_suffix("").as_posix() for path in SOURCES),
]
WIDTHS = (390, 1440)
THEMES: dict[str, dict[str, list[str]]] = {
    "light": {},
    "dark": {"runOnly": ["color-contrast"]},  # the themes differ in nothing but colours
}
LOCAL = ("file:", "data:", "blob:")
FIND_CLIPPED = """
() => [...document.querySelectorAll("main h1, main p, main li, main figure")]
    .filter(e => e.checkVisibility() && e.getBoundingClientRect().right > innerWidth + 1
        && !e.closest(".nb-scroll, .pst-scrollable-table-container, pre"))
    .map(e => e.textContent.trim().slice(0, 60))
"""


@dataclass
class Tab:
    """A tab that loads files only, and remembers what else it was asked for."""

    page: Page
    refused: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.page.route(lambda url: not url.startswith(LOCAL), self.refuse)

    def refuse(self, route: Route) -> None:
        self.refused.append(route.request.url)
        route.abort()


@pytest.fixture(scope="module", params=WIDTHS)
def tab(request: pytest.FixtureRequest, browser: Browser) -> Iterator[Tab]:
    """Return a tab of one width."""
    context = browser.new_context(
        viewport={"width": request.param, "height": 900}, reduced_motion="reduce"
    )
    yield Tab(context.new_page())
    context.close()


@pytest.fixture(scope="module")
def axe() -> str:
    """Return the source of axe-core."""
    return (files("axe_playwright_python") / "axe.min.js").read_text(encoding="utf-8")


def describe(violations: list[dict[str, Any]]) -> str:
    """Return one line for each element that axe objects to."""
    return "\n".join(
        f"{violation['id']} ({violation['impact']}): {violation['help']}\n"
        f"    {' '.join(map(str, node['target']))}\n    {node['html'][:160]}\n"
        f"    {node['failureSummary'].splitlines()[-1].strip()}"
        for violation in violations
        for node in violation["nodes"]
    )


@pytest.mark.parametrize("name", PAGES)
def test_page(name: str, tab: Tab, axe: str, site: Path) -> None:
    """One load: no other host, nothing beyond the right edge, axe content in both themes."""
    page = tab.page
    tab.refused.clear()
    page.goto((site / f"{name}.html").as_uri())
    page.evaluate(axe)
    for theme, rules in THEMES.items():
        page.evaluate("theme => { document.documentElement.dataset.theme = theme }", theme)
        found = page.evaluate("rules => axe.run(rules)", rules)
        assert not found["violations"], f"{name}, {theme}:\n{describe(found['violations'])}"
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), "scrolls sideways"
    assert page.evaluate(FIND_CLIPPED) == []
    assert tab.refused == []


def test_pages_can_be_read_without_javascript(browser: Browser, site: Path) -> None:
    context = browser.new_context(java_script_enabled=False, color_scheme="dark")
    page = context.new_page()
    for name in PAGES:
        page.goto((site / f"{name}.html").as_uri())
        assert page.locator("main h1").is_visible(), name
        assert name == "search" or page.locator("main article").inner_text().strip(), name
        back = page.locator("body").evaluate("e => getComputedStyle(e).backgroundColor")
        ink = page.locator("main h1").evaluate("e => getComputedStyle(e).color")
        assert back == "rgb(255, 255, 255)", f"{name} is not light"
        assert max(map(int, ink.removeprefix("rgb(").removesuffix(")").split(","))) < 90, name
    context.close()
