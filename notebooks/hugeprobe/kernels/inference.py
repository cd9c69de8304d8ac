"""One process of OpenVINO under the kernel that runs it: what its memory comes to, in counts.

``python -m hugeprobe.kernels.inference MODEL`` compiles the model, infers with every shape of the
smallest workload, and prints one JSON object about itself. Times are left out: a guest is usually
emulated.
"""

from __future__ import annotations

import dataclasses
import itertools
import json
import resource
import sys
from dataclasses import dataclass
from typing import Final

from hugeprobe import smaps, workloads
from hugeprobe.loaders import LOADERS
from hugeprobe.runtimes import Request
from hugeprobe.smaps import Kind

WORKLOAD: Final = "bert-tiny"
_HEAPS: Final = (Kind.HEAP, Kind.ANONYMOUS)
_FARTHEST: Final = 4 << 20


@dataclass(frozen=True, slots=True)
class Footprint:
    """What a process of OpenVINO holds after inferences of changing shape.

    Parameters
    ----------
    vmas, anon_vmas
        All mappings, and those of anonymous memory.
    holes, hole_kib
        Gaps below 4 MiB between an anonymous mapping and the mapping above it: their number, and
        their sum. Rules leave gaps of less than 2 MiB; what is larger separates areas.
    anon_kib, huge_kib
        Anonymous memory, and the part of it that is PMD-mapped.
    load_faults
        Minor faults from reading the model until it is compiled.
    inference_faults
        Minor faults of each inference.
    """

    vmas: int
    anon_vmas: int
    holes: int
    hole_kib: int
    anon_kib: int
    huge_kib: int
    load_faults: int
    inference_faults: tuple[int, ...]


def footprint(snapshot: smaps.Snapshot, load_faults: int, inference_faults: list[int]) -> Footprint:
    """Describe a process from its mappings and the faults that were counted."""
    everything = list(snapshot)
    anonymous = [mapping for mapping in everything if mapping.kind in _HEAPS]
    gaps = [
        above.start - below.end
        for below, above in itertools.pairwise(everything)
        if below.kind in _HEAPS and 0 < above.start - below.end < _FARTHEST
    ]
    return Footprint(
        vmas=len(everything),
        anon_vmas=len(anonymous),
        holes=len(gaps),
        hole_kib=sum(gaps) // 1024,
        anon_kib=sum(mapping.anonymous_kib or 0 for mapping in anonymous),
        huge_kib=sum(mapping.anon_huge_kib or 0 for mapping in anonymous),
        load_faults=load_faults,
        inference_faults=tuple(inference_faults),
    )


def _faults() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt


def inferred(model: str) -> tuple[smaps.Snapshot, Footprint]:
    """Run the workload; return this process's mappings while the model is there, and the sums."""
    work = workloads.find(WORKLOAD)
    inputs = {shape: work.inputs(shape, seed=0) for shape in work.shapes}
    request = Request(
        WORKLOAD, model, work.shapes, 0, 0, "openvino", threads=1, mmap=True, arena=True
    )
    counts = [_faults()]
    compiled = LOADERS["openvino"](request)
    counts.append(_faults())
    for shape in work.shapes:
        compiled(inputs[shape])
        counts.append(_faults())
    load, *inferences = (after - before for before, after in itertools.pairwise(counts))
    snapshot = smaps.snapshot()
    return snapshot, footprint(snapshot, load, inferences)


def main(model: str) -> None:
    """Run the workload and print its :class:`Footprint`."""
    _, found = inferred(model)
    print(json.dumps(dataclasses.asdict(found)))


if __name__ == "__main__":
    main(sys.argv[1])
