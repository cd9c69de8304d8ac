"""What is measured at the build for the tables of actions: counts of a real server and of blocks.

The server is the measured process of :mod:`hugeprobe.inference`, on OpenVINO, started in the ways
that need no root. Faults and coverage are counts, so one run of each is enough.
"""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from hugeprobe import allocators, arms, children, filling, host, inference, profiles
from hugeprobe.areas import Resident, resident, too_much, touch
from hugeprobe.coverage import Backing, Coverage
from hugeprobe.errors import NotObservable, ProbeError
from hugeprobe.kernels.inference import Footprint
from hugeprobe.linux import FILTERED_ARCHITECTURES
from hugeprobe.placement import Span, Touch
from hugeprobe.sizes import KIB, MIB
from hugeprobe.tensors import HugePool
from hugeprobe.workloads import WORKLOADS

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from hugeprobe.allocators import Allocation
    from hugeprobe.arms import Arm
    from hugeprobe.filling import Filling
    from hugeprobe.inference import Report
    from hugeprobe.profiles import Profile
    from hugeprobe.workloads import Workload

WAYS: Final = (arms.DEFAULT, arms.ADVISE, arms.KEEP, arms.COLLAPSE)
"""Ways to start the server that need no root."""
SIZES: Final = (1536 * KIB, 3 * MIB)
"""Bytes of the blocks: one shorter than a huge page, one longer and no multiple."""
COUNT: Final = 16


@dataclass(frozen=True, slots=True)
class Own:
    """Blocks that a program laid out itself: on a boundary, rounded up, advised, then written.

    Parameters
    ----------
    size, count
        Bytes of each, and how many.
    minor_faults
        Of writing all of them once.
    resident
        What they hold in memory.
    """

    size: int
    count: int
    minor_faults: int
    resident: Resident


@dataclass(frozen=True, slots=True)
class Blocks:
    """The same blocks from ``malloc`` and laid out by the program."""

    malloc: Allocation | NotObservable
    own: Own | NotObservable


@dataclass(frozen=True, slots=True)
class Started:
    """A process of OpenVINO that was started by ``hugeprobe run``.

    Parameters
    ----------
    footprint
        Its mappings and faults.
    held
        Its anonymous memory by what backs it.
    """

    footprint: Footprint
    held: Coverage


@dataclass(frozen=True, slots=True)
class Trials:
    """Everything that was measured here.

    Parameters
    ----------
    served
        The server by the name of the arm it was started under.
    largest_first
        Started as it is, with the largest shape first.
    bound, refused
        Started by ``hugeprobe run`` with the profile ``keep``, and with ``whole``, which refuses
        ``mbind``.
    blocks
        For each of :data:`SIZES`.
    new, pool
        Results written into new arrays, and into a pool.
    """

    served: Mapping[str, Report | NotObservable]
    largest_first: Report | NotObservable
    bound: Started | NotObservable
    refused: Started | NotObservable
    blocks: tuple[Blocks, ...]
    new: tuple[Filling, ...] | NotObservable
    pool: tuple[Filling, ...] | NotObservable


def trials(workload: Workload = WORKLOADS["bert-mini"], ways: Sequence[Arm] = WAYS) -> Trials:
    """Measure everything, one process after another.

    Parameters
    ----------
    workload
        What the server serves.
    ways
        How it is started.
    """
    with tempfile.TemporaryDirectory(prefix="hugeprobe-") as folder:
        cache = Path(folder)
        served = {
            arm.name: inference.run(workload, arm=arm, cache=cache, repeats=1, steady=1)
            for arm in ways
        }
        shapes = sorted(dict.fromkeys(workload.shapes), key=math.prod, reverse=True)
        largest_first = inference.run(workload, cache=cache, shapes=shapes, repeats=1)
        bound, refused = (
            _run(workload, profile, cache) for profile in (profiles.KEEP, profiles.WHOLE)
        )
    return Trials(
        served,
        largest_first,
        bound,
        refused,
        tuple(Blocks(_malloc(size), own_blocks(size)) for size in SIZES),
        filling.filled("new"),
        filling.filled("pool"),
    )


def _run(workload: Workload, profile: Profile, cache: Path) -> Started | NotObservable:
    """Start a process of OpenVINO as a reader would, by ``hugeprobe run``."""
    facts = host.host_facts()
    if missing := inference.missing(inference.OPENVINO) or inference.too_little(workload):
        return missing
    if obstacle := profiles.obstacle(profile, facts.glibc):
        return obstacle
    if profile.mbind_refused and facts.architecture not in FILTERED_ARCHITECTURES:
        return NotObservable(f"how to refuse mbind on {facts.architecture} is not known")
    model = workload.model_path(cache)
    if isinstance(model, NotObservable):
        return model
    run = ("run", "--profile", profile.name, "--json", os.devnull, "--")
    process = ("-m", "hugeprobe.tuning.served", str(model))
    done = subprocess.run(
        [sys.executable, "-m", "hugeprobe", *run, sys.executable, *process],
        env=children.environment({}),
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        last = done.stderr.strip().splitlines()[-1:] or ["nothing"]
        raise ProbeError(
            f"A process of OpenVINO was started under the profile {profile.name}, but ended with "
            f"status {done.returncode}. The last it said was: {last[0]}"
        )
    told, held = map(json.loads, done.stdout.splitlines())
    footprint = Footprint(**{**told, "inference_faults": tuple(told["inference_faults"])})
    return Started(footprint, Coverage({Backing(name): kib for name, kib in held.items()}))


def _malloc(size: int) -> Allocation | NotObservable:
    return allocators.allocate(allocators.GLIBC, size, Touch.EACH, count=COUNT)


def own_blocks(size: int, count: int = COUNT) -> Own | NotObservable:
    """Lay out and write blocks in this process, each as soon as it is there."""
    if refusal := too_much(count * max(size, 2 * MIB)):
        return refusal
    faults, kib, huge_kib = 0, 0, 0
    with HugePool(reserve=size) as pool:
        for number in range(count):
            array = pool.array(f"block {number}", (size,), "uint8")
            span = Span(array.ctypes.data, array.ctypes.data + size)
            faults += touch(span)
            held = resident(span)
            kib, huge_kib = kib + held.anon_kib, huge_kib + held.huge_kib
    return Own(size, count, faults, Resident(kib, huge_kib))
