"""Recognition of errors by which other packages refuse input of the user, as opposed to bugs."""

from __future__ import annotations

import os
import re
import traceback
from collections.abc import Iterator

_OF_THE_PROGRAM = tuple(os.path.join("gan_lightning", name) for name in ("cli.py", "__main__.py"))
_DELIBERATE = (ValueError, TypeError, RuntimeError, NotImplementedError, ImportError, OSError)
_PASSED_THROUGH = re.compile(  # frames that may be between the command and Lightning's own code
    r"[/\\](lightning|lightning_utilities|jsonargparse)[/\\]|[/\\](contextlib|functools|_contextlib)\.py$"
)
_LIGHTNING = re.compile(r"[/\\]lightning[/\\](pytorch|fabric)[/\\]")
_ADVICE = {  # part of a message of Lightning -> what to do in this package
    "gradient_clip_val=": "of a DCGAN, set model.gradient_clip instead",  # GANs are optimized manually
    "accumulate_grad_batches=": "of a DCGAN, set model.accumulate instead",
    "barebones=True": "a run of this command always writes metrics.csv: leave trainer.barebones out",
}


def refusal(error: BaseException) -> str | None:
    """Return a one-line message for an error by which another package refused input of the user.

    Args:
        error: Error that ended the command.

    Returns:
        The message; None if the error may be a bug, whose traceback is needed.
    """
    if (message := refusal_of_lightning(error)) is not None:
        return message
    if (report := report_of_parser(error)) is not None:
        from gan_lightning.options.errors import explain

        return explain(report)
    return None


def refusal_of_lightning(error: BaseException) -> str | None:
    """Return the message of an error by which Lightning refused the configuration; None for any other error.

    Such an error is raised on purpose by a `raise` statement of Lightning, and there is no other code between the
    command and that statement: neither a hook of a model, a callback or data, nor torch. Errors raised below those may
    be bugs, whose traceback is needed.

    Args:
        error: Error that ended the command.
    """
    for cause in _chain(error):
        if type(cause).__name__ == "MisconfigurationException" or _is_refusal(cause):
            return _with_advice(" ".join(str(cause).split()))
    return None


def report_of_parser(error: BaseException) -> str | None:
    """Return the report of jsonargparse that a class cannot be instantiated; None for any other error.

    Args:
        error: Error that ended the command. If its cause is the error of a constructor, that error counts.
    """
    *_, last = _chain(error)
    frames = traceback.extract_tb(last.__traceback__)
    by_parser = bool(frames) and re.search(r"[/\\]jsonargparse[/\\]", frames[-1].filename) is not None
    return str(error) if by_parser and isinstance(error, ValueError | TypeError) else None


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__  # jsonargparse's errors have those of constructors as theirs


def _is_refusal(error: BaseException) -> bool:
    frames = traceback.extract_tb(error.__traceback__)
    places = [number for number, frame in enumerate(frames) if frame.filename.endswith(_OF_THE_PROGRAM)]
    below = frames[places[-1] + 1 :] if places else frames
    return (
        isinstance(error, _DELIBERATE)
        and len(below) > 0
        and all(_PASSED_THROUGH.search(frame.filename) for frame in below)
        and _LIGHTNING.search(below[-1].filename) is not None
        and (below[-1].line or "").startswith("raise ")
    )


def _with_advice(message: str) -> str:
    advice = next((advice for part, advice in _ADVICE.items() if part in message), None)
    return message if advice is None else f"{message.rstrip('.')}; {advice}"
