"""Tell dead links from links that could not be asked for, in what Sphinx's link check found.

Usage: ``python link_report.py _build/linkcheck/output.json``. Fails for dead links only.
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

Outcome = Literal["fine", "dead", "unreachable"]

GONE = (404, 410)
"""HTTP answers that say that there is no such page."""


@dataclass(frozen=True, slots=True)
class Link:
    """One link of the guide, and what came of asking for it.

    Parameters
    ----------
    place
        File and line.
    uri
        Where it leads.
    status
        Sphinx's word for it, such as ``working``, ``redirected``, ``broken`` or ``timeout``.
    code
        HTTP status, or 0.
    info
        Sphinx's reason.
    """

    place: str
    uri: str
    status: str
    code: int
    info: str

    @property
    def outcome(self) -> Outcome:
        """Dead only if there was an answer that said so: no answer says nothing of the page."""
        if self.status not in {"broken", "timeout", "rate-limited"}:
            return "fine"
        no_anchor = self.info.startswith("Anchor ")
        local = not self.uri.startswith(("http://", "https://"))
        return "dead" if self.code in GONE or no_anchor or local else "unreachable"


def read(path: Path) -> list[Link]:
    """Read the one JSON object a line that Sphinx writes, without what needs no asking."""
    found = []
    for line in path.read_text(encoding="utf-8").splitlines():
        entry = json.loads(line)
        if entry["status"] not in {"unchecked", "local", "ignored"}:
            place = f"{entry['filename']}:{entry['lineno']}"
            found.append(Link(place, entry["uri"], entry["status"], entry["code"], entry["info"]))
    return found


def main(path: Path) -> int:
    """Print the report, and return the exit status."""
    links = read(path)
    count = Counter(link.outcome for link in links)
    for link in links:
        if link.outcome != "fine":
            print(f"{link.outcome}: {link.place}: {link.uri}: {link.info}")
    print(f"{count['fine']} fine, {count['dead']} dead", end="")
    if count["unreachable"]:
        print(f"; {count['unreachable']} could not be reached, and so are not checked", end="")
    print(".")
    return 1 if count["dead"] else 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
