"""What the page "Fleets" shows."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from hugeprobe.drawing import MarkdownTable, Sentence, markdown_table
from hugeprobe.survey import differences
from hugeprobe.survey.facts import FACTS
from hugeprobe.survey.outcome import NoAnswer

if TYPE_CHECKING:
    from hugeprobe.survey.node import Answer
    from hugeprobe.survey.outcome import Survey

_SHOWN: Final = (
    "rule",
    "thp_mode",
    "advised_sizes_kib",
    "defrag",
    "kernel",
    "glibc",
    "faults_map_touch",
    "faults_map_advise_touch",
    "huge_kib_map_advise_touch",
)


def outcome(survey: Survey) -> Sentence:
    """Return who answered and what differs, in sentences."""
    remarks = [
        f"{differences.numbers(each.nodes).capitalize()}: {each.sentence}"
        for each in differences.remarks(survey.answers)
    ]
    return Sentence(" ".join([survey.sentence, *(remarks or ["No node differs from the others."])]))


def answers_table(survey: Survey) -> MarkdownTable:
    """Return some facts of each node."""

    def cells(answer: Answer | NoAnswer) -> list[str]:
        if isinstance(answer, NoAnswer):
            return ["no answer" for _ in shown]
        return [differences.written(fact.of(answer)) for fact in shown]

    shown = [fact for name in _SHOWN for fact in FACTS if fact.column == name]
    columns = [[fact.name for fact in shown], *(cells(node.answer) for node in survey.nodes)]
    return markdown_table(("fact", *map(str, survey.nodes)), list(zip(*columns, strict=True)))
