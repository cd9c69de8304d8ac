"""Which packages a notebook needs: what its code reaches in ``hugeprobe``, followed to its imports.

Followed are imports, and from the notebook's own code on every function, class and constant that
is named, so that an import inside a function counts only where the function can be reached. Text
counts, too, where it is the name of a module or a package: that is how programs are started and
optional packages are loaded.
"""

from __future__ import annotations

import ast
import functools
import json
import re
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import tomllib

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT: Final = Path(__file__).parents[1]
PACKAGE: Final = "hugeprobe"
BROUGHT_BY_THE_KERNEL: Final = frozenset({"IPython", "ipykernel"})


@functools.cache
def requirements() -> dict[str, str]:
    """Return what ``pyproject.toml`` asks for, by the name under which it is imported."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    lists = [project["dependencies"], *project["optional-dependencies"].values()]
    every = (requirement for one in lists for requirement in one)
    return {re.split(r"[^\w-]", each)[0].replace("-", "_"): each for each in every}


@dataclass(slots=True)
class Module:
    """The code of a module, taken apart.

    Parameters
    ----------
    aliases
        What each imported name stands for, with dots.
    definitions
        The statements that define each name.
    loose
        The statements that define none, and so run when the module does.
    """

    aliases: dict[str, str] = field(default_factory=dict)
    definitions: dict[str, list[ast.stmt]] = field(default_factory=dict)
    loose: list[ast.stmt] = field(default_factory=list)


@dataclass(slots=True)
class Needs:
    """What the code of a notebook reaches.

    Parameters
    ----------
    packages
        Packages of others, by the names under which they are imported.
    modules
        Modules of ``hugeprobe``.
    """

    packages: set[str] = field(default_factory=set)
    modules: set[str] = field(default_factory=set)


def file_of(module: str) -> Path | None:
    """Return the file of a module beside the notebooks; None if there is none."""
    base = (ROOT / "notebooks").joinpath(*module.split("."))
    candidates = (base / "__init__.py", base.with_suffix(".py"))
    return next((path for path in candidates if path.is_file()), None)


@functools.cache
def parsed(module: str) -> Module:
    """Take a module apart; an empty one if it is not beside the notebooks."""
    path = file_of(module)
    return take_apart(path.read_text(encoding="utf-8"), module) if path else Module()


def take_apart(code: str, name: str) -> Module:
    """Sort the statements of a module, or of a notebook."""
    module = Module()
    for statement in ast.parse(code).body:
        names = defined_by(statement)
        for each in names:
            module.definitions.setdefault(each, []).append(statement)
        if not names:
            module.loose.append(statement)
        module.aliases.update(aliases_in(statement))
    module.definitions.pop(name, None)
    return module


def defined_by(statement: ast.stmt) -> list[str]:
    """Return the names that a statement defines."""
    if isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        return [statement.name]
    if isinstance(statement, ast.Assign | ast.AnnAssign):
        targets = statement.targets if isinstance(statement, ast.Assign) else [statement.target]
        return [each.id for each in targets if isinstance(each, ast.Name)]
    return []


def running(node: ast.AST) -> Iterator[ast.AST]:
    """Walk through code that runs: no annotations, nothing that is only for type checkers."""
    yield node
    for name, value in ast.iter_fields(node):
        if name in {"annotation", "returns"}:
            continue
        if name == "body" and isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test):
            continue
        for child in value if isinstance(value, list) else [value]:
            if isinstance(child, ast.AST):
                yield from running(child)


def aliases_in(node: ast.AST) -> dict[str, str]:
    """Return what each name that is imported anywhere in this code stands for."""
    found: dict[str, str] = {}
    for each in running(node):
        if isinstance(each, ast.Import):
            found |= {name.asname or name.name.split(".")[0]: name.name for name in each.names}
        elif isinstance(each, ast.ImportFrom):
            found |= {n.asname or n.name: f"{each.module}.{n.name}" for n in each.names}
    return found


class Follower:
    """Follows code from a notebook on; `needs` is what it has reached.

    Parameters
    ----------
    whole
        Whether all that a module defines counts as reached with it.
    """

    def __init__(self, *, whole: bool = False) -> None:
        self.needs = Needs()
        self.seen: set[tuple[str, str]] = set()
        self.whole = whole

    def import_(self, dotted: str) -> None:
        """Reach a module, and the packages that it lies in."""
        top, *rest = dotted.split(".")
        if top != PACKAGE:
            self.need(top)
            return
        for end in range(len(rest) + 1):
            module = ".".join((top, *rest[:end]))
            if file_of(module) and module not in self.needs.modules:
                self.needs.modules.add(module)
                for statement in parsed(module).loose:
                    if "__main__" not in ast.dump(statement):
                        self.read(statement, module, parsed(module))
                for name in parsed(module).definitions if self.whole else ():
                    self.name(module, name)

    def need(self, package: str) -> None:
        """Take note of a package of others."""
        if package in sys.stdlib_module_names or package in BROUGHT_BY_THE_KERNEL:
            return
        if package not in requirements():
            raise SystemExit(
                f"A notebook imports {package}, which pyproject.toml does not list. "
                "Add it there and to requirements.txt with a range."
            )
        self.needs.packages.add(package)

    def run(self, module: str) -> None:
        """Reach a module that is started as a program."""
        self.import_(module)
        if (module, "") not in self.seen:
            self.seen.add((module, ""))
            for statement in parsed(module).loose:
                self.read(statement, module, parsed(module))

    def name(self, module: str, name: str) -> None:
        """Reach what a name in a module stands for."""
        if (module, name) in self.seen:
            return
        self.seen.add((module, name))
        code = parsed(module)
        if name in code.definitions:
            for statement in code.definitions[name]:
                self.read(statement, module, code)
        elif name in code.aliases:
            self.dotted(code.aliases[name])

    def dotted(self, dotted: str) -> None:
        """Reach ``hugeprobe.module`` or ``hugeprobe.module.name``."""
        self.import_(dotted)
        module, _, name = dotted.rpartition(".")
        if dotted.startswith(PACKAGE) and not file_of(dotted):
            self.name(module, name)

    def read(self, node: ast.AST, module: str, code: Module) -> None:
        """Reach what this code names."""
        aliases = {**code.aliases, **aliases_in(node)}
        for each in running(node):
            if isinstance(each, ast.Import | ast.ImportFrom):
                for target in aliases_in(each).values():
                    self.import_(target)
            elif isinstance(each, ast.Name) and each.id in aliases:
                self.dotted(aliases[each.id])
            elif isinstance(each, ast.Name) and each.id in code.definitions:
                self.name(module, each.id)
            elif isinstance(each, ast.Attribute):
                whole = ast.unparse(each)
                first, _, rest = whole.partition(".")
                if first in aliases and re.fullmatch(r"[\w.]+", rest):
                    self.dotted(f"{aliases[first]}.{rest}")
            elif isinstance(each, ast.Constant) and isinstance(each.value, str):
                self.text(each.value)

    def text(self, text: str) -> None:
        """Reach the module or the package that a text names, if it names one."""
        if text.startswith(f"{PACKAGE}.") and file_of(text):
            self.run(text)
        elif re.fullmatch(r"[\w.-]+", text):
            package = text.partition(".")[0].replace("-", "_")
            self.needs.packages |= {package} & requirements().keys()


def code_of(notebook: dict[str, Any]) -> str:
    """Return the code of a notebook, without lines for IPython."""
    cells = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    return "\n".join(
        "".join(cell["source"]) for cell in cells if not "".join(cell["source"]).startswith("%")
    )


def needs_of(notebook: dict[str, Any], *, whole: bool = False) -> Needs:
    """Return what a notebook needs to run; with `whole`, what its modules need in any case."""
    follower = Follower(whole=whole)
    code = take_apart(code_of(notebook), "")
    for statement in [*code.loose, *(s for each in code.definitions.values() for s in each)]:
        follower.read(statement, "", code)
    return follower.needs


if __name__ == "__main__":
    for name in sys.argv[1:]:
        found = needs_of(json.loads(Path(name).read_text(encoding="utf-8")))
        print(f"{Path(name).stem}: {', '.join(sorted(found.packages))}")
