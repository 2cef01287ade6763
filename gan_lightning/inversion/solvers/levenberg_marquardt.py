"""Levenberg-Marquardt for a batch of small least-squares problems, each with a damping of its own.

One forward-mode Jacobian of A(G(z)) costs as much as some forty gradients, yet a step with it goes as far as hundreds
of them. So a step makes the most of its Jacobian: the normal matrix is diagonalised once, and several dampings are
tried for the price of a forward pass each (Marquardt 1963; the gain of the best decides the next damping).
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.func import jvp, vmap

from gan_lightning.inversion.problem import Problem, Solution, Stopping, Tracker

TRIALS = (1 / 16, 1 / 4, 1.0, 4.0)  # times the image's damping
RAISED = 64.0  # when all trials fail, damp this much more and try again
ROUNDS = 4
WINDOW = 2
JACOBIAN_COLUMNS = 25  # columns pushed through at once, of
JACOBIAN_IMAGES = 16  # images: larger chunks only leave the cache


def levenberg_marquardt(problem: Problem, start: Tensor, stopping: Stopping, damping: float = 1e-1) -> Solution:
    """Minimise squared losses from `start`.

    Args:
        problem: Its loss must be the mean squared error.
        start: (B,D).
        stopping: When an image is done; a step is one Jacobian.
        damping: At the start, relative to the mean eigenvalue of the normal matrix.
    """
    tracker = Tracker(problem, start, stopping, WINDOW)
    with torch.no_grad():
        losses, data = problem.losses(start)
    variables, damping_of = start, torch.full_like(losses, damping)
    going = tracker.record(variables, losses, data)
    while len(tracker.rows):
        problem = problem.select(going.nonzero()[:, 0])
        variables, losses, damping_of = variables[going], losses[going], damping_of[going]
        normal, gradient = normal_equations(problem, variables)
        variables, losses, data, damping_of, moved = damped_step(
            problem, variables, losses, normal, gradient, damping_of
        )
        going = tracker.record(variables, losses, data, stuck=~moved)
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
    share = problem.weight / variables.shape[1]
    normal.diagonal(dim1=1, dim2=2).add_(share)
    return normal, gradient + share * (variables - problem.center)


def jacobian(problem: Problem, variables: Tensor) -> tuple[Tensor, Tensor]:
    """Return predictions A(render(v)), and their derivatives by each variable, (B, D, C*H*W)."""

    def column(direction: Tensor) -> Tensor:
        tangent: Tensor = jvp(problem.predict, (variables,), (direction.expand_as(variables),))[1]
        return tangent.flatten(1)

    basis = torch.eye(variables.shape[1], device=variables.device, dtype=variables.dtype)
    with torch.no_grad():
        return problem.predict(variables), vmap(column, out_dims=1, chunk_size=JACOBIAN_COLUMNS)(basis)


def damped_step(
    problem: Problem, variables: Tensor, losses: Tensor, normal: Tensor, gradient: Tensor, damping: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Try dampings until each image's objective falls, or nothing helps.

    Returns:
        New variables, objectives, data terms and dampings, and whether the image moved.
    """
    values, vectors = torch.linalg.eigh(normal.double())
    values = values.clamp(min=0)
    unit = values.mean(1, keepdim=True).clamp(min=1e-30)
    rotated = (vectors.mT @ gradient.double()[:, :, None])[:, :, 0]
    best, best_loss, best_data = variables.clone(), losses.clone(), torch.zeros_like(losses)
    next_damping, moved = damping.clone(), torch.zeros_like(losses, dtype=torch.bool)
    trials = torch.tensor(TRIALS, device=damping.device)
    with torch.no_grad():
        for round_ in range(ROUNDS):
            rows = (~moved).nonzero()[:, 0]
            if not len(rows):
                break
            tried = problem.select(rows)
            for factor in trials * RAISED**round_:
                lam = damping[rows] * factor
                filtered = rotated[rows] / (values[rows] + lam[:, None].double() * unit[rows])
                step = (vectors[rows] @ filtered[:, :, None])[:, :, 0].to(variables)
                candidate = variables[rows] - step
                loss, data = tried.losses(candidate)
                won = loss < best_loss[rows]
                places = rows[won]
                best[places], best_loss[places], best_data[places] = candidate[won], loss[won], data[won]
                next_damping[places], moved[places] = lam[won].clamp(min=1e-9), True
    return best, best_loss, best_data, next_damping, moved
