"""``hugeprobe record``."""

from __future__ import annotations

from pathlib import Path  # noqa: TC003 - Typer reads it at run time
from typing import Annotated

import typer

from hugeprobe import hostrecord, recording, records
from hugeprobe.cli.output import app, say
from hugeprobe.errors import BadRequestError


@app.command("record")
def record(
    output: Annotated[
        Path | None,
        typer.Option(help="File to write, or a folder in which it gets a name; else print it."),
    ] = None,
    infer: Annotated[
        bool,
        typer.Option("--infer/--no-infer", help="Also count what a tiny model on OpenVINO takes."),
    ] = True,
) -> None:
    """Record what this host gives, as JSON that can be published.

    Takes seconds, needs no privilege and changes nothing. The record holds
    counts, settings of the kernel, and words that are known, such as the model of
    the processor. It has no field for names of people or machines, addresses,
    paths, environment or command lines, and withholds what it does not know.
    """
    if output is not None and not (output.is_dir() or output.parent.is_dir()):
        raise BadRequestError(
            f"The record was to be written to '{output}', but that folder does not exist. "
            "Make it, or give another with --output."
        )
    found = recording.measure(infer=infer)
    if output is None:
        typer.echo(records.text_of(found), nl=False)
        return
    try:
        if output.is_dir():
            output = hostrecord.save(found, output)
        else:
            records.write(output, found)
    except OSError as error:
        raise BadRequestError(
            f"The record was to be written to '{output}', which cannot be: {error.strerror}. "
            "Give another file or folder with --output."
        ) from error
    say(f"{output.name} holds what this host gives. Read it; it names nobody.")
