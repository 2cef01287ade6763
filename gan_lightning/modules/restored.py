"""What a restoration hands to the callbacks."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from torch import Tensor, nn

from gan_lightning.inversion.blind import BlurEstimate


@dataclass  # not frozen: Lightning moves the fields of predictions to the CPU
class Restored:
    """A batch of restored images.

    Attributes:
        names: (B) names of the images, for files; no two of a run are equal.
        degraded: (B,C',H',W') in the range that the degradation makes of [-1, 1].
        restored: (B,C,H,W) in [-1, 1].
        latent: (B, latent_dim).
        history: (steps + 1, B) objective at each step.
        figures: For each figure (B,): "loss", "converged", "num_steps", "noise_level"; in `test` the errors too.
        target: (B,C,H,W) in [-1, 1], the true images, or None where nobody knows them.
        blur: What was found of an unknown blur.
    """

    names: list[str]
    degraded: Tensor
    restored: Tensor
    latent: Tensor
    history: Tensor
    figures: dict[str, Tensor]
    target: Tensor | None = None
    blur: BlurEstimate | None = None

    def rows(self) -> list[dict[str, float]]:
        """The figures of each image."""
        columns = {name: values.tolist() for name, values in self.figures.items()}
        return [{name: float(values[row]) for name, values in columns.items()} for row in range(len(self.names))]


def describe(module: nn.Module) -> str:
    """Digest what a module computes with: classes, plain attributes, parameters and buffers, to the bit."""
    digest = hashlib.sha256()
    for part in module.modules():
        plain = {k: v for k, v in vars(part).items() if isinstance(v, bool | int | float | str) and k != "training"}
        digest.update(f"{type(part).__name__} {sorted(plain.items())}\n".encode())
        for tensor in (*part.parameters(recurse=False), *part.buffers(recurse=False)):
            digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]
