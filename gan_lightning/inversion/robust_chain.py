"""Three searches of increasing freedom by normalized gradients (Poirier-Ginter & Lalonde 2023, arXiv 2302.06733).

The searches find a latent in w, then one for each layer (w+), then one for each filter of each layer, each with the
same number of steps of fixed length. The lengths do not depend on the loss, so all tasks share the same settings.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from gan_lightning.inversion.convergence import ConvergenceTracker
from gan_lightning.inversion.frozen_generator import FrozenGenerator
from gan_lightning.inversion.problem import Problem, Solution, Stopping
from gan_lightning.inversion.reductions import sum_of_each

STEPS = 150  # of each phase
# Lengths of a step, relative to the typical length of w - mean, in the proportions of the paper: 0.08, 0.02 and 0.005
# in the units of one network, to be scaled for others. Half or three times these values make little difference.
LENGTHS = {"w": 0.016, "w+": 0.004, "filters": 0.001}


def search_in_w(problem: Problem, start: Tensor, stopping: Stopping) -> Solution:
    """Find latents in w: the first phase, with the signature of a solver."""
    return normalized_descent(problem, start, stopping, start.shape[1], LENGTHS["w"])


def extend(
    problem: Problem, generator: FrozenGenerator, latents: Tensor, stopping: Stopping
) -> tuple[Tensor, list[Solution]]:
    """Find a latent for each layer, and then one for each filter: the second and the third phase.

    Args:
        problem: Problem whose variables are latents.
        generator: Frozen generator, which offers filters.
        latents: (B, latent_dim) latents of w.
        stopping: Stopping criteria of each phase.

    Returns:
        Images (B,C,H,W), and the solutions of both phases.
    """
    with torch.no_grad():
        layers = generator.features(latents)
    in_layers = _without_penalty(problem, generator.render, layers)
    width = latents.shape[1]
    found = normalized_descent(in_layers, layers, stopping, width, LENGTHS["w+"])
    filters = _Filters(generator, found.variables)
    shifts = filters.none()
    # A filter depends on w only through the product with one vector. The gradient of its latent is therefore parallel
    # to it, all normalized steps have one length, and the variable is the distance of each filter, in units of w.
    length = LENGTHS["filters"] * math.sqrt(width)
    last = normalized_descent(_without_penalty(problem, filters, shifts), shifts, stopping, 1, length)
    with torch.no_grad():
        return filters(last.variables), [found, last]


def normalized_descent(problem: Problem, start: Tensor, stopping: Stopping, width: int, length: float) -> Solution:
    """Minimize any loss by gradients that are normalized to one length, and keep the best variables.

    Args:
        problem: Problem with any loss.
        start: (B,D) initial variables.
        stopping: Stopping criteria. The tolerance is not used.
        width: Number of successive variables that form a vector. The gradient of each vector is normalized.
        length: Length of a step of a vector, relative to sqrt(width).
    """
    tracker = ConvergenceTracker(problem, start, stopping, window=stopping.num_steps + 1)
    variables = start
    while True:
        losses, data, gradient = problem.gradient(variables)
        tracker.record(variables, losses, data)
        if not tracker.goes_on():
            return tracker.solution()
        if (rows := tracker.compact()) is not None:
            problem, variables, gradient = problem.select(rows), variables[rows], gradient[rows]
        vectors = gradient.reshape(-1, width)
        norms = sum_of_each(vectors.square(), keepdim=True).sqrt().clamp(min=torch.finfo(vectors.dtype).tiny)
        variables = variables - length * math.sqrt(width) * (vectors / norms).view_as(variables)


class _Filters:
    """Distances of the latents of all filters from those of their layers, as variables (B,F).

    Args:
        generator: Frozen generator.
        layers: (B, num_ws * w_dim) latents of the layers.
    """

    def __init__(self, generator: FrozenGenerator, layers: Tensor) -> None:
        self.generator, self.layers = generator, layers

    def none(self) -> Tensor:
        """Return distances of zero, (B,F)."""
        return self.layers.new_zeros(len(self.layers), self.generator.num_filters)

    def select(self, rows: Tensor) -> _Filters:
        """Return the filters of some images."""
        return _Filters(self.generator, self.layers[rows])

    def __call__(self, shifts: Tensor) -> Tensor:
        """Map distances (B,F) to images (B,C,H,W)."""
        return self.generator.render_filters(self.layers, shifts)


def _without_penalty(problem: Problem, render: Callable[[Tensor], Tensor], center: Tensor) -> Problem:
    return replace(problem, render=render, center=center, weight=torch.zeros_like(problem.weight[:, :1]))
