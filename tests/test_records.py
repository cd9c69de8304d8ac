"""Records: what is written is read back, and nothing else is."""

from __future__ import annotations

import json
from dataclasses import dataclass
from enum import Enum
from pathlib import Path  # noqa: TC003 - pydantic reads the types
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hugeprobe import records
from hugeprobe.errors import MalformedError, NotObservable


class Colour(str, Enum):
    RED = "red"


@records.EXACTLY
@dataclass(frozen=True, slots=True)
class Row:
    length: int
    colour: Colour
    by_size: dict[int, int]


@records.EXACTLY
@dataclass(frozen=True, slots=True)
class Table:
    date: str
    rows: tuple[Row, ...]
    remark: str | None = None


TABLE = Table(
    "2026-11-23", tuple(Row(n, Colour.RED, {64: n, 2048: 0}) for n in range(100)), "höher"
)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "table.json"
    records.write(path, TABLE)
    return path


def _edit(path: Path, **changed: Any) -> None:
    content = json.loads(path.read_text())
    path.write_text(json.dumps({**content, **changed}))


def _sign(path: Path) -> None:
    content = json.loads(path.read_text())
    del content["digest"]
    path.write_text(json.dumps({"digest": records.digest(content), **content}))


def test_what_is_written_is_read_back(path: Path) -> None:
    assert records.read(path, Table) == TABLE


def test_lines_stay_short_enough_to_compare(path: Path) -> None:
    assert max(map(len, path.read_text().splitlines())) <= 2000


def test_nothing_is_left_beside_a_record(path: Path) -> None:
    assert [each.name for each in path.parent.iterdir()] == ["table.json"]


def test_a_missing_record_is_a_sentence(tmp_path: Path) -> None:
    found = records.read(tmp_path / "table.json", Table)
    assert found == NotObservable("the record table.json has not been made yet")


@pytest.mark.parametrize(
    "changed", [{"date": "2026-11-24"}, {"rows": []}, {"more": 1}, {"digest": "0" * 64}]
)
def test_a_record_edited_by_hand_is_refused(path: Path, changed: dict[str, Any]) -> None:
    _edit(path, **changed)
    with pytest.raises(MalformedError, match="changed after it was measured"):
        records.read(path, Table)


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '"text"', "{}"])
def test_what_is_no_record_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "table.json").write_text(text)
    with pytest.raises(MalformedError, match=r"table\.json"):
        records.read(tmp_path / "table.json", Table)


@pytest.mark.parametrize(
    ("changed", "where"),
    [
        ({"date": 20261123}, "date"),
        ({"more": 1}, "more"),
        ({"rows": [{"length": "1", "colour": "red", "by_size": {}}]}, r"rows\.0\.length"),
        ({"rows": [{"length": 1, "colour": "blue", "by_size": {}}]}, r"rows\.0\.colour"),
        ({"rows": [{"length": 1, "colour": "red"}]}, r"rows\.0\.by_size"),
    ],
)
def test_a_record_of_another_version_names_the_field(
    path: Path, changed: dict[str, Any], where: str
) -> None:
    _edit(path, **changed)
    _sign(path)
    with pytest.raises(MalformedError, match=f"but {where}: .* make it anew"):
        records.read(path, Table)


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


@given(content=_JSON)
def test_the_digest_depends_on_what_is_said_and_not_on_how(content: Any) -> None:
    rewritten = json.loads(json.dumps(content, indent=3, ensure_ascii=True))
    assert records.digest(rewritten) == records.digest(content)


@given(content=_JSON, other=_JSON)
def test_the_digest_tells_contents_apart(content: Any, other: Any) -> None:
    same = json.dumps(content, sort_keys=True) == json.dumps(other, sort_keys=True)
    assert (records.digest(content) == records.digest(other)) == same
