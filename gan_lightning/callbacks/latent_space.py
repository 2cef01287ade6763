"""Pictures of a generator's latent space: interpolations, truncation, and the nearest training images of samples."""

from __future__ import annotations

import csv
import io
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from lightning import Callback, LightningModule, Trainer
from PIL import Image
from torch import Tensor

from gan_lightning.atomic import atomic_path
from gan_lightning.callbacks.samples import side_by_side
from gan_lightning.errors import InputError
from gan_lightning.images import make_grid, to_uint8, write_png
from gan_lightning.metrics.extractors import FeatureExtractor, InceptionFeatures, RandomFeatures, inception_weights_path
from gan_lightning.metrics.nearest_images import nearest_images
from gan_lightning.networks.conditional import labels_in_turn
from gan_lightning.networks.interpolation import closed_path, slerp
from gan_lightning.networks.stylegan2 import StyleGAN2Generator

_log = logging.getLogger(__name__)

STATIONS, FRAMES, MILLISECONDS = 4, 12, 80  # latents, frames between two, time of a frame
ENLARGED = 96  # minimum side of an image in the animation
HELD_OUT = 64  # validation images whose distances are the reference


class LatentSpace(Callback):
    """Callback that draws pictures of a generator's latent space in `predict`, in latent_space/ of the run folder.

    interpolations.png has a row of images on the path between two latents, animation.gif follows a path through several
    latents and back, truncation.png shows samples whose latents are moved towards the mean, and neighbors.png shows
    each sample with the training images that are nearest to it in feature space. neighbors.csv has their distances, and
    those of held-out images. With classes, each row shows one class.
    """

    def __init__(
        self,
        num_images: int = 8,
        steps: int = 8,
        animation: bool = True,
        truncations: Sequence[float] = (0.0, 0.3, 0.5, 0.7, 0.85, 1.0),
        neighbors: int = 0,
        extractor: Literal["random", "inception"] = "random",
        inception_weights: str | None = None,
        seed: int = 0,
    ) -> None:
        """Choose what to draw.

        Args:
            num_images: Number of rows of each picture.
            steps: Number of images of an interpolation, including its ends; 0 for none.
            animation: Whether to write the animation.
            truncations: Factors of the latents z, or of the distance of w from its mean for a StyleGAN2; none for no
                picture.
            neighbors: Number of nearest training images; 0 for no search. The search needs the data of the training.
            extractor: Features for the comparison: those of a fixed random network, or of Inception.
            inception_weights: File of the Inception weights; null for the path where torch-fidelity keeps them.
            seed: Seed of the latents.

        Raises:
            InputError: If a value is unsupported.
        """
        if extractor not in ("random", "inception"):
            raise InputError(f"extractor must be inception or random, but is {extractor}")
        for name, value, least in (("num_images", num_images, 1), ("steps", steps, 0), ("neighbors", neighbors, 0)):
            if value < least:
                raise InputError(f"{name} must be at least {least}, but is {value}")
        if steps == 1:
            raise InputError("steps is 1: an interpolation has two ends; set it to 0 for none, or to 2 or more")
        self.num_images, self.steps, self.animation, self.neighbors = num_images, steps, animation, neighbors
        self.truncations, self.seed = list(truncations), seed
        self.extractor, self.inception_weights = extractor, inception_weights

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Check before any work that the model has latents, and that there are data to search.

        Raises:
            InputError: If the model has no latents, or there are no data.
        """
        self._extractor: FeatureExtractor | None = None
        if stage != "predict":
            return
        if not hasattr(pl_module, "sample"):
            raise InputError(f"LatentSpace draws samples, but {type(pl_module).__name__} makes none: leave it out")
        if self.neighbors:
            data = self._data(trainer, pl_module)
            if not hasattr(data, "real_images"):
                raise InputError("neighbors are searched for in the data of the training: give them, or set it to 0")
            channels, size = (getattr(pl_module, name, None) for name in ("channels", "image_size"))
            if (channels, size) != (getattr(data, "channels", channels), getattr(data, "image_size", size)):
                raise InputError(
                    f"the data are not the model's {channels} x {size} x {size}: set those of the training"
                )
            random = self.extractor == "random"
            path = inception_weights_path(self.inception_weights)
            self._extractor = RandomFeatures() if random else InceptionFeatures(path)

    @torch.no_grad()
    def on_predict_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Draw everything."""
        if not trainer.is_global_zero:
            return
        folder, rng = Path(trainer.default_root_dir) / "latent_space", torch.Generator().manual_seed(self.seed)
        latents = torch.randn(self.num_images, STATIONS, pl_module.latent_dim, generator=rng)  # type: ignore[call-overload]
        if self.steps:
            path = slerp(latents[:, 0], latents[:, 1], torch.linspace(0, 1, self.steps))
            write_png(folder / "interpolations.png", make_grid(render(pl_module, path), columns=self.steps))
        if self.animation:
            write_animation(folder / "animation.gif", render(pl_module, closed_path(latents, FRAMES)), self.num_images)
        if self.truncations:
            columns = {
                f"{factor:g}": make_grid(render(pl_module, latents[:, :1], factor), columns=1)
                for factor in self.truncations
            }
            write_png(folder / "truncation.png", side_by_side(columns))
        if self._extractor is not None:
            samples = to_uint8(render(pl_module, latents[:, :1])).cpu()
            self._draw_neighbors(folder, samples, self._data(trainer, pl_module), pl_module.device)

    def _draw_neighbors(self, folder: Path, samples: Tensor, data: Any, device: torch.device) -> None:
        """Find the training images nearest to samples and to held-out images, and draw those of the samples."""
        assert self._extractor is not None
        data.prepare_data()
        data.setup()
        images, mirror = data.real_images("train"), bool(getattr(data, "flip_probability", 0))
        _log.info("Searching %d training images for the nearest ones of %d samples", len(images), len(samples))
        held_out = read_evenly(data.real_images("val"), HELD_OUT)
        queries = torch.cat([samples, held_out.to(samples.dtype)])
        found = nearest_images(queries, images, self._extractor, self.neighbors, mirror, device)
        nearest = found.read(images)[: len(samples)]
        pictures = {"sample": make_grid(samples, columns=1)}
        pictures["nearest training images"] = make_grid(nearest.flatten(0, 1), columns=nearest.shape[1])
        write_png(folder / "neighbors.png", side_by_side(pictures))
        rows = getattr(images, "rows", np.arange(len(images)))
        table = io.StringIO(newline="")
        writer = csv.writer(table)
        writer.writerow(["image", "number", "rank", "distance", "index"])
        for row, (distances, positions) in enumerate(zip(found.distances, found.positions, strict=True)):
            of_model = row < len(samples)
            name, number = ("sample", row) if of_model else ("held out", row - len(samples))
            for rank, (distance, position) in enumerate(zip(distances.tolist(), positions.tolist(), strict=True), 1):
                writer.writerow([name, number, rank, f"{distance:.6g}", int(rows[position])])
        with atomic_path(folder / "neighbors.csv") as beside:
            beside.write_text(table.getvalue())
        nearest_of_all = found.distances[:, 0]
        medians = [part.median().item() for part in (nearest_of_all[: len(samples)], nearest_of_all[len(samples) :])]
        _log.info("Median distance to the nearest training image: samples %.3g, held-out images %.3g", *medians)

    @staticmethod
    def _data(trainer: Trainer, module: Any) -> Any:
        return getattr(trainer, "datamodule", None) or getattr(module, "training_data", None)


def render(module: Any, latents: Tensor, factor: float = 1.0) -> Tensor:
    """Return the images of latents (N,T,D) as (N*T,C,H,W) in [-1, 1], with one class for each row.

    Args:
        module: Module whose averaged generator is drawn.
        latents: Latents.
        factor: Truncation: factor of the latents, or of the distance of w from its mean.
    """
    rows, columns, _ = latents.shape
    labels = [label.repeat_interleave(columns) for label in labels_in_turn(module, rows, module.device)]
    flat, images = latents.flatten(0, 1).to(module.device), []
    generator = getattr(module, "generator_ema", None)
    for start in range(0, len(flat), 64):
        part, classes = flat[start : start + 64], [label[start : start + 64] for label in labels]
        if isinstance(generator, StyleGAN2Generator):
            images.append(generator(part, truncation_psi=factor))
        else:
            images.append(module(factor * part, *classes))
    return torch.cat(images).float()


def write_animation(path: Path, images: Tensor, count: int) -> None:
    """Write a GIF that repeats endlessly.

    Args:
        path: Path of the file.
        images: (count * T,C,H,W) in [-1, 1]: the T frames of each of `count` images that move side by side.
        count: Number of images in a frame.
    """
    pixels = to_uint8(images).cpu().view(count, -1, *images.shape[1:])
    scale = max(1, ENLARGED // pixels.shape[-1])
    frames = []
    for number in range(pixels.shape[1]):
        grid = make_grid(pixels[:, number])
        array = grid[0] if len(grid) == 1 else grid.permute(1, 2, 0)
        frame = Image.fromarray(array.contiguous().numpy())
        frames.append(frame.resize((scale * frame.width, scale * frame.height), Image.Resampling.BICUBIC))
    with atomic_path(path) as beside:
        frames[0].save(
            beside, format="GIF", save_all=True, append_images=frames[1:], duration=MILLISECONDS, loop=0, optimize=True
        )


def read_evenly(images: Any, count: int) -> Tensor:
    """Return at most `count` images of a split (N,C,H,W) uint8, evenly spaced."""
    count = min(count, len(images))
    return torch.as_tensor(images.read(np.arange(count, dtype=np.int64) * len(images) // max(count, 1)))
