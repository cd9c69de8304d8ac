"""Where and on what the figures were measured."""

from __future__ import annotations

import contextlib
from datetime import datetime, timezone
from importlib import metadata
from typing import TYPE_CHECKING, Final

from hugeprobe.drawing import MarkdownTable, markdown_table
from hugeprobe.host import described

if TYPE_CHECKING:
    from hugeprobe.host import HostFacts


def today() -> str:
    """Return the date of this build, in universal time."""
    return datetime.now(timezone.utc).strftime("%Y-%m-%d")


_BOX: Final = (
    "Kernel",
    "Processor",
    "Logical processors usable",
    "Memory",
    "Memory limit (control group)",
    "THP mode",
    "Huge page sizes, memory as it is",
    "Huge page sizes, advised memory",
    "Virtualisation",
    "Container",
    "glibc",
)
_RUNTIMES: Final = {"OpenVINO": "openvino", "ONNX Runtime": "onnxruntime"}


def measured_on(facts: HostFacts) -> MarkdownTable:
    """Return the box that says where and when the figures of this build were measured."""
    known = dict(described(facts))
    rows = [(name, known[name]) for name in _BOX if name in known]
    return markdown_table(("Measured on", today()), [*rows, *_installed()])


def _installed() -> list[tuple[str, str]]:
    """Return the versions of those runtimes that are installed."""
    found = []
    for name, package in _RUNTIMES.items():
        with contextlib.suppress(metadata.PackageNotFoundError):
            found.append((name, metadata.version(package)))
    return found


def settings_table(facts: HostFacts) -> MarkdownTable:
    """Return everything about this host that decides about huge pages."""
    return markdown_table(("setting", "value"), described(facts))
