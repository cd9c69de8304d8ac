"""What several figures share."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from hugeprobe.drawing import ACCENT, BASE, HUGE
from hugeprobe.placement import Rule, Touch
from hugeprobe.sizes import KIB

if TYPE_CHECKING:
    from hugeprobe.areas import Resident

RULE_COLOURS: Final = {Rule.PACKED: ACCENT, Rule.MULTIPLES: HUGE, Rule.FORCED: BASE}
TOUCH_WORDS: Final = {Touch.EACH: "each touched at once", Touch.AFTER: "touched after all"}
HUGE_OR_BASE: Final = {"huge": HUGE, "base pages": BASE}


def split_resident(resident: Resident) -> dict[str, float]:
    """Return MiB of huge and of base pages, as the parts of a bar."""
    huge = resident.huge_kib / KIB
    return {"huge": huge, "base pages": resident.anon_kib / KIB - huge}
