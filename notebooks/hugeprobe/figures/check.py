"""What the page "Check your host" shows."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hugeprobe import check
from hugeprobe.drawing import MarkdownTable, Picture, Sentence, bars, markdown_table
from hugeprobe.errors import NotObservable
from hugeprobe.figures.common import HUGE_OR_BASE, split_resident
from hugeprobe.sizes import format_kib

if TYPE_CHECKING:
    from hugeprobe.check import Got
    from hugeprobe.probe import RuleFinding


def verdict(got: dict[str, Got] | NotObservable) -> Sentence:
    """Return what this host gives, in a sentence."""
    return Sentence(str(got) if isinstance(got, NotObservable) else check.verdict(got))


def ways_picture(got: dict[str, Got] | NotObservable) -> Picture | NotObservable:
    """Draw what each way of asking for memory gave."""
    if isinstance(got, NotObservable):
        return got
    rows = {name: split_resident(each.resident) for name, each in got.items()}
    return bars(rows, HUGE_OR_BASE, "MiB", "Huge and base pages by the way of asking")


def ways_table(got: dict[str, Got] | NotObservable) -> MarkdownTable | NotObservable:
    """Return the figures of :func:`ways_picture`."""
    if isinstance(got, NotObservable):
        return got
    rows = [
        (name, format_kib(each.resident.huge_kib), f"{each.resident.coverage:.0%}")
        for name, each in got.items()
    ]
    return markdown_table(("way", "huge", "coverage"), rows, numeric=(1, 2))


def rule_sentence(finding: RuleFinding) -> Sentence:
    """Return the rule of the running kernel, in a sentence."""
    return Sentence(finding.sentence)


def rule_table(finding: RuleFinding) -> MarkdownTable:
    """Return where the probe's mappings went, and which rules explain it."""
    rows = [
        (
            f"{each.length_kib:,} KiB",
            f"{each.above_boundary_kib:,} KiB",
            f"{each.hole_above_kib:,} KiB",
            ", ".join(f"`{rule.value}`" for rule in each.fits) or "none",
        )
        for each in finding.evidence
    ]
    columns = ("length", "starts above a boundary", "hole above it", "as the rules")
    return markdown_table(columns, rows, numeric=(0, 1, 2))
