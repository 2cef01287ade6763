"""Refinement beyond the range of the generator, over its features or over a copy of its weights.

Both start from the latents found by inversion, and neither modifies the generator.
"""

from __future__ import annotations

import copy
from dataclasses import replace

import torch
from torch import Tensor
from torch.func import functional_call, vmap

from gan_lightning.inversion.frozen_generator import FrozenGenerator
from gan_lightning.inversion.noise_maps import spare_noise
from gan_lightning.inversion.problem import Problem, Solution, Stopping
from gan_lightning.inversion.solvers.adam import adam
from gan_lightning.inversion.solvers.lbfgs import lbfgs
from gan_lightning.seeding import image_rng

WEIGHT_RATE = 1e-3
WEIGHTS_AT_ONCE = 2**26  # in all copies that are tuned at once on a GPU; the search needs about ten numbers for each
SAMPLES = 1024  # number of latents in the estimate of the standard deviation of features
# Tuned on validation faces, for 8x8 holes and 4x super-resolution; a factor of two makes no difference.
FEATURE_PENALTY = 2e-3
NOISE_PENALTY = 3e-2


def feature_penalty(noise_level: Tensor, lossy: bool) -> Tensor:
    """Return the weight of the penalty that keeps features near those of the latent; it increases with the noise.

    Args:
        noise_level: (B,) standard deviation of the noise on the [0, 1] scale.
        lossy: Whether the degradation loses information. Without such loss and without noise, there is no penalty.

    Returns:
        (B,) weight of the penalty.
    """
    return (FEATURE_PENALTY if lossy else 0.0) + NOISE_PENALTY * noise_level.square()


def refine_features(
    problem: Problem, generator: FrozenGenerator, latents: Tensor, weight: Tensor, stopping: Stopping
) -> tuple[Tensor, Solution]:
    """Optimize the features after the first block: intermediate-layer optimization (Daras et al. 2021).

    Args:
        problem: Problem whose variables are latents.
        generator: Frozen generator.
        latents: (B, latent_dim) result of the latent optimization. Noise maps may follow, which are also optimized.
        weight: (B,) weight of the mean squared distance to the features of the latents, in standard deviations.
        stopping: Stopping criteria.

    Returns:
        Images (B,C,H,W), and the solution, whose variables are features.
    """
    features = FeatureSpace(generator, latents)
    weight = spare_noise(weight[:, None], features.center, features.noise_count)
    refined = replace(problem, render=features.render, center=features.center, weight=weight)
    solution = lbfgs(refined, features.center, stopping)
    with torch.no_grad():
        return features.render(solution.variables), solution


class FeatureSpace:
    """Features after the first block as flat variables, in units of their standard deviations.

    Args:
        generator: Frozen generator.
        latents: (B, latent_dim) latents, whose features are `center` (B,D). Noise maps after them become the last
            variables.
    """

    def __init__(self, generator: FrozenGenerator, latents: Tensor) -> None:
        self.generator, self.std = generator, feature_std(generator)
        own, noise = latents[:, : generator.latent_dim], latents[:, generator.latent_dim :]
        self.noise_count = noise.shape[1]
        with torch.no_grad():
            self.center = torch.cat([(generator.features(own) / self.std).flatten(1), noise], 1)

    def render(self, variables: Tensor) -> Tensor:
        """Map features (B,D) to images (B,C,H,W)."""
        count = variables.shape[1] - self.noise_count
        features = variables[:, :count].reshape(len(variables), *self.std.shape[1:]) * self.std
        return self.generator.render(features, variables[:, count:])


@torch.no_grad()
def feature_std(generator: FrozenGenerator) -> Tensor:
    """Estimate the standard deviation of each feature over random latents, (1,C,H,W)."""
    parameter = next(generator.parameters())
    latents = generator.draw(SAMPLES, image_rng(0, 0, "features"))
    std = generator.features(latents.to(parameter)).std(0, keepdim=True)
    return std.clamp(min=0.1 * float(std.mean()))  # a constant feature must not dominate the penalty


def refine_weights(
    problem: Problem, generator: FrozenGenerator, latents: Tensor, stopping: Stopping
) -> tuple[Tensor, Solution]:
    """Fine-tune a copy of the generator's weights for each latent: pivotal tuning (Roich et al. 2021).

    Args:
        problem: Problem whose variables are latents.
        generator: Frozen generator. It is not modified.
        latents: (B, latent_dim) pivots.
        stopping: Stopping criteria.

    Returns:
        Images (B,C,H,W), and the solution, whose variables are the pivots.
    """
    weights = WeightSpace(generator, latents)
    images, solutions = [], []
    for rows in torch.split(torch.arange(len(latents), device=latents.device), weights.at_once()):
        some, part = weights.select(rows), problem.select(rows)
        center = weights.center.expand(len(rows), -1)
        nothing = torch.zeros_like(part.weight[:, :1])
        tuned = replace(part, render=some, center=center, weight=nothing, regularizer=None)
        solution = adam(tuned, center, replace(stopping, floor=stopping.floor[rows]), WEIGHT_RATE)
        with torch.no_grad():
            images.append(some(solution.variables))
        solutions.append(solution)
    return torch.cat(images), _concatenate(solutions, latents)


class WeightSpace:
    """Weights of a copy of the generator for each latent, as flat variables (B,P).

    Args:
        generator: Frozen generator, whose weights are `center` (1,P).
        latents: (B, latent_dim) latents.
    """

    def __init__(self, generator: FrozenGenerator, latents: Tensor) -> None:
        self.generator, self.latents = generator, latents
        self.parameters = {name: parameter.detach() for name, parameter in generator.named_parameters()}
        self.center = torch.cat([parameter.flatten() for parameter in self.parameters.values()])[None]

    def at_once(self) -> int:
        """Return the number of copies to tune at once; on a CPU only one, so that results are bit-identical."""
        return 1 if self.latents.device.type == "cpu" else max(1, WEIGHTS_AT_ONCE // self.center.shape[1])

    def select(self, rows: Tensor) -> WeightSpace:
        """Return the weights of some latents."""
        selected = copy.copy(self)
        selected.latents = self.latents[rows]
        return selected

    def __call__(self, flat: Tensor) -> Tensor:
        """Map weights (B,P) to the images (B,C,H,W) of the latents."""
        images: Tensor = vmap(self._image)(flat, self.latents)
        return images

    def _image(self, flat: Tensor, latent: Tensor) -> Tensor:
        pieces = torch.split(flat, [parameter.numel() for parameter in self.parameters.values()])
        own = {n: piece.view_as(p) for (n, p), piece in zip(self.parameters.items(), pieces, strict=True)}
        image: Tensor = functional_call(self.generator, own, (latent[None],))
        return image[0]


def _concatenate(solutions: list[Solution], latents: Tensor) -> Solution:
    """Concatenate solutions for parts of the images, padding shorter histories with their final loss."""
    steps = max(len(solution.history) for solution in solutions)
    columns = [torch.cat([s.history, s.loss.expand(steps - len(s.history), -1)]) for s in solutions]
    return Solution(
        variables=latents,
        loss=torch.cat([solution.loss for solution in solutions]),
        history=torch.cat(columns, 1),
        converged=torch.cat([solution.converged for solution in solutions]),
        num_steps=torch.cat([solution.num_steps for solution in solutions]),
    )
