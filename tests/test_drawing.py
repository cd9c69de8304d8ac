"""Pictures are themed, named, self-contained and never share an identifier."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

from hugeprobe import drawing
from hugeprobe.drawing import BASE, HUGE, Line, Panel, Picture
from hugeprobe.figures import alignment as figures
from hugeprobe.placement import Rule, Touch

LINES = [Line("a", [1, 2], [0.5, 1.0], HUGE), Line("b", [1, 2], [0.1, 0.2], BASE, "--")]
PICTURES: dict[str, Callable[[], Picture]] = {
    "chart": lambda: drawing.chart(
        [Panel("one", "MiB", "share", LINES, percent=True), Panel("two", "MiB", "ns", LINES)],
        "two panels",
    ),
    "log": lambda: drawing.chart(
        [Panel("", "size", "ns", LINES, log_x=True, log_y=True)], "logarithmic"
    ),
    "bars": lambda: drawing.bars(
        {"x": {"huge": 1, "base": 2}}, {"huge": HUGE, "base": BASE}, "MiB", "bars"
    ),
    "late": lambda: figures.rules_picture(3072, Touch.AFTER),
    "early": lambda: figures.rules_picture(2052, Touch.EACH),
}


@pytest.fixture(params=PICTURES, scope="module")
def picture(request: pytest.FixtureRequest) -> Picture:
    made: Picture = PICTURES[request.param]()
    return made


def test_is_an_svg_element_with_a_name(picture: Picture) -> None:
    root = ET.fromstring(picture.svg)
    assert root.tag == "{http://www.w3.org/2000/svg}svg"
    assert root.attrib["role"] == "img"
    assert root.attrib["aria-label"]
    assert "viewBox" in root.attrib
    assert "width" not in root.attrib


def test_is_themed_and_asks_nothing_of_the_network(picture: Picture) -> None:
    assert "currentColor" in picture.svg
    assert not re.search(r"(?i)#(1b1f23|000000)", picture.svg)
    assert not re.search(r"(?:href|src)=\"(?!#)", picture.svg)
    assert "<metadata" not in picture.svg
    assert set(re.findall(r"var\((--hp-\w+)", picture.svg)) <= {
        "--hp-huge",
        "--hp-base",
        "--hp-gap",
        "--hp-accent",
    }


def test_text_stays_text(picture: Picture) -> None:
    assert "<text" in picture.svg
    assert picture.text.strip()
    bundle = picture._repr_mimebundle_()
    assert set(bundle) == {"text/html", "image/png", "text/plain"}
    assert bytes(bundle["image/png"]).startswith(b"\x89PNG")  # type: ignore[arg-type]


def test_pictures_share_no_identifier() -> None:
    seen: set[str] = set()
    for make in PICTURES.values():
        ids = re.findall(r'\bid="([^"]+)"', make().svg)
        assert len(ids) == len(set(ids))
        assert seen.isdisjoint(ids)
        seen |= set(ids)


def test_the_same_picture_twice_is_the_same_text() -> None:
    assert PICTURES["late"]().svg == PICTURES["late"]().svg


def test_a_table_is_markdown_with_aligned_columns() -> None:
    table = drawing.markdown_table(["size", "faults"], [["2 MiB", "7,697"]], numeric=(1,))
    lines = str(table).splitlines()
    assert re.fullmatch(r"\|:-+\|-+:\|", lines[1])
    assert "7,697" in lines[2]


def test_small_buffers_table_counts_by_page_size() -> None:
    rows = str(figures.small_buffers()).splitlines()[2:]
    assert [re.findall(r"[\d,]+(?= \|)", row)[0] for row in rows] == ["6,144", "384", "32"]
    assert all(Rule.MULTIPLES.value not in row for row in rows)


def test_the_picture_in_the_readme_is_the_model_of_today() -> None:
    kept = (Path(__file__).parents[1] / "docs/_static/order-decides.svg").read_text()

    def curves(svg: str) -> list[list[float]]:
        paths = re.findall(r'<path d="([^"]+)" clip-path', svg)
        return [[round(float(x)) for x in re.findall(r"[\d.]+", path)] for path in paths]

    assert curves(kept) == curves(figures.readme_picture())
    assert len(curves(kept)) >= 2 * len(Rule)
