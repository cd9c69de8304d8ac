"""What the page "Tuning" shows: the chart with the way of this host, and the tables of actions."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from hugeprobe import arms, host, profiles
from hugeprobe.drawing import (
    ACCENT,
    BASE,
    GAP,
    HUGE,
    End,
    MarkdownTable,
    Picture,
    Sentence,
    Step,
    flow,
    markdown_table,
)
from hugeprobe.errors import NotObservable
from hugeprobe.figures import effects
from hugeprobe.figures.bench import MOMENTS
from hugeprobe.sizes import format_kib
from hugeprobe.tuning import answers, chart
from hugeprobe.tuning.actions import by_outcome
from hugeprobe.tuning.answers import Reply, Situation
from hugeprobe.tuning.chart import Course
from hugeprobe.tuning.promises import promises

if TYPE_CHECKING:
    from collections.abc import Sequence

    from hugeprobe.arms import Arm
    from hugeprobe.bench.record import BenchRecord
    from hugeprobe.bench.summary import Effect
    from hugeprobe.figures.effects import Evidence
    from hugeprobe.kernels.record import KernelsRecord
    from hugeprobe.probe import RuleFinding
    from hugeprobe.tuning.promises import Count
    from hugeprobe.tuning.trials import Trials

_COLOURS: Final = {
    Course.LEAVE: GAP,
    Course.START: HUGE,
    Course.OPERATOR: BASE,
    Course.PROGRAM: ACCENT,
}
_WORDS: Final = {True: "yes", False: "no"}


# The chart ----------------------------------------------------------------------------------------


def answers_here(here: Trials) -> dict[str, Reply] | NotObservable:
    """Reply the questions for the server that was started as it is."""
    report = here.served[arms.DEFAULT.name]
    if isinstance(report, NotObservable):
        return report
    held = report.phases[-1].memory.coverage
    return answers.answers(Situation(host.host_facts(), held, started=False))


def answers_again(here: Trials) -> dict[str, Reply] | NotObservable:
    """Reply them for a process that ``hugeprobe run`` started as it chooses to on this host."""
    facts = host.host_facts()
    run = here.refused if profiles.choose(facts).profile.mbind_refused else here.bound
    if isinstance(run, NotObservable):
        return run
    return answers.answers(Situation(facts, run.held, started=True))


def chart_picture(found: dict[str, Reply] | NotObservable) -> Picture:
    """Draw the chart; where there are answers, with the way that they take."""
    path = None if isinstance(found, NotObservable) else answers.path(found)
    steps = [_step(question, path) for question in chart.QUESTIONS]
    end = _end(chart.LAST, chart.LAST_DETAIL, taken=path is not None and not path.ended)
    return flow(steps, end, "What to do about the huge pages of a service, question by question")


def _step(question: chart.Question, path: chart.Route | None) -> Step:
    asked = path is not None and question in path.asked
    left = path is not None and path.ended and question is path.asked[-1]
    return Step(
        _plain(question.text),
        _plain(question.check),
        _WORDS[question.leaves],
        _WORDS[not question.leaves],
        _end(question.outcome, question.detail, taken=left),
        "leaves" if left else "stays" if asked else "",
    )


def _end(outcome: Course, detail: str, *, taken: bool) -> End:
    return End(outcome.value, _plain(detail), _COLOURS[outcome], taken)


def _plain(text: str) -> str:
    return text.replace("`", "")


def way(found: dict[str, Reply] | NotObservable) -> Sentence:
    """Say which way the chart takes, and by which answers."""
    if isinstance(found, NotObservable):
        return Sentence(str(found))
    path = answers.path(found)
    first, *others = path.asked
    told = [f"{_WORDS[found[each.key].yes]} ({found[each.key].because})" for each in others]
    return Sentence(
        f"The first question is for you; after a {_WORDS[found[first.key].yes]}, the answers are "
        f"{', '.join(told)}: **{path.outcome.value}**, {path.detail}."
    )


def rule_sentence(finding: RuleFinding) -> Sentence:
    """Say which rule this kernel follows, and that no question asks for it."""
    rule = "none of the known rules" if finding.rule is None else f"`{finding.rule.value}`"
    return Sentence(
        f"This kernel follows {rule}. The chart does not ask for it, because no answer to it would "
        "change where the chart leads."
    )


# Tables -------------------------------------------------------------------------------------------


def actions_table(outcome: Course) -> MarkdownTable:
    """Return the decision table of one kind of reader."""
    rows = [
        (action.symptom, action.check, action.action, action.cost) for action in by_outcome(outcome)
    ]
    return markdown_table(["symptom", "check", "action", "cost"], rows)


def effects_table(outcome: Course, evidence: Evidence) -> MarkdownTable:
    """Return what the same actions bring, and what they do not help."""
    rows = []
    for action in by_outcome(outcome):
        told = effects.effect(action.key, evidence)
        rows.append((action.action, told.counts, told.times, action.limit))
    return markdown_table(["action", "counts", "times", "does not help"], rows)


TIMED: Final = (
    arms.ADVISE,
    arms.KEEP,
    arms.COLLAPSE,
    arms.ALWAYS,
    arms.MTHP_64K,
    arms.MTHP,
    arms.MTHP_64K_ADVISE,
)
"""Arms whose times the page shows."""


def times_table(
    record: BenchRecord | NotObservable, chosen: Sequence[Arm] = TIMED
) -> MarkdownTable | Sentence:
    """Return, for each arm and moment, how many workloads it makes faster and slower, and how far.

    Of those whose interval excludes 1, the one farthest from 1 is named with its interval.
    """
    if isinstance(record, NotObservable):
        return Sentence(str(record))
    rows = []
    for arm in chosen:
        # A process that is collapsed once warm is until then like any other.
        for moment, words in MOMENTS.items():
            if arm.collapse and moment != "steady":
                continue
            found = effects.tally(record, arm, moment)
            if not found.effects:
                continue
            shown = sum(len(found.of(verdict)) for verdict in ("faster", "slower"))
            rows.append(
                (
                    f"`{arm.name}`",
                    words,
                    _most(found.of("faster")),
                    _most(found.of("slower")),
                    f"{len(found.effects) - shown} of {len(found.effects)}",
                )
            )
    columns = ["arm", "moment", "faster than default", "slower", "no difference shown"]
    return markdown_table(columns, rows, numeric=(4,))


def _most(found: Sequence[Effect]) -> str:
    if not found:
        return "none"
    cell = found[0].cell
    return f"{len(found)}; most: {cell.workload}, {cell.runtime}, {found[0].speedup}"


def promises_table(record: KernelsRecord | NotObservable) -> MarkdownTable | NotObservable:
    """Return what the operator's recipe promises: faults and huge memory, before and after."""
    promised = promises(record)
    if isinstance(promised, NotObservable):
        return promised
    rows = [
        (
            f"{each.count} of {format_kib(each.length_kib)}, "
            + ("advised" if each.advised else "not advised"),
            f"{each.before.minor_faults:,}",
            f"{each.after.minor_faults:,}",
            _share(each.before, each.touched_kib),
            _share(each.after, each.touched_kib),
        )
        for each in promised
    ]
    columns = ["mappings", "faults before", "after", "huge before", "after it"]
    return markdown_table(columns, rows, numeric=(1, 2, 3, 4))


def _share(count: Count, touched_kib: int) -> str:
    return f"{count.huge_kib / touched_kib:.0%}"
