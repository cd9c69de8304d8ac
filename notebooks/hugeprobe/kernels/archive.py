"""Packages of Debian's archive, by a private apt state: nothing installed, no privilege needed.

The address of the archive is whatever this machine's apt is configured with. apt does the fetching
and checks the signatures; its proxies and certificates apply. The host's package lists are not
used, because other suites than the host's own are needed.
"""

from __future__ import annotations

import platform
import re
from dataclasses import dataclass
from email.parser import Parser
from typing import TYPE_CHECKING, Final

from hugeprobe.errors import ProbeError
from hugeprobe.kernels.processes import require, run

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

DEBIAN_12: Final = "bookworm"
DEBIAN_13: Final = "trixie"
SUITES: Final = (
    DEBIAN_12,
    DEBIAN_13,
    f"{DEBIAN_13}-backports",
    "stable-backports",
    "testing",
    "unstable",
    "experimental",
)
"""Where stock kernels are looked for; a suite that the archive does not offer is passed over."""

_KEYRING: Final = "/usr/share/keyrings/debian-archive-keyring.gpg"
_URI: Final = re.compile(r"^'(?P<base>\S+)/dists/(?P<suite>[^/']+)/main/binary-", re.MULTILINE)
_EXACTLY: Final = re.compile(r"(linux-\S+) \(= (\S+)\)")


@dataclass(frozen=True, slots=True)
class Package:
    """One version of one binary package.

    Parameters
    ----------
    name, version
        As the archive names them.
    needs
        The packages of the kernel that it needs in exactly one version, as (name, version).
    """

    name: str
    version: str
    needs: tuple[tuple[str, str], ...]

    def __str__(self) -> str:
        return f"{self.name} {self.version}"


@dataclass(frozen=True, slots=True)
class Archive:
    """A private apt state in ``folder``; open it with :meth:`open`."""

    folder: Path

    @classmethod
    async def open(cls, folder: Path) -> Archive:
        """Bring the package lists of all suites up to date, or keep those that are there.

        Raises
        ------
        ProbeError
            If this is not a Debian machine on amd64 with apt, or there is no way to any list.
        """
        require("apt-get", "apt-cache", "dpkg-deb")
        archive = cls(folder)
        for needed in ("lists/partial", "cache/archives/partial", "sources"):
            (folder / needed).mkdir(parents=True, exist_ok=True)
        (folder / "sources/debian.sources").write_text(
            "Types: deb\n"
            f"URIs: {await _address()}\n"
            f"Suites: {' '.join(SUITES)}\n"
            "Components: main\n"
            "Architectures: amd64\n"
            f"Signed-By: {_KEYRING}\n"
        )
        try:
            await archive._apt("apt-get", "update", purpose="Fetching Debian's package lists")
        except ProbeError:
            # One suite missing is an error to apt, and so is being offline. Either way the lists
            # that are there now are what there is; without any the next question fails.
            if not any((folder / "lists").glob("*Packages*")):
                raise
        return archive

    async def versions(self, name: str) -> list[Package]:
        """Return every version that the archive offers of a package, the newest first."""
        text = await self._apt("apt-cache", "show", name, purpose=f"Looking for {name}")
        return list(_packages(text))

    async def newest(self, name: str, version: str = "") -> Package:
        """Return the newest version of a package that starts with ``version``.

        Raises
        ------
        ProbeError
            If no suite has one.
        """
        for package in await self.versions(name):
            if package.version.startswith(version):
                return package
        raise ProbeError(
            f"{name} was looked for in version {version or 'any'}, but none of the suites "
            f"{', '.join(SUITES)} of the configured archive has it."
        )

    async def with_parts(self, package: Package) -> list[Package]:
        """Return ``package`` and the packages of the same kernel that it is made of.

        Newer kernels come as several packages: the image, the modules, the configuration.
        """
        found = {package.name: package}
        waiting = list(package.needs)
        while waiting:
            name, version = waiting.pop()
            if name not in found:
                found[name] = await self.newest(name, version)
                waiting += found[name].needs
        return list(found.values())

    async def unpack(self, package: Package, folder: Path) -> None:
        """Fetch one package and unpack its files into ``folder``, without installing it."""
        await self._apt(
            *("apt-get", "download", f"{package.name}={package.version}"),
            purpose=f"Fetching {package}",
            cwd=folder,
        )
        for file in folder.glob(f"{package.name}_*.deb"):
            await run(("dpkg-deb", "-x", file, folder), f"Unpacking {package}")
            file.unlink()

    async def _apt(self, program: str, *words: str, purpose: str, cwd: Path | None = None) -> str:
        settings = {
            "Dir::State::Lists": self.folder / "lists",
            "Dir::State::Status": "/dev/null",
            "Dir::Cache": self.folder / "cache",
            "Dir::Etc::SourceList": "/dev/null",
            "Dir::Etc::SourceParts": self.folder / "sources",
            "Acquire::Languages": "none",
            "Acquire::Retries": "2",
            "APT::Sandbox::User": "",  # or root's apt asks for folders open to the user _apt
        }
        options = [word for name, value in settings.items() for word in ("-o", f"{name}={value}")]
        return await run(
            (program, "-q", *options, *words), purpose, cwd=cwd, env={"LC_ALL": "C.UTF-8"}
        )


async def _address() -> str:
    """Return the address of the archive that this machine's own suite comes from."""
    release = platform.freedesktop_os_release()
    if release.get("ID") != "debian" or platform.machine() != "x86_64":
        raise ProbeError(
            "The kernel laboratory takes its kernels from the archive of a Debian machine on "
            f"x86-64, but this is {release.get('NAME', 'unknown')} on {platform.machine()}. "
            "Run it in a container of Debian 12 or newer; it needs no privilege there."
        )
    told = await run(("apt-get", "update", "--print-uris"), "Asking apt for its sources")
    suite = release.get("VERSION_CODENAME")
    for match in _URI.finditer(told):
        if match["suite"] == suite:
            return match["base"]
    raise ProbeError(
        f"The archive of Debian's suite {suite} was looked for among apt's sources, but none has "
        "it with the component main. Add it to /etc/apt/sources.list.d."
    )


def _packages(text: str) -> Iterator[Package]:
    """Read the stanzas that ``apt-cache show`` prints; it has the newest version first."""
    for stanza in text.strip().split("\n\n"):
        fields = Parser().parsestr(stanza, headersonly=True)
        if "Package" in fields:
            needs = _EXACTLY.findall(fields.get("Depends", ""))
            yield Package(fields["Package"], fields["Version"], tuple(needs))
