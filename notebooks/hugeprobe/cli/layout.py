"""``hugeprobe layout``."""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING, Annotated

import typer

from hugeprobe import emulate, placement, probe
from hugeprobe.cli.output import AsJson, app, print_json, table
from hugeprobe.errors import NotObservable
from hugeprobe.placement import Layout, Rule, Touch
from hugeprobe.sizes import format_kib, parse_length, parse_lengths

if TYPE_CHECKING:
    from collections.abc import Callable


class RuleChoice(str, Enum):
    """A rule to emulate, or the running kernel's own placement."""

    PACKED = "packed"
    FORCED = "forced"
    MULTIPLES = "multiples"
    KERNEL = "kernel"


@app.command("layout")
def show_layout(  # noqa: PLR0917 - Typer reads the options from the parameters
    lengths: Annotated[
        str, typer.Argument(help="Such as `2052K*16`, or `4M,3M*8` (both, 8 times).")
    ],
    rule: Annotated[RuleChoice, typer.Option(help="Placement rule.")] = RuleChoice.KERNEL,
    touch: Annotated[
        Touch, typer.Option(help="Write to each as it is mapped, or after all are mapped.")
    ] = Touch.EACH,
    top_offset: Annotated[
        str, typer.Option(help="How far above a PMD boundary the free space ends, such as 512K.")
    ] = "0",
    unadvised: Annotated[
        bool,
        typer.Option(
            "--unadvised", help="Do not advise where the mode is madvise, as most programs do not."
        ),
    ] = False,
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
        measured = emulate.observe(asked, touch, top_offset=offset, unadvised=unadvised)
    else:
        measured = emulate.emulate(asked, ruled, touch, top_offset=offset, unadvised=unadvised)
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
