"""L-BFGS (Liu and Nocedal 1989) for a batch of images, with a line search for each."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from gan_lightning.inversion.problem import Problem, Solution, Stopping, Tracker

LBFGS_MEMORY = 20  # vectors are cheap beside a pass through the generator
LBFGS_WINDOW = 10
LINE_SEARCH = 12  # halvings at most
ARMIJO = 1e-4


def lbfgs(problem: Problem, start: Tensor, stopping: Stopping) -> Solution:
    """Minimise any smooth loss by L-BFGS (Liu & Nocedal 1989), halving each image's step until its objective falls.

    Args:
        problem: Any.
        start: (B,D).
        stopping: When an image is done.
    """
    tracker = Tracker(problem, start, stopping, LBFGS_WINDOW)
    here = _Point(start.clone(), *problem.gradient(start))
    pairs: list[tuple[Tensor, Tensor]] = []
    going = tracker.record(here.variables, here.losses, here.data)
    while len(tracker.rows):
        if not going.all():
            problem, here = problem.select(going.nonzero()[:, 0]), here.select(going)
            pairs = [(moves[going], changes[going]) for moves, changes in pairs]
        there, stuck = _line_search(problem, here, -_two_loops(here.gradient, pairs))
        pairs = [*pairs[1 - LBFGS_MEMORY :], (there.variables - here.variables, there.gradient - here.gradient)]
        here = there
        going = tracker.record(here.variables, here.losses, here.data, stuck)
    return tracker.solution()


@dataclass
class _Point:
    """Where images are: variables (B,D), objectives (B,), data terms (B,), gradients (B,D)."""

    variables: Tensor
    losses: Tensor
    data: Tensor
    gradient: Tensor

    def select(self, rows: Tensor) -> _Point:
        return _Point(self.variables[rows], self.losses[rows], self.data[rows], self.gradient[rows])

    def put(self, rows: Tensor, other: _Point) -> None:
        self.variables[rows], self.losses[rows] = other.variables, other.losses
        self.data[rows], self.gradient[rows] = other.data, other.gradient


def _two_loops(gradient: Tensor, pairs: list[tuple[Tensor, Tensor]]) -> Tensor:
    """Multiply gradients (B,D) by the inverse Hessians that the last moves tell of; first, by a step of length one."""
    if not pairs:
        first: Tensor = gradient / gradient.norm(dim=1, keepdim=True).clamp(min=1e-30)
        return first
    result, shares = gradient, []
    curvatures = [(moves * changes).sum(1, keepdim=True) for moves, changes in pairs]
    # A pair of no positive curvature would turn the direction uphill: it counts for nothing.
    inverses = [torch.where(c > 1e-20, 1 / c.clamp(min=1e-20), 0.0) for c in curvatures]
    for (moves, changes), inverse in zip(reversed(pairs), reversed(inverses), strict=True):
        share = inverse * (moves * result).sum(1, keepdim=True)
        result = result - share * changes
        shares.append(share)
    moves, changes = pairs[-1]
    size = (moves * changes).sum(1, keepdim=True) / changes.square().sum(1, keepdim=True).clamp(min=1e-30)
    result = torch.where(size > 0, size, 1.0) * result
    for (moves, changes), inverse, share in zip(pairs, inverses, reversed(shares), strict=True):
        result = result + (share - inverse * (changes * result).sum(1, keepdim=True)) * moves
    return result


def _line_search(problem: Problem, here: _Point, direction: Tensor) -> tuple[_Point, Tensor]:
    """Halve steps from one until Armijo's condition holds; return where each image went, and which could not move.

    The first trial nearly always holds, so each is made with its gradient.
    """
    slope = (here.gradient * direction).sum(1)
    there, waiting = (
        here.select(torch.ones_like(slope, dtype=torch.bool)),
        torch.arange(len(slope), device=slope.device),
    )
    for halvings in range(LINE_SEARCH):
        length = 0.5**halvings
        candidate = here.variables[waiting] + length * direction[waiting]
        tried = _Point(candidate, *problem.select(waiting).gradient(candidate))
        accepted = tried.losses <= here.losses[waiting] + ARMIJO * length * slope[waiting]
        there.put(waiting[accepted], tried.select(accepted))
        waiting = waiting[~accepted]
        if not len(waiting):
            break
    stuck = torch.zeros_like(slope, dtype=torch.bool)
    stuck[waiting] = True
    return there, stuck
