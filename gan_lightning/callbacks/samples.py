"""Pictures of samples: a grid of fixed latents during training, single images in `predict`."""

from __future__ import annotations

import math
from collections import Counter
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from lightning import Callback, LightningModule, Trainer
from lightning.pytorch.loggers import WandbLogger
from lightning.pytorch.utilities import rank_zero_only
from PIL import Image, ImageDraw
from torch import Tensor, nn

from gan_lightning.callbacks.best_effort import best_effort
from gan_lightning.callbacks.evaluation import averaging
from gan_lightning.errors import InputError
from gan_lightning.file_names import writable
from gan_lightning.images import make_grid, write_png

NO_IMAGES = torch.empty(0, 3, 1, 1, dtype=torch.uint8)
BY_CLASS: Final = "samples_by_class.png"
COLUMNS: Final = 16  # maximum number of samples of each class
GAP, HEADER = 16, 14  # pixels between grids, and above them for the titles


class SampleGrid(Callback):
    """Callback that draws a grid of samples from fixed latents before the first step and at each validation.

    Next to the samples of the averaged generator are those of the generator itself, which learns faster, and as many
    real images, if the module and its data have them. With classes, each row of a grid is one class. The picture is
    written to samples/ in the run folder and sent to every logger that accepts images.
    """

    def __init__(self, num_images: int = 64, seed: int = 0) -> None:
        """Store the settings.

        Args:
            num_images: Number of images in the grid; with classes approximately, with the same number of each class.
            seed: Seed of the latents.

        Raises:
            InputError: If `num_images` is less than 1.
        """
        if num_images < 1:
            raise InputError(f"sample_grid.num_images must be at least 1, but got {num_images}")
        self.num_images = num_images
        self.seed = seed

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Check whether the module draws samples."""
        self._active, self._drawn_at = hasattr(pl_module, "sample"), -1
        self._real: Tensor | None = None  # read at the first picture

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Draw samples of the untrained generator."""
        if trainer.global_step == 0 and self._active:
            self._draw(trainer, pl_module)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Draw samples of the current generator."""
        if not trainer.sanity_checking and self._active:
            self._draw(trainer, pl_module)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Draw samples of the final generator, unless the last validation has drawn them."""
        if self._active and trainer.global_step != self._drawn_at:
            self._draw(trainer, pl_module)

    @rank_zero_only
    def _draw(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._drawn_at = trainer.global_step
        labels = rows_of_classes(pl_module, self.num_images)
        count, given = (self.num_images, {}) if labels is None else (len(labels), {"labels": labels})
        if self._real is None:
            self._real = read_real(trainer, count, labels)
        images: dict[str, Tensor | None] = {
            "averaged": pl_module.sample(count, self._rng(), **given),  # type: ignore[operator]
            "generator": sample_unaveraged(pl_module, count, self._rng(), labels),
            "real": self._real if len(self._real) else None,
        }
        columns = None if labels is None else int((labels == labels[0]).sum())
        grids = {title: make_grid(batch, columns) for title, batch in images.items() if batch is not None}
        picture = side_by_side(grids)
        path = Path(trainer.default_root_dir) / "samples" / f"step-{trainer.global_step:07d}.png"
        with best_effort(str(path)):
            write_png(path, picture)
            log_picture(trainer, path, picture, f"step {trainer.global_step}: {', '.join(grids)}")

    def _rng(self) -> torch.Generator:
        return torch.Generator().manual_seed(self.seed)


def log_picture(trainer: Trainer, path: Path, picture: Tensor, caption: str) -> None:
    """Send a picture (C,H,W) uint8, and the file to which it was written, to every logger that accepts images."""
    for logger in trainer.loggers:
        if hasattr(logger, "log_image"):  # W&B; without a step it would use the last one logged
            more = {"caption": [caption]} if isinstance(logger, WandbLogger) else {}
            logger.log_image("samples", [str(path)], step=trainer.global_step, **more)
        elif add_image := getattr(getattr(logger, "experiment", None), "add_image", None):  # TensorBoard
            add_image("samples", picture, trainer.global_step)


def rows_of_classes(module: LightningModule, count: int) -> Tensor | None:
    """Return labels for a grid of about `count` images, with the same number of each class, row by row.

    The result is None for a module without classes. If there are more than `count` classes, the first ones are shown.
    """
    classes = min(getattr(module, "num_classes", 0), count)
    return torch.arange(classes).repeat_interleave(count // classes) if classes else None


def read_real(trainer: Trainer, count: int, labels: Tensor | None = None) -> Tensor:
    """Return images of the validation split, (count,C,H,W) uint8, evenly spaced like those of the metrics.

    There are fewer if the split has fewer, and none if the data module does not provide real images.

    Args:
        trainer: Trainer, with its data module.
        count: Number of images.
        labels: (count,) classes of the images, or None for any. If the split has too few images of a class, they are
            repeated. If a class is missing, or the classes are unknown, no images are returned.
    """
    data: Any = getattr(trainer, "datamodule", None)
    if not hasattr(data, "real_images"):
        return NO_IMAGES
    try:
        images = data.real_images("val")
    except InputError:  # the split does not exist
        return NO_IMAGES
    if labels is not None:
        return read_classes(images, labels)
    count = min(count, len(images))
    return torch.as_tensor(images.read(np.arange(count, dtype=np.int64) * len(images) // max(count, 1)))


def read_classes(images: Any, labels: Tensor) -> Tensor:
    """Return images of a split with these labels (count,); none if a class is missing or the classes are unknown."""
    known = getattr(images, "labels", None)
    if known is None:
        return NO_IMAGES
    positions = []
    for label, count in sorted(Counter(labels.tolist()).items()):
        of_class = np.flatnonzero(known[images.rows] == label)
        if not len(of_class):
            return NO_IMAGES
        positions.append(of_class[np.arange(count) * max(1, len(of_class) // count) % len(of_class)])
    return torch.as_tensor(images.read(np.concatenate(positions)))


@torch.no_grad()
def sample_unaveraged(
    module: LightningModule, count: int, rng: torch.Generator, labels: Tensor | None = None
) -> Tensor | None:
    """Draw images from the generator without averaging, at the latents of `module.sample`, in evaluation mode.

    Args:
        module: Module with `generator`, `generator_ema` and `latent_dim`. The result is None for other modules, and if
            there is no average.
        count: Number of images.
        rng: Random generator of the latents, as for `module.sample`.
        labels: (count,) classes of the images, for a generator with classes.
    """
    generator = getattr(module, "generator", None)
    if (
        not isinstance(generator, nn.Module)
        or not hasattr(module, "generator_ema")
        or not any(averaging(module).values())
    ):
        return None
    latents = torch.randn(count, int(module.latent_dim), generator=rng)  # type: ignore[arg-type]
    modes = [(part, part.training) for part in generator.modules()]  # a user may have set some to evaluation mode
    generator.eval()  # does not update batch-norm statistics, and needs no other rank
    try:
        given = () if labels is None else (labels.to(module.device),)
        images: Tensor = generator(latents.to(module.device), *given).float()
    finally:
        for part, training in modes:
            part.training = training
    return images


def side_by_side(grids: dict[str, Tensor]) -> Tensor:
    """Return grids side by side under their titles, on white; a single grid is returned unchanged.

    Args:
        grids: Grids (C,H,W) uint8 with the same number of channels, by their titles.
    """
    if len(grids) == 1:
        return next(iter(grids.values()))
    pen = ImageDraw.Draw(Image.new("L", (1, 1)))
    columns = {title: max(grid.shape[2], math.ceil(pen.textlength(title)) + 2) for title, grid in grids.items()}
    height, width = max(grid.shape[1] for grid in grids.values()), sum(columns.values()) + GAP * (len(grids) - 1)
    channels = next(iter(grids.values())).shape[0]
    picture = torch.full((channels, HEADER + height, width), 255, dtype=torch.uint8)
    titles, left = Image.new("L", (width, HEADER), 255), 0
    for title, grid in grids.items():
        ImageDraw.Draw(titles).text((left + 2, 1), title, fill=0)
        picture[:, HEADER : HEADER + grid.shape[1], left : left + grid.shape[2]] = grid
        left += columns[title] + GAP
    picture[:, :HEADER] = torch.from_numpy(np.array(titles))
    return picture


class SampleWriter(Callback):
    """Callback that writes the samples of `predict` to samples/ in the run folder, named by number and class.

    With classes, samples_by_class.png shows the first samples of each class, one row for each.
    """

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Check that labels are given to a model that can draw samples of classes.

        Raises:
            InputError: If the module draws no samples.
        """
        if not hasattr(pl_module, "sample") and getattr(pl_module, "sample_labels", None) is not None:
            raise InputError("labels choose the classes of samples: of a restoration, set model.label instead")

    def on_predict_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, *args: Any, **kwargs: Any
    ) -> None:
        """Write images (B,C,H,W) in [-1, 1]; the batch has their numbers (B,)."""
        if not hasattr(pl_module, "sample"):  # its predictions are something else
            return
        folder = Path(trainer.default_root_dir) / "samples"
        for number, image in zip(batch.tolist(), outputs, strict=True):
            write_png(folder / f"{name_of_sample(pl_module, number)}.png", image)

    def on_predict_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Draw the grid by class after all ranks have written their samples."""
        if not hasattr(pl_module, "sample") or not getattr(pl_module, "num_classes", 0):
            return
        trainer.strategy.barrier()
        if trainer.is_global_zero:
            folder = Path(trainer.default_root_dir)
            with best_effort(str(folder / BY_CLASS)):
                draw_by_class(pl_module, folder)


def draw_by_class(module: Any, folder: Path) -> None:
    """Draw the samples that `predict` has written, with a row for each class and the same number of each.

    Args:
        module: Module with classes.
        folder: Folder of the run, with the samples in samples/.
    """
    rows: dict[int, list[Path]] = {}
    for number in range(module.num_samples):
        path = folder / "samples" / f"{name_of_sample(module, number)}.png"
        if path.exists():  # the number of batches may be limited
            rows.setdefault(module.label_of_sample(number), []).append(path)
    columns = min([COLUMNS, *map(len, rows.values())])
    shown = [path for label in sorted(rows) for path in rows[label][:columns]]
    if shown:
        images = torch.stack([torch.from_numpy(np.atleast_3d(np.array(Image.open(path)))) for path in shown])
        write_png(folder / BY_CLASS, make_grid(images.permute(0, 3, 1, 2), columns))


def name_of_sample(module: Any, number: int) -> str:
    """Return the file name of a sample: its number, and its class if it has one."""
    label = module.label_of_sample(number) if hasattr(module, "label_of_sample") else None
    return (
        f"{number:06d}"
        if label is None
        else f"{number:06d}-{writable(module.class_names[label], 80)}".replace("/", "_")
    )
