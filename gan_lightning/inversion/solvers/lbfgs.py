"""Batched L-BFGS with a line search for each image."""

from __future__ import annotations

import torch
from torch import Tensor

from gan_lightning.degradations.base import Degradation
from gan_lightning.inversion.convergence import ConvergenceTracker
from gan_lightning.inversion.problem import Problem, Solution, Stopping
from gan_lightning.inversion.reductions import sum_of_each
from gan_lightning.inversion.solvers.inverse_hessian import InverseHessian
from gan_lightning.inversion.solvers.recorded import RecordedStep, record_cuda_graph

LBFGS_MEMORY = 20  # storing vectors is cheap compared with evaluating the generator
LBFGS_WINDOW = 10
MAX_HALVINGS = 12  # maximum number of halvings of the step in a line search
ARMIJO = 1e-4  # sufficient decrease, relative to the slope
RECORDS = False  # whether steps are recorded as CUDA graphs


def lbfgs(problem: Problem, start: Tensor, stopping: Stopping) -> Solution:
    """Minimize any smooth loss by L-BFGS (Liu & Nocedal 1989), with a backtracking line search for each image.

    Each round tries one point of each image. If the point is accepted, the next round tries the next step; otherwise it
    tries half of the same step. No image waits for the line search of another.

    Args:
        problem: Problem with a smooth loss.
        start: (B,D) initial variables.
        stopping: Stopping criteria.
    """
    tracker = ConvergenceTracker(problem, start, stopping, LBFGS_WINDOW)
    losses, data, gradient = problem.gradient(start)
    tracker.record(start, losses, data)
    search = _Search(start, losses, gradient, min(LBFGS_MEMORY, max(stopping.num_steps, 1)))

    def step() -> None:
        data, accepted, stuck = search.advance(problem, tracker.active)
        tracker.record(search.variables, search.losses, data, accepted | stuck, stuck)

    owners = tracker, search, search.inverse_hessian
    take = RecordedStep(step, owners, record_cuda_graph) if can_record(problem) else step
    while tracker.goes_on():
        if (rows := tracker.compact()) is not None:
            problem = problem.select(rows)
            search.select(rows)
        take()
    return tracker.solution()


def can_record(problem: Problem) -> bool:
    """Return whether steps are recorded as CUDA graphs: only on a GPU, and without user-defined functions in them."""
    return RECORDS and problem.observed.device.type == "cuda" and isinstance(problem.degradation, Degradation)


class _Search:
    """Current variables (B,D) with their objectives (B,) and gradients (B,D), and the point to try next."""

    def __init__(self, variables: Tensor, losses: Tensor, gradient: Tensor, memory: int) -> None:
        self.variables, self.losses, self.gradient = variables, losses, gradient
        self.inverse_hessian = InverseHessian(gradient, memory)
        self.direction = -self.inverse_hessian.scale * gradient
        self.length = torch.ones_like(losses)

    def select(self, rows: Tensor) -> None:
        """Keep only some images of the batch."""
        for name in ("variables", "losses", "gradient", "direction", "length"):
            setattr(self, name, getattr(self, name)[rows])
        self.inverse_hessian.select(rows)

    def advance(self, problem: Problem, active: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Try a point of each image; move there if it satisfies Armijo's condition, otherwise shorten the step.

        Args:
            problem: Problem to solve.
            active: (B,) images to move.

        Returns:
            Data terms (B,) of the points, and which images have moved and which are stuck (B,).
        """
        slope = sum_of_each(self.gradient * self.direction).clamp(max=0)  # rounding can turn a direction uphill
        point = torch.addcmul(self.variables, self.direction, self.length[:, None])
        losses, data, gradient = problem.gradient(point)
        accepted = (losses <= torch.addcmul(self.losses, self.length, slope, value=ARMIJO)) & active
        # A rejected point may hold anything, even values that are not finite.
        step, change = point - self.variables, gradient - self.gradient
        self.variables = torch.where(accepted[:, None], point, self.variables)
        self.gradient = torch.where(accepted[:, None], gradient, self.gradient)
        self.losses = torch.where(accepted, losses, self.losses)
        self.direction = self.inverse_hessian.update(step, change, self.gradient, accepted)
        self.length = (self.length / 2).masked_fill(accepted, 1.0)
        stuck = active & (self.length < 0.5 ** (MAX_HALVINGS - 0.5))
        return data, accepted, stuck
