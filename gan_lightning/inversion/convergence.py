"""Convergence of each image of a batch, tracked without waiting for the device."""

from __future__ import annotations

import torch
from torch import Tensor

from gan_lightning.inversion.problem import Problem, Solution, Stopping

KEPT = 0.75  # on a GPU, finished images are dropped once less than this fraction is still active
ROOM = 256  # initial length of the histories, in steps


class ConvergenceTracker:
    """Tracker of the best variables of each image, which decides when an image has converged.

    Solvers work on the images `rows` of the batch. Images that have converged are no longer `active`: the solver still
    computes steps for them, which are ignored. Once enough images have converged, `compact` drops them.

    Steps are counted per image, so that an image that needs a shorter step does not delay the others.

    Args:
        problem: Problem that is solved.
        start: (B,D) initial variables.
        stopping: Stopping criteria.
        window: Number of steps over which the improvement is measured.
    """

    def __init__(self, problem: Problem, start: Tensor, stopping: Stopping, window: int) -> None:
        self.problem, self.stopping, self.window = problem, stopping, window
        self.rows = self._columns = torch.arange(len(start), device=start.device)
        self.active = torch.ones_like(self.rows, dtype=torch.bool)
        self._floor = stopping.floor
        self._steps = torch.full_like(self.rows, -1)
        self._best, self._losses = start, torch.full_like(start[:, 0], torch.inf)
        self._best_losses = self._losses
        self._stopped = ~self.active  # converged, at best
        self._history = self._losses.new_zeros(0, len(start))
        self._recent = self._losses.expand(window, -1).clone()  # best objectives of the last steps, at step % window
        self._calls = self._told = 0
        self._result = Solution(
            variables=start.clone(),
            loss=self._losses.clone(),
            history=self._history,
            converged=self._stopped.clone(),
            num_steps=torch.zeros_like(self.rows),
        )
        self._reserve()

    def record(
        self,
        variables: Tensor,
        losses: Tensor,
        data: Tensor,
        moved: Tensor | None = None,
        stuck: Tensor | None = None,
    ) -> None:
        """Record a step of the images `rows`; the first call records the initial variables.

        Args:
            variables: (N,D) current variables.
            losses: (N,) their objectives.
            data: (N,) their data terms.
            moved: (N,) true for the images that ended a step, by default all that are active.
            stuck: (N,) true where the solver found no step that lowers the objective, which ends the search.
        """
        moved = self.active if moved is None else moved
        self._steps = self._steps + moved
        self._losses = torch.where(moved, losses, self._losses)
        better = self._losses < self._best_losses
        self._best = torch.where(better[:, None], variables, self._best)
        self._best_losses = torch.where(better, self._losses, self._best_losses)
        self._history.index_put_((self._steps, self._columns), self._losses)
        place = self._steps % self.window, self._columns
        previous = self._recent[place]
        self._recent.index_put_(place, self._best_losses)
        done = (data <= self._floor) | (previous - self._best_losses < self.stopping.tolerance * previous)
        done = (done if stuck is None else done | stuck) & moved
        self._stopped = self._stopped | done
        self.active = (self.active ^ done) & (self._steps < self.stopping.num_steps)  # done images were active

    def goes_on(self) -> bool:
        """Return whether an image is active, after calling the callback: the only copy to the host in a step."""
        self._reserve()
        callback = self.stopping.callback
        if callback is None:
            self._count = int(self.active.sum())
        else:
            self._count, leader = torch.stack([self.active.sum(), self._steps.max()]).tolist()
            if leader >= self._told:  # the step of the image that is ahead
                self._told = leader + 1
                losses = self._result.loss.index_put((self.rows,), self._best_losses)
                callback(self.stopping.stage, leader, losses, self._render)
        return self._count > 0

    def compact(self) -> Tensor | None:
        """Drop finished images if this makes the search faster.

        Returns:
            Positions (N,) in `rows` of the remaining images, in ascending order, or None if no image was dropped.
        """
        if not self.pays():
            return None
        self._retire()
        kept = self.active.nonzero()[:, 0]
        for name in ("rows", "active", "_floor", "_steps", "_best", "_losses", "_best_losses", "_stopped"):
            setattr(self, name, getattr(self, name)[kept])
        self._history, self._recent = self._history[:, kept], self._recent[:, kept]
        self._columns = self._columns[: len(kept)]
        return kept

    def pays(self) -> bool:
        """Return whether dropping the finished images makes the search faster.

        On a CPU, the time of a step is proportional to the number of images. On a GPU, the size of the batch should
        change rarely.
        """
        return self._count < len(self.rows) * (1 if self.rows.device.type == "cpu" else KEPT)

    def solution(self) -> Solution:
        """Return the best variables and the record."""
        self._retire()
        steps = self._result.num_steps
        history = self._result.history[: int(steps.max()) + 1]
        # Finished images keep their best value.
        after = torch.arange(len(history), device=steps.device)[:, None] > steps
        self._result.history = torch.where(after, self._result.loss, history)
        self._result.converged &= self._result.loss.isfinite()
        return self._result

    def _retire(self) -> None:
        """Copy the state of the images `rows` into the result."""
        result, rows = self._result, self.rows
        result.variables[rows], result.loss[rows] = self._best, self._best_losses
        result.converged[rows], result.num_steps[rows] = self._stopped, self._steps
        result.history[:, rows] = self._history

    def _reserve(self) -> None:
        """Extend the histories if they are full, by many steps at once so that this is rarely needed."""
        self._calls += 1  # an image takes at most one step between two calls
        capacity, most = len(self._history), self.stopping.num_steps + 1
        if min(self._calls, most) <= capacity:
            return
        more = min(max(capacity, ROOM), most - capacity)
        self._history = torch.cat([self._history, self._history.new_zeros(more, len(self.rows))])
        whole = self._result.history
        self._result.history = torch.cat([whole, whole.new_zeros(more, whole.shape[1])])

    def _render(self) -> Tensor:
        self._retire()
        with torch.no_grad():
            return self.problem.render(self._result.variables)
