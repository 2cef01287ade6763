"""The optimization problem that a solver minimizes, its stopping criteria, and its solution."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from gan_lightning.degradations.base import Degradation
from gan_lightning.inversion.losses import ImageLoss
from gan_lightning.inversion.reductions import mean_of_each

Callback = Callable[[str, int, Tensor, Callable[[], Tensor]], None]


@dataclass(frozen=True)
class Problem:
    """Inverse problem of a batch: find variables whose degraded images match the observed ones.

    The objective of each image is `loss(A(render(v)), y) + mean(weight * (v - center)^2)`: a data term and a penalty,
    to which a regularizer may be added.

    Attributes:
        render: Maps variables (B,D) to images (B,C,H,W) in [-1, 1]. Each image depends on its own variables only. If
            it also depends on its position in the batch, `render` has a method `select`, like degradations.
        degradation: Forward operator A on images (B,C,H,W).
        observed: Observed images y.
        loss: Loss of each image, averaged over all pixels.
        known_fraction: (B,) fraction of the pixels of y that were observed. The data term is the loss divided by it,
            which is the mean over observed pixels.
        center: (B,D) variables at which the penalty is zero.
        weight: (B,1) or (B,D) weight of the penalty on each variable.
        regularizer: Function of the variables (B,D) that is added to the objective (B,).
    """

    render: Callable[[Tensor], Tensor]
    degradation: Callable[[Tensor], Tensor]
    observed: Tensor
    loss: ImageLoss
    known_fraction: Tensor
    center: Tensor
    weight: Tensor
    regularizer: Callable[[Tensor], Tensor] | None = None

    def select(self, rows: Tensor) -> Problem:
        """Return the problem of some images of the batch, in ascending order, or of all images repeated."""
        if len(rows) == len(self.observed):
            return self
        degradation = self.degradation
        select = getattr(self.render, "select", None)
        return replace(
            self,
            render=self.render if select is None else select(rows),
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
        data = self._data(variables)
        return self._regularized(data, variables) + self._penalty(variables)[0], data

    def gradient(self, variables: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return the objective (B,), its data term (B,) and the objective's gradient (B,D)."""
        with torch.enable_grad():
            leaf = variables.detach().requires_grad_()
            data = self._data(leaf)
            total = self._regularized(data, leaf)
            (gradient,) = torch.autograd.grad(total, leaf, torch.ones_like(data))
        penalty, weighted = self._penalty(variables)
        return total.detach() + penalty, data.detach(), torch.add(gradient, weighted, alpha=2 / variables.shape[1])

    def _data(self, variables: Tensor) -> Tensor:
        return self.loss(self.predict(variables), self.observed) / self.known_fraction

    def _regularized(self, data: Tensor, variables: Tensor) -> Tensor:
        return data if self.regularizer is None else data + self.regularizer(variables)

    def _penalty(self, variables: Tensor) -> tuple[Tensor, Tensor]:
        """Return the penalty (B,), and the weighted distance from the center (B,D), half D times its gradient."""
        offset = variables - self.center
        weighted = self.weight * offset
        return mean_of_each(weighted * offset), weighted


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
