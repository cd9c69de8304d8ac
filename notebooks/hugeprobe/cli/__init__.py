"""The command ``hugeprobe``: what the probes find, as tables for people or as JSON.

Each command has a module here that prints; what it prints is found by the module of the package
that has the same name.
"""

from __future__ import annotations

import sys

from rich.console import Console

from hugeprobe.cli import bench, collapse, doctor, host, layout, maps, record, rule, run, survey
from hugeprobe.cli.output import app
from hugeprobe.errors import ProbeError

__all__ = ["COMMANDS", "app", "main"]

COMMANDS = (host, rule, layout, maps, doctor, collapse, run, bench, survey, record)
"""Importing a command's module adds it to the application, in this order."""


def main() -> None:
    """Run the command line; every expected failure is one sentence on standard error."""
    try:
        app()
    except ProbeError as error:
        Console(stderr=True, soft_wrap=True).print(f"hugeprobe: {error}", markup=False)
        sys.exit(1)
