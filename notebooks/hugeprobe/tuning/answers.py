"""The questions of the chart, answered for one server on one host."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from hugeprobe import profiles
from hugeprobe.coverage import Backing, mode_of
from hugeprobe.sizes import KIB
from hugeprobe.tuning.chart import ALLOWED, HUGE, SHORT, STARTED, WAITS, walk

if TYPE_CHECKING:
    from hugeprobe.coverage import Coverage
    from hugeprobe.host import HostFacts
    from hugeprobe.tuning.chart import Route

_HALF: Final = 0.5


@dataclass(frozen=True, slots=True)
class Situation:
    """What the answers are read from.

    Parameters
    ----------
    facts
        The host.
    held
        Anonymous memory of the server by what backs it.
    started
        Whether it was started by ``hugeprobe run`` or with the same settings.
    """

    facts: HostFacts
    held: Coverage
    started: bool


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer to one question.

    Parameters
    ----------
    yes
        The answer.
    because
        What it was read from, as a clause.
    """

    yes: bool
    because: str


def answers(situation: Situation) -> dict[str, Reply]:
    """Reply every question of the chart, by its key.

    Whether anybody waits for the server, no probe can know; that is taken for granted.
    """
    facts, held = situation.facts, situation.held
    mode = mode_of(facts)
    missing = profiles.obstacle(profiles.KEEP, facts.glibc)
    base = held.anonymous_kib - held.kib[Backing.HUGE]
    short = held.kib[Backing.SHORT] / (base or 1)
    smaller = any(size.enabled and size.kib < (facts.pmd_kib or 0) for size in facts.sizes)
    return {
        WAITS.key: Reply(True, "taken for granted, because only you can know"),
        HUGE.key: Reply(
            held.share > _HALF, f"{held.share:.0%} of {held.anonymous_kib / KIB:,.0f} MiB are huge"
        ),
        ALLOWED.key: Reply(
            mode in ("always", "madvise"),
            "forbidden to this process" if mode == "forbidden" else f"the mode is `{mode}`",
        ),
        STARTED.key: Reply(
            missing is None and not situation.started,
            "it was started with its settings" if situation.started else _glibc(facts),
        ),
        SHORT.key: Reply(
            smaller and short > _HALF,
            f"{short:.0%} of the rest is in short blocks, and this kernel has "
            f"{'smaller sizes' if smaller else 'no smaller size'}",
        ),
    }


def _glibc(facts: HostFacts) -> str:
    return f"glibc is {facts.glibc}" if facts.glibc else "its C library is not glibc"


def path(found: dict[str, Reply]) -> Route:
    """Return the way through the chart that these answers take."""
    return walk({key: answer.yes for key, answer in found.items()})
