"""Several servers of one model: what each further one costs, by how it gets its weights.

Mapped weights are in memory once, in the page cache; weights that are read are in memory once for
each server. What a runtime computes from the weights, and where it computes, is its own either way.
"""

from __future__ import annotations

import tempfile
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal

from hugeprobe import children, inference, linux, smaps
from hugeprobe.errors import NotObservable, NotPermittedError
from hugeprobe.inference import OPENVINO_IR, OPENVINO_IR_READ, Runtime
from hugeprobe.runtimes import Request, Step
from hugeprobe.sharing import pagecache
from hugeprobe.workloads import bert

if TYPE_CHECKING:
    from collections.abc import Sequence

    from hugeprobe.workloads import Workload

_SERVERS: Final = 3
_TIMEOUT: Final = 120.0

Beforehand = Literal["as it is", "cold", "brought in huge"]


@dataclass(frozen=True, slots=True)
class Supply:
    """How servers get their weights.

    Parameters
    ----------
    name
        What tables call it.
    runtime
        OpenVINO, with weights mapped or read.
    beforehand
        What is done about the weights file before the first server starts: nothing, put out of
        memory, or brought in by :func:`hugeprobe.sharing.pagecache.bring_in`.
    """

    name: str
    runtime: Runtime
    beforehand: Beforehand = "as it is"


SUPPLIES: Final = (
    Supply("read", OPENVINO_IR_READ),
    Supply("mapped, from the disk", OPENVINO_IR, "cold"),
    Supply("mapped, brought in huge", OPENVINO_IR, "brought in huge"),
)


@dataclass(frozen=True, slots=True)
class Server:
    """The memory of one server, in KiB, while all of them run.

    Parameters
    ----------
    rss_kib, pss_kib, anonymous_kib
        All of its mappings.
    weights_kib, weights_pss_kib, weights_huge_kib
        The mapped weights file: resident, the same divided by the servers that share it, and what
        PMDs map of it.
    weights_vmas
        Mappings of that file.
    """

    rss_kib: int
    pss_kib: int
    anonymous_kib: int
    weights_kib: int
    weights_pss_kib: int
    weights_huge_kib: int
    weights_vmas: int


@dataclass(frozen=True, slots=True)
class Fleet:
    """Servers of one model that were started one after the other.

    Parameters
    ----------
    supply
        How they got their weights.
    weights_kib
        Size of the weights file.
    load_faults
        Minor faults of loading, by server.
    stages
        All servers when there was one, when there were two, and so on.
    """

    supply: Supply
    weights_kib: int
    load_faults: tuple[int, ...]
    stages: tuple[tuple[Server, ...], ...]

    @property
    def file_kib(self) -> int:
        """What the weights file takes in memory: all of it if it is mapped, else nothing."""
        return self.weights_kib if self.supply.runtime.mmap else 0

    @property
    def total_kib(self) -> tuple[int, ...]:
        """Memory that all servers take, when there was one, when there were two, and so on.

        It is the sum of their Pss. A mapped weights file counts once and whole: it stays in memory
        also where a server has let go of a part of it.
        """
        return tuple(
            self.file_kib + sum(server.pss_kib - server.weights_pss_kib for server in stage)
            for stage in self.stages
        )

    @property
    def further_kib(self) -> float:
        """Memory that a further server takes, on average."""
        total = self.total_kib
        return (total[-1] - total[0]) / (len(total) - 1)


def serve_all(
    supplies: Sequence[Supply] = SUPPLIES,
    workload: Workload = bert.MINI,
    *,
    servers: int = _SERVERS,
    cache: Path | None = None,
) -> list[Fleet | NotObservable]:
    """Start servers under each supply, and end them.

    Parameters
    ----------
    supplies
        What to try.
    workload
        The model.
    servers
        How many there are in the end.
    cache
        Folder for the model; by default a temporary one that is removed at the end.
    """
    with tempfile.TemporaryDirectory(prefix="hugeprobe-") as temporary:
        folder = cache or Path(temporary)
        return [serve(supply, workload, servers=servers, cache=folder) for supply in supplies]


def serve(
    supply: Supply, workload: Workload = bert.MINI, *, servers: int = _SERVERS, cache: Path
) -> Fleet | NotObservable:
    """Start servers under one supply, let each infer once, look at all after each, and end them."""
    linux.require_linux()
    refusal = inference.missing(supply.runtime) or inference.too_little(workload, servers)
    if refusal:
        return refusal
    model = inference.model_file(workload, supply.runtime, cache, _TIMEOUT)
    if isinstance(model, NotObservable):
        return model
    weights = model.with_suffix(".bin").resolve()
    _prepare(weights, supply.beforehand)
    request = Request(
        workload.spec(model),
        str(model),
        workload.shapes[:1],
        seed=0,
        repeats=0,
        runtime=supply.runtime.name,
        threads=inference.usable_threads(),
        mmap=supply.runtime.mmap,
        arena=True,
    )
    try:
        faults, stages = _run(request, weights, servers)
    except (smaps.NoSmapsError, NotPermittedError):
        return NotObservable("this system does not show the memory map of a process to its parent")
    return Fleet(supply, weights.stat().st_size // 1024, faults, stages)


def _prepare(weights: Path, beforehand: Beforehand) -> None:
    if beforehand == "brought in huge":
        pagecache.bring_in(weights)
    elif beforehand == "cold":
        with weights.open("rb") as file:
            pagecache.put_out(file.fileno())


def _run(
    request: Request, weights: Path, servers: int
) -> tuple[tuple[int, ...], tuple[tuple[Server, ...], ...]]:
    pids: list[int] = []
    faults, stages = [], []
    with ExitStack() as stack:
        for _ in range(servers):
            child = stack.enter_context(children.talking(inference.MEASURED, [], {}, _TIMEOUT))
            steps = child.steps(request.encode())
            stack.callback(list, steps)  # lets it go on to its end
            _, load, _ = (Step.decode(next(steps)) for _ in ("start", "load", "first"))
            faults.append(load.minor_faults)
            pids.append(child.pid)
            stages.append(tuple(_look(pid, str(weights)) for pid in pids))
    return tuple(faults), tuple(stages)


def _look(pid: int, weights: str) -> Server:
    mappings = list(smaps.snapshot(pid))
    mapped = [mapping for mapping in mappings if mapping.name == weights]
    return Server(
        rss_kib=sum(mapping.rss_kib or 0 for mapping in mappings),
        pss_kib=sum(mapping.pss_kib or 0 for mapping in mappings),
        anonymous_kib=sum(mapping.anonymous_kib or 0 for mapping in mappings),
        weights_kib=sum(mapping.rss_kib or 0 for mapping in mapped),
        weights_pss_kib=sum(mapping.pss_kib or 0 for mapping in mapped),
        weights_huge_kib=sum(mapping.huge_kib for mapping in mapped),
        weights_vmas=len(mapped),
    )
