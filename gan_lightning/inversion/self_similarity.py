"""Restored images that resemble themselves: what recurs in an image is kept, and what was observed stays."""

from __future__ import annotations

import torch
from torch import Tensor

from gan_lightning.degradations.base import Degradation
from gan_lightning.inversion.data_consistency import data_consistency
from gan_lightning.inversion.nonlocal_bayes import nonlocal_bayes

ROUNDS = 3
LARGEST = 0.1  # standard deviation of the errors that the first round removes, on the [0, 1] scale
ERROR_OVER_RESIDUAL = 5.0  # of restored photographs and faces; blur and downsampling hide most of an error


@torch.no_grad()
def regularize(
    images: Tensor, degradation: Degradation, observed: Tensor, noise_level: Tensor, residual: Tensor
) -> Tensor:
    """Return restored images without the errors that their own patches contradict.

    Plug-and-play restoration (Venkatakrishnan et al. 2013): in turn the images are denoised, as if their errors were
    noise, and made consistent with what was observed. The denoiser is `nonlocal_bayes`, its noise level that of the
    errors: it is proportional to the residual of the generator's images, so that images that the generator explains
    exactly stay as they are, and falls from round to round.

    Args:
        images: Restored images (B,C,H,W), consistent with the observed ones.
        degradation: Linear forward operator A with an adjoint.
        observed: Observed images y.
        noise_level: (B,) standard deviation of the noise on the [0, 1] scale.
        residual: (B,) root mean square of y - A(G(z)) in excess of the noise, on the [0, 1] scale.

    Returns:
        Images (B,C,H,W) in [-1, 1], consistent with the observed ones.
    """
    errors = (ERROR_OVER_RESIDUAL * residual).clamp(max=LARGEST)
    better = images
    for number in range(1, ROUNDS + 1):
        smooth = nonlocal_bayes(better, better, errors / number)
        better = data_consistency(smooth, degradation, observed, noise_level)
    return torch.where(errors[:, None, None, None] > 0, better, images)
