"""MIFID: a Frechet distance that penalizes generators for repeating training images."""

from __future__ import annotations

from typing import Final

import torch
from torch import Tensor
from torch.nn import functional as F

from gan_lightning.metrics.neighbors import BLOCK, blocks

THRESHOLD: Final = 0.1  # from the competition for which the metric was designed, for Inception features


def memorization_distance(real: Tensor, fake: Tensor, block: int = BLOCK) -> float:
    """Compute the mean distance of generated images to the nearest real image.

    The distance of two images is 1 - |cos| of the angle between their features (Bai et al. 2021, "On Training Sample
    Memorization", section 4). torchmetrics takes the mean over the real images instead.

    Args:
        real: (N,F) features of the real images.
        fake: (M,F) features of the generated images, on the same device.
        block: Number of images whose distances to as many others are in memory at once.

    Returns:
        Mean over the generated images, between 0 and 1; 0 if each repeats a real one.
    """
    nearest = torch.full((len(fake),), -torch.inf, dtype=torch.float64, device=fake.device)
    for columns in blocks(len(real), block):
        directions = F.normalize(real[columns].double())
        for rows in blocks(len(fake), block):
            cosines = (F.normalize(fake[rows].double()) @ directions.T).abs()
            nearest[rows] = torch.maximum(nearest[rows], cosines.amax(1))
    return float((1 - nearest).mean().clamp(0, 1))


def memorization_informed(distance: float, memorization: float, threshold: float = THRESHOLD) -> float:
    """Compute MIFID: a Frechet distance, divided by the memorization distance if that is below a threshold.

    Args:
        distance: Frechet distance.
        memorization: Memorization distance.
        threshold: Memorization distance from which there is no penalty.
    """
    return distance / (memorization + 1e-14) if memorization < threshold else distance
