"""Whose memory it is, as far as the memory map of a process tells.

A map names files, the first heap and what a program named itself; it says nothing of tensors. What
can be concluded from the form of a mapping is concluded here and marked so, and the rest is called
what it is: not to be told apart.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Final

from hugeprobe.enums import Words
from hugeprobe.sizes import KIB, MIB
from hugeprobe.smaps import Kind

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from collections.abc import Mapping as ReadOnlyDict

    from hugeprobe.smaps import Mapping

_ARENA: Final = 64 * MIB
"""Length and alignment of a further heap of glibc (``HEAP_MAX_SIZE`` in ``malloc/arena.c``)."""
_GUARD: Final = 64 * KIB
"""Inaccessible memory of at most this length below a mapping guards a stack."""

_MODEL: Final = re.compile(r".+\.(bin|gguf|onnx|onnx_data|ort|pt|safetensors|xml)( \(deleted\))?")
_PROGRAMS: Final = {
    "OpenVINO": re.compile(r"libopenvino\.so.*"),
    "ONNX Runtime": re.compile(r"(lib)?onnxruntime.*\.so.*"),
    "PyTorch": re.compile(r"libtorch_cpu\.so"),
    "NumPy": re.compile(r"_multiarray_umath\..*"),
    "jemalloc": re.compile(r"libjemalloc\.so.*"),
    "tcmalloc": re.compile(r"libtcmalloc.*\.so.*"),
    "mimalloc": re.compile(r"libmimalloc.*\.so.*"),
    "musl": re.compile(r"ld-musl-.*"),
}
ALLOCATORS: Final = ("jemalloc", "tcmalloc", "mimalloc", "musl")
"""Programs of :func:`programs` in whose place glibc does not allocate."""


class Evidence(Words):
    """By what an owner is known."""

    NAME = "name"
    POLICY = "memory policy"
    ADVICE = "advice"
    FORM = "form"
    NONE = "nothing"


class Owner(Words):
    """What a mapping is used for."""

    HEAP = "malloc: first heap"
    """The ``brk`` heap."""
    ARENA = "malloc: thread heaps"
    """Further heaps of glibc, 64 MiB of address space each."""
    STACK = "stacks"
    BOUND = "NUMA-bound blocks"
    """Memory with a NUMA policy that most mappings of the process do not have."""
    ADVISED = "advised blocks"
    """``MADV_HUGEPAGE``: by NumPy, by glibc's tunable, or by the program; not told apart."""
    BLOCKS = "other blocks"
    """Tensors, weights, arrays, arenas of runtimes, large blocks of malloc; not told apart."""
    MODEL = "model files"
    FILE = "libraries, files"
    SHARED = "shared memory"
    KERNEL = "the kernel's own"

    @property
    def known_by(self) -> Evidence:
        """By what it is known; the memory of an owner known by nothing cannot be told apart."""
        return _EVIDENCE.get(self, Evidence.NAME)


_EVIDENCE: Final = {
    Owner.ARENA: Evidence.FORM,
    Owner.STACK: Evidence.FORM,
    Owner.BOUND: Evidence.POLICY,
    Owner.ADVISED: Evidence.ADVICE,
    Owner.BLOCKS: Evidence.NONE,
}
_BY_KIND: Final = {
    Kind.HEAP: Owner.HEAP,
    Kind.STACK: Owner.STACK,
    Kind.SHARED: Owner.SHARED,
    Kind.SPECIAL: Owner.KERNEL,
}


@dataclass(frozen=True, slots=True)
class Owned:
    """Memory of one owner.

    Parameters
    ----------
    owner
        What uses it.
    resident_kib, anon_kib, huge_kib
        Resident memory, the anonymous part of it, and what of the resident memory PMDs map.
    """

    owner: Owner
    resident_kib: int
    anon_kib: int
    huge_kib: int


def programs(mappings: Iterable[Mapping]) -> tuple[str, ...]:
    """Return which runtimes and allocators are mapped, by the names of their libraries' files."""
    names = {PurePosixPath(mapping.name).name for mapping in mappings if mapping.kind is Kind.FILE}
    return tuple(program for program, form in _PROGRAMS.items() if any(map(form.fullmatch, names)))


def owners(mappings: Iterable[Mapping], policies: ReadOnlyDict[int, str]) -> Iterator[Owner]:
    """Say of each mapping what it is used for.

    Parameters
    ----------
    mappings
        All mappings of a process, in order of address.
    policies
        Memory policy by first address; empty where it is not known.
    """
    usual = Counter(policies.values()).most_common(1)
    unbound = {"", *(policy for policy, _ in usual)}
    before: Mapping | None = None
    arena_end = 0
    for mapping in mappings:
        reserved = mapping.kind is Kind.ANONYMOUS and "nr" in mapping.vm_flags
        if reserved and mapping.start % _ARENA == 0:
            arena_end = mapping.start + _ARENA
        bound = policies.get(mapping.start, "") not in unbound
        if bound and mapping.kind in (Kind.ANONYMOUS, Kind.HEAP):
            yield Owner.BOUND
        elif reserved and mapping.start < arena_end:
            yield Owner.ARENA
        else:
            yield _owner(mapping, before)
        before = mapping


def _owner(mapping: Mapping, before: Mapping | None) -> Owner:
    if mapping.kind in _BY_KIND:
        return _BY_KIND[mapping.kind]
    if mapping.kind is Kind.FILE:
        model = _MODEL.fullmatch(mapping.name)
        return Owner.MODEL if model else Owner.FILE
    if before and before.end == mapping.start and _is_guard(before):
        return Owner.STACK
    return Owner.ADVISED if "hg" in mapping.vm_flags else Owner.BLOCKS


def _is_guard(mapping: Mapping) -> bool:
    return (
        mapping.kind is Kind.ANONYMOUS
        and mapping.permissions.startswith("---")
        and mapping.end - mapping.start <= _GUARD
    )


def owned(rows: Iterable[tuple[Mapping, Owner]]) -> tuple[Owned, ...]:
    """Return the sums of each owner of which there is resident memory, largest first."""
    of_owner: defaultdict[Owner, list[Mapping]] = defaultdict(list)
    for mapping, owner in rows:
        if mapping.rss_kib:
            of_owner[owner].append(mapping)
    sums = (
        Owned(
            owner,
            sum(mapping.rss_kib or 0 for mapping in mappings),
            sum(mapping.anonymous_kib or 0 for mapping in mappings),
            sum(mapping.huge_kib for mapping in mappings),
        )
        for owner, mappings in of_owner.items()
    )
    return tuple(sorted(sums, key=lambda each: each.resident_kib, reverse=True))
