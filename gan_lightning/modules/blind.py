"""The blur of a batch whose images are blurred differently, as blind deblurring finds it."""

from __future__ import annotations

import torch
from torch import Tensor

from gan_lightning.degradations import Degradation
from gan_lightning.degradations.separable import Separable, gaussian_taps, kernel_radius, mirrored_matrix


class BlurOfEach(Separable):
    """Gaussian blur of each image by a sigma of its own.

    Args:
        sigmas: (B,) standard deviations in pixels, above 0.
    """

    def __init__(self, sigmas: Tensor) -> None:
        super().__init__()
        self.register_buffer("sigmas", sigmas.detach().clone(), persistent=False)
        self.sigmas: Tensor

    def matrix(self, size: int, like: Tensor) -> Tensor:
        """Make the matrices (B,1,size,size), each as GaussianBlur makes its own."""
        matrices = [
            mirrored_matrix(gaussian_taps(sigma, kernel_radius(float(sigma))), size) for sigma in self.sigmas.to(like)
        ]
        return torch.stack(matrices)[:, None]

    def select(self, rows: Tensor) -> Degradation:
        """Return the blur of some images of the batch."""
        return BlurOfEach(self.sigmas[rows.to(self.sigmas.device)])
