"""Address spaces as strips, to one scale."""

from __future__ import annotations

from typing import TYPE_CHECKING

from matplotlib.patches import Rectangle
from matplotlib.ticker import FuncFormatter
from tabulate import tabulate

from hugeprobe.drawing.palette import BASE, GAP, HUGE, INK
from hugeprobe.drawing.picture import Picture, finish, styled
from hugeprobe.sizes import MIB, format_kib

if TYPE_CHECKING:
    from collections.abc import Mapping

    from matplotlib.axes import Axes

    from hugeprobe.placement import Layout
    from hugeprobe.sizes import PageSizes


def address_spaces(layouts: Mapping[str, Layout], sizes: PageSizes, title: str) -> Picture:
    """Draw modelled layouts as strips of address space, one above the other, to one scale.

    Parameters
    ----------
    layouts
        By the name of their rule; models, because measurements do not know which ranges are huge.
    sizes
        Page sizes, for the PMD boundaries.
    title
        What the picture shows.
    """
    with styled(0.75 + 0.62 * len(layouts)) as figure:
        axes = figure.subplots()
        deepest = max(m.start_offset for layout in layouts.values() for m in layout.mappings) / MIB
        for row, (name, layout) in enumerate(layouts.items()):
            _strip(axes, -row, layout, sizes)
            huge = f"{layout.coverage:.0%} huge"
            axes.text(
                -deepest, 0.45 - row, f"{name} · {huge} · {layout.minor_faults:,} faults", size=8.5
            )
        axes.set(
            xlim=(-deepest - 0.1, 0.1),
            ylim=(0.75 - len(layouts), 0.65),
            yticks=[],
            xlabel="MiB below the top of the free address space; grid lines 2 MiB apart",
        )
        pmd = sizes.pmd / MIB
        axes.set_xticks([-i * pmd for i in range(int(deepest / pmd) + 1)])
        axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{abs(x):.0f}"))
        axes.spines["left"].set_visible(False)
        figure.legend(
            handles=[
                Rectangle((0, 0), 1, 1, color=HUGE, label="huge page"),
                Rectangle((0, 0), 1, 1, color=BASE, label="base pages"),
                Rectangle((0, 0), 1, 1, fill=False, hatch="////", color=GAP, label="hole"),
            ],
            loc="outside upper right",
            ncols=3,
        )
        return finish(figure, title, _layouts_text(layouts))


def _strip(axes: Axes, y: float, layout: Layout, sizes: PageSizes) -> None:
    """Draw one layout, with the first mapping at the right, where the addresses are highest."""
    height, lower = 0.34, y
    above: float | None = None
    for number, mapping in enumerate(layout.mappings, 1):
        start, length = -mapping.start_offset / MIB, mapping.length / MIB
        axes.add_patch(Rectangle((start, lower), length, height, facecolor=BASE, linewidth=0))
        if above is not None and start + length < above:
            gap = (start + length, lower)
            axes.add_patch(
                Rectangle(gap, above - gap[0], height, fill=False, hatch="////", color=GAP, lw=0)
            )
        axes.text(start + length / 2, lower - 0.02, str(number), ha="center", va="top", size=7.5)
        above = start
    for offset in layout.huge_offsets or ():
        axes.add_patch(
            Rectangle(
                (-offset / MIB, lower), sizes.pmd / MIB, height, facecolor=HUGE, edgecolor="none"
            )
        )
    for mapping in layout.mappings:
        start, length = -mapping.start_offset / MIB, mapping.length / MIB
        axes.add_patch(Rectangle((start, lower), length, height, fill=False, color=INK, lw=1))


def _layouts_text(layouts: Mapping[str, Layout]) -> str:
    rows = [
        [name, f"{x.coverage:.1%}", f"{x.minor_faults:,}", x.vmas, format_kib(x.gap_kib)]
        for name, x in layouts.items()
    ]
    return tabulate(rows, ["rule", "coverage", "faults", "VMAs", "holes"])
