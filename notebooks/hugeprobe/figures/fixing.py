"""What the page "Diagnose and fix" shows of a server that is fixed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hugeprobe.drawing import MarkdownTable, Picture, Sentence, markdown_table
from hugeprobe.errors import NotObservable
from hugeprobe.figures import doctor
from hugeprobe.sizes import KIB

if TYPE_CHECKING:
    from hugeprobe.doctor import Diagnosis
    from hugeprobe.fixing import Story


def _diagnoses(story: Story) -> dict[str, Diagnosis]:
    return {
        "as it was started": story.plain.diagnosis,
        "collapsed": story.after,
        f"started with {story.started.arm.name}": story.started.diagnosis,
    }


def before_and_after(story: Story | NotObservable) -> Picture | Sentence:
    """Draw the anonymous memory of the server as it was, collapsed, and started better."""
    if isinstance(story, NotObservable):
        return Sentence(str(story))
    return doctor.coverage_picture(dict(_diagnoses(story)))


def why(story: Story | NotObservable) -> MarkdownTable | NotObservable:
    """Return the diagnosis of the server as it was started."""
    return (
        story if isinstance(story, NotObservable) else doctor.reasons_table(story.plain.diagnosis)
    )


def what_is_left(story: Story | NotObservable) -> MarkdownTable | NotObservable:
    """Return the diagnosis of the server that was started better."""
    if isinstance(story, NotObservable):
        return story
    return doctor.reasons_table(story.started.diagnosis)


def owners(story: Story | NotObservable) -> MarkdownTable | NotObservable:
    """Return whose memory it is, as far as that can be known."""
    return story if isinstance(story, NotObservable) else doctor.owners_table(story.plain.diagnosis)


def space(story: Story | NotObservable) -> Picture | NotObservable:
    """Draw the largest pieces of the address space of the server as it was started."""
    return (
        story if isinstance(story, NotObservable) else doctor.space_picture(story.plain.diagnosis)
    )


def collapse_table(story: Story | NotObservable) -> MarkdownTable | Sentence:
    """Return memory before the collapse and after it, and what the kernel refused."""
    if isinstance(story, NotObservable):
        return Sentence(str(story))
    outcome = story.collapsed
    if isinstance(outcome, NotObservable):
        return Sentence(str(outcome))
    if outcome.after is None:
        return Sentence(outcome.stopped or "There was nothing to collapse.")
    rows = [
        [
            name,
            *(f"{value / KIB:,.0f}" for value in (state.anonymous_kib, state.huge_kib)),
            f"{state.coverage:.0%}",
            f"{state.resident_kib / KIB:,.0f}",
        ]
        for name, state in (("before", outcome.before), ("after", outcome.after))
    ]
    columns = ["moment", "MiB anonymous", "MiB huge", "coverage", "MiB resident"]
    return markdown_table(columns, rows, numeric=(1, 2, 3, 4))


def collapse_sentence(story: Story | NotObservable) -> Sentence:
    """Say how much of what was eligible became huge, what was refused, and that answers agree."""
    if isinstance(story, NotObservable) or isinstance(story.collapsed, NotObservable):
        missing = story if isinstance(story, NotObservable) else story.collapsed
        return Sentence(str(missing))
    outcome = story.collapsed
    eligible = outcome.plan.base_kib
    refused = ", ".join(
        f"{kib / KIB:,.0f} MiB by {error}" for error, kib in outcome.refused_kib.items()
    )
    share = f"{min(1, outcome.made_huge_kib / eligible):.0%}" if eligible else "nothing"
    answers = "the same answers" if story.same_answers else "other answers, which is an error"
    return Sentence(
        f"Of {eligible / KIB:,.0f} MiB that were eligible, {share} became huge in "
        f"{outcome.seconds * 1000:,.0f} ms; the kernel refused {refused or 'nothing'}. The server "
        f"gave {answers} before and after."
    )


def faults_sentence(story: Story | NotObservable) -> Sentence:
    """Say what starting it better did to the faults of first inferences and to coverage."""
    if isinstance(story, NotObservable):
        return Sentence(str(story))
    plain, started = story.plain, story.started
    return Sentence(
        f"Started with `{started.arm.name}`, first inferences took {started.first_faults:,} "
        f"faults in place of {plain.first_faults:,}, and {started.diagnosis.coverage:.0%} of the "
        f"anonymous memory was huge in place of {plain.diagnosis.coverage:.0%}."
    )
