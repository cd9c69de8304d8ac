"""What the operator's recipe promises, in counts, from kernels that ran under these settings.

The record of the kernel laboratory says what the same mappings cost under the settings that the
recipe makes. The test of the recipe applies it, as it stands on the page, in a guest, and compares.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from hugeprobe.errors import NotObservable
from hugeprobe.placement import Touch

if TYPE_CHECKING:
    from collections.abc import Iterable

    from hugeprobe.kernels.record import KernelsRecord, KernelUnderSetting, RecordedLayout

STOCK: Final = "6.12."
"""Beginning of the release whose counts are promised: Debian's stock kernel in the record."""
SIZES_KIB: Final = (64,)
MODE_BEFORE: Final = "never"
MODE_AFTER: Final = "madvise"


@dataclass(frozen=True, slots=True)
class Count:
    """What writing mappings comes to.

    Parameters
    ----------
    minor_faults
        Faults of all of them.
    huge_kib
        Memory that PMDs map afterwards.
    """

    minor_faults: int
    huge_kib: int


@dataclass(frozen=True, slots=True)
class Promise:
    """Mappings of one length, each written as it is mapped, before the recipe and after it.

    Parameters
    ----------
    length_kib, count
        KiB of each mapping, and how many.
    advised
        Whether the program asks for huge pages, as ``hugeprobe layout`` does in mode ``madvise``.
    before, after
        With THP ``never``, and with the settings of the recipe.
    """

    length_kib: int
    count: int
    advised: bool
    before: Count
    after: Count

    @property
    def touched_kib(self) -> int:
        """What is written to."""
        return self.length_kib * self.count


CASES: Final = ((1536, True), (4096, True), (4096, False))
"""Length in KiB, and whether the program advises."""


def promises(record: KernelsRecord | NotObservable) -> tuple[Promise, ...] | NotObservable:
    """Return what the recipe promises.

    Returns
    -------
    tuple of Promise or NotObservable
        The latter where the record is missing, or lacks the kernel or a setting.
    """
    if isinstance(record, NotObservable):
        return record
    stock = [
        each
        for each in record.kernels
        if each.release.startswith(STOCK) and each.origin.startswith("Debian")
    ]
    before = _under(stock, MODE_BEFORE, ())
    # What does not ask is served in mode `madvise` as everything is in mode `never`.
    after = {True: _under(stock, MODE_AFTER, SIZES_KIB), False: _under(stock, "never", SIZES_KIB)}
    if before is None or None in after.values():
        return NotObservable(f"the record has no kernel {STOCK} under the settings of the recipe")
    found = [
        (length, advised, _of(before, length), _of(after[advised], length))
        for length, advised in CASES
    ]
    return tuple(
        Promise(length, len(old.lengths), advised, _count(old), _count(new))
        for length, advised, old, new in found
    )


def _under(
    kernels: Iterable[KernelUnderSetting], mode: str, sizes: tuple[int, ...]
) -> KernelUnderSetting | None:
    return next((each for each in kernels if (each.thp_mode, each.mthp) == (mode, sizes)), None)


def _of(kernel: KernelUnderSetting | None, length_kib: int) -> RecordedLayout:
    assert kernel is not None
    return next(
        each
        for each in kernel.layouts
        if set(each.lengths) == {length_kib} and each.touch is Touch.EACH and not each.top_offset
    )


def _count(layout: RecordedLayout) -> Count:
    return Count(layout.minor_faults, layout.huge_kib)
