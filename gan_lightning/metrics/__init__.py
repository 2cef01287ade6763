"""Distances between distributions of images, on torchmetrics."""

from gan_lightning.metrics.cache import StatisticsCache
from gan_lightning.metrics.distances import frechet_distance, inception_score, kernel_distance
from gan_lightning.metrics.extractors import FeatureExtractor, InceptionFeatures, RandomFeatures
from gan_lightning.metrics.frechet import FeatureStatistics, accumulate, gather, rank_batches

__all__ = [
    "FeatureExtractor",
    "FeatureStatistics",
    "InceptionFeatures",
    "RandomFeatures",
    "StatisticsCache",
    "accumulate",
    "frechet_distance",
    "gather",
    "inception_score",
    "kernel_distance",
    "rank_batches",
]
