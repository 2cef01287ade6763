"""Empirical Wiener filter: local shrinkage of a noisy image, guided by an estimate of it."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from gan_lightning.inversion.smoothness import cosine_basis

PATCH = 8  # side of the patches in pixels
IMAGES = 32  # filtered at once on a GPU


@torch.no_grad()
def empirical_wiener(pilot: Tensor, noisy: Tensor, noise_level: Tensor, patch: int = PATCH) -> Tensor:
    """Denoise images by the Wiener filter of each patch, whose power spectrum is that of a pilot estimate.

    Ghael et al. 1997, as in the second stage of BM3D (Dabov et al. 2007), in overlapping patches and the cosine
    transform. Where the pilot has an edge or a texture it is kept from the noisy image; elsewhere noise is removed.

    Args:
        pilot: Estimates (B,C,H,W) of the noise-free images.
        noisy: Noisy images (B,C,H,W), on the same scale in [-1, 1].
        noise_level: (B,) standard deviation of the noise on the [0, 1] scale.
        patch: Height and width of the patches in pixels; smaller images are one patch.

    Returns:
        Denoised images (B,C,H,W).
    """
    # Few at a time: overlapping patches take two hundred times the memory of an image.
    most = 1 if noisy.device.type == "cpu" else IMAGES
    if len(noisy) > most:
        parts = [slice(start, start + most) for start in range(0, len(noisy), most)]
        return torch.cat([empirical_wiener(pilot[part], noisy[part], noise_level[part], patch) for part in parts])
    batch, channels, height, width = noisy.shape
    patch = min(patch, height, width)
    margin = patch - 1
    to_components = _opponent_axes(channels).to(noisy)
    basis = cosine_basis(patch).to(noisy)
    basis = torch.kron(basis, basis)  # of flattened patches
    size = (height + 2 * margin, width + 2 * margin)

    def patches(images: Tensor) -> Tensor:
        components = torch.einsum("ij,bjhw->bihw", to_components, images)
        padded = F.pad(components, (margin,) * 4, mode="reflect")
        return basis @ F.unfold(padded.reshape(-1, 1, *size), patch)

    def accumulate(values: Tensor) -> Tensor:
        return F.fold(values, size, patch)[..., margin : -margin or None, margin : -margin or None]

    variance = (2 * noise_level).square().repeat_interleave(channels)[:, None, None]
    power = patches(pilot).square()
    gain = power / (power + variance).clamp(min=1e-12)
    # Patches whose estimate keeps less noise count for more.
    confidence = 1 / gain.square().sum(1, keepdim=True).clamp(min=1e-3)
    weights = confidence.expand(-1, patch * patch, -1)
    estimates = basis.mT @ (gain * patches(noisy)) * weights
    filtered = (accumulate(estimates) / accumulate(weights)).reshape(batch, channels, height, width)
    return torch.einsum("ij,bjhw->bihw", to_components.mT, filtered)


def _opponent_axes(channels: int) -> Tensor:
    """Return an orthonormal basis of the channels (C,C), whose first axis is the brightness."""
    axes = torch.eye(channels, dtype=torch.float64)
    axes[:, 0] = 1
    orthonormal: Tensor = torch.linalg.qr(axes).Q
    return orthonormal.T
