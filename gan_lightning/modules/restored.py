"""What a restoration hands to the callbacks."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
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
    """

    names: list[str]
    degraded: Tensor
    restored: Tensor
    latent: Tensor
    history: Tensor
    figures: dict[str, Tensor]
    target: Tensor | None = None

    def rows(self) -> list[dict[str, float]]:
        """The figures of each image."""
        columns = {name: values.tolist() for name, values in self.figures.items()}
        return [{name: float(values[row]) for name, values in columns.items()} for row in range(len(self.names))]
