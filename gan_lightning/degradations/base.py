"""Base class of all degradations, the identity, and composition."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeGuard, TypeVar

from torch import Tensor, nn

from gan_lightning.errors import InputError

T = TypeVar("T")


class Degradation(nn.Module):
    """Deterministic, differentiable, linear operator on images, with its adjoint.

    Images are (B,C,H,W) floats. Since the operator is linear, they may have any range; missing pixels become zero.
    """

    def adjoint(self, values: Tensor) -> Tensor:
        """Apply the adjoint A': <A x, v> = <x, A' v> for all images x and all v of the shape of A x."""
        raise NotImplementedError

    def select(self, rows: Tensor) -> Degradation:
        """Return the operator restricted to some images of the batch, which is `self` if all images share it.

        Args:
            rows: (N,) int64, indices of the images in the batch.
        """
        return self

    def known(self, observed: Tensor) -> Tensor | None:
        """Return the mask of the pixels of A x that were observed.

        Args:
            observed: Degraded images A x. Only their size is used.

        Returns:
            (1 or B,1,H,W), one where a pixel was observed and zero where it is missing; None if no pixel is missing.
        """
        return None


def has_adjoint(degradation: object) -> TypeGuard[Degradation]:
    """Return whether an object is a `Degradation` that implements `adjoint`, as do all its parts."""
    if isinstance(degradation, Compose):
        return all(map(has_adjoint, degradation.parts))
    return isinstance(degradation, Degradation) and type(degradation).adjoint is not Degradation.adjoint


class Identity(Degradation):
    """Identity operator: inversion without degradation."""

    def forward(self, images: Tensor) -> Tensor:
        """Return the images unchanged."""
        return images

    def adjoint(self, values: Tensor) -> Tensor:
        """Return the values unchanged: the identity is self-adjoint."""
        return values


class Compose(Degradation):
    """Composition of degradations.

    Args:
        degradations: Degradations in the order in which they are applied. An empty list is the identity.

    Raises:
        InputError: If a part is not a `Degradation`, so that its adjoint and its observed pixels are unknown.
    """

    def __init__(self, degradations: Sequence[Degradation]) -> None:
        super().__init__()
        for part in degradations:
            if not isinstance(part, Degradation):
                raise InputError(
                    f"{type(part).__name__} is not a Degradation: subclass gan_lightning.degradations.Degradation"
                )
        self.degradations = nn.ModuleList(degradations)

    def forward(self, images: Tensor) -> Tensor:
        """Degrade images (B,C,H,W)."""
        for degradation in self.degradations:
            images = degradation(images)
        return images

    def adjoint(self, values: Tensor) -> Tensor:
        """Apply the adjoints in reverse order."""
        for degradation in reversed(self.parts):
            values = degradation.adjoint(values)
        return values

    def select(self, rows: Tensor) -> Degradation:
        """Return the composition restricted to some images of the batch."""
        parts = self.parts
        selected = [part.select(rows) for part in parts]
        shared = all(new is old for new, old in zip(selected, parts, strict=True))
        return self if shared else Compose(selected)

    def known(self, observed: Tensor) -> Tensor | None:
        """Return the mask of the last part; an operator after a mask mixes observed and missing pixels."""
        return self.parts[-1].known(observed) if len(self.degradations) else None

    @property
    def parts(self) -> list[Degradation]:
        """Degradations in the order in which they are applied."""
        return [part for part in self.degradations if isinstance(part, Degradation)]


def unwrap(degradation: T) -> T | Degradation:
    """Return the single part of a composition that is not the identity, or otherwise the degradation itself."""
    if not isinstance(degradation, Compose):
        return degradation
    parts = [part for part in map(unwrap, degradation.parts) if not isinstance(part, Identity)]
    return degradation if len(parts) > 1 else (parts[0] if parts else Identity())
