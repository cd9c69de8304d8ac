"""What one host gives, as a record that its owner can publish: counts, settings, known words.

The record has no field for a name, an address, a path, an environment or a command line. Its few
texts are types of their own that accept only what :mod:`hugeprobe.public` lets through, when a
record is made and when it is read, so a record that was edited by hand is held to the same. It
holds no times, because those of strangers' hosts cannot be compared.
"""

from __future__ import annotations

import dataclasses
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final, Literal, TypeAlias

from pydantic import AfterValidator, Field, TypeAdapter

from hugeprobe import arms, arrival, check, public, records
from hugeprobe.errors import NotObservable, ProbeError
from hugeprobe.host import CONTAINERS, HYPERVISORS, effective_sizes
from hugeprobe.placement import Rule, Touch  # noqa: TC001 - pydantic reads the types
from hugeprobe.sizes import KIB, PageSizes
from hugeprobe.sweep import TOP_OFFSET_KIB

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from hugeprobe.host import HostFacts
    from hugeprobe.placement import Layout

FOLDER: Final = Path(__file__).parents[1] / "records" / "hosts"
"""The records of the guide, one file a host."""
COMMAND: Final = "nox -s record"
TOPS_KIB: Final = (0, TOP_OFFSET_KIB)
"""Where the free address space ends above a PMD boundary in :attr:`HostRecord.cases`: on one, and
where it usually does, between two."""
ARMS: Final = (arms.DEFAULT, arms.KEEP)
"""What the process of :attr:`HostRecord.inference` is started with."""
_MODES: Final = ("always", "madvise", "never")
_DEFRAG: Final = ("always", "defer", "defer+madvise", "madvise", "never")
_SHMEM: Final = ("always", "within_size", "advise", "never", "deny", "force")


# Types --------------------------------------------------------------------------------------------


def _only(publishable: Callable[[str], str]) -> AfterValidator:
    """Accept text that may be published as it is."""

    def check(text: str) -> str:
        if publishable(text) != text:
            raise ValueError("it holds words that are not published")
        return text

    return AfterValidator(check)


def _one_of(known: Collection[str]) -> AfterValidator:
    return _only(lambda text: public.word(text, known))


Count: TypeAlias = Annotated[int, Field(ge=0)]
Day: TypeAlias = Annotated[str, Field(pattern=r"^\d{4}-\d{2}-\d{2}$")]
Release: TypeAlias = Annotated[str, _only(public.kernel_release)]
Processor: TypeAlias = Annotated[str, _only(public.processor)]
Architecture: TypeAlias = Annotated[str, _only(public.architecture)]
Version: TypeAlias = Annotated[str, _only(public.version)]
Reason: TypeAlias = Annotated[str, _only(public.reason)]
WayOfAsking: TypeAlias = Annotated[
    str, _one_of((check.PLAIN, check.ADVISED, check.NUMPY, check.OFF_BOUNDARY))
]
WayOfTouching: TypeAlias = Annotated[str, _one_of([way.name for way in arrival.WAYS])]
ArmName: TypeAlias = Annotated[str, _one_of([arm.name for arm in ARMS])]


@records.EXACTLY
@dataclass(frozen=True, slots=True)
class Unseen:
    """In place of a result that this host could not show.

    Parameters
    ----------
    because
        The rest of a sentence, as in :class:`~hugeprobe.errors.NotObservable`.
    """

    because: Reason

    @staticmethod
    def of(missing: NotObservable | ProbeError) -> Unseen:
        """Keep the reason, if its words are known."""
        text = missing.reason if isinstance(missing, NotObservable) else str(missing)
        return Unseen(public.reason(text))

    @property
    def sentence(self) -> NotObservable:
        """The whole sentence."""
        return NotObservable(self.because)


@records.EXACTLY
@dataclass(frozen=True, slots=True)
class PublicFacts:
    """What of :class:`hugeprobe.host.HostFacts` is published, with the same meaning.

    Parameters
    ----------
    kernel, architecture, processor, glibc
        Words that are known.
    processors, numa_nodes, memory_mib, memory_limit_mib
        How large the host is, and what the control groups leave of it.
    thp_mode, defrag, shmem_enabled
        Settings of THP; None where there is no such setting.
    thp_forbidden
        Whether the process that measured was forbidden huge pages.
    sizes_kib, advised_sizes_kib
        Huge page sizes of a fault in memory as it is, and in advised memory, largest first.
    base_kib, pmd_kib
        Size of a base page, and of what one PMD entry maps.
    unknown_settings
        How many settings of THP this package does not know.
    virtualisation, container
        What the host is.
    """

    kernel: Release | None
    architecture: Architecture | None
    processor: Processor | None
    processors: Count | None
    numa_nodes: Count | None
    memory_mib: Count | None
    memory_limit_mib: Count | None
    thp_mode: Annotated[str, _one_of(_MODES)] | None
    thp_forbidden: bool
    sizes_kib: tuple[Count, ...]
    advised_sizes_kib: tuple[Count, ...]
    base_kib: Count | None
    pmd_kib: Count | None
    defrag: Annotated[str, _one_of(_DEFRAG)] | None
    shmem_enabled: Annotated[str, _one_of(_SHMEM)] | None
    unknown_settings: Count
    virtualisation: Annotated[str, _one_of(HYPERVISORS)]
    container: Annotated[str, _one_of(CONTAINERS)] | None
    glibc: Version | None

    @staticmethod
    def of(facts: HostFacts) -> PublicFacts:
        """Keep what may be published."""
        return PublicFacts(
            kernel=facts.kernel,
            architecture=facts.architecture,
            processor=facts.cpu.model,
            processors=facts.cpu.usable,
            numa_nodes=facts.cpu.numa_nodes,
            memory_mib=facts.memory.total_mib,
            memory_limit_mib=facts.memory.cgroup_limit_mib,
            thp_mode=_word(facts.thp_mode, _MODES),
            thp_forbidden=facts.thp_allowed_for_process is False,
            sizes_kib=effective_sizes(facts, advised=False),
            advised_sizes_kib=effective_sizes(facts, advised=True),
            base_kib=facts.base_kib,
            pmd_kib=facts.pmd_kib,
            defrag=_word(facts.defrag, _DEFRAG),
            shmem_enabled=_word(facts.shmem_enabled, _SHMEM),
            unknown_settings=len(facts.unknown_settings),
            virtualisation=public.word(facts.virtualisation, HYPERVISORS),
            container=_word(facts.container, CONTAINERS),
            glibc=facts.glibc,
        )


def _word(text: str | None, known: Collection[str]) -> str | None:
    return text and public.word(text, known)


@records.EXACTLY
@dataclass(frozen=True, slots=True)
class Placed:
    """One mapping by which the rule was found; see :class:`hugeprobe.probe.RuleEvidence`."""

    length_kib: Count
    above_boundary_kib: Count
    hole_above_kib: int
    fits: tuple[Rule, ...]


@records.EXACTLY
@dataclass(frozen=True, slots=True)
class Given:
    """What a process got that asked for memory in one way (``hugeprobe.check``)."""

    way: WayOfAsking
    anon_kib: Count
    huge_kib: Count


@records.EXACTLY
@dataclass(frozen=True, slots=True)
class Touched:
    """What the first touch of memory took that was set up in one way (:mod:`hugeprobe.arrival`)."""

    way: WayOfTouching
    minor_faults: Count
    huge_kib: Count | Unseen


@records.EXACTLY
@dataclass(frozen=True, slots=True)
class Mapped:
    """What :data:`hugeprobe.sweep.MAPPINGS` mappings came to, placed by the kernel of the host.

    They are advised where the THP mode is ``madvise``; the figures are those of
    :class:`hugeprobe.placement.Layout`.

    Parameters
    ----------
    top_offset_kib
        Where the free address space ended above a PMD boundary.
    kib
        Length of each.
    touch
        When they were written to.
    gap_kib, vmas, anon_kib, huge_kib, minor_faults
        What they came to.
    """

    top_offset_kib: Count
    kib: Count
    touch: Touch
    gap_kib: Count
    vmas: Count
    anon_kib: Count
    huge_kib: Count
    minor_faults: Count

    @staticmethod
    def of(top_offset_kib: int, kib: int, touch: Touch, layout: Layout) -> Mapped:
        """Keep what is compared of a layout."""
        return Mapped(
            top_offset_kib=top_offset_kib,
            kib=kib,
            touch=touch,
            gap_kib=layout.gap_kib,
            vmas=layout.vmas,
            anon_kib=layout.anon_kib,
            huge_kib=layout.huge_kib,
            minor_faults=layout.minor_faults,
        )

    @property
    def coverage(self) -> float:
        """Share of the touched memory that is huge, 0 to 1."""
        return self.huge_kib / (self.anon_kib or 1)


@records.EXACTLY
@dataclass(frozen=True, slots=True)
class InferenceFaults:
    """Minor faults and memory of one process that infers with a tiny BERT on OpenVINO.

    Parameters
    ----------
    arm
        What it was started with.
    load_faults, first_faults, repeat_faults
        Faults of loading, of the first inference at each shape, and of all others.
    anon_kib, huge_kib
        Anonymous memory at the end, and what of it is huge.
    """

    arm: ArmName
    load_faults: Count
    first_faults: Count
    repeat_faults: Count
    anon_kib: Count
    huge_kib: Count


@records.EXACTLY
@dataclass(frozen=True, slots=True)
class HostRecord:
    """What one host gives.

    Parameters
    ----------
    date
        Day in UTC.
    command
        What makes such a record.
    version
        Of this package.
    host
        Facts.
    rule
        The alignment rule that the probe found; None where no known rule fits.
    evidence
        The addresses by which it was found, as distances.
    given
        64 MiB in each way to ask for them.
    touched
        First touches of memory in each way to set it up.
    cases
        Mappings of telling sizes in both orders; the caveat says what the model does not expect.
    caveat
        Why faults are not answered with pages of the PMD size alone, where they are not.
    openvino
        Version; None where it is not installed.
    inference
        The same process as it is and with the arm ``keep``.
    """

    date: Day
    command: Literal["nox -s record"]
    version: Version
    host: PublicFacts
    rule: Rule | None
    evidence: tuple[Placed, ...] | Unseen
    given: tuple[Given, ...] | Unseen
    touched: tuple[Touched, ...] | Unseen
    cases: tuple[Mapped, ...] | Unseen
    caveat: Reason | None
    openvino: Version | None
    inference: tuple[InferenceFaults, ...] | Unseen

    @property
    def sizes(self) -> PageSizes:
        """Page sizes of the host, and those of a fault in :attr:`cases`, as the model takes them.

        Where the host does not tell a size, that of x86-64.
        """
        usual, host = PageSizes(), self.host
        given = host.advised_sizes_kib if host.thp_mode == "madvise" else host.sizes_kib
        return PageSizes(
            (host.base_kib or usual.base // KIB) * KIB,
            (host.pmd_kib or usual.pmd // KIB) * KIB,
            tuple(size * KIB for size in given),
        )


_SCHEMA: Final = TypeAdapter(HostRecord)


# Files --------------------------------------------------------------------------------------------


def checked(record: HostRecord) -> HostRecord:
    """Return the record, if there is nothing in it that may not be published.

    Raises
    ------
    pydantic.ValidationError
        If there is: a defect of this package, and nothing that a host could cause.
    """
    return _SCHEMA.validate_json(json.dumps(dataclasses.asdict(record)), strict=True)


def file_name(record: HostRecord) -> str:
    """Return the name of a record's file, made of what the record says and of nothing else."""
    version = re.match(r"[\d.]*\d", record.host.kernel or "")
    return f"{record.date}-linux-{version[0] if version else 'unknown'}-{_key(record)}.json"


def short_name(record: HostRecord) -> str:
    """Return the first and the last part of :func:`file_name`, to tell records apart in a table."""
    return f"{record.date}, {_key(record)}"


def _key(record: HostRecord) -> str:
    digest: str = json.loads(records.text_of(record))["digest"]
    return digest[:8]


def save(record: HostRecord, folder: Path = FOLDER) -> Path:
    """Write a record into a folder, and return its file."""
    path = folder / file_name(record)
    records.write(path, record)
    return path


def read_all(folder: Path = FOLDER) -> tuple[HostRecord, ...]:
    """Return all records in a folder, in the order of their dates.

    Raises
    ------
    MalformedError
        If one was changed by hand, or holds what is not published.
    """
    found = (records.read(path, HostRecord) for path in sorted(folder.glob("*.json")))
    return tuple(record for record in found if isinstance(record, HostRecord))
