"""What a restoration passes on: the steps of a search, and the restored images."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from gan_lightning.inversion.blind import BlurEstimate


@dataclass(frozen=True)
class SearchStep:
    """A step of the search for a batch of images.

    Attributes:
        names: Names of the B images.
        stage: "latent", or the refinement: "features" or "weights".
        number: Number of the step within its stage.
        losses: (B,) best objective of each image so far.
        render: Function that renders the current images (B,C,H,W) in [-1, 1]; the refinement of weights renders one
            image at a time.
    """

    names: Sequence[str]
    stage: str
    number: int
    losses: Tensor
    render: Callable[[], Tensor]


StepObserver = Callable[[SearchStep], None]


@dataclass  # not frozen: Lightning moves the fields of predictions to the CPU
class Restored:
    """A batch of restored images.

    Attributes:
        names: (B) names of the images, for files; unique in a run.
        degraded: (B,C',H',W') in the range to which the degradation maps [-1, 1].
        restored: (B,C,H,W) in [-1, 1].
        latent: (B, latent_dim).
        history: (steps + 1, B) objective at each step.
        metrics: (B,) each: "loss", "converged", "num_steps", "noise_level", and in `test` the errors too.
        target: (B,C,H,W) in [-1, 1], the ground truth, or None where it is unknown.
        blur: Estimate of an unknown blur.
    """

    names: list[str]
    degraded: Tensor
    restored: Tensor
    latent: Tensor
    history: Tensor
    metrics: dict[str, Tensor]
    target: Tensor | None = None
    blur: BlurEstimate | None = None

    def rows(self) -> list[dict[str, float]]:
        """Return the metrics of each image."""
        columns = {name: values.tolist() for name, values in self.metrics.items()}
        return [{name: float(values[row]) for name, values in columns.items()} for row in range(len(self.names))]


def image_names(batch: Mapping[str, Any]) -> list[str]:
    """Return names made of the indices, and of the names of the files if there are any: unique and sortable."""
    stems = [f"-{Path(name).stem}" for name in batch["name"]] if "name" in batch else [""] * len(batch["index"])
    return [f"{index:06d}{stem}" for index, stem in zip(batch["index"].tolist(), stems, strict=True)]


def describe(module: nn.Module) -> str:
    """Return a digest of what determines a module's output: classes, plain attributes, parameters and buffers."""
    digest = hashlib.sha256()
    for part in module.modules():
        plain = {k: v for k, v in vars(part).items() if isinstance(v, bool | int | float | str) and k != "training"}
        digest.update(f"{type(part).__name__} {sorted(plain.items())}\n".encode())
        for tensor in (*part.parameters(recurse=False), *part.buffers(recurse=False)):
            digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]
