"""Adam (Kingma and Ba 2015) with a cosine schedule, for a batch of images."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from gan_lightning.inversion.problem import Problem, Solution, Stopping, Tracker

ADAM_BETAS = (0.9, 0.99)  # a shorter memory than usual: a few hundred steps are all there are


def adam(problem: Problem, start: Tensor, stopping: Stopping, learning_rate: float = 0.3) -> Solution:
    """Minimise any loss by Adam (Kingma & Ba 2015), its learning rate falling to zero on a cosine.

    Adam works element by element, so that images do not meet.

    Args:
        problem: Any.
        start: (B,D).
        stopping: When an image is done; its number of steps is the cosine's length.
        learning_rate: At the start.
    """
    # While the learning rate is high the objective rests on plateaus that mean nothing.
    tracker = Tracker(problem, start, stopping, window=max(20, stopping.num_steps // 4))
    variables, first, second = start.clone(), torch.zeros_like(start), torch.zeros_like(start)
    for step in range(stopping.num_steps + 1):
        losses, data, gradient = problem.gradient(variables)
        going = tracker.record(variables, losses, data)
        if not len(tracker.rows):
            break
        if not going.all():
            problem = problem.select(going.nonzero()[:, 0])
            variables, gradient, first, second = (x[going] for x in (variables, gradient, first, second))
        first = torch.lerp(gradient, first, ADAM_BETAS[0])
        second = torch.lerp(gradient.square(), second, ADAM_BETAS[1])
        rate = learning_rate * 0.5 * (1 + math.cos(math.pi * step / stopping.num_steps))
        corrected = (second / (1 - ADAM_BETAS[1] ** (step + 1))).sqrt() + 1e-12
        variables = variables - rate / (1 - ADAM_BETAS[0] ** (step + 1)) * first / corrected
    return tracker.solution()
