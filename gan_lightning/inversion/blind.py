"""Estimation of an unknown Gaussian blur, for blind deblurring."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import torch
from torch import Tensor, nn

from gan_lightning.degradations.separable import GaussianBlur, gaussian_taps, kernel_radius, mirrored_matrix
from gan_lightning.errors import InputError
from gan_lightning.inversion.blur_likelihood import maximum_likelihood_sigma
from gan_lightning.inversion.checks import check_choice, check_numbers, check_observed, check_pixels
from gan_lightning.inversion.data_consistency import EIGHT_BITS
from gan_lightning.inversion.frozen_generator import FrozenGenerator, freeze_generator
from gan_lightning.inversion.initialization import LatentSampler, best_of_k_latents, sample_images
from gan_lightning.inversion.losses import mse
from gan_lightning.inversion.noise_level import visible_noise
from gan_lightning.inversion.precision import float32_gradients
from gan_lightning.inversion.problem import Callback, Problem, Stopping
from gan_lightning.inversion.refinement import FeatureSpace
from gan_lightning.inversion.solvers.lbfgs import lbfgs

SIGMAS = (0.5, 0.7, 1.0, 1.4, 2.0, 2.8, 4.0)  # sigmas of the residual curve, in pixels
CURVE_STEPS = 30
JOINT_STEPS = 100
FEATURE_WEIGHT = 1e-4
SAMPLES = 256  # number of images from which the power spectrum of the generator is estimated

BlurMethod = Literal["evidence", "joint"]


@dataclass
class BlurEstimate:
    """Estimated Gaussian blur of a batch of images.

    Attributes:
        sigma: (B,) estimated standard deviation of the blur of each image, in pixels.
        latent: (B, latent_dim) latents fitted for the nearest sigma of the curve; pass them to `invert` as `start`.
        sigmas: (K,) sigmas of the residual curve, in pixels.
        residuals: (K,B) mean squared error on the [0, 1] scale after fitting the latent for each sigma.
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
    callback: Callback | None = None,
) -> BlurEstimate:
    """Estimate the sigma of the Gaussian blur of each image, and a latent to initialize `invert` with.

    First, latents are fitted for each sigma of a coarse grid, from the strongest blur to the weakest, each initialized
    with the result of the previous one. The minimum of this residual curve does not identify sigma: for images outside
    the range of the generator, too strong a blur fits best.

    Args:
        generator: Generator, see `invert`.
        observed: Blurred images (B,C,H,W) in [-1, 1].
        sigmas: Increasing sigmas of the residual curve, in pixels. The first and the last bound the estimate.
        latent_weight: Weight of the mean square of the latents, see `invert`.
        noise_level: Standard deviation of the noise on the [0, 1] scale, see `invert`.
        method: Estimator. "evidence" maximizes the likelihood of the power spectrum of each image, and fits no latent.
            "joint" optimizes log sigma together with the features, starting at the minimum of the residual curve. It
            is accurate for images in the range of the generator, and biased upward for others.
        callback: Function called after each step of fitting latents, as that of `invert`, with the stage "blur". The
            steps are counted over all sigmas, `CURVE_STEPS` for each.

    Raises:
        InputError: If the sigmas are not positive and increasing, or if the images do not have the shape of those of
            the generator.
    """
    check_choice("method", method, ("evidence", "joint"))
    if len(sigmas) < 2 or sigmas[0] <= 0 or any(b <= a for a, b in pairwise(sigmas)):
        raise InputError(f"sigmas are {list(sigmas)}: expected two or more, above 0 and rising")
    check_numbers(latent_weight=latent_weight, noise_level=noise_level)
    check_pixels(observed)
    device = next(generator.parameters()).device
    with float32_gradients(device):
        frozen = freeze_generator(generator)
        if method == "joint" and frozen.first is None:
            raise InputError("this generator is not laid out as gan_lightning.Generator: choose the method evidence")
        observed = observed.detach().to(device, torch.float32, copy=True)
        check_observed(frozen, nn.Identity(), observed, observed)
        curve, latents = _residual_curve(frozen, observed, list(sigmas), latent_weight, callback)
        if method == "joint":
            sigma = _joint_search(frozen, observed, list(sigmas), curve, latents)
        else:
            noise = visible_noise(observed) if noise_level is None else torch.full_like(curve[0], noise_level)
            clean = sample_images(frozen, SAMPLES)
            sigma = maximum_likelihood_sigma(observed, clean, noise.clamp(min=EIGHT_BITS), (sigmas[0], sigmas[-1]))
    grid = observed.new_tensor(sigmas)
    nearest = (grid.log() - sigma.log()[:, None]).abs().argmin(1)
    return BlurEstimate(sigma, latents[nearest, torch.arange(len(sigma), device=sigma.device)], grid, curve)


def _residual_curve(
    frozen: FrozenGenerator, observed: Tensor, sigmas: list[float], latent_weight: float, callback: Callback | None
) -> tuple[Tensor, Tensor]:
    """Fit latents for each sigma; return the mean squared errors (K,B) and the latents (K,B,D)."""
    curve, latents = [], []
    latent: Tensor | None = None
    for place, sigma in enumerate(reversed(sigmas)):
        center = observed.new_zeros(len(observed), frozen.latent_dim)
        ones = torch.ones_like(center[:, 0])
        problem = Problem(frozen, GaussianBlur(sigma), observed, mse, ones, center, latent_weight * ones[:, None])
        if latent is None:
            searches = [(index, 0) for index in range(len(observed))]
            latent = best_of_k_latents(problem, frozen.latent_dim, LatentSampler(draw=frozen.draw), searches, attempt=0)
        tell = callback and _counting_from(place * CURVE_STEPS, callback)
        stopping = Stopping(CURVE_STEPS, 1e-4, 0 * ones, stage="blur", callback=tell)
        latent = frozen.whitening.solve(lbfgs, problem, latent, stopping).variables
        with torch.no_grad():
            curve.append(problem.losses(latent)[1])
        latents.append(latent)
    return torch.stack(curve[::-1]), torch.stack(latents[::-1])


def _counting_from(first: int, callback: Callback) -> Callback:
    return lambda stage, step, losses, render: callback(stage, first + step, losses, render)


def _joint_search(
    frozen: FrozenGenerator, observed: Tensor, sigmas: list[float], curve: Tensor, latents: Tensor
) -> Tensor:
    """Optimize features and log sigma together from the minimum of the residual curve; return sigma (B,)."""
    lowest = curve.argmin(0)
    latent = latents[lowest, torch.arange(len(observed), device=observed.device)]
    log_sigma = observed.new_tensor(sigmas).log()[lowest]
    problem = _joint_problem(frozen, observed, latent, log_sigma, kernel_radius(sigmas[-1]))
    stopping = Stopping(JOINT_STEPS, 1e-4, observed.new_zeros(len(observed)))
    sigma = lbfgs(problem, problem.center, stopping).variables[:, -1].exp()
    return sigma.clamp(sigmas[0], sigmas[-1])


def _joint_problem(
    frozen: FrozenGenerator, observed: Tensor, latent: Tensor, log_sigma: Tensor, radius: int
) -> Problem:
    """Return the problem whose variables (B, features + 1) are features of the first block and log sigma.

    Latents would leave a larger residual on photographs than features, which would bias the blur upward.
    """
    features = FeatureSpace(frozen, latent)
    taps = torch.eye(2 * radius + 1, device=observed.device, dtype=observed.dtype)
    of_each_tap = [mirrored_matrix(taps, size) for size in observed.shape[-2:]]

    def render(variables: Tensor) -> Tensor:
        images = features.render(variables[:, :-1])
        taps = gaussian_taps(variables[:, -1].exp(), radius)
        rows, columns = (torch.einsum("bt,tij->bij", taps, matrices)[:, None] for matrices in of_each_tap)
        blurred: Tensor = rows @ images @ columns.mT
        return blurred

    # The penalty on log sigma is negligible: it is one of thousands of variables.
    start = torch.cat([features.center, log_sigma[:, None]], 1)
    ones = torch.ones_like(log_sigma)
    return Problem(render, nn.Identity(), observed, mse, ones, start, FEATURE_WEIGHT * ones[:, None])
