"""Frechet distance of torchmetrics with any feature extractor."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torchmetrics.image.fid import FrechetInceptionDistance

from gan_lightning.metrics.extractors import FeatureExtractor


@dataclass(frozen=True)
class FeatureStatistics:
    """Sums over the features of a set of images: the states of torchmetrics' FrechetInceptionDistance.

    Attributes:
        features_sum: (F,) float64, the sum of the features.
        features_cov_sum: (F,F) float64, the sum of their outer products.
        num_samples: int64 scalar, the number of images.
        features: (N,F) float32, the features in the order of the images; None unless they were kept.
    """

    features_sum: Tensor
    features_cov_sum: Tensor
    num_samples: Tensor
    features: Tensor | None = None


class FrechetDistance(FrechetInceptionDistance):
    """Frechet distance between Gaussians fitted to the features of real and generated images; FID with Inception.

    ||mu_1 - mu_2||^2 + tr(S_1 + S_2 - 2 (S_1 S_2)^(1/2)): Heusel et al. 2017, equation 6. `update`, `compute` and the
    synchronization are those of torchmetrics. `reset` keeps the real images, whose statistics can be saved and loaded.
    Features are extracted outside of autocast; sums and distance are float64.

    Args:
        extractor: Map from uint8 images to features.
        num_images: Number of real and of generated images over all ranks that `compute` requires; any if None.
        kwargs: Keyword arguments of `torchmetrics.Metric`.
    """

    orig_dtype = torch.float64  # torchmetrics sets it in `update`, which a rank without images does not call

    def __init__(self, extractor: FeatureExtractor, num_images: int | None = None, **kwargs: Any) -> None:
        super().__init__(feature=_ExactFeatures(extractor), reset_real_features=False, **kwargs)
        self.num_images = num_images

    def compute(self) -> Tensor:
        """Return the distance, a float64 scalar; 0 for equal Gaussians, up to rounding.

        Raises:
            RuntimeError: If the numbers of images are not `num_images`.
        """
        for count in (int(self.real_features_num_samples), int(self.fake_features_num_samples)):
            if self.num_images not in (None, count):
                raise RuntimeError(f"measured {count} images where {self.num_images} were asked for")
        return super().compute()

    def real_statistics(self, features: Tensor | None = None) -> FeatureStatistics:
        """Return the statistics of the real images of all ranks, on the CPU; all ranks must call it together.

        Args:
            features: Features of the real images, if they are kept in addition to their sums.
        """
        with self.sync_context():
            return FeatureStatistics(
                self.real_features_sum.cpu().clone(),
                self.real_features_cov_sum.cpu().clone(),
                self.real_features_num_samples.cpu().clone(),
                None if features is None else features.cpu(),
            )

    def load_real_statistics(self, statistics: FeatureStatistics) -> None:
        """Use statistics instead of real images: those of all images on one rank, and none on the others."""
        self.real_features_sum = statistics.features_sum.to(self.device)
        self.real_features_cov_sum = statistics.features_cov_sum.to(self.device)
        self.real_features_num_samples = statistics.num_samples.to(self.device)


def frechet_distance(real: Tensor, fake: Tensor, block: int = 1024) -> float:
    """Compute the Frechet distance between sets of features, in float64.

    Args:
        real: (N,F) features of the real images.
        fake: (M,F) features of the generated images, on the same device.
        block: Number of images added to the sums at once.
    """
    metric = FrechetInceptionDistance(feature=_Given(real.shape[1]), sync_on_compute=False).to(real.device)
    for features, is_real in ((real, True), (fake, False)):
        for part in torch.split(features, block):
            metric.update(part.double(), real=is_real)
    return float(metric.compute())


class _Given(nn.Identity):
    """An extractor that returns features unchanged."""

    def __init__(self, num_features: int) -> None:
        super().__init__()
        self.num_features = num_features


class _ExactFeatures(nn.Module):
    """An extractor as torchmetrics' `feature`: outside of autocast, and in float64, which MPS lacks."""

    def __init__(self, extractor: FeatureExtractor) -> None:
        super().__init__()
        self.extractor, self.num_features = extractor, extractor.num_features

    def forward(self, images: Tensor) -> Tensor:
        with torch.autocast(images.device.type, enabled=False):
            features: Tensor = self.extractor(images)
        return (features.cpu() if features.device.type == "mps" else features).double()
