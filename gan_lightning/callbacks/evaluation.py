"""Frechet distance and related metrics at each evaluation, for loggers and checkpoints."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, cast

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_warn

from gan_lightning.data.cache import default_cache_dir
from gan_lightning.errors import InputError
from gan_lightning.metrics.cache import StatisticsCache
from gan_lightning.metrics.comparison import (
    LOWER_IS_BETTER,
    METRICS,
    MetricName,
    Settings,
    logged_name,
    metrics_of,
)
from gan_lightning.metrics.extractors import (
    FeatureExtractor,
    InceptionFeatures,
    RandomFeatures,
    download_inception_weights,
    inception_weights_path,
)
from gan_lightning.metrics.generation import GenerationEvaluator, RealImageSource, Sampler
from gan_lightning.metrics.neighbors import NEIGHBORS, check_neighbors
from gan_lightning.metrics.per_class import labels_of_split, measure_classes

_log = logging.getLogger(__name__)

TRIAL_IMAGES = 16
_LOGGED_AS: Mapping[str, Mapping[MetricName, str]] = {  # with "random" features, the distance is not FID
    extractor: {metric: logged_name(metric, extractor) for metric in metrics_of(extractor)}
    for extractor in ("inception", "random")
}


class GenerationMetrics(Callback):
    """Callback that compares samples of the module with images of the data module.

    Metrics are measured before the first step (for the untrained networks), at each validation, at the end of training,
    and in `validate` and `test`. Images are rounded to uint8. Real images come from the data module, generated ones
    from `module.sample(n, rng)`. The statistics of the real images are computed once and cached on disk. Every metric
    is the
    same on any number of ranks: exactly `num_images` on each side, each counted once. With Lightning's `fast_dev_run`,
    at most 16 images are measured.

    Logged as `val/fid`, `val/kid`, `val/recall` and so on; with random features as `val/fd_random`, `val/kid_random`,
    `val/recall_random`; in `test` as `test/...`.

    Attributes:
        protocol: Protocol of each metric, by its logged name: data, crop, N, resizer, extractor, EMA, versions.
        measured_at: Step of the last measurement; -1 before the first one.
    """

    def __init__(
        self,
        num_images: int = 10_000,
        metrics: Sequence[MetricName] = ("fd",),
        extractor: Literal["inception", "random"] = "inception",
        split: Literal["auto", "train", "val", "test", "all"] = "auto",
        batch_size: int = 256,
        seed: int = 0,
        inception_weights: str | None = None,
        download: bool = False,
        cache_dir: str | None = None,
        per_class: bool = False,
    ) -> None:
        """Choose what to measure.

        Args:
            num_images: Exact number of real and of generated images.
            metrics: fd (Frechet distance), kid (kernel distance), is (Inception Score; only with inception), precision,
                recall, density, coverage (by nearest neighbors), mifid (fd, larger if real images are repeated).
            extractor: "inception", which defines FID, or "random", a fixed random network that needs no weights.
            split: Split of the real images; auto is test in `test`, and val elsewhere.
            batch_size: Number of images in a batch. The latents depend on it: do not change it if you compare runs.
            seed: Seed of the latents.
            inception_weights: File of the Inception weights; null for the path where torch-fidelity keeps them.
            download: Whether to download the Inception weights if they are missing.
            cache_dir: Folder for statistics of real images; null for the package's cache folder.
            per_class: Whether to also measure the distances of each class, logged as val/fid/CLASS and so on, each on
                an equal share of the images. Needs a model and data with labels.

        Raises:
            InputError: If a value is unsupported.
        """
        super().__init__()
        if extractor not in _LOGGED_AS:
            raise InputError(f"extractor must be inception or random, but is {extractor}")
        if unknown := [name for name in metrics if name not in METRICS]:
            raise InputError(f"metrics must be some of {', '.join(METRICS)}, not {unknown[0]}")
        if unknown := [name for name in metrics if name not in _LOGGED_AS[extractor]]:
            raise InputError(f"{unknown[0]} cannot be measured with extractor: {extractor}; it needs inception")
        if num_images < 2 or batch_size < 1:
            raise InputError(f"num_images must be at least 2 and batch_size 1, but got {num_images} and {batch_size}")
        self.num_images, self.metrics, self.extractor, self.split = num_images, list(metrics), extractor, split
        self.batch_size, self.seed, self.cache_dir = batch_size, seed, cache_dir
        self.inception_weights, self.download, self.per_class = inception_weights, download, per_class
        self._evaluator: GenerationEvaluator | None = None  # not part of the module, and so not in checkpoints
        self.protocol: dict[str, Settings] = {}
        self.measured_at = -1

    @staticmethod
    def monitored(metrics: Sequence[str], extractor: str) -> tuple[str | None, str]:
        """Return the metric by which the best checkpoint is chosen, and "min" or "max".

        Args:
            metrics: Measured metrics; the first of them in the order fd, kid, is and so on is chosen.
            extractor: Feature extractor, "inception" or "random".
        """
        for metric, name in _LOGGED_AS[extractor].items():
            if metric in metrics:
                return f"val/{name}", "min" if metric in LOWER_IS_BETTER else "max"
        return None, "min"

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Check before the first step that all metrics can be measured.

        Raises:
            InputError: If the split has too few images, or Inception weights or a data module are missing.
        """
        self._evaluator, self.measured_at = None, -1
        draws = hasattr(pl_module, "sample")  # otherwise there is nothing to compare
        if not draws or stage == "predict" or (stage == "fit" and _is_left_out(trainer)):
            return
        split = self._split("test" if stage == "test" else "val")
        available = len(_source(trainer).real_images(split))
        trial = bool(trainer.fast_dev_run)  # type: ignore[attr-defined]
        count = min(self.num_images, TRIAL_IMAGES) if trial else self.num_images
        if available < count:
            raise InputError(
                f"GenerationMetrics compares {count} images, but the {split} split has {available}: "
                f"set num_images to {available} or less, or choose another split"
            )
        if needed := [NEIGHBORS[name] for name in self.metrics if name in NEIGHBORS]:
            check_neighbors(count, max(needed))
        if self.per_class and not (
            getattr(pl_module, "num_classes", 0) and len(labels_of_split(_source(trainer), split))
        ):
            raise InputError("per_class needs a model and data with labels: set model.num_classes and data.labels")
        extractor = self._make_extractor(trainer)
        if count <= extractor.num_features and not trial:
            rank_zero_warn(
                f"{count} images are too few to estimate the covariance of {extractor.num_features} "
                "features: the Frechet distance is biased upwards; compare it at equal num_images only"
            )
        cache = StatisticsCache((Path(self.cache_dir) if self.cache_dir else default_cache_dir()) / "statistics")
        self._evaluator = GenerationEvaluator(extractor, self.metrics, count, self.batch_size, self.seed, cache)
        self.protocol = {}

    def state_dict(self) -> dict[str, int]:
        """Return the step of the last measurement, so that a run resumed at its end does not repeat it."""
        return {"measured_at": self.measured_at}

    def load_state_dict(self, state_dict: dict[str, int]) -> None:
        """Load the step of the last measurement."""
        self.measured_at = state_dict["measured_at"]

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Measure the untrained networks as a reference for all later values."""
        if trainer.global_step == 0:
            self._measure_outside_validation(trainer, pl_module)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Measure the final networks, unless the last validation has."""
        self._measure_outside_validation(trainer, pl_module)

    def _measure_outside_validation(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self._evaluator is not None and trainer.global_step != self.measured_at:
            values = self._measure(trainer, pl_module, "val")
            # `pl_module.log` is not allowed in these hooks.
            trainer.callback_metrics.update({name: torch.tensor(value) for name, value in values.items()})
            _send_to_loggers(trainer, values)

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Measure and log, before ModelCheckpoint reads the value."""
        if not trainer.sanity_checking and self._evaluator is not None:
            self._measure_and_log(trainer, pl_module, "val")

    def on_test_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Measure and log."""
        if self._evaluator is not None:
            self._measure_and_log(trainer, pl_module, "test")

    def _measure_and_log(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        values = self._measure(trainer, pl_module, stage)
        fitting = trainer.state.fn == "fit"
        for name, value in values.items():
            # In fit, Lightning's own logging would have batches on the x-axis; elsewhere it prints a table.
            # The value is the same on every rank: sync_dist only keeps Lightning from warning.
            pl_module.log(name, value, logger=not fitting, prog_bar=fitting, sync_dist=True)
        if fitting:
            _send_to_loggers(trainer, values)

    def _measure(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> dict[str, float]:
        """Measure on all ranks together and return the values by their logged names."""
        assert self._evaluator is not None
        self.measured_at = trainer.global_step
        started, source, split = time.monotonic(), _source(trainer), self._split(stage)
        names = {metric: f"{stage}/{name}" for metric, name in _LOGGED_AS[self.extractor].items()}
        measured = self._evaluator.measure(cast(Sampler, pl_module.sample), source, split, pl_module.device)
        values = {names[metric]: value for metric, value in measured.items()}
        if trainer.is_global_zero:
            report = ", ".join(f"{name} {value:.6g}" for name, value in values.items())
            seconds = time.monotonic() - started
            _log.info("%s: %d generated and %d real images, %.1f s", report, *[self._evaluator.num_images] * 2, seconds)
        if not values.keys() <= self.protocol.keys():
            settings = self._evaluator.settings(source, split, averaging(pl_module))
            stated = {names[metric]: setting for metric, setting in settings.items()}
            self.protocol.update(stated)
            _describe_to_loggers(trainer, stated)
        if self.per_class:
            classes = measure_classes(self._evaluator, pl_module.sample, source, split, pl_module.device)  # type: ignore[arg-type]
            values |= {f"{names[metric]}/{name}": v for name, of in classes.items() for metric, v in of.items()}
        return values

    def _make_extractor(self, trainer: Trainer) -> FeatureExtractor:
        if self.extractor == "random":
            return RandomFeatures()
        path = inception_weights_path(self.inception_weights)
        if self.download:
            if trainer.local_rank == 0:
                download_inception_weights(path)
            trainer.strategy.barrier()
        return InceptionFeatures(path)

    def _split(self, stage: str) -> str:
        return stage if self.split == "auto" else self.split


def _is_left_out(trainer: Trainer) -> bool:
    """Return whether a fit measures nothing: without validation, or without real images to compare with."""
    data = getattr(trainer, "datamodule", None)
    if trainer.limit_val_batches == 0 or data is None or hasattr(data, "real_images"):
        return bool(trainer.limit_val_batches == 0)
    if trainer.is_global_zero:
        _log.warning(
            "%s has no real_images(split): nothing is measured, and no best checkpoint is chosen. docs/data.md says "
            "what a data module of your own needs for that",
            type(data).__name__,
        )
    return True


def _source(trainer: Trainer) -> RealImageSource:
    data = getattr(trainer, "datamodule", None)
    if not hasattr(data, "real_images"):
        raise InputError(
            "GenerationMetrics compares samples with real images: give a data module with real_images(split) and "
            "protocol(split), which CelebA, ImageFolder and SyntheticFaces have (docs/data.md describes them)"
        )
    return cast(RealImageSource, data)


def _send_to_loggers(trainer: Trainer, values: dict[str, float]) -> None:
    if trainer.is_global_zero:
        for logger in trainer.loggers:
            logger.log_metrics(values, step=trainer.global_step)


def _describe_to_loggers(trainer: Trainer, protocol: Mapping[str, Settings]) -> None:
    """Log the protocol of each metric once as hyperparameters, so that runs can be filtered by its parts."""
    if trainer.is_global_zero:
        for logger in trainer.loggers:
            logger.log_hyperparams({f"protocol/{name}": settings for name, settings in protocol.items()})


def averaging(module: Any) -> dict[str, float]:
    """Return the half-life in images of the measured generator's average, or otherwise its decay per step."""
    half_life = getattr(module, "ema_half_life", None)
    return (
        {"ema_decay": float(getattr(module, "ema_decay", 0.0))} if half_life is None else {"ema_half_life": half_life}
    )
