"""``hugeprobe run``."""

from __future__ import annotations

import dataclasses
import json
import os
import sys
from contextlib import ExitStack
from pathlib import Path  # noqa: TC003 - Typer reads it at run time
from typing import TYPE_CHECKING, Annotated, Final, TextIO

import typer

from hugeprobe import host, launch, profiles
from hugeprobe.cli.output import app, say, table
from hugeprobe.coverage import Backing
from hugeprobe.errors import BadRequestError, NotObservable
from hugeprobe.sizes import format_kib

if TYPE_CHECKING:
    from hugeprobe.launch import Look, Watched
    from hugeprobe.profiles import Merged, Profile

_AUTO: Final = "auto"
_WHY: Final = {
    Backing.WAITING: "could be huge: touched too early, or not whole again since a fork",
    Backing.UNADVISED: "could be huge: nobody advised it",
    Backing.OFF: "THP is off for the host or the process",
    Backing.EXCLUDED: "the program or the kernel excluded it",
    Backing.FORBIDDEN: "huge pages are forbidden to the process",
    Backing.LIMITED: "its control group has no room for a huge page",
    Backing.FRAGMENTED: "no huge page was free",
    Backing.CUT: "in ranges that the boundary of another mapping cuts",
    Backing.EDGE: "before the first or behind the last 2 MiB boundary of a mapping",
    Backing.MISALIGNED: "in mappings that hold no whole aligned range",
    Backing.SHORT: "in mappings shorter than a huge page",
    Backing.COPIED: "private copies of file pages",
}


@app.command("run", context_settings={"allow_interspersed_args": False})
def run(
    command: Annotated[
        list[str] | None, typer.Argument(metavar="COMMAND...", help="Program and arguments.")
    ] = None,
    profile: Annotated[
        str,
        typer.Option(
            help="What it is started with: auto chooses for this host; or one of "
            + ", ".join(each.name for each in profiles.PROFILES)
            + "."
        ),
    ] = _AUTO,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print the settings; start nothing.")
    ] = False,
    json_file: Annotated[
        Path | None,
        typer.Option(
            "--json", metavar="FILE", help="Write the report there, as JSON; - is standard error."
        ),
    ] = None,
) -> None:
    """Start a command so that it gets huge pages, and report what it got.

    Changes the environment and switches of the new process only, nothing of the host. The command
    keeps standard input, output and error, gets the signals that are sent to hugeprobe, and its
    exit status is passed on. The report goes to standard error, with the lines by which a systemd
    unit or a shell starts it in the same way.

    - `advise`: glibc advises huge pages for what it takes from the kernel.
    - `keep`: also keeps memory in few large mappings and does not return it: fewest faults, and
      memory that was freed stays resident.
    - `whole`: also refuses mbind, by which OpenVINO cuts the heap at every weight. It is for hosts
      with one memory node; sudo does not work in the command then, unless hugeprobe runs as root.
    - `plain`: changes nothing, to compare with.
    - `off`: forbids huge pages, to compare with.

    Settings that are in the environment already stay as they are. All but plain and off need glibc
    2.35 or newer.
    """
    chosen, reason = _chosen(profile)
    merged = profiles.merge(chosen, os.environ)
    if dry_run:
        _say_profile(chosen, reason, merged)
        _print_settings(chosen, merged)
        return
    if not command:
        raise BadRequestError(
            "No command was given. Write it behind the options, as in: hugeprobe run -- "
            "python server.py"
        )
    with ExitStack() as stack:
        file = _opened(json_file, stack)  # before the command, which may run for days
        if file is None:
            _say_profile(chosen, reason, merged)
        report = launch.run(command, chosen, merged.env)
        if file is None:
            _print_report(report)
            _print_settings(chosen, merged)
        else:
            json.dump(_as_json(report, reason, merged), file, indent=2)
            file.write("\n")
    raise typer.Exit(report.status)


def _chosen(name: str) -> tuple[Profile, str]:
    """Return the profile, and what is to be said about the choice."""
    facts = host.host_facts()
    if name == _AUTO:
        choice = profiles.choose(facts)
        return choice.profile, choice.reason
    profile = profiles.find(name)
    if missing := profiles.obstacle(profile, facts.glibc):
        raise BadRequestError(f"The command was not started: {missing.reason}.")
    return profile, ""


def _opened(path: Path | None, stack: ExitStack) -> TextIO | None:
    if path is None:
        return None
    if str(path) == "-":
        return sys.stderr
    try:
        return stack.enter_context(path.open("w"))
    except OSError as error:
        raise BadRequestError(
            f"The report was to be written to {path}, which cannot be: {error.strerror}. The "
            "command was not started."
        ) from error


def _as_json(report: Watched, reason: str, merged: Merged) -> dict[str, object]:
    largest = report.largest
    return {
        **{field.name: getattr(report, field.name) for field in dataclasses.fields(report)},
        "reason": reason,
        "environment": dict(merged.added),
        "settings_kept": merged.kept,
        "largest": str(largest) if isinstance(largest, NotObservable) else _look_as_json(largest),
    }


def _look_as_json(look: Look) -> dict[str, object]:
    return {
        "anonymous_kib": look.coverage.anonymous_kib,
        "huge_kib": look.coverage.kib[Backing.HUGE],
        "coverage": look.coverage.share,
        "kib_by_backing": {backing.value: kib for backing, kib in look.coverage.kib.items()},
        "resident_kib": look.resident_kib,
        "processes": look.processes,
        "glibc": look.glibc,
    }


def _say_profile(profile: Profile, reason: str, merged: Merged) -> None:
    say(f"hugeprobe: profile {profile.name}. {profile.description} {reason}".rstrip(), error=True)
    for setting in merged.kept:
        say(f"hugeprobe: your own setting stays: {setting}", error=True)
    if profile.tunables and "LD_PRELOAD" in merged.env:
        say(
            "hugeprobe: LD_PRELOAD is set. If it replaces the allocator of glibc, the settings of "
            "the profile do nothing.",
            error=True,
        )


def _print_report(report: Watched) -> None:
    say(
        f"hugeprobe: profile {report.profile}, exit status {report.status} after "
        f"{report.seconds:.1f} s, {report.minor_faults:,} minor and {report.major_faults:,} major "
        "faults.",
        error=True,
    )
    if isinstance(report.largest, NotObservable):
        say(str(report.largest), error=True)
    else:
        _print_look(report.largest)
        _print_rest(report.profile, report.largest)


def _print_look(look: Look) -> None:
    held = look.coverage
    rows = (
        ("anonymous memory", format_kib(held.anonymous_kib)),
        ("huge", format_kib(held.kib[Backing.HUGE])),
        ("coverage", f"{held.share:.1%}"),
        ("all resident memory", format_kib(look.resident_kib)),
        ("processes", f"{look.processes}"),
    )
    table("At its largest", ("", "value"), rows, error=True)


def _print_rest(profile: str, look: Look) -> None:
    """Say what kept the rest of the memory from being huge, most first."""
    rest = {why: kib for why, kib in look.coverage.kib.items() if kib and why is not Backing.HUGE}
    table(
        "What kept the rest back",
        ("on base pages", "memory", ""),
        (
            (why.value, format_kib(kib), _WHY.get(why, ""))
            for why, kib in sorted(rest.items(), key=lambda pair: -pair[1])
        ),
        error=True,
    )
    if not look.glibc and profile not in {"plain", "off"}:
        say(
            "The command does not use glibc, so the profile did nothing. Run `hugeprobe collapse` "
            "on it while it runs.",
            error=True,
        )


def _print_settings(profile: Profile, merged: Merged) -> None:
    unit, shell = (
        lines(profile, merged.added) for lines in (profiles.unit_lines, profiles.shell_lines)
    )
    if unit:
        typer.echo("In a systemd unit:", err=True)
        typer.echo("\n".join(f"  {line}" for line in unit), err=True)
    if shell:
        typer.echo("In a shell:", err=True)
        typer.echo("\n".join(f"  {line}" for line in shell), err=True)
