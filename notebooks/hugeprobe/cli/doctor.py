"""``hugeprobe doctor``."""

from __future__ import annotations

import sys
from collections import deque
from contextlib import suppress
from typing import TYPE_CHECKING, Annotated, Final

import typer
from rich.console import Console, Group
from rich.live import Live

from hugeprobe import observe
from hugeprobe.cli.diagnosis import History, shown, summary
from hugeprobe.cli.output import AsJson, app, print_json
from hugeprobe.doctor import diagnose
from hugeprobe.errors import BadRequestError, ProbeError
from hugeprobe.process import parse_pid

if TYPE_CHECKING:
    from hugeprobe.doctor import Diagnosis
    from hugeprobe.smaps import Pid

_SAMPLES: Final = 60


@app.command("doctor")
def show_diagnosis(  # noqa: PLR0917 - Typer reads the options from the parameters
    target: Annotated[
        list[str],
        typer.Argument(metavar="PID | -- COMMAND…", help="Process number, self, or a command."),
    ],
    as_json: AsJson = False,
    children: Annotated[
        bool, typer.Option("--children", help="Include the processes that it started.")
    ] = False,
    after: Annotated[
        float | None,
        typer.Option(min=0.1, metavar="SECONDS", help="End COMMAND after this time."),
    ] = None,
    require_coverage: Annotated[
        float | None,
        typer.Option(min=0, max=1, metavar="SHARE", help="Fail if less than this share is huge."),
    ] = None,
    watch: Annotated[
        bool, typer.Option("--watch", help="Look at PID again and again, until Ctrl-C or its end.")
    ] = False,
    every: Annotated[
        float, typer.Option(min=0.1, metavar="SECONDS", help="Time between two looks of --watch.")
    ] = 1.0,
) -> None:
    """Say how much of a process's memory is huge, and why the rest is not.

    PID is a running process. COMMAND is started, watched until it ends, and
    diagnosed when it holds most; its exit status becomes that of doctor.

    Reasons are sorted by what is to be won, each with the one action that wins
    it and its cost. With what is huge they sum to all anonymous memory.

    With --json, COMMAND writes its output to standard error. Its keys anon_kib,
    huge_kib and reasons (reason, kib, action) are there to stay.
    """
    pid = _as_pid(target)
    _require_sense(pid, as_json=as_json, after=after, watch=watch)
    status = 0
    if pid is None:
        stdout = sys.stderr.fileno() if as_json else None
        observed = observe.observe(target, after=after, children=children, stdout=stdout)
        diagnosis, status = observed.diagnosis, observed.status
    elif watch:
        diagnosis = _watch(pid, every, children=children)
    else:
        diagnosis = diagnose(pid, children=children)
    if as_json:
        print_json(diagnosis.as_dict())
    elif not watch:
        Console().print(shown(diagnosis))
    if status:
        raise typer.Exit(status)
    _require(diagnosis, require_coverage)


def _as_pid(target: list[str]) -> Pid | None:
    """Return the process that is meant, or None for a command."""
    try:
        return parse_pid(target[0]) if len(target) == 1 else None
    except BadRequestError:
        return None


def _require_sense(pid: Pid | None, *, as_json: bool, after: float | None, watch: bool) -> None:
    if pid is None and watch:
        raise BadRequestError(
            "--watch was asked for with a command, whose output would be in its way. Start the "
            "command in another terminal, and give its process number."
        )
    if pid is not None and after is not None:
        raise BadRequestError(
            "--after was asked for with a running process, which hugeprobe does not end. Use it "
            "with a command behind --, or leave it out."
        )
    if watch and as_json:
        raise BadRequestError("--watch is for people and --json for programs: choose one of them.")


def _watch(pid: Pid, every: float, *, children: bool) -> Diagnosis:
    """Show a live view until it is interrupted or the process ends; return the last diagnosis."""
    samples: deque[observe.Sample] = deque(maxlen=_SAMPLES)
    with suppress(KeyboardInterrupt), Live(console=Console(), auto_refresh=False) as live:
        for sample in observe.watch(pid, every, children=children):
            samples.append(sample)
            live.update(Group(History(samples), "", summary(sample.diagnosis)), refresh=True)
    if not samples:
        return diagnose(pid, children=children)
    return samples[-1].diagnosis


def _require(diagnosis: Diagnosis, share: float | None) -> None:
    if share is not None and diagnosis.coverage < share:
        raise ProbeError(
            f"Coverage of {share:.0%} was required, and {diagnosis.coverage:.1%} of the anonymous "
            "memory is huge. The reasons say what would change that."
        )
