"""Dead, unreachable and fine, from what Sphinx's link check writes."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import link_report
import pytest

if TYPE_CHECKING:
    from pathlib import Path

NO_NETWORK = "Failed to resolve 'example.org' ([Errno -3] Temporary failure in name resolution)"


def entry(status: str, code: int = 0, info: str = "", uri: str = "https://example.org/") -> str:
    link = {"filename": "docs/index.md", "lineno": 3, "status": status, "code": code}
    return json.dumps({**link, "uri": uri, "info": info})


@pytest.mark.parametrize(
    ("line", "outcome"),
    [
        (entry("working", 200), "fine"),
        (entry("redirected", 301), "fine"),
        (entry("broken", 404, "404 Client Error"), "dead"),
        (entry("broken", 410, "410 Client Error"), "dead"),
        (entry("broken", 0, "Anchor 'nowhere' not found"), "dead"),
        (entry("broken", 0, "", uri="nowhere.html"), "dead"),
        (entry("broken", 0, NO_NETWORK), "unreachable"),
        (entry("broken", 503, "503 Server Error"), "unreachable"),
        (entry("broken", 403, "403 Client Error"), "unreachable"),
        (entry("timeout", 0, "Read timed out"), "unreachable"),
        (entry("rate-limited", 429), "unreachable"),
    ],
)
def test_outcome(tmp_path: Path, line: str, outcome: str) -> None:
    path = tmp_path / "output.json"
    path.write_text(line + "\n", encoding="utf-8")
    (link,) = link_report.read(path)
    assert link.outcome == outcome


def test_what_needs_no_asking_is_left_out(tmp_path: Path) -> None:
    path = tmp_path / "output.json"
    lines = [entry(status) for status in ("unchecked", "local", "ignored")]
    path.write_text("\n".join(lines), encoding="utf-8")
    assert link_report.read(path) == []


@pytest.mark.parametrize(
    ("lines", "code", "summary"),
    [
        ([entry("working", 200)], 0, "1 fine, 0 dead."),
        ([entry("broken", 404)], 1, "0 fine, 1 dead."),
        (
            [entry("broken", 0, NO_NETWORK)],
            0,
            "0 fine, 0 dead; 1 could not be reached, and so are not checked.",
        ),
        ([], 0, "0 fine, 0 dead."),
    ],
)
def test_report(
    tmp_path: Path, capsys: pytest.CaptureFixture[Any], lines: list[str], code: int, summary: str
) -> None:
    path = tmp_path / "output.json"
    path.write_text("\n".join(lines), encoding="utf-8")
    assert link_report.main(path) == code
    assert capsys.readouterr().out.splitlines()[-1] == summary
