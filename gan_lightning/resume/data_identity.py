"""Identity of the training images of a run: saved in checkpoints, and compared when the run is resumed."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lightning import Trainer

from gan_lightning.errors import InputError

_log = logging.getLogger(__name__)

NAMES = {"content": "the images themselves", "images": "the number of images"}


def data_identity(trainer: Trainer) -> dict[str, Any] | None:
    """Return the identity of the training images: dataset, split, crop, size, and a hash of all pixels.

    Returns:
        Plain values; None if the data module does not describe its training images.
    """
    protocol = getattr(getattr(trainer, "datamodule", None), "protocol", None)
    if not callable(protocol):
        return None
    try:
        return as_plain(protocol("train"))
    except Exception as error:  # a user's data module may describe only the splits of the evaluation
        _log.debug("The training images are not described: %s", error)
        return None


def as_plain(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return settings as plain values, which can be read from a checkpoint safely; other values become strings."""
    return {
        key: value if isinstance(value, str | int | float | None) else str(value) for key, value in settings.items()
    }


def check_same_data(before: Mapping[str, Any] | None, now: Mapping[str, Any] | None, path: str, resumes: bool) -> None:
    """Compare the training images of a checkpoint with those of the run that starts from it.

    Args:
        before: Identity of the images in the checkpoint, if it has one.
        now: Identity of the images of the run, if they have one.
        path: Path of the checkpoint.
        resumes: Whether this run wrote the checkpoint; otherwise a difference is only reported.

    Raises:
        InputError: If a run is resumed with other images.
    """
    if before is None or now is None or before == now or before.get("content", before) == now.get("content"):
        return
    keys = [key for key in {**before, **now} if before.get(key) != now.get(key)]
    stated = [key for key in keys if key != "content"] or keys
    changes = ", ".join(
        NAMES["content"] if key == "content" else f"{NAMES.get(key, key)}: {before.get(key)} -> {now.get(key)}"
        for key in stated
    )
    if not resumes:
        _log.warning("%s was trained on other images than this run (%s)", path, changes)
        return
    run = Path(path).parent.parent
    raise InputError(
        f"the run {run} was trained on other images ({changes}): resume it with the same data, or start a new run "
        f"from its checkpoint: --name NEW --ckpt_path {path}"
    )
