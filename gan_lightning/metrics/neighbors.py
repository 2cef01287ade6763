"""Precision, recall, density and coverage by k-nearest neighbors in feature space, computed in blocks."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import Final

import torch
from torch import Tensor

from gan_lightning.errors import InputError

NEIGHBORS: Final = {"precision": 3, "recall": 3, "density": 5, "coverage": 5}  # as in the papers
BLOCK = 2048  # number of rows; a block of distances takes 32 MB
TIE = 1e-12  # relative to the largest squared norm; smaller differences of distances are rounding errors


def neighbor_metrics(
    real: Tensor,
    fake: Tensor,
    neighbors: int | None = None,
    metrics: Collection[str] = tuple(NEIGHBORS),
    block: int = BLOCK,
) -> dict[str, float]:
    """Compute precision, recall, density and coverage of generated images.

    Each image has a ball around it that reaches to its k-th nearest neighbor in the same set. Precision is the fraction
    of generated images inside the ball of any real image, and recall the fraction of real images inside the ball of any
    generated one (Kynkaanniemi et al. 2019, "Improved Precision and Recall Metric", equations 1 and 2; closed balls).
    Density is the mean number of balls of real images that contain a generated image, divided by k, and coverage the
    fraction of real images whose ball contains a generated one (Naeem et al. 2020, "Reliable Fidelity and Diversity
    Metrics", equations 3 and 4; open balls, as in the authors' code, so that a set has density 1 relative to itself).

    Distances are computed in float64, in blocks: memory grows linearly with the number of images.

    Args:
        real: (N,F) features of the real images.
        fake: (M,F) features of the generated images, on the same device; N and M may differ.
        neighbors: k; if None, those of the papers: 3 for precision and recall, 5 for density and coverage.
        metrics: Names of the metrics to compute; other names are ignored.
        block: Number of images whose distances to as many others are in memory at once.

    Returns:
        "precision", "recall" and "coverage", between 0 and 1, and "density", which may exceed 1.

    Raises:
        InputError: If a set has no more than k images, or a feature is not finite.
    """
    ks = {name: neighbors or of_paper for name, of_paper in NEIGHBORS.items() if name in metrics}
    check_neighbors(min(len(real), len(fake)), max(ks.values()))
    # Centering does not change distances, but avoids the cancellation of large squares.
    center = real.double().mean(0)
    real, fake = real.double() - center, fake.double() - center
    largest = torch.stack([features.square().sum(1).max() for features in (real, fake)]).max()  # NaN if any is
    if not largest.isfinite():
        raise InputError("the features of an image are not finite: choose another extractor")
    tie = TIE * float(largest)
    # The radius of each ball, by metric: around generated images for recall, around real ones for all others.
    of_real = {name: k for name, k in ks.items() if name != "recall"}
    nearest_real = nearest_distances(real, max(of_real.values(), default=0), block)
    radius = {name: nearest_real[:, k - 1, None] for name, k in of_real.items()}
    if "recall" in ks:
        radius["recall"] = nearest_distances(fake, ks["recall"], block)[None, :, -1]
    counts = {  # number of balls for density; for all others, 1 if there is any
        name: torch.zeros(
            len(fake if name in ("precision", "density") else real), dtype=torch.int64, device=real.device
        )
        for name in ks
    }
    for rows in blocks(len(real), block):
        for columns in blocks(len(fake), block):
            squared = squared_distances(real[rows], fake[columns])
            if "precision" in ks:
                counts["precision"][columns] |= (squared <= radius["precision"][rows] + tie).any(0)
            if "recall" in ks:
                counts["recall"][rows] |= (squared <= radius["recall"][:, columns] + tie).any(1)
            if "density" in ks:
                counts["density"][columns] += (squared < radius["density"][rows] - tie).sum(0)
            if "coverage" in ks:
                counts["coverage"][rows] |= (squared < radius["coverage"][rows] - tie).any(1)
    means = {name: float(count.double().mean()) for name, count in counts.items()}
    return {name: mean / ks[name] if name == "density" else mean for name, mean in means.items()}


def check_neighbors(images: int, neighbors: int) -> None:
    """Check that a set has more images than the number of neighbors.

    Args:
        images: Number of images in the smaller set.
        neighbors: k.

    Raises:
        InputError: If there are too few images, or k is less than 1.
    """
    if neighbors < 1:
        raise InputError(f"expected at least 1 neighbor but got {neighbors}")
    if images <= neighbors:
        raise InputError(
            f"{images} images are too few for the {neighbors} nearest neighbors of each: give at least "
            f"{neighbors + 1} on each side, fewer neighbors, or other metrics"
        )


def nearest_distances(features: Tensor, k: int, block: int = BLOCK) -> Tensor:
    """Compute the squared distances from each image to its k nearest neighbors, excluding the image itself.

    Args:
        features: (N,F) float64 features, N > k.
        k: Number of neighbors.
        block: Number of images whose distances to as many others are in memory at once.

    Returns:
        (N,k) squared distances, ascending.
    """
    nearest = features.new_full((len(features), k), torch.inf)
    for rows in blocks(len(features), block):
        for columns in blocks(len(features), block):
            if columns.start < rows.start:  # the same distances as in the block across the diagonal
                continue
            squared = squared_distances(features[rows], features[columns])
            if rows == columns:
                squared.fill_diagonal_(torch.inf)
            else:
                nearest[columns] = _smallest(nearest[columns], squared.T, k)
            nearest[rows] = _smallest(nearest[rows], squared, k)
    return nearest


def squared_distances(first: Tensor, second: Tensor) -> Tensor:
    """Compute squared distances (N,M) between features (N,F) and (M,F) with one matrix product."""
    norms = first.square().sum(1)[:, None] + second.square().sum(1)
    return torch.addmm(norms, first, second.T, alpha=-2).clamp_(min=0)


def blocks(count: int, size: int) -> Iterator[slice]:
    """Yield slices that divide `count` rows into blocks."""
    for start in range(0, count, size):
        yield slice(start, min(start + size, count))


def _smallest(known: Tensor, more: Tensor, k: int) -> Tensor:
    return torch.cat([known, more.topk(min(k, more.shape[1]), largest=False).values], 1).topk(k, largest=False).values
