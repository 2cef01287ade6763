"""Beyond the generator's range: what no latent makes, the features after the first block may, or weights of its own.

Both start from the latent that inversion found, and neither changes the generator.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap

from gan_lightning.inversion.frozen_generator import FrozenGenerator
from gan_lightning.inversion.problem import Problem, Solution, Stopping
from gan_lightning.inversion.solvers.adam import adam
from gan_lightning.inversion.solvers.lbfgs import lbfgs
from gan_lightning.seeding import image_rng

WEIGHT_RATE = 1e-3
SAMPLES = 1024  # latents by which the spread of the features is measured
# Found on the validation split of synthetic faces, by 8x8 holes and 4x super-resolution; flat within a factor of two.
FEATURE_PENALTY = 2e-3
NOISE_PENALTY = 3e-2


def feature_penalty(noise_level: Tensor, lossy: bool) -> Tensor:
    """Weigh the penalty that keeps features near the latent's: more, the less the photograph tells.

    Args:
        noise_level: (B,) on the [0, 1] scale.
        lossy: Whether the degradation hides anything; if nothing is hidden and there is no noise, so is no penalty.

    Returns:
        (B,).
    """
    return (FEATURE_PENALTY if lossy else 0.0) + NOISE_PENALTY * noise_level.square()


def refine_features(
    problem: Problem, generator: FrozenGenerator, latents: Tensor, weight: Tensor, stopping: Stopping
) -> tuple[Tensor, Solution]:
    """Continue on the features after the first block: intermediate-layer optimization (Daras et al. 2021).

    Args:
        problem: The problem of the latents.
        generator: The generator.
        latents: (B, latent_dim) that were found.
        weight: (B,) of the mean squared distance from the features of the latents, in standard deviations.
        stopping: When an image is done.

    Returns:
        Images (B,C,H,W), and the course of the refinement.
    """
    features = FeatureSpace(generator, latents)
    refined = replace(problem, render=features.render, center=features.center, weight=weight[:, None])
    solution = lbfgs(refined, features.center, stopping)
    with torch.no_grad():
        return features.render(solution.variables), solution


class FeatureSpace:
    """The features after the first block as flat variables, in standard deviations.

    Args:
        generator: The generator.
        latents: (B, latent_dim); `center` (B,D) are their features.
    """

    def __init__(self, generator: FrozenGenerator, latents: Tensor) -> None:
        self.generator, self.spread = generator, feature_spread(generator)
        with torch.no_grad():
            self.center = (generator.features(latents) / self.spread).flatten(1)

    def render(self, variables: Tensor) -> Tensor:
        """Map features (B,D) to images (B,C,H,W)."""
        return self.generator.render(variables.reshape(len(variables), *self.spread.shape[1:]) * self.spread)


@torch.no_grad()
def feature_spread(generator: FrozenGenerator) -> Tensor:
    """Measure the standard deviation of each feature over random latents, (1,C,H,W)."""
    parameter = next(generator.parameters())
    latents = torch.randn(SAMPLES, generator.latent_dim, generator=image_rng(0, 0, "features"))
    spread = generator.features(latents.to(parameter)).std(0, keepdim=True)
    return spread.clamp(min=0.1 * float(spread.mean()))  # a feature that is always off may stay so, but not weigh most


def refine_weights(
    problem: Problem, generator: FrozenGenerator, latents: Tensor, stopping: Stopping
) -> tuple[Tensor, Solution]:
    """Tune a copy of the generator's weights around each latent: pivotal tuning (Roich et al. 2021).

    Args:
        problem: The problem of the latents.
        generator: The generator; it is not changed.
        latents: (B, latent_dim), the pivots.
        stopping: When an image is done.

    Returns:
        Images (B,C,H,W), and the course of the tuning, without its variables.
    """
    parameters = {name: parameter.detach() for name, parameter in generator.named_parameters()}
    flat = torch.cat([parameter.flatten() for parameter in parameters.values()])
    images, solutions = [], []
    for row in torch.split(
        torch.arange(len(latents), device=latents.device), 1
    ):  # a copy of all weights is enough at once
        one = problem.select(row)
        render = _renderer(generator, parameters, latents[row])
        tuned = replace(one, render=render, center=flat[None], weight=torch.zeros_like(one.weight))
        stop = replace(stopping, floor=stopping.floor[row])
        solution = adam(tuned, flat[None], stop, WEIGHT_RATE)
        with torch.no_grad():
            images.append(render(solution.variables))
        solutions.append(solution)
    return torch.cat(images), _joined(solutions, latents)


def _renderer(generator: nn.Module, parameters: dict[str, Tensor], latents: Tensor) -> Callable[[Tensor], Tensor]:
    """Return a function from flat weights (B,P) to images: each latent's by its own weights."""

    def image(flat: Tensor, latent: Tensor) -> Tensor:
        pieces = torch.split(flat, [parameter.numel() for parameter in parameters.values()])
        own = {n: piece.view_as(p) for (n, p), piece in zip(parameters.items(), pieces, strict=True)}
        result: Tensor = functional_call(generator, own, (latent[None],))
        return result[0]

    return lambda flat: vmap(image)(flat, latents)


def _joined(solutions: list[Solution], latents: Tensor) -> Solution:
    """Put the courses of single images side by side; those that ended early stay where they ended."""
    steps = max(len(solution.history) for solution in solutions)
    columns = [torch.cat([s.history, s.loss.expand(steps - len(s.history), 1)]) for s in solutions]
    return Solution(
        variables=latents,
        loss=torch.cat([solution.loss for solution in solutions]),
        history=torch.cat(columns, 1),
        converged=torch.cat([solution.converged for solution in solutions]),
        num_steps=torch.cat([solution.num_steps for solution in solutions]),
    )
