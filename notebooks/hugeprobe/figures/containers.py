"""What the page "Containers, clusters, virtual machines" shows."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from hugeprobe.drawing import MarkdownTable, Sentence, markdown_table
from hugeprobe.errors import NotObservable
from hugeprobe.kernels import deployed
from hugeprobe.sizes import KIB, format_kib

if TYPE_CHECKING:
    from collections.abc import Sequence

    from hugeprobe.accounting import Charge
    from hugeprobe.kernels.deployment import DeploymentRecord
    from hugeprobe.permitted import Setting


def settings_table(
    settings: Sequence[Setting], contained: Sequence[Setting] | NotObservable
) -> MarkdownTable:
    """Return the settings, and who could change them: this process, and one in a container."""
    inside = {} if isinstance(contained, NotObservable) else {each.path: each for each in contained}
    rows = [
        [
            f"`{each.path.removeprefix('/sys/kernel/mm/').removeprefix('/proc/sys/')}`",
            f"`{_in_force(each.value)}`" if each.value else "not there",
            _may(each),
            _may(inside[each.path]) if each.path in inside else "not observable here",
        ]
        for each in settings
    ]
    return markdown_table(["file", "value", "changed from here", "from a container"], rows)


def _in_force(value: str) -> str:
    """Return the word in brackets of several to choose from, or the value as it is."""
    chosen = re.search(r"\[(\S+)\]", value)
    return chosen[1] if chosen else value


def _may(setting: Setting) -> str:
    return "possible" if setting.changeable else "refused"


def contained_sentence(
    settings: Sequence[Setting], contained: Sequence[Setting] | NotObservable
) -> Sentence:
    """Say how many could be changed, and that both saw the same values."""
    may = sum(each.changeable for each in settings)
    here = f"The process that built this page could change {may} of {len(settings)}"
    if isinstance(contained, NotObservable):
        return Sentence(f"{here}. {contained}")
    inside = sum(each.changeable for each in contained)
    same = [each.value for each in settings] == [each.value for each in contained]
    return Sentence(
        f"{here}, a process with the mounts of a container {inside}; both read "
        f"{'the same' if same else 'different'} values."
    )


def charge_sentence(charged: Charge | NotObservable) -> Sentence:
    """Say what the control group of the build wrote into its books."""
    if isinstance(charged, NotObservable):
        return Sentence(str(charged))
    name = {1: "rss_huge", 2: "anon_thp"}[charged.before.version]
    values = (charged.before, charged.during, charged.after)
    before, during, after = (f"{books.anon_huge_kib / KIB:,.0f}" for books in values)
    return Sentence(
        f"The build ran in a group of version {charged.before.version}. While it held "
        f"{format_kib(charged.huge_kib)} of huge memory more, `{name}` in `memory.stat` went from "
        f"{before} to {during} MiB, and to {after} when that was given back."
    )


def limited_table(record: DeploymentRecord | NotObservable) -> MarkdownTable | Sentence:
    """Return what became of scattered writes under a limit, on base pages and with huge ones."""
    if isinstance(record, NotObservable):
        return Sentence(str(record))
    rows = [
        [
            guest.release,
            each.kind,
            "survived" if each.survived else "killed",
            format_kib(each.anon_kib),
            format_kib(each.huge_kib),
            format_kib(each.stat_huge_kib),
            str(each.declined),
        ]
        for guest in record.guests
        for each in guest.limited
    ]
    columns = [
        "kernel",
        "pages",
        "process",
        "resident",
        "huge",
        "`anon_thp`",
        "huge pages declined",
    ]
    return markdown_table(columns, rows, numeric=(3, 4, 5, 6))


def limited_origin(record: DeploymentRecord | NotObservable) -> Sentence:
    """Say what was written under which limit."""
    if isinstance(record, NotObservable):
        return Sentence(str(record))
    return Sentence(
        f"Recorded on {record.date} with `{record.command}`: one byte in each of "
        f"{deployed.LIMITED_PMDS} ranges of 2 MiB, in a group of version 2 whose `memory.max` is "
        f"{format_kib(deployed.LIMIT / KIB)}, without swap."
    )


def spilled_table(record: DeploymentRecord | NotObservable) -> MarkdownTable | Sentence:
    """Return where advised memory lay that did not fit on the processor's own node."""
    if isinstance(record, NotObservable):
        return Sentence(str(record))
    rows = [
        [
            guest.release,
            f"`{each.defrag}`",
            f"{each.huge_kib / each.anon_kib:.0%}",
            f"{(each.anon_kib - each.huge_kib) / KIB:,.0f}",
            f"{(each.length_kib - each.free_kib) / KIB:,.0f}",
            f"{each.node_kib.get('1', 0) / KIB:,.0f}",
        ]
        for guest in record.guests
        for each in guest.spilled
    ]
    columns = [
        *("kernel", "`defrag`", "huge", "MiB on base pages"),
        *("MiB more than the node had free", "MiB on the other node"),
    ]
    return markdown_table(columns, rows, numeric=(2, 3, 4, 5))
