"""How lengths are written, and which page sizes a machine has."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hugeprobe.errors import BadRequestError
from hugeprobe.sizes import (
    KIB,
    MIB,
    PageSizes,
    format_kib,
    page_sizes,
    parse_length,
    parse_lengths,
)

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize(
    ("text", "lengths"),
    [
        ("4096", (4096,)),
        ("2052K", (2052 * KIB,)),
        ("3M*2", (3 * MIB, 3 * MIB)),
        ("4M,3M*2", (4 * MIB, 3 * MIB, 4 * MIB, 3 * MIB)),
        (" 1GiB , 64kib", (1024 * MIB, 64 * KIB)),
    ],
)
def test_lengths(text: str, lengths: tuple[int, ...]) -> None:
    assert parse_lengths(text) == lengths


@pytest.mark.parametrize(
    "text", ["", "4X", "-1M", "3M*", "3M*0", "3M*-2", "3M*1.5", "0", "4M,,3M", "1K*9999999", "1.5M"]
)
def test_what_is_no_list_of_lengths_is_a_sentence(text: str) -> None:
    with pytest.raises(BadRequestError, match=r"was asked for as '.*Write"):
        parse_lengths(text)


@given(st.integers(0, 10**9))
def test_plain_numbers_are_bytes(number: int) -> None:
    assert parse_length(str(number)) == number


@pytest.mark.parametrize(
    ("kib", "text"),
    [
        (0, "0 KiB"),
        (640, "640 KiB"),
        (2052, "2 MiB"),
        (1536, "1.5 MiB"),
        (30660, "29.9 MiB"),
        (24 * MIB, "24 GiB"),
        (1023 * KIB, "1,023 MiB"),
    ],
)
def test_sizes_for_people(kib: int, text: str) -> None:
    assert format_kib(kib) == text


def test_page_sizes_keep_the_largest_first() -> None:
    assert PageSizes(at_fault=(64 * KIB, 2 * MIB, 64 * KIB)).at_fault == (2 * MIB, 64 * KIB)


def test_the_pmd_size_comes_from_the_kernel(tmp_path: Path) -> None:
    folder = tmp_path / "sys/kernel/mm/transparent_hugepage"
    folder.mkdir(parents=True)
    (folder / "hpage_pmd_size").write_text(f"{32 * MIB}\n")
    assert page_sizes(tmp_path).pmd == 32 * MIB


def test_without_thp_the_pmd_size_follows_from_the_page_table(tmp_path: Path) -> None:
    sizes = page_sizes(tmp_path)
    assert sizes.pmd == sizes.base**2 // 8
