"""The command ``hugeprobe``: what the probes find, as tables for people or as JSON.

Everything but the printing is in the module that a command is named after.
"""

from __future__ import annotations

import dataclasses
import json
import sys
from enum import Enum
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from hugeprobe import emulate, host, placement, probe, smaps
from hugeprobe.errors import BadRequestError, NotObservable, ProbeError
from hugeprobe.placement import Layout, Rule, Touch
from hugeprobe.sizes import format_kib, parse_length, parse_lengths

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

app = typer.Typer(
    help="See which memory of a Linux process is backed by huge pages, and why.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object instead of tables.")]


class RuleChoice(str, Enum):
    """A rule to emulate, or the running kernel's own placement."""

    PACKED = "packed"
    FORCED = "forced"
    MULTIPLES = "multiples"
    KERNEL = "kernel"


def main() -> None:
    """Run the command line; every expected failure is one sentence on standard error."""
    try:
        app()
    except ProbeError as error:
        Console(stderr=True, soft_wrap=True).print(f"hugeprobe: {error}", markup=False)
        sys.exit(1)


def print_json(value: Any) -> None:
    """Print ``value`` as JSON: data classes as objects, enumerations as their values."""

    def plain(item: Any) -> Any:
        if dataclasses.is_dataclass(item) and not isinstance(item, type):
            return dataclasses.asdict(item)
        return item.value if isinstance(item, Enum) else str(item)

    typer.echo(json.dumps(value, default=plain, indent=2))


def table(title: str, columns: Iterable[str], rows: Iterable[Iterable[object]]) -> None:
    """Print a table whose first column is a name and whose others are figures."""
    drawn = Table(title=title, title_justify="left", title_style="bold")
    for index, column in enumerate(columns):
        drawn.add_column(column, justify="right" if index else "left", overflow="fold")
    for row in rows:
        drawn.add_row(*(escape(str(cell)) for cell in row))
    Console().print(drawn)


@app.command("host")
def show_host(as_json: AsJson = False) -> None:
    """Show what of this machine decides about huge pages; names no person and no machine."""
    facts = host.host_facts()
    if as_json:
        print_json(facts)
        return
    table("This host", ("fact", "value"), host.described(facts))


@app.command("rule")
def show_rule(as_json: AsJson = False) -> None:
    """Find out by mapping which alignment rule the running kernel follows."""
    finding = probe.find_rule()
    if as_json:
        print_json(
            {
                "rule": finding.rule,
                "sentence": finding.sentence,
                "evidence": [dataclasses.asdict(each) for each in finding.evidence],
            }
        )
        return
    table(
        finding.sentence,
        ("length", "above a boundary", "hole above it", "as the rules"),
        (
            (
                f"{each.length_kib:,} KiB",
                f"{each.above_boundary_kib:,} KiB",
                f"{each.hole_above_kib:,} KiB",
                ", ".join(rule.value for rule in each.fits) or "none",
            )
            for each in finding.evidence
        ),
    )


@app.command("layout")
def show_layout(  # noqa: PLR0917 - Typer reads the options from the parameters
    lengths: Annotated[str, typer.Argument(help="Such as 2052K*16, or 4M,3M*8 (both, 8 times).")],
    rule: Annotated[RuleChoice, typer.Option(help="Placement rule.")] = RuleChoice.KERNEL,
    touch: Annotated[
        Touch, typer.Option(help="Write to each as it is mapped, or after all are mapped.")
    ] = Touch.EACH,
    top_offset: Annotated[
        str, typer.Option(help="How far above a PMD boundary the free space ends, such as 512K.")
    ] = "0",
    model_only: Annotated[bool, typer.Option(help="Compute; map nothing.")] = False,
    as_json: AsJson = False,
) -> None:
    """Show where mappings end up under a rule, and what of them becomes huge."""
    asked, offset = parse_lengths(lengths), parse_length(top_offset)
    ruled = _rule(rule)
    modelled = placement.model(asked, ruled, touch, top_offset=offset) if ruled else None
    measured: emulate.Measurement | NotObservable
    if model_only:
        measured = NotObservable("only the model was asked for")
    elif ruled is None or rule is RuleChoice.KERNEL:
        measured = emulate.observe(asked, touch, top_offset=offset)
    else:
        measured = emulate.emulate(asked, ruled, touch, top_offset=offset)
    reason = str(measured) if isinstance(measured, NotObservable) else measured.caveat
    layout = None if isinstance(measured, NotObservable) else measured.layout
    if as_json:
        print_json(
            {
                "rule": rule,
                "touch": touch,
                "top_offset": offset,
                "model": modelled,
                "measured": layout,
                "reason": reason,
            }
        )
        return
    _print_layouts(f"{lengths}, {rule.value}, {touch.value}", modelled, layout)
    if reason:
        typer.echo(reason)


def _rule(choice: RuleChoice) -> Rule | None:
    """Return the rule to model; for the running kernel, the one that it follows, if any."""
    return probe.find_rule().rule if choice is RuleChoice.KERNEL else Rule(choice.value)


def _print_layouts(title: str, modelled: Layout | None, measured: Layout | None) -> None:
    columns = [("model", modelled), ("measured", measured)]
    shown = [(name, layout) for name, layout in columns if layout]
    facts: dict[str, Callable[[Layout], str]] = {
        "touched": lambda layout: format_kib(layout.anon_kib),
        "huge": lambda layout: format_kib(layout.huge_kib),
        "coverage": lambda layout: f"{layout.coverage:.1%}",
        "minor faults": lambda layout: f"{layout.minor_faults:,}",
        "VMAs": lambda layout: f"{layout.vmas:,}",
        "holes between": lambda layout: format_kib(layout.gap_kib),
        "aligned": lambda layout: (
            f"{sum(m.aligned for m in layout.mappings)} of {len(layout.mappings)}"
        ),
    }
    rows = ([name, *(show(layout) for _, layout in shown)] for name, show in facts.items())
    table(title, ("", *(name for name, _ in shown)), rows)


@app.command("maps")
def show_maps(
    pid: Annotated[str, typer.Argument(help="Process number, or self.")],
    as_json: AsJson = False,
) -> None:
    """Show the mappings of a process, how much of each is huge, and the sums by kind."""
    snapshot = smaps.snapshot(_process(pid))
    rollup = snapshot.rollup()
    if as_json:
        print_json({"mappings": [mapping.as_dict() for mapping in snapshot], "rollup": rollup})
        return
    largest = sorted(snapshot, key=lambda mapping: mapping.rss_kib or 0, reverse=True)[:20]
    table(
        f"The {len(largest)} mappings with most memory, of {len(snapshot)}",
        ("mapping", "kind", "resident", "anonymous", "huge", "eligible"),
        (
            (
                mapping.name or "(anonymous)",
                mapping.kind.value,
                format_kib(mapping.rss_kib or 0),
                format_kib(mapping.anonymous_kib or 0),
                format_kib(mapping.huge_kib),
                {True: "yes", False: "no", None: "unknown"}[mapping.thp_eligible],
            )
            for mapping in largest
        ),
    )
    table(
        "By kind",
        ("kind", "mappings", "resident", "anonymous", "huge"),
        (
            (
                kind,
                f"{sums.mappings:,}",
                format_kib(sums.rss_kib),
                format_kib(sums.anonymous_kib),
                format_kib(sums.huge_kib),
            )
            for kind, sums in rollup.items()
        ),
    )


def _process(text: str) -> smaps.Pid:
    if text == "self":
        return "self"
    if text.isascii() and text.isdecimal() and int(text) > 0:
        return int(text)
    raise BadRequestError(
        f"The maps of process '{text}' were asked for, which is neither a process number nor self. "
        "Find the number with `pgrep -a python`."
    )
