"""The answers of a survey as one Parquet file, for pandas, Polars, DuckDB and the like."""

from __future__ import annotations

import dataclasses
import json
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any, Final

from hugeprobe import __version__, optional
from hugeprobe.survey.cluster import EXTRA
from hugeprobe.survey.facts import FACTS
from hugeprobe.survey.outcome import NoAnswer

if TYPE_CHECKING:
    from pathlib import Path

    from hugeprobe.survey.outcome import Node, Survey

_TYPES: Final = {str: "string", int: "int64", bool: "bool"}


def write(survey: Survey, path: Path) -> None:
    """Write one row a node to ``path``, whole or not at all.

    Columns: ``node``, the number; ``failure``, null for nodes that answered; ``kernel_key``, equal
    for nodes that share a running kernel; one for each of :data:`~hugeprobe.survey.facts.FACTS`;
    ``answer``, all that the node said, as JSON; ``name`` only if names were asked for.

    Raises
    ------
    BadRequestError
        If pyarrow is not installed.
    """
    arrow = optional.load("pyarrow", EXTRA)
    parquet = optional.load("pyarrow.parquet", EXTRA)
    columns = {
        "node": "int64",
        "failure": "string",
        "kernel_key": "string",
        **{fact.column: _TYPES[fact.kind] for fact in FACTS},
        "answer": "string",
    }
    if any(node.name for node in survey.nodes):
        columns["name"] = "string"
    schema = arrow.schema(
        [(name, arrow.type_for_alias(kind)) for name, kind in columns.items()],
        metadata={"hugeprobe": __version__, "date": f"{datetime.now(timezone.utc):%Y-%m-%d}"},
    )
    rows = [_row(node) for node in survey.nodes]
    unfinished = path.with_name(path.name + ".new")
    parquet.write_table(arrow.Table.from_pylist(rows, schema), unfinished)
    unfinished.replace(path)


def _row(node: Node) -> dict[str, Any]:
    """Return the values of a node by column; columns that are not in it become null."""
    row: dict[str, Any] = {"node": node.number, "name": node.name}
    if isinstance(node.answer, NoAnswer):
        return {**row, "failure": node.answer.reason}
    answer = node.answer
    return {
        **row,
        "kernel_key": answer.kernel_key,
        **{fact.column: fact.of(answer) for fact in FACTS},
        "answer": json.dumps(dataclasses.asdict(answer)),
    }
