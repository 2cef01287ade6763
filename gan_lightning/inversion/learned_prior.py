"""Removal of noise and of other errors with the small denoising network of the package, a prior of photographs."""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor

from gan_lightning.inversion.nonlocal_bayes import nonlocal_bayes
from gan_lightning.inversion.reductions import mean_of_each
from gan_lightning.networks.denoiser import CHANNELS, Denoiser
from gan_lightning.pretrained import SHIPPED, SUFFIX, read_weights

WEIGHTS = SHIPPED / "denoiser" / f"denoiser{SUFFIX}"

SIMILAR = 0.3  # share of `nonlocal_bayes` in the first estimate
# Share of this estimate in the last input of the network, and noise level of this input relative to the photograph: its
# remaining noise, and a quarter of that for the errors of the estimate. Chosen on photographs and on rendered faces.
ESTIMATE, LEFT = 0.7, 0.35
# Mean squared error of the network, relative to the variance of the noise: its result is fully used up to the first
# value, and not at all from the second. It is 0.05 to 0.35 for photographs, and about 1 for images unlike photographs.
TRUSTED, UNTRUSTED = 0.5, 0.8
# Mean squared change of images without noise by the network, relative to the variance of noise of the level STANDARD:
# below 0.1 for photographs and faces, and about 1 for images unlike photographs.
PHOTOGRAPHIC, STANDARD = 0.4, 0.12
PROBE = 0.1  # size of the step of the divergence, in standard deviations of the noise


@torch.no_grad()
def remove_noise(pilot: Tensor, noisy: Tensor, noise_level: Tensor) -> Tensor:
    """Remove noise from photographs with self-similarity, the images of the generator, and a denoising network.

    A weighted mean of two estimates is better than either, because their errors differ: `nonlocal_bayes`, with the
    statistics of patches of the generator's images, and in a second pass those of the result; and `learned_denoiser`.
    The network then processes this mean with some of the photograph added back, and recovers details that both have
    lost (Romano & Elad 2015). Images that are not in color, and those unlike photographs (see `relative_error` and
    `photographic`), only get the first estimate.

    Args:
        pilot: Images of the generator (B,C,H,W) in [-1, 1].
        noisy: Noisy photographs (B,C,H,W).
        noise_level: (B,) standard deviation of the noise on the [0, 1] scale.

    Returns:
        Denoised photographs (B,C,H,W). Each image is independent of the rest of the batch.
    """
    similar = nonlocal_bayes(nonlocal_bayes(pilot, noisy, noise_level), noisy, noise_level)
    if noisy.shape[1] != CHANNELS:
        return similar
    learned = learned_denoiser(noisy, noise_level)
    mean = SIMILAR * similar + (1 - SIMILAR) * learned
    better = learned_denoiser((1 - ESTIMATE) * noisy + ESTIMATE * mean, LEFT * noise_level)
    error = relative_error(noisy, learned, noise_level)
    trust = ((UNTRUSTED - error) / (UNTRUSTED - TRUSTED)).clamp(0, 1) * photographic(similar)
    return torch.lerp(similar, better, trust[:, None, None, None])


@torch.no_grad()
def learned_denoiser(noisy: Tensor, noise_level: Tensor) -> Tensor:
    """Denoise color images with the network of the package: the mean of its results for an image and its mirror image.

    Args:
        noisy: Noisy images (B,3,H,W) in [-1, 1].
        noise_level: (B,) standard deviation of the noise on the [0, 1] scale.

    Returns:
        Denoised images (B,3,H,W). On a CPU, an image is bit-identical alone and in any batch.
    """
    network = _network(noisy.device)
    at_once = 1 if noisy.device.type == "cpu" else len(noisy)
    pairs = zip(torch.split(noisy, at_once), torch.split(noise_level, at_once), strict=True)
    return torch.cat([(network(x, level) + network(x.flip(3), level).flip(3)) / 2 for x, level in pairs])


@torch.no_grad()
def photographic(images: Tensor) -> Tensor:
    """Return (B,), true for images (B,C,H,W) in color that `learned_denoiser` changes as little as photographs."""
    if images.shape[1] != CHANNELS:
        return torch.zeros(len(images), dtype=torch.bool, device=images.device)
    change = images - learned_denoiser(images, images.new_full((len(images),), STANDARD))
    return mean_of_each(change.square()) < PHOTOGRAPHIC * (2 * STANDARD) ** 2


@torch.no_grad()
def relative_error(noisy: Tensor, denoised: Tensor, noise_level: Tensor) -> Tensor:
    """Estimate the mean squared error of `learned_denoiser` without the noise-free images (Stein 1981).

    The divergence is estimated along one random direction, which is the same for all images (Ramani et al. 2008).

    Args:
        noisy: Noisy images (B,3,H,W).
        denoised: Output of the network for these images.
        noise_level: (B,) standard deviation of the noise on the [0, 1] scale.

    Returns:
        (B,) estimates, relative to the variance of the noise.
    """
    std = (2 * noise_level).clamp(min=1e-6)
    signs = torch.randint(0, 2, noisy.shape[1:], generator=torch.Generator().manual_seed(0)).to(noisy) * 2 - 1
    step = PROBE * std[:, None, None, None]
    change = (learned_denoiser(noisy + step * signs, noise_level) - denoised) / step
    divergence = mean_of_each(change * signs)
    return mean_of_each((noisy - denoised).square()) / std.square() - 1 + 2 * divergence


@lru_cache(maxsize=4)
def _network(device: torch.device) -> Denoiser:
    network = Denoiser()
    network.load_state_dict(read_weights(WEIGHTS)["state_dict"])
    return network.requires_grad_(False).to(device)
