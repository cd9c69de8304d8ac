"""``hugeprobe host``."""

from __future__ import annotations

from hugeprobe import host
from hugeprobe.cli.output import AsJson, app, print_json, table


@app.command("host")
def show_host(as_json: AsJson = False) -> None:
    """Show what of this machine decides about huge pages; names no person and no machine."""
    facts = host.host_facts()
    if as_json:
        print_json(facts)
        return
    table("This host", ("fact", "value"), host.described(facts))
