"""What a run is trained on: noted in its checkpoints, and compared when it is resumed."""

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
    """Return what identifies the training images: dataset, split, crop, size, and a hash of all pixels.

    Returns:
        Plain values; None if the data module does not describe its training images.
    """
    protocol = getattr(getattr(trainer, "datamodule", None), "protocol", None)
    if not callable(protocol):
        return None
    try:
        return as_plain(protocol("train"))
    except Exception as error:  # a user's own may describe the splits of the evaluation alone
        _log.debug("The training images are not described: %s", error)
        return None


def as_plain(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return settings as values that a checkpoint can be read back with: others than plain ones as strings."""
    return {
        key: value if isinstance(value, str | int | float | None) else str(value) for key, value in settings.items()
    }


def check_same_data(before: Mapping[str, Any] | None, now: Mapping[str, Any] | None, path: str, resumes: bool) -> None:
    """Compare the training images of a checkpoint with those of the run that starts from it.

    Args:
        before: Identity of the images in the checkpoint, if it has one.
        now: Identity of the images of the run, if they have one.
        path: Path of the checkpoint.
        resumes: Whether the run is the one that wrote the checkpoint; if not, a difference is only reported.

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
