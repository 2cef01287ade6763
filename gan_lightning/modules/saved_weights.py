"""Modules that are saved as a folder of weights with a model card, and loaded from it or from the Hugging Face Hub.

Names of functions and the layout of the folder are those of `PyTorchModelHubMixin` of huggingface_hub. The mixin itself
is not inherited: it would be a base class only if an optional package is installed, and its `__new__` records the
arguments of each constructor, which the hyperparameters already contain.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from pathlib import Path
from typing import Any

import lightning
import torch
from safetensors import SafetensorError
from torch import nn
from typing_extensions import Self

from gan_lightning.atomic import atomic_path
from gan_lightning.data.cache import make_cache_dir
from gan_lightning.errors import InputError, first_line
from gan_lightning.model_card import model_card
from gan_lightning.modules.safe_loading import SafelyLoaded
from gan_lightning.networks.checkpoints import CLASS_NAMES, DISCRIMINATOR_CLASS, GENERATOR_CLASS, class_name
from gan_lightning.pretrained import (
    SUFFIX,
    WHOLE,
    description_of,
    weights_folder,
    weights_in,
    whole_checkpoint,
    write_weights,
)

CONFIG = "config.json"
CARD = "README.md"
KEPT = (GENERATOR_CLASS, DISCRIMINATOR_CLASS, CLASS_NAMES)  # kept besides the hyperparameters


class SavedWeights(SafelyLoaded):
    """A GAN that can be saved for others, without the state of its training."""

    generator: nn.Module
    discriminator: nn.Module
    num_classes: int
    class_names: tuple[str, ...]

    def save_pretrained(
        self, folder: str | os.PathLike[str], run: str | os.PathLike[str] | None = None, *, half: bool = False
    ) -> None:
        """Save the networks with their options and a model card, as the Hugging Face Hub expects them.

        Args:
            folder: Folder to write to: model.safetensors, config.json and README.md.
            run: Folder of the run that trained the module, whose summary.json is included in the card. Default: that of
                the trainer, if there is one.
            half: Save in half precision, which takes half of the space.

        Raises:
            InputError: If the networks have values that are not finite.
        """
        folder = Path(folder).expanduser()
        checkpoint = {
            "hyper_parameters": dict(self.hparams),
            GENERATOR_CLASS: class_name(self.generator),
            DISCRIMINATOR_CLASS: class_name(self.discriminator),
        }
        if self.num_classes:
            checkpoint[CLASS_NAMES] = list(self.class_names)
        description = description_of(checkpoint, KEPT)
        write_weights(folder / f"{WHOLE}{SUFFIX}", self.state_dict(), description, half=half)
        with atomic_path(folder / CONFIG) as path:
            path.write_text(json.dumps(description["hyper_parameters"], indent=2) + "\n", encoding="utf-8")
        summary = read_summary(run if run is not None else self._folder_of_run())
        with atomic_path(folder / CARD) as path:
            text = model_card(folder.resolve().name, description["hyper_parameters"], [WHOLE], summary)
            path.write_text(text, encoding="utf-8")

    @classmethod
    def from_pretrained(
        cls, folder: str | os.PathLike[str], *, revision: str | None = None, cache_dir: str | None = None
    ) -> Self:
        """Load a module that `save_pretrained` has saved.

        Args:
            folder: Its folder; name of weights that come with the package, such as "faces64"; or OWNER/NAME on the
                Hugging Face Hub, for which the extra `hub` is needed.
            revision: Branch, tag or commit on the Hub.
            cache_dir: Folder for downloads. Default: that of huggingface_hub.

        Returns:
            The module, in evaluation mode, on the CPU.

        Raises:
            InputError: If the folder does not exist and cannot be downloaded, or a file is incomplete.
        """
        found = weights_folder(folder)
        if found is None:
            found = download(folder, revision, cache_dir)
        content = read_whole(found)
        module = cls(**content["hyper_parameters"])
        module.load_state_dict(content["state_dict"])
        module.on_load_checkpoint(content)
        return module.eval()

    def _folder_of_run(self) -> str | None:
        """Return the folder of the trainer, if there is one."""
        try:
            return self.trainer.default_root_dir
        except RuntimeError:  # there is no trainer
            return None


def download(name: str | os.PathLike[str], revision: str | None, cache_dir: str | None) -> Path:
    """Download weights from the Hugging Face Hub, unless they are in its cache, and return their folder.

    Args:
        name: OWNER/NAME.
        revision: Branch, tag or commit.
        cache_dir: Folder for downloads.

    Raises:
        InputError: If the name has another form, huggingface_hub is not installed, or the download fails.
    """
    if Path(name).exists() or not re.fullmatch(r"[\w.-]+/[\w.-]+", str(name)):
        known = "a folder of save_pretrained, OWNER/NAME on the Hugging Face Hub, or faces64"
        raise InputError(f"{name} has no weights: give {known}")
    try:
        from huggingface_hub import snapshot_download
    except ModuleNotFoundError as error:
        raise InputError(
            f"there is no folder {name}, and to look for it on the Hugging Face Hub, huggingface_hub is not installed: "
            "pip install 'gan-lightning[hub]'"
        ) from error
    try:
        folder = snapshot_download(
            str(name), revision=revision, cache_dir=cache_dir, allow_patterns=[f"*{SUFFIX}", CONFIG, CARD]
        )
    except Exception as error:  # of its own, and of the library that it asks the server with
        raise InputError(
            f"there is no folder {name}, and it cannot be downloaded from the Hugging Face Hub "
            f"({first_line(error).rstrip('.:')}): check its name and the network"
        ) from error
    if not weights_in(Path(folder)):
        raise InputError(f"{name} on the Hugging Face Hub has no {WHOLE}{SUFFIX}: it was not saved by save_pretrained")
    return Path(folder)


def checkpoint_of_weights(folder: Path, command: str) -> str:
    """Return the path of a checkpoint made of a folder of weights, as Lightning reads them; it is kept in the cache.

    Args:
        folder: Folder of weights.
        command: Command that starts from it.

    Raises:
        InputError: If the command is fit, or if the weights are incomplete or lack a network.
    """
    if command == "fit":
        raise InputError(
            f"{folder.name} has networks, and not the state of a training that fit could resume: give a run's last.ckpt"
        )
    digest = hashlib.sha256()
    for path in weights_in(folder):
        digest.update(path.read_bytes())
    name = f"{folder.resolve().name}-{digest.hexdigest()[:16]}.ckpt"
    made = make_cache_dir(None) / "checkpoints" / name
    if not made.is_file():
        content = {"epoch": 0, "global_step": 0, "pytorch-lightning_version": lightning.__version__}
        with atomic_path(made) as beside:
            torch.save({**content, **read_whole(folder)}, beside)
    return str(made)


def read_whole(folder: Path) -> dict[str, Any]:
    """Return the content of a checkpoint made of a folder of weights.

    Raises:
        InputError: If the weights are incomplete or lack a network.
    """
    try:
        return whole_checkpoint(folder)
    except (SafetensorError, OSError, ValueError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"the weights in {folder} are not whole: copy or download them again") from error


def read_summary(run: str | os.PathLike[str] | None) -> dict[str, Any] | None:
    """Return the summary.json of a run, or None if it cannot be read."""
    try:
        content = json.loads((Path(run) / "summary.json").read_text(encoding="utf-8")) if run is not None else None
    except (OSError, ValueError):
        return None
    return content if isinstance(content, dict) else None
