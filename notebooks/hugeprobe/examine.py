"""One process at one moment: everything that a diagnosis is made from, read in one go.

Reading costs the process what reading its smaps costs: the kernel holds the lock of its address
space for a few mappings at a time, and walks its page tables once more for each file read here.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

from hugeprobe import owners, pagemap, process, smaps
from hugeprobe.counters import Faults, faults_of
from hugeprobe.coverage import Mode, Piece, mode_of, pieces
from hugeprobe.errors import NotObservable, ProcessGoneError
from hugeprobe.host import group_room_kib
from hugeprobe.pagemap import Anonymous, Located, PageMap
from hugeprobe.remedies import Cut

if TYPE_CHECKING:
    from collections.abc import Mapping as ReadOnlyDict

    from hugeprobe.host import HostFacts
    from hugeprobe.owners import Owner
    from hugeprobe.smaps import Mapping, Pid

_LIVE: Final = Path("/")
PMD_KIB: Final = 2048
"""Size of a huge page where the kernel does not tell."""
_32_BIT: Final = 1 << 32
_FLAGS_OF_PROTECTION: Final = frozenset(("rd", "wr", "ex", "mr", "mw", "me", "ms"))
_FLAGS_OF_ADVICE: Final = frozenset(("hg", "nh"))
_FLAGS_OF_NO_MAPPING: Final = frozenset(("sd",))
"""Soft-dirty: mappings that differ in it only are joined."""


@dataclass(frozen=True, slots=True, eq=False)
class Examined:
    """One process at one moment.

    Parameters
    ----------
    pid
        The process.
    pmd_kib
        Size of a huge page in KiB.
    mappings
        All its mappings, in order of address.
    pieces
        Its resident anonymous memory by what backs it; see :func:`hugeprobe.coverage.pieces`.
    where
        Where this memory lies, as far as this kernel tells.
    located
        Whether the division between the parts of a mapping was read; else it is a bound.
    policies
        Memory policy of mappings by first address; empty where nothing hangs on it.
    owners
        What each of ``mappings`` is used for.
    programs
        Runtimes and allocators that it has mapped.
    faults
        Its page faults so far.
    room_kib
        What the limit of its control group leaves; None without a limit.
    """

    pid: Pid
    pmd_kib: int
    mappings: tuple[Mapping, ...]
    pieces: tuple[Piece, ...]
    where: Anonymous | NotObservable
    located: bool
    policies: ReadOnlyDict[int, str]
    owners: tuple[Owner, ...]
    programs: tuple[str, ...]
    faults: Faults
    room_kib: int | None

    @property
    def is_32_bit(self) -> bool:
        """Whether it has no mapping above 4 GiB, as only 32-bit programs have not."""
        return self.mappings[-1].end <= _32_BIT

    def cut(self, piece: Piece) -> Cut | None:
        """Return in what the mappings differ that meet in the range of ``piece``, if they do."""
        return cut_between(piece.mapping, piece.across, self.policies) if piece.across else None


def examine(pid: Pid, facts: HostFacts, root: Path = _LIVE) -> Examined:
    """Read what there is to know of a process.

    Parameters
    ----------
    pid
        Process number, or ``"self"``.
    facts
        The host, see :func:`hugeprobe.host.host_facts`.
    root
        Where ``proc`` and ``sys`` are.

    Raises
    ------
    ProcessGoneError
        If there is no such process, or it ended or executed another program meanwhile.
    ProbeError
        For every other reason for which :func:`hugeprobe.smaps.snapshot` cannot read it.
    """
    pmd_kib = facts.pmd_kib or PMD_KIB
    allowed = process.thp_allowed(pid, root)
    mode: Mode = mode_of(replace(facts, thp_allowed_for_process=allowed))
    with process.same(pid, root), pagemap.opened(pid, root) as pages:
        mappings = tuple(smaps.snapshot(pid, root))
        where, located = _where(pages, mappings)
        parts = tuple(pieces(mappings, mode, pmd_kib, located))
        programs = owners.programs(mappings)
        policies = _policies(pid, root) if _need_policies(parts, programs) else {}
        faults = faults_of(pid, root)
        if isinstance(pages, PageMap) and pages.ended:
            raise ProcessGoneError(
                f"Process {pid} was looked at, but it ended or executed another program "
                "meanwhile. Look at it again."
            )
    return Examined(
        pid,
        pmd_kib,
        mappings,
        parts,
        where,
        located is not None,
        policies,
        tuple(owners.owners(mappings, policies)),
        programs,
        faults,
        group_room_kib(pid, root),
    )


def _where(
    pages: PageMap | NotObservable, mappings: tuple[Mapping, ...]
) -> tuple[Anonymous | NotObservable, Located | None]:
    if isinstance(pages, NotObservable):
        return pages, None
    of_process = [each.end for each in mappings if each.kind is not smaps.Kind.SPECIAL]
    where = pages.anonymous(max(of_process, default=0))
    return where, pages.located() if isinstance(where, NotObservable) else where.located()


def _need_policies(parts: tuple[Piece, ...], programs: tuple[str, ...]) -> bool:
    """Return whether memory policies may explain something that nothing else does."""
    unexplained = (
        part.across and cut_between(part.mapping, part.across, {}) is Cut.UNKNOWN for part in parts
    )
    return "OpenVINO" in programs or any(unexplained)


def _policies(pid: Pid, root: Path) -> ReadOnlyDict[int, str]:
    found = process.policies(pid, root)
    return {} if isinstance(found, NotObservable) else found


def cut_between(mapping: Mapping, other: Mapping, policies: ReadOnlyDict[int, str]) -> Cut:
    """Return the first difference for which the kernel keeps two neighbours apart.

    They are what ``is_mergeable_vma()`` in ``mm/vma.c`` compares, as far as smaps shows them.
    """
    flags, other_flags = set(mapping.vm_flags), set(other.vm_flags)
    differing = (flags ^ other_flags) - _FLAGS_OF_NO_MAPPING
    if mapping.permissions != other.permissions:
        return Cut.PROTECTION
    if differing & _FLAGS_OF_ADVICE:
        return Cut.ADVICE
    if policies.get(mapping.start) != policies.get(other.start):
        return Cut.POLICY
    if _given_name(mapping) != _given_name(other):
        return Cut.NAME
    return Cut.FLAGS if differing - _FLAGS_OF_PROTECTION else Cut.UNKNOWN


def _given_name(mapping: Mapping) -> str:
    """Return the name that the program gave (``PR_SET_VMA_ANON_NAME``); others keep none apart."""
    return mapping.name if mapping.name.startswith("[anon:") else ""
