"""Numbers that are written out, read eight characters at a time, as machine words."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from hugeprobe.smaps.records import Indices, Words

WORD: Final = 8
"""Characters of a machine word, and columns of a value (``%8lu``)."""
_EACH_BYTE: Final = np.uint64(0x0101010101010101)
_NOUGHT: Final = np.frombuffer(b"       0", "<u8")[0]


def hexadecimal(words: Words) -> tuple[Words, NDArray[np.bool_]]:
    """Read pairs of words of hexadecimal digits; return the numbers and which were of that form.

    A digit is 0x30 and its value, a letter 0x27 more: one bit, 0x40, tells which it is.
    """
    letters = words >> np.uint64(6) & _EACH_BYTE
    digits = (words & (15 * _EACH_BYTE)) + 9 * letters
    wrong: Words = words ^ (0x30 * _EACH_BYTE + digits + 0x27 * letters)  # neither
    wrong |= digits & (16 * _EACH_BYTE)  # a letter after f
    wrong |= (digits + 6 * _EACH_BYTE) >> np.uint64(4) & _EACH_BYTE ^ letters  # 10 is a, not :
    high, low = _joined(digits, 16).T
    return high << np.uint64(32) | low, (wrong == 0).all(axis=1)


def _joined(digits: Words, base: int) -> Words:
    """Return the number whose eight digits are the bytes of each word, the first byte highest.

    Neighbours are joined in place, all at once: digits to pairs, pairs to fours, fours to eights.
    """
    for bits, kept in ((8, 0x00FF00FF00FF00FF), (16, 0x0000FFFF0000FFFF), (32, 0xFFFFFFFF)):
        digits = (digits * np.uint64(base) + (digits >> np.uint64(bits))) & np.uint64(kept)
        base *= base
    return digits


def decimal(words: Words) -> tuple[NDArray[np.int64], Indices]:
    """Read words of spaces and then digits; return the numbers and the columns with another form.

    A digit is 0x30 and its value, a space 0x20: without the value, one bit tells which it is.
    """
    flat = words.ravel()
    some = np.flatnonzero(flat != _NOUGHT)  # most fields of most mappings are nought
    chosen = flat[some]
    mark = 16 * _EACH_BYTE
    digits = chosen & (15 * _EACH_BYTE)
    written = chosen ^ digits ^ (32 * _EACH_BYTE)
    wrong = written & ~mark  # neither
    wrong |= (digits + 6 * _EACH_BYTE) & mark  # above 9
    wrong |= digits & ~(written - (written >> np.uint64(4)))  # not quite a space
    wrong |= (written & ~(written >> np.uint64(8))) ^ np.uint64(16 << 56)  # a space after a digit
    numbers = np.zeros(len(flat), np.int64)
    numbers[some] = _joined(digits, 10)
    return numbers.reshape(words.shape), some[wrong != 0] % words.shape[1]
