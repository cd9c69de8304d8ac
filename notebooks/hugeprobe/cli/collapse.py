"""``hugeprobe collapse``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from hugeprobe import collapse as collapsing
from hugeprobe.cli.output import AsJson, app, print_json, say, table
from hugeprobe.collapse import MEANINGS, MIN_RESIDENT
from hugeprobe.errors import NotObservable, ProbeError
from hugeprobe.sizes import format_kib

if TYPE_CHECKING:
    from hugeprobe.collapse import Outcome, Prepared


@app.command("collapse")
def collapse(
    pid: Annotated[int, typer.Argument(help="Process number.")],
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what would be done; change nothing.")
    ] = False,
    rate: Annotated[
        float | None,
        typer.Option(metavar="MIB_PER_S", help="Most MiB to copy in a second; else no limit."),
    ] = None,
    min_resident: Annotated[
        float,
        typer.Option(
            metavar="SHARE",
            help="Leave out ranges of which less is in memory, above 0 up to 1. A smaller share "
            "makes more huge, and takes more memory.",
        ),
    ] = MIN_RESIDENT,
    as_json: AsJson = False,
) -> None:
    """Make memory of a running process huge now that could be and is not.

    Works with every THP mode, even never, and does not change what the process reads or computes.
    It waits while a range that it needs is copied, a fraction of a millisecond for each 2 MiB;
    --rate spreads that over time. Missing pages of a range are filled with zeros, so that it may
    take memory, which is told before. What the process allocates later is not affected.

    Needs Linux 6.1, and for the process of another program the capability CAP_SYS_NICE (root has
    it). A program can do it to itself without: hugeprobe.collapse.collapse_self().
    """
    with collapsing.prepared(pid, min_resident=min_resident) as held:
        if not as_json:
            _print_plan(held)
        if dry_run:
            outcome = collapsing.Outcome(pid, held.plan, held.before)
        else:
            outcome = _carried_out(held, rate)
    if as_json:
        print_json(_as_json(outcome))
    elif not dry_run:
        _print_outcome(outcome)


def _carried_out(held: Prepared, rate: float | None) -> Outcome:
    outcome = held.carry_out(rate_mib_s=rate)
    if isinstance(outcome, NotObservable):
        raise ProbeError(
            f"Process {held.pid} was to be collapsed, but {outcome.reason}. Nothing was changed."
        )
    return outcome


def _as_json(outcome: Outcome) -> dict[str, object]:
    names = (
        *("pid", "plan", "before", "after", "made_huge_kib", "growth_kib", "tried_kib"),
        *("refused_kib", "refusals", "seconds", "stopped"),
    )
    return {name: getattr(outcome, name) for name in names}


def _print_plan(held: Prepared) -> None:
    before, plan = held.before, held.plan
    say(
        f"Process {held.pid} holds {format_kib(before.anonymous_kib)} of anonymous memory, "
        f"{before.coverage:.0%} of it huge. "
        + (
            f"To be made huge: {format_kib(plan.base_kib)}, which takes "
            f"{format_kib(plan.growth_kib)} more memory."
            if plan.spans
            else "Nothing more can be made huge as it is mapped."
        )
    )
    if isinstance(held.pages, NotObservable):
        say(f"Which pages are in memory is estimated, because {held.pages.reason}.")
    rows = [(reason.value, format_kib(kib)) for reason, kib in plan.left_out.items() if kib]
    if rows:
        table("Left as it is", ("on base pages", "memory"), rows)


def _print_outcome(outcome: Outcome) -> None:
    if outcome.stopped:
        say(f"{outcome.stopped} Until then, {format_kib(outcome.tried_kib)} had been tried.")
    before, after = outcome.before, outcome.after
    if after is None or not outcome.plan.spans:
        return
    table(
        f"{format_kib(max(0, outcome.made_huge_kib))} of {format_kib(outcome.plan.base_kib)} "
        f"became huge in {outcome.seconds:.1f} s",
        ("", "before", "after"),
        (
            ("anonymous memory", format_kib(before.anonymous_kib), format_kib(after.anonymous_kib)),
            ("huge", format_kib(before.huge_kib), format_kib(after.huge_kib)),
            ("coverage", f"{before.coverage:.1%}", f"{after.coverage:.1%}"),
            (
                "all resident memory",
                format_kib(before.resident_kib),
                format_kib(after.resident_kib),
            ),
        ),
    )
    if outcome.refusals:
        table(
            "Refused by the kernel",
            ("error", "ranges", ""),
            (
                (error, format_kib(kib), MEANINGS.get(error, "not a documented error of this call"))
                for error, kib in outcome.refused_kib.items()
            ),
        )
