"""What the page "Benchmarking honestly" shows: live proofs of what makes a benchmark lie."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from hugeprobe.bench import summary
from hugeprobe.drawing import (
    ACCENT,
    BASE,
    HUGE,
    Line,
    MarkdownTable,
    Panel,
    Picture,
    Sentence,
    chart,
    markdown_table,
)
from hugeprobe.errors import NotObservable
from hugeprobe.figures.bench import find_cell, shape_name
from hugeprobe.sizes import KIB, MIB

if TYPE_CHECKING:
    from collections.abc import Sequence

    from hugeprobe.allocators import Allocation
    from hugeprobe.bench.record import BenchRecord
    from hugeprobe.compare import Ratio
    from hugeprobe.firsttouch import FirstTouch
    from hugeprobe.host import HostFacts
    from hugeprobe.realweights import WeightsRecord

_VARIANTS: Final = {
    "real": "packaged MiniLM, its weights",
    "redrawn": "the same graph, weights drawn anew",
    "built": "the graph of this guide, weights drawn",
}
_HEADER: Final = 2 * KIB
"""Bytes beyond the request from which on a block of glibc is a mapping of its own: whole pages."""


def touches_picture(touch: FirstTouch | NotObservable) -> Picture | Sentence:
    """Draw how long the first write to each stretch took, base pages against huge pages."""
    if isinstance(touch, NotObservable):
        return Sentence(str(touch))
    number = list(range(1, len(touch.base.held) + 1))
    panels = [
        Panel(
            title,
            "stretch",
            f"ms for {touch.length // MIB} MiB",
            [
                Line("base pages", number, base, BASE, "o"),
                Line("huge pages", number, huge, HUGE, "o"),
                Line("written once more", number, touch.base.again, ACCENT, "-"),
            ],
            log_y=True,
        )
        for title, base, huge in (
            ("pages given back just before", touch.base.recycled, touch.huge.recycled),
            ("pages free for a while", touch.base.held, touch.huge.held),
        )
    ]
    return chart(panels, "Time of the first write to memory, with base pages and with huge pages")


def touches_sentence(touch: FirstTouch | NotObservable) -> Sentence:
    """Say which kind of page was faster, of pages just given back and of pages free for a while."""
    if isinstance(touch, NotObservable):
        return Sentence(str(touch))
    recycled = _faster(touch.recycled)
    held = _faster(touch.held)
    slowest = max(*touch.huge.held) / min(touch.huge.recycled)
    return Sentence(
        f"On this host the first write took {touch.base.faults:,} faults with base pages and "
        f"{touch.huge.faults:,} with huge pages. Of pages just given back, {recycled}; "
        f"of pages that had been free for a while, {held}. The slowest stretch of huge pages took "
        f"{slowest:.0f} times as long as the fastest."
    )


def _faster(ratio: Ratio) -> str:
    if not ratio.differs:
        return f"no difference was shown ({ratio.low:.2f} to {ratio.high:.2f})"
    if ratio.value > 1:
        return f"huge pages were {ratio} times as fast as base pages"
    return f"huge pages took longer: base over huge is {ratio}"


def memory_table(found: Sequence[Allocation | NotObservable]) -> MarkdownTable | Sentence:
    """Return where the same blocks lie in a young process and after one large block was freed."""
    rows = []
    for each in found:
        if isinstance(each, NotObservable):
            return Sentence(str(each))
        size = each.request.size
        own = sum(usable - size >= _HEADER for usable in each.blocks.usable)
        rows.append(
            [
                f"one of {each.request.freed // MIB} MiB" if each.request.freed else "nothing",
                f"{len(each.blocks.usable)} of {size // MIB} MiB",
                own,
                len(each.blocks.usable) - own,
                f"{each.blocks.minor_faults:,}",
            ]
        )
    columns = ["freed before", "blocks", "mapped alone", "from the heap", "minor faults"]
    return markdown_table(columns, rows, numeric=(2, 3, 4))


def warm_up_table(record: BenchRecord | NotObservable, workload: str) -> MarkdownTable | Sentence:
    """Return the faults of the first inference, of the repeats and of a warm one, by runtime."""
    if isinstance(record, NotObservable):
        return Sentence(str(record))
    rows = []
    for runtime in dict.fromkeys(cell.runtime for cell in record.cells):
        cell = find_cell(record, workload, runtime)
        if isinstance(cell, NotObservable):
            continue
        run = next(iter(record.of(cell, cell.arms[0])), None)
        stages = run and [run.at("first"), run.at("repeat"), run.at("steady")]
        if not stages or None in stages:
            continue
        shapes = dict.fromkeys(cell.shapes)
        for shape, *faults in zip(shapes, *(s.faults for s in stages if s), strict=True):
            rows.append([runtime, shape_name(shape), *(f"{count:,}" for count in faults)])
    if not rows:
        return Sentence(str(NotObservable(f"the record has no run of {workload}")))
    columns = ["runtime", "shape", "first inference", "all repeats", "all warm rounds"]
    return markdown_table(columns, rows, numeric=(2, 3, 4))


def khugepaged_sentence(facts: HostFacts) -> Sentence:
    """Do the arithmetic of how long khugepaged takes to look at a GiB on this host."""
    settings = facts.khugepaged
    if (
        settings is None
        or not settings.pages_to_scan
        or not settings.scan_sleep_millisecs
        or not facts.base_kib
    ):
        return Sentence(str(NotObservable("this kernel does not tell the pace of khugepaged")))
    mib = settings.pages_to_scan * facts.base_kib / KIB
    rate = mib / (settings.scan_sleep_millisecs / 1000)
    return Sentence(
        f"On this host it scans {mib:.0f} MiB every {settings.scan_sleep_millisecs / 1000:g} s, "
        f"{rate:.1f} MiB/s for the whole machine: a GiB takes {KIB / rate / 60:.0f} minutes."
    )


def drift_sentence(record: BenchRecord | NotObservable) -> Sentence:
    """Say how far runs of the default arm differ among themselves."""
    if isinstance(record, NotObservable):
        return Sentence(str(record))
    spreads = [
        effect.seconds.most / effect.seconds.least
        for effect in summary.everything(record)
        if effect.arm == effect.cell.arms[0] and effect.runs > 1
    ]
    if not spreads:
        return Sentence(str(NotObservable("nothing ran more than once")))
    ordered = sorted(spreads)
    return Sentence(
        f"In the recorded benchmark the slowest run of one and the same arm took "
        f"{ordered[len(ordered) // 2]:.2f} times as long as its fastest at the median, and "
        f"{ordered[-1]:.1f} times at the worst."
    )


def weights_table(record: WeightsRecord | NotObservable) -> MarkdownTable | Sentence:
    """Return the counts of a packaged model with its weights, with others, and as built here."""
    if isinstance(record, NotObservable):
        return Sentence(str(record))
    rows = [
        [
            each.runtime,
            _VARIANTS[each.variant],
            *(f"{record.faults(*key, stage):,.0f}" for stage in record.stages[:2]),
            f"{record.anonymous_kib(*key) / KIB:,.0f}",
        ]
        for each in record.counts
        if each.arm == "default" and (key := (each.variant, each.runtime, each.arm))
    ]
    columns = ["runtime", "model", "faults, loading", "faults, first inferences", "MiB anonymous"]
    return markdown_table(columns, sorted(rows), numeric=(2, 3, 4))
