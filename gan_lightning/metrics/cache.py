"""Statistics of real images, cached on disk under a description of the images."""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from gan_lightning.atomic import atomic_path
from gan_lightning.metrics.frechet import FeatureStatistics

_log = logging.getLogger(__name__)

STATES_FORMAT: Final = "torchmetrics-fid-float64-v1"  # sums, not means: see FeatureStatistics


class StatisticsCache:
    """A folder of statistics in safetensors files, each named by the sha256 of its description.

    Args:
        folder: Folder of the files; it is created by the first write.
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self.folder = Path(folder)

    def path(self, description: Mapping[str, str | int | bool]) -> Path:
        """Return the path of the file for a description, which may not exist."""
        return self.folder / f"{hashlib.sha256(_canonical(description).encode()).hexdigest()}.safetensors"

    def load(self, description: Mapping[str, str | int | bool]) -> FeatureStatistics | None:
        """Load statistics.

        Args:
            description: Everything that the statistics depend on: data, number of images, extractor.

        Returns:
            The statistics; None if the file does not exist, or, with a warning, if it is damaged.
        """
        path = self.path(description)
        if not path.exists():
            return None
        try:
            with safe_open(path, framework="pt") as file:
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no mapping
                if file.metadata() != _metadata(description, tensors):
                    raise ValueError("its content does not match its digest")
            statistics = FeatureStatistics(**tensors)
        except (SafetensorError, OSError, TypeError, ValueError) as error:
            _log.warning("statistics of real images in %s are damaged (%s): they are computed again", path, error)
            return None
        return statistics

    def save(self, description: Mapping[str, str | int | bool], statistics: FeatureStatistics) -> None:
        """Save statistics atomically; warn if the folder cannot be written.

        Args:
            description: Everything that the statistics depend on, as for `load`.
            statistics: The statistics, on the CPU.
        """
        path = self.path(description)
        tensors = {name: tensor.contiguous() for name, tensor in vars(statistics).items() if tensor is not None}
        try:
            with atomic_path(path) as beside:
                save_file(tensors, beside, metadata=_metadata(description, tensors))
        except (SafetensorError, OSError) as error:
            _log.warning("cannot keep statistics of real images in %s (%s): the next run computes them", path, error)


def _canonical(description: Mapping[str, str | int | bool]) -> str:
    return json.dumps({**description, "states": STATES_FORMAT}, sort_keys=True)


def _metadata(description: Mapping[str, str | int | bool], tensors: Mapping[str, Tensor]) -> dict[str, str]:
    # safetensors detects a truncated file, but not a flipped bit, which would change every distance.
    digest = hashlib.sha256()
    for name in sorted(tensors):
        digest.update(tensors[name].numpy().data)
    return {"description": _canonical(description), "sha256": digest.hexdigest()}
