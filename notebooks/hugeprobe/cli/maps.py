"""``hugeprobe maps``."""

from __future__ import annotations

from typing import Annotated

import typer

from hugeprobe import smaps
from hugeprobe.cli.output import AsJson, app, print_json, table
from hugeprobe.process import parse_pid
from hugeprobe.sizes import format_kib


@app.command("maps")
def show_maps(
    pid: Annotated[str, typer.Argument(help="Process number, or self.")],
    as_json: AsJson = False,
) -> None:
    """Show the mappings of a process, how much of each is huge, and the sums by kind.

    Names of mapped files are shown with their paths: read them before you
    publish them. The command doctor says more and shows no name.
    """
    snapshot = smaps.snapshot(parse_pid(pid))
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
