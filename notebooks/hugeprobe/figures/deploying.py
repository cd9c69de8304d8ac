"""What the page "Deploying" shows."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from hugeprobe import arms
from hugeprobe.bench import summary
from hugeprobe.drawing import MarkdownTable, Picture, Sentence, bars, markdown_table
from hugeprobe.errors import NotObservable
from hugeprobe.figures.bench import find_cell, speedup
from hugeprobe.figures.common import HUGE_OR_BASE, split_resident
from hugeprobe.memorycost import STRIDE_KIB
from hugeprobe.sizes import KIB, format_kib

if TYPE_CHECKING:
    from collections.abc import Sequence

    from hugeprobe.accounting import Charge
    from hugeprobe.bench.record import BenchRecord
    from hugeprobe.kernels.symbols import SymbolsRecord
    from hugeprobe.memorycost import Cost, Costs
    from hugeprobe.permitted import Setting

_CHOICES: Final = (
    (arms.DEFAULT, "as it was: `madvise`"),
    (arms.KEEP, "the same; the service asks, and keeps memory"),
    (arms.ALWAYS, "`always`"),
    (arms.MTHP_64K, "64 KiB pages `always`"),
    (arms.MTHP, "64 KiB to 1 MiB pages `always`"),
)
_MEASURED: Final = (("ppocr-detector", "OpenVINO"), ("bert-mini", "OpenVINO"))


def choices(record: BenchRecord | NotObservable) -> MarkdownTable | Sentence:
    """Return what each choice for a host brings to first inferences: faults, and time if shown."""
    if isinstance(record, NotObservable):
        return Sentence(str(record))
    columns, rows = ["setting"], [[words] for _, words in _CHOICES]
    for workload, runtime in _MEASURED:
        cell = find_cell(record, workload, runtime)
        if isinstance(cell, NotObservable):
            return Sentence(str(cell))
        effects = {each.arm: each for each in summary.effects(record, cell, "first")}
        columns += [f"{workload}: faults", "speed-up"]
        for row, (arm, _) in zip(rows, _CHOICES, strict=True):
            row.extend(_effect(effects.get(arm.name)))
    return markdown_table(columns, rows, numeric=range(1, len(columns)))


def _effect(effect: summary.Effect | None) -> list[str]:
    if effect is None:
        return ["not run", "not run"]
    return [f"{effect.faults.median:,.0f}", speedup(effect) or "is compared to"]


def _stages(cost: Cost) -> dict[str, dict[str, float]]:
    name = "huge pages" if cost.huge else "base pages"
    return {
        f"{name}: one byte in {STRIDE_KIB} KiB": split_resident(cost.apart),
        f"{name}: every byte": split_resident(cost.full),
        f"{name}: forked, few writes": split_resident(cost.forked),
    }


def cost_picture(costs: Costs | NotObservable) -> Picture | Sentence:
    """Draw what is resident after each step, with base pages and with huge ones."""
    if isinstance(costs, NotObservable):
        return Sentence(str(costs))
    rows = _stages(costs.base) | _stages(costs.huge)
    return bars(rows, HUGE_OR_BASE, "MiB resident", "Memory resident after each step")


def cost_sentence(costs: Costs | NotObservable) -> Sentence:
    """Say in words what scattered writes and a fork came to."""
    if isinstance(costs, NotObservable):
        return Sentence(str(costs))
    base, huge = costs.base, costs.huge
    if not huge.full.huge_kib:
        return Sentence(
            f"On this host the advised memory of {format_kib(costs.length_kib)} got no huge page, "
            "so both halves of the figure are alike."
        )
    kept = huge.forked.huge_kib / huge.full.huge_kib
    return Sentence(
        f"On this host, one byte in each {STRIDE_KIB} KiB of {format_kib(costs.length_kib)} makes "
        f"{format_kib(base.apart.anon_kib)} resident on base pages and "
        f"{format_kib(huge.apart.anon_kib)} on huge ones. After a fork, one written byte in each "
        f"{format_kib(costs.pmd_kib)} leaves {kept:.0%} of the huge memory huge in the process "
        "that wrote."
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
        f"{before} to {during} MiB, and back to {after} when that was given back."
    )


def settings_table(settings: Sequence[Setting]) -> MarkdownTable:
    """Return the settings, and which of them the process that built the page could change."""
    rows = [
        [
            f"`{each.path}`",
            f"`{each.value}`" if each.value else "not there",
            "yes" if each.changeable else "no",
        ]
        for each in settings
    ]
    return markdown_table(["file", "value", "this process may change it"], rows)


def changeable_sentence(settings: Sequence[Setting]) -> Sentence:
    """Say how many of the settings the process could change."""
    may = sum(each.changeable for each in settings)
    return Sentence(f"The process that built this page could change {may} of them.")


def symbols_table(record: SymbolsRecord | NotObservable) -> MarkdownTable | Sentence:
    """Return what real kernels were built with, a row for each symbol."""
    if isinstance(record, NotObservable):
        return Sentence(str(record))
    names = dict.fromkeys(name for kernel in record.kernels for name in kernel.values)
    versions = [kernel.origin.rpartition(" ")[2] for kernel in record.kernels]
    rows = [
        [f"`{name}`", *(kernel.values.get(name, "unknown to it") for kernel in record.kernels)]
        for name in names
    ]
    return markdown_table(["CONFIG_", *versions], rows)


def symbols_origin(record: SymbolsRecord | NotObservable) -> Sentence:
    """Say where the values come from."""
    if isinstance(record, NotObservable):
        return Sentence(str(record))
    return Sentence(f"Read on {record.date} from the configurations that the packages carry.")
