"""What a claim is, what can become of it, and what that was computed from."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from hugeprobe.claims.evidence import Gathered
    from hugeprobe.errors import NotObservable


class Verdict(str, Enum):
    """What the evidence says of a claim."""

    CONFIRMED = "confirmed"
    IN_PART = "confirmed in part"
    NOT_HERE = "not confirmed here"
    """Tested or bounded, and not seen; it may be seen elsewhere."""
    REFUTED = "refuted"
    NOT_TESTABLE = "not testable"
    """What would test it is missing on this host, or from its records."""


class Basis(str, Enum):
    """Where evidence comes from."""

    LIVE = "measured at this build"
    RECORDED = "recorded"
    CITED = "cited"


@dataclass(frozen=True, slots=True)
class Source:
    """One thing that a verdict was computed from.

    Parameters
    ----------
    basis
        How it is known.
    what
        What it is, in Markdown, as a clause.
    """

    basis: Basis
    what: str


@dataclass(frozen=True, slots=True)
class Finding:
    """What a judge says.

    Parameters
    ----------
    verdict
        The verdict.
    reason
        One sentence, in Markdown.
    sources
        What it was computed from; none where that is missing.
    """

    verdict: Verdict
    reason: str
    sources: tuple[Source, ...]


@dataclass(frozen=True, slots=True)
class Claim:
    """One claim of the issue.

    Parameters
    ----------
    number
        Its number, which is also its anchor on the page: ``claim-4``.
    title
        The claim in a few words.
    judge
        A pure function: other evidence may give another verdict.
    """

    number: int
    title: str
    judge: Callable[[Gathered], Finding]


@dataclass(frozen=True, slots=True)
class Judged:
    """A claim with what was found.

    Parameters
    ----------
    claim
        The claim.
    finding
        What its judge says.
    """

    claim: Claim
    finding: Finding


def untestable(reason: NotObservable) -> Finding:
    """Return the finding where the evidence is missing.

    Parameters
    ----------
    reason
        Why.
    """
    return Finding(Verdict.NOT_TESTABLE, str(reason), ())


def live(what: str) -> Source:
    """Return a source that was measured at this build."""
    return Source(Basis.LIVE, what)


def recorded(what: str) -> Source:
    """Return a source that was recorded."""
    return Source(Basis.RECORDED, what)


def cited(what: str) -> Source:
    """Return a source that is cited."""
    return Source(Basis.CITED, what)
