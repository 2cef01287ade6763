"""Batched L-BFGS with a line search for each image."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from gan_lightning.inversion.problem import ConvergenceTracker, Problem, Solution, Stopping

LBFGS_MEMORY = 20  # storing vectors is cheap compared with evaluating the generator
LBFGS_WINDOW = 10
MAX_HALVINGS = 12  # of the step in a line search
ARMIJO = 1e-4  # sufficient decrease, relative to the slope


def lbfgs(problem: Problem, start: Tensor, stopping: Stopping) -> Solution:
    """Minimize any smooth loss by L-BFGS (Liu & Nocedal 1989), with a backtracking line search for each image.

    Args:
        problem: Problem with a smooth loss.
        start: (B,D) initial variables.
        stopping: Stopping criteria.
    """
    tracker = ConvergenceTracker(problem, start, stopping, LBFGS_WINDOW)
    current = _Iterate(start.clone(), *problem.gradient(start))
    pairs: list[tuple[Tensor, Tensor]] = []
    active = tracker.record(current.variables, current.losses, current.data)
    while len(tracker.rows):
        if not active.all():
            problem, current = problem.select(active.nonzero()[:, 0]), current.select(active)
            pairs = [(steps[active], changes[active]) for steps, changes in pairs]
        new, stuck = _line_search(problem, current, -_two_loop_recursion(current.gradient, pairs))
        pairs = [*pairs[1 - LBFGS_MEMORY :], (new.variables - current.variables, new.gradient - current.gradient)]
        current = new
        active = tracker.record(current.variables, current.losses, current.data, stuck)
    return tracker.solution()


@dataclass
class _Iterate:
    """Variables (B,D), with their objectives (B,), data terms (B,) and gradients (B,D)."""

    variables: Tensor
    losses: Tensor
    data: Tensor
    gradient: Tensor

    def select(self, rows: Tensor) -> _Iterate:
        return _Iterate(self.variables[rows], self.losses[rows], self.data[rows], self.gradient[rows])

    def put(self, rows: Tensor, other: _Iterate) -> None:
        self.variables[rows], self.losses[rows] = other.variables, other.losses
        self.data[rows], self.gradient[rows] = other.data, other.gradient


def _two_loop_recursion(gradient: Tensor, pairs: list[tuple[Tensor, Tensor]]) -> Tensor:
    """Multiply gradients (B,D) by the inverse Hessian estimate; without pairs yet, normalize them to length one."""
    if not pairs:
        first: Tensor = gradient / gradient.norm(dim=1, keepdim=True).clamp(min=1e-30)
        return first
    result, coefficients = gradient, []
    curvatures = [(steps * changes).sum(1, keepdim=True) for steps, changes in pairs]
    # Skip pairs without positive curvature: with them the direction could be one of ascent.
    inverses = [torch.where(c > 1e-20, 1 / c.clamp(min=1e-20), 0.0) for c in curvatures]
    for (steps, changes), inverse in zip(reversed(pairs), reversed(inverses), strict=True):
        coefficient = inverse * (steps * result).sum(1, keepdim=True)
        result = result - coefficient * changes
        coefficients.append(coefficient)
    steps, changes = pairs[-1]
    scale = (steps * changes).sum(1, keepdim=True) / changes.square().sum(1, keepdim=True).clamp(min=1e-30)
    result = torch.where(scale > 0, scale, 1.0) * result
    for (steps, changes), inverse, coefficient in zip(pairs, inverses, reversed(coefficients), strict=True):
        result = result + (coefficient - inverse * (changes * result).sum(1, keepdim=True)) * steps
    return result


def _line_search(problem: Problem, current: _Iterate, direction: Tensor) -> tuple[_Iterate, Tensor]:
    """Halve the step from 1 until the Armijo condition holds; return the new iterate and which images are stuck.

    Each trial computes its gradient too, since the first one is nearly always accepted.
    """
    slope = (current.gradient * direction).sum(1).clamp(max=0)  # rounding can turn a direction uphill
    new = current.select(torch.ones_like(slope, dtype=torch.bool))  # a copy
    pending = torch.arange(len(slope), device=slope.device)
    for halvings in range(MAX_HALVINGS):
        length = 0.5**halvings
        candidate = current.variables[pending] + length * direction[pending]
        trial = _Iterate(candidate, *problem.select(pending).gradient(candidate))
        accepted = trial.losses <= current.losses[pending] + ARMIJO * length * slope[pending]
        new.put(pending[accepted], trial.select(accepted))
        pending = pending[~accepted]
        if not len(pending):
            break
    stuck = torch.zeros_like(slope, dtype=torch.bool)
    stuck[pending] = True
    return new, stuck
