"""The optimization problem that a solver minimizes, its stopping criteria, and its solution."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from gan_lightning.degradations.base import Degradation
from gan_lightning.inversion.losses import ImageLoss

Callback = Callable[[str, int, Tensor, Callable[[], Tensor]], None]


@dataclass(frozen=True)
class Problem:
    """Inverse problem of a batch: find variables whose degraded images match the observed ones.

    The objective of each image is `loss(A(render(v)), y) + mean(weight * (v - center)^2)`: a data term and a penalty.

    Attributes:
        render: Maps variables (B,D) to images (B,C,H,W) in [-1, 1]. Each image depends on its own variables only.
        degradation: Forward operator A on images (B,C,H,W).
        observed: Observed images y.
        loss: Loss of each image, averaged over all pixels.
        known_fraction: (B,) fraction of the pixels of y that were observed. The data term is the loss divided by it,
            and so the mean over observed pixels.
        center: (B,D) variables at which the penalty is zero.
        weight: (B,1) or (B,D) weight of the penalty on each variable.
    """

    render: Callable[[Tensor], Tensor]
    degradation: Callable[[Tensor], Tensor]
    observed: Tensor
    loss: ImageLoss
    known_fraction: Tensor
    center: Tensor
    weight: Tensor

    def select(self, rows: Tensor) -> Problem:
        """Return the problem of some images of the batch, sorted, or of all of them several times each."""
        if len(rows) == len(self.observed):
            return self
        degradation = self.degradation
        return replace(
            self,
            degradation=degradation.select(rows) if isinstance(degradation, Degradation) else degradation,
            observed=self.observed[rows],
            known_fraction=self.known_fraction[rows],
            center=self.center[rows],
            weight=self.weight[rows],
        )

    def predict(self, variables: Tensor) -> Tensor:
        """Return A(render(v))."""
        return self.degradation(self.render(variables))

    def losses(self, variables: Tensor) -> tuple[Tensor, Tensor]:
        """Return the objective and its data term, each (B,)."""
        data = self.loss(self.predict(variables), self.observed) / self.known_fraction
        return data + (self.weight * (variables - self.center).square()).mean(1), data

    def gradient(self, variables: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return the objective (B,), its data term (B,) and the objective's gradient (B,D)."""
        with torch.enable_grad():
            leaf = variables.detach().requires_grad_()
            objective, data = self.losses(leaf)
            (gradient,) = torch.autograd.grad(objective.sum(), leaf)
        return objective.detach(), data.detach(), gradient


@dataclass(frozen=True)
class Stopping:
    """Stopping criteria, applied to each image separately.

    Attributes:
        num_steps: Maximum number of steps.
        tolerance: Relative improvement of the best objective within the solver's window below which an image has
            converged.
        floor: (B,) data term below which an image has converged: the variance of its noise.
        stage: Name of the stage, passed to the callback.
        callback: Function called after each step, see `invert`.
    """

    num_steps: int
    tolerance: float
    floor: Tensor
    stage: str = "latent"
    callback: Callback | None = None


@dataclass
class Solution:
    """Result of a solver.

    Attributes:
        variables: (B,D) variables with the lowest objective.
        loss: (B,) objective at these variables.
        history: (steps + 1, B) objective before the first step and after each step.
        converged: (B,) whether the image met a stopping criterion before the maximum number of steps.
        num_steps: (B,) number of steps taken.
    """

    variables: Tensor
    loss: Tensor
    history: Tensor
    converged: Tensor
    num_steps: Tensor


class ConvergenceTracker:
    """Tracker of the best variables of each image, which decides when an image has converged.

    Solvers continue with the images `rows` of the batch, those that have not converged yet.

    Args:
        problem: Problem that is solved.
        start: (B,D) initial variables.
        stopping: Stopping criteria.
        window: Number of steps over which the improvement is measured.
    """

    def __init__(self, problem: Problem, start: Tensor, stopping: Stopping, window: int) -> None:
        self.problem, self.stopping, self.window = problem, stopping, window
        self.best, self.best_loss = start.clone(), torch.full_like(start[:, 0], torch.inf)
        self.rows = torch.arange(len(start), device=start.device)
        self.converged = torch.zeros_like(self.rows, dtype=torch.bool)
        self.num_steps = torch.zeros_like(self.rows)
        self.history: list[Tensor] = []
        self.bests: list[Tensor] = []

    def record(self, variables: Tensor, losses: Tensor, data: Tensor, stuck: Tensor | None = None) -> Tensor:
        """Record the current variables of the images `rows`; the first call records the initial ones.

        Args:
            variables: (N,D) variables of the images `rows`.
            losses: (N,) objectives of these images.
            data: (N,) data terms of these images.
            stuck: (N,) true where the solver found no step that lowers the objective.

        Returns:
            (N,) true for images that have not converged. `rows` is reduced to these.
        """
        rows, steps = self.rows, len(self.history)
        better = losses < self.best_loss[rows]
        self.best[rows[better]], self.best_loss[rows[better]] = variables[better], losses[better]
        current = self.best_loss.clone()
        current[rows] = losses
        self.history.append(current)
        self.bests.append(self.best_loss.clone())
        done = data <= self.stopping.floor[rows]
        if stuck is not None:
            done = done | stuck
        if steps >= self.window:
            previous = self.bests[-1 - self.window][rows]
            done = done | (previous - self.best_loss[rows] < self.stopping.tolerance * previous)
        self.num_steps[rows] = steps
        self.converged[rows] = done & self.best_loss[rows].isfinite()
        self.rows = rows[~done] if steps < self.stopping.num_steps else rows[:0]
        if self.stopping.callback is not None:
            self.stopping.callback(self.stopping.stage, steps, self.best_loss, self._render)
        return ~done

    def solution(self) -> Solution:
        """Return the best variables and the record."""
        return Solution(self.best, self.best_loss, torch.stack(self.history), self.converged, self.num_steps)

    def _render(self) -> Tensor:
        with torch.no_grad():
            return self.problem.render(self.best)
