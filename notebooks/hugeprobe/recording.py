"""Look at this host and make a :class:`~hugeprobe.hostrecord.HostRecord` of what it gives."""

from __future__ import annotations

import tempfile
from datetime import datetime, timezone
from importlib import metadata
from itertools import product
from pathlib import Path

from hugeprobe import __version__, arrival, check, emulate, hostrecord, inference, probe, public
from hugeprobe.coverage import Backing
from hugeprobe.errors import NotObservable, ProbeError
from hugeprobe.host import host_facts
from hugeprobe.hostrecord import (
    ARMS,
    COMMAND,
    TOPS_KIB,
    Given,
    HostRecord,
    InferenceFaults,
    Mapped,
    Placed,
    PublicFacts,
    Touched,
    Unseen,
)
from hugeprobe.placement import Rule, Touch
from hugeprobe.sizes import KIB
from hugeprobe.sweep import MAPPINGS, TELLING_KIB
from hugeprobe.workloads import bert


def measure(*, infer: bool = True) -> HostRecord:
    """Look at this host; takes seconds, changes nothing, leaves nothing behind.

    Parameters
    ----------
    infer
        Whether to start OpenVINO, too, where it is installed.

    Raises
    ------
    NotLinuxError
        Where there is no ``/proc``.
    """
    facts = host_facts()
    rule, evidence = _rule()
    cases, caveat = _cases()
    record = HostRecord(
        date=datetime.now(timezone.utc).date().isoformat(),
        command=COMMAND,
        version=__version__,
        host=PublicFacts.of(facts),
        rule=rule,
        evidence=evidence,
        given=_given(),
        touched=_touched(),
        cases=cases,
        caveat=caveat,
        openvino=_openvino_version(),
        inference=_inference() if infer else Unseen("it was not asked for"),
    )
    return hostrecord.checked(record)


def _rule() -> tuple[Rule | None, tuple[Placed, ...] | Unseen]:
    try:
        found = probe.find_rule()
    except ProbeError as error:
        return None, Unseen.of(error)
    evidence = (
        Placed(each.length_kib, each.above_boundary_kib, each.hole_above_kib, each.fits)
        for each in found.evidence
    )
    return found.rule, tuple(evidence)


def _given() -> tuple[Given, ...] | Unseen:
    got = check.what_one_gets()
    if isinstance(got, NotObservable):
        return Unseen.of(got)
    return tuple(
        Given(name, each.resident.anon_kib, each.resident.huge_kib) for name, each in got.items()
    )


def _touched() -> tuple[Touched, ...] | Unseen:
    touched = []
    for way in arrival.WAYS:
        found = arrival.arrive(way)
        if isinstance(found, NotObservable):
            return Unseen.of(found)
        held = found.resident
        huge = Unseen.of(held) if isinstance(held, NotObservable) else held.huge_kib
        touched.append(Touched(way.name, found.minor_faults, huge))
    return tuple(touched)


def _cases() -> tuple[tuple[Mapped, ...] | Unseen, str | None]:
    cases, caveat = [], None
    for top, kib, touch in product(TOPS_KIB, TELLING_KIB, Touch):
        found = emulate.observe([kib * KIB] * MAPPINGS, touch, top_offset=top * KIB)
        if isinstance(found, NotObservable):
            return Unseen.of(found), None
        caveat = caveat or (found.caveat and public.reason(found.caveat))
        cases.append(Mapped.of(top, kib, touch, found.layout))
    return tuple(cases), caveat


def _openvino_version() -> str | None:
    try:
        return public.version(metadata.version(inference.OPENVINO.name))
    except metadata.PackageNotFoundError:
        return None


def _inference() -> tuple[InferenceFaults, ...] | Unseen:
    footprints = []
    with tempfile.TemporaryDirectory(prefix="hugeprobe-") as folder:
        for arm in ARMS:
            try:
                ran = inference.run(bert.TINY, inference.OPENVINO, arm, cache=Path(folder))
            except ProbeError as error:
                return Unseen.of(error)
            if isinstance(ran, NotObservable):
                return Unseen.of(ran)
            held = ran.phases[-1].memory.coverage
            footprints.append(
                InferenceFaults(
                    arm=arm.name,
                    load_faults=ran.minor_faults("load"),
                    first_faults=ran.minor_faults("first"),
                    repeat_faults=ran.minor_faults("repeat"),
                    anon_kib=held.anonymous_kib,
                    huge_kib=held.kib[Backing.HUGE],
                )
            )
    return tuple(footprints)
