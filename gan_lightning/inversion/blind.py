"""Deblurring when nobody knows the blur: its sigma is one more unknown."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import torch
from torch import Tensor, nn

from gan_lightning.degradations.separable import GaussianBlur, gaussian_taps, kernel_radius, mirrored_matrix
from gan_lightning.errors import InputError
from gan_lightning.inversion.blur_evidence import evident_blur
from gan_lightning.inversion.checks import check_choice, check_numbers, check_observed
from gan_lightning.inversion.data_consistency import EIGHT_BITS
from gan_lightning.inversion.frozen_generator import FrozenGenerator, freeze_generator
from gan_lightning.inversion.losses import mse
from gan_lightning.inversion.noise_level import visible_noise
from gan_lightning.inversion.problem import Problem, Stopping
from gan_lightning.inversion.refinement import FeatureSpace
from gan_lightning.inversion.solvers.lbfgs import lbfgs
from gan_lightning.inversion.starts import Draws, best_of_candidates, draw_images

SIGMAS = (0.5, 0.7, 1.0, 1.4, 2.0, 2.8, 4.0)  # where the residual curve is drawn, in pixels
CURVE_STEPS = 30
JOINT_STEPS = 100
FEATURE_WEIGHT = 1e-4
SAMPLES = 256  # images of the generator that its power spectrum is measured on

BlurMethod = Literal["evidence", "joint"]


@dataclass
class BlurEstimate:
    """What a batch of blurred images tells of its blur.

    Attributes:
        sigma: (B,) standard deviation of each image's blur, in pixels.
        latent: (B, latent_dim) of the curve's point nearest to sigma: a start for `invert`.
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
    noise_level: float | None = None,
    method: BlurMethod = "evidence",
) -> BlurEstimate:
    """Find the sigma of each image's Gaussian blur, and a latent to go on from.

    Each sigma of a coarse curve is taken for true first, from the strongest to the weakest, each search starting where
    the last one ended. The curve alone cannot tell sigma: an image that no latent makes is explained best by too much
    blur.

    Args:
        generator: As for `invert`.
        observed: (B,C,H,W), blurred, in [-1, 1].
        sigmas: Where the curve is drawn, in pixels, rising; their ends bound the estimate.
        latent_weight: As for `invert`.
        noise_level: As for `invert`.
        method: "evidence" takes the sigma that makes the image's power spectrum likeliest, whatever the latent.
            "joint" makes log sigma one more unknown of the search, from the curve's lowest point: right for images of
            the generator's own, and upward biased for others.

    Raises:
        InputError: Sigmas that are not positive and rising, or images that the generator cannot make.
    """
    check_choice("method", method, ("evidence", "joint"))
    if len(sigmas) < 2 or sigmas[0] <= 0 or any(b <= a for a, b in pairwise(sigmas)):
        raise InputError(f"sigmas are {list(sigmas)}: give two or more, above 0 and rising")
    check_numbers(latent_weight=latent_weight, noise_level=noise_level)
    device = next(generator.parameters()).device
    with torch.inference_mode(False), torch.enable_grad(), torch.autocast(device.type, enabled=False):
        frozen = freeze_generator(generator)
        if method == "joint" and frozen.first is None:
            raise InputError("this generator's first block is not known: choose the method evidence")
        observed = observed.detach().to(device, torch.float32, copy=True)
        check_observed(frozen, nn.Identity(), observed, observed)
        curve, latents = _residual_curve(frozen, observed, list(sigmas), latent_weight)
        if method == "joint":
            sigma = _joint_search(frozen, observed, list(sigmas), curve, latents)
        else:
            noise = visible_noise(observed) if noise_level is None else torch.full_like(curve[0], noise_level)
            clean = draw_images(frozen, SAMPLES)
            sigma = evident_blur(observed, clean, noise.clamp(min=EIGHT_BITS), (sigmas[0], sigmas[-1]))
    tried = observed.new_tensor(sigmas)
    nearest = (tried.log() - sigma.log()[:, None]).abs().argmin(1)
    return BlurEstimate(sigma, latents[nearest, torch.arange(len(sigma), device=sigma.device)], tried, curve)


def _residual_curve(
    frozen: FrozenGenerator, observed: Tensor, sigmas: list[float], latent_weight: float
) -> tuple[Tensor, Tensor]:
    """Return, for each sigma taken for true, the mean squared errors (K,B) and the latents (K,B,D)."""
    curve, latents = [], []
    latent: Tensor | None = None
    for sigma in reversed(sigmas):
        center = observed.new_zeros(len(observed), frozen.latent_dim)
        ones = torch.ones_like(center[:, 0])
        problem = Problem(frozen, GaussianBlur(sigma), observed, mse, ones, center, latent_weight * ones[:, None])
        if latent is None:
            latent = best_of_candidates(problem, frozen.latent_dim, Draws(), attempt=0)
        latent = frozen.whitening.solve(lbfgs, problem, latent, Stopping(CURVE_STEPS, 1e-4, 0 * ones)).variables
        with torch.no_grad():
            curve.append(problem.losses(latent)[1])
        latents.append(latent)
    return torch.stack(curve[::-1]), torch.stack(latents[::-1])


def _joint_search(
    frozen: FrozenGenerator, observed: Tensor, sigmas: list[float], curve: Tensor, latents: Tensor
) -> Tensor:
    """Return (B,): where log sigma ends as one more unknown, from the lowest point of the curve on."""
    lowest = curve.argmin(0)
    latent = latents[lowest, torch.arange(len(observed), device=observed.device)]
    log_sigma = observed.new_tensor(sigmas).log()[lowest]
    problem = _joint_problem(frozen, observed, latent, log_sigma, kernel_radius(sigmas[-1]))
    stopping = Stopping(JOINT_STEPS, 1e-4, observed.new_zeros(len(observed)))
    found = lbfgs(problem, problem.center, stopping).variables[:, -1].exp()
    return found.clamp(sigmas[0], sigmas[-1])


def _joint_problem(
    frozen: FrozenGenerator, observed: Tensor, latent: Tensor, log_sigma: Tensor, radius: int
) -> Problem:
    """Pose the search for features of the first block and log sigma at once: variables are (B, features + 1).

    Features, for latents alone leave so much of a photograph unexplained that blur takes the blame for it.
    """
    features = FeatureSpace(frozen, latent)

    def render(variables: Tensor) -> Tensor:
        images = features.render(variables[:, :-1])
        taps = gaussian_taps(variables[:, -1].exp(), radius)
        rows, columns = (mirrored_matrix(taps, size)[:, None] for size in images.shape[-2:])
        blurred: Tensor = rows @ images @ columns.mT
        return blurred

    # Log sigma's penalty is zero where it starts; one part in thousands, it holds nothing back.
    start = torch.cat([features.center, log_sigma[:, None]], 1)
    ones = torch.ones_like(log_sigma)
    return Problem(render, nn.Identity(), observed, mse, ones, start, FEATURE_WEIGHT * ones[:, None])
