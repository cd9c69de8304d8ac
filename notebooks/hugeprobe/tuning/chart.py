"""The decision chart: questions in their order, each with one answer that ends it.

It is data, so that the picture, the answers for one host and the tables of actions are about the
same questions. A chart with one way out of each question can be read on a telephone.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping


class Course(Enum):
    """Where the chart leads."""

    LEAVE = "Leave it as it is"
    START = "Start it differently"
    OPERATOR = "Ask the operator"
    PROGRAM = "Change the program"


@dataclass(frozen=True, slots=True)
class Question:
    """One question of the chart.

    Parameters
    ----------
    key
        Short name.
    text
        The question, to be answered by yes or no.
    check
        What tells the answer: a command, or a file of the kernel.
    leaves
        The answer that ends the chart; the other one leads to the next question.
    outcome
        Where it ends.
    detail
        What to do there, in a few words.
    """

    key: str
    text: str
    check: str
    leaves: bool
    outcome: Course
    detail: str


WAITS: Final = Question(
    "waits",
    "Do you wait for starts, first requests, large tables, or text token by token?",
    "hugeprobe bench",
    False,
    Course.LEAVE,
    "warm, compute-bound: no gain shown",
)
HUGE: Final = Question(
    "huge",
    "Is more than half of its memory huge?",
    "hugeprobe doctor PID",
    True,
    Course.LEAVE,
    "doctor says what keeps the rest back",
)
ALLOWED: Final = Question(
    "allowed",
    "Is THP `always` or `madvise`, and allowed to it?",
    "hugeprobe host",
    False,
    Course.OPERATOR,
    "mode `madvise`; until then, collapse",
)
STARTED: Final = Question(
    "started",
    "Does it use glibc 2.35 or newer, and has it not been started by `hugeprobe run` yet?",
    "ldd --version",
    True,
    Course.START,
    "`hugeprobe run`, then ask again",
)
SHORT: Final = Question(
    "short",
    "Is most of the rest in blocks below 2 MiB, and has the kernel smaller huge pages?",
    "hugepages-64kB/enabled",
    True,
    Course.OPERATOR,
    "huge pages of 64 KiB",
)
QUESTIONS: Final = (WAITS, HUGE, ALLOWED, STARTED, SHORT)
LAST: Final = Course.PROGRAM
LAST_DETAIL: Final = "blocks: aligned, advised, kept"


@dataclass(frozen=True, slots=True)
class Route:
    """One way through the chart.

    Parameters
    ----------
    asked
        The questions that were asked, in order.
    ended
        Whether the last answer ended it; else it was gone through to its end.
    """

    asked: tuple[Question, ...]
    ended: bool

    @property
    def outcome(self) -> Course:
        """Where it led."""
        return self.asked[-1].outcome if self.ended else LAST

    @property
    def detail(self) -> str:
        """What to do there."""
        return self.asked[-1].detail if self.ended else LAST_DETAIL


def walk(answers: Mapping[str, bool]) -> Route:
    """Go through the chart.

    Parameters
    ----------
    answers
        By the key of the question; those that are not reached need no answer.
    """
    for number, question in enumerate(QUESTIONS, 1):
        if answers[question.key] is question.leaves:
            return Route(QUESTIONS[:number], ended=True)
    return Route(QUESTIONS, ended=False)
