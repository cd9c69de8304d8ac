"""What the page "Deploying" shows."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from hugeprobe import arms
from hugeprobe.bench import summary
from hugeprobe.drawing import MarkdownTable, Picture, Sentence, bars, markdown_table
from hugeprobe.errors import NotObservable
from hugeprobe.figures.bench import find_cell, speedup
from hugeprobe.figures.common import HUGE_OR_BASE, split_resident
from hugeprobe.kernels import deployed
from hugeprobe.memorycost import STRIDE_KIB
from hugeprobe.sizes import KIB, format_kib

if TYPE_CHECKING:
    from hugeprobe.bench.record import BenchRecord
    from hugeprobe.kernels.deployment import BootedGuest, DeploymentRecord
    from hugeprobe.kernels.symbols import SymbolsRecord
    from hugeprobe.memorycost import Cost, Costs

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


# What real kernels made of it ---------------------------------------------------------------------


def sizes_table(record: DeploymentRecord | NotObservable) -> MarkdownTable | Sentence:
    """Return what page sizes bring to whole buffers, and cost where writes are scattered.

    The kernels gave the same; a size that one does not have is only in the newer ones' rows.
    """
    if isinstance(record, NotObservable):
        return Sentence(str(record))
    rows = {
        choice.name: [choice.name, f"{choice.minor_faults:,}", format_kib(choice.scattered_kib)]
        for guest in record.guests
        for choice in guest.choices
    }
    order = {name: place for place, (name, _, _) in enumerate(deployed.CHOICES)}
    columns = ["pages", "faults of writing whole buffers", "memory of scattered writes"]
    ordered = sorted(rows.values(), key=lambda row: order[row[0]])
    return markdown_table(columns, ordered, numeric=(1, 2))


def sizes_origin(record: DeploymentRecord | NotObservable) -> Sentence:
    """Say what was written, on what, and whether the kernels agreed."""
    if isinstance(record, NotObservable):
        return Sentence(str(record))
    measured = [guest for guest in record.guests if guest.choices]
    found = {
        (choice.name, choice.minor_faults, choice.scattered_kib)
        for guest in measured
        for choice in guest.choices
    }
    same = "the same" if len(found) == len({name for name, *_ in found}) else "not all the same"
    buffers = f"{len(deployed.BUFFERS)} buffers of {format_kib(deployed.BUFFERS[0] / KIB)}"
    scattered = f"one byte in each of {deployed.PMDS} ranges of 2 MiB"
    return Sentence(
        f"Recorded on {record.date} with `{record.command}`: {buffers}, written as they are "
        f"mapped, and {scattered}. {len(measured)} kernels gave {same} figures, as far as they "
        f"have the sizes: {', '.join(guest.release for guest in measured)}."
    )


def _how(guest: BootedGuest) -> str:
    if guest.parameters:
        return f"`{' '.join(guest.parameters)}`"
    return "as delivered"


def booted_table(record: DeploymentRecord | NotObservable) -> MarkdownTable | Sentence:
    """Return what sysfs said in each kernel after each way of setting it."""
    if isinstance(record, NotObservable):
        return Sentence(str(record))
    rows = []
    for guest in record.guests:
        if guest.nodes == 1:
            rows.append([guest.release, _how(guest), *_settings(guest.booted)])
        if guest.created is not None:
            rows.append([guest.release, "then the temporary files", *_settings(guest.created)])
    return markdown_table(["kernel", "set by", "mode", "64 KiB", "2 MiB"], rows)


def _settings(found: dict[str, str]) -> list[str]:
    names = ("enabled", "hugepages-64kB/enabled", "hugepages-2048kB/enabled")
    return [f"`{found[name]}`" if name in found else "no such file" for name in names]


def merged_sentence(record: DeploymentRecord | NotObservable) -> Sentence:
    """Say what the kernel's own tools made of the fragment."""
    if isinstance(record, NotObservable):
        return Sentence(str(record))
    merged = record.merged
    dropped = ", ".join(merged.dropped) or "nothing"
    return Sentence(
        f"Recorded on {record.date}: of {len(merged.fragment)} lines, merged into the "
        f"configuration of {merged.base} by the tools of {merged.source}, these were dropped: "
        f"{dropped}."
    )
