"""A snapshot: the mappings of a process as they were read, and sums over them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final, overload

import numpy as np

from hugeprobe.smaps.fields import MISSING
from hugeprobe.smaps.mapping import Kind, Mapping, Rollup

if TYPE_CHECKING:
    from collections.abc import Iterator
    from collections.abc import Mapping as MappingType

    from numpy.typing import NDArray

    from hugeprobe.smaps.fields import Pid
    from hugeprobe.smaps.records import Records

_KINDS: Final = tuple(Kind)
_SUMMED: Final = tuple(field.name for field in fields(Rollup))[1:]


class Snapshot(Sequence[Mapping]):
    """The mappings of a process, as they were read.

    The figures are kept as columns, and :class:`Mapping` objects are made when they are asked for:
    a sum over a column costs microseconds, a loop over 20,000 objects tens of milliseconds.

    Parameters
    ----------
    pid
        The process, as it was asked for.
    """

    def __init__(self, pid: Pid, records: Records) -> None:
        self.pid: Final = pid
        self._records: Final = records
        for column in records.columns.values():
            column.flags.writeable = False

    @property
    def columns(self) -> MappingType[str, NDArray[Any]]:
        """The numeric fields of :class:`Mapping` as read-only arrays, one value a mapping.

        ``start`` and ``end`` are uint64 addresses; every other is int64, with
        :data:`~hugeprobe.smaps.fields.MISSING` where the kernel wrote none.
        """
        return MappingProxyType(self._records.columns)

    def __len__(self) -> int:
        return len(self._records.tail)

    @overload
    def __getitem__(self, index: int) -> Mapping: ...
    @overload
    def __getitem__(self, index: slice) -> Snapshot: ...
    def __getitem__(self, index: int | slice) -> Mapping | Snapshot:
        if isinstance(index, slice):
            return Snapshot(self.pid, self._records.take(index))
        one = range(len(self))[index]
        return next(self._records.take(slice(one, one + 1)).mappings())

    def __iter__(self) -> Iterator[Mapping]:
        return self._records.mappings()

    def __repr__(self) -> str:
        return f"<Snapshot of {self.pid}: {len(self)} mappings>"

    def within(self, start: int, end: int) -> Snapshot:
        """Return the mappings that have at least one byte in ``start`` to ``end``, whole."""
        columns = self._records.columns
        inside = (columns["start"] < np.uint64(end)) & (columns["end"] > np.uint64(start))
        return Snapshot(self.pid, self._records.take(inside))

    def rollup(self) -> dict[Kind, Rollup]:
        """Return the sums of each kind of which there are mappings."""
        code_of_tail = np.array([_KINDS.index(tail.kind) for tail in self._records.tails])
        codes = code_of_tail[self._records.tail]
        return {_KINDS[code]: self._sum(codes == code) for code in np.unique(codes).tolist()}

    @property
    def total(self) -> Rollup:
        """The sums of all mappings."""
        return self._sum(np.ones(len(self), bool))

    def _sum(self, chosen: NDArray[np.bool_]) -> Rollup:
        present = ((name, self._records.columns[name]) for name in _SUMMED)
        sums = {name: int(column[chosen & (column != MISSING)].sum()) for name, column in present}
        return Rollup(mappings=int(chosen.sum()), **sums)

    @property
    def coverage(self) -> float | None:
        """Share of the resident anonymous memory that is PMD-mapped; None where there is none."""
        total = self.total
        return total.anon_huge_kib / total.anonymous_kib if total.anonymous_kib else None
