"""Somebody with a JupyterLab and nothing else: no root, an empty home, the commands of the page.

As root, the stranger is the user ``nobody``; else it is oneself, with another home.
"""

from __future__ import annotations

import os
import re
import shutil
import stat
import subprocess
import sys
import tempfile
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT: Final = Path(__file__).parents[1]
PAGE: Final = ROOT / "docs/run-it-yourself.md"
ADDRESS: Final = "ADDRESS-OF-THIS-REPOSITORY"
ORIGIN: Final = "origin"
CLONE: Final = "guide"
KERNEL: Final = "huge-pages"
_NOBODY: Final = 65534
_HANDED_ON: Final = re.compile(
    r"PIP_.*|(https?|no|all)_proxy|SSL_CERT_.*|LANG|LC_.*", re.IGNORECASE
)
_NO_INDEX: Final = re.compile(r"No matching distribution|Could not find a version|connection")


class OfflineError(Exception):
    """No package index could be reached."""


class CommandFailedError(Exception):
    """A command of the stranger failed; the text is what it said."""


@dataclass(frozen=True, slots=True)
class Stranger:
    """A user without privileges.

    Parameters
    ----------
    home
        Where the stranger may write; also for temporary files, in ``tmp``.
    jupyter
        Environment that JupyterLab is installed in.
    """

    home: Path
    jupyter: Path

    @property
    def environment(self) -> dict[str, str]:
        """Environment variables as in a terminal of JupyterLab: hardly any of ours."""
        ours = {key: value for key, value in os.environ.items() if _HANDED_ON.fullmatch(key)}
        path = f"{self.jupyter / 'bin'}:/usr/local/bin:/usr/bin:/bin"
        return {**ours, "HOME": str(self.home), "PATH": path, "TMPDIR": str(self.home / "tmp")}

    @property
    def clone(self) -> Path:
        """Where the commands of the page put the repository."""
        return self.home / CLONE

    def start(self, *command: str) -> subprocess.Popen[str]:
        """Start a command in the home."""
        nobody: dict[str, Any] = {"user": _NOBODY, "group": _NOBODY, "extra_groups": []}
        return subprocess.Popen(
            command,
            cwd=self.home,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
            **({} if os.geteuid() else nobody),
        )

    def run(self, *command: str) -> str:
        """Run a command in the home, and return what it said.

        Raises
        ------
        OfflineError
            If it failed for want of a package index.
        CommandFailedError
            If it failed otherwise.
        """
        with self.start(*command) as process:
            said, _ = process.communicate(timeout=600)
        if process.returncode == 0:
            return said
        wrong = OfflineError if _NO_INDEX.search(said) else CommandFailedError
        raise wrong(f"`{' '.join(command)}` failed: {said}")

    def type(self, lines: list[str]) -> None:
        """Type commands into a terminal that stops at the first failure."""
        script = "\n".join(["set -e", *lines])
        self.run("bash", "-c", script.replace(ADDRESS, str(self.home / ORIGIN)))


def own(folder: Path) -> None:
    """Give a folder with all that is in it to the stranger."""
    if os.geteuid() == 0:
        for path in (folder, *folder.rglob("*")):
            os.chown(path, _NOBODY, _NOBODY, follow_symlinks=False)


def _open_to_all() -> Path:
    """Return the folder for temporary files, or the system's where others cannot reach it."""
    ours = Path(tempfile.gettempdir()).resolve()
    reachable = all(each.stat().st_mode & stat.S_IXOTH for each in (ours, *ours.parents))
    return ours if reachable or os.geteuid() else Path("/tmp")


@contextmanager
def empty_home() -> Iterator[Path]:
    """Make a home where a stranger may go, and remove it in the end."""
    with tempfile.TemporaryDirectory(prefix="stranger-", dir=_open_to_all()) as folder:
        home = Path(folder)
        (home / "tmp").mkdir()
        own(home)
        yield home


def python_for(stranger: Stranger) -> str:
    """Return a Python that the stranger may run and that can make environments.

    Raises
    ------
    CommandFailedError
        If there is none.
    """
    ours = Path(sys.base_prefix, "bin", f"python{sys.version_info[0]}.{sys.version_info[1]}")
    for python in (str(ours), "/usr/local/bin/python3", "/usr/bin/python3"):
        try:
            stranger.run(python, "-c", "import ensurepip, sys; assert sys.version_info >= (3, 10)")
        except (OSError, CommandFailedError):
            continue
        return python
    raise CommandFailedError(
        "A Python of 3.10 or newer with ensurepip was looked for that every user may run, but "
        "there is none. Install one, on Debian with `apt-get install python3-venv`."
    )


@contextmanager
def bare_jupyterlab() -> Iterator[Path]:
    """Install JupyterLab and no more, as an image does that others offer; return where."""
    with empty_home() as home:
        installer = Stranger(home, home / "jupyter")
        installer.run(python_for(installer), "-m", "venv", str(installer.jupyter))
        installer.run("pip", "install", "--quiet", "jupyterlab>=4,<5")
        yield installer.jupyter


@contextmanager
def arrived(jupyter: Path) -> Iterator[Stranger]:
    """Return a stranger who has followed the page up to opening a notebook."""
    with empty_home() as home:
        stranger = Stranger(home, jupyter)
        publish(stranger)
        stranger.type(commands(PAGE))
        yield stranger


def commands(page: Path, having: str = "git clone") -> list[str]:
    """Return the commands of the block on a page that has this in it, as a reader copies them."""
    blocks = re.findall(r"(?ms)^ *```console\n(.*?)^ *```", page.read_text(encoding="utf-8"))
    (block,) = (block for block in blocks if having in block)
    return [line.strip().removeprefix("$ ") for line in block.splitlines()]


def publish(stranger: Stranger) -> None:
    """Put what is in the work tree into a repository that the stranger can clone."""
    listing = ("git", "ls-files", "-z", "--cached", "--others", "--exclude-standard")
    listed = subprocess.run(listing, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    origin = stranger.home / ORIGIN
    for name in filter(None, listed.split("\0")):
        if (source := ROOT / name).is_file():
            (origin / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, origin / name)
    own(origin)
    git = (
        "git",
        "-C",
        str(origin),
        "-c",
        "user.name=somebody",
        "-c",
        "user.email=somebody@invalid",
    )
    for words in (("init", "-q"), ("add", "-A"), ("commit", "-q", "-m", "As it is")):
        stranger.run(*git, *words)
