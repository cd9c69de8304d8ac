"""Recorded evidence: JSON that says when and by which command it was made, and proves it is whole.

A record is a data class; its file holds the fields, and beside them ``digest``, the SHA-256 of
everything else in canonical form (RFC 8259 JSON, sorted keys, no spaces). What is read back is what
was measured: a record changed by hand has another digest and is refused.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from enum import Enum
from typing import TYPE_CHECKING, Any, Final, TypeVar

from pydantic import ConfigDict, TypeAdapter, ValidationError, with_config

from hugeprobe.errors import MalformedError, NotObservable

if TYPE_CHECKING:
    from pathlib import Path

Record = TypeVar("Record")

EXACTLY: Final = with_config(ConfigDict(extra="forbid"))
"""Decorator of a record's data classes: a field that they do not have is an error."""

_DIGEST: Final = "digest"
_LONGEST_LINE: Final = 2000


def write(path: Path, record: object) -> None:
    """Write a data class to ``path``, whole or not at all."""
    text = text_of(record)
    unfinished = path.with_name(path.name + ".new")
    unfinished.write_text(text, encoding="utf-8")
    unfinished.replace(path)


def text_of(record: object) -> str:
    """Return what :func:`write` writes."""
    if not dataclasses.is_dataclass(record) or isinstance(record, type):
        raise TypeError(f"a record is an instance of a data class, not {record!r}")
    # Through JSON and back, so that the digest is of what a reader will find.
    content = json.loads(json.dumps(dataclasses.asdict(record), default=_plain))
    return _pretty({_DIGEST: digest(content), **content}) + "\n"


def read(path: Path, schema: type[Record]) -> Record | NotObservable:
    """Return the record in ``path``, or :class:`NotObservable` where there is none.

    Raises
    ------
    MalformedError
        If it is not JSON, was changed after it was measured, or does not have the fields and types
        of ``schema``.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return NotObservable(f"the record {path.name} has not been made yet")
    except ValueError as error:
        raise MalformedError(
            f"The record {path.name} was to be read, but it is not JSON: {error}. "
            "Bring back the recorded one, or make it anew."
        ) from error
    found = content.pop(_DIGEST, None) if isinstance(content, dict) else None
    if found != digest(content):
        raise MalformedError(
            f"The record {path.name} was to be read, but its digest does not fit what it says: it "
            "was changed after it was measured. Bring back the recorded one, or make it anew."
        )
    try:
        return TypeAdapter(schema).validate_json(json.dumps(content), strict=True)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(step) for step in first["loc"])
        raise MalformedError(
            f"The record {path.name} was to be read, but {where}: {first['msg']}. It was made by "
            "another version of hugeprobe; make it anew."
        ) from error


def digest(content: Any) -> str:
    """Return the SHA-256 of ``content`` as canonical JSON, in hexadecimal digits."""
    text = json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()


def _plain(value: object) -> object:
    if isinstance(value, Enum):
        return value.value
    raise TypeError(f"a record cannot hold {value!r}")


def _pretty(value: Any, margin: str = "") -> str:
    """Return JSON that breaks lines only where one would be too long to compare by eye."""
    line = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    if len(line) <= _LONGEST_LINE or not isinstance(value, dict | list):
        return line
    inner = margin + " "
    if isinstance(value, dict):
        parts = [f"{json.dumps(name)}: {_pretty(item, inner)}" for name, item in value.items()]
    else:
        parts = [_pretty(item, inner) for item in value]
    opening, closing = "{}" if isinstance(value, dict) else "[]"
    body = f",\n{inner}".join(parts)
    return f"{opening}\n{inner}{body}\n{margin}{closing}"
