"""What the page "Diagnose and fix" shows of a diagnosis."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from hugeprobe.drawing import (
    BASE,
    GAP,
    HUGE,
    MarkdownTable,
    Picture,
    Sentence,
    bars,
    cells,
    markdown_table,
)
from hugeprobe.errors import NotObservable
from hugeprobe.sizes import KIB, format_kib
from hugeprobe.strips import State

if TYPE_CHECKING:
    from collections.abc import Mapping

    from hugeprobe.doctor import Diagnosis

_STATES: Final = {
    State.HUGE.value: HUGE,
    State.COULD.value: BASE,
    State.CANNOT.value: GAP,
    State.NONE.value: None,
}
_PARTS: Final = {name: colour for name, colour in _STATES.items() if colour}


def headline(diagnosis: Diagnosis | NotObservable) -> Sentence:
    """Return the result in one sentence."""
    if isinstance(diagnosis, NotObservable):
        return Sentence(str(diagnosis))
    return Sentence(diagnosis.headline)


def coverage_picture(diagnoses: Mapping[str, Diagnosis | NotObservable]) -> Picture | Sentence:
    """Draw what is huge, what could be and what cannot, of each diagnosis by its name."""
    rows = {
        name: dict(zip(_PARTS, _parts(each), strict=True))
        for name, each in diagnoses.items()
        if not isinstance(each, NotObservable)
    }
    if not rows:
        return Sentence(" ".join(dict.fromkeys(map(str, diagnoses.values()))))
    return bars(rows, _PARTS, "MiB of anonymous memory", "What is huge, could be, and cannot")


def _parts(diagnosis: Diagnosis) -> tuple[float, float, float]:
    """Return the MiB of each of ``_PARTS``."""
    huge, could = diagnosis.huge_kib, diagnosis.could_be_kib
    return huge / KIB, (could - huge) / KIB, (diagnosis.anon_kib - could) / KIB


def reasons_table(diagnosis: Diagnosis | NotObservable) -> MarkdownTable | NotObservable:
    """Return why memory is on base pages, and what to do, most to be won first.

    Commands do not name the process, which a reader does not have.
    """
    if isinstance(diagnosis, NotObservable):
        return diagnosis
    rows = [
        (
            f"{each.kib / KIB:,.1f}",
            f"`{each.reason}`: {each.why}",
            re.sub(r"(?<=hugeprobe collapse )\d+", "PID", each.action),
            each.cost,
        )
        for each in diagnosis.reasons
    ]
    return markdown_table(("MiB", "why", "what wins it", "cost"), rows, numeric=(0,))


def owners_table(diagnosis: Diagnosis | NotObservable) -> MarkdownTable | NotObservable:
    """Return whose memory it is, as far as the map tells."""
    if isinstance(diagnosis, NotObservable):
        return diagnosis
    rows = [
        (
            each.owner.value,
            *(f"{kib / KIB:,.1f}" for kib in (each.resident_kib, each.anon_kib, each.huge_kib)),
            each.owner.known_by.value,
        )
        for each in diagnosis.owners
    ]
    columns = ("MiB of", "resident", "anonymous", "huge", "known by")
    return markdown_table(columns, rows, numeric=(1, 2, 3))


def space_picture(diagnosis: Diagnosis | NotObservable) -> Picture | NotObservable:
    """Draw the address space that holds most anonymous memory."""
    if isinstance(diagnosis, NotObservable):
        return diagnosis
    if not diagnosis.strips:
        return NotObservable("no stretch of its address space holds a huge page's worth of memory")
    rows = []
    for strip in diagnosis.strips:
        length, cell = format_kib(strip.length_kib), format_kib(strip.cell_kib)
        states = [state.value for state in strip.cells]
        rows.append((f"{strip.owner}: {length}, a cell is {cell}", states))
    return cells(rows, _STATES, "Where huge and base pages lie in the address space")
