"""Recorded hosts side by side: what each gives, by rule and mode, and whether these explain it.

A host is known from a record of its own (:mod:`hugeprobe.hostrecord`), from the kernel laboratory,
whose guests count as one host for each setting, or because it builds this site. All of them mapped
the same lengths in the same orders.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from hugeprobe import hostrecord
from hugeprobe.errors import NotObservable
from hugeprobe.hostrecord import HostRecord, Mapped, Unseen
from hugeprobe.kernels import record as laboratory
from hugeprobe.sizes import KIB, PageSizes
from hugeprobe.sweep import MAPPINGS, TELLING_KIB, modelled

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from hugeprobe.kernels.record import KernelsRecord, KernelUnderSetting
    from hugeprobe.placement import Rule, Touch

FORBIDDEN: Final = "forbidden"
"""Mode of a host that was measured in a process that may have no huge pages."""


@dataclass(frozen=True, slots=True)
class Host:
    """One host under one setting.

    Parameters
    ----------
    name
        Its kernel.
    known_from
        Where it is known from, in words.
    rule
        The alignment rule that was found on it; None where no known rule fits.
    mode
        Its THP mode, or :data:`FORBIDDEN`; None without THP.
    sizes
        Page sizes, and those of a fault here.
    cases
        What it gave; or why that is not known. Not every guest was asked with every top.
    """

    name: str
    known_from: str
    rule: Rule | None
    mode: str | None
    sizes: PageSizes
    cases: tuple[Mapped, ...] | NotObservable

    @property
    def smaller_kib(self) -> tuple[int, ...]:
        """Huge page sizes below the PMD that a fault may be answered with."""
        return tuple(size // KIB for size in self.sizes.at_fault if size < self.sizes.pmd)

    @property
    def counted(self) -> tuple[Mapped, ...]:
        """The cases; none where they are not known."""
        return () if isinstance(self.cases, NotObservable) else self.cases

    @property
    def unexplained(self) -> tuple[Mapped, ...]:
        """Cases in which the model, given rule and sizes, does not say what the host gave."""
        return tuple(case for case in self.counted if case != self._expected(case))

    def _expected(self, case: Mapped) -> Mapped | None:
        if self.rule is None:
            return None
        top, kib, touch = case.top_offset_kib, case.kib, case.touch
        layout = modelled(kib, self.rule, touch, top_offset_kib=top, sizes=self.sizes)
        return Mapped.of(top, kib, touch, layout)


def of_record(record: HostRecord, known_from: str) -> Host:
    """Return the host that a record is of."""
    cases = record.cases
    return Host(
        name=f"Linux {record.host.kernel}",
        known_from=known_from,
        rule=record.rule,
        mode=FORBIDDEN if record.host.thp_forbidden else record.host.thp_mode,
        sizes=record.sizes,
        cases=cases.sentence if isinstance(cases, Unseen) else cases,
    )


def of_kernel(kernel: KernelUnderSetting, known_from: str) -> Host:
    """Return a guest of the kernel laboratory as a host."""
    found = (
        Mapped.of(layout.top_offset // KIB, layout.lengths[0], layout.touch, layout.layout)
        for layout in kernel.layouts
        if layout.lengths == layout.lengths[:1] * MAPPINGS and layout.lengths[0] in TELLING_KIB
    )
    return Host(
        name=f"Linux {kernel.release}",
        known_from=known_from,
        rule=kernel.rule,
        mode=kernel.thp_mode,
        sizes=kernel.sizes,
        cases=tuple(found),
    )


def known(
    here: HostRecord | None = None,
    records: Sequence[HostRecord] | None = None,
    guests: KernelsRecord | NotObservable | None = None,
) -> tuple[Host, ...]:
    """Return every host that there is something to say of.

    Parameters
    ----------
    here
        This host.
    records, guests
        The recorded ones; those of the guide if not given.
    """
    records = hostrecord.read_all() if records is None else records
    guests = laboratory.read() if guests is None else guests
    found = [of_record(here, "this build")] if here else []
    found += [of_record(each, hostrecord.short_name(each)) for each in records]
    if not isinstance(guests, NotObservable):
        source = f"kernel laboratory, {guests.date}"
        found += [of_kernel(kernel, source) for kernel in guests.kernels]
    return tuple(found)


@dataclass(frozen=True, slots=True)
class Alike:
    """Hosts of one rule and one choice of page sizes that gave the same in every case.

    Parameters
    ----------
    hosts
        At least one.
    cases
        What each of them gave, by length and touch order.
    """

    hosts: tuple[Host, ...]
    cases: Mapping[tuple[int, Touch], Mapped]

    @property
    def rule(self) -> Rule | None:
        """Their rule."""
        return self.hosts[0].rule

    @property
    def modes(self) -> tuple[str, ...]:
        """Their modes, each once."""
        return tuple(sorted({host.mode or "not built in" for host in self.hosts}))


def alike(hosts: Iterable[Host], top_offset_kib: int) -> tuple[Alike, ...]:
    """Put together hosts with one rule, one choice of page sizes and one outcome.

    Parameters
    ----------
    hosts
        Of them, those that were asked with this top.
    top_offset_kib
        Where the free address space ended above a PMD boundary.
    """
    groups: dict[object, list[Host]] = {}
    for host in hosts:
        if cases := _below(host, top_offset_kib):
            key = host.rule, host.smaller_kib, frozenset(cases.items())
            groups.setdefault(key, []).append(host)
    return tuple(Alike(tuple(group), _below(group[0], top_offset_kib)) for group in groups.values())


def _below(host: Host, top_offset_kib: int) -> dict[tuple[int, Touch], Mapped]:
    return {
        (case.kib, case.touch): case
        for case in host.counted
        if case.top_offset_kib == top_offset_kib
    }
