"""What the page "Alignment" shows."""

from __future__ import annotations

from itertools import product
from typing import TYPE_CHECKING, Final

from hugeprobe.drawing import (
    Line,
    MarkdownTable,
    Panel,
    Picture,
    Sentence,
    address_spaces,
    chart,
    markdown_table,
)
from hugeprobe.emulate import emulate
from hugeprobe.errors import NotObservable
from hugeprobe.figures import kernels
from hugeprobe.figures.common import RULE_COLOURS, TOUCH_WORDS
from hugeprobe.placement import Rule, Touch, model
from hugeprobe.sizes import KIB, MIB, PageSizes
from hugeprobe.sweep import CURVE_KIB, Case, modelled

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from hugeprobe.kernels.record import KernelsRecord
    from hugeprobe.placement import Layout

_NO_RECORD: Final = NotObservable("no record was given")
_RULE_STYLES: Final = {Rule.PACKED: "-", Rule.MULTIPLES: "--", Rule.FORCED: "-"}


def rules_picture(kib: int, touch: Touch, count: int = 5) -> Picture:
    """Draw ``count`` mappings of ``kib`` KiB under each rule, as the model has them."""
    layouts = {rule.value: model([kib * KIB] * count, rule, touch) for rule in Rule}
    title = f"{count} mappings of {kib:,} KiB, {TOUCH_WORDS[touch]}, under each rule"
    return address_spaces(layouts, PageSizes(), title)


def coverage_curve(
    cases: Sequence[Case], record: KernelsRecord | NotObservable = _NO_RECORD
) -> Picture:
    """Draw coverage against the size of each mapping, with recorded kernels as marks."""
    y_label = "share of memory that is huge"
    return _curve(cases, y_label, lambda x: x.coverage, percent=True, record=record)


def readme_picture() -> str:
    """Return the model's coverage curve as an SVG file, for where no page gives it colours."""
    unmeasured = NotObservable("a file cannot be measured anew on every host")
    cases = [
        Case(kib, rule, touch, modelled(kib, rule, touch), unmeasured)
        for kib, rule, touch in product(CURVE_KIB, Rule, Touch)
    ]
    svg = coverage_curve(cases).svg
    return svg.replace('class="hp-figure"', 'style="background: #fff"', 1) + "\n"


def fault_curve(cases: Sequence[Case]) -> Picture:
    """Draw minor faults a MiB against the size of each mapping, for both touch orders."""
    return _curve(
        cases,
        "minor faults per MiB",
        lambda layout: layout.minor_faults / (layout.anon_kib / KIB),
        percent=False,
    )


def _curve(
    cases: Sequence[Case],
    y_label: str,
    value: Callable[[Layout], float],
    *,
    percent: bool,
    record: KernelsRecord | NotObservable = _NO_RECORD,
) -> Picture:
    panels = []
    for touch in Touch:
        lines = []
        for rule, style in _RULE_STYLES.items():
            mine = [case for case in cases if case.rule is rule and case.touch is touch]
            sizes = [case.kib / KIB for case in mine]
            lines.append(
                Line(
                    rule.value,
                    sizes,
                    [value(case.layout) for case in mine],
                    RULE_COLOURS[rule],
                    style,
                )
            )
        lines += kernels.marks(record, touch)
        panels.append(
            Panel(TOUCH_WORDS[touch], "MiB, size of each mapping", y_label, lines, percent=percent)
        )
    return chart(panels, f"{y_label.capitalize()} against the size of each mapping, by rule")


def telling_table(cases: Sequence[Case]) -> MarkdownTable:
    """Return coverage and faults of each size and order, one column a rule."""
    rows = []
    for kib, touch in dict.fromkeys((case.kib, case.touch) for case in cases):
        cells = {case.rule: case for case in cases if (case.kib, case.touch) == (kib, touch)}
        best = max(case.layout.huge_kib for case in cells.values())
        rows.append([f"{kib:,} KiB", touch.value, *(_cell(cells[rule], best) for rule in Rule)])
    columns = ["16 mappings of", "touched", *(f"`{rule.value}`" for rule in Rule)]
    return markdown_table(columns, rows, numeric=(0, 2, 3, 4))


def _cell(case: Case, best: int) -> str:
    text = f"{case.layout.coverage:.0%} · {case.layout.minor_faults:,}"
    return f"**{text}**" if case.layout.huge_kib == best > 0 else text


def agreement(cases: Sequence[Case]) -> Sentence:
    """Say in how many cases the measurement equals the model, or why it cannot."""
    possible = [case for case in cases if case.is_measured]
    if not possible:
        found = cases[0].measured
        why = found.reason if isinstance(found, NotObservable) else found.caveat
        return Sentence(f"The figures show the model, not a measurement, because {why}.")
    equal = sum(case.agrees for case in possible)
    return Sentence(
        f"In {equal:,} of {len(cases):,} cases the measurement on this host equals the model in "
        "every address, hole, VMA, KiB and fault."
    )


def small_buffers(kib: int = 1536) -> MarkdownTable:
    """Return the faults of buffers below a PMD under the usual multi-size THP settings: a model."""
    settings = {
        "2 MiB only (the default)": (),
        "and 64 KiB": (64,),
        "and 64 KiB to 1 MiB": (64, 128, 256, 512, 1024),
    }
    rows = []
    for name, smaller in settings.items():
        sizes = PageSizes(at_fault=(2 * MIB, *(size * KIB for size in smaller)))
        layout = model([kib * KIB] * 16, Rule.MULTIPLES, Touch.EACH, sizes=sizes)
        rows.append([name, f"{layout.minor_faults:,}", f"{layout.coverage:.0%}"])
    columns = ["pages the kernel may use", "minor faults", "`AnonHugePages`"]
    return markdown_table(columns, rows, numeric=(1, 2))


def small_here(kib: int = 1536) -> Sentence:
    """Say what buffers below a PMD cost on this host, with the sizes that it permits."""
    measured = emulate([kib * KIB] * 16, Rule.MULTIPLES, Touch.EACH)
    if isinstance(measured, NotObservable):
        return Sentence(str(measured))
    faults = f"Measured on this host: {measured.layout.minor_faults:,} minor faults"
    return Sentence(f"{faults}; {measured.caveat}." if measured.caveat else f"{faults}.")
