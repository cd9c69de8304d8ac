"""What came of a survey: an answer, or the lack of one, from each node."""

from __future__ import annotations

from dataclasses import dataclass

from hugeprobe.survey.node import Answer


@dataclass(frozen=True, slots=True)
class NoAnswer:
    """Why a node gave no answer, as a sentence that names no machine."""

    reason: str

    def __str__(self) -> str:
        return self.reason


@dataclass(frozen=True, slots=True)
class Node:
    """A node of the cluster: all workers at one network address.

    Parameters
    ----------
    number
        From 1, in the order of the addresses.
    answer
        What it said, or why it said nothing.
    name
        Names and addresses of its workers; None unless they were asked for.
    """

    number: int
    answer: Answer | NoAnswer
    name: str | None = None

    def __str__(self) -> str:
        return f"node {self.number}" + (f" ({self.name})" if self.name else "")


@dataclass(frozen=True, slots=True)
class Survey:
    """Every node that was in the cluster when the survey began.

    Parameters
    ----------
    nodes
        In the order of their numbers.
    missing
        How many nodes were expected, but never joined.
    """

    nodes: tuple[Node, ...]
    missing: int = 0

    @property
    def answers(self) -> dict[int, Answer]:
        """The answers, by the number of the node."""
        return {node.number: node.answer for node in self.nodes if isinstance(node.answer, Answer)}

    @property
    def silent(self) -> tuple[Node, ...]:
        """The nodes that gave no answer."""
        return tuple(node for node in self.nodes if isinstance(node.answer, NoAnswer))

    @property
    def is_complete(self) -> bool:
        """Whether every node that was expected answered."""
        return not self.silent and not self.missing

    @property
    def sentence(self) -> str:
        """The outcome in words."""
        kernels = len({answer.kernel_key for answer in self.answers.values()})
        said = f"{len(self.answers):,} of {len(self.nodes):,} nodes answered"
        if kernels < len(self.answers):
            said += f", on {kernels:,} running {'kernel' if kernels == 1 else 'kernels'}"
        if self.missing:
            said += f"; {self.missing:,} more were expected, but never joined"
        return said + "."
