"""Kernel distance and Inception Score of torchmetrics as functions of features."""

from __future__ import annotations

import warnings

import torch
from torch import Tensor, nn
from torchmetrics.image.inception import InceptionScore
from torchmetrics.image.kid import KernelInceptionDistance


def kernel_distance(real: Tensor, fake: Tensor, subsets: int = 100, subset_size: int = 1000, seed: int = 0) -> float:
    """Compute the kernel distance, an unbiased squared MMD with the cubic kernel (Binkowski et al. 2018).

    On Inception features, this is KID.

    Args:
        real: (N,F) features of the real images.
        fake: (N,F) features of the generated images.
        subsets: Number of random subsets over which the distance is averaged.
        subset_size: Number of images in a subset; all images if there are fewer.
        seed: Seed of the choice of subsets; the global random state is not changed.

    Returns:
        Mean over the subsets. It can be slightly negative.
    """
    subset_size = min(subset_size, len(real), len(fake))
    with warnings.catch_warnings(), torch.random.fork_rng(devices=[]):
        warnings.simplefilter("ignore", UserWarning)  # about keeping all features, which is intended here
        torch.manual_seed(seed)
        metric = KernelInceptionDistance(
            feature=nn.Identity(), subsets=subsets, subset_size=subset_size, sync_on_compute=False
        )
        metric.update(real, real=True)
        metric.update(fake, real=False)
        mean, _ = metric.compute()
    return float(mean)


def inception_score(logits: Tensor, splits: int = 10, seed: int = 0) -> float:
    """Compute the Inception Score, exp E KL(p(y|x) || p(y)) (Salimans et al. 2016), averaged over random splits.

    Args:
        logits: (N,K) class logits of the generated images.
        splits: Number of parts into which the images are split.
        seed: Seed of the split; the global random state is not changed.

    Returns:
        The score, between 1 and K.
    """
    with warnings.catch_warnings(), torch.random.fork_rng(devices=[]):
        warnings.simplefilter("ignore", UserWarning)
        torch.manual_seed(seed)
        metric = InceptionScore(feature=nn.Identity(), splits=splits, sync_on_compute=False)
        metric.update(logits)
        mean, _ = metric.compute()
    return float(mean)
