"""Measure generated against real images under one stated protocol: exactly N of each, on any number of ranks."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Literal, Protocol, TypeAlias

import numpy as np
import torch
import torchmetrics
from numpy.typing import NDArray
from torch import Tensor

from gan_lightning import distributed
from gan_lightning.images import to_uint8
from gan_lightning.metrics.cache import StatisticsCache
from gan_lightning.metrics.distances import frechet_distance, inception_score, kernel_distance
from gan_lightning.metrics.extractors import FeatureExtractor, InceptionFeatures
from gan_lightning.metrics.frechet import FeatureStatistics, accumulate, gather, rank_batches

MetricName: TypeAlias = Literal["fd", "kid", "is"]
Settings: TypeAlias = dict[str, str | int | float | bool]
Sampler: TypeAlias = Callable[[int, torch.Generator], Tensor]
ReadBatch: TypeAlias = Callable[[int, int, int], Tensor]

KERNEL_SUBSETS = 100
KERNEL_SUBSET_SIZE = 1000
SCORE_SPLITS = 10


class RealImages(Protocol):
    """The images of one split."""

    def __len__(self) -> int:
        """How many there are."""

    def read(self, positions: NDArray[np.int64]) -> Tensor:
        """Give (B,C,H,W) uint8 images."""


class RealImageSource(Protocol):
    """What a data module offers to those who measure."""

    def real_images(self, split: str) -> RealImages:
        """Give the images of a split."""

    def protocol(self, split: str) -> Mapping[str, str | int]:
        """Name all that the pixels of a split depend on, and a digest of them."""


class GenerationEvaluator:
    """Compares samples of a generator with the images of a split.

    Batch j of the samples is drawn from a generator seeded by (seed, j), and rank r of W takes the batches r, r + W,
    ..., of the real images too: the same images are measured whatever the number of ranks.

    Args:
        extractor: Of the features.
        metrics: Some of fd, kid, is; the last with Inception's features alone.
        num_images: Images on each side.
        batch_size: Images at a time; the last batch is short.
        seed: Of the latents, and of the subsets of kid and is.
        cache: Where statistics of real images are kept.
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
        self.num_images, self.batch_size, self.seed = num_images, batch_size, seed
        self.cache = cache
        self._real: dict[str, FeatureStatistics | None] = {}  # by split; on rank 0, None elsewhere

    def measure(
        self,
        sample: Callable[[int, torch.Generator], Tensor],
        source: RealImageSource,
        split: str,
        device: torch.device,
    ) -> dict[MetricName, float]:
        """Draw samples and compare them; all ranks must call it together.

        Args:
            sample: Maps a count and a CPU generator to (count,C,H,W) float images in [-1, 1].
            source: Of the real images.
            split: Which of them.
            device: Where features are computed.

        Returns:
            Each metric's value, the same on every rank.
        """
        self.extractor.to(device)
        if split not in self._real:
            self._real[split] = self._real_statistics(source, split, device)

        def draw(index: int, start: int, stop: int) -> Tensor:
            seed = np.random.SeedSequence([self.seed, index]).generate_state(1, np.uint64)[0]
            with torch.no_grad():
                return to_uint8(sample(stop - start, torch.Generator().manual_seed(int(seed >> 1))))

        fake = self._statistics(draw, device, keep_features="kid" in self.metrics or "is" in self.metrics).cpu()
        real = self._real[split]
        values: dict[MetricName, float] = distributed.broadcast(
            None if real is None else {name: self._value(name, real, fake) for name in self.metrics}
        )
        return values

    def settings(self, source: RealImageSource, split: str, ema_decay: float) -> dict[MetricName, Settings]:
        """State how each metric is measured: data, crop, resizer, N, extractor, EMA decay, versions."""
        shared: Settings = {
            **source.protocol(split),
            "num_images": self.num_images,
            "extractor": self.extractor.name,
            "antialias": False,
            "ema_decay": ema_decay,
            "batch_size": self.batch_size,
            "seed": self.seed,
            "torchmetrics": torchmetrics.__version__,
        }
        own: dict[MetricName, Settings] = {
            "fd": {},
            "kid": {"subsets": KERNEL_SUBSETS, "subset_size": min(KERNEL_SUBSET_SIZE, self.num_images)},
            "is": {"splits": SCORE_SPLITS},
        }
        return {name: {**shared, **own[name]} for name in self.metrics}

    def _value(self, name: MetricName, real: FeatureStatistics, fake: FeatureStatistics) -> float:
        if name == "fd":
            return frechet_distance(real, fake)
        assert fake.features is not None
        if name == "kid":
            assert real.features is not None
            return kernel_distance(real.features, fake.features, KERNEL_SUBSETS, KERNEL_SUBSET_SIZE, self.seed)
        assert isinstance(self.extractor, InceptionFeatures)
        return inception_score(self.extractor.class_logits(fake.features).cpu(), SCORE_SPLITS, self.seed)

    def _real_statistics(self, source: RealImageSource, split: str, device: torch.device) -> FeatureStatistics | None:
        """From disk, or else computed by all ranks together; kept on rank 0, where alone they are needed."""
        rank = distributed.rank()
        keep_features = "kid" in self.metrics
        description = {
            **source.protocol(split),
            "num_images": self.num_images,
            "extractor": self.extractor.name,
            "with_features": keep_features,
        }
        statistics = self.cache.load(description) if rank == 0 else None
        if not distributed.broadcast(statistics is not None):
            images = source.real_images(split)
            # Evenly spaced: all of them if N is all, and else not only the first class of a sorted folder.
            positions = np.arange(self.num_images, dtype=np.int64) * len(images) // self.num_images
            statistics = self._statistics(
                lambda _, start, stop: images.read(positions[start:stop]), device, keep_features
            ).cpu()
            if rank == 0:
                self.cache.save(description, statistics)
        return statistics if rank == 0 else None

    def _statistics(self, read: ReadBatch, device: torch.device, keep_features: bool) -> FeatureStatistics:
        """Statistics of N images, of which `read(index, start, stop)` gives a batch; the ranks share the batches."""
        batches = (
            read(*batch)
            for batch in rank_batches(self.num_images, self.batch_size, distributed.rank(), distributed.world_size())
        )
        share = accumulate(self.extractor, batches, device, keep_features)
        return gather(share, self.num_images, self.batch_size)
