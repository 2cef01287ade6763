"""Batched Levenberg-Marquardt for small least-squares problems, with separate damping for each image.

A forward-mode Jacobian of A(G(z)) costs about as much as forty gradients, but one step replaces hundreds of gradient
steps. To make the most of each Jacobian, the normal matrix is diagonalized once, and several dampings are tried at the
cost of a forward pass each (Marquardt 1963). The best of them is the initial damping of the next step.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.func import jvp, vmap

from gan_lightning.inversion.convergence import ConvergenceTracker
from gan_lightning.inversion.problem import Problem, Solution, Stopping

DAMPING_FACTORS = (1 / 16, 1 / 4, 1.0, 4.0)  # dampings to try, relative to the current one
DAMPING_INCREASE = 64.0  # applied when all of them fail
MAX_ROUNDS = 4
WINDOW = 2
JACOBIAN_COLUMNS = 25  # columns computed at once for
JACOBIAN_IMAGES = 16  # images at once; larger chunks exceed the cache


def levenberg_marquardt(problem: Problem, start: Tensor, stopping: Stopping, damping: float = 1e-1) -> Solution:
    """Minimize a squared loss by the Levenberg-Marquardt algorithm.

    Args:
        problem: Problem whose loss is the mean squared error.
        start: (B,D) initial variables.
        stopping: Stopping criteria; a step computes one Jacobian.
        damping: Initial damping, relative to the mean eigenvalue of the normal matrix.
    """
    tracker = ConvergenceTracker(problem, start, stopping, WINDOW)
    with torch.no_grad():
        losses, data = problem.losses(start)
    variables, dampings = start, torch.full_like(losses, damping)
    tracker.record(variables, losses, data)
    while tracker.goes_on():
        if (rows := tracker.compact()) is not None:
            problem = problem.select(rows)
            variables, losses, dampings = variables[rows], losses[rows], dampings[rows]
        normal, gradient = normal_equations(problem, variables)
        variables, losses, data, dampings, moved = damped_step(problem, variables, losses, normal, gradient, dampings)
        tracker.record(variables, losses, data, stuck=~moved)
    return tracker.solution()


def normal_equations(problem: Problem, variables: Tensor) -> tuple[Tensor, Tensor]:
    """Return the Gauss-Newton matrix (B,D,D) and half the gradient (B,D) of the objective."""
    parts = [
        _normal_equations(problem.select(rows), variables[rows])
        for rows in torch.split(torch.arange(len(variables), device=variables.device), JACOBIAN_IMAGES)
    ]
    return torch.cat([normal for normal, _ in parts]), torch.cat([gradient for _, gradient in parts])


def _normal_equations(problem: Problem, variables: Tensor) -> tuple[Tensor, Tensor]:
    predicted, columns = jacobian(problem, variables)
    residuals = ((predicted - problem.observed) / 2).flatten(1)
    scale = 1 / (problem.known_fraction * residuals.shape[1])
    columns = columns / 2
    normal = (columns @ columns.mT) * scale[:, None, None]
    gradient = (columns @ residuals[:, :, None])[:, :, 0] * scale[:, None]
    penalty = problem.weight / variables.shape[1]
    normal.diagonal(dim1=1, dim2=2).add_(penalty)
    return normal, gradient + penalty * (variables - problem.center)


def jacobian(problem: Problem, variables: Tensor) -> tuple[Tensor, Tensor]:
    """Return predictions A(render(v)) and their derivatives with respect to each variable, (B, D, C*H*W)."""

    def column(direction: Tensor) -> Tensor:
        tangent: Tensor = jvp(problem.predict, (variables,), (direction.expand_as(variables),))[1]
        return tangent.flatten(1)

    basis = torch.eye(variables.shape[1], device=variables.device, dtype=variables.dtype)
    with torch.no_grad():
        return problem.predict(variables), vmap(column, out_dims=1, chunk_size=JACOBIAN_COLUMNS)(basis)


def damped_step(
    problem: Problem, variables: Tensor, losses: Tensor, normal: Tensor, gradient: Tensor, damping: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Try dampings for each image until its objective decreases or the rounds are used up.

    Returns:
        New variables, objectives, data terms and dampings, and whether each image moved.
    """
    values, vectors = torch.linalg.eigh(normal.double())
    values = values.clamp(min=0)
    unit = values.mean(1, keepdim=True).clamp(min=1e-30)
    rotated = (vectors.mT @ gradient.double()[:, :, None])[:, :, 0]
    best, best_loss, best_data = variables.clone(), losses.clone(), torch.zeros_like(losses)
    next_damping, moved = damping.clone(), torch.zeros_like(losses, dtype=torch.bool)
    factors = torch.tensor(DAMPING_FACTORS, device=damping.device)
    with torch.no_grad():
        for round_ in range(MAX_ROUNDS):
            rows = (~moved).nonzero()[:, 0]
            if not len(rows):
                break
            remaining = problem.select(rows)
            for factor in factors * DAMPING_INCREASE**round_:
                lam = damping[rows] * factor
                filtered = rotated[rows] / (values[rows] + lam[:, None].double() * unit[rows])
                step = (vectors[rows] @ filtered[:, :, None])[:, :, 0].to(variables)
                candidate = variables[rows] - step
                loss, data = remaining.losses(candidate)
                better = loss < best_loss[rows]
                improved = rows[better]
                best[improved], best_loss[improved], best_data[improved] = candidate[better], loss[better], data[better]
                next_damping[improved], moved[improved] = lam[better].clamp(min=1e-9), True
    return best, best_loss, best_data, next_damping, moved
