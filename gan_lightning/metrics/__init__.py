"""Distances between distributions of images, based on torchmetrics."""

from gan_lightning.metrics.cache import StatisticsCache
from gan_lightning.metrics.distances import inception_score, kernel_distance
from gan_lightning.metrics.extractors import FeatureExtractor, InceptionFeatures, RandomFeatures
from gan_lightning.metrics.frechet import FeatureStatistics, FrechetDistance
from gan_lightning.metrics.generation import GenerationEvaluator

__all__ = [
    "FeatureExtractor",
    "FeatureStatistics",
    "FrechetDistance",
    "GenerationEvaluator",
    "InceptionFeatures",
    "RandomFeatures",
    "StatisticsCache",
    "inception_score",
    "kernel_distance",
]
