"""Allocators that can be put in place of glibc's, found as the dynamic linker finds them."""

from __future__ import annotations

import ctypes.util
from typing import Final

from hugeprobe.errors import NotObservable

_NAMES: Final = {
    "jemalloc": ("jemalloc",),
    "tcmalloc": ("tcmalloc_minimal", "tcmalloc"),
    "mimalloc": ("mimalloc",),
}
_PACKAGES: Final = {
    "jemalloc": "libjemalloc2",
    "tcmalloc": "libtcmalloc-minimal4",
    "mimalloc": "libmimalloc2.0",
}
"""Debian's packages."""


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
            f"{allocator} is not installed; Debian has it in the package {_PACKAGES[allocator]}"
        ),
    )
