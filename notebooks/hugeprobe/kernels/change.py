"""The one line in which two of the kernels differ, and the only way it is ever changed.

Linux 6.12 aligns an anonymous mapping only where its length is a whole number of PMDs, a condition
that came with d4148aeab412. Without it, every mapping of at least a PMD is aligned: the rule
``forced`` of Linux 6.7 to 6.11.6. The condition is taken out of an otherwise untouched source, and
the change is refused unless the lines stand exactly once and exactly as expected.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from hashlib import sha256
from typing import TYPE_CHECKING, Final

from hugeprobe.errors import MalformedError

if TYPE_CHECKING:
    from pathlib import Path


class State(str, Enum):
    """In which form the lines stand."""

    ORIGINAL = "original"
    CHANGED = "changed"


@dataclass(frozen=True, slots=True)
class Change:
    """A replacement of lines in one file of the kernel's source.

    Parameters
    ----------
    file
        Path in the source tree.
    before, after
        The lines, whole, with their newlines.
    """

    file: str
    before: str
    after: str

    @property
    def digest(self) -> str:
        """Eight hexadecimal digits that stand for this change in names of files."""
        return sha256("\0".join((self.file, self.before, self.after)).encode()).hexdigest()[:8]

    def state(self, text: str) -> State:
        """Return the form in which ``text`` has the lines.

        Raises
        ------
        MalformedError
            If it has them in neither form, in both, or more than once.
        """
        found = [
            state
            for state, lines in ((State.ORIGINAL, self.before), (State.CHANGED, self.after))
            for _ in range(text.count(lines))
        ]
        if len(found) != 1:
            raise MalformedError(
                f"{self.file} of the kernel's source was to be changed in one place, but the lines "
                f"expected there stand {text.count(self.before)} times as they are and "
                f"{text.count(self.after)} times as changed. This source is not the one that the "
                "change was written for; compare it with hugeprobe/kernels/change.py."
            )
        return found[0]

    def bring(self, source: Path, wanted: State) -> None:
        """Have the lines in the tree ``source`` stand as ``wanted``; verified before and after."""
        file = source / self.file
        text = file.read_text()
        if self.state(text) is wanted:
            return
        lines = (self.before, self.after)
        text = text.replace(*(lines if wanted is State.CHANGED else lines[::-1]))
        unfinished = file.with_name(file.name + ".new")
        unfinished.write_text(text)
        unfinished.replace(file)
        if self.state(file.read_text()) is not wanted:
            raise MalformedError(f"{self.file} was changed, but does not read as it should.")


LENGTH_CONDITION: Final = Change(
    file="mm/mmap.c",
    before=(
        "\t} else if (IS_ENABLED(CONFIG_TRANSPARENT_HUGEPAGE)\n"
        "\t\t   && !addr /* no hint */\n"
        "\t\t   && IS_ALIGNED(len, PMD_SIZE)) {\n"
    ),
    after=(
        "\t} else if (IS_ENABLED(CONFIG_TRANSPARENT_HUGEPAGE)\n\t\t   && !addr /* no hint */) {\n"
    ),
)
"""Takes the length out of the condition: the rule ``multiples`` becomes ``forced``."""
