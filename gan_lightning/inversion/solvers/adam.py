"""Batched Adam whose learning rate decays on a cosine, or follows the ramps of the projector of StyleGAN2."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from gan_lightning.inversion.convergence import ConvergenceTracker
from gan_lightning.inversion.problem import Problem, Solution, Stopping
from gan_lightning.inversion.rate_ramps import RateRamps, rate_factor

ADAM_BETAS = (0.9, 0.99)  # shorter averages than usual, since there are only a few hundred steps


def adam(
    problem: Problem, start: Tensor, stopping: Stopping, learning_rate: float = 0.3, ramps: RateRamps | None = None
) -> Solution:
    """Minimize any loss by Adam (Kingma & Ba 2015), with a learning rate that decays to zero on a cosine.

    Adam updates each element separately, so images are independent.

    Args:
        problem: Problem with any loss.
        start: (B,D) initial variables.
        stopping: Stopping criteria; `num_steps` is the length of the cosine.
        learning_rate: Initial learning rate, or largest one of the ramps.
        ramps: Ramps and noise that replace the cosine. The search then continues until all steps are taken or the noise
            level is reached.
    """
    # While the learning rate is high, the objective can stagnate without having converged.
    window = max(20, stopping.num_steps // 4) if ramps is None else stopping.num_steps + 1
    tracker = ConvergenceTracker(problem, start, stopping, window)
    variables, first, second = start.clone(), torch.zeros_like(start), torch.zeros_like(start)
    for step in range(stopping.num_steps + 1):
        progress = step / max(stopping.num_steps, 1)
        point = variables if ramps is None else ramps.explore(variables, progress)
        losses, data, gradient = problem.gradient(point)
        tracker.record(point, losses, data)
        if not tracker.goes_on():
            break
        if (rows := tracker.compact()) is not None:
            problem = problem.select(rows)
            if ramps is not None:
                ramps.select(rows)
            variables, gradient, first, second = (x[rows] for x in (variables, gradient, first, second))
        first = torch.lerp(gradient, first, ADAM_BETAS[0])
        second = torch.lerp(gradient.square(), second, ADAM_BETAS[1])
        rate = learning_rate * (0.5 * (1 + math.cos(math.pi * progress)) if ramps is None else rate_factor(progress))
        corrected = (second / (1 - ADAM_BETAS[1] ** (step + 1))).sqrt() + 1e-12
        variables = variables - rate / (1 - ADAM_BETAS[0] ** (step + 1)) * first / corrected
    return tracker.solution()
