"""What all degradations share, the one that changes nothing, and their composition."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from gan_lightning.errors import InputError


class Degradation(nn.Module):
    """A deterministic, differentiable and linear map of images, with its adjoint.

    Images are (B,C,H,W) floats; as all maps are linear, any range will do, and zero is what an unknown pixel becomes.
    """

    def adjoint(self, values: Tensor) -> Tensor:
        """Apply the transposed map: <A x, v> = <x, A' v> for all images x and all v of the shape of A x."""
        raise NotImplementedError

    def select(self, rows: Tensor) -> Degradation:
        """Return the map of some images of the batch; itself where all images share one.

        Args:
            rows: (N,) int64, places in the batch.
        """
        return self

    def known(self, observed: Tensor) -> Tensor | None:
        """Tell which pixels of A x say something of x: (1 or B,1,H,W) of zeros and ones, None if all do.

        Args:
            observed: An A x, for its size.
        """
        return None


def has_adjoint(degradation: object) -> bool:
    """Whether a degradation is one of ours that defines its adjoint, as all parts of it do."""
    if isinstance(degradation, Compose):
        return all(map(has_adjoint, degradation.parts))
    return isinstance(degradation, Degradation) and type(degradation).adjoint is not Degradation.adjoint


class Identity(Degradation):
    """Nothing lost: plain inversion."""

    def forward(self, images: Tensor) -> Tensor:
        """Return the images."""
        return images

    def adjoint(self, values: Tensor) -> Tensor:
        """Return the values: the identity is its own adjoint."""
        return values


class Compose(Degradation):
    """Degradations one after the other, the first one first.

    Args:
        degradations: What is applied; an empty list is the identity.

    Raises:
        InputError: A part that is no Degradation, of which neither adjoint nor known pixels could be told.
    """

    def __init__(self, degradations: Sequence[Degradation]) -> None:
        super().__init__()
        for part in degradations:
            if not isinstance(part, Degradation):
                raise InputError(f"{type(part).__name__} is no Degradation: derive it from gan_lightning.degradations")
        self.degradations = nn.ModuleList(degradations)

    def forward(self, images: Tensor) -> Tensor:
        """Degrade images (B,C,H,W)."""
        for degradation in self.degradations:
            images = degradation(images)
        return images

    def adjoint(self, values: Tensor) -> Tensor:
        """Apply the adjoints, the last one first."""
        for degradation in reversed(self.parts):
            values = degradation.adjoint(values)
        return values

    def select(self, rows: Tensor) -> Degradation:
        """Return the composition for some images of the batch."""
        parts = self.parts
        selected = [part.select(rows) for part in parts]
        shared = all(new is old for new, old in zip(selected, parts, strict=True))
        return self if shared else Compose(selected)

    def known(self, observed: Tensor) -> Tensor | None:
        """Tell the known pixels where the last part is a mask; before another map a mask leaves no pixel as it was."""
        return self.parts[-1].known(observed) if len(self.degradations) else None

    @property
    def parts(self) -> list[Degradation]:
        """The degradations, in their order."""
        return [part for part in self.degradations if isinstance(part, Degradation)]
