"""Ways to start a program, by what they do to its huge pages: environment and process switches.

A profile is data: what :mod:`hugeprobe.launch` starts a command with, what a unit file or a shell
can say in its place, and what the arms of a benchmark differ in. Sources: ``malloc/malloc.c`` and
``elf/dl-tunables.list`` of glibc, ``prctl(2)``, ``seccomp(2)``, ``mbind(2)``, ``systemd.exec(5)``.
"""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from hugeprobe.coverage import mode_of
from hugeprobe.errors import BadRequestError, NotObservable
from hugeprobe.linux import FILTERED_ARCHITECTURES
from hugeprobe.sizes import MIB

if TYPE_CHECKING:
    from collections.abc import Mapping

    from hugeprobe.host import HostFacts

_VARIABLE: Final = "GLIBC_TUNABLES"
_ALIASES: Final = {
    "glibc.malloc.mmap_max": "MALLOC_MMAP_MAX_",
    "glibc.malloc.top_pad": "MALLOC_TOP_PAD_",
    "glibc.malloc.trim_threshold": "MALLOC_TRIM_THRESHOLD_",
}
"""Older variables of the same settings; a tunable overrules its alias."""
_FIRST_GLIBC: Final = (2, 35)

ADVISE_TUNABLES: Final[Mapping[str, int]] = {"glibc.malloc.hugetlb": 1}
"""Where the mode is ``madvise``, advise what is taken from the kernel in pieces of 2 MiB or more,
and grow the heap by whole huge pages."""

KEEP_TUNABLES: Final[Mapping[str, int]] = {
    **ADVISE_TUNABLES,
    "glibc.malloc.mmap_max": 0,
    "glibc.malloc.top_pad": 64 * MIB,
    "glibc.malloc.trim_threshold": 1024 * MIB,
}
"""The same, and keep memory in few large mappings, chosen by experiment with OpenVINO and ONNX
Runtime.

``mmap_max`` 0: no block becomes a mapping of its own, which would be returned when it is freed and
faulted again, and whose header keeps it off every boundary. ``top_pad`` 64 MiB: the heap grows
ahead of what is touched, so that a huge page fits at the first touch; an arena of a thread is
mapped in whole at once (it is at most 64 MiB), where it would grow by pieces too short for advice.
``trim_threshold`` 1 GiB: free memory at the end of the heap stays.
"""


@dataclass(frozen=True, slots=True)
class Profile:
    """What a program is started with.

    Parameters
    ----------
    name
        Short name, as the command line spells it.
    description
        What it does, in one sentence.
    tunables
        Settings of glibc, by their names in ``GLIBC_TUNABLES``.
    thp_disabled
        Whether the process starts with ``PR_SET_THP_DISABLE``.
    mbind_refused
        Whether ``mbind(2)`` fails with ``EPERM``, through a seccomp filter. A range with a memory
        policy of its own is a mapping of its own; a runtime that binds every weight cuts the heap
        into pieces too short for huge pages. With one memory node there is nothing to bind to.
    """

    name: str
    description: str
    tunables: Mapping[str, int] = field(default_factory=dict)
    thp_disabled: bool = False
    mbind_refused: bool = False

    @property
    def env(self) -> dict[str, str]:
        """The environment variables that it adds."""
        return _variable(self.tunables)


def _variable(tunables: Mapping[str, object]) -> dict[str, str]:
    settings = ":".join(f"{name}={value}" for name, value in tunables.items())
    return {_VARIABLE: settings} if settings else {}


PLAIN: Final = Profile("plain", "Nothing is changed.")
ADVISE: Final = Profile(
    "advise",
    "glibc advises huge pages for what it takes from the kernel.",
    tunables=ADVISE_TUNABLES,
)
KEEP: Final = Profile(
    "keep",
    "As advise, and glibc keeps memory in few large mappings and does not return it.",
    tunables=KEEP_TUNABLES,
)
WHOLE: Final = Profile(
    "whole",
    "As keep, and mbind is refused, so that memory policies do not cut the heap.",
    tunables=KEEP_TUNABLES,
    mbind_refused=True,
)
OFF: Final = Profile("off", "Huge pages are forbidden to the process.", thp_disabled=True)
PROFILES: Final = (PLAIN, ADVISE, KEEP, WHOLE, OFF)


def keep_environment(glibc: str | None) -> dict[str, str] | NotObservable:
    """Return the environment of :data:`KEEP` for a glibc such as ``"2.36"``; None is another libc.

    Returns
    -------
    dict or NotObservable
        The latter where that C library would ignore it.
    """
    return obstacle(KEEP, glibc) or KEEP.env


def obstacle(profile: Profile, glibc: str | None) -> NotObservable | None:
    """Return why ``profile`` cannot work with this version of glibc, if it cannot."""
    if not profile.tunables or _version(glibc) >= _FIRST_GLIBC:
        return None
    found = f"this is glibc {glibc}" if glibc else "the C library here is not glibc"
    return NotObservable(
        f"the profile {profile.name} needs glibc 2.35 or newer, and {found}; start the program in "
        "an image with a newer glibc, or as it is and run `hugeprobe collapse` on it"
    )


def _version(glibc: str | None) -> tuple[int, ...]:
    return tuple(map(int, re.findall(r"\d+", glibc or "")))


@dataclass(frozen=True, slots=True)
class Choice:
    """A profile, and why it is the one for a host.

    Parameters
    ----------
    profile
        What to start with.
    reason
        A sentence.
    """

    profile: Profile
    reason: str


def choose(facts: HostFacts) -> Choice:
    """Return the profile that suits a host, whatever runtime the program uses.

    It is the one that gives most huge pages at the first touch and takes nothing away: ``whole``
    where there is one memory node, ``keep`` where a policy of memory nodes can matter.
    """
    if mode_of(facts) not in ("always", "madvise"):
        return Choice(
            PLAIN,
            "THP is off for this host or process, so nothing given at the start brings huge pages. "
            "Run `hugeprobe collapse` on the running process; it works with THP never, too.",
        )
    if missing := obstacle(KEEP, facts.glibc):
        return Choice(PLAIN, f"Nothing is changed, because {missing.reason}.")
    if (facts.cpu.numa_nodes or 1) > 1:
        return Choice(KEEP, "This host has several memory nodes, so mbind stays allowed.")
    if facts.architecture not in FILTERED_ARCHITECTURES:
        return Choice(KEEP, f"How to refuse mbind on {facts.architecture} is not known here.")
    return Choice(WHOLE, "This host has one memory node, so refusing mbind takes nothing away.")


def find(name: str) -> Profile:
    """Return the profile of that name.

    Raises
    ------
    BadRequestError
        If there is none.
    """
    for profile in PROFILES:
        if profile.name == name:
            return profile
    names = ", ".join(["auto", *(profile.name for profile in PROFILES)])
    raise BadRequestError(f"There is no profile named '{name}'; choose one of {names}.")


@dataclass(frozen=True, slots=True)
class Merged:
    """An environment to start with.

    Parameters
    ----------
    env
        All of it.
    added
        What of it the profile added or changed.
    kept
        Settings of the user that the profile would have set otherwise, such as
        ``glibc.malloc.top_pad=0``.
    """

    env: Mapping[str, str]
    added: Mapping[str, str]
    kept: tuple[str, ...]


def merge(profile: Profile, environ: Mapping[str, str]) -> Merged:
    """Add the settings of ``profile`` to ``environ``, where those that are there already win."""
    theirs = dict(
        each.split("=", 1) for each in environ.get(_VARIABLE, "").split(":") if "=" in each
    )
    aliased = {name: alias for name, alias in _ALIASES.items() if alias in environ}
    new = {
        name: value
        for name, value in profile.tunables.items()
        if name not in theirs and name not in aliased
    }
    kept = [
        f"{aliased[name]}={environ[aliased[name]]}" if name in aliased else f"{name}={theirs[name]}"
        for name in profile.tunables
        if name not in new
    ]
    added = _variable({**theirs, **new}) if new else {}
    return Merged({**environ, **added}, added, tuple(kept))


def unit_lines(profile: Profile, added: Mapping[str, str] | None = None) -> list[str]:
    """Return what a systemd unit says for the same start, as lines for its ``[Service]`` section.

    Parameters
    ----------
    profile
        What to start with.
    added
        The environment to add, where it is not the profile's own.
    """
    env = profile.env if added is None else added
    lines = [f'Environment="{name}={value}"' for name, value in env.items()]
    if profile.mbind_refused:
        lines.append("SystemCallFilter=~mbind:EPERM")
    if profile.thp_disabled:
        lines.append("# Only a systemd that knows MemoryTHP= can forbid huge pages by itself;")
        lines.append("# with any other, write: ExecStart=hugeprobe run --profile off -- COMMAND")
    return lines


def shell_lines(profile: Profile, added: Mapping[str, str] | None = None) -> list[str]:
    """Return what a shell says for the same start; parameters as for :func:`unit_lines`."""
    env = profile.env if added is None else added
    words = ["env", *(shlex.quote(f"{name}={value}") for name, value in env.items()), "COMMAND"]
    lines = [" ".join(words)] if env else []
    if profile.mbind_refused or profile.thp_disabled:
        what = "refuse mbind" if profile.mbind_refused else "forbid huge pages"
        lines.append(f"# A shell cannot {what}: hugeprobe run --profile {profile.name} -- COMMAND")
    return lines
