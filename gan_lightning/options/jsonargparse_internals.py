"""Private names of jsonargparse that the command line needs; `tests/test_cli_internals.py` fails when one is gone."""

from __future__ import annotations

from types import UnionType
from typing import Any, Union, get_args, get_origin

from jsonargparse import ArgumentParser


def integers_stay_integers(parser: ArgumentParser) -> None:
    """Parse "1" as an integer for options of type `int | float`, such as `--trainer.limit_val_batches`.

    Python considers `Union[int, float]` and `Union[float, int]` equal, and its cache may return either for Lightning's
    hint. With float first, 1 batch becomes 1.0, which means all of them. jsonargparse tries the types in order, and has
    no public access to the type of an option.
    """
    options: list[Any] = parser._actions
    for option in options:
        hint = getattr(option, "_typehint", None)
        if get_origin(hint) in (Union, UnionType) and {int, float} <= set(get_args(hint)):
            option._typehint = Union[(int, *(kind for kind in get_args(hint) if kind is not int))]
