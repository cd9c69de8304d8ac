"""What the page "Allocators" shows."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, TypeVar

from hugeprobe.allocators import SIZES
from hugeprobe.coverage import mode_of
from hugeprobe.drawing import MarkdownTable, Picture, Sentence, Shares, markdown_table, share_tables
from hugeprobe.errors import NotObservable
from hugeprobe.figures.common import TOUCH_WORDS
from hugeprobe.host import effective_sizes
from hugeprobe.placement import Touch
from hugeprobe.sizes import KIB, MIB, format_kib

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from hugeprobe.allocators import Allocation, Preloaded
    from hugeprobe.host import HostFacts

    Found = Sequence[Allocation | NotObservable]
    Runs = Sequence[Preloaded | NotObservable]

_GOOD: Final = 0.8
"""Coverage that counts as most; where jemalloc advises, chance moves it by some points."""
_ALIKE: Final = 0.15
"""Difference of coverage that chance makes: two of 16 blocks of 2 MiB around a boundary that the
addresses happen to cross are huge, and jemalloc places large blocks at random."""
_PMD: Final = 2 * MIB

Result = TypeVar("Result")


def telling_sizes(facts: HostFacts) -> tuple[int, ...]:
    """Return the sizes that differ on this host: one is enough where huge pages are off."""
    return SIZES if mode_of(facts) in ("always", "madvise") else (2 * MIB,)


def _observed(results: Iterable[Result | NotObservable]) -> list[Result]:
    return [result for result in results if not isinstance(result, NotObservable)]


def _missing(results: Iterable[object]) -> list[str]:
    return list(dict.fromkeys(str(each) for each in results if isinstance(each, NotObservable)))


def measured(found: Found, facts: HostFacts) -> Sentence:
    """Say how much was measured, what was missing, and what of the host changes the picture."""
    said = [
        f"{len(_observed(found))} of {len(found)} measurements took place, each in a new process."
    ]
    if mode_of(facts) not in ("always", "madvise"):
        said.append("Huge pages are off here, so that nothing can be huge; one size is shown.")
    if smaller := [kib for kib in effective_sizes(facts, advised=True) if kib < 2048]:
        sizes = ", ".join(map(format_kib, smaller))
        said.append(
            f"This host also gives pages of {sizes}: fewer faults, and not counted as huge."
        )
    return Sentence(" ".join([*said, *_missing(found)]))


def _none(found: Sequence[object]) -> Sentence:
    return Sentence(" ".join(["Nothing could be measured.", *_missing(found)]))


def size_name(size: int) -> str:
    """Return bytes as whole quarters of a MiB and what is missing: ``2 MiB``, ``2 MiB - 24 B``.

    >>> size_name(1536 * 1024), size_name(2044 * 1024)
    ('1.5 MiB', '2 MiB - 4 KiB')
    """
    quarters = -(-size * 4 // MIB)
    less = quarters * MIB // 4 - size
    name = f"{quarters / 4:g} MiB"
    if not less:
        return name
    return f"{name} - {less // KIB} KiB" if less % KIB == 0 else f"{name} - {less:,} B"


def _by_allocator(found: Found, touch: Touch) -> dict[str, dict[int, Allocation]]:
    """Return the measurements of one order by the names of allocators and by size."""
    rows: dict[str, dict[int, Allocation]] = {}
    for each in _observed(found):
        if each.request.touch is touch:
            rows.setdefault(each.allocator.name, {})[each.request.size] = each
    return rows


def _sizes(found: Found) -> list[int]:
    return sorted({each.request.size for each in _observed(found)})


def coverage_picture(found: Found) -> Picture | Sentence:
    """Draw coverage by allocator and size, one table for each order of the first write."""
    sizes = _sizes(found)
    if not sizes:
        return _none(found)
    panels = [
        Shares(
            TOUCH_WORDS[touch],
            {
                name: [cells[size].coverage if size in cells else None for size in sizes]
                for name, cells in _by_allocator(found, touch).items()
            },
        )
        for touch in Touch
    ]
    names = [size_name(size).replace(" MiB", "", 1).replace(" -", "\n-") for size in sizes]
    return share_tables(
        panels,
        names,
        "MiB, size of each block",
        "Share of memory that is huge, by allocator, size of the blocks and order of the writes",
    )


def faults_table(found: Found) -> MarkdownTable | Sentence:
    """Return the minor faults of blocks that are written at once, and the most that was held."""
    sizes = _sizes(found)
    if not sizes:
        return _none(found)
    rows = []
    for name, cells in _by_allocator(found, Touch.EACH).items():
        faults = [
            f"{cells[size].blocks.minor_faults:,}" if size in cells else "-" for size in sizes
        ]
        most = max(each.resident.anon_kib / each.asked_kib for each in cells.values())
        rows.append([name, *faults, f"{most:.0%}"])
    columns = ["allocator", *(size_name(size).replace(" MiB", "", 1) for size in sizes), "held"]
    return markdown_table(columns, rows, numeric=range(1, len(columns)))


def winners_sentence(found: Found) -> Sentence:
    """Name the settings under which every size is nearly all huge in both orders."""
    rows: dict[str, list[float]] = {}
    for each in _observed(found):
        rows.setdefault(each.allocator.name, []).append(each.coverage)
    if not rows:
        return _none(found)
    good = [f"`{name}`" for name, shares in rows.items() if min(shares) >= _GOOD]
    names = f": {', '.join(good)}" if good else ""
    return Sentence(
        f"On this host {len(good)} of {len(rows)} settings made at least {_GOOD:.0%} of the memory "
        f"huge at every size{names}."
    )


def order_sentence(found: Found) -> Sentence:
    """Say in how many cases the order of the first write changed the coverage."""
    each, after = (_by_allocator(found, touch) for touch in Touch)
    pairs = [
        (cell.coverage, after[name][size].coverage)
        for name, cells in each.items()
        for size, cell in cells.items()
        if size in after.get(name, {})
    ]
    if not pairs:
        return _none(found)
    changed = sum(abs(first - second) > _ALIKE for first, second in pairs)
    return Sentence(
        f"The order of the first write changed the coverage by more than {_ALIKE * 100:.0f} "
        f"percentage points in {changed} of {len(pairs)} cases."
    )


def mapping_name(length: int) -> str:
    """Return bytes as the nearest multiple of 2 MiB and what is beyond or missing.

    >>> mapping_name(2 * 1024 * 1024), mapping_name(2052 * 1024), mapping_name(2044 * 1024)
    ('2 MiB', '2 MiB + 4 KiB', '2 MiB - 4 KiB')
    """
    whole = round(length / _PMD) * _PMD
    rest = (length - whole) // KIB
    name = f"{whole // MIB} MiB"
    return f"{name} {'+' if rest > 0 else '-'} {abs(rest):,} KiB" if rest else name


def mappings_table(found: Found) -> MarkdownTable | Sentence:
    """Return what glibc maps for requests around multiples of 2 MiB, and what that comes to."""
    rows = []
    for each in _observed(found):
        spans = each.spans
        lengths = {mapping_name(span.length) for span in spans}
        aligned = sum(span.start % _PMD == 0 for span in spans)
        rows.append(
            [
                size_name(each.request.size),
                " or ".join(sorted(lengths)),
                f"{aligned} of {len(spans)}",
                f"{each.coverage:.0%}",
                f"{each.blocks.minor_faults:,}",
            ]
        )
    if not rows:
        return _none(found)
    columns = ["asked of `malloc`", "it maps", "on a boundary", "huge", "minor faults"]
    return markdown_table(columns, rows, numeric=(2, 3, 4))


def edge_sentence(found: Found) -> Sentence:
    """Say what the last byte before glibc maps one page more is worth on this host."""
    of_size = {each.request.size: each.blocks.minor_faults for each in _observed(found)}
    fits, over = of_size.get(_PMD - 24), of_size.get(_PMD - 23)
    if fits is None or over is None:
        return _none(found)
    return Sentence(
        f"On this host, 16 blocks of {_PMD - 24:,} bytes cost {fits:,} minor faults, and blocks of "
        f"one byte more {over:,}."
    )


def preload_table(runs: Runs) -> MarkdownTable | Sentence:
    """Return how each run under a preloaded allocator ended."""
    rows: dict[str, dict[str, str]] = {}
    for run in _observed(runs):
        ended = (run.failure or "worked").removeprefix("The measured process was ")
        rows.setdefault(run.allocator.name, {})[_column(run)] = ended.rstrip(".")
    if not rows:
        return _none(runs)
    columns = list(dict.fromkeys(map(_column, _observed(runs))))
    table = [
        [name, *(cells.get(column, "-") for column in columns)] for name, cells in rows.items()
    ]
    return markdown_table(["preloaded", *columns], table)


def _column(run: Preloaded) -> str:
    name = f"{run.runtime.label} {run.version}"
    return f"{name}, `TBB_ENABLE_SANITIZERS=1`" if run.cured else name


def preload_sentence(runs: Runs) -> Sentence:
    """Say how many preloaded allocators ended OpenVINO, and how many did with the cure."""
    observed = [run for run in _observed(runs) if run.runtime.name == "openvino"]
    plain, cured = ([run for run in observed if run.cured is wanted] for wanted in (False, True))
    if not plain:
        return _none(runs)
    return Sentence(
        f"On this host {_failed(plain)} of {len(plain)} preloaded allocators ended OpenVINO "
        f"{plain[0].version} while it loaded a model; with `TBB_ENABLE_SANITIZERS=1`, "
        f"{_failed(cured)} of {len(cured)} did. {' '.join(_missing(runs))}".rstrip()
    )


def _failed(runs: Sequence[Preloaded]) -> int:
    return sum(run.failure is not None for run in runs)
