"""Statistics of image features over exactly N images, the same on any number of ranks."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, distributed, nn
from torchmetrics.image.fid import FrechetInceptionDistance
from torchmetrics.utilities.distributed import gather_all_tensors

from gan_lightning.distributed import is_distributed, world_size
from gan_lightning.metrics.extractors import FeatureExtractor


@dataclass(frozen=True)
class FeatureStatistics:
    """Sums over the features of a set of images: the states of torchmetrics' FrechetInceptionDistance.

    Attributes:
        features_sum: (F,) float64, the sum of the features.
        features_cov_sum: (F,F) float64, the sum of their outer products.
        num_samples: int64 scalar, how many there are.
        features: (N,F) float32, the features themselves, in the order of the images; None unless they were kept.
    """

    features_sum: Tensor
    features_cov_sum: Tensor
    num_samples: Tensor
    features: Tensor | None = None

    def cpu(self) -> FeatureStatistics:
        """The same, on the CPU."""
        return FeatureStatistics(
            self.features_sum.cpu(),
            self.features_cov_sum.cpu(),
            self.num_samples.cpu(),
            None if self.features is None else self.features.cpu(),
        )


def rank_batches(count: int, batch_size: int, rank: int = 0, world_size: int = 1) -> Iterator[tuple[int, int, int]]:
    """Share the batches of `count` images out: rank r takes the batches r, r + world_size, ...

    The batches are the same whatever the number of ranks, and none is padded: the last is short.

    Yields:
        (index, start, stop) of each batch: its number, and the images [start, stop) that it holds.
    """
    for index in range(rank, -(-count // batch_size), world_size):
        yield index, index * batch_size, min((index + 1) * batch_size, count)


def frechet_metric(num_features: int) -> FrechetInceptionDistance:
    """Make torchmetrics' machine, fed with features: one pass of the extractor serves every metric."""
    feature = nn.Identity()
    feature.num_features = num_features  # type: ignore[assignment]
    # With `num_features` given, torchmetrics sends no image of its own through the extractor.
    return FrechetInceptionDistance(feature=feature, normalize=False, sync_on_compute=False)


def accumulate(
    extractor: FeatureExtractor, batches: Iterable[Tensor], device: torch.device, keep_features: bool = False
) -> FeatureStatistics:
    """Sum the features of this rank's images, without autocast and gradients.

    Args:
        extractor: On `device`.
        batches: (B,C,H,W) uint8 images; none at all is fine.
        device: Where to compute.
        keep_features: Keep the features too, which kernel distances need.

    Returns:
        This rank's share, on `device`.
    """
    # MPS has no float64, and the sums need it: there they are kept on the CPU.
    metric = frechet_metric(extractor.num_features).to("cpu" if device.type == "mps" else device)
    kept = [torch.empty(0, extractor.num_features, device=metric.device)]
    with torch.no_grad(), torch.autocast(device.type, enabled=False):
        for images in batches:
            features = extractor(images.to(device)).to(metric.device, torch.float32)
            metric.update(features.double(), real=False)
            if keep_features:
                kept.append(features)
    return FeatureStatistics(
        metric.fake_features_sum,
        metric.fake_features_cov_sum,
        metric.fake_features_num_samples,
        torch.cat(kept) if keep_features else None,
    )


def gather(share: FeatureStatistics, count: int, batch_size: int) -> FeatureStatistics:
    """Add all ranks' shares up, and put their features back in the order of the images.

    Args:
        share: What this rank accumulated over its `rank_batches`.
        count: Images of all ranks.
        batch_size: As in `rank_batches`.

    Returns:
        The statistics of all images, the same on every rank.

    Raises:
        RuntimeError: If they are not exactly `count` images.
    """
    if is_distributed():
        for state in (share.features_sum, share.features_cov_sum, share.num_samples):
            distributed.all_reduce(state)
        features = None
        if share.features is not None:
            features = torch.cat(gather_all_tensors(share.features))
            features = features[image_order(count, batch_size, world_size()).to(features.device)]
        share = FeatureStatistics(share.features_sum, share.features_cov_sum, share.num_samples, features)
    if int(share.num_samples) != count:
        raise RuntimeError(f"measured {int(share.num_samples)} images where {count} were asked for")
    return share


def image_order(count: int, batch_size: int, world_size: int) -> Tensor:
    """Where to find image i in the concatenation of all ranks' batches: (count,) int64 indices."""
    images = [
        torch.arange(start, stop)
        for rank in range(world_size)
        for _, start, stop in rank_batches(count, batch_size, rank, world_size)
    ]
    return torch.cat(images).argsort()
