"""Kernels on disk: Debian's stock ones unpacked, and one built from source in two forms.

Each kernel is a folder of the cache that appears whole or not at all, under a name that says all it
depends on. What is there is not made again, and an interruption costs only what was being made.
"""

from __future__ import annotations

import lzma
import os
import re
import shutil
import tempfile
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Final

from hugeprobe.errors import ProbeError
from hugeprobe.kernels import configuration
from hugeprobe.kernels.change import LENGTH_CONDITION, State
from hugeprobe.kernels.processes import require, require_space, run

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from hugeprobe.kernels.archive import Archive, Package

SOURCE: Final = "linux-source-6.12"
STOCK: Final = "linux-image-amd64"
STOCK_VERSIONS: Final = ("6.1.", "6.12.", "")
"""Beginnings of the versions of :data:`STOCK` to run; the empty one is the newest of any suite."""

BUSYBOX: Final = "busybox-static"

_MODULES: Final = ("virtio_pci", "9pnet_virtio", "9p")
"""Modules without which a guest cannot see the host's files; built in where they are no files."""

_SPACE_GIB: Final = 6
_DEPENDS: Final = re.compile(rb"\0depends=([^\0]*)\0")
_BUILD_TOOLS: Final = ("make", "gcc", "flex", "bison", "bc", "perl", "tar", "xz")


@dataclass(frozen=True, slots=True)
class Kernel:
    """A kernel that can be booted.

    Parameters
    ----------
    folder
        Holds ``vmlinuz``, ``config``, ``origin`` and ``modules/``.
    """

    folder: Path

    @property
    def image(self) -> Path:
        """What the boot loader loads."""
        return self.folder / "vmlinuz"

    @property
    def origin(self) -> str:
        """Where it comes from, in words for a reader."""
        return (self.folder / "origin").read_text().strip()

    @property
    def config_digest(self) -> str:
        """SHA-256 of the configuration that it was built with."""
        return sha256((self.folder / "config").read_bytes()).hexdigest()

    @property
    def modules(self) -> list[Path]:
        """The modules to load before the host's files can be seen, in this order."""
        return sorted((self.folder / "modules").glob("*.ko"))


@contextmanager
def appearing(folder: Path) -> Iterator[Path]:
    """Give an empty folder that becomes ``folder`` if all goes well, else is removed."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".unfinished-") as temporary:
        content = Path(temporary) / "content"
        content.mkdir()
        yield content
        content.rename(folder)


def sweep(cache: Path) -> None:
    """Remove what runs that were killed left unfinished in the cache."""
    for leftover in cache.glob("*/.unfinished-*"):
        shutil.rmtree(leftover, ignore_errors=True)


async def stock(archive: Archive, version: str, cache: Path) -> Kernel:
    """Return Debian's newest stock kernel whose version starts with ``version``."""
    package = await archive.newest(STOCK, version)
    folder = cache / "kernels" / f"{package.name}_{package.version}"
    if not folder.exists():
        require_space(cache, 1, f"Unpacking {package}")
        with appearing(folder) as kernel, tempfile.TemporaryDirectory(dir=cache) as temporary:
            files = Path(temporary)
            for part in await archive.with_parts(package):
                await archive.unpack(part, files)
            _collect(files, kernel)
            (kernel / "origin").write_text(f"Debian's stock kernel {package.version}\n")
    return Kernel(folder)


async def busybox(archive: Archive, cache: Path) -> Path:
    """Return a static busybox, the guest's first program."""
    package = await archive.newest(BUSYBOX)
    folder = cache / "tools" / f"{package.name}_{package.version}"
    if not folder.exists():
        with appearing(folder) as files:
            await archive.unpack(package, files)
    return _only(folder, "bin/busybox")


def _only(folder: Path, pattern: str) -> Path:
    """Return the one file below ``folder`` of that name."""
    found = [path for path in folder.rglob(pattern) if path.is_file() and not path.is_symlink()]
    if len(found) != 1:
        raise ProbeError(
            f"One file {pattern} was expected in a package of Debian, but {len(found)} are there. "
            "The packages are laid out in a new way; adapt hugeprobe/kernels/images.py."
        )
    return found[0]


def _collect(files: Path, kernel: Path) -> None:
    """Copy from unpacked packages what a guest needs, and name the modules in loading order."""
    shutil.copy(_only(files, "vmlinuz*"), kernel / "vmlinuz")
    configs = [path for path in files.rglob("config*") if path.is_file() and _is_config(path)]
    shutil.copy(configs[0], kernel / "config")
    available = {_module_name(path): path for path in files.rglob("*.ko*")}
    ordered: dict[str, bytes] = {}

    def add(name: str) -> None:
        if name in ordered or name not in available:
            return  # there already, or built in
        content = _decompressed(available[name])
        match = _DEPENDS.search(content)
        for dependency in match[1].decode().split(",") if match else ():
            add(dependency)
        ordered[name] = content

    for name in _MODULES:
        add(name)
    (kernel / "modules").mkdir()
    for number, (name, content) in enumerate(ordered.items()):
        (kernel / "modules" / f"{number:02}-{name}.ko").write_bytes(content)


def _is_config(path: Path) -> bool:
    return b"\nCONFIG_TRANSPARENT_HUGEPAGE=y\n" in path.read_bytes()


def _module_name(path: Path) -> str:
    return path.name.partition(".")[0].replace("-", "_")


def _decompressed(path: Path) -> bytes:
    content = path.read_bytes()
    return lzma.decompress(content) if path.suffix == ".xz" else content


@dataclass(frozen=True, slots=True)
class Build:
    """One form of the kernel that is built from source.

    Parameters
    ----------
    source
        The package of the source.
    form
        With the lines of :data:`LENGTH_CONDITION` as they are, or changed.
    """

    source: Package
    form: State

    @property
    def suffix(self) -> str:
        """What its release ends with: the rule that it is there to show."""
        return "-multiples" if self.form is State.ORIGINAL else "-forced"

    @property
    def origin(self) -> str:
        """Where it comes from, in words for a reader."""
        how = "as it is" if self.form is State.ORIGINAL else "without the condition on the length"
        return f"built from Debian's {self.source}, {how}"

    def folder(self, cache: Path) -> Path:
        """Return the folder of the cache, named by all that the kernel depends on."""
        config = sha256(configuration.FRAGMENT.encode()).hexdigest()[:8]
        form = f"{self.form.value}-{LENGTH_CONDITION.digest}"
        return cache / "kernels" / f"{self.source.name}_{self.source.version}_{config}_{form}"


async def built(
    archive: Archive, cache: Path, jobs: int, progress: Callable[[str], None]
) -> list[Kernel]:
    """Return the kernel that is built from source as it is, and the one with the change.

    Parameters
    ----------
    archive, cache
        Where the source comes from, and where everything is kept.
    jobs
        Compilers to run at once.
    progress
        Told in a few words what is being done.
    """
    source = await archive.newest(SOURCE)
    builds = [Build(source, form) for form in State]
    kernels = [Kernel(build.folder(cache)) for build in builds]
    if all(kernel.folder.exists() for kernel in kernels):
        return kernels
    await _require_build_tools()
    tree = cache / "build" / f"{source.name}_{source.version}"
    if not tree.exists():
        require_space(cache, _SPACE_GIB, f"Building {source}")
        progress("fetch the source")
        with appearing(tree) as files:
            await archive.unpack(source, files)
            packed = _only(files, f"{SOURCE}.tar.*")
            progress("unpack the source")
            await run(("tar", "-xf", packed), "Unpacking the source", cwd=files)
            packed.unlink()
    for build, kernel in zip(builds, kernels, strict=True):
        if not kernel.folder.exists():
            progress(f"compile, {build.form.value}")
            with appearing(kernel.folder) as finished:
                await _compile(build, tree, jobs, finished)
    shutil.rmtree(cache / "build")
    return kernels


async def _require_build_tools() -> None:
    require(*_BUILD_TOOLS)
    await run(
        ("gcc", "-fsyntax-only", "-include", "gelf.h", "-x", "c", "/dev/null"),
        "Looking for the header gelf.h, which `apt-get install libelf-dev` adds,",
    )


async def _compile(build: Build, tree: Path, jobs: int, finished: Path) -> None:
    source, objects = tree / SOURCE, tree / "objects"
    objects.mkdir(exist_ok=True)
    LENGTH_CONDITION.bring(source, build.form)
    fragment = tree / "fragment"
    fragment.write_text(configuration.FRAGMENT)
    make = ("nice", "make", "-s", "-C", source, f"O={objects}")
    purpose = f"Configuring {build.source}"
    await run((*make, f"KCONFIG_ALLCONFIG={fragment}", "allnoconfig"), purpose)
    configuration.check((objects / ".config").read_text())
    target = (f"-j{jobs}", f"LOCALVERSION={build.suffix}", "bzImage")
    # Without these, the image would carry the name of the machine and of the user.
    private = {"KBUILD_BUILD_USER": "hugeprobe", "KBUILD_BUILD_HOST": "hugeprobe"}
    await run((*make, *target), f"Building {build.source}", env=private)
    shutil.copy(objects / "arch/x86/boot/bzImage", finished / "vmlinuz")
    shutil.copy(objects / ".config", finished / "config")
    (finished / "modules").mkdir()
    (finished / "origin").write_text(build.origin + "\n")


def default_cache() -> Path:
    """Return the folder for kernels where none is named: the user's cache folder."""
    base = os.environ.get("HUGEPROBE_CACHE") or os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "hugeprobe"
