"""Allocators that can be put in place of glibc's, found as the dynamic linker finds them."""

from __future__ import annotations

import ctypes.util
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from hugeprobe.errors import NotObservable

if TYPE_CHECKING:
    from collections.abc import Mapping

_NAMES: Final = {
    "jemalloc": ("jemalloc",),
    "tcmalloc": ("tcmalloc_minimal", "tcmalloc"),
    "mimalloc": ("mimalloc",),
}
_PACKAGES: Final = {
    "jemalloc": "libjemalloc2",
    "tcmalloc": "libtcmalloc-minimal4 or libtcmalloc-minimal4t64",
    "mimalloc": "libmimalloc2.0 or libmimalloc3",
}
"""Of Debian and Ubuntu; which of two it is depends on the release."""

ADVICE: Final[Mapping[str, Mapping[str, str]]] = MappingProxyType(
    {
        "jemalloc": {"MALLOC_CONF": "thp:always"},
        "mimalloc": {
            "MIMALLOC_LARGE_OS_PAGES": "1",  # before 2.1
            "MIMALLOC_ALLOW_LARGE_OS_PAGES": "1",  # since then
            "MIMALLOC_ALLOW_THP": "1",  # versions of 3 that advise by themselves unless this is 0
        },
    }
)
"""Environment variables by which an allocator is told to advise huge pages, for all its versions.

Whether a version then does is for counts to say: mimalloc 3.0.1 takes a piece that is no multiple
of 2 MiB, and advises nothing. tcmalloc has no such setting.
"""


def library(allocator: str) -> str | NotObservable:
    """Return what ``LD_PRELOAD`` takes for one of jemalloc, tcmalloc and mimalloc.

    Returns
    -------
    str or NotObservable
        The library's name without a folder, which the dynamic linker completes (``ld.so(8)``).
    """
    found = filter(None, map(ctypes.util.find_library, _NAMES[allocator]))
    return next(
        found,
        NotObservable(
            f"{allocator} is not installed; Debian and Ubuntu have it in the package "
            f"{_PACKAGES[allocator]}"
        ),
    )
