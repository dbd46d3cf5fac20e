"""Activations of a user's own that a configuration names: code that is run, and therefore only where that is allowed."""

import importlib
import os
import re
import sys
from contextlib import suppress
from functools import cache
from typing import Any

from ntksim.engine.activation import Activation

ALLOWED = "NTKSIM_ALLOW_IMPORTS"  # in the environment, where jobs find it; set by --allow-imports
_PATH = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)+")


def allow() -> None:
    """Allow imports in this process and in those that it starts."""
    os.environ[ALLOWED] = "1"


def activation_of(written: Any) -> Activation:
    """The activation that ``{import: my_module.my_activation}`` stands for, from the folder one is in or an installed module.

    Raises
    ------
    ValueError for anything else, where imports are not allowed, and for what cannot be imported or is no `Activation`.
    """
    path = written.get("import")
    if len(written) != 1 or not isinstance(path, str) or not _PATH.fullmatch(path):
        raise ValueError("expected a name, or {import: my_module.my_activation}")
    if os.environ.get(ALLOWED) != "1":
        raise ValueError(
            f"{path} is code that would be run: allow it with --allow-imports (of Snakemake itself: {ALLOWED}=1), if you trust it"
        )
    return _imported(path)


@cache
def _imported(path: str) -> Activation:
    module, _, name = path.rpartition(".")
    folder = os.getcwd()  # which a module may leave
    sys.path.insert(0, folder)
    try:
        found = getattr(importlib.import_module(module), name)
    except (Exception, SystemExit) as error:
        raise ValueError(f"{path} cannot be imported ({type(error).__name__}: {error}): run from the folder it is in") from None
    finally:
        with suppress(ValueError):
            sys.path.remove(folder)
    if not isinstance(found, Activation):
        raise ValueError(f"{path} must be an ntksim.Activation, got {found!r}")
    return found
