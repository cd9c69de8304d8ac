"""Time the build of the guide.

``build_over_notebooks``
    Wall time of a full build, from the start of Python, over the sum of the run times of its
    notebooks in this very build. The rest is Sphinx: imports, reading, and writing of pages.
``rebuild_s``
    Wall time of a build with nothing to do, in seconds.
"""

from __future__ import annotations

import pickle
import subprocess
import sys
import tempfile
import time
from pathlib import Path

REPOSITORY = Path(__file__).parents[1]


def build(folder: Path, *options: str) -> float:
    """Build the guide into a folder; return the seconds that it took."""
    command = [sys.executable, "-m", "sphinx", "-q", *options, "-d", str(folder / "doctrees")]
    start = time.perf_counter()
    subprocess.run([*command, ".", str(folder / "html")], cwd=REPOSITORY, check=True)
    return time.perf_counter() - start


def notebook_seconds(folder: Path) -> dict[str, float]:
    """Return the run time of each notebook, which MyST-NB keeps in Sphinx's environment."""
    sys.path[:0] = [str(REPOSITORY / "docs/_ext"), str(REPOSITORY / "notebooks")]
    environment = pickle.loads((folder / "doctrees/environment.pickle").read_bytes())
    return {doc: data["exec_data"]["runtime"] for doc, data in environment.nb_metadata.items()}


def main() -> None:
    """Print the two figures, and on the error stream what they are made of."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        full = build(folder)
        notebooks = notebook_seconds(folder)
        again = build(folder)
    for doc, seconds in sorted(notebooks.items(), key=lambda item: -item[1]):
        print(f"{seconds:6.1f} s {doc}", file=sys.stderr)
    print(f"{full - sum(notebooks.values()):6.1f} s the rest", file=sys.stderr)
    print(f"build_over_notebooks: {full / sum(notebooks.values()):.2f}")
    print(f"rebuild_s: {again:.2f}")


if __name__ == "__main__":
    main()
