"""Everything that the verdicts are computed from, gathered once."""

from __future__ import annotations

import platform
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from hugeprobe import probe, sweep
from hugeprobe.bench import record as bench_record
from hugeprobe.claims import coalesce, mapcount, streams
from hugeprobe.emulate import observe
from hugeprobe.kernels import record as kernels_record
from hugeprobe.placement import Rule, Touch
from hugeprobe.sharing import kinds, pair
from hugeprobe.sizes import KIB

if TYPE_CHECKING:
    from hugeprobe.bench.record import BenchRecord
    from hugeprobe.claims.coalesce import Coalesced
    from hugeprobe.claims.mapcount import MapCount
    from hugeprobe.claims.streams import Streams
    from hugeprobe.emulate import Measurement
    from hugeprobe.errors import NotObservable
    from hugeprobe.kernels.record import KernelsRecord
    from hugeprobe.probe import RuleFinding
    from hugeprobe.sharing.pair import Shared

SMALL_KIB: Final = (1536, 1844)
"""1.5 and 1.8 MiB, in whole pages: the sizes that the issue names."""
_SHARED: Final = ("memfd", "memfd, collapsed", "tmpfs huge=always")


@dataclass(frozen=True, slots=True)
class Gathered:
    """What is known when a claim is judged.

    Parameters
    ----------
    release
        Of the running kernel.
    rule
        The rule that the probe found here, by mapping.
    cases
        Equal mappings under every rule and in both touch orders, measured here.
    small
        Buffers of :data:`SMALL_KIB` that the running kernel itself placed, by length.
    coalesced
        What a collapse made of mappings, by the rule that placed them.
    mapcount
        How many mappings fit under ``vm.max_map_count`` here.
    streams
        What equal low address bits cost here.
    shared
        The same shared memory in some ways of having it, by their names.
    kernels
        The recorded kernels.
    bench
        The newest recorded benchmark.
    """

    release: str
    rule: RuleFinding
    cases: tuple[sweep.Case, ...]
    small: dict[int, Measurement | NotObservable]
    coalesced: dict[Rule, Coalesced | NotObservable]
    mapcount: MapCount | NotObservable
    streams: Streams | NotObservable
    shared: dict[str, Shared | NotObservable]
    kernels: KernelsRecord | NotObservable
    bench: BenchRecord | NotObservable


def gather() -> Gathered:
    """Measure and read everything; takes some seconds and leaves nothing behind."""
    return Gathered(
        release=platform.release(),
        rule=probe.find_rule(),
        cases=tuple(sweep.sweep(sweep.TELLING_KIB, top_offset_kib=0)),
        small={kib: observe([kib * KIB] * sweep.MAPPINGS, Touch.EACH) for kib in SMALL_KIB},
        coalesced={rule: coalesce.coalesce(rule) for rule in (Rule.FORCED, Rule.MULTIPLES)},
        mapcount=mapcount.map_until_refused(),
        streams=streams.measure_streams(),
        shared=pair.share_all(kind for kind in kinds.SHARED if kind.name in _SHARED),
        kernels=kernels_record.read(),
        bench=bench_record.newest(),
    )
