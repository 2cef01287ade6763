"""Loggers: metrics.csv in every run folder, and Weights & Biases."""

from gan_lightning.loggers.metrics_file import MetricsFile
from gan_lightning.loggers.wandb import SteadyWandbLogger

__all__ = ["MetricsFile", "SteadyWandbLogger"]
