"""Stacked bars."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tabulate import tabulate

from hugeprobe.drawing.picture import Picture, finish, styled

if TYPE_CHECKING:
    from collections.abc import Mapping


def bars(
    rows: Mapping[str, Mapping[str, float]],
    colours: Mapping[str, str],
    x_label: str,
    title: str,
) -> Picture:
    """Draw horizontal stacked bars.

    Parameters
    ----------
    rows
        Value of each part, by the name of the bar; parts in the order they are stacked.
    colours
        Colour of each part.
    x_label
        With the unit.
    title
        The finding, in words.
    """
    with styled(0.9 + 0.36 * len(rows)) as figure:
        axes = figure.subplots()
        names = list(rows)[::-1]
        left = [0.0] * len(names)
        for part, colour in colours.items():
            values = [rows[name].get(part, 0.0) for name in names]
            axes.barh(names, values, left=left, color=colour, label=part, height=0.62)
            left = [a + b for a, b in zip(left, values, strict=True)]
        axes.set(xlabel=x_label)
        axes.grid(axis="y", visible=False)
        axes.tick_params(axis="y", length=0)
        axes.spines["left"].set_visible(False)
        figure.legend(loc="outside upper left", ncols=min(4, len(colours)))
        text = tabulate(
            [[name, *(f"{rows[name].get(part, 0.0):,.0f}" for part in colours)] for name in rows],
            [x_label, *colours],
        )
        return finish(figure, title, text)
