"""The application, and how every command prints: tables for people, JSON for programs."""

from __future__ import annotations

import dataclasses
import json
from enum import Enum
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

if TYPE_CHECKING:
    from collections.abc import Iterable

app = typer.Typer(
    help="See which memory of a Linux process is backed by huge pages, and why.",
    no_args_is_help=True,
    rich_markup_mode="markdown",
    add_completion=False,
    pretty_exceptions_enable=False,
)

AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object instead of tables.")]


def print_json(value: Any) -> None:
    """Print ``value`` as JSON: data classes as objects, enumerations as their values."""

    def plain(item: Any) -> Any:
        if dataclasses.is_dataclass(item) and not isinstance(item, type):
            return dataclasses.asdict(item)
        return item.value if isinstance(item, Enum) else str(item)

    typer.echo(json.dumps(value, default=plain, indent=2))


def table(
    title: str, columns: Iterable[str], rows: Iterable[Iterable[object]], *, error: bool = False
) -> None:
    """Print a table whose first column is a name and whose others are figures.

    Columns without a heading hold words, and are set as such. It goes to standard error if asked
    to.
    """
    drawn = Table(title=title, title_justify="left", title_style="bold")
    for index, column in enumerate(columns):
        drawn.add_column(column, justify="right" if index and column else "left", overflow="fold")
    for row in rows:
        drawn.add_row(*(escape(str(cell)) for cell in row))
    Console(stderr=error).print(drawn)


def say(text: str, *, error: bool = False) -> None:
    """Print a sentence, wrapped at words; on standard error if asked to."""
    Console(stderr=error).print(text, markup=False, highlight=False)
