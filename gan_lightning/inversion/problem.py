"""What a solver solves, and the record that it keeps: everything one number an image."""

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
    """Find variables (B,D) whose images, degraded, agree with what was observed.

    The objective of an image is `loss(A(render(v)), y) + mean(weight * (v - center)^2)`.

    Attributes:
        render: Variables (B,D) to images (B,C,H,W) in [-1, 1], each image from its own variables alone.
        degradation: A, on (B,C,H,W).
        observed: y.
        loss: One number an image, mean over all pixels.
        known_fraction: (B,) share of the pixels that A leaves known; the loss is a mean over these.
        center: (B,D), where the penalty is zero.
        weight: (B,1) or (B,D), of the penalty on each variable.
    """

    render: Callable[[Tensor], Tensor]
    degradation: Callable[[Tensor], Tensor]
    observed: Tensor
    loss: ImageLoss
    known_fraction: Tensor
    center: Tensor
    weight: Tensor

    def select(self, rows: Tensor) -> Problem:
        """Return the problem of some images of the batch."""
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
    """When an image is done.

    Attributes:
        num_steps: Steps at most.
        tolerance: An image is done when its best objective improved by less than this share within a window.
        floor: (B,) data term at which an image is done: the square of its noise.
        stage: Name that the callback is told.
        callback: Called after each step, see `invert`.
    """

    num_steps: int
    tolerance: float
    floor: Tensor
    stage: str = "latent"
    callback: Callback | None = None


@dataclass
class Solution:
    """What a solver found: best variables (B,D), their objective (B,), its course (steps + 1, B), and how it ended."""

    variables: Tensor
    loss: Tensor
    history: Tensor
    converged: Tensor
    num_steps: Tensor


class Tracker:
    """Keeps each image's best and decides when it is done; solvers go on with `rows`, the images that are not.

    Args:
        problem: The problem.
        start: (B,D).
        stopping: When an image is done.
        window: Steps over which improvement is measured.
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
        """Note where the images `rows` are now; the first call notes the start.

        Args:
            variables: (N,D) of the images `rows`.
            losses: (N,) their objectives.
            data: (N,) the data terms of these.
            stuck: (N,) true where the solver finds no way down any more.

        Returns:
            (N,) true for images to go on with; `rows` holds these from now on.
        """
        rows, steps = self.rows, len(self.history)
        better = losses < self.best_loss[rows]
        self.best[rows[better]], self.best_loss[rows[better]] = variables[better], losses[better]
        course = self.best_loss.clone()
        course[rows] = losses
        self.history.append(course)
        self.bests.append(self.best_loss.clone())
        done = data <= self.stopping.floor[rows]
        if stuck is not None:
            done = done | stuck
        if steps >= self.window:
            before = self.bests[-1 - self.window][rows]
            done = done | (before - self.best_loss[rows] < self.stopping.tolerance * before)
        self.num_steps[rows] = steps
        self.converged[rows] = done & self.best_loss[rows].isfinite()
        self.rows = rows[~done] if steps < self.stopping.num_steps else rows[:0]
        if self.stopping.callback is not None:
            self.stopping.callback(self.stopping.stage, steps, self.best_loss, self._render)
        return ~done

    def solution(self) -> Solution:
        """Return what was found."""
        return Solution(self.best, self.best_loss, torch.stack(self.history), self.converged, self.num_steps)

    def _render(self) -> Tensor:
        with torch.no_grad():
            return self.problem.render(self.best)
