"""What the page "How huge pages reach a process" shows."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hugeprobe.drawing import (
    BASE,
    HUGE,
    Line,
    MarkdownTable,
    Panel,
    Picture,
    Sentence,
    bars,
    chart,
    markdown_table,
)
from hugeprobe.errors import NotObservable
from hugeprobe.figures.common import HUGE_OR_BASE, split_resident
from hugeprobe.sizes import format_kib

if TYPE_CHECKING:
    from collections.abc import Sequence

    from hugeprobe.arrival import Arrival
    from hugeprobe.host import HostFacts
    from hugeprobe.reach import Reach


def arrivals_picture(arrivals: Sequence[Arrival | NotObservable]) -> Picture | NotObservable:
    """Draw how much of the memory is huge after each way of setting it up."""
    rows = {}
    for arrival in arrivals:
        if isinstance(arrival, NotObservable):
            return arrival
        if isinstance(arrival.resident, NotObservable):
            continue
        rows[arrival.way.name] = split_resident(arrival.resident)
    return bars(rows, HUGE_OR_BASE, "MiB", "Memory that is huge after each way of setting it up")


def arrivals_table(arrivals: Sequence[Arrival | NotObservable]) -> MarkdownTable | NotObservable:
    """Return the faults and the coverage of each way."""
    rows = []
    for arrival in arrivals:
        if isinstance(arrival, NotObservable):
            return arrival
        got = arrival.resident
        huge = str(got) if isinstance(got, NotObservable) else f"{got.coverage:.0%}"
        rows.append([arrival.way.name, f"{arrival.minor_faults:,}", huge])
    return markdown_table(
        ["what the program does", "minor faults", "huge in the end"], rows, numeric=(1, 2)
    )


def reach_chart(reaches: Sequence[Reach] | NotObservable) -> Picture | NotObservable:
    """Draw the time of a random read against the size of the table, for both page sizes."""
    if isinstance(reaches, NotObservable):
        return reaches
    sizes = [reach.working_set_kib for reach in reaches]
    lines = [
        Line("base pages", sizes, [reach.base_ns for reach in reaches], BASE),
        Line("huge pages", sizes, [reach.huge_ns for reach in reaches], HUGE),
    ]
    panel = Panel("", "size of the table", "ns per random read", lines, log_x=True)
    return chart([panel], "Time of a random read against the size of the table", height=2.9)


def reach_sentence(reaches: Sequence[Reach] | NotObservable) -> Sentence:
    """Say what the largest table showed, and claim a difference only where there is one."""
    if isinstance(reaches, NotObservable):
        return Sentence(str(reaches))
    last = reaches[-1]
    size = format_kib(last.working_set_kib)
    if last.ratio.differs:
        return Sentence(
            f"On this host, random reads in a table of {size} took {last.ratio} times as long "
            "from base pages as from huge pages (ratio of medians, 95 % interval)."
        )
    return Sentence(
        f"On this host, random reads in a table of {size} showed no difference between base and "
        f"huge pages that noise does not explain (ratio of medians {last.ratio}, 95 % interval)."
    )


def tlb_sentence(facts: HostFacts) -> Sentence:
    """Do the arithmetic of TLB reach with what the processor tells, else with an example."""
    entries = (facts.cpu.tlb or "").split(" ")[0]
    if entries.isdecimal():
        count, whose = int(entries), "This processor reports"
    else:
        count, whose = 2048, "This processor does not tell its size; take, for example,"
    base = format_kib(count * (facts.base_kib or 4))
    huge = format_kib(count * (facts.pmd_kib or 2048))
    return Sentence(f"{whose} {count:,} entries: {base} with base pages, {huge} with huge pages.")
