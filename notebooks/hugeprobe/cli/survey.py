"""``hugeprobe survey``."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from hugeprobe import optional
from hugeprobe.cli.output import AsJson, app, print_json, table
from hugeprobe.errors import BadRequestError
from hugeprobe.survey import cluster, differences
from hugeprobe.survey import table as answers

if TYPE_CHECKING:
    from hugeprobe.survey.outcome import Survey

INCOMPLETE: Final = 3
"""Exit status of a survey in which a node gave no answer."""


@app.command("survey")
def show_survey(  # noqa: PLR0917 - Typer reads the options from the parameters
    scheduler: Annotated[
        str | None,
        typer.Option(help="Address of the Dask scheduler; without it, this machine is asked."),
    ] = None,
    bench: Annotated[
        bool,
        typer.Option(
            "--bench", help="Also count faults and huge memory: a second and 64 MiB on each node."
        ),
    ] = False,
    timeout: Annotated[
        float, typer.Option(help="Seconds that a node has for its answer.")
    ] = cluster.TIMEOUT,
    expect: Annotated[int, typer.Option(help="Wait until so many nodes have joined.")] = 1,
    names: Annotated[
        bool, typer.Option("--names", help="Show, and write, names and addresses of workers.")
    ] = False,
    output: Annotated[Path, typer.Option(help="File to write, one row a node.")] = Path(
        "survey.parquet"
    ),
    as_json: AsJson = False,
) -> None:
    """Ask every node of a Dask cluster for its facts and its rule; show which nodes differ.

    Ends with status 3 if a node gave no answer.
    """
    _check(timeout, expect, output)
    found = cluster.survey(scheduler, count=bench, timeout=timeout, expect=expect, names=names)
    answers.write(found, output)
    if as_json:
        print_json(_as_object(found))
    else:
        _print(found)
    if not found.is_complete:
        raise typer.Exit(INCOMPLETE)


def _check(timeout: float, expect: int, output: Path) -> None:
    """Refuse what would fail only after the nodes have been asked."""
    if timeout <= 0 or expect < 1:
        raise BadRequestError(
            f"A survey of {expect} nodes with {timeout:g} s for each was asked for. "
            "Give at least one node and some time."
        )
    if not output.parent.is_dir():
        raise BadRequestError(
            f"The answers were to be written to '{output}', but that folder does not exist. "
            "Make it, or give another file with --output."
        )
    optional.load("pyarrow", cluster.EXTRA)


def _as_object(found: Survey) -> dict[str, object]:
    answered = found.answers
    return {
        "sentence": found.sentence,
        "silent": found.silent,
        "missing": found.missing,
        "differences": [
            {
                "fact": each.common.fact.column,
                "common": each.common.value,
                "value": each.value,
                "nodes": each.nodes,
                "sentence": each.sentence,
            }
            for each in differences.differences(answered)
        ],
        "doubts": differences.doubts(answered),
        "answers": {number: dataclasses.asdict(each) for number, each in answered.items()},
    }


def _print(found: Survey) -> None:
    answered = found.answers
    if answered:
        table(
            "What most nodes have",
            ("fact", "value", "nodes"),
            (
                (each.fact.name, differences.written(each.value), f"{each.nodes:,}")
                for each in differences.commons(answered)
            ),
        )
    typer.echo(found.sentence)
    for node in found.silent:
        typer.echo(f"{node}: {node.answer}")
    named = {node.number: str(node) for node in found.nodes if node.name}
    for remark in differences.remarks(answered):
        who = ", ".join(named[number] for number in remark.nodes if named)
        typer.echo(f"{who or differences.numbers(remark.nodes)}: {remark.sentence}")
