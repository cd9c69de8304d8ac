"""``hugeprobe rule``."""

from __future__ import annotations

import dataclasses

from hugeprobe import probe
from hugeprobe.cli.output import AsJson, app, print_json, table


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
