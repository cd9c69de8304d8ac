"""What the page "Recorded hosts" shows: recorded evidence beside the host of this build."""

from __future__ import annotations

from itertools import groupby
from typing import TYPE_CHECKING, Final

from hugeprobe import hostrecord, hosts, records
from hugeprobe.drawing import (
    MarkdownTable,
    Picture,
    Sentence,
    Shares,
    markdown_table,
    share_tables,
)
from hugeprobe.errors import NotObservable
from hugeprobe.figures.common import TOUCH_WORDS
from hugeprobe.hostrecord import TOPS_KIB, Unseen
from hugeprobe.placement import Rule, Touch
from hugeprobe.sizes import KIB, format_kib
from hugeprobe.sweep import TELLING_KIB

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from hugeprobe.hostrecord import HostRecord, InferenceFaults, Mapped
    from hugeprobe.hosts import Alike, Host

_ON_BOUNDARY, _BETWEEN = TOPS_KIB
_SHOWN: Final = ((1536, Touch.EACH), (2052, Touch.EACH), (3072, Touch.AFTER), (4632, Touch.EACH))
_NONE: Final = NotObservable("no host is known whose mappings were counted")


def coverage_picture(known: Sequence[Host]) -> Picture | NotObservable:
    """Draw the coverage of telling sizes by rule and mode, hosts that gave the same in one row."""
    groups = _sorted(hosts.alike(known, _BETWEEN))
    if not groups:
        return _NONE
    panels = [
        Shares(
            TOUCH_WORDS[touch],
            {
                name: [_coverage(group.cases.get((kib, touch))) for kib in TELLING_KIB]
                for name, group in _named(groups).items()
            },
        )
        for touch in Touch
    ]
    columns = [f"{kib:,}" for kib in TELLING_KIB]
    title = "Coverage by size, touch order, rule and mode, on all recorded hosts"
    return share_tables(panels, columns, "KiB, size of each of 16 mappings", title)


def _sorted(groups: Iterable[Alike]) -> list[Alike]:
    order = {rule.value: index for index, rule in enumerate(Rule)}

    def key(group: Alike) -> tuple[int, tuple[int, ...], tuple[str, ...]]:
        return order.get(_rule(group), len(order)), group.hosts[0].smaller_kib, group.modes

    return sorted(groups, key=key)


def _named(groups: Sequence[Alike]) -> dict[str, Alike]:
    """Return the groups by rule, modes and number; those that these do not tell apart numbered."""
    named: dict[str, Alike] = {}
    for group in groups:
        small = " + mTHP" if group.hosts[0].smaller_kib else ""
        name = f"{_rule(group)}, {'/'.join(group.modes)}{small} ({len(group.hosts)})"
        again = sum(other.startswith(name) for other in named)
        named[f"{name} #{again + 1}" if again else name] = group
    return named


def _rule(of: Alike | Host | HostRecord) -> str:
    return of.rule.value if of.rule else "no known rule"


def _coverage(case: Mapped | None) -> float | None:
    return None if case is None else case.coverage


def explained(known: Sequence[Host]) -> Sentence:
    """Say how many cases rule and settings explain, and which hosts have others."""
    cases = sum(len(host.counted) for host in known)
    if not cases:
        return Sentence(str(_NONE))
    odd = [host for host in known if host.unexplained]
    unexplained = sum(len(host.unexplained) for host in odd)
    found = (
        f"{len(known):,} hosts were asked, counting a kernel once for each setting. In "
        f"{cases - unexplained:,} of {cases:,} cases, rule and page sizes explain every KiB, hole, "
        "VMA and fault."
    )
    names = ", ".join(dict.fromkeys(f"{host.name} ({host.known_from})" for host in odd))
    return Sentence(f"{found} They do not on {names}." if odd else found)


def widest(known: Sequence[Host]) -> Sentence:
    """Name the case in which hosts that permit huge pages differ most."""
    groups = [
        group
        for group in hosts.alike(known, _BETWEEN)
        if any(case.huge_kib for case in group.cases.values())
    ]
    spans = [
        (min(shares), max(shares), case)
        for case in (groups[0].cases if groups else ())
        if (shares := [_share(group, case) for group in groups])
    ]
    if not spans or len(groups) < 2:
        return Sentence("All hosts that permit huge pages give the same.")
    (least, worse), (most, better), (kib, touch) = max(spans, key=lambda s: s[1][0] - s[0][0])
    return Sentence(
        f"Among hosts that permit huge pages, {kib:,} KiB, {TOUCH_WORDS[touch]}, differ most: "
        f"{least:.0%} of it is huge under `{worse}`, and {most:.0%} under `{better}`."
    )


def _share(group: Alike, case: tuple[int, Touch]) -> tuple[float, str]:
    return _coverage(group.cases.get(case)) or 0.0, _rule(group)


def settings_table(known: Sequence[Host]) -> MarkdownTable | NotObservable:
    """Return coverage and faults of some cases, by rule, mode and smaller page sizes."""
    groups = _sorted(hosts.alike(known, _ON_BOUNDARY))
    if not groups:
        return _NONE
    rows = [
        (
            f"`{_rule(group)}`",
            ", ".join(f"`{mode}`" for mode in group.modes),
            _sizes(group.hosts[0].smaller_kib),
            len(group.hosts),
            *(_cell(group.cases.get(case)) for case in _SHOWN),
        )
        for group in groups
    ]
    heads = [f"{kib:,} KiB, {touch.value}" for kib, touch in _SHOWN]
    columns = ("rule", "THP mode", "smaller sizes", "hosts", *heads)
    return markdown_table(columns, rows, numeric=range(3, len(columns)))


def _sizes(smaller_kib: tuple[int, ...]) -> str:
    if len(smaller_kib) > 2:
        return f"{format_kib(smaller_kib[-1])} to {format_kib(smaller_kib[0])}"
    return ", ".join(map(format_kib, reversed(smaller_kib))) or "none"


def _cell(case: Mapped | None) -> str:
    return f"{case.coverage:.0%} · {case.minor_faults:,}" if case else "not asked"


def hosts_table(known: Sequence[Host]) -> MarkdownTable:
    """Return every host: where it is known from, its rule, its modes, and what is explained."""
    rows = []
    for (name, source), group in groupby(known, key=lambda host: (host.name, host.known_from)):
        same = list(group)
        cases = sum(len(host.counted) for host in same)
        odd = sum(len(host.unexplained) for host in same)
        modes = dict.fromkeys(f"`{host.mode or 'not built in'}`" for host in same)
        counts = f"{cases - odd:,} of {cases:,}" if cases else str(same[0].cases)
        rows.append((name, source, f"`{_rule(same[0])}`", ", ".join(modes), len(same), counts))
    columns = ("kernel", "known from", "rule", "THP modes", "settings", "cases explained")
    return markdown_table(columns, rows, numeric=(4,))


# Hosts with a record of their own -----------------------------------------------------------------


def _beside(
    here: HostRecord, recorded: Sequence[HostRecord], row: Callable[[HostRecord], Sequence[str]]
) -> list[tuple[str, ...]]:
    named = [("this build", here), *((hostrecord.short_name(each), each) for each in recorded)]
    return [(name, *row(record)) for name, record in named]


def facts_table(here: HostRecord, recorded: Sequence[HostRecord]) -> MarkdownTable:
    """Return what the hosts are."""

    def row(record: HostRecord) -> Sequence[str]:
        host = record.host
        memory = host.memory_limit_mib or host.memory_mib
        return (
            host.kernel or "not told",
            host.processor or "not told",
            format_kib(memory * KIB) if memory else "not told",
            host.virtualisation,
            f"`{host.thp_mode}`" if host.thp_mode else "none",
            f"`{_rule(record)}`",
            host.glibc or "none",
        )

    columns = ("host", "kernel", "processor", "memory", "virtualisation", "THP", "rule", "glibc")
    return markdown_table(columns, _beside(here, recorded, row))


def given_table(here: HostRecord, recorded: Sequence[HostRecord]) -> MarkdownTable:
    """Return coverage and faults of 64 MiB, plain and advised."""

    def row(record: HostRecord) -> Sequence[str]:
        return (*_ways(record), *_touches(record))

    ways = ("plain", "advised", "NumPy", "off a boundary")
    touches = ("faults: plain", "faults: advised", "collapsed")
    columns = ("host", *ways, *touches)
    return markdown_table(columns, _beside(here, recorded, row), numeric=range(1, len(columns)))


def _ways(record: HostRecord) -> list[str]:
    if isinstance(record.given, Unseen):
        return [_unseen(record.given)] * 4
    return [f"{each.huge_kib / (each.anon_kib or 1):.0%}" for each in record.given]


def _touches(record: HostRecord) -> list[str]:
    if isinstance(record.touched, Unseen):
        return [_unseen(record.touched)] * 3
    plain, advised, *_, collapsed = record.touched
    huge = collapsed.huge_kib
    return [
        f"{plain.minor_faults:,}",
        f"{advised.minor_faults:,}",
        _unseen(huge) if isinstance(huge, Unseen) else format_kib(huge),
    ]


def _unseen(missing: Unseen) -> str:
    return f"*{missing.because}*"


def inference_table(here: HostRecord, recorded: Sequence[HostRecord]) -> MarkdownTable:
    """Return what a tiny model takes, as it is and with ``keep``."""

    def row(record: HostRecord) -> Sequence[str]:
        if isinstance(record.inference, Unseen):
            return [_unseen(record.inference)] * 6
        by_arm: Mapping[str, InferenceFaults] = {each.arm: each for each in record.inference}
        return [
            cell
            for arm in ("default", "keep")
            for cell in (
                f"{by_arm[arm].load_faults:,}",
                f"{by_arm[arm].first_faults + by_arm[arm].repeat_faults:,}",
                f"{by_arm[arm].huge_kib / (by_arm[arm].anon_kib or 1):.0%}",
            )
        ]

    heads = (f"{arm}: {what}" for arm in ("as it is", "`keep`") for what in _HEADS)
    columns = ("host", *heads)
    return markdown_table(columns, _beside(here, recorded, row), numeric=range(1, len(columns)))


_HEADS: Final = ("load", "inferences", "huge")


def contribution(record: HostRecord) -> MarkdownTable:
    """Return the record of this host as its file would have it."""
    name, text = hostrecord.file_name(record), records.text_of(record)
    return MarkdownTable(f"*{name}*, for `notebooks/records/hosts`:\n\n```json\n{text}```")
