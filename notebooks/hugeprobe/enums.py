"""Sets of words, as classes."""

from __future__ import annotations

from enum import Enum


class Words(str, Enum):
    """A set of words that are written as they read; ``enum.StrEnum`` of Python 3.11 and newer."""

    def __str__(self) -> str:
        return str.__str__(self)
