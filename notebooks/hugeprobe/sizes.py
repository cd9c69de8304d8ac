"""Page sizes of a machine, and how lengths are written."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from hugeprobe.errors import BadRequestError

KIB: Final = 1024
MIB: Final = 1024 * KIB

_UNITS: Final = {"": 1, "K": KIB, "M": MIB, "G": 1024 * MIB}
_LENGTH: Final = re.compile(r"(\d+)(?:([KMG])(?:iB)?)?", re.IGNORECASE)
_MOST_LENGTHS: Final = 65_000


@dataclass(frozen=True, slots=True)
class PageSizes:
    """Page sizes of a machine in bytes.

    Parameters
    ----------
    base
        Size of a base page.
    pmd
        Size that one PMD entry maps: 2 MiB on x86-64.
    at_fault
        Sizes above ``base`` that a fault may be answered with: ``pmd`` alone is the kernel's
        default, none is THP ``never``, smaller ones are multi-size THP. Kept largest first.
    """

    base: int = 4 * KIB
    pmd: int = 2 * MIB
    at_fault: tuple[int, ...] = field(default=(2 * MIB,))

    def __post_init__(self) -> None:
        object.__setattr__(self, "at_fault", tuple(sorted(set(self.at_fault), reverse=True)))


def page_sizes(root: Path = Path("/")) -> PageSizes:
    """Return this machine's base page and PMD size, and the PMD as the only size at a fault.

    The PMD size is ``/sys/kernel/mm/transparent_hugepage/hpage_pmd_size``; where THP is not built
    in, what a page table of 8-byte entries maps.
    """
    base = os.sysconf("SC_PAGE_SIZE")
    try:
        text = (root / "sys/kernel/mm/transparent_hugepage/hpage_pmd_size").read_text()
        pmd = int(text)
    except (OSError, ValueError):
        pmd = base * (base // 8)
    return PageSizes(base, pmd, (pmd,))


def parse_length(text: str) -> int:
    """Return the bytes that ``text`` means: ``4096``, ``2052K``, ``3M``, ``1GiB``."""
    match = _LENGTH.fullmatch(text.strip())
    if not match:
        raise BadRequestError(
            f"A length was asked for as '{text}', which is not a number with K, M or G behind it. "
            "Write lengths such as 4096, 2052K or 3M."
        )
    return int(match[1]) * _UNITS[(match[2] or "").upper()]


def parse_lengths(text: str) -> tuple[int, ...]:
    """Return the bytes of each mapping in a list such as ``2052K*16`` or ``4M,3M*8``.

    ``*N`` at the end repeats the whole list N times.
    """
    items, star, times = text.partition("*")
    count = int(times) if times.isdecimal() else 0 if star else 1
    lengths = tuple(parse_length(item) for item in items.split(","))
    if not 0 < count * len(lengths) <= _MOST_LENGTHS or min(lengths) < 1:
        raise BadRequestError(
            f"A layout was asked for as '{text}', which is not between one and {_MOST_LENGTHS} "
            "lengths of at least one byte. Write a list such as 2052K*16, or 4M,3M*8 for both "
            "lengths eight times."
        )
    return lengths * count


def format_kib(kib: float) -> str:
    """Return ``kib`` as a person writes it: ``640 KiB``, ``1.5 MiB``, ``24 GiB``."""
    for unit, size in (("GiB", MIB), ("MiB", KIB)):
        if kib >= size:
            return f"{kib / size:.3g} {unit}" if kib < 1000 * size else f"{kib / size:,.0f} {unit}"
    return f"{kib:,.0f} KiB"
