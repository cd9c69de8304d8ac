"""The facts that nodes are compared by: one list for the terminal, the table, the differences."""

from __future__ import annotations

import re
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Final, TypeAlias

from hugeprobe.arrival import WAYS
from hugeprobe.host import Khugepaged, effective_sizes

if TYPE_CHECKING:
    from collections.abc import Callable

    from hugeprobe.survey.node import Answer, Count

Value: TypeAlias = "str | int | bool | None"


@dataclass(frozen=True, slots=True)
class Fact:
    """One property of a node.

    Parameters
    ----------
    column
        Its column in the table of answers.
    name
        What people call it.
    kind
        Type of its values; None stands for what a kernel does not have or does not tell.
    of
        Takes it from an answer.
    meaning
        What follows where it differs, in a sentence.
    """

    column: str
    name: str
    kind: type[str | int | bool]
    of: Callable[[Answer], Value]
    meaning: str


def _sizes(answer: Answer, *, advised: bool) -> str:
    return " ".join(map(str, effective_sizes(answer.facts, advised=advised))) or "none"


_TIMES: Final = "Times measured there cannot be compared with those of other nodes."
_SIZES: Final = "A first touch gets pages of other sizes there, so it takes more or fewer faults."
_KHUGEPAGED: Final = "Memory that got no huge page at a fault has another chance of one later."
_LIMITS: Final = "The same server may fail to map or to touch memory there, or on the other nodes."

_SETTINGS: Final = (
    Fact(
        "rule",
        "alignment rule",
        str,
        lambda answer: answer.rule and answer.rule.value,
        "The same program gets other addresses there, and so other coverage.",
    ),
    Fact(
        "thp_mode",
        "THP mode",
        str,
        lambda answer: answer.facts.thp_mode,
        "`always` gives huge pages to every process, `madvise` to those that ask, `never` to none.",
    ),
    Fact(
        "thp_forbidden",
        "THP forbidden to the worker",
        bool,
        lambda answer: answer.facts.thp_allowed_for_process is False,
        "What started the worker forbade huge pages (PR_SET_THP_DISABLE); a server started the "
        "same way has none.",
    ),
    Fact(
        "sizes_kib",
        "huge page sizes in KiB, memory as it is",
        str,
        lambda answer: _sizes(answer, advised=False),
        _SIZES,
    ),
    Fact(
        "advised_sizes_kib",
        "huge page sizes in KiB, advised memory",
        str,
        lambda answer: _sizes(answer, advised=True),
        _SIZES,
    ),
    Fact(
        "defrag",
        "defrag",
        str,
        lambda answer: answer.facts.defrag,
        "It decides whether a fault waits until the kernel has freed a huge page.",
    ),
    Fact(
        "shmem_enabled",
        "shmem_enabled",
        str,
        lambda answer: answer.facts.shmem_enabled,
        "It decides whether memory that processes share can be huge.",
    ),
    Fact(
        "use_zero_page",
        "use_zero_page",
        bool,
        lambda answer: answer.facts.use_zero_page,
        "Memory that is read before it is written is backed by another page until then.",
    ),
    Fact(
        "shrink_underused",
        "shrink_underused",
        bool,
        lambda answer: answer.facts.shrink_underused,
        "When memory is short, huge pages that are mostly zeros are split on one side only.",
    ),
    Fact(
        "base_kib",
        "base page in KiB",
        int,
        lambda answer: answer.facts.base_kib,
        "Every count of faults is another there.",
    ),
    Fact(
        "pmd_kib",
        "PMD size in KiB",
        int,
        lambda answer: answer.facts.pmd_kib,
        "Lengths and boundaries that suit the other nodes do not suit this one.",
    ),
    Fact(
        "unknown_settings",
        "settings unknown to hugeprobe",
        str,
        lambda answer: " ".join(answer.facts.unknown_settings),
        "The kernel there is newer, or not stock.",
    ),
)
_SURROUNDINGS: Final = (
    Fact(
        "kernel",
        "kernel release",
        str,
        lambda answer: answer.facts.kernel,
        "Counters and multi-size THP depend on it; for the alignment rule, believe the probe.",
    ),
    Fact(
        "kernel_suffix",
        "rest of the kernel release",
        str,
        lambda answer: answer.suffix_key,
        "The kernel is another build. The rest of its release is told as a key, because it may "
        "name who built it; `uname -r` shows it.",
    ),
    Fact(
        "architecture",
        "architecture",
        str,
        lambda answer: answer.facts.architecture,
        _TIMES,
    ),
    Fact("cpu", "processor", str, lambda answer: answer.facts.cpu.model, _TIMES),
    Fact("numa_nodes", "NUMA nodes", int, lambda answer: answer.facts.cpu.numa_nodes, _TIMES),
    Fact(
        "virtualisation",
        "virtualisation",
        str,
        lambda answer: answer.facts.virtualisation,
        "In a virtual machine, a translation that misses the TLB costs more.",
    ),
    Fact(
        "container",
        "container",
        str,
        lambda answer: answer.facts.container,
        "The worker sees the settings of the host, but has limits of its own.",
    ),
    Fact(
        "memory_limit_mib",
        "memory limit in MiB (control group)",
        int,
        lambda answer: answer.facts.memory.cgroup_limit_mib,
        _LIMITS,
    ),
    Fact(
        "max_map_count",
        "vm.max_map_count",
        int,
        lambda answer: answer.facts.max_map_count,
        _LIMITS,
    ),
    Fact(
        "overcommit_memory",
        "vm.overcommit_memory",
        int,
        lambda answer: answer.facts.overcommit_memory,
        _LIMITS,
    ),
    Fact(
        "glibc",
        "glibc",
        str,
        lambda answer: answer.facts.glibc,
        "`glibc.malloc.hugetlb` exists from 2.35 on; without it, malloc gives no advice.",
    ),
    Fact(
        "python",
        "Python",
        str,
        lambda answer: answer.facts.python,
        "Dask wants one version of Python on all nodes.",
    ),
)


def _khugepaged(setting: str) -> Fact:
    def of(answer: Answer) -> Value:
        value: Value = getattr(answer.facts.khugepaged, setting, None)
        return value

    kind = bool if setting == "defrag" else int
    return Fact(f"khugepaged_{setting}", f"khugepaged/{setting}", kind, of, _KHUGEPAGED)


def _counted(way: str, column: str, name: str, of: Callable[[Count], int], meaning: str) -> Fact:
    def find(answer: Answer) -> Value:
        counts = answer.counts if isinstance(answer.counts, tuple) else ()
        return next((of(count) for count in counts if count.way == way), None)

    return Fact(f"{column}_{re.sub(r'[, ]+', '_', way)}", f"{name}: {way}", int, find, meaning)


_COUNTS: Final = tuple(
    fact
    for way in WAYS
    for fact in (
        _counted(
            way.name,
            "huge_kib",
            "huge memory in KiB",
            lambda count: count.huge_kib,
            "The same steps give another share of huge memory: settings, or fragmented memory.",
        ),
        _counted(
            way.name,
            "faults",
            "minor faults",
            lambda count: count.minor_faults,
            "The same steps take more or fewer faults.",
        ),
    )
)

FACTS: Final = (
    *_SETTINGS,
    *(_khugepaged(field.name) for field in fields(Khugepaged)),
    *_SURROUNDINGS,
    *_COUNTS,
)
"""All of them, those that decide about huge pages first."""
