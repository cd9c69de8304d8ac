"""What can go wrong, as sentences: what was asked, what was found, what to do."""

from __future__ import annotations

from dataclasses import dataclass


class ProbeError(Exception):
    """Base of every error this package raises on purpose; its text is a sentence for the user."""


class NotLinuxError(ProbeError):
    """The operating system has no ``/proc`` and no transparent huge pages to look at."""


class ProcessGoneError(ProbeError):
    """The process does not exist, or ended while it was being read."""


class NotPermittedError(ProbeError):
    """The kernel refused to let this user look at, or change, what was asked for."""


class MalformedError(ProbeError):
    """A kernel file did not have the form that its documentation promises."""


class NoMemoryError(ProbeError):
    """The work would not fit into the memory that this process may use."""


class BadRequestError(ProbeError):
    """What was asked for makes no sense as it was written."""


@dataclass(frozen=True, slots=True)
class NotObservable:
    """What a probe returns, in place of its result, where this host cannot show the effect.

    Parameters
    ----------
    reason
        The rest of the sentence "Not observable here, because …", without a full stop.
    """

    reason: str

    def __str__(self) -> str:
        return f"Not observable here, because {self.reason}."

    def _repr_markdown_(self) -> str:
        return f"*{self}*"
