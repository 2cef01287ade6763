"""Classes of a model: their names, the labels of batches, and those of samples."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from lightning import LightningModule
from torch import Tensor

from gan_lightning.data.image_data_module import ImageDataModule
from gan_lightning.errors import InputError
from gan_lightning.networks.checkpoints import CLASS_NAMES
from gan_lightning.networks.conditional import find_label, numbered

Label = int | str


class Labeled(LightningModule):
    """A module whose networks may take labels as an additional input.

    Attributes:
        num_classes: Number of classes; 0 for a module without labels.
        class_names: Names of the classes, by label.
    """

    num_classes: int = 0
    class_names: tuple[str, ...] = ()

    def expect_labels(self, num_classes: int) -> None:
        """Set the number of classes, whose names are numbers until the data provide them."""
        self.num_classes = num_classes
        self._set_names(numbered(num_classes))

    def setup(self, stage: str) -> None:
        """Check that data and model have the same number of classes, and copy the names of the classes.

        Other data modules do not state their classes; then the labels of the batches are checked.

        Raises:
            InputError: If only one of them has labels, or the numbers of classes differ.
        """
        super().setup(stage)
        data = getattr(self.trainer, "datamodule", None)
        if not isinstance(data, ImageDataModule):
            return
        theirs, ours = len(data.class_names), self.num_classes
        if theirs and not ours:
            raise InputError(
                f"the data have labels of {theirs} classes, but the model has none: set model.num_classes to {theirs}, "
                "or leave the labels of the data out"
            )
        if ours and not theirs:
            raise InputError(
                f"the model has {ours} classes, but the data have no labels: set data.labels, or leave "
                "model.num_classes out"
            )
        if ours != theirs:
            raise InputError(
                f"the data have {theirs} classes, the model has {ours}: set model.num_classes to {theirs}, or choose "
                "other labels"
            )
        if ours:
            self._set_names(data.class_names)

    def on_fit_start(self) -> None:
        """Store how often each class occurs in the training data, if the data module knows it."""
        super().on_fit_start()
        data = getattr(self.trainer, "datamodule", None)
        counts = data.class_counts() if self.num_classes and isinstance(data, ImageDataModule) else None
        if counts is not None:
            for network in self._generators_with("class_counts"):
                network.class_counts.copy_(torch.from_numpy(counts))

    def as_labels(self, labels: Label | Sequence[Label] | Tensor | None, count: int) -> tuple[Tensor, ...]:
        """Return labels as a further argument of a network: none for a module without classes.

        Args:
            labels: Number or name of a class, for all images; or `count` of them, one for each image.
            count: Number of images.

        Raises:
            InputError: If a class does not exist, or the numbers of labels and images differ.
        """
        if labels is None:
            return ()
        if not self.num_classes:
            raise InputError("this model was trained without labels: leave labels out")
        given = labels.tolist() if isinstance(labels, Tensor) else labels
        several = [given] * count if isinstance(given, int | str) else list(given)
        if len(several) != count:
            raise InputError(f"{len(several)} labels were given for {count} images: give one for each, or one for all")
        return (torch.tensor([find_label(label, self.class_names) for label in several], device=self.device),)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Save the names of the classes."""
        super().on_save_checkpoint(checkpoint)
        if self.num_classes:
            checkpoint[CLASS_NAMES] = list(self.class_names)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Load the names of the classes.

        Raises:
            InputError: If the data have other classes, or the same in another order.
        """
        super().on_load_checkpoint(checkpoint)
        names = tuple(checkpoint.get(CLASS_NAMES, ()))
        if len(names) != self.num_classes:
            return  # the weights do not fit either
        known = self.class_names != numbered(self.num_classes)
        if known and self.class_names != names:
            ours, theirs = next(
                pair for pair in zip(names, self.class_names, strict=True) if pair[0] != pair[1]
            )  # the first difference
            raise InputError(
                f"the classes of the checkpoint are not those of the data: where it has {ours}, they have {theirs}; "
                "give the data that it was trained on, or start a new run"
            )
        self._set_names(names)

    def _set_names(self, names: tuple[str, ...]) -> None:
        self.class_names = names
        for network in self._generators_with("class_names"):
            network.class_names = names

    def _generators_with(self, attribute: str) -> list[Any]:
        networks = [getattr(self, name, None) for name in ("generator", "generator_ema")]
        return [network for network in networks if hasattr(network, attribute)]


def labels_of(batch: Any, count: int, num_classes: int) -> Tensor:
    """Return the labels (B,) int64 of a batch.

    Args:
        batch: {"image": images, "label": labels}, or (images, labels).
        count: Number of images in it.
        num_classes: Number of classes of the model, for messages.

    Raises:
        InputError: If there are no labels, or they are not integers (B,).
    """
    labels: Any = None
    if isinstance(batch, dict):
        labels = batch.get("label")
    elif isinstance(batch, Sequence) and len(batch) > 1:
        labels = batch[1]
    if not isinstance(labels, Tensor):
        raise InputError(
            f"a batch has no labels, but the model has {num_classes} classes: expected "
            '{"image": images, "label": labels} or (images, labels); add labels, or leave model.num_classes out'
        )
    if labels.is_floating_point() or labels.shape != (count,):
        raise InputError(
            f"labels are {labels.dtype} of shape {tuple(labels.shape)}: expected {count} integers, one for each image"
        )
    return labels.long()


def check_labels(labels: Tensor, num_classes: int) -> None:
    """Raise an InputError if a label is not in [0, num_classes); waits for the device."""
    low, high = (int(labels.min()), int(labels.max())) if len(labels) else (0, 0)
    if low < 0 or high >= num_classes:
        raise InputError(
            f"labels are from {low} to {high}, but the model's classes have the numbers 0 to {num_classes - 1}: set "
            f"model.num_classes to {max(high + 1, 2)}, or number the classes from 0"
        )
