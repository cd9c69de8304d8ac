"""What can be done, by who can do it: symptom, check, action, what it costs and does not help.

What each brings is not here: that is measured, see ``hugeprobe.figures.effects``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from hugeprobe.tuning.chart import Course

if TYPE_CHECKING:
    from collections.abc import Sequence


@dataclass(frozen=True, slots=True)
class Action:
    """One row of a decision table.

    Parameters
    ----------
    key
        Short name, by which its effect is found.
    outcome
        The outcome of the chart that it belongs to, which says who can do it.
    symptom
        What one sees, as a clause; names of reasons are those of ``hugeprobe doctor``.
    check
        A command, or a file, that tells whether it is so.
    action
        What to do; files are those below ``/sys/kernel/mm/transparent_hugepage``.
    cost
        What that costs.
    limit
        What it does not help.
    """

    key: str
    outcome: Course
    symptom: str
    check: str
    action: str
    cost: str
    limit: str


ACTIONS: Final = (
    Action(
        "nothing",
        Course.START,
        "slow once warm, and a request at a shape seen before has no faults",
        "`hugeprobe bench` with your model",
        "leave it",
        "none",
        "large tables, and weights that are read once for each answer: try `keep` there",
    ),
    Action(
        "keep",
        Course.START,
        "starts and first requests fault; `unadvised` leads",
        "`hugeprobe doctor PID`",
        "`hugeprobe run --profile keep -- COMMAND`",
        "a restart; what is freed stays in the process; loading may take longer",
        "inference that is warm and computes; blocks that another allocator gives",
    ),
    Action(
        "cut",
        Course.START,
        "the same, or `cut` leads: OpenVINO binds its weights; one memory node",
        "`hugeprobe host`, `hugeprobe doctor PID`",
        "`hugeprobe run --profile whole -- COMMAND`, which also refuses `mbind`",
        "the same; and `sudo` does not work in the command",
        "hosts with several memory nodes, where binding has its use",
    ),
    Action(
        "advise",
        Course.START,
        "starts and first requests fault, but freed memory has to go back to the host",
        "resident memory after a peak, `hugeprobe maps PID`",
        "`hugeprobe run --profile advise -- COMMAND`",
        "a restart; up to 2 MiB a block",
        "blocks below 2 MiB, and the first range of every block of glibc",
    ),
    Action(
        "collapse",
        Course.START,
        "`unadvised` or `waiting` leads, and no restart is possible; or the mode is `never`",
        "`hugeprobe collapse PID --dry-run`",
        "`hugeprobe collapse PID`",
        "each page is copied once; to another process it takes CAP_SYS_NICE",
        "faults that were taken already, and memory that comes later",
    ),
    Action(
        "arena",
        Course.START,
        "faults at every request, with ONNX Runtime",
        "`enable_cpu_mem_arena` is off",
        "switch it on; or keep it off under `hugeprobe run`",
        "memory stays resident between requests",
        "OpenVINO, which keeps its blocks",
    ),
    Action(
        "madvise",
        Course.OPERATOR,
        "`off` leads: the mode is `never`",
        "`hugeprobe host`",
        "`echo madvise > enabled`",
        "none for programs that do not ask",
        "programs that do not ask, which both runtimes are until they are started differently",
    ),
    Action(
        "mthp-64k",
        Course.OPERATOR,
        "`short` leads; or the programs can be neither changed nor started differently",
        "is there `hugepages-64kB/enabled`? Linux 6.8 has it",
        "`echo always > hugepages-64kB/enabled`",
        "for every program on the host: the first write to a range of 64 KiB takes all of it",
        "inference that is warm; and coverage does not show it: smaps counts 2 MiB pages only",
    ),
    Action(
        "mthp",
        Course.OPERATOR,
        "with 64 KiB there are still too many faults",
        "the minor faults that `hugeprobe run` reports",
        "the same for 128, 256, 512 and 1024 kB, too",
        "for every program on the host: up to 1 MiB at a first write",
        "inference that is warm",
    ),
    Action(
        "mthp-64k-advise",
        Course.OPERATOR,
        "the same as for 64 KiB, but programs that do not ask are to notice nothing",
        "the same",
        "`echo madvise > hugepages-64kB/enabled`, and start the service with `advise`",
        "a restart of what is to gain",
        "memory that glibc does not advise: what it takes in pieces below 2 MiB",
    ),
    Action(
        "always",
        Course.OPERATOR,
        "`unadvised` leads on a host of its own, and nothing can be started differently",
        "`hugeprobe host`",
        "`echo always > enabled`",
        "for every program on the host: up to 2 MiB at a first write",
        "blocks below 2 MiB; memory that returns and is faulted again",
    ),
    Action(
        "largest",
        Course.PROGRAM,
        "slow first request at each larger shape",
        "faults at growth, `hugeprobe bench`",
        "the largest shape once, before you serve",
        "one inference at the start, and its memory",
        "loading; shapes for which the runtime chooses other kernels, with blocks of their own",
    ),
    Action(
        "own",
        Course.PROGRAM,
        "`edge`, `misaligned` or `short` leads, in blocks of your own",
        "`hugeprobe doctor PID`",
        "blocks that start on 2 MiB, are rounded up and advised: the recipe in C",
        "up to 2 MiB a block",
        "what libraries allocate; a host whose mode is `never`",
    ),
    Action(
        "pool",
        Course.PROGRAM,
        "a new array for every result",
        "faults of a repeated request",
        "one piece of memory for each tensor: the recipe in Python",
        "the largest shape stays resident",
        "arrays that have to outlive the next request",
    ),
    Action(
        "hint",
        Course.PROGRAM,
        "`cut` leads: OpenVINO binds its weights to a memory node",
        "`hugeprobe doctor PID`",
        "`PERFORMANCE_HINT=THROUGHPUT`: not for this purpose",
        "another schedule: an inference has fewer processors",
        "a single stream of requests",
    ),
    Action(
        "mmap",
        Course.PROGRAM,
        "starts are slow, and `ENABLE_MMAP` is off",
        "properties given to `openvino.Core`",
        "`ENABLE_MMAP` on, as it comes",
        "none",
        "the first inference, which brings the pages then",
    ),
)


def by_outcome(outcome: Course) -> Sequence[Action]:
    """Return the actions of one table, in order."""
    return [action for action in ACTIONS if action.outcome is outcome]
