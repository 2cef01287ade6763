"""Searches for latents: several for each image, restarted for images that did not reach the noise level."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor

from gan_lightning.inversion.frozen_generator import FrozenGenerator
from gan_lightning.inversion.initialization import LatentSampler, Search, StartName, initial_latents
from gan_lightning.inversion.noise_maps import initial_noise
from gan_lightning.inversion.problem import Problem, Solution, Stopping
from gan_lightning.inversion.rate_ramps import RateRamps
from gan_lightning.inversion.robust_chain import search_in_w
from gan_lightning.inversion.solvers.adam import adam
from gan_lightning.inversion.solvers.levenberg_marquardt import levenberg_marquardt
from gan_lightning.inversion.whitening import Solver


@dataclass(frozen=True)
class RestartedSearch:
    """A solver with its initial latents; with `ramps`, Adam with the ramps of the projector of StyleGAN2."""

    solver: Solver
    start: StartName | Tensor
    sampler: LatentSampler
    searches: list[Search]
    frozen: FrozenGenerator
    ramps: bool = False

    def run(self, problem: Problem, stopping: Stopping, restarts: int) -> Solution:
        """Solve, restart images that did not reach the noise level, and keep the best result of each image."""
        solution = self._attempt(problem, stopping, torch.arange(len(problem.observed)), 0)
        for number in range(1, restarts + 1):
            with torch.no_grad():
                missed = problem.losses(solution.variables)[1] > stopping.floor
            rows = missed.nonzero()[:, 0].cpu()
            if not len(rows):
                break
            again = self._attempt(problem, stopping, rows, number)
            better = again.loss < solution.loss[rows]
            solution.num_steps[rows] += again.num_steps
            won = rows[better.cpu()]
            for name in ("variables", "loss", "converged"):
                getattr(solution, name)[won] = getattr(again, name)[better]
            solution.history = _side_by_side(solution, again, won, better)
        return solution

    def _attempt(self, problem: Problem, stopping: Stopping, rows: Tensor, number: int) -> Solution:
        part = problem.select(rows.to(problem.observed.device))
        start = self.start[rows] if isinstance(self.start, Tensor) else self.start
        searches = [self.searches[row] for row in rows.tolist()]
        begin = initial_latents(start, part, self.frozen.latent_dim, self.sampler, searches, number)
        if part.center.shape[1] > self.frozen.latent_dim:
            begin = torch.cat([begin, initial_noise(self.frozen.held_noise(), self.sampler.seed, searches, number)], 1)
        stopping = replace(stopping, floor=stopping.floor[rows.to(stopping.floor.device)])
        if self.solver in (levenberg_marquardt, search_in_w):  # J'J of each image, not their mean; lengths are of w
            return self.solver(part, begin, stopping)
        solver = self.solver
        if self.ramps:
            solver = partial(adam, ramps=RateRamps(self.frozen.latent_dim, self.sampler.seed, searches, number))
        return self.frozen.whitening.solve(solver, part, begin, stopping)


def _side_by_side(solution: Solution, again: Solution, won: Tensor, better: Tensor) -> Tensor:
    """Return the history, replaced by that of the restart for images that the restart improved."""
    steps = max(len(solution.history), len(again.history))
    histories = [torch.cat([h, h[-1:].expand(steps - len(h), -1)]) for h in (solution.history, again.history)]
    history = histories[0].clone()
    history[:, won] = histories[1][:, better]
    return history
