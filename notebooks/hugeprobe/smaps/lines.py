"""Parsing any text, line by line: slow, and the reference for what the faster way finds."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from hugeprobe.smaps.errors import malformed
from hugeprobe.smaps.fields import FIELDS, FLAGS, MISSING, NUMBERS, RANGE
from hugeprobe.smaps.headers import numbered
from hugeprobe.smaps.records import Records

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from hugeprobe.smaps.records import Chars

_FIELD: Final = re.compile(rb"([A-Z][A-Za-z0-9_]*):(.*)", re.DOTALL)
_KIB: Final = re.compile(rb" *([0-9]+) kB")
_ELIGIBLE: Final = re.compile(rb"[ \t]*([01])")


def by_lines(chars: Chars) -> Records:
    """Parse line by line: slow, and right for every text that can be understood at all."""
    text = chars.tobytes()
    if not text.endswith(b"\n"):
        raise malformed("a complete last line", text[-80:])
    rows: list[dict[str, int]] = []
    tails: list[bytes] = []
    flags: list[tuple[int, int]] = []
    last_labels: list[bytes] = []
    end = -1
    for line in text.split(b"\n")[:-1]:
        start, end = end + 1, end + 1 + len(line)
        if header := RANGE.match(line):
            rows.append({"start": int(header[1], 16), "end": int(header[2], 16)})
            tails.append(line[header.end() :])
            flags.append((0, 0))
            last_labels.append(b"")
            continue
        field = _FIELD.fullmatch(line)
        if not (field and rows):
            raise malformed("a header or a field", line)
        rows[-1].update(_field(field[1], field[2]))
        last_labels[-1] = field[1]
        if line.startswith(FLAGS):
            flags[-1] = (start + len(FLAGS), end)
    if not all("size_kib" in row for row in rows):
        raise malformed("a size of every mapping (as in smaps, not in maps)", text[:80])
    if not rows or last_labels[-1] != last_labels[0]:
        raise malformed("a last mapping as complete as the first", text[-80:])
    columns: dict[str, NDArray[Any]] = {
        name: np.array([row[name] for row in rows], np.uint64) for name in ("start", "end")
    }
    for name in NUMBERS:
        columns[name] = np.array([row.get(name, MISSING) for row in rows], np.int64)
    return Records(chars, columns, *numbered(tails), np.array(flags, np.int64))


def _field(label: bytes, value: bytes) -> dict[str, int]:
    """Read a field; one that is not known has no value."""
    name = FIELDS.get(label)
    if name is None:
        return {}
    pattern, expected = (
        (_ELIGIBLE, "0 or 1") if name == "thp_eligible" else (_KIB, "a number of kB")
    )
    if not (match := pattern.fullmatch(value)):
        raise malformed(expected, label + b":" + value)
    return {name: int(match[1])}
