"""Images of a batch from any loader: taken out of the batch, and checked for type, shape and range."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

from lightning import Trainer
from torch import Tensor, float32, int8, uint8

from gan_lightning.data.image_data_module import ImageDataModule
from gan_lightning.errors import InputError
from gan_lightning.inversion.checks import LOUDEST
from gan_lightning.modules.labels import Labeled, check_labels, labels_of

SCALE = "map pixels to [-1, 1], as torchvision's Normalize(0.5, 0.5) does after ToTensor"
ENOUGH = 8  # number of images of which at least one surely has a pixel below mid-gray
OVERSHOOT = 1.5  # largest absolute value; bicubic filters exceed [-1, 1] by less

_log = logging.getLogger(__name__)


class ImageBatches:
    """Extraction of the images of batches, with a check of their type and shape, and of the range of the first batch.

    Attributes:
        checked: Whether the range is known.
    """

    def __init__(self, channels: int, height: int, width: int, degraded: bool = False, num_classes: int = 0) -> None:
        """Expect images of a shape.

        Args:
            channels: Number of channels.
            height: Height in pixels.
            width: Width in pixels.
            degraded: Whether the images are degraded photographs, whose noise may exceed [-1, 1], and which may be
                bright.
            num_classes: Number of classes of the labels; 0 to ignore labels.
        """
        self._shape, self._num_classes = (channels, height, width), num_classes
        self._degraded, self.checked = degraded, False

    def restart(self, trainer: Trainer) -> None:
        """Check the range again at the next batch, except for our own data modules, whose range is known."""
        self.checked = isinstance(getattr(trainer, "datamodule", None), ImageDataModule)

    def inputs(self, batch: Any) -> tuple[Tensor, ...]:
        """Return the images of a batch, and its labels (B,) int64 if the model has classes.

        Args:
            batch: {"image": images, "label": labels}, or (images, labels); labels may be missing if there are no
                classes.

        Raises:
            InputError: As for `images`, or if labels are missing, not integers, or not in [0, num_classes).
        """
        checked, images = self.checked, self.images(batch)
        if not self._num_classes:
            return (images,)
        labels = labels_of(batch, len(images), self._num_classes)
        if not checked:
            check_labels(labels, self._num_classes)
        return images, labels

    def images(self, batch: Any) -> Tensor:
        """Return the images of a batch, (B,C,H,W) float32 in [-1, 1].

        Args:
            batch: {"image": images}, images alone, or (images, labels) as in the data sets of torchvision.

        Raises:
            InputError: If they have another type, shape or range.
        """
        images = images_of(batch)
        check_type(images)
        if images.shape[1:] != self._shape:
            expected, given = ("x".join(map(str, shape)) for shape in (self._shape, images.shape[1:]))
            raise InputError(
                f"expected images of {expected} (channels, height, width), but got {given}: convert and resize the "
                "images, or set the model's channels and image_size"
            )
        if not self.checked and len(images):
            check_range(images, self._degraded)  # only once, because it waits for the device
            self.checked = True
        return images


class TakesImages(Labeled):
    """A module that is trained and validated on the images of any loader."""

    def expect_images(self, channels: int, image_size: int, num_classes: int = 0) -> None:
        """Set the shape of the images, (channels, image_size, image_size), and the number of their classes."""
        self._train_batches = ImageBatches(channels, image_size, image_size, num_classes=num_classes)
        self._val_batches = ImageBatches(channels, image_size, image_size, num_classes=num_classes)
        self.expect_labels(num_classes)

    def on_fit_start(self) -> None:
        """Check the first batch of each fit."""
        super().on_fit_start()
        self._train_batches.restart(self.trainer)

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        """Check the range of the first batch before the step, which never waits for the device."""
        if not self._train_batches.checked:
            self._train_batches.inputs(batch)

    def on_validation_epoch_start(self) -> None:
        """Check the first batch of each validation."""
        self._val_batches.restart(self.trainer)


def count_images(batch: Any) -> int:
    """Return the number of images in a batch; 0 if it is not a batch of images."""
    try:
        images = images_of(batch)
    except InputError:
        return 0
    return len(images) if images.ndim == 4 else 0


def images_of(batch: Any) -> Tensor:
    """Return the images of a batch.

    Args:
        batch: {"image": images}, images alone, or (images, labels) with integer labels, which are ignored.

    Raises:
        InputError: If the batch is something else.
    """
    if isinstance(batch, dict) and isinstance(images := batch.get("image"), Tensor):
        return images
    if isinstance(batch, Tensor):
        return batch
    if isinstance(batch, Sequence) and batch and all(isinstance(item, Tensor) for item in batch):
        first: Tensor = batch[0]
        others = [other for other in batch[1:] if other.is_floating_point() or other.ndim >= 3]
        if not others:
            return first
        other = others[0]
        raise InputError(
            f"a batch is a pair of images and {other.dtype} of shape {tuple(other.shape)}, which are no labels: "
            'expected integers beside the images; leave the second part out, or give {"image": images}'
        )
    content = f"a dict with {', '.join(map(str, batch))}" if isinstance(batch, dict) else type(batch).__name__
    raise InputError(f'a batch is {content}: expected {{"image": images}}, images, or (images, labels)')


def repeated(count: int, *tensors: Tensor) -> tuple[Tensor, ...]:
    """Return the first rows of tensors, which start again from their first row if there are too few.

    Args:
        count: Number of rows.
        tensors: Tensors of equal length.
    """
    length = len(tensors[0])
    if count == length:
        return tensors
    times = -(-count // length)
    return tuple(tensor.repeat(times, *[1] * (tensor.ndim - 1))[:count] for tensor in tensors)


def check_type(images: Tensor) -> None:
    """Raise an InputError if images are not (B,C,H,W) float32."""
    if images.dtype in (uint8, int8):
        raise InputError(f"images are {images.dtype}: {SCALE}, or by images / 127.5 - 1")
    if images.dtype != float32:
        raise InputError(f"images are {images.dtype}: expected torch.float32; convert them by images.float()")
    if images.ndim != 4:
        raise InputError(f"images have shape {tuple(images.shape)}: expected (batch, channels, height, width)")


def check_range(images: Tensor, degraded: bool = False) -> None:
    """Raise an InputError if images are clearly not in [-1, 1]; only warn if they are degraded or too few to tell."""
    low, high = images.amin().item(), images.amax().item()
    if max(-low, high) > (LOUDEST if degraded else OVERSHOOT):
        raise InputError(f"images have values from {low:.3g} to {high:.3g}, expected [-1, 1]: {SCALE}")
    if 0 <= low < high:
        message = f"no value of the first {len(images)} images is below 0: they seem to be in [0, 1]; {SCALE}"
        if len(images) >= ENOUGH and not degraded:
            raise InputError(message)
        _log.warning("%s", message[0].upper() + message[1:])
