"""Train GANs at scale with Lightning, measure them exactly, restore photographs with them."""

import ast
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from typing import Any

# The public names are listed in `__init__.pyi`. Each is imported on first use, so that `gan-lightning --help` is fast.
_STUB = ast.parse(Path(__file__).with_suffix(".pyi").read_text(encoding="utf-8"))
_HOMES = {alias.name: node.module for node in _STUB.body if isinstance(node, ast.ImportFrom) for alias in node.names}

__all__ = list(_HOMES)


def __getattr__(name: str) -> Any:
    if name == "__version__":
        return version("gan-lightning")
    if (home := _HOMES.get(name)) is not None:
        return getattr(import_module(home), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOMES])
