"""The work of the command `evaluate`: two sets of images, their features, and the metrics between them."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
import torchmetrics
from torch import Tensor
from tqdm import tqdm  # type: ignore[import-untyped]

from gan_lightning.commands.parser import choose_device
from gan_lightning.data.decode import RESIZER
from gan_lightning.data.image_sets import (
    SIZE_ADVICE,
    Framing,
    ImageSet,
    color,
    open_images,
    pixels_digest,
    size,
)
from gan_lightning.errors import InputError
from gan_lightning.file_names import printable
from gan_lightning.images import to_uint8
from gan_lightning.metrics.comparison import (
    LOWER_IS_BETTER,
    METRICS,
    compare_features,
    logged_name,
    metrics_of,
    settings_of,
)
from gan_lightning.metrics.extractors import InceptionFeatures
from gan_lightning.metrics.neighbors import NEIGHBORS, check_neighbors
from gan_lightning.metrics.networks import make_extractor
from gan_lightning.networks.checkpoints import check_whole, load_generator
from gan_lightning.pretrained import weights_folder

CHECKPOINTS: Final = (".ckpt", ".pt", ".pth", ".safetensors", ".pkl")
DEFAULT_SAMPLES: Final = 10_000


class Evaluation:
    """Evaluation by one command `evaluate`.

    Args:
        options: Options of the command.

    Raises:
        InputError: If anything is wrong that can be detected before the first image is decoded.
    """

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        asked = options.metrics or METRICS
        if unknown := [name for name in asked if name not in METRICS]:
            raise InputError(f"--metrics must be some of {', '.join(METRICS)}, not {unknown[0]}")
        self.device = choose_device(options.device)
        self.real, self.fake = self._open()
        if self.real.shape != self.fake.shape:
            raise InputError(_differ(self.real, self.fake))
        self.counts = self._count(self.real), self._count(self.fake)
        extractor = make_extractor(options.extractor, options.weights, options.extractor_size, options.download)
        possible = metrics_of(extractor.label)
        if options.metrics and (impossible := [name for name in asked if name not in possible]):
            raise InputError(
                f"{impossible[0]} cannot be measured with --extractor {options.extractor}; it needs inception"
            )
        if not options.metrics and extractor.label != InceptionFeatures.label:
            possible = tuple(name for name in possible if name != "mifid")  # its threshold is for Inception
        self.metrics = [name for name in METRICS if name in asked and name in possible]
        if min(self.counts) < 2:
            raise InputError(f"there must be at least 2 images on each side, but there are {self.counts}")
        if needed := [options.neighbors or NEIGHBORS[name] for name in self.metrics if name in NEIGHBORS]:
            check_neighbors(min(self.counts), max(needed))
        self.extractor = extractor.to(self.device)
        self._digests: dict[str, str] = {}

    @torch.no_grad()
    def run(self) -> dict[str, Any]:
        """Measure, and return each value with its protocol, by the name of the metric."""
        real, fake = (self._features(side) for side in ("real", "fake"))
        values = compare_features(
            self.metrics, real, fake, self.extractor, self.options.seed, self.options.neighbors, self.device
        )
        shared, few = self._protocol(), min(self.counts)
        if few <= self.extractor.num_features and {"fd", "mifid"} & {*self.metrics}:
            print(
                f"{few} images are too few to estimate the covariance of {self.extractor.num_features} features: the "
                "Frechet distance is biased upwards; compare it at equal numbers of images only",
                file=sys.stderr,
            )
        return {
            logged_name(metric, self.extractor.label): {
                "value": value,
                "better": "lower" if metric in LOWER_IS_BETTER else "higher",
                "protocol": {**shared, **settings_of(metric, few, self.options.neighbors)},
            }
            for metric, value in values.items()
        }

    def _open(self) -> tuple[ImageSet, ImageSet]:
        """Open both sets, a checkpoint last, because it draws as many images as the other set has."""
        options = self.options
        framing = Framing(options.image_size, options.crop, options.channels)
        drawn = [
            Path(path).suffix.lower() in CHECKPOINTS or weights_folder(path) is not None
            for path in (options.real, options.fake)
        ]
        if options.num_samples is not None and not any(drawn):
            raise InputError("--num_samples is about a checkpoint, and none is given: use --num_images")
        sets = [
            None if is_drawn else open_images(path, framing)
            for path, is_drawn in zip((options.real, options.fake), drawn, strict=True)
        ]
        others = [self._count(opened) for opened in sets if opened is not None]
        count = options.num_samples or options.num_images or (others[0] if others else DEFAULT_SAMPLES)
        for side, path in enumerate((options.real, options.fake)):
            if drawn[side]:
                sets[side] = DrawnImages(path, count, options.seed, stream=1 - side, device=self.device)
        real, fake = sets
        assert real is not None
        assert fake is not None
        return real, fake

    def _count(self, images: ImageSet) -> int:
        """Return the number of measured images of a set."""
        count = self.options.num_images
        if count is not None and images.kind != "checkpoint" and count > len(images):
            raise InputError(
                f"--num_images is {count}, but {images.path} has {len(images)}: give {len(images)} or less"
            )
        return len(images) if count is None or images.kind == "checkpoint" else count

    def _features(self, side: str) -> Tensor:
        images, count = (self.real, self.counts[0]) if side == "real" else (self.fake, self.counts[1])
        digests: list[str] = []
        features = []
        with tqdm(total=count, desc=side, unit="img", disable=not sys.stderr.isatty()) as bar:
            for batch in pixels_digest(images.batches(self.options.batch_size, count), digests):
                features.append(self.extractor(batch.to(self.device).contiguous()).float().cpu())
                bar.update(len(batch))
        self._digests[side] = digests[0]
        return torch.cat(features)

    def _protocol(self) -> dict[str, Any]:
        """Return the part of the protocol that all metrics share."""
        options = self.options
        sides = {
            side: {**images.describe(), "images": count, "pixels_sha256": self._digests[side]}
            for side, images, count in (("real", self.real, self.counts[0]), ("fake", self.fake, self.counts[1]))
        }
        channels, height, width = self.real.shape
        return {
            **sides,
            "height": height,
            "width": width,
            "channels": channels,
            "image_size": options.image_size,
            "crop": options.crop,
            "resizer": RESIZER if options.image_size else None,
            "extractor": self.extractor.name,
            "batch_size": options.batch_size,
            "seed": options.seed,
            "torch": torch.__version__,
            "torchmetrics": torchmetrics.__version__,
        }


class DrawnImages(ImageSet):
    """Images drawn from a generator; those of FAKE are the same as in training, for equal seed and batch size.

    Args:
        path: Checkpoint.
        count: Number of images.
        seed: Seed of the latents.
        stream: 0, or another number for different latents with the same seed.
        device: Device of the generator.

    Raises:
        InputError: If the checkpoint contains no generator.
    """

    kind = "checkpoint"

    def __init__(self, path: str, count: int, seed: int, stream: int, device: torch.device) -> None:
        check_whole(path)
        self.path = printable(path)
        self._generator = load_generator(path).to(device)
        self._count, self._seeds, self._device = count, (seed, *([stream] if stream else [])), device
        side = self._generator.image_size
        self.shape = self._generator.channels, side, side

    def __len__(self) -> int:
        return self._count

    def batches(self, batch_size: int, count: int) -> Iterator[Tensor]:
        """Yield batches, see `ImageSet.batches`.

        Raises:
            InputError: If an image is not finite.
        """
        for index, start in enumerate(range(0, count, batch_size)):
            seed, *stream = self._seeds
            own_seed = np.random.SeedSequence([seed, index, *stream]).generate_state(1, np.uint64)[0]
            rng = torch.Generator().manual_seed(int(own_seed) >> 1)
            latents = torch.randn(min(batch_size, count - start), self._generator.latent_dim, generator=rng)
            images: Tensor = self._generator(latents.to(self._device)).float()
            if not images.isfinite().all():
                raise InputError(f"the images of {self.path} are not finite: give an earlier checkpoint")
            yield to_uint8(images).cpu()


def _differ(real: ImageSet, fake: ImageSet) -> str:
    if real.shape[1:] != fake.shape[1:]:
        return (
            f"the images differ in size: {real.path} has {size(real.shape)}, {fake.path} {size(fake.shape)}; "
            f"{SIZE_ADVICE}"
        )
    return (
        f"the images differ in channels: those of {real.path} are {color(real.shape)}, those of {fake.path} "
        f"{color(fake.shape)}; give --channels 1 or --channels 3 to convert image files"
    )
