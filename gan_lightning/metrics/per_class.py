"""Metrics of each class: samples of the class against its real images."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gan_lightning.data.batches import ImageDataset
from gan_lightning.data.labels import of_class
from gan_lightning.metrics.generation import GenerationEvaluator

DISTANCES = ("fd", "kid")  # metrics that are measured for each class
LEAST = 2  # smallest number of images of a class for a distance


@dataclass(frozen=True)
class ImagesOfClass:
    """The real images of one class of a data module: a `RealImageSource`."""

    data: Any
    label: int

    def real_images(self, split: str) -> ImageDataset:
        """Return the images of a split."""
        return of_class(self.data.real_images(split), self.label)

    def protocol(self, split: str) -> Mapping[str, str | int]:
        """Return the protocol of all images of the split, and the class."""
        return {**self.data.protocol(split), "class": self.data.class_names[self.label], "label": self.label}


def measure_classes(
    whole: GenerationEvaluator,
    sample: Callable[..., Tensor],
    data: Any,
    split: str,
    device: torch.device,
) -> dict[str, dict[Any, float]]:
    """Measure the distances of each class, on all ranks together; classes with too few real images are left out.

    The number of images is that of the real images of the class, but at most an equal share of those of the whole.

    Args:
        whole: Evaluator of all classes together, which provides extractor, metrics, batches and seed.
        sample: Function from a count, a random generator and `labels` to images (count,C,H,W) in [-1, 1].
        data: Data module with labels.
        split: Split of the real images.
        device: Device of the feature extractor.

    Returns:
        Values by the name of the class and the metric.
    """
    counts = np.bincount(labels_of_split(data, split), minlength=len(data.class_names)).tolist()
    values: dict[str, dict[Any, float]] = {}
    for label, name in enumerate(data.class_names):
        count = min(counts[label], max(LEAST, whole.num_images // len(counts)))
        if count < LEAST:
            continue

        def draw(number: int, rng: torch.Generator, label: int = label) -> Tensor:
            return sample(number, rng, labels=label)

        metrics = [metric for metric in whole.metrics if metric in DISTANCES]
        evaluator = GenerationEvaluator(whole.extractor, metrics, count, whole.batch_size, whole.seed, whole.cache)
        values[name] = dict(evaluator.measure(draw, ImagesOfClass(data, label), split, device))
    return values


def labels_of_split(data: Any, split: str) -> Sequence[int]:
    """Return the labels of the real images of a split; none if they are not known."""
    dataset = data.real_images(split)
    labels: Any = getattr(dataset, "labels", None)
    return [] if labels is None else list(labels[dataset.rows])
