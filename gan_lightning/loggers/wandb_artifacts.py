"""Checkpoints as artifacts of W&B: upload with the aliases best and latest, and download."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from gan_lightning.data.cache import exclusive, make_cache_dir
from gan_lightning.errors import InputError, first_line

PREFIX = "wandb:"
FORM = f"{PREFIX}ENTITY/PROJECT/NAME:best"
SECONDS = 20  # timeout for a response of W&B's server
UPLOADED = {"best": "best.ckpt", "latest": "last.ckpt"}  # in this order, because W&B also calls the last one "latest"


def checkpoints_to_upload(folder: Path, best: str | None = None) -> dict[str, Path]:
    """Return the checkpoints of a run by their aliases, in the order of the upload.

    Args:
        folder: Folder of the checkpoints.
        best: Path of the best one, if it is not best.ckpt.
    """
    paths = {alias: folder / name for alias, name in UPLOADED.items()}
    if best:
        paths["best"] = Path(best)
    return {alias: path for alias, path in paths.items() if path.is_file()}


def artifact_name(name: str) -> str:
    """Return the name of a run as the name of an artifact, with only letters, digits and "-_."."""
    return re.sub(r"[^\w.-]+", "-", name, flags=re.ASCII)[:128]


def fetch_checkpoint(reference: str, cache_dir: str | None = None) -> str:
    """Download a checkpoint from W&B, unless it is already in the cache, and return its path.

    Args:
        reference: wandb:ENTITY/PROJECT/NAME:ALIAS, where the alias is best, latest or a version such as v3.
        cache_dir: Folder for derived data; None for the default of the package.

    Raises:
        InputError: If the reference is malformed, the artifact does not exist, or W&B cannot be reached.
    """
    if not re.fullmatch(rf"{PREFIX}[^/:\s]+/[^/:\s]+/[^/:\s]+:[^/:\s]+", reference):
        raise InputError(f"{reference} names no checkpoint of W&B: expected {FORM} (or latest, or a version)")
    artifact = _find(reference)
    folder = make_cache_dir(cache_dir) / "checkpoints" / artifact_name(f"{artifact.name}-{artifact.digest}")
    folder.parent.mkdir(parents=True, exist_ok=True)
    with exclusive(folder.with_name(f".{folder.name}.lock")), _one_line(reference):  # each rank asks for it
        artifact.download(root=str(folder))
    files = sorted(folder.glob("*.ckpt"))
    if len(files) != 1:
        raise InputError(f"{reference} is no checkpoint: it has {len(files)} files that end in .ckpt")
    return str(files[0])


def _find(reference: str) -> Any:
    import wandb  # slow to import

    with _one_line(reference):
        return wandb.Api(timeout=SECONDS).artifact(reference.removeprefix(PREFIX))


@contextmanager
def _one_line(reference: str) -> Iterator[None]:
    """Convert any error of W&B within the context to one line for the user."""
    try:
        yield
    except Exception as error:
        reason = first_line(error).rstrip(".:")
        raise InputError(f"{reference} cannot be downloaded ({reason}): check its name, and `wandb login`") from error
