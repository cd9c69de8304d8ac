"""The figures and sentences of the guide: what each notebook shows, one function each.

They only arrange; what is arranged comes from the module that measured it.
"""

from __future__ import annotations

from datetime import datetime, timezone
from itertools import product
from typing import TYPE_CHECKING, Final

from hugeprobe import check
from hugeprobe.coverage import Backing as Why
from hugeprobe.drawing import (
    ACCENT,
    BASE,
    GAP,
    HUGE,
    Line,
    MarkdownTable,
    Panel,
    Picture,
    Sentence,
    address_spaces,
    bars,
    chart,
    markdown_table,
)
from hugeprobe.emulate import emulate
from hugeprobe.errors import NotObservable
from hugeprobe.host import described
from hugeprobe.inference import ADVISE, DEFAULT, OFF
from hugeprobe.placement import Rule, Touch, model
from hugeprobe.sizes import KIB, MIB, PageSizes, format_kib
from hugeprobe.sweep import CURVE_KIB, Case, modelled

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from hugeprobe.areas import Resident
    from hugeprobe.arrival import Arrival
    from hugeprobe.check import Got
    from hugeprobe.host import HostFacts
    from hugeprobe.inference import Arm, Report
    from hugeprobe.placement import Layout
    from hugeprobe.probe import RuleFinding
    from hugeprobe.reach import Reach
    from hugeprobe.runtimes import Stage

_RULE_LINES: Final = {
    Rule.PACKED: (ACCENT, "-"),
    Rule.MULTIPLES: (HUGE, "--"),
    Rule.FORCED: (BASE, "-"),
}
_HUGE_OR_BASE: Final = {"huge": HUGE, "base pages": BASE}
_TOUCH_WORDS: Final = {
    Touch.EACH: "each touched as it is mapped",
    Touch.AFTER: "touched after all are mapped",
}


def today() -> str:
    """Return the date of this build, in universal time."""
    return datetime.now(timezone.utc).strftime("%Y-%m-%d")


def rules_picture(kib: int, touch: Touch, count: int = 5) -> Picture:
    """Draw ``count`` mappings of ``kib`` KiB under each rule, as the model has them."""
    layouts = {rule.value: model([kib * KIB] * count, rule, touch) for rule in Rule}
    title = f"{count} mappings of {kib:,} KiB, {_TOUCH_WORDS[touch]}, under each rule"
    return address_spaces(layouts, PageSizes(), title)


def coverage_curve(cases: Sequence[Case]) -> Picture:
    """Draw coverage against the size of each mapping, for both touch orders."""
    return _curve(cases, "share of memory that is huge", lambda x: x.coverage, percent=True)


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
    cases: Sequence[Case], y_label: str, value: Callable[[Layout], float], *, percent: bool
) -> Picture:
    panels = []
    for touch in Touch:
        lines = []
        for rule, (colour, style) in _RULE_LINES.items():
            mine = [case for case in cases if case.rule is rule and case.touch is touch]
            sizes = [case.kib / KIB for case in mine]
            lines.append(
                Line(rule.value, sizes, [value(case.layout) for case in mine], colour, style)
            )
        panels.append(
            Panel(_TOUCH_WORDS[touch], "MiB, size of each mapping", y_label, lines, percent=percent)
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


def arrivals_picture(arrivals: Sequence[Arrival | NotObservable]) -> Picture | NotObservable:
    """Draw how much of the memory is huge after each way of setting it up."""
    rows = {}
    for arrival in arrivals:
        if isinstance(arrival, NotObservable):
            return arrival
        if isinstance(arrival.resident, NotObservable):
            continue
        rows[arrival.way.name] = _split(arrival.resident)
    return bars(rows, _HUGE_OR_BASE, "MiB", "Memory that is huge after each way of setting it up")


def arrivals_table(arrivals: Sequence[Arrival | NotObservable]) -> MarkdownTable | NotObservable:
    """Return the faults and the coverage of each way."""
    rows = []
    for arrival in arrivals:
        if isinstance(arrival, NotObservable):
            return arrival
        got = arrival.resident
        huge = str(got) if isinstance(got, NotObservable) else f"{got.coverage:.0%}"
        rows.append([arrival.way.name, f"{arrival.minor_faults:,}", huge])
    return markdown_table(
        ["what the program does", "minor faults", "huge in the end"], rows, numeric=(1, 2)
    )


def reach_chart(reaches: Sequence[Reach] | NotObservable) -> Picture | NotObservable:
    """Draw the time of a random read against the size of the table, for both page sizes."""
    if isinstance(reaches, NotObservable):
        return reaches
    sizes = [reach.working_set_kib for reach in reaches]
    lines = [
        Line("base pages", sizes, [reach.base_ns for reach in reaches], BASE),
        Line("huge pages", sizes, [reach.huge_ns for reach in reaches], HUGE),
    ]
    panel = Panel("", "size of the table", "ns per random read", lines, log_x=True)
    return chart([panel], "Time of a random read against the size of the table", height=2.9)


def reach_sentence(reaches: Sequence[Reach] | NotObservable) -> Sentence:
    """Say what the largest table showed, and claim a difference only where there is one."""
    if isinstance(reaches, NotObservable):
        return Sentence(str(reaches))
    last = reaches[-1]
    size = format_kib(last.working_set_kib)
    if last.ratio.differs:
        return Sentence(
            f"On this host, random reads in a table of {size} took {last.ratio} times as long "
            "from base pages as from huge pages (ratio of medians, 95 % interval)."
        )
    return Sentence(
        f"On this host, random reads in a table of {size} showed no difference between base and "
        f"huge pages that noise does not explain (ratio of medians {last.ratio}, 95 % interval)."
    )


_BOX: Final = (
    "Kernel",
    "Processor",
    "Logical processors usable",
    "Memory",
    "Memory limit (control group)",
    "THP mode",
    "Huge page sizes, memory as it is",
    "Huge page sizes, advised memory",
    "Virtualisation",
    "Container",
    "glibc",
)


def tlb_sentence(facts: HostFacts) -> Sentence:
    """Do the arithmetic of TLB reach with what the processor tells, else with an example."""
    entries = (facts.cpu.tlb or "").split(" ")[0]
    if entries.isdecimal():
        count, whose = int(entries), "This processor reports"
    else:
        count, whose = 2048, "This processor does not tell its size; take, for example,"
    base = format_kib(count * (facts.base_kib or 4))
    huge = format_kib(count * (facts.pmd_kib or 2048))
    return Sentence(f"{whose} {count:,} entries: {base} with base pages, {huge} with huge pages.")


def measured_on(facts: HostFacts) -> MarkdownTable:
    """Return the box that says where and when the figures of this build were measured."""
    known = dict(described(facts))
    rows = [(name, known[name]) for name in _BOX if name in known]
    return markdown_table(("Measured on", today()), rows)


def settings_table(facts: HostFacts) -> MarkdownTable:
    """Return everything about this host that decides about huge pages."""
    return markdown_table(("setting", "value"), described(facts))


def verdict(got: dict[str, Got] | NotObservable) -> Sentence:
    """Return what this host gives, in a sentence."""
    return Sentence(str(got) if isinstance(got, NotObservable) else check.verdict(got))


def ways_picture(got: dict[str, Got] | NotObservable) -> Picture | NotObservable:
    """Draw what each way of asking for memory gave."""
    if isinstance(got, NotObservable):
        return got
    rows = {name: _split(each.resident) for name, each in got.items()}
    return bars(rows, _HUGE_OR_BASE, "MiB", "Huge and base pages by the way of asking")


def ways_table(got: dict[str, Got] | NotObservable) -> MarkdownTable | NotObservable:
    """Return the figures of :func:`ways_picture`."""
    if isinstance(got, NotObservable):
        return got
    rows = [
        (name, format_kib(each.resident.huge_kib), f"{each.resident.coverage:.0%}")
        for name, each in got.items()
    ]
    return markdown_table(("way", "huge", "coverage"), rows, numeric=(1, 2))


def _split(resident: Resident) -> dict[str, float]:
    huge = resident.huge_kib / KIB
    return {"huge": huge, "base pages": resident.anon_kib / KIB - huge}


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


def small_here(kib: int = 1536) -> Sentence:
    """Say what buffers below a PMD cost on this host, with the sizes that it permits."""
    measured = emulate([kib * KIB] * 16, Rule.MULTIPLES, Touch.EACH)
    if isinstance(measured, NotObservable):
        return Sentence(str(measured))
    faults = f"Measured on this host: {measured.layout.minor_faults:,} minor faults"
    return Sentence(f"{faults}; {measured.caveat}." if measured.caveat else f"{faults}.")


_WHY: Final = {
    "huge": (HUGE, (Why.HUGE,)),
    "could be, but is not": (BASE, (Why.WAITING, Why.UNADVISED, Why.OFF, Why.EXCLUDED)),
    "cannot be as it is mapped": (GAP, (Why.EDGE, Why.MISALIGNED, Why.SHORT, Why.COPIED)),
}
_STAGES: Final[dict[str, tuple[str, tuple[Stage, ...]]]] = {
    "loading": (ACCENT, ("load",)),
    "first inference at a shape": (BASE, ("first",)),
    "repeats, and shapes seen before": (HUGE, ("repeat", "back")),
}
_KINDS: Final = {"heap": ACCENT, "anonymous": BASE, "file": HUGE, "other": GAP}


def telling_arms(facts: HostFacts) -> tuple[Arm, ...]:
    """Return the arms that differ on this host: without huge pages, and with what it can give."""
    return {"always": (OFF, DEFAULT), "madvise": (DEFAULT, ADVISE)}.get(
        facts.thp_mode or "never", (DEFAULT,)
    )


def _observed(reports: Sequence[Report | NotObservable]) -> list[Report]:
    return [report for report in reports if not isinstance(report, NotObservable)]


def _run_name(report: Report) -> str:
    return f"{report.workload}, {report.runtime.label}, {report.arm.name}"


def unobservable(reports: Sequence[Report | NotObservable]) -> Sentence:
    """Say how many runs there were, and what could not run here and why."""
    missing = list(dict.fromkeys(str(r) for r in reports if isinstance(r, NotObservable)))
    ran = f"{len(_observed(reports))} of {len(reports)} runs took place, each in a new process."
    return Sentence(" ".join([ran, *missing]))


def kinds_picture(reports: Sequence[Report | NotObservable]) -> Picture | Sentence:
    """Draw resident memory by kind of mapping at the end of each run without settings."""
    rows = {}
    for report in _observed(reports):
        if report.arm is not _observed(reports)[0].arm:
            continue
        by_kind = report.phases[-1].memory.by_kind
        named = {kind: by_kind.get(kind, 0) / KIB for kind in ("heap", "anonymous", "file")}
        other = report.phases[-1].memory.resident_kib / KIB - sum(named.values())
        rows[f"{report.workload}, {report.runtime.label}"] = {**named, "other": other}
    if not rows:
        return unobservable(reports)
    return bars(rows, _KINDS, "MiB resident", "Resident memory by kind of mapping")


def why_picture(reports: Sequence[Report | NotObservable]) -> Picture | Sentence:
    """Draw anonymous memory at the end of each run by what backs it and why."""
    rows = {
        _run_name(report): {
            name: sum(report.phases[-1].memory.coverage.kib[why] for why in reasons) / KIB
            for name, (_, reasons) in _WHY.items()
        }
        for report in _observed(reports)
    }
    if not rows:
        return unobservable(reports)
    colours = {name: colour for name, (colour, _) in _WHY.items()}
    return bars(rows, colours, "MiB of anonymous memory", "Anonymous memory by what backs it")


def why_table(reports: Sequence[Report | NotObservable]) -> MarkdownTable | Sentence:
    """Return the MiB of anonymous memory by each single reason."""
    observed = _observed(reports)
    if not observed:
        return unobservable(reports)
    last = [report.phases[-1].memory.coverage for report in observed]
    seen = [why for why in Why if any(coverage.kib[why] for coverage in last)]
    rows = [
        [_run_name(report), *(f"{coverage.kib[why] / KIB:,.0f}" for why in seen)]
        for report, coverage in zip(observed, last, strict=True)
    ]
    columns = ["MiB at the end of", *(why.value for why in seen)]
    return markdown_table(columns, rows, numeric=range(1, len(columns)))


def stages_picture(reports: Sequence[Report | NotObservable]) -> Picture | Sentence:
    """Draw minor faults of each run by stage."""
    rows = {
        _run_name(report): {
            name: float(sum(report.minor_faults(stage) for stage in stages))
            for name, (_, stages) in _STAGES.items()
        }
        for report in _observed(reports)
    }
    if not rows:
        return unobservable(reports)
    colours = {name: colour for name, (colour, _) in _STAGES.items()}
    return bars(rows, colours, "minor faults", "Minor faults by stage of a run")


def stages_table(reports: Sequence[Report | NotObservable]) -> MarkdownTable | Sentence:
    """Return the minor faults of each run by stage, and coverage at the end."""
    rows = [
        [
            _run_name(report),
            f"{report.minor_faults('load'):,}",
            f"{report.minor_faults('first'):,}",
            f"{max(phase.step.minor_faults for phase in report.steady):,}",
            f"{report.phases[-1].memory.coverage.share:.0%}",
        ]
        for report in _observed(reports)
    ]
    if not rows:
        return unobservable(reports)
    columns = ["run", "loading", "all first inferences", "steady, at most", "coverage"]
    return markdown_table(columns, rows, numeric=(1, 2, 3, 4))


def shapes_table(reports: Sequence[Report | NotObservable]) -> MarkdownTable | Sentence:
    """Return the faults of each inference in the order in which the shapes arrived."""
    rows = [
        [
            _run_name(report),
            " x ".join(str(size) for size in phase.step.shape or ()),
            {"first": "first", "repeat": "again", "back": "back to it"}[phase.step.stage],
            f"{phase.step.minor_faults:,}",
        ]
        for report in _observed(reports)
        for phase in report.phases
        if phase.step.stage in {"first", "repeat", "back"}
    ]
    if not rows:
        return unobservable(reports)
    return markdown_table(["run", "shape", "inference", "minor faults"], rows, numeric=(3,))


def steady_sentence(reports: Sequence[Report | NotObservable]) -> Sentence:
    """Say how many faults an inference costs once every shape has been seen."""
    counts = [phase.step.minor_faults for report in _observed(reports) for phase in report.steady]
    if not counts:
        return unobservable(reports)
    return Sentence(
        f"On this host an inference at a shape seen before cost {min(counts):,} to "
        f"{max(counts):,} minor faults, in every run."
    )


def growth_sentence(reports: Sequence[Report | NotObservable]) -> Sentence:
    """Say what the last arm removed of the faults of loading and growing."""
    observed = _observed(reports)
    arms = list(dict.fromkeys(report.arm.name for report in observed))
    if len(arms) < 2:
        return Sentence("This host gives no huge pages at a fault, so there is nothing to compare.")

    def faults(arm: str) -> dict[str, int]:
        return {
            f"{report.workload}, {report.runtime.label}": report.minor_faults("load")
            + report.minor_faults("first")
            for report in observed
            if report.arm.name == arm
        }

    before, after = faults(arms[0]), faults(arms[-1])
    ratios = sorted(before[name] / max(1, after[name]) for name in before if name in after)
    return Sentence(
        f"From `{arms[0]}` to `{arms[-1]}`, the faults of loading and of first inferences fell "
        f"{ratios[0]:.1f}-fold to {ratios[-1]:.1f}-fold on this host."
    )
