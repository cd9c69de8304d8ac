"""All records of one text, as columns of equal length."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from hugeprobe.smaps.fields import MISSING, NUMBERS
from hugeprobe.smaps.mapping import Mapping

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from hugeprobe.smaps.headers import Tail

    Chars: TypeAlias = NDArray[np.uint8]
    Words: TypeAlias = NDArray[np.uint64]
    Indices: TypeAlias = NDArray[np.int64]


@dataclass(frozen=True, slots=True, eq=False)
class Records:
    """All records of one text, as columns of equal length.

    Parameters
    ----------
    text
        What was parsed; flags are looked up in it when they are asked for.
    columns
        ``start`` and ``end`` (uint64), and ``NUMBERS`` (int64, ``MISSING`` where not written).
    tails
        The distinct ends of header lines.
    tail
        Index into ``tails``, of each record.
    flags
        Where in ``text`` each record's flags begin and end, shape (records, 2).
    """

    text: Chars
    columns: dict[str, NDArray[Any]]
    tails: tuple[Tail, ...]
    tail: NDArray[np.int64]
    flags: NDArray[np.int64]

    def take(self, which: NDArray[Any] | slice) -> Records:
        """Return some of the records."""
        columns = {name: column[which] for name, column in self.columns.items()}
        return Records(self.text, columns, self.tails, self.tail[which], self.flags[which])

    def mappings(self) -> Iterator[Mapping]:
        """Make the records into objects."""
        tails = zip(*(self.tails[index] for index in self.tail.tolist()), strict=True)
        columns = (
            self.columns["start"].tolist(),
            self.columns["end"].tolist(),
            *tails,
            *map(self._with_none, NUMBERS),
            self._split_flags(),
        )
        return map(Mapping._make, zip(*columns, strict=True))

    def _split_flags(self) -> list[tuple[str, ...]]:
        text = self.text.data
        flags = [bytes(text[begin:end]) for begin, end in self.flags.tolist()]
        split = {each: tuple(each.decode(errors="backslashreplace").split()) for each in set(flags)}
        return [split[each] for each in flags]

    def _with_none(self, name: str) -> list[int | bool | None]:
        column = self.columns[name]
        values: list[int | bool | None]
        values = (column.astype(bool) if name == "thp_eligible" else column).tolist()
        for index in np.flatnonzero(column == MISSING).tolist():
            values[index] = None
        return values
