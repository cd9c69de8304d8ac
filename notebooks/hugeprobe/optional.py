"""Packages that only some commands need: brought in when they are used, and not before."""

from __future__ import annotations

import importlib
from typing import Any

from hugeprobe.errors import BadRequestError


def load(module: str, extra: str) -> Any:
    """Import ``module``, which the optional dependencies ``extra`` of this package bring.

    Raises
    ------
    BadRequestError
        If it is not installed; the sentence says how to install it.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise BadRequestError(
            f"This needs the package {module.partition('.')[0]}, which is not installed. "
            f"Install it with `python -m pip install 'hugeprobe[{extra}]'`, or in a clone with "
            f"`python -m pip install '.[{extra}]'`."
        ) from error
