"""Latent inversion: given G, A and y, find an image in or near the range of G that explains y when degraded by A."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import torch
from torch import Tensor, nn

from gan_lightning.degradations.base import Degradation, Identity, unwrap
from gan_lightning.errors import InputError
from gan_lightning.inversion.checks import check_observed, check_pixels, check_prior, check_start
from gan_lightning.inversion.combination import (
    UNEXPLAINED,
    add_details,
    excess_residual,
    make_consistent,
    mean_and_spread,
    solution_weights,
    without_generator,
)
from gan_lightning.inversion.frozen_generator import NO_FIRST_BLOCK, FrozenGenerator, freeze_generator
from gan_lightning.inversion.initialization import LatentSampler, StartName
from gan_lightning.inversion.loss_size import after_reduction, reduction
from gan_lightning.inversion.losses import make_loss
from gan_lightning.inversion.noise_level import noise_after_blur, visible_noise
from gan_lightning.inversion.noise_maps import normalize_maps, with_noise_maps
from gan_lightning.inversion.precision import float32_gradients
from gan_lightning.inversion.problem import Callback, Problem, Solution, Stopping
from gan_lightning.inversion.refinement import feature_penalty, refine_features, refine_weights
from gan_lightning.inversion.robust_chain import extend, search_in_w
from gan_lightning.inversion.search import RestartedSearch
from gan_lightning.inversion.settings import InversionSettings
from gan_lightning.inversion.solvers.adam import adam
from gan_lightning.inversion.solvers.lbfgs import lbfgs
from gan_lightning.inversion.solvers.levenberg_marquardt import levenberg_marquardt
from gan_lightning.inversion.whitening import Solver

SOLVERS: dict[str, Solver] = {
    "levenberg_marquardt": levenberg_marquardt,
    "adam": adam,
    "lbfgs": lbfgs,
    "robust": search_in_w,
}
LATENT_WEIGHT = 3e-3  # if every value is observed; chosen on photographs and on faces of the generator's domain
EXACT = 1e-8  # mean squared error of 80 dB, far below the resolution of 8 bits


@dataclass
class Inversion:
    """Restored images, and how they were found.

    Attributes:
        image: (B,C,H,W) in [-1, 1].
        latent: (B, latent_dim), from which the refinement of the best search started.
        noise_level: (B,) standard deviation of the noise, given or estimated, on the [0, 1] scale.
        loss: (B,) lowest objective of the searches, before images were made consistent with the observed ones, on the
            [0, 1] scale of pixels.
        history: (steps + 1, B) objective of the best search at each step, first of the search for latents, then of the
            refinement. Finished images keep their best value.
        converged: (B,) false if the last stage of the best search ran out of steps.
        num_steps: (B,) number of steps over all searches, starts and stages.
        explained: (B,) false if no search explains the photograph. Unless `composite` is off, the image is then the
            `linear_estimate`, while spread and solutions are those of the searches.
        spread: (B,1,H,W) standard deviation of the solutions of the searches, on the [0, 1] scale: where it is high,
            the image is a guess.
        solutions: (B,K,C,H,W) results of the K searches, each consistent with the observed values.
        weights: (B,K) weights of the solutions in their mean, which add up to one; the likeliest one has the largest.
        latent_steps: Number of steps in `history` before the refinement.
        noise_maps: (B,N) optimized noise maps, flat, or None if they were not optimized.
    """

    image: Tensor
    latent: Tensor
    noise_level: Tensor
    loss: Tensor
    history: Tensor
    converged: Tensor
    num_steps: Tensor
    explained: Tensor
    spread: Tensor
    solutions: Tensor
    weights: Tensor
    latent_steps: int = 0
    noise_maps: Tensor | None = None


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
    """Restore a batch of images. The result for an image does not depend on the other images of the batch.

    Args:
        generator: A `Prior`: network from (B, latent_dim) to (B,C,H,W) in [-1, 1] with an attribute `latent_dim`. It is
            used in evaluation mode and not changed.
        degradation: A, a module of gan_lightning.degradations or any differentiable function on (B,C,H,W) that treats
            the images alike and independently. With `loss_size`, it is applied to images that are reduced to that size.
        observed: y = A(x) + noise, (B,...) with the shape of A(G(z)), in the range to which A maps [-1, 1].
        settings: Settings of the search.
        start: Replaces the setting of this name, or initial latents (B, latent_dim), such as the guess of an encoder;
            further searches for an image then start from random latents.
        discriminator: Discriminator for the perceptual loss.
        rng: Generator whose seed (not its state), with the index of each image, determines all random draws.
        indices: Index of each image in its data set. Default: 0 to B - 1.
        callback: Function called after each step with the stage ("latent", "features", "weights"), the step, the best
            objectives (B,) and a function that renders the current images, those of the best search.
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
    check_pixels(observed)
    check_prior(generator, noise_maps=settings.noise_maps, solver=settings.solver)
    degradation = unwrap(degradation)
    # Copy the images: no gradient can flow through tensors created in Lightning's inference mode, even outside of it.
    device = next(generator.parameters()).device
    with float32_gradients(device):
        frozen = freeze_generator(generator)
        observed = observed.detach().to(device, torch.float32, copy=True)
        names = list(range(len(observed)) if indices is None else indices)
        with torch.no_grad():
            reduce = reduction(frozen(observed.new_zeros(1, frozen.latent_dim)).shape[-1], settings.loss_size)
        check_observed(frozen, after_reduction(reduce, degradation), observed, names)
        if settings.refine == "features" and frozen.first is None:
            raise InputError(NO_FIRST_BLOCK)
        if isinstance(start, Tensor):
            check_start(start, len(observed), frozen.latent_dim)
        count, num_steps, refine_steps = settings.counts(every_pixel_observed=isinstance(degradation, Identity))
        problem, noise = build_problem(frozen, reduce, degradation, observed, settings, discriminator)
        if settings.noise_maps == "optimized":
            problem = with_noise_maps(problem, frozen.noise_sizes)
        rows = torch.arange(len(observed), device=device).repeat_interleave(count)
        problems, noises = problem.select(rows), noise[rows]
        # Only a squared error is comparable to the variance of the noise.
        floor = noises.square().clamp(min=EXACT) if settings.loss == "mse" else torch.zeros_like(noises)
        tell = callback and _of_the_best(callback, count, len(rows))
        stopping = Stopping(num_steps, settings.tolerance, floor, callback=tell)
        sampler = LatentSampler(0 if rng is None else rng.initial_seed(), settings.start_scale, frozen.draw)
        initial = start[rows.to(start.device)] if isinstance(start, Tensor) else settings.chosen_start
        searches = [(name, number) for name in names for number in range(count)]
        ramps = settings.schedule == "projector"
        search = RestartedSearch(SOLVERS[settings.chosen_solver], initial, sampler, searches, frozen, ramps)
        found = search.run(problems, stopping, settings.restarts)
        latents, latent_steps = found.variables, len(found.history) - 1
        stopping = replace(stopping, num_steps=refine_steps)
        images, found = _refine(found, problems, noises, frozen, settings, stopping)
        inversion = _combine(images, found, latents, problem, noise, settings)
        return replace(_noise_apart(inversion, frozen), latent_steps=latent_steps)


def _noise_apart(inversion: Inversion, frozen: FrozenGenerator) -> Inversion:
    """Return the inversion with noise maps, if there are any, separated from the latents."""
    noise = inversion.latent[:, frozen.latent_dim :]
    if not noise.shape[1]:
        return inversion
    latent = inversion.latent[:, : frozen.latent_dim].contiguous()
    return replace(inversion, latent=latent, noise_maps=normalize_maps(noise, frozen.noise_sizes))


def _of_the_best(callback: Callback, count: int, total: int) -> Callback:
    """Return a callback that receives the best of `count` searches for each image."""

    def tell(stage: str, step: int, losses: Tensor, render: Callable[[], Tensor]) -> None:
        if count == 1:
            return callback(stage, step, losses, render)
        if len(losses) != total:  # a restart or a refinement of weights with only some of the searches
            return None
        best = losses.view(-1, count).argmin(1) + count * torch.arange(total // count, device=losses.device)
        callback(stage, step, losses[best], lambda: render()[best])

    return tell


def build_problem(
    frozen: FrozenGenerator,
    reduce: Degradation,
    degradation: Callable[[Tensor], Tensor],
    observed: Tensor,
    settings: InversionSettings,
    discriminator: nn.Module | None,
) -> tuple[Problem, Tensor]:
    """Return the problem to solve, and the noise level of each image (B,); images are reduced, and then degraded."""
    known = degradation.known(observed) if isinstance(degradation, Degradation) else None
    fraction = observed.new_ones(len(observed))
    if known is not None:
        known = known.to(observed)
        observed = observed * known  # the values of pixels in a hole are not observations
        fraction = known.flatten(1).mean(1).expand(len(observed))
    center = observed.new_zeros(len(observed), frozen.latent_dim)
    image = reduce(frozen(center[:1]))
    if settings.noise_level is not None:
        noise = torch.full_like(center[:, 0], settings.noise_level)
    elif observed.shape[-2:] == image.shape[-2:]:
        left = None
        if isinstance(degradation, Degradation) and observed.shape[1] == image.shape[1]:
            left = noise_after_blur(observed, degradation)
        noise = visible_noise(observed, known) if left is None else left
    else:
        noise = torch.zeros_like(fraction)  # in a small image, details look like noise
    loss = make_loss(settings.loss, discriminator, observed.device)
    if settings.latent_weight is not None:
        weight = torch.full_like(noise, settings.latent_weight)
    elif settings.solver == "robust":
        weight = torch.zeros_like(noise)
    else:
        weight = LATENT_WEIGHT * image[0].numel() / (fraction * observed[0].numel())
        if isinstance(degradation, Identity):
            weight = weight * (noise > 0)
    whole = after_reduction(reduce, degradation)
    return Problem(frozen, whole, observed, loss, fraction, center, weight[:, None]), noise


def _refine(
    found: Solution,
    problem: Problem,
    noise: Tensor,
    frozen: FrozenGenerator,
    settings: InversionSettings,
    stopping: Stopping,
) -> tuple[Tensor, Solution]:
    """Return the images, refined if requested, and the solution with the history of both stages."""
    if settings.refine == "none" or not stopping.num_steps:
        with torch.no_grad():
            return frozen(found.variables), found
    stopping = replace(stopping, stage=settings.refine)
    if settings.solver == "robust":
        images, phases = extend(problem, frozen, found.variables, stopping)
        history = torch.cat([found.history, *(phase.history[1:] for phase in phases)])
        steps = found.num_steps + sum(phase.num_steps for phase in phases)
        return images, replace(phases[-1], history=history, num_steps=steps)
    if settings.refine == "weights":
        images, solution = refine_weights(problem, frozen, found.variables, stopping)
    else:
        if settings.refine_weight is None:
            weights = feature_penalty(noise, lossy=not isinstance(problem.degradation, Identity))
        else:
            weights = torch.full_like(noise, settings.refine_weight)
        images, solution = refine_features(problem, frozen, found.variables, weights, stopping)
    history = torch.cat([found.history, solution.history[1:]])
    return images, replace(solution, history=history, num_steps=found.num_steps + solution.num_steps)


def _combine(
    images: Tensor, found: Solution, latents: Tensor, problem: Problem, noise: Tensor, settings: InversionSettings
) -> Inversion:
    """Return the mean of the solutions of each image, and the history of its best search."""
    batch = len(noise)
    count = len(images) // batch
    losses = found.loss.view(batch, count)
    first = torch.arange(batch, device=losses.device) * count
    best = losses.argmin(1) + first
    rows = first.repeat_interleave(count) // count
    gaussian = settings.loss == "mse"  # other losses are for noise that is not Gaussian
    residual = excess_residual(images[best], problem, noise)
    explained = residual < UNEXPLAINED if gaussian else torch.ones_like(noise, dtype=torch.bool)
    composite = settings.composite and (gaussian or not isinstance(problem.degradation, Identity))
    shape, weights = (batch, count, *images.shape[1:]), solution_weights(losses)
    solutions = make_consistent(images, problem.select(rows), noise[rows], count) if composite else images
    image, spread = mean_and_spread(solutions.view(shape), weights)
    if composite and gaussian:
        image = without_generator(image, problem, noise, explained)
        image = add_details(image, problem, noise, residual * explained)
    return Inversion(
        image=image,
        latent=latents[best],
        noise_level=noise,
        loss=found.loss[best],
        history=found.history[:, best],
        converged=found.converged[best],
        num_steps=found.num_steps.view(batch, count).sum(1),
        explained=explained,
        spread=spread,
        solutions=solutions.view(shape),
        weights=weights,
    )
