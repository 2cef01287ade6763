"""Search for the training images that are nearest to samples, which shows whether a generator copies."""

from __future__ import annotations

import math
from typing import NamedTuple, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gan_lightning.metrics.extractors import FeatureExtractor

BATCH = 256


class Images(Protocol):
    """Images of a split."""

    def __len__(self) -> int:
        """Return the number of images."""

    def read(self, positions: NDArray[np.int64]) -> Tensor:
        """Return the images at some positions: (B,C,H,W) uint8."""


class Nearest(NamedTuple):
    """The nearest images of N queries, nearest first.

    Attributes:
        distances: (N,K) Euclidean distances of features.
        positions: (N,K) int64, positions of the images.
        mirrored: (N,K) bool, whether the nearest image is the mirrored one.
    """

    distances: Tensor
    positions: Tensor
    mirrored: Tensor

    def read(self, images: Images) -> Tensor:
        """Return the images, (N,K,C,H,W) uint8."""
        count, several = self.positions.shape
        pixels = images.read(self.positions.flatten().numpy())
        turned = torch.where(self.mirrored.flatten()[:, None, None, None], pixels.flip(-1), pixels)
        return turned.reshape(count, several, *pixels.shape[1:])


@torch.no_grad()
def nearest_images(
    queries: Tensor,
    images: Images,
    extractor: FeatureExtractor,
    count: int,
    mirror: bool = False,
    device: torch.device | str = "cpu",
) -> Nearest:
    """Find the images of a split with the nearest features, in one pass over its batches.

    Args:
        queries: Images (N,C,H,W) uint8.
        images: Images to search.
        extractor: Map from images to features.
        count: Number of images K to find for each query, at most that of the split.
        mirror: Whether to also search the mirrored images; each image is found at most once.
        device: Device on which features are computed.
    """
    extractor.to(device)
    sought = torch.cat([extractor(part.to(device)) for part in torch.split(queries, BATCH)])
    count = min(count, len(images))
    best = Nearest(
        torch.full((len(queries), count), math.inf),
        torch.zeros(len(queries), count, dtype=torch.int64),
        torch.zeros(len(queries), count, dtype=torch.bool),
    )
    for start in range(0, len(images), BATCH):
        positions = torch.arange(start, min(start + BATCH, len(images)))
        pixels = images.read(positions.numpy()).to(device)
        distances = torch.cdist(sought, extractor(pixels)).cpu()
        mirrored = torch.zeros_like(distances, dtype=torch.bool)
        if mirror:
            turned = torch.cdist(sought, extractor(pixels.flip(-1))).cpu()
            mirrored, distances = turned < distances, torch.minimum(turned, distances)
        found = Nearest(distances, positions.expand(len(queries), -1), mirrored)
        both = Nearest(*(torch.cat(pair, dim=1) for pair in zip(best, found, strict=True)))
        order = both.distances.topk(count, dim=1, largest=False, sorted=True).indices
        best = Nearest(*(values.gather(1, order) for values in both))
    return best
