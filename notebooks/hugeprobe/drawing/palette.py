"""The colours of every picture, and what stands for each on a page of either theme."""

from __future__ import annotations

from typing import Final

INK: Final = "#1b1f23"
HUGE: Final = "#1f7a8c"
BASE: Final = "#d98324"
GAP: Final = "#9aa0a6"
ACCENT: Final = "#7a4fbf"

THEMED: Final = {
    INK: "currentColor",
    HUGE: f"var(--hp-huge, {HUGE})",
    BASE: f"var(--hp-base, {BASE})",
    GAP: f"var(--hp-gap, {GAP})",
    ACCENT: f"var(--hp-accent, {ACCENT})",
}
