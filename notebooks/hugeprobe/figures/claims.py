"""What the page "Claims" shows: verdicts with their reasons, and the evidence that is its own."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from hugeprobe import arms
from hugeprobe.bench import summary
from hugeprobe.claims.bounds import is_claimed
from hugeprobe.claims.fix import MOMENT_WORDS
from hugeprobe.claims.streams import STREAMS
from hugeprobe.claims.verdict import Basis, Verdict
from hugeprobe.drawing import (
    HUGE,
    Mark,
    MarkdownTable,
    Picture,
    Sentence,
    intervals,
    markdown_table,
)
from hugeprobe.emulate import Measurement
from hugeprobe.errors import NotObservable
from hugeprobe.figures.bench import speedup

if TYPE_CHECKING:
    from collections.abc import Sequence

    from hugeprobe.bench.record import BenchRecord
    from hugeprobe.claims.coalesce import Coalesced
    from hugeprobe.claims.evidence import Gathered
    from hugeprobe.claims.mapcount import MapCount
    from hugeprobe.claims.streams import Streams
    from hugeprobe.claims.verdict import Judged
    from hugeprobe.placement import Rule
    from hugeprobe.sharing.pair import Shared

_SERIES: Final = "ratio with 95 % interval"
_SHORT: Final = {Basis.LIVE: "measured", Basis.RECORDED: "recorded", Basis.CITED: "cited"}


def badge(verdict: Verdict) -> str:
    """Return a verdict as Markdown: its words, with a class by which a page colours them.

    >>> badge(Verdict.IN_PART)
    '<span class="verdict verdict-in-part">confirmed in part</span>'
    """
    kind = verdict.name.lower().replace("_", "-")
    return f'<span class="verdict verdict-{kind}">{verdict.value}</span>'


def overview(judged: Sequence[Judged]) -> MarkdownTable:
    """Return all claims with their verdicts, and what each was computed from."""
    rows = [
        [
            f"[{each.claim.number}. {each.claim.title}](#claim-{each.claim.number})",
            badge(each.finding.verdict),
            ", ".join(
                word
                for basis, word in _SHORT.items()
                if basis in {source.basis for source in each.finding.sources}
            ),
        ]
        for each in judged
    ]
    return markdown_table(["claim", "verdict", "from evidence that is"], rows)


def tally(judged: Sequence[Judged]) -> Sentence:
    """Say how many claims came to which verdict."""
    verdicts = [each.finding.verdict for each in judged]
    counts = [
        f"{verdicts.count(verdict)} {verdict.value}" for verdict in Verdict if verdict in verdicts
    ]
    return Sentence(f"Of {len(verdicts)} claims: {', '.join(counts)}.")


def finding(judged: Sequence[Judged], number: int) -> Sentence:
    """Return one claim's verdict, its reason, and what it was computed from."""
    (found,) = (each.finding for each in judged if each.claim.number == number)
    bases = [
        f"{basis.value} ({', '.join(named)})"
        for basis in Basis
        if (named := [source.what for source in found.sources if source.basis is basis])
    ]
    computed = f"\n\n**Computed from** what was {'; '.join(bases)}." if bases else ""
    return Sentence(f"{badge(found.verdict)} {found.reason}{computed}")


def small_table(evidence: Gathered) -> MarkdownTable | Sentence:
    """Return where the running kernel puts buffers below a PMD, each written as it is mapped."""
    rows = []
    for kib, measured in evidence.small.items():
        if isinstance(measured, Measurement):
            layout = measured.layout
            figures = (layout.gap_kib, layout.vmas, layout.minor_faults)
            rows.append([f"{kib:,} KiB", *(f"{figure:,}" for figure in figures)])
    if not rows:
        return Sentence(str(next(iter(evidence.small.values()))))
    columns = ["16 buffers of", "KiB of holes", "VMAs", "minor faults"]
    return markdown_table(columns, rows, numeric=(1, 2, 3))


def streams_picture(streams: Streams | NotObservable) -> Picture | Sentence:
    """Draw what equal low address bits cost on this host."""
    if isinstance(streams, NotObservable):
        return Sentence(str(streams))
    ratios = {
        "placed by the rule,\nagainst its fix": streams.rule,
        "equal low bits, against\na few lines apart": streams.control,
    }
    title = f"{STREAMS} streams read in step"
    panel = {
        row: {_SERIES: Mark(ratio.value, ratio.low, ratio.high)} for row, ratio in ratios.items()
    }
    return intervals(
        {title: panel}, {_SERIES: HUGE}, "times as long; hollow: no difference shown", title
    )


def coalesced_table(
    coalesced: dict[Rule, Coalesced | NotObservable],
) -> MarkdownTable | Sentence:
    """Return what a collapse made of mappings, by the rule that placed them."""
    missing = [each for each in coalesced.values() if isinstance(each, NotObservable)]
    if missing:
        return Sentence(str(missing[0]))
    rows = [
        [f"`{rule.value}`", each.vmas, f"{each.before:.0%}", f"{each.after:.0%}"]
        for rule, each in coalesced.items()
        if not isinstance(each, NotObservable)
    ]
    columns = ["placed by", "VMAs", "huge before", "huge after"]
    return markdown_table(columns, rows, numeric=(1, 2, 3))


def mapcount_table(counted: MapCount | NotObservable) -> MarkdownTable | Sentence:
    """Return how many mappings the kernel gave, by the rule that placed them."""
    if isinstance(counted, NotObservable):
        return Sentence(str(counted))
    rows = [
        [f"`{name}`", f"{had:,}" if had else f"all {counted.limit:,}", "refused" if had else "none"]
        for name, had in (("forced", counted.forced), ("multiples", counted.multiples))
    ]
    columns = [f"mappings of {counted.length_kib:,} KiB placed by", "had", "error"]
    return markdown_table(columns, rows, numeric=(1,))


def shared_table(shared: dict[str, Shared | NotObservable]) -> MarkdownTable:
    """Return what of shared memory is huge in a second process, and what touching it cost."""
    rows = [
        [name, "not observable here", "-", "-"]
        if isinstance(each, NotObservable)
        else [
            name,
            f"{each.second.mapping.huge_kib / max(1, each.second.mapping.rss_kib or 0):.0%}",
            f"{each.first.minor_faults:,}",
            f"{each.second.minor_faults:,}",
        ]
        for name, each in shared.items()
    ]
    columns = ["memory", "huge in the second process", "faults of the first", "of the second"]
    return markdown_table(columns, rows, numeric=(1, 2, 3))


def claimed_shapes(record: BenchRecord | NotObservable) -> MarkdownTable | Sentence:
    """Return every comparison at the batches and lengths that the issue names."""
    if isinstance(record, NotObservable):
        return Sentence(str(record))
    rows = [
        [
            f"{cell.workload}, {cell.runtime}",
            MOMENT_WORDS[moment],
            f"`{effect.arm}`",
            speedup(effect),
        ]
        for cell in record.cells
        if is_claimed(cell)
        for moment in summary.MOMENTS
        for effect in summary.effects(record, cell, moment)
        if effect.speedup is not None and effect.arm != arms.TOUCHED.name
    ]
    if not rows:
        return Sentence(str(NotObservable("the record has no workload of those shapes")))
    return markdown_table(["workload", "moment", "arm", "speed-up (95 %)"], rows, numeric=(3,))
