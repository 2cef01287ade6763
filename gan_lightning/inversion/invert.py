"""Latent inversion: given G, A and y, find the image that G can make, or nearly make, whose degradation explains y."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import torch
from torch import Tensor, nn

from gan_lightning.degradations.base import Degradation, Identity, has_adjoint
from gan_lightning.errors import InputError
from gan_lightning.inversion.checks import check_observed, check_pixels, check_start
from gan_lightning.inversion.data_consistency import data_consistency
from gan_lightning.inversion.frozen_generator import NO_FIRST_BLOCK, FrozenGenerator, freeze_generator
from gan_lightning.inversion.initialization import LatentSampler, StartName, initial_latents
from gan_lightning.inversion.losses import make_loss
from gan_lightning.inversion.noise_level import visible_noise
from gan_lightning.inversion.problem import Callback, Problem, Solution, Stopping
from gan_lightning.inversion.refinement import feature_penalty, refine_features, refine_weights
from gan_lightning.inversion.settings import InversionSettings
from gan_lightning.inversion.solvers.adam import adam
from gan_lightning.inversion.solvers.lbfgs import lbfgs
from gan_lightning.inversion.solvers.levenberg_marquardt import levenberg_marquardt
from gan_lightning.inversion.whitening import Solver

SOLVERS: dict[str, tuple[Solver, int]] = {  # each with its default number of steps
    "levenberg_marquardt": (levenberg_marquardt, 12),
    "adam": (adam, 300),
    "lbfgs": (lbfgs, 100),
}
EXACT = 1e-8  # mean squared error, 80 dB: far below what 8 bits can represent


@dataclass
class Inversion:
    """Restored images, and how they were found.

    Attributes:
        image: (B,C,H,W) in [-1, 1].
        latent: (B, latent_dim), from whose images the refinement started.
        noise_level: (B,) standard deviation of the noise, given or estimated, on the [0, 1] scale.
        loss: (B,) objective of the output of the generator, before it was made consistent with what is known, on the
            [0, 1] scale of pixels.
        history: (steps + 1, B) objective at each step, first of the search for latents, then of the refinement. Images
            that are done stay at their best.
        converged: (B,) false where the last stage ran out of steps.
        num_steps: (B,) number of steps over all starts and stages.
    """

    image: Tensor
    latent: Tensor
    noise_level: Tensor
    loss: Tensor
    history: Tensor
    converged: Tensor
    num_steps: Tensor


def invert(
    generator: nn.Module,
    degradation: Callable[[Tensor], Tensor],
    observed: Tensor,
    settings: InversionSettings | None = None,
    *,
    start: StartName | Tensor | None = None,
    discriminator: nn.Module | None = None,
    rng: torch.Generator | None = None,
    indices: Sequence[int] | None = None,
    callback: Callback | None = None,
    **changes: Any,
) -> Inversion:
    """Restore a batch of images. The result of an image does not depend on the other images of the batch.

    Args:
        generator: Network from (B, latent_dim) to (B,C,H,W) in [-1, 1] with an attribute `latent_dim`. It is used in
            evaluation mode and left unchanged.
        degradation: A, a module of gan_lightning.degradations or any differentiable function on (B,C,H,W) that treats
            the images alike and independently.
        observed: y = A(x) + noise, (B,...) of the shape of A(G(z)), in the range to which A maps [-1, 1].
        settings: Settings of the search.
        start: The setting of this name, or latents (B, latent_dim) to start from, such as the guess of an encoder.
        discriminator: Discriminator for the perceptual loss.
        rng: Generator whose seed (not its state), with the index of each image, determines all random draws.
        indices: Index of each image in its data set. Default: 0 to B - 1.
        callback: Function called after each step with the stage ("latent", "features", "weights"), the step, the best
            objectives (B,) and a function that renders the current images.
        **changes: Fields of `InversionSettings`, which replace those of `settings`: `invert(..., num_steps=50)`.

    Raises:
        InputError: If an input is invalid or does not fit the others: shapes, channels, settings, pixels that are not
            finite.
        TypeError: If a keyword is not a field of `InversionSettings`.
    """
    if isinstance(start, str):
        changes["start"] = start
    if unknown := changes.keys() - {field.name for field in fields(InversionSettings)}:
        raise TypeError(f"invert() got an unexpected keyword argument {sorted(unknown)[0]!r}")
    settings = replace(settings or InversionSettings(), **changes)
    # No gradient can flow through tensors made in Lightning's inference mode, even outside of it: hence the copy.
    check_pixels(observed)
    device = next(generator.parameters()).device
    with torch.inference_mode(False), torch.enable_grad(), torch.autocast(device.type, enabled=False):
        frozen = freeze_generator(generator)
        observed = observed.detach().to(device, torch.float32, copy=True)
        names = list(range(len(observed)) if indices is None else indices)
        check_observed(frozen, degradation, observed, names)
        if settings.refine == "features" and frozen.first is None:
            raise InputError(NO_FIRST_BLOCK)
        if isinstance(start, Tensor):
            check_start(start, len(observed), frozen.latent_dim)
        problem, noise = _build_problem(frozen, degradation, observed, settings, discriminator)
        # Only a squared error is comparable to the variance of the noise.
        floor = noise.square().clamp(min=EXACT) if settings.loss == "mse" else torch.zeros_like(noise)
        solver, default_steps = SOLVERS[settings.chosen_solver]
        num_steps = default_steps if settings.num_steps is None else settings.num_steps
        stopping = Stopping(num_steps, settings.tolerance, floor, callback=callback)
        sampler = LatentSampler(0 if rng is None else rng.initial_seed(), settings.start_scale)
        initial = start if isinstance(start, Tensor) else settings.start
        search = RestartedSearch(solver, initial, sampler, names, frozen)
        found = search.run(problem, stopping, settings.restarts)
        with torch.no_grad():
            image = frozen(found.variables)
        result = Inversion(image, found.variables, noise, found.loss, found.history, found.converged, found.num_steps)
        result = _refine(result, problem, frozen, settings, stopping)
        if settings.composite and has_adjoint(degradation) and not isinstance(degradation, Identity):
            result.image = data_consistency(result.image, degradation, problem.observed, noise)
        return result


@dataclass(frozen=True)
class RestartedSearch:
    """A solver, and where it starts."""

    solver: Solver
    start: StartName | Tensor
    sampler: LatentSampler
    indices: list[int]
    frozen: FrozenGenerator

    def run(self, problem: Problem, stopping: Stopping, restarts: int) -> Solution:
        """Solve, search again from other starts where the noise was not reached, and keep the best of each image."""
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
        names = [self.indices[row] for row in rows.tolist()]
        begin = initial_latents(start, part, self.frozen.latent_dim, self.sampler, names, number)
        stopping = replace(stopping, floor=stopping.floor[rows.to(stopping.floor.device)])
        if self.solver is levenberg_marquardt:  # it uses the J'J of each image, not their mean
            return levenberg_marquardt(part, begin, stopping)
        return self.frozen.whitening.solve(self.solver, part, begin, stopping)


def _side_by_side(solution: Solution, again: Solution, won: Tensor, better: Tensor) -> Tensor:
    """Return the history, with that of the restart for the images that it improved."""
    steps = max(len(solution.history), len(again.history))
    histories = [torch.cat([h, h[-1:].expand(steps - len(h), -1)]) for h in (solution.history, again.history)]
    history = histories[0].clone()
    history[:, won] = histories[1][:, better]
    return history


def _build_problem(
    frozen: FrozenGenerator,
    degradation: Callable[[Tensor], Tensor],
    observed: Tensor,
    settings: InversionSettings,
    discriminator: nn.Module | None,
) -> tuple[Problem, Tensor]:
    """Return the problem to solve, and the noise level of each image (B,)."""
    known = degradation.known(observed) if isinstance(degradation, Degradation) else None
    fraction = observed.new_ones(len(observed))
    if known is not None:
        known = known.to(observed)
        observed = observed * known  # pixels in a hole are no observation, whatever they contain
        fraction = known.flatten(1).mean(1).expand(len(observed))
    center = observed.new_zeros(len(observed), frozen.latent_dim)
    if settings.noise_level is not None:
        noise = torch.full_like(center[:, 0], settings.noise_level)
    elif observed.shape[-2:] == frozen(center[:1]).shape[-2:]:
        noise = visible_noise(observed, known)
    else:
        noise = torch.zeros_like(fraction)  # in a small image, details look like noise
    loss = make_loss(settings.loss, discriminator, observed.device)
    weight = torch.full_like(center[:, :1], settings.latent_weight)
    return Problem(frozen, degradation, observed, loss, fraction, center, weight), noise


def _refine(
    result: Inversion, problem: Problem, frozen: FrozenGenerator, settings: InversionSettings, stopping: Stopping
) -> Inversion:
    """Return the result with its refinement, if there is one."""
    if settings.refine == "none" or not settings.refine_steps:
        return result
    stopping = replace(stopping, num_steps=settings.refine_steps, stage=settings.refine)
    if settings.refine == "weights":
        return _continued(result, *refine_weights(problem, frozen, result.latent, stopping))
    noise = result.noise_level
    if settings.refine_weight is None:
        weights = feature_penalty(noise, lossy=not isinstance(problem.degradation, Identity))
    else:
        weights = torch.full_like(noise, settings.refine_weight)
    return _continued(result, *refine_features(problem, frozen, result.latent, weights, stopping))


def _continued(result: Inversion, image: Tensor, solution: Solution) -> Inversion:
    """Return the inversion with the course of its refinement appended."""
    return replace(
        result,
        image=image,
        loss=solution.loss,
        history=torch.cat([result.history, solution.history[1:]]),
        converged=solution.converged,
        num_steps=result.num_steps + solution.num_steps,
    )
