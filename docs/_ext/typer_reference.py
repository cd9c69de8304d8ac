"""Directive ``typer-reference``: the commands and options of a Typer application, from itself.

``{typer-reference} package.module:app`` writes a section for each command: what it does, how it is
called, and a table of its arguments and options. It knows nothing of what the application does.
"""

from __future__ import annotations

import importlib
import inspect
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sphinx.util.docutils import SphinxDirective
from tabulate import tabulate
from typer.main import get_command

if TYPE_CHECKING:
    from collections.abc import Iterator

    from docutils import nodes
    from sphinx.application import Sphinx
    from sphinx.util.typing import ExtensionMetadata


class TyperReference(SphinxDirective):
    """Describe every command of an application."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        """Parse the description as the page's own text, so that headings become sections."""
        module, _, name = self.arguments[0].partition(":")
        try:
            application = getattr(importlib.import_module(module), name)
        except (ImportError, AttributeError) as error:
            raise self.error(f"{self.arguments[0]} cannot be described: {error}") from error
        for file in _sources(module):
            self.env.note_dependency(str(file))
        group: Any = get_command(application)
        program = module.partition(".")[0]
        text = "\n\n".join(
            described(program, command_name, command)
            for command_name, command in group.commands.items()
        )
        return self.parse_text_to_nodes(text, allow_section_headings=True)


def _sources(module: str) -> Iterator[Path]:
    """Yield the files of the package that the application is in, for the page to depend on."""
    file = inspect.getsourcefile(importlib.import_module(module))
    if file is not None:
        yield from Path(file).parent.glob("*.py")


def described(program: str, name: str, command: Any) -> str:
    """Return one command as Markdown."""
    usage = [program, name, *(_metavar(each) for each in command.params if _is_argument(each))]
    rows = [
        [_spelling(each), _one_line(each.help or ""), _default(each)]
        for each in command.params
        if each.name != "help" and not getattr(each, "hidden", False)
    ]
    options = " [OPTIONS]" if len(rows) > len(usage) - 2 else ""
    table = tabulate(rows, ["argument or option", "meaning", "default"], tablefmt="pipe")
    return "\n\n".join(
        [
            f"## `{program} {name}`",
            inspect.cleandoc(command.help or ""),
            f"```console\n$ {' '.join(usage)}{options}\n```",
            table if rows else "",
        ]
    )


def _is_argument(parameter: Any) -> bool:
    return bool(parameter.param_type_name == "argument")


def _metavar(parameter: Any) -> str:
    return str(parameter.metavar or (parameter.name or "").upper())


def _spelling(parameter: Any) -> str:
    if _is_argument(parameter):
        return _code(_metavar(parameter))
    spelled = " / ".join([*parameter.opts, *parameter.secondary_opts])
    if getattr(parameter, "is_flag", False):
        return _code(spelled)
    return _code(f"{spelled} {_metavar(parameter)}")


def _code(text: str) -> str:
    """Return text as code in a table, where a bar would end the cell."""
    return f"`{text}`".replace("|", r"\|")


def _default(parameter: Any) -> str:
    value = parameter.default
    if value in (None, False, (), "") or callable(value) or parameter.required:
        return ""
    return _code(str(getattr(value, "value", value)))


def _one_line(text: str) -> str:
    return re.sub(r"\s+", " ", text).replace("|", r"\|")


def setup(app: Sphinx) -> ExtensionMetadata:
    """Register the directive."""
    app.add_directive("typer-reference", TyperReference)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
