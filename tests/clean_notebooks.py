"""Say which of the given notebooks are not as they should be committed."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import notebook_shape


def faults(path: Path) -> list[str]:
    """List what has to be done to a notebook before it is committed; empty if nothing."""
    notebook = json.loads(path.read_text(encoding="utf-8"))
    code = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    first = "".join(notebook["cells"][0]["source"]) if notebook["cells"] else ""
    labels = [label for cell in code if (label := cell["metadata"].get("label"))]
    checks = {
        "clear its outputs": any(cell["outputs"] for cell in code),
        "clear its execution counts": any(cell["execution_count"] for cell in code),
        "set its kernel to python3": notebook["metadata"].get("kernelspec", {}).get("name")
        != "python3",
        "begin it with a title": not first.startswith("# "),
        "give each label to one cell": len(labels) != len(set(labels)),
        "write its contents, installation and clean-up anew with `nox -s notebooks`": (
            notebook != notebook_shape.shaped(notebook)
        ),
    }
    return [advice for advice, needed in checks.items() if needed]


def main(paths: list[Path]) -> int:
    """Print what is to be done, and return the exit status."""
    found = [f"{path}: {advice}" for path in paths for advice in faults(path)]
    print("\n".join(found) or f"{len(paths)} notebooks are clean.")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main([Path(name) for name in sys.argv[1:]]))
