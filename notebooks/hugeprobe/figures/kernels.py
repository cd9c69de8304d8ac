"""What the page "Real kernels" shows: recorded evidence, nothing measured at the build."""

from __future__ import annotations

import difflib
from itertools import groupby
from typing import TYPE_CHECKING

from hugeprobe.drawing import Line, MarkdownTable, Sentence, markdown_table
from hugeprobe.errors import NotObservable
from hugeprobe.figures.common import RULE_COLOURS
from hugeprobe.placement import Rule, Touch, model
from hugeprobe.sizes import KIB
from hugeprobe.sweep import TOP_OFFSET_KIB, same

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from hugeprobe.kernels.record import KernelsRecord, KernelUnderSetting, RecordedLayout


def origin(record: KernelsRecord | NotObservable) -> Sentence:
    """Say when, how and on what the record was made."""
    if isinstance(record, NotObservable):
        return Sentence(str(record))
    kernels = len({kernel.origin for kernel in record.kernels})
    layouts = sum(len(kernel.layouts) + len(kernel.malloc) for kernel in record.kernels)
    return Sentence(
        f"Recorded on {record.date} with `{record.command}`: {kernels} kernels in guests of QEMU "
        f"({record.accelerator}), {layouts:,} layouts. Counts only: under emulation, times mean "
        "nothing."
    )


def agreement(record: KernelsRecord | NotObservable) -> Sentence:
    """Say in how many recorded layouts the model gives what the kernel gave."""
    if isinstance(record, NotObservable):
        return Sentence(str(record))
    pairs = [(kernel, layout) for kernel in record.kernels for layout in kernel.layouts]
    equal = sum(not first_difference(kernel, layout) for kernel, layout in pairs)
    return Sentence(
        f"In {equal:,} of {len(pairs):,} recorded layouts the model equals the kernel in every "
        "address, hole, VMA, KiB and fault."
    )


def first_difference(kernel: KernelUnderSetting, recorded: RecordedLayout) -> str:
    """Return the first figure in which the model differs from the kernel, or nothing."""
    if kernel.rule is None:
        return f"{kernel.origin} follows no known rule"
    expected = model(
        [kib * KIB for kib in recorded.lengths],
        kernel.rule,
        recorded.touch,
        top_offset=recorded.top_offset,
        sizes=kernel.sizes,
    )
    found = recorded.layout
    if same(found, expected):
        return ""
    for name in ("mappings", "gap_kib", "vmas", "anon_kib", "huge_kib", "minor_faults"):
        if getattr(found, name) != getattr(expected, name):
            case = f"{kernel.origin}, {kernel.thp_mode}, {kernel.mthp}, {recorded.lengths[:2]}"
            ours, theirs = getattr(expected, name), getattr(found, name)
            return f"{case}, {recorded.touch.value}: {name} is {theirs}, the model says {ours}"
    return ""


def matrix(record: KernelsRecord | NotObservable) -> MarkdownTable | NotObservable:
    """Return the kernels, where each comes from and the rule found inside it."""
    if isinstance(record, NotObservable):
        return record
    rows = []
    for _, group in groupby(record.kernels, key=lambda kernel: kernel.origin):
        settings = list(group)
        rule = settings[0].rule
        layouts = sum(len(kernel.layouts) + len(kernel.malloc) for kernel in settings)
        rows.append(
            (
                settings[0].origin,
                settings[0].release,
                f"`{rule.value}`" if rule else "none of the known",
                len(settings),
                f"{layouts:,}",
            )
        )
    columns = ("kernel", "release", "rule found inside", "settings", "layouts")
    return markdown_table(columns, rows, numeric=(3, 4))


def plain(record: KernelsRecord, thp_mode: str = "always") -> list[KernelUnderSetting]:
    """Return each kernel once: in one THP mode, without multi-size THP."""
    return [kernel for kernel in record.kernels if kernel.thp_mode == thp_mode and not kernel.mthp]


def _alike(
    record: KernelsRecord, layouts_of: Callable[[KernelUnderSetting], Sequence[RecordedLayout]]
) -> dict[str, list[RecordedLayout]]:
    """Return layouts of equal lengths under an aligned top, by the kernels that agree on them.

    Kernels of one rule that gave the same in every case share a column, whose head names them all.
    """
    columns: list[tuple[KernelUnderSetting, list[str], list[RecordedLayout]]] = []
    for kernel in plain(record):
        layouts = [
            layout
            for layout in layouts_of(kernel)
            if len(set(layout.lengths)) == 1 and layout.top_offset == 0
        ]
        found = [layout.layout for layout in layouts]
        for first, names, others in columns:
            if first.rule is kernel.rule and found == [other.layout for other in others]:
                names.append(_version(kernel))
                break
        else:
            columns.append((kernel, [f"`{_rule(kernel)}`: {_version(kernel)}"], layouts))
    return {", ".join(names): layouts for _, names, layouts in columns}


def _version(kernel: KernelUnderSetting) -> str:
    version = ".".join(kernel.release.split("-")[0].split("+")[0].split(".")[:2])
    return version if kernel.origin.startswith("Debian's stock") else f"{version} built"


def _rule(kernel: KernelUnderSetting) -> str:
    return kernel.rule.value if kernel.rule else "no known rule"


def _name(kernel: KernelUnderSetting) -> str:
    return f"{_version(kernel)}, `{_rule(kernel)}`"


def _coverage_and_faults(
    columns: dict[str, list[RecordedLayout]], first_head: str
) -> MarkdownTable:
    rows = []
    for cells in zip(*columns.values(), strict=True):
        best = max(layout.huge_kib for layout in cells)
        head = [f"{cells[0].lengths[0]:,} KiB", cells[0].touch.value]
        rows.append([*head, *(_cell(layout, best) for layout in cells)])
    heads = [first_head, "touched", *columns]
    return markdown_table(heads, rows, numeric=range(2, len(heads)))


def _cell(layout: RecordedLayout, best: int) -> str:
    text = f"{layout.layout.coverage:.0%} · {layout.minor_faults:,}"
    return f"**{text}**" if layout.huge_kib == best > 0 else text


def winners(record: KernelsRecord | NotObservable) -> MarkdownTable | NotObservable:
    """Return coverage and faults by size and order, by kernels; the best is bold."""
    if isinstance(record, NotObservable):
        return record
    columns = _alike(record, lambda kernel: kernel.layouts)
    return _coverage_and_faults(columns, "16 mappings of")


def malloc(record: KernelsRecord | NotObservable) -> MarkdownTable | NotObservable:
    """Return what glibc's `malloc` of round sizes gets, by kernels."""
    if isinstance(record, NotObservable):
        return record
    columns = _alike(record, lambda kernel: kernel.malloc)
    return _coverage_and_faults(columns, "16 times `malloc` of")


def holes(record: KernelsRecord | NotObservable) -> MarkdownTable | NotObservable:
    """Return VMAs and holes after all are mapped, by kernels."""
    if isinstance(record, NotObservable):
        return record
    columns = _alike(record, lambda kernel: kernel.layouts)
    rows = [
        [
            f"{cells[0].lengths[0]:,} KiB",
            *(f"{layout.vmas} · {layout.gap_kib:,} KiB" for layout in cells),
        ]
        for cells in zip(*columns.values(), strict=True)
        if cells[0].touch is Touch.AFTER
    ]
    heads = ["16 mappings of", *columns]
    return markdown_table(heads, rows, numeric=range(1, len(heads)))


def small_buffers(
    record: KernelsRecord | NotObservable, kib: int = 1536
) -> MarkdownTable | NotObservable:
    """Return the faults of buffers below a PMD, each touched as it is mapped, by page sizes."""
    if isinstance(record, NotObservable):
        return record
    kernels: dict[tuple[str, int, str], list[str]] = {}
    for kernel in record.kernels:
        for layout in kernel.layouts if kernel.thp_mode == "always" else ():
            alike = set(layout.lengths) == {kib} and layout.top_offset == 0
            if alike and layout.touch is Touch.EACH:
                sizes = ", ".join(f"{size:,}" for size in kernel.mthp) or "none"
                counted = (f"{n:,} of {size:,} KiB" for size, n in layout.faults_by_size.items())
                given = ", ".join(counted) or "none"
                found = sizes, layout.minor_faults, given
                kernels.setdefault(found, []).append(_name(kernel))
    rows = [
        (sizes, f"{faults:,}", given, "; ".join(names))
        for (sizes, faults, given), names in sorted(kernels.items(), key=lambda row: -row[0][1])
    ]
    columns = ("sizes in KiB", "minor faults", "pages given, whole guest", "kernels")
    return markdown_table(columns, rows, numeric=(1,))


def openvino(record: KernelsRecord | NotObservable) -> MarkdownTable | NotObservable:
    """Return what a process of OpenVINO looks like under each kernel."""
    if isinstance(record, NotObservable):
        return record
    rows = [
        (
            _name(kernel),
            f"`{kernel.thp_mode}`" + (", advised" if found.advised else ""),
            found.vmas,
            f"{found.holes} · {found.hole_kib / KIB:,.0f} MiB",
            f"{found.huge_kib / found.anon_kib:.0%}",
            f"{found.load_faults:,}",
            f"{sum(found.inference_faults):,}",
        )
        for kernel in record.kernels
        if not kernel.mthp
        for found in kernel.openvino
    ]
    if not rows:
        return NotObservable("OpenVINO was not installed when the record was made")
    columns = ("kernel", "THP", "VMAs", "holes", "coverage", "faults: load", "faults: inferences")
    return markdown_table(columns, rows, numeric=(2, 3, 4, 5, 6))


def openvino_sentence(record: KernelsRecord | NotObservable) -> Sentence:
    """Compare OpenVINO under the two kernels that differ in one line, with glibc's advice."""
    if isinstance(record, NotObservable):
        return Sentence(str(record))
    advised = {
        kernel.rule: found
        for kernel in record.kernels
        if kernel.origin.startswith("built") and kernel.thp_mode == "madvise" and not kernel.mthp
        for found in kernel.openvino
        if found.advised
    }
    if not {Rule.FORCED, Rule.MULTIPLES} <= advised.keys():
        return Sentence("The record has no OpenVINO under the two kernels that differ in one line.")
    with_rule, with_fix = advised[Rule.FORCED], advised[Rule.MULTIPLES]
    return Sentence(
        f"Advised, the inferences took {sum(with_rule.inference_faults):,} minor faults with the "
        f"rule that is blamed and {sum(with_fix.inference_faults):,} with its fix; "
        f"{with_rule.huge_kib / with_rule.anon_kib:.0%} and "
        f"{with_fix.huge_kib / with_fix.anon_kib:.0%} of anonymous memory were huge."
    )


def difference(record: KernelsRecord | NotObservable) -> MarkdownTable | NotObservable:
    """Return the lines in which the two built kernels differ, as a diff."""
    if isinstance(record, NotObservable):
        return record
    before, after = record.change.before, record.change.after
    lines = difflib.unified_diff(
        before.splitlines(),
        after.splitlines(),
        "a/" + record.change.file,
        "b/" + record.change.file,
        lineterm="",
    )
    return MarkdownTable("```diff\n" + "\n".join(lines) + "\n```")


def marks(record: KernelsRecord | NotObservable, touch: Touch) -> list[Line]:
    """Return the coverage of equal mappings on each recorded kernel, as marks for a chart.

    They are those whose top lies where :data:`hugeprobe.sweep.TOP_OFFSET_KIB` says.
    """
    if isinstance(record, NotObservable):
        return []
    lines: list[Line] = []
    for kernel in plain(record):
        found = [
            layout
            for layout in kernel.layouts
            if len(set(layout.lengths)) == 1
            and layout.top_offset == TOP_OFFSET_KIB * KIB
            and layout.touch is touch
        ]
        if kernel.rule is None or not found:
            continue
        sizes = [layout.lengths[0] / KIB for layout in found]
        coverage = [layout.layout.coverage for layout in found]
        name = "" if lines else "real kernels"
        lines.append(Line(name, sizes, coverage, RULE_COLOURS[kernel.rule], "o"))
    return lines
