"""Files that are made once, whole or not at all, and anew when what they are made of changes."""

from __future__ import annotations

import hashlib
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextmanager
def whole(folder: Path) -> Iterator[Path]:
    """Give a folder to fill, which becomes ``folder`` at the end, or is removed upon an error."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent) as unfinished:
        part = Path(unfinished) / folder.name
        part.mkdir()
        yield part
        part.rename(folder)


def digest(*parts: bytes) -> str:
    """Return 12 hexadecimal digits that are different for different parts."""
    return hashlib.sha256(b"\0".join(parts)).hexdigest()[:12]


def version(*files: Path) -> str:
    """Return a digest of places, sizes and dates: another model of the same name has another."""
    found = ((file.resolve(), file.stat()) for file in sorted(files))
    return digest(
        *(f"{path} {about.st_size} {about.st_mtime_ns}".encode() for path, about in found)
    )
