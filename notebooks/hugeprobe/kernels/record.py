"""What the kernel laboratory found, as it is recorded and read back."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from pydantic import TypeAdapter

from hugeprobe import records
from hugeprobe.errors import NotObservable, ProbeError
from hugeprobe.kernels.change import Change  # noqa: TC001 - pydantic reads the types
from hugeprobe.kernels.inference import Footprint
from hugeprobe.kernels.machine import Accelerator  # noqa: TC001
from hugeprobe.placement import Layout, PlacedMapping, Rule, Touch
from hugeprobe.sizes import KIB, PageSizes

if TYPE_CHECKING:
    from hugeprobe.kernels.images import Kernel

RECORD: Final = Path(__file__).parents[2] / "records" / "kernels.json"
COMMAND: Final = "nox -s kernels"


@records.EXACTLY
@dataclass(frozen=True, slots=True)
class RecordedLayout:
    """One list of mappings on a real kernel; the figures are those of :class:`Layout`.

    Parameters
    ----------
    lengths
        KiB that were asked for, in this order.
    touch
        When they were written to.
    top_offset
        Bytes that the free address space ended above a PMD boundary.
    mappings, gap_kib, vmas, anon_kib, huge_kib, minor_faults
        See :class:`Layout`.
    faults_by_size
        Faults of the whole guest meanwhile that were answered with each size above the base page,
        by its KiB: exact or a few too many. Empty on kernels that do not count them (before 6.10).
    """

    lengths: tuple[int, ...]
    touch: Touch
    top_offset: int
    mappings: tuple[PlacedMapping, ...]
    gap_kib: int
    vmas: int
    anon_kib: int
    huge_kib: int
    minor_faults: int
    faults_by_size: dict[int, int]

    @property
    def layout(self) -> Layout:
        """The figures, to hold against those of the model and of the emulation."""
        return Layout(
            self.mappings,
            self.gap_kib,
            self.vmas,
            self.anon_kib,
            self.huge_kib,
            self.minor_faults,
        )


@records.EXACTLY
@dataclass(frozen=True, slots=True)
class RecordedFootprint(Footprint):
    """One process of OpenVINO on a real kernel.

    Parameters
    ----------
    advised
        Whether glibc advised huge pages for what it took from the kernel.
    """

    advised: bool


@records.EXACTLY
@dataclass(frozen=True, slots=True)
class KernelUnderSetting:
    """One kernel under one setting of THP.

    Parameters
    ----------
    release
        What it calls itself.
    origin
        Where it comes from.
    rule
        The rule that the probe found inside, by mapping; None where it found none.
    config_digest
        SHA-256 of its configuration.
    thp_mode
        ``enabled``.
    mthp
        Sizes in KiB below the PMD that were ``always``.
    layouts
        Mappings by ``mmap``, advised where ``thp_mode`` is ``madvise``.
    malloc
        The same lengths asked of glibc, which advises nothing; without mTHP only.
    openvino
        Inferences of changing shape, under some settings; empty where OpenVINO is not installed.
    """

    release: str
    origin: str
    rule: Rule | None
    config_digest: str
    thp_mode: str
    mthp: tuple[int, ...]
    layouts: tuple[RecordedLayout, ...] = ()
    malloc: tuple[RecordedLayout, ...] = ()
    openvino: tuple[RecordedFootprint, ...] = ()

    @property
    def sizes(self) -> PageSizes:
        """Page sizes that a fault could be answered with, as the model takes them (x86-64)."""
        plain = PageSizes()
        smaller = tuple(size * KIB for size in self.mthp)
        large = () if self.thp_mode == "never" else (plain.pmd,)
        return dataclasses.replace(plain, at_fault=large + smaller)


@records.EXACTLY
@dataclass(frozen=True, slots=True)
class KernelsRecord:
    """Everything that one run of the kernel laboratory found.

    Parameters
    ----------
    date
        Day of the run, in UTC.
    command
        What makes it anew.
    accelerator
        What ran the guests: ``kvm``, or ``tcg`` for QEMU's emulation.
    openvino
        Version of OpenVINO, None where it was not installed.
    change
        The lines in which the two built kernels differ.
    kernels
        Every kernel under every setting.
    """

    date: str
    command: str
    accelerator: Accelerator
    openvino: str | None
    change: Change
    kernels: tuple[KernelUnderSetting, ...]


def read(path: Path = RECORD) -> KernelsRecord | NotObservable:
    """Return what the last run recorded; raises as :func:`records.read` does."""
    found = records.read(path, KernelsRecord)
    if isinstance(found, NotObservable):
        return NotObservable(f"{found.reason}; `{COMMAND}` makes it")
    return found


@dataclass(frozen=True, slots=True)
class Collector:
    """Puts together what a guest tells line by line.

    Parameters
    ----------
    kernel
        What runs in the guest.
    """

    kernel: Kernel
    _about: dict[str, Any] = field(default_factory=dict)
    _settings: list[dict[str, Any]] = field(default_factory=list)

    def add(self, told: dict[str, Any]) -> None:
        """Take one result.

        Raises
        ------
        ProbeError
            If the guest says that it could not measure something.
        """
        match told:
            case {"about": "kernel", **found}:
                self._about.update(
                    release=found["release"],
                    rule=found["rule"],
                    origin=self.kernel.origin,
                    config_digest=self.kernel.config_digest,
                )
            case {"about": "setting", **found}:
                self._settings.append({**self._about, **found})
            case {"reason": reason, "lengths": lengths}:
                raise ProbeError(
                    f"A guest with {self.kernel.origin} was asked for mappings of {lengths} KiB, "
                    f"but could not measure them, because {reason}."
                )
            case {"about": results, **found}:
                self._settings[-1].setdefault(results, []).append(found)

    def finished(self) -> tuple[KernelUnderSetting, ...]:
        """Return what was told, one entry a setting."""
        return TypeAdapter(tuple[KernelUnderSetting, ...]).validate_python(self._settings)
