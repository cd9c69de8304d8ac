"""Parsing regular text, by columns.

Every record of one kernel has the same lines, so the ends of all lines form a table, and each field
is one column of it, converted at once.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from hugeprobe.errors import MalformedError
from hugeprobe.smaps.fields import FIELDS, FLAGS, MISSING, NUMBERS, RANGE
from hugeprobe.smaps.headers import tail_of
from hugeprobe.smaps.lines import by_lines
from hugeprobe.smaps.records import Records
from hugeprobe.smaps.words import WORD, decimal, hexadecimal

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from hugeprobe.smaps.records import Chars, Indices, Words

_RECORD_END: Final = re.compile(rb"\n(?=[0-9a-f]+-[0-9a-f]+ )")
_NUMBER_LINE: Final = re.compile(rb"([A-Z][A-Za-z0-9_]*): *([0-9]+)(?=( kB)?\n)")
_BLOCK: Final = 1 << 21
"""Bytes of text that are parsed at a time, so that they stay in the processor's cache."""
_NO_FILE: Final = b" 00000000 00:00 0 "


class IrregularError(Exception):
    """The text does not have the form that makes reading it by columns possible."""


@dataclass(frozen=True, slots=True, eq=False)
class _Layout:
    """What follows the header of a record, as a C structure, taken from the first record.

    It reaches from the first field to the word ``VmFlags:``, and begins early enough, within the
    header, to be whole machine words.

    Parameters
    ----------
    lines
        Lines of a whole record.
    early
        Bytes by which it begins before the first field.
    values
        Where in it each value stands, as a machine word.
    outside
        The bits of the structure that belong to no value, and not to the header.
    expected
        What these bits are.
    """

    lines: int
    early: int
    values: np.dtype[np.void]
    outside: Words
    expected: Words

    @classmethod
    def of(cls, record: bytes) -> _Layout:
        begin = record.find(b"\n") + 1
        end = record.rfind(b"\n" + FLAGS) + 1 + len(FLAGS)
        early = (begin - end) % WORD
        shape = np.frombuffer(record[begin - early : end], np.uint8)
        outside = np.full(len(shape), 255, np.uint8)
        outside[:early] = 0
        offsets: dict[str, int] = {}
        for line in _NUMBER_LINE.finditer(record, begin, end):
            last = line.end() - begin + early
            if not line.end(1) < line.end() - WORD <= line.start(2):
                raise IrregularError  # fewer columns than a word has, or more digits
            outside[last - WORD : last] = 0
            if (name := FIELDS.get(line[1])) is not None:
                if (line[3] is None) != (name == "thp_eligible"):
                    raise IrregularError
                offsets[name] = last - WORD
        plain = by_lines(np.frombuffer(record, np.uint8)).columns
        if {name for name in NUMBERS if plain[name][0] != MISSING} != set(offsets):
            raise IrregularError  # written in another way than the others
        if record.count(b"\n", end) != 1:
            raise IrregularError  # flags are not the last line
        values = np.dtype(
            {
                "names": list(offsets),
                "formats": ["<u8"] * len(offsets),
                "offsets": list(offsets.values()),
                "itemsize": len(shape),
            }
        )
        expected = (shape & outside).view("<u8")
        lines = record.count(b"\n")
        return cls(lines, early, values, outside.view("<u8"), expected)


def by_columns(chars: Chars) -> Records:
    """Parse text whose records all have the same lines, the last of them ``VmFlags``.

    Raises
    ------
    IrregularError
        If the text does not have this form.
    """
    second = _RECORD_END.search(chars.data)
    layout = _Layout.of(chars[: second.end() if second else None].tobytes())
    tails: dict[bytes, int] = {}
    blocks = []
    start = 0
    while start < len(chars):
        cut = _RECORD_END.search(chars.data, start + _BLOCK)
        end = cut.end() if cut else len(chars)
        blocks.append(_block(chars[start:end], layout, tails))
        blocks[-1]["flags"] += start
        start = end
    columns = {name: np.concatenate([block[name] for block in blocks]) for name in blocks[0]}
    tail, flags = columns.pop("tail"), columns.pop("flags")
    return Records(chars, columns, tuple(map(tail_of, tails)), tail, flags)


def _block(chars: Chars, layout: _Layout, tails: dict[bytes, int]) -> dict[str, NDArray[Any]]:
    """Return the columns of a text that begins with a header; number the new ends of headers."""
    newlines = np.flatnonzero(chars == ord("\n"))
    if len(newlines) % layout.lines or chars[-1] != ord("\n"):
        raise IrregularError
    ends = newlines.reshape(-1, layout.lines)
    headers = np.concatenate(([0], ends[:-1, -1] + 1))
    flags = ends[:, -2] + 1 + len(FLAGS)
    numbers, odd = _numbers(chars, ends[:, 0] + 1, flags, layout)
    if odd.size:
        try:
            plain = by_lines(_joined_records(chars, headers[odd], ends[odd, -1] + 1))
        except MalformedError as error:
            raise IrregularError from error  # among all records it may be well-formed
        if (plain.flags[:, 0] == 0).any():
            raise IrregularError
        for name, column in numbers.items():
            column[odd] = plain.columns[name]
    return {
        **_headers(chars, headers, ends[:, 0], tails),
        **numbers,
        "flags": np.stack((flags, ends[:, -1]), axis=1),
    }


def _joined_records(chars: Chars, starts: Indices, ends: Indices) -> Chars:
    spans = zip(starts.tolist(), ends.tolist(), strict=True)
    return np.concatenate([chars[start:end] for start, end in spans])


def _windows(chars: Chars, starts: Indices, width: int) -> Chars:
    """Return the ``width`` bytes from each start on, as rows."""
    if starts.min() < 0 or starts.max() + width > len(chars):
        raise IrregularError
    windows: Chars = np.ndarray((len(chars) - width + 1, width), np.uint8, chars.data, 0, (1, 1))
    return windows[starts]


def _headers(
    chars: Chars, starts: Indices, ends: Indices, tails: dict[bytes, int]
) -> dict[str, NDArray[Any]]:
    """Return the address columns of header lines, and the number of what follows in each.

    Most mappings of a large process have addresses of one length, and are private anonymous memory
    that differs in its permissions only. The others are read one by one.
    """
    middle = chars[starts[len(starts) // 2] :]
    digits = middle[:17].tobytes().find(b"-")
    if digits < 1:
        raise IrregularError
    rest = 2 * digits + 2
    width = rest + 4 + len(_NO_FILE)
    rows = _windows(chars, starts, width)
    text = np.full((len(rows), 2, 16), ord("0"), np.uint8)
    text[:, 0, 16 - digits :] = rows[:, :digits]
    text[:, 1, 16 - digits :] = rows[:, digits + 1 : rest - 1]
    addresses, valid = hexadecimal(text.reshape(-1, 16).view("<u8"))
    addresses = addresses.reshape(-1, 2)
    usual = valid.reshape(-1, 2).all(axis=1)
    usual &= (rows[:, digits] == ord("-")) & (rows[:, rest - 1] == ord(" "))
    no_file = np.ascontiguousarray(rows[:, rest + 4 :]).view(f"S{len(_NO_FILE)}")[:, 0] == _NO_FILE
    permissions = np.ascontiguousarray(rows[:, rest : rest + 4]).view("<u4")[:, 0]
    bare = usual & no_file & (ends - starts == width)
    tail = np.empty(len(rows), np.int64)

    def number(row: int, begin: int) -> int:
        text = chars[starts[row] + begin : ends[row]].tobytes()
        return tails.setdefault(text, len(tails))

    left = bare.copy()
    while left.any():
        first = int(left.argmax())
        alike = left & (permissions == permissions[first])
        tail[alike] = number(first, rest)
        left ^= alike
    for row in np.flatnonzero(~bare).tolist():
        begin = rest
        if not usual[row]:
            header = RANGE.match(chars[starts[row] : ends[row]].tobytes())
            if not header:
                raise IrregularError
            addresses[row] = int(header[1], 16), int(header[2], 16)
            begin = header.end()
        tail[row] = number(row, begin)
    return {"start": addresses[:, 0], "end": addresses[:, 1], "tail": tail}


def _numbers(
    chars: Chars, starts: Indices, ends: Indices, layout: _Layout
) -> tuple[dict[str, NDArray[np.int64]], Indices]:
    """Return the columns of the numeric fields, and which records they could not be read from.

    A record could not be read that differs from the first outside its values, for instance because
    a value of 100 GiB took more columns.
    """
    size = layout.values.itemsize
    odd = ends - starts != size - layout.early
    records = _windows(chars, np.where(odd, ends[0], ends) - size, size)
    names = layout.values.names or ()
    values = records.view(layout.values)[:, 0]
    words = np.stack([values[name] for name in names])
    bits = records.view("<u8")
    bits &= layout.outside
    odd |= (bits != layout.expected).any(axis=1)
    numbers, unreadable = decimal(words)
    odd[unreadable] = True
    if "thp_eligible" in names:
        odd |= numbers[names.index("thp_eligible")] > 1
    columns = {name: np.full(len(starts), MISSING) for name in NUMBERS if name not in names}
    columns.update(zip(names, numbers, strict=True))
    return columns, np.flatnonzero(odd)
