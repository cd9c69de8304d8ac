"""Settings of a process that make huge pages more likely: environment variables only."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True, slots=True)
class Profile:
    """A set of settings under a name.

    Parameters
    ----------
    name, description
        Short name, and what it does in one sentence.
    env
        Environment variables.
    """

    name: str
    description: str
    env: Mapping[str, str]


_ADVISED: Final = "glibc.malloc.hugetlb=1"
_KEPT: Final = (
    "glibc.malloc.mmap_max=0:glibc.malloc.top_pad=67108864:glibc.malloc.trim_threshold=1073741824"
)
ADVISE: Final = Profile(
    "advise", "glibc (2.35 or newer) advises huge pages.", {"GLIBC_TUNABLES": _ADVISED}
)
KEEP: Final = Profile(
    "keep", "It also keeps what it has.", {"GLIBC_TUNABLES": f"{_ADVISED}:{_KEPT}"}
)
