"""What the page "Shared memory" shows."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from hugeprobe.drawing import (
    ACCENT,
    BASE,
    HUGE,
    MarkdownTable,
    Picture,
    Sentence,
    bars,
    markdown_table,
)
from hugeprobe.errors import NotObservable
from hugeprobe.sharing import kinds, pagecache
from hugeprobe.sharing.handover import Copies, Passed
from hugeprobe.sharing.pair import Shared
from hugeprobe.sharing.weights import Fleet
from hugeprobe.sizes import KIB, format_kib

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from hugeprobe.host import HostFacts

_PARTS: Final = {"PMD-mapped": HUGE, "base pages": BASE, "hugetlbfs": ACCENT}
_NONE: Final = "-"


def _observed(found: Mapping[str, Shared | NotObservable]) -> dict[str, Shared]:
    return {name: each for name, each in found.items() if isinstance(each, Shared)}


def refused(found: Mapping[str, object]) -> Sentence:
    """Say which kinds the host refuses, and why."""
    reasons = [f"{name}: {each}" for name, each in found.items() if isinstance(each, NotObservable)]
    given = f"This host gave {len(found) - len(reasons)} of {len(found)}."
    return Sentence(" ".join([given, *(f"*{reason}*" for reason in reasons)]))


def second_picture(found: Mapping[str, Shared | NotObservable]) -> Picture | Sentence:
    """Draw on what pages the second process has the memory, by kind."""
    rows = {
        name: {
            "PMD-mapped": each.second.mapping.huge_kib / KIB,
            "base pages": each.second.base_kib / KIB,
            "hugetlbfs": each.second.hugetlb_kib / KIB,
        }
        for name, each in _observed(found).items()
    }
    if not rows:
        return refused(found)
    parts = {
        part: colour
        for part, colour in _PARTS.items()
        if part != "hugetlbfs" or any(row[part] for row in rows.values())
    }
    return bars(rows, parts, "MiB in the second process", "Shared memory by the pages that map it")


def faults_table(found: Mapping[str, Shared | NotObservable]) -> MarkdownTable:
    """Return the faults of both processes, and where the kernel places mappings."""
    rows = [
        [name, *([_NONE] * 4)]
        if isinstance(each, NotObservable)
        else [
            name,
            f"{each.first.minor_faults + each.first.major_faults:,}",
            f"{each.second.minor_faults + each.second.major_faults:,}",
            f"{_huge_share(each):.0%}",
            _NONE if each.aligned is None else f"{each.aligned} of {each.placed}",
        ]
        for name, each in found.items()
    ]
    columns = [
        "memory",
        "faults, first process",
        "faults, second",
        "huge in the second",
        "put on a boundary",
    ]
    return markdown_table(columns, rows, numeric=(1, 2, 3, 4))


def _huge_share(shared: Shared) -> float:
    view = shared.second
    huge = view.mapping.huge_kib + view.hugetlb_kib
    return huge / ((view.mapping.rss_kib or 0) + view.hugetlb_kib)


def fields_table(found: Mapping[str, Shared | NotObservable]) -> MarkdownTable:
    """Return what smaps says about the memory in the second process, in MiB.

    ``Pss`` is also that of the first process while there was no second.
    """
    rows = []
    for name, each in found.items():
        if isinstance(each, NotObservable):
            rows.append([name, *([_NONE] * 8)])
            continue
        mapping = each.second.mapping
        eligible = {None: _NONE, True: "1", False: "0"}[mapping.thp_eligible]
        sizes = (
            mapping.rss_kib,
            each.alone.mapping.pss_kib,
            mapping.pss_kib,
            mapping.anon_huge_kib,
            mapping.file_pmd_kib,
            each.second.hugetlb_kib,
        )
        rows.append([name, _mib(mapping.shmem_pmd_kib), eligible, *map(_mib, sizes)])
    columns = [
        "memory",
        "`ShmemPmdMapped`",
        "`THPeligible`",
        "`Rss`",
        "`Pss`, alone",
        "`Pss`, both",
        "`AnonHugePages`",
        "`FilePmdMapped`",
        "`*_Hugetlb`",
    ]
    return markdown_table(columns, rows, numeric=range(1, 9))


def _mib(kib: int | None) -> str:
    return _NONE if kib is None else f"{kib / KIB:,.0f}"


def settings_sentence(facts: HostFacts) -> Sentence:
    """Say what decides about shared memory on this host."""
    system = pagecache.file_system(kinds.POSIX_SHARED)
    if system is None or system.kind != "tmpfs":
        mounted = "`/dev/shm` is no tmpfs"
    else:
        mounted = f"`/dev/shm` is mounted with `huge={system.huge}`"
    switch = facts.shmem_enabled
    said = f"`shmem_enabled` is `{switch}`" if switch else "there is no `shmem_enabled`"
    return Sentence(f"On this host {said}, and {mounted}.")


def passing_table(found: Sequence[Passed | NotObservable]) -> MarkdownTable | Sentence:
    """Return what was copied in each way of passing tensors."""
    observed = [each for each in found if isinstance(each, Passed)]
    if not observed:
        return passing_sentence(found)
    rows = [
        [
            each.way.name,
            _NONE if isinstance(each.moved_bytes, NotObservable) else f"{each.moved_bytes:,}",
            *_copies(each.copies),
            f"{each.served.in_place} of {each.served.bound}" if each.way.shared else _NONE,
            f"{each.served.minor_faults:,}",
        ]
        for each in observed
    ]
    columns = ["way", "bytes moved", "input copied", "output copied", "in place", "faults"]
    return markdown_table(columns, rows, numeric=range(1, 6))


def _copies(copies: Copies | NotObservable) -> tuple[str, str]:
    if isinstance(copies, NotObservable):
        return _NONE, _NONE
    return _found(copies.inputs), _found(copies.outputs)


def _found(places: int) -> str:
    return "found" if places else "none"


def passing_sentence(found: Sequence[Passed | NotObservable]) -> Sentence:
    """Compare what was moved, and say what could not be observed."""
    observed = [each for each in found if isinstance(each, Passed)]
    parts = [_moved_words(observed)] if observed else []
    missing = [str(each) for each in found if isinstance(each, NotObservable)]
    for each in observed:
        missing += [str(x) for x in (each.moved_bytes, each.copies) if isinstance(x, NotObservable)]
    return Sentence(" ".join([*parts, *dict.fromkeys(missing)]))


def _moved_words(observed: Sequence[Passed]) -> str:
    size = format_kib(observed[0].tensor_bytes / KIB)
    agreeing = sum(each.agrees(observed[0]) for each in observed)
    return (
        f"Input and output of one inference are {size}; {agreeing} of {len(observed)} ways gave "
        "the same output."
    )


def servers_picture(found: Sequence[Fleet | NotObservable]) -> Picture | Sentence:
    """Draw the memory of one server and of all, and how much of it is the mapped weights file."""
    rows = {
        f"{each.supply.name}, {len(stage)} server{'s' * (len(stage) > 1)}": {
            "weights file, once": each.file_kib / KIB,
            "the servers' own": (total - each.file_kib) / KIB,
        }
        for each in found
        if isinstance(each, Fleet)
        for stage, total in zip(each.stages, each.total_kib, strict=True)
    }
    if not rows:
        return servers_sentence(found)
    colours = {"weights file, once": HUGE, "the servers' own": BASE}
    return bars(rows, colours, "MiB", "Memory of several servers of one model")


def servers_table(found: Sequence[Fleet | NotObservable]) -> MarkdownTable | Sentence:
    """Return what the last server holds while all of them run."""
    observed = [each for each in found if isinstance(each, Fleet)]
    if not observed:
        return servers_sentence(found)
    rows = []
    for each in observed:
        last = each.stages[-1][-1]
        rows.append(
            [
                each.supply.name,
                _mib(last.rss_kib),
                _mib(last.pss_kib),
                _mib(last.anonymous_kib),
                _mib(last.weights_kib),
                _mib(last.weights_huge_kib),
                f"{last.weights_vmas:,}",
                f"{each.load_faults[-1]:,}",
            ]
        )
    columns = [
        "weights",
        "`Rss`",
        "`Pss`",
        "anonymous",
        "weights file",
        "huge of it",
        "its VMAs",
        "load faults",
    ]
    return markdown_table(columns, rows, numeric=range(1, 8))


def servers_sentence(found: Sequence[Fleet | NotObservable]) -> Sentence:
    """Say what a further server costs, by how it gets its weights."""
    observed = [each for each in found if isinstance(each, Fleet)]
    missing = dict.fromkeys(str(each) for each in found if isinstance(each, NotObservable))
    costs = [f"{each.further_kib / KIB:,.0f} MiB ({each.supply.name})" for each in observed]
    parts = []
    if observed:
        size = format_kib(observed[0].weights_kib)
        parts = [f"With weights of {size}, a further server took {', '.join(costs)} on this host."]
    return Sentence(" ".join([*parts, *missing]))
