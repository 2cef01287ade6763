"""Statistics of real images on disk: computed once, found again by what they are the statistics of."""

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
        folder: Where the files are; made on the first write.
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self.folder = Path(folder)

    def path(self, description: Mapping[str, str | int | bool]) -> Path:
        """The file that statistics of this description are in, if they are there."""
        return self.folder / f"{hashlib.sha256(_canonical(description).encode()).hexdigest()}.safetensors"

    def load(self, description: Mapping[str, str | int | bool]) -> FeatureStatistics | None:
        """Read statistics.

        Args:
            description: All that they depend on: data, number of images, extractor.

        Returns:
            The statistics; None if there are none, or, with a warning, if the file is damaged.
        """
        path = self.path(description)
        if not path.exists():
            return None
        try:
            with safe_open(path, framework="pt") as file:
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no mapping
                if file.metadata() != _metadata(description, tensors):
                    raise ValueError("its content is not what it says")
            statistics = FeatureStatistics(**tensors)
        except (SafetensorError, OSError, TypeError, ValueError) as error:
            _log.warning("statistics of real images in %s are damaged (%s): computing them again", path, error)
            return None
        return statistics

    def save(self, description: Mapping[str, str | int | bool], statistics: FeatureStatistics) -> None:
        """Write statistics, whole or not at all; a folder that cannot be written costs a warning.

        Args:
            description: As for `load`.
            statistics: What to keep, on the CPU.
        """
        path = self.path(description)
        tensors = {name: tensor.contiguous() for name, tensor in vars(statistics).items() if tensor is not None}
        try:
            with atomic_path(path) as beside:
                save_file(tensors, beside, metadata=_metadata(description, tensors))
        except (SafetensorError, OSError) as error:
            _log.warning("cannot keep statistics of real images in %s (%s): next run computes them anew", path, error)


def _canonical(description: Mapping[str, str | int | bool]) -> str:
    return json.dumps({**description, "states": STATES_FORMAT}, sort_keys=True)


def _metadata(description: Mapping[str, str | int | bool], tensors: Mapping[str, Tensor]) -> dict[str, str]:
    # safetensors finds a file cut short, but no flipped bit, which would shift every distance from then on.
    digest = hashlib.sha256()
    for name in sorted(tensors):
        digest.update(tensors[name].numpy().data)
    return {"description": _canonical(description), "sha256": digest.hexdigest()}
