"""Non-local Bayes: denoising by the statistics of similar patches of the same image."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

PATCH = 4  # side of a patch in pixels
SIMILAR = 60  # patches in a group
REACH = 10  # largest distance of a similar patch, in pixels
STEP = 2  # distance in pixels between the reference patches of the groups
DISTANCES = 2**22  # number of distances that are computed at once
LEAST_RELATIVE, LEAST = 1e-5, 1e-8  # variance that is added to patches: relative to theirs, and absolute


@torch.no_grad()
def nonlocal_bayes(pilot: Tensor, noisy: Tensor, noise_level: Tensor) -> Tensor:
    """Denoise images with a Gaussian model for each group of similar patches.

    The second stage of NL-Bayes (Lebrun et al. 2013). For every second patch of the pilot, the most similar ones nearby
    are found. Their mean and covariance are the prior of the patches of the noisy image at the same places, whose
    posterior means are averaged where they overlap. Recurring edges and textures are kept; everything else is smoothed.

    Args:
        pilot: Estimates (B,C,H,W) of the noise-free images.
        noisy: Noisy images (B,C,H,W), on the same scale in [-1, 1].
        noise_level: (B,) standard deviation of the noise on the [0, 1] scale.

    Returns:
        Denoised images (B,C,H,W). Each image is independent of the rest of the batch.
    """
    size = min(PATCH, *pilot.shape[-2:])
    groups = _Groups(pilot.shape[-2] - size + 1, pilot.shape[-1] - size + 1, pilot.device)
    results = []
    # One image at a time, because its patches need many times the memory of the image.
    variances = (2 * noise_level).square()
    for one, other, variance in zip(torch.split(pilot, 1), torch.split(noisy, 1), variances, strict=True):
        total, count = groups.estimate(F.unfold(one, size)[0].mT, F.unfold(other, size)[0].mT, variance)
        counts = count.mT.expand(size * size, -1)
        results.append(F.fold(total.mT[None], one.shape[-2:], size) / F.fold(counts[None], one.shape[-2:], size))
    return torch.cat(results)


class _Groups:
    """Positions of the reference patches of an image, and of the candidates for the group of each.

    Args:
        rows: Number of patch positions from top to bottom.
        columns: Number of patch positions from left to right.
        device: Device of the images.
    """

    def __init__(self, rows: int, columns: int, device: torch.device) -> None:
        self.rows, self.columns = rows, columns
        self.centers = [_every_second(length, device) for length in (rows, columns)]
        self.windows = [_windows(some, length) for some, length in zip(self.centers, (rows, columns), strict=True)]

    def estimate(self, pilot: Tensor, noisy: Tensor, variance: Tensor) -> tuple[Tensor, Tensor]:
        """Return the sums (N,D) of the estimates of the patches (N,D), and the number (N,1) of estimates in each."""
        total, count = torch.zeros_like(noisy), noisy.new_zeros(len(noisy), 1)
        squares = pilot.square().sum(1)
        across = self.centers[1], self.windows[1]
        at_once = max(1, DISTANCES // (len(across[0]) * len(pilot)))
        for centers, windows in zip(
            torch.split(self.centers[0], at_once), torch.split(self.windows[0], at_once), strict=True
        ):
            first, last = int(windows.min()), int(windows.max()) + 1
            band = slice(first * self.columns, last * self.columns)
            middle = (centers[:, None] * self.columns + across[0]).flatten()
            candidates = (windows[:, None, :, None] - first) * self.columns + across[1][None, :, None]
            candidates = candidates.flatten(2).flatten(0, 1)
            distances = squares[band] - 2 * pilot[middle] @ pilot[band].T  # up to a constant
            own = (
                middle[:, None] - band.start
            )  # in a flat region all distances are equal, but each pixel needs an estimate
            distances.scatter_(1, own, -torch.inf)
            near = distances.gather(1, candidates)
            nearest = near.topk(min(SIMILAR, near.shape[1]), largest=False, sorted=False).indices
            group = candidates.gather(1, nearest) + band.start
            estimates = posterior_means(pilot[group], noisy[group], variance)
            total.index_add_(0, group.flatten(), estimates.flatten(0, 1))
            count.index_add_(0, group.flatten(), count.new_ones(group.numel(), 1))
        return total, count


def posterior_means(pilot: Tensor, noisy: Tensor, variance: Tensor) -> Tensor:
    """Return the posterior means (G,K,D) of groups of K noisy vectors, with a prior fitted to the pilot's vectors."""
    mean = pilot.mean(1, keepdim=True)
    centered = pilot - mean
    covariance = centered.mT @ centered / max(pilot.shape[1] - 1, 1)
    diagonal = covariance.diagonal(dim1=1, dim2=2)
    # The covariance of few or equal vectors is singular.
    added = variance + LEAST_RELATIVE * diagonal.mean(1, keepdim=True) + LEAST
    gain = torch.linalg.solve(covariance + torch.diag_embed(added.expand_as(diagonal)), covariance)
    means: Tensor = mean + (noisy - mean) @ gain
    return means


def _every_second(length: int, device: torch.device) -> Tensor:
    places = torch.arange(0, length, STEP, device=device)
    return places if places[-1] == length - 1 else torch.cat([places, places.new_tensor([length - 1])])


def _windows(centers: Tensor, length: int) -> Tensor:
    """Return the positions (N, width) within reach of each center, shifted inwards at the ends to keep their number."""
    width = min(2 * REACH + 1, length)
    starts = (centers - REACH).clamp(0, length - width)
    return starts[:, None] + torch.arange(width, device=centers.device)
