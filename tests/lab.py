"""Run notebooks as a stranger does, each in a fresh home and environment: ``nox -s lab``.

A bare JupyterLab serves them; their kernel has nothing but what the page installs and what their
own first cell does. Cells are run one after the other through the server's API.
"""

from __future__ import annotations

import sys
import time
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

import notebook_shape
from jupyterlab_api import serving
from stranger import KERNEL, ROOT, Stranger, arrived, bare_jupyterlab

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from jupyterlab_api import Ran, Session

MOST_SECONDS: Final = 300
MOST_MIB: Final = 3072
MOST_MIB_ON_DISK: Final = 1024
_MEMORY: Final = {
    "kernel": "__import__('resource').getrusage(0).ru_maxrss",
    "child": "__import__('resource').getrusage(-1).ru_maxrss",
}
"""Expressions for the most memory that the kernel, and a program it started, had: KiB."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a notebook fared.

    Parameters
    ----------
    name
        The notebook's.
    faults
        What was not as it should be, in words.
    labelled
        What the labelled cells put out.
    install_s, run_s
        Seconds of its first cell, and of all others.
    kernel_mib, child_mib
        The most memory of its kernel, and of the largest program that it started.
    """

    name: str
    faults: list[str]
    labelled: dict[str, Ran]
    install_s: float
    run_s: float
    kernel_mib: float
    child_mib: float

    def __str__(self) -> str:
        return (
            f"{self.name}: {'; '.join(self.faults) or 'runs'}. "
            f"Installing took {self.install_s:.0f} s, the rest {self.run_s:.0f} s. "
            f"Its kernel had up to {self.kernel_mib:.0f} MiB, "
            f"a program that it started up to {self.child_mib:.0f} MiB."
        )


def run_in(stranger: Stranger, name: str) -> Outcome:
    """Open a notebook in JupyterLab, run all of its cells, and look at what happened."""
    before = files_of(stranger)
    with locked(stranger.clone / "notebooks/hugeprobe"), serving(stranger) as server:
        path = f"notebooks/{name}.ipynb"
        notebook = server.ask("GET", f"contents/{path}")["content"]
        with server.session(path, KERNEL) as session:
            outcome = run_all(session, name, notebook["cells"])
    faults = [f"it left {path}" for path in sorted(files_of(stranger) - before)]
    if size_of(stranger.clone / ".venv") > MOST_MIB_ON_DISK:
        faults.append(f"its packages took more than {MOST_MIB_ON_DISK} MiB")
    return replace(outcome, faults=[*outcome.faults, *faults])


def run_all(session: Session, name: str, cells: list[dict[str, Any]]) -> Outcome:
    """Run all code cells one after the other, up to the first that fails."""
    faults: list[str] = []
    labelled: dict[str, Ran] = {}
    seconds = {True: 0.0, False: 0.0}
    for cell in cells:
        if cell["cell_type"] != "code":
            continue
        installs = cell["id"] == notebook_shape.INSTALL
        started = time.monotonic()
        ran = session.run(notebook_shape.text_of(cell))
        seconds[installs] += time.monotonic() - started
        if label := cell["metadata"].get("label"):
            labelled[label] = ran
        faults += faults_of(cell, ran, installs=installs)
        if ran.error:
            break
    kernel, child = memory_of(session)
    if sum(seconds.values()) > MOST_SECONDS:
        faults.append(f"it took more than {MOST_SECONDS} s")
    if max(kernel, child) > MOST_MIB:
        faults.append(f"it took more than {MOST_MIB} MiB")
    return Outcome(name, faults, labelled, seconds[True], seconds[False], kernel, child)


def faults_of(cell: dict[str, Any], ran: Ran, *, installs: bool) -> list[str]:
    """Say what is wrong with what a cell put out."""
    faults = [f"cell {cell['id']} failed: {': '.join(ran.error)}"] if ran.error else []
    if "label" in cell["metadata"] and not any(map(says_something, ran.bundles)):
        faults.append(f"cell {cell['id']} shows nothing")
    if (complaint := ran.printed.get("stderr")) and not installs:
        faults.append(f"cell {cell['id']} complained: {complaint}")
    return faults


def says_something(bundle: dict[str, Any]) -> bool:
    """Say whether displayed data are a picture or words."""
    words = bundle.get("text/markdown") or bundle.get("text/plain", "")
    return "image/png" in bundle or bool(words.strip() and " object at 0x" not in words)


def memory_of(session: Session) -> tuple[float, float]:
    """Return the most MiB that the kernel had, and the largest program that it started."""
    values = session.run("", _MEMORY).values
    kernel, child = (int(values[key]["data"]["text/plain"]) / 1024 for key in ("kernel", "child"))
    return kernel, child


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Take away the right to write in a folder, so that nothing is left there unseen."""
    modes = {path: path.stat().st_mode for path in (folder, *folder.rglob("*"))}
    for path, mode in modes.items():
        path.chmod(mode & ~0o222)
    try:
        yield
    finally:
        for path, mode in modes.items():
            path.chmod(mode)


def files_of(stranger: Stranger) -> set[str]:
    """Return what is in the home, except where Jupyter and matplotlib keep things of their own."""
    every = (path.relative_to(stranger.home) for path in stranger.home.rglob("*"))
    own = {".cache", ".ipython", ".jupyter", ".local", ".npm", ".venv"}
    found = {str(path) for path in every if not own & set(path.parts)}
    return found - {".config", ".config/matplotlib"}  # folders, empty


def size_of(folder: Path) -> float:
    """Return the MiB of all files in a folder."""
    return sum(path.lstat().st_size for path in folder.rglob("*")) / 2**20


def main(names: list[str]) -> int:
    """Run the notebooks with these names, or all, and return the exit status."""
    every = sorted(path.stem for path in (ROOT / "notebooks").glob("*.ipynb"))
    status = 0
    with bare_jupyterlab() as jupyter:
        for name in names or every:
            with arrived(jupyter) as stranger:
                outcome = run_in(stranger, name)
            print(outcome, flush=True)
            status |= bool(outcome.faults)
    return status


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
