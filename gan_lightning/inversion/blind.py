"""Deblurring when nobody knows the blur: its sigma is one more unknown of the search."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor, nn

from gan_lightning.degradations.separable import GaussianBlur, gaussian_taps, kernel_radius, mirrored_matrix
from gan_lightning.errors import InputError
from gan_lightning.inversion.checks import check_observed
from gan_lightning.inversion.decoder import Decoder
from gan_lightning.inversion.first_order import lbfgs
from gan_lightning.inversion.losses import mse
from gan_lightning.inversion.problem import Problem, Stopping
from gan_lightning.inversion.refinement import FeatureSpace
from gan_lightning.inversion.starts import best_of_candidates

SIGMAS = (0.5, 0.7, 1.0, 1.4, 2.0, 2.8, 4.0)  # where the residual curve is drawn, in pixels
CURVE_STEPS = 30
JOINT_STEPS = 100
FEATURE_WEIGHT = 1e-4
BIAS = 0.35  # px^2: by so much a sigma's square came out too large, for held-out synthetic faces at 64 pixels


@dataclass
class BlurEstimate:
    """What a batch of blurred images tells of its blur.

    Attributes:
        sigma: (B,) standard deviation of each image's blur, in pixels.
        latent: (B, latent_dim) of the lowest point of the curve: a start for `invert`.
        sigmas: (K,) where the curve was drawn.
        residuals: (K,B) mean squared error on the [0, 1] scale when each sigma is taken for true.
    """

    sigma: Tensor
    latent: Tensor
    sigmas: Tensor
    residuals: Tensor


def estimate_blur(
    generator: nn.Module,
    observed: Tensor,
    *,
    sigmas: Sequence[float] = SIGMAS,
    latent_weight: float = 0.0,
    bias: float = BIAS,
) -> BlurEstimate:
    """Find the sigma of each image's Gaussian blur, together with its latent.

    Each sigma of a coarse curve is taken for true first, from the strongest to the weakest, each search starting where
    the last one ended; from the curve's lowest point, log sigma joins the unknowns.

    Args:
        generator: As for `invert`.
        observed: (B,C,H,W), blurred, in [-1, 1].
        sigmas: Where the curve is drawn, in pixels, rising; their ends bound the estimate.
        latent_weight: As for `invert`.
        bias: Subtracted from the square of the sigma found, in square pixels; 0 for images of the generator's own.

    Raises:
        InputError: Sigmas that are not positive and rising, or images that the generator cannot make.
    """
    if len(sigmas) < 2 or sigmas[0] <= 0 or any(b <= a for a, b in pairwise(sigmas)):
        raise InputError(f"sigmas are {list(sigmas)}: give two or more, above 0 and rising")
    device = next(generator.parameters()).device
    with torch.inference_mode(False), torch.enable_grad(), torch.autocast(device.type, enabled=False):
        decoder = Decoder(generator)
        observed = observed.detach().to(device, torch.float32, copy=True)
        check_observed(decoder, nn.Identity(), observed, observed)
        curve, latents = _residual_curve(decoder, observed, list(sigmas), latent_weight)
        lowest = curve.argmin(0)
        latent = latents[lowest, torch.arange(len(observed), device=observed.device)]
        log_sigma = observed.new_tensor(sigmas).log()[lowest]
        problem = _joint_problem(decoder, observed, latent, log_sigma, kernel_radius(sigmas[-1]))
        stopping = Stopping(JOINT_STEPS, 1e-4, observed.new_zeros(len(observed)))
        found = lbfgs(problem, problem.center, stopping).variables[:, -1].exp()
    # Gaussian blurs add up in their squares.
    sigma = (found.square() - bias).clamp(min=sigmas[0] ** 2).sqrt().clamp(max=sigmas[-1])
    return BlurEstimate(sigma, latent, observed.new_tensor(sigmas), curve)


def _residual_curve(
    decoder: Decoder, observed: Tensor, sigmas: list[float], latent_weight: float
) -> tuple[Tensor, Tensor]:
    """Return, for each sigma taken for true, the mean squared errors (K,B) and the latents (K,B,D)."""
    curve, latents = [], []
    latent: Tensor | None = None
    for sigma in reversed(sigmas):
        center = observed.new_zeros(len(observed), decoder.latent_dim)
        ones = torch.ones_like(center[:, 0])
        problem = Problem(decoder, GaussianBlur(sigma), observed, mse, ones, center, latent_weight * ones)
        if latent is None:
            latent = best_of_candidates(problem, decoder.latent_dim, seed=0, attempt=0)
        latent = lbfgs(problem, latent, Stopping(CURVE_STEPS, 1e-4, 0 * ones)).variables
        with torch.no_grad():
            curve.append(problem.losses(latent)[1])
        latents.append(latent)
    return torch.stack(curve[::-1]), torch.stack(latents[::-1])


def _joint_problem(decoder: Decoder, observed: Tensor, latent: Tensor, log_sigma: Tensor, radius: int) -> Problem:
    """Pose the search for features of the first block and log sigma at once: variables are (B, features + 1).

    Features, for latents alone leave so much of a photograph unexplained that blur takes the blame for it.
    """
    features = FeatureSpace(decoder, latent)

    def render(variables: Tensor) -> Tensor:
        images = features.render(variables[:, :-1])
        taps = gaussian_taps(variables[:, -1].exp(), radius)
        rows, columns = (mirrored_matrix(taps, size)[:, None] for size in images.shape[-2:])
        blurred: Tensor = rows @ images @ columns.mT
        return blurred

    # Log sigma's penalty is zero where it starts; one part in thousands, it holds nothing back.
    start = torch.cat([features.center, log_sigma[:, None]], 1)
    ones = torch.ones_like(log_sigma)
    return Problem(render, nn.Identity(), observed, mse, ones, start, FEATURE_WEIGHT * ones)
