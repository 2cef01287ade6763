"""Comparison of generated with real images by a fixed protocol: exactly N of each, on any number of ranks."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Protocol, TypeAlias

import numpy as np
import torch
import torchmetrics
from numpy.typing import NDArray
from torch import Tensor
from torchmetrics.utilities.distributed import gather_all_tensors

from gan_lightning import distributed
from gan_lightning.images import to_uint8
from gan_lightning.metrics.cache import StatisticsCache
from gan_lightning.metrics.comparison import MetricName, Settings, compare_features, settings_of
from gan_lightning.metrics.extractors import FeatureExtractor
from gan_lightning.metrics.frechet import FrechetDistance

Sampler: TypeAlias = Callable[[int, torch.Generator], Tensor]
ReadBatch: TypeAlias = Callable[[int, int, int], Tensor]


class RealImages(Protocol):
    """The images of one split."""

    def __len__(self) -> int:
        """Return the number of images."""

    def read(self, positions: NDArray[np.int64]) -> Tensor:
        """Return the images at some positions: (B,C,H,W) uint8."""


class RealImageSource(Protocol):
    """A data module that provides real images."""

    def real_images(self, split: str) -> RealImages:
        """Return the images of a split."""

    def protocol(self, split: str) -> Mapping[str, str | int]:
        """Return all settings that determine the pixels of a split, and a digest of the pixels."""


class GenerationEvaluator:
    """Comparison of samples of a generator with the images of a split.

    Batch j of the samples is drawn from a random generator seeded by (seed, j). Rank r of W takes the batches r, r + W,
    ... of both the samples and the real images, so that the same images are measured on any number of ranks.

    Args:
        extractor: Map from images to features, in which all metrics are measured.
        metrics: Names of the metrics; is needs Inception's features.
        num_images: Number of images on each side.
        batch_size: Number of images in a batch; the last batch is short.
        seed: Seed of the latents, and of the subsets of kid and is.
        cache: Folder in which statistics of real images are kept.
    """

    def __init__(
        self,
        extractor: FeatureExtractor,
        metrics: Sequence[MetricName],
        num_images: int,
        batch_size: int,
        seed: int,
        cache: StatisticsCache,
    ) -> None:
        self.extractor = extractor
        self.metrics = list(metrics)
        self._from_features = [metric for metric in self.metrics if metric != "fd"]
        self._of_both = [metric for metric in self._from_features if metric != "is"]  # is needs no real images
        self.num_images, self.batch_size, self.seed = num_images, batch_size, seed
        self.cache = cache
        # By split: a metric that holds the real images, and on rank 0 their features if a metric needs them.
        self._real: dict[str, tuple[FrechetDistance, Tensor | None]] = {}

    def measure(
        self,
        sample: Sampler,
        source: RealImageSource,
        split: str,
        device: torch.device,
    ) -> dict[MetricName, float]:
        """Draw samples and compare them with real images; all ranks must call it together.

        Args:
            sample: Function from a count and a CPU random generator to (count,C,H,W) float images in [-1, 1].
            source: Source of the real images.
            split: Split that the real images are read from.
            device: Device of the feature extractor.

        Returns:
            Each metric's value, the same on every rank.
        """
        if split not in self._real:
            self._real[split] = self._measure_real(source, split, device)
        metric, real_features = self._real[split]
        metric.reset()  # but for the real images

        def draw(index: int, start: int, stop: int) -> Tensor:
            seed = np.random.SeedSequence([self.seed, index]).generate_state(1, np.uint64)[0]
            with torch.no_grad():
                return to_uint8(sample(stop - start, torch.Generator().manual_seed(int(seed) >> 1)))

        features = self._update(metric, draw, device, real=False)
        values: dict[MetricName, float] = {}
        if "fd" in self.metrics:
            values["fd"] = float(metric.compute())
        if distributed.rank() == 0 and features is not None:
            real = features[:0] if real_features is None else real_features  # none if all that is asked for is `is`
            values |= compare_features(self._from_features, real, features, self.extractor, self.seed, device=device)
        from_rank_0: dict[MetricName, float] = distributed.broadcast(values)
        return {name: from_rank_0[name] for name in self.metrics}

    def settings(
        self, source: RealImageSource, split: str, averaging: Mapping[str, float]
    ) -> dict[MetricName, Settings]:
        """Return how each metric is measured: data, crop, resizer, N, extractor, averaging of weights, versions."""
        shared: Settings = {
            **source.protocol(split),
            "num_images": self.num_images,
            "extractor": self.extractor.name,
            "antialias": False,
            **averaging,
            "batch_size": self.batch_size,
            "seed": self.seed,
            "torchmetrics": torchmetrics.__version__,
        }
        return {name: {**shared, **settings_of(name, self.num_images)} for name in self.metrics}

    def _measure_real(
        self, source: RealImageSource, split: str, device: torch.device
    ) -> tuple[FrechetDistance, Tensor | None]:
        """Load the statistics of real images on rank 0, or compute them on all ranks."""
        # MPS has no float64: there the sums are kept on the CPU.
        metric = FrechetDistance(self.extractor, self.num_images).to("cpu" if device.type == "mps" else device)
        description = {
            **source.protocol(split),
            "num_images": self.num_images,
            "extractor": self.extractor.name,
            "with_features": bool(self._of_both),
        }
        statistics = self.cache.load(description) if distributed.rank() == 0 else None
        if distributed.broadcast(statistics is not None):
            if statistics is None:  # rank 0 has those of all images
                return metric, None
            metric.load_real_statistics(statistics)
            return metric, statistics.features
        images = source.real_images(split)
        # Evenly spaced, because the first N images of a sorted folder may all be of one class.
        positions = np.arange(self.num_images, dtype=np.int64) * len(images) // self.num_images

        def read(index: int, start: int, stop: int) -> Tensor:
            return images.read(positions[start:stop])

        features = self._update(metric, read, device, real=True)
        statistics = metric.real_statistics(features)
        if distributed.rank() != 0:
            return metric, None
        self.cache.save(description, statistics)
        return metric, features

    def _update(self, metric: FrechetDistance, read: ReadBatch, device: torch.device, real: bool) -> Tensor | None:
        """Update the metric with this rank's batches, `read(index, start, stop)`, in one pass of the extractor.

        Returns:
            (N,F) features of all ranks' images, in the order of the images, on the CPU; None if no metric needs them.

        Raises:
            RuntimeError: If the ranks have measured more or fewer than N images.
        """
        keep_features = bool(self._of_both if real else self._from_features)
        self.extractor.to(device)
        kept = [torch.empty(0, self.extractor.num_features, device=metric.device)]

        def keep(extractor: torch.nn.Module, inputs: Any, features: Tensor) -> None:
            if keep_features:
                kept.append(features.to(metric.device))

        with self.extractor.register_forward_hook(keep):
            for batch in rank_batches(self.num_images, self.batch_size, distributed.rank(), distributed.world_size()):
                metric.update(read(*batch).to(device), real=real)
        return gather_features(torch.cat(kept), self.num_images, self.batch_size).cpu() if keep_features else None


def rank_batches(count: int, batch_size: int, rank: int = 0, world_size: int = 1) -> Iterator[tuple[int, int, int]]:
    """Yield (index, start, stop) of the batches of a rank: rank r takes the batches r, r + world_size, ...

    The batches of `count` images do not depend on the number of ranks, and the last one is short instead of padded.
    """
    for index in range(rank, -(-count // batch_size), world_size):
        yield index, index * batch_size, min((index + 1) * batch_size, count)


def gather_features(features: Tensor, count: int, batch_size: int) -> Tensor:
    """Gather the features of all ranks, in the order of the images.

    Args:
        features: (n,F) features of this rank's `rank_batches`.
        count: Number of images over all ranks.
        batch_size: Number of images in a batch, as in `rank_batches`.

    Returns:
        (count,F) features, the same on every rank.

    Raises:
        RuntimeError: If the ranks do not have exactly `count` of them.
    """
    if distributed.is_distributed():
        features = torch.cat(gather_all_tensors(features))
    if len(features) != count:
        raise RuntimeError(f"measured {len(features)} images where {count} were asked for")
    return features[image_order(count, batch_size, distributed.world_size()).to(features.device)]


def image_order(count: int, batch_size: int, world_size: int) -> Tensor:
    """Return the index of each image in the concatenation of all ranks' batches: (count,) int64."""
    images = [
        torch.arange(start, stop)
        for rank in range(world_size)
        for _, start, stop in rank_batches(count, batch_size, rank, world_size)
    ]
    return torch.cat(images).argsort()
