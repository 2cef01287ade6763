"""Frechet and kernel distance and the Inception Score, by torchmetrics, on statistics of features."""

from __future__ import annotations

import warnings

import torch
from torch import Tensor, nn
from torchmetrics.image.inception import InceptionScore
from torchmetrics.image.kid import KernelInceptionDistance

from gan_lightning.metrics.frechet import FeatureStatistics, frechet_metric


def frechet_distance(real: FeatureStatistics, fake: FeatureStatistics) -> float:
    """Frechet distance between the Gaussians of two sets of features; FID if they are Inception's.

    ||mu_1 - mu_2||^2 + tr(S_1 + S_2 - 2 (S_1 S_2)^(1/2)): Heusel et al. 2017, equation 6. Computed in float64.

    Args:
        real: Statistics of the real images, on the CPU.
        fake: Statistics of the generated ones, on the CPU.

    Returns:
        The distance; 0 for equal Gaussians, up to rounding.
    """
    metric = frechet_metric(len(real.features_sum))
    for prefix, statistics in (("real", real), ("fake", fake)):
        setattr(metric, f"{prefix}_features_sum", statistics.features_sum)
        setattr(metric, f"{prefix}_features_cov_sum", statistics.features_cov_sum)
        setattr(metric, f"{prefix}_features_num_samples", statistics.num_samples)
    metric.orig_dtype = torch.float64  # what `update` would note: the result is not rounded to float32
    # Not `metric.compute()`, which warns that there was no update.
    distance: Tensor = type(metric).compute(metric)
    return float(distance)


def kernel_distance(real: Tensor, fake: Tensor, subsets: int = 100, subset_size: int = 1000, seed: int = 0) -> float:
    """Kernel distance: unbiased squared MMD with the cubic kernel (Binkowski et al. 2018); KID if on Inception's.

    Args:
        real: (N,F) features of the real images.
        fake: (N,F) features of the generated ones.
        subsets: How many random subsets the mean is over.
        subset_size: Images in a subset; all of them if there are fewer.
        seed: Of the choice of subsets; the global random state is left alone.

    Returns:
        Mean over the subsets. It can be slightly negative.
    """
    subset_size = min(subset_size, len(real), len(fake))
    with warnings.catch_warnings(), torch.random.fork_rng(devices=[]):
        warnings.simplefilter("ignore", UserWarning)  # "will save all features": so we mean it to
        torch.manual_seed(seed)
        metric = KernelInceptionDistance(
            feature=nn.Identity(), subsets=subsets, subset_size=subset_size, sync_on_compute=False
        )
        metric.update(real, real=True)
        metric.update(fake, real=False)
        mean, _ = metric.compute()
    return float(mean)


def inception_score(logits: Tensor, splits: int = 10, seed: int = 0) -> float:
    """Inception Score (Salimans et al. 2016): exp E KL(p(y|x) || p(y)), the mean over random splits.

    Args:
        logits: (N,K) class logits of the generated images.
        splits: How many parts the images are shared out to.
        seed: Of the sharing out; the global random state is left alone.

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
