"""What a page shows of tensors in new arrays and in a pool."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from hugeprobe.drawing import MarkdownTable, Sentence, markdown_table
from hugeprobe.errors import NotObservable
from hugeprobe.sizes import KIB, format_kib

if TYPE_CHECKING:
    from collections.abc import Sequence

    from hugeprobe.filling import Filling

_COLUMNS: Final = (
    "tensor",
    "MiB",
    "new array: minor faults",
    "new array: huge MiB",
    "pool: minor faults",
    "pool: huge MiB",
    "pool: MiB of rounding",
)


def fillings_table(
    new: Sequence[Filling] | NotObservable, pool: Sequence[Filling] | NotObservable
) -> MarkdownTable | NotObservable:
    """Return the faults and the huge memory of each tensor, in new arrays and in a pool."""
    if isinstance(new, NotObservable):
        return new
    if isinstance(pool, NotObservable):
        return pool
    rows = [
        [
            " x ".join(map(str, before.shape)),
            _mib(before.kib),
            f"{before.minor_faults:,}",
            _mib(before.huge_kib),
            f"{after.minor_faults:,}",
            _mib(after.huge_kib),
            _mib(after.overhead_kib),
        ]
        for before, after in zip(new, pool, strict=True)
    ]
    return markdown_table(_COLUMNS, rows, numeric=range(1, len(_COLUMNS)))


def fillings_sentence(
    new: Sequence[Filling] | NotObservable, pool: Sequence[Filling] | NotObservable
) -> Sentence:
    """Say what all tensors together cost in new arrays and in a pool."""
    if isinstance(new, NotObservable):
        return Sentence(str(new))
    if isinstance(pool, NotObservable):
        return Sentence(str(pool))
    before, after = (sum(each.minor_faults for each in fillings) for fillings in (new, pool))
    rounding = format_kib(max(each.overhead_kib for each in pool))
    return Sentence(
        f"On this host, writing {len(new)} tensors one after another cost {before:,} minor faults "
        f"in new arrays and {after:,} in a pool, where rounding took at most {rounding} at a time."
    )


def _mib(kib: int) -> str:
    return f"{kib / KIB:.1f}"
