"""Metrics of two sets of images computed from their features, and the names and settings of these metrics."""

from __future__ import annotations

from collections.abc import Collection
from typing import Final, Literal, TypeAlias

import torch
from torch import Tensor

from gan_lightning.metrics.distances import inception_score, kernel_distance
from gan_lightning.metrics.extractors import FeatureExtractor, InceptionFeatures
from gan_lightning.metrics.frechet import frechet_distance
from gan_lightning.metrics.memorization import THRESHOLD, memorization_distance, memorization_informed
from gan_lightning.metrics.neighbors import NEIGHBORS, neighbor_metrics

MetricName: TypeAlias = Literal["fd", "kid", "is", "precision", "recall", "density", "coverage", "mifid"]
Settings: TypeAlias = dict[str, str | int | float | bool]

METRICS: Final[tuple[MetricName, ...]] = ("fd", "kid", "is", "precision", "recall", "density", "coverage", "mifid")
LOWER_IS_BETTER: Final = ("fd", "kid", "mifid")
KERNEL_SUBSETS = 100
KERNEL_SUBSET_SIZE = 1000
SCORE_SPLITS = 10


def metrics_of(extractor: str) -> tuple[MetricName, ...]:
    """Return the metrics that an extractor supports, by its label: "is" needs the classes of Inception."""
    return tuple(metric for metric in METRICS if metric != "is" or extractor == InceptionFeatures.label)


def logged_name(metric: MetricName, extractor: str) -> str:
    """Return the name of a metric, which states the extractor: "fid", "fd_random", "recall_random".

    Args:
        metric: The metric.
        extractor: Label of the extractor.
    """
    if extractor == InceptionFeatures.label:
        return "fid" if metric == "fd" else metric
    return f"{metric}_{extractor}"


def compare_features(
    metrics: Collection[str],
    real: Tensor,
    fake: Tensor,
    extractor: FeatureExtractor,
    seed: int = 0,
    neighbors: int | None = None,
    device: torch.device | None = None,
) -> dict[MetricName, float]:
    """Compute metrics of generated images from features.

    Args:
        metrics: Names of the metrics.
        real: (N,F) float32 features of the real images, on the CPU.
        fake: (M,F) float32 features of the generated images, on the CPU.
        extractor: The extractor of the features.
        seed: Seed of the subsets of kid and is.
        neighbors: Number of nearest neighbors; None for those of the papers.
        device: Device on which neighbors are searched; it must support float64.

    Returns:
        The values, in the order of `METRICS`.
    """
    device = torch.device("cpu") if device is None or device.type == "mps" else device
    values: dict[str, float] = {}
    if {"fd", "mifid"} & {*metrics}:
        values["fd"] = frechet_distance(real, fake)
    if "mifid" in metrics:
        values["mifid"] = memorization_informed(values["fd"], memorization_distance(real.to(device), fake.to(device)))
    if "kid" in metrics:
        values["kid"] = kernel_distance(real, fake, KERNEL_SUBSETS, KERNEL_SUBSET_SIZE, seed)
    if "is" in metrics:
        assert isinstance(extractor, InceptionFeatures)
        values["is"] = inception_score(extractor.class_logits(fake).cpu(), SCORE_SPLITS, seed)
    if NEIGHBORS.keys() & {*metrics}:
        values |= neighbor_metrics(real.to(device), fake.to(device), neighbors, metrics)
    return {metric: values[metric] for metric in METRICS if metric in metrics}


def settings_of(metric: str, images: int, neighbors: int | None = None) -> Settings:
    """Return the settings of one metric, except those that all metrics share.

    Args:
        metric: The metric.
        images: Number of images in the smaller set.
        neighbors: Number of nearest neighbors; None for those of the papers.
    """
    if metric == "kid":
        return {"subsets": KERNEL_SUBSETS, "subset_size": min(KERNEL_SUBSET_SIZE, images)}
    if metric == "is":
        return {"splits": SCORE_SPLITS}
    if metric == "mifid":
        return {"threshold": THRESHOLD}
    return {"neighbors": neighbors or NEIGHBORS[metric]} if metric in NEIGHBORS else {}
