"""Plug-and-play restoration: images regularized by a denoiser, and kept consistent with the observed values."""

from __future__ import annotations

import torch
from torch import Tensor

from gan_lightning.degradations.base import Degradation
from gan_lightning.inversion.data_consistency import data_consistency
from gan_lightning.inversion.learned_prior import learned_denoiser, photographic
from gan_lightning.inversion.nonlocal_bayes import nonlocal_bayes

# Number of rounds, and power of the number of a round with which the noise level falls.
OF_NETWORK, OF_PATCHES = (8, 0.75), (5, 1.0)
LARGEST = 0.12  # standard deviation of the errors that the first round removes, on the [0, 1] scale
# Residuals are 0.01 and more for photographs and faces slightly outside the range of the generator, and about 0.005 for
# images in its range if the search ended early.
AT_LARGEST, EXPLAINED = 0.02, 0.007


@torch.no_grad()
def regularize(
    images: Tensor, degradation: Degradation, observed: Tensor, noise_level: Tensor, residual: Tensor
) -> Tensor:
    """Return restored images without the errors that make them unlike photographs.

    Plug-and-play restoration (Venkatakrishnan et al. 2013): the images are alternately denoised, as if their errors
    were noise, and made consistent with the observed values. The denoiser is `learned_denoiser` for photographs in
    color, and `nonlocal_bayes` for other images. Its noise level decreases from round to round, and increases with the
    square of the residual of the generator's images: images that the generator explains are not changed.

    Args:
        images: Restored images (B,C,H,W), consistent with the observed ones.
        degradation: Linear forward operator A with an adjoint.
        observed: Observed images y.
        noise_level: (B,) standard deviation of the noise on the [0, 1] scale.
        residual: (B,) root mean square of y - A(G(z)) in excess of the noise, on the [0, 1] scale.

    Returns:
        Images (B,C,H,W) in [-1, 1], consistent with the observed ones.
    """
    errors = LARGEST * (residual / AT_LARGEST).square().clamp(max=1)
    by_network = photographic(images)
    better = images
    for rows, denoise, plan in ((by_network, learned_denoiser, OF_NETWORK), (~by_network, _by_patches, OF_PATCHES)):
        if not bool(rows.any()):
            continue
        rounds, fall = plan
        changed = images
        for number in range(1, rounds + 1):
            denoised = denoise(changed, errors / number**fall)
            changed = data_consistency(denoised, degradation, observed, noise_level)
        better = torch.where(rows[:, None, None, None], changed, better)
    return torch.where(residual[:, None, None, None] > EXPLAINED, better, images)


def _by_patches(images: Tensor, noise_level: Tensor) -> Tensor:
    return nonlocal_bayes(images, images, noise_level)
