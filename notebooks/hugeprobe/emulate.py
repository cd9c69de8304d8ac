"""A placement rule with real mappings: placed, touched, measured in smaps and given back.

:func:`emulate` places mappings where a rule would, inside address space it has reserved, so every
rule can be tried on every kernel. :func:`observe` lets the running kernel place them. Both touch
and measure the same way, and both can be held against :func:`hugeprobe.placement.model`.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final, Protocol

from hugeprobe import areas, smaps
from hugeprobe.areas import reserved, too_much
from hugeprobe.errors import NotObservable
from hugeprobe.freespace import known_top
from hugeprobe.host import HostFacts, effective_sizes, host_facts
from hugeprobe.linux import Advice, advise, map_anonymous, thp_disabled, unmap
from hugeprobe.placement import (
    Action,
    Layout,
    Rule,
    Span,
    Touch,
    check_top_offset,
    describe,
    model,
    place,
    steps,
)
from hugeprobe.sizes import KIB, PageSizes, format_kib, page_sizes

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

_SMAPS_BYTES_A_VMA: Final = 2 * KIB
_TRIES: Final = 3


@dataclass(frozen=True, slots=True)
class Measurement:
    """A layout measured in this process.

    Parameters
    ----------
    layout
        What was measured.
    caveat
        The rest of a sentence "measured, but …" where this host does not answer faults with pages
        of the PMD size alone, as the model assumes; None where it does.
    """

    layout: Layout
    caveat: str | None


class _Mapper(Protocol):
    """Maps the next length, in bytes, and returns where."""

    def __call__(self, length: int, /) -> Span: ...


def emulate(
    lengths: Sequence[int],
    rule: Rule,
    touch: Touch,
    *,
    top_offset: int = 0,
    sizes: PageSizes | None = None,
    unadvised: bool = False,
) -> Measurement | NotObservable:
    """Measure mappings of ``lengths`` bytes, placed as a kernel that follows ``rule`` would.

    Parameters are those of :func:`placement.model`. Where the mode is ``madvise``, mappings are
    advised unless they are to be ``unadvised``. At most half of the memory that this process may
    use is touched.
    """
    sizes = sizes or page_sizes()
    check_top_offset(top_offset, sizes)
    depth = -min(span.start for span in place(lengths, rule, top_offset, sizes))
    expected = model(lengths, rule, touch, top_offset=top_offset, sizes=sizes)

    def once() -> Measurement | NotObservable:
        with reserved(depth + 3 * sizes.pmd) as reserve:
            boundary = (reserve.end - sizes.pmd) // sizes.pmd * sizes.pmd
            top = boundary - sizes.pmd + top_offset
            spans = iter(place(lengths, rule, top, sizes))

            def next_as_ruled(_: int) -> Span:
                span = next(spans)
                map_anonymous(span.length, at=span.start)
                return span

            return _measure(lengths, next_as_ruled, touch, top, sizes, unadvised=unadvised)

    measured = _until_undisturbed(once, lengths, sizes)
    if isinstance(measured, Measurement) and measured.caveat is None:
        missed = expected.huge_kib - measured.layout.huge_kib
        if missed > 0:
            caveat = f"the kernel had no free huge pages for {format_kib(missed)} of it"
            return Measurement(measured.layout, caveat)
    return measured


def observe(
    lengths: Sequence[int],
    touch: Touch,
    *,
    top_offset: int = 0,
    sizes: PageSizes | None = None,
    unadvised: bool = False,
) -> Measurement | NotObservable:
    """Measure mappings of ``lengths`` bytes placed by the running kernel itself.

    Parameters are those of :func:`emulate`.

    Call it in a process with one thread: what another thread maps meanwhile may land in between,
    which is noticed, tried again, and in the end not reported as a measurement.
    """
    sizes = sizes or page_sizes()

    def once() -> Measurement | NotObservable:
        spans: list[Span] = []

        def next_by_kernel(length: int) -> Span:
            start = map_anonymous(length)
            spans.append(Span(start, start + -(-length // sizes.base) * sizes.base))
            return spans[-1]

        with known_top(top_offset, sizes) as top:
            try:
                return _measure(lengths, next_by_kernel, touch, top, sizes, unadvised=unadvised)
            finally:
                for span in spans:
                    unmap(span.start, span.length)

    return _until_undisturbed(once, lengths, sizes)


def _until_undisturbed(
    once: Callable[[], Measurement | NotObservable], lengths: Sequence[int], sizes: PageSizes
) -> Measurement | NotObservable:
    """Measure; measure again where another thread or khugepaged came in between."""
    if missing := too_much(sum(lengths)):
        return missing
    measured: Measurement | NotObservable = NotObservable("nothing was tried")
    for _ in range(_TRIES):
        try:
            measured = once()
        except OSError as error:
            return NotObservable(f"the kernel refused the mappings ({error.strerror})")
        if isinstance(measured, Measurement) and not _collapsed(measured, sizes):
            return measured
    if isinstance(measured, Measurement):
        return Measurement(measured.layout, "khugepaged made huge pages of base pages meanwhile")
    return measured


def _collapsed(measured: Measurement, sizes: PageSizes) -> bool:
    """Return whether there are more huge pages than the faults can account for.

    Without smaller sizes, a fault yields one base page or one huge page; so the pages that took no
    fault of their own tell how many huge pages the faults gave.
    """
    layout = measured.layout
    without_fault = layout.anon_kib * KIB // sizes.base - layout.minor_faults
    huge = layout.huge_kib * KIB // sizes.pmd
    return measured.caveat is None and without_fault != huge * (sizes.pmd // sizes.base - 1)


def _measure(
    lengths: Sequence[int],
    mapper: _Mapper,
    touch: Touch,
    top: int,
    sizes: PageSizes,
    *,
    unadvised: bool,
) -> Measurement | NotObservable:
    """Map, advise and touch in the order that ``touch`` names; describe what smaps then says.

    Nothing here may map memory of its own between the first mapping and the reading of smaps, or it
    could land between the mappings under test: the buffer for smaps is made beforehand.
    """
    facts = host_facts()
    advised = facts.thp_mode == "madvise" and not unadvised
    text = bytearray(len(smaps.read("self")) + _SMAPS_BYTES_A_VMA * (2 * len(lengths) + 64))
    spans: list[Span] = []
    faults = 0
    for action, index in steps(len(lengths), touch):
        if action is Action.TOUCH:
            faults += areas.touch(spans[index])
            continue
        spans.append(mapper(lengths[index]))
        if advised:
            advise(spans[-1].start, spans[-1].length, Advice.HUGEPAGE)
    size = _read_smaps(text)
    snapshot = smaps.parse(bytes(text[:size])).within(min(s.start for s in spans), top)
    ours = [mapping for mapping in snapshot if mapping.permissions.startswith("rw")]
    if sum(m.end - m.start for m in ours) != sum(span.length for span in spans):
        return NotObservable("another thread of this process mapped memory between the mappings")
    mappings, gap_kib = describe(spans, top, sizes.pmd)
    layout = Layout(
        mappings,
        gap_kib,
        vmas=len(ours),
        anon_kib=sum(m.anonymous_kib or 0 for m in ours),
        huge_kib=sum(m.anon_huge_kib or 0 for m in ours),
        minor_faults=faults,
    )
    return Measurement(layout, _caveat(facts, advised))


def _read_smaps(text: bytearray) -> int:
    """Read this process's smaps into ``text`` without allocating; return the bytes read."""
    size = 0
    with Path("/proc/self/smaps").open("rb", buffering=0) as file, memoryview(text) as view:
        while count := file.readinto(view[size:]):
            size += count
    return size


_PMD_OFF: Final = "the PMD size is switched off on this host"


def _caveat(facts: HostFacts, advised: bool) -> str | None:
    """Return why faults here are not answered with pages of the PMD size alone, if so."""
    if not facts.thp_built_in:
        return "THP is not built into this kernel, so every page is a base page"
    if thp_disabled():
        return "THP is forbidden to this process (PR_SET_THP_DISABLE), so every page is a base page"
    given = effective_sizes(facts, advised=advised)
    unasked = " and nothing was advised" if facts.thp_mode == "madvise" and not advised else ""
    if not given:
        return f"THP is `{facts.thp_mode}` on this host{unasked}, so every page is a base page"
    if facts.pmd_kib not in given:
        why = f"THP is `madvise` on this host{unasked}" if unasked else _PMD_OFF
        return f"{why}, so no page is PMD-mapped"
    if len(given) > 1:
        smaller = ", ".join(format_kib(kib) for kib in given[1:])
        return f"this host also answers faults with pages of {smaller}, so there are fewer faults"
    return None
