"""Which nodes differ from most, and what is odd about the answer of a node by itself."""

from __future__ import annotations

import itertools
import re
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from hugeprobe import __version__
from hugeprobe.errors import NotObservable
from hugeprobe.placement import Rule
from hugeprobe.survey.facts import FACTS

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from hugeprobe.survey.facts import Fact, Value
    from hugeprobe.survey.node import Answer

_SINCE: Final = (((6, 11, 7), Rule.MULTIPLES), ((6, 7, 0), Rule.FORCED))
"""First stock kernel of each rule, newest first (see :class:`~hugeprobe.placement.Rule`)."""


@dataclass(frozen=True, slots=True)
class Common:
    """What most nodes have.

    Parameters
    ----------
    fact
        The property.
    value
        Its most frequent value; of equally frequent ones, that of the node with the lowest number.
    nodes
        How many have it.
    """

    fact: Fact
    value: Value
    nodes: int


@dataclass(frozen=True, slots=True)
class Difference:
    """Nodes that have something else than most.

    Parameters
    ----------
    common
        What most have.
    value
        What these have.
    nodes
        Their numbers.
    of
        How many nodes answered.
    """

    common: Common
    value: Value
    nodes: tuple[int, ...]
    of: int

    @property
    def sentence(self) -> str:
        """The difference and what follows from it."""
        return (
            f"{self.common.fact.name}: {written(self.value)}, where {self.common.nodes:,} of "
            f"{self.of:,} have {written(self.common.value)}. {self.common.fact.meaning}"
        )


@dataclass(frozen=True, slots=True)
class Doubt:
    """Something in the answer of some nodes that does not fit together.

    Parameters
    ----------
    sentence
        What it is.
    nodes
        Their numbers.
    """

    sentence: str
    nodes: tuple[int, ...]


def remarks(answers: Mapping[int, Answer]) -> list[Difference | Doubt]:
    """Return all that there is to say, what differs first."""
    return [*differences(answers), *doubts(answers)]


def commons(answers: Mapping[int, Answer]) -> list[Common]:
    """Return what most nodes have, fact by fact; without those that no node has."""
    found = []
    for fact in FACTS:
        counted = Counter(fact.of(answer) for answer in answers.values())
        if set(counted) <= {None}:
            continue
        value, nodes = counted.most_common(1)[0]
        found.append(Common(fact, value, nodes))
    return found


def differences(answers: Mapping[int, Answer]) -> list[Difference]:
    """Return what differs, the facts that decide about huge pages first."""
    found = []
    for common in commons(answers):
        others: dict[Value, list[int]] = {}
        for number, answer in answers.items():
            if (value := common.fact.of(answer)) != common.value:
                others.setdefault(value, []).append(number)
        found += [
            Difference(common, value, tuple(nodes), len(answers)) for value, nodes in others.items()
        ]
    return found


def doubts(answers: Mapping[int, Answer]) -> list[Doubt]:
    """Return what is odd about answers by themselves, whatever the other nodes say."""
    found: dict[str, list[int]] = {}
    for number, answer in answers.items():
        for sentence in _doubts(answer):
            found.setdefault(sentence, []).append(number)
    return [Doubt(sentence, tuple(nodes)) for sentence, nodes in found.items()]


def _doubts(answer: Answer) -> Iterable[str]:
    if answer.version != __version__:
        yield (
            f"It answered as hugeprobe {answer.version}, although {__version__} was sent: "
            "do not trust the answer before you know why."
        )
    if answer.rule is None:
        yield answer.finding
    expected = rule_by_release(answer.facts.kernel or "")
    if answer.rule and expected and answer.rule is not expected:
        yield (
            f"Its kernel calls itself {answer.facts.kernel}, which suggests the rule "
            f"`{expected.value}`, but it follows `{answer.rule.value}`: a change was carried to "
            "another version, or the release is not true. Believe the rule."
        )
    if isinstance(answer.counts, NotObservable):
        yield f"Nothing was counted there, because {answer.counts.reason}."


def rule_by_release(release: str) -> Rule | None:
    """Return the rule that stock kernels of a release follow: a hint, because distributions differ.

    >>> rule_by_release("6.8.0-58-generic")
    <Rule.FORCED: 'forced'>
    """
    if not (match := re.match(r"(\d+)\.(\d+)(?:\.(\d+))?", release)):
        return None
    version = tuple(int(part or 0) for part in match.groups())
    return next((rule for since, rule in _SINCE if version >= since), Rule.PACKED)


def written(value: Value) -> str:
    """Return a value as people read it."""
    if value is None:
        return "not told"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:,}" if isinstance(value, int) else value or "none"


def numbers(nodes: Iterable[int]) -> str:
    """Return node numbers in words.

    >>> numbers([1, 2, 3, 5])
    'nodes 1-3, 5'
    """
    runs = itertools.groupby(enumerate(sorted(nodes)), lambda pair: pair[1] - pair[0])
    parts = []
    for _, run in runs:
        first, *_, last = [number for _, number in run] * 2
        parts.append(f"{first}" if first == last else f"{first}-{last}")
    several = len(parts) > 1 or "-" in parts[0]
    return f"{'nodes' if several else 'node'} {', '.join(parts)}"
