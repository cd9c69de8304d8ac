"""The directive that describes a command line from the program itself."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import pytest
import typer
from typer.main import get_command
from typer_reference import described

if TYPE_CHECKING:
    from typing import Any

app = typer.Typer()


@app.command()
def paint(
    colour: Annotated[str, typer.Argument(help="Such as red | blue.")],
    coats: Annotated[int, typer.Option(help="Layers of it.")] = 2,
    dry: Annotated[bool, typer.Option("--dry/--wet", help="Wait in between.")] = False,
) -> None:
    """Paint something.

    It takes a while.
    """


@app.command()
def wash() -> None:
    """Wash the brush."""


@pytest.fixture
def commands() -> dict[str, Any]:
    group: Any = get_command(app)
    found: dict[str, Any] = group.commands
    return found


def test_argument_options_and_defaults_are_listed(commands: dict[str, Any]) -> None:
    text = described("studio", "paint", commands["paint"])
    assert text.startswith("## `studio paint`\n\nPaint something.\n\nIt takes a while.")
    assert "$ studio paint COLOUR [OPTIONS]" in text
    assert r"Such as red \| blue." in text
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in text.splitlines()]
    assert ["`--coats COATS`", "Layers of it.", "`2`"] in rows
    assert ["`--dry / --wet`", "Wait in between.", ""] in rows


def test_a_command_without_options_has_no_table(commands: dict[str, Any]) -> None:
    text = described("studio", "wash", commands["wash"])
    assert "$ studio wash\n" in text
    assert "|" not in text
