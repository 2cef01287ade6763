"""Latent inversion: given G, A and y, find the image that G can make, or nearly make, whose degradation explains y."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor, nn

from gan_lightning.degradations.base import Degradation, Identity, has_adjoint
from gan_lightning.errors import InputError
from gan_lightning.inversion.checks import check_choice, check_numbers, check_observed, check_start
from gan_lightning.inversion.data_consistency import data_consistency
from gan_lightning.inversion.frozen_generator import NO_FIRST_BLOCK, FrozenGenerator, freeze_generator
from gan_lightning.inversion.initialization import LatentSampler, StartName, initial_latents
from gan_lightning.inversion.losses import LossName, make_loss, mse
from gan_lightning.inversion.noise_level import visible_noise
from gan_lightning.inversion.problem import Callback, Problem, Solution, Stopping
from gan_lightning.inversion.refinement import feature_penalty, refine_features, refine_weights
from gan_lightning.inversion.solvers.adam import adam
from gan_lightning.inversion.solvers.lbfgs import lbfgs
from gan_lightning.inversion.solvers.levenberg_marquardt import levenberg_marquardt
from gan_lightning.inversion.whitening import Solver

SolverName = Literal["auto", "levenberg_marquardt", "adam", "lbfgs"]
RefineName = Literal["features", "weights", "none"]

NUM_STEPS = {"levenberg_marquardt": 12, "adam": 300, "lbfgs": 100}
EXACT = 1e-8  # of the mean squared error, 80 dB: far below what 8 bits can say


@dataclass
class Inversion:
    """Restored images, and how they were found.

    Attributes:
        image: (B,C,H,W) in [-1, 1].
        latent: (B, latent_dim): the refinement goes on from its image.
        noise_level: (B,) standard deviation of the noise, as given or estimated, on the [0, 1] scale.
        loss: (B,) objective of what the generator made, before it was made to agree with what is known, on the [0, 1]
            scale of pixels.
        history: (steps + 1, B) objective at each step, the refinement's after the latents'; images that are done stay
            at their best.
        converged: (B,) false where the steps of the last stage ran out first.
        num_steps: (B,) steps made, of all starts and stages.
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
    *,
    solver: SolverName = "auto",
    num_steps: int | None = None,
    loss: LossName = "mse",
    discriminator: nn.Module | None = None,
    latent_weight: float = 0.0,
    start: StartName | Tensor = "best_of_k",
    start_scale: float = 1.0,
    restarts: int = 0,
    tolerance: float = 1e-3,
    noise_level: float | None = None,
    refine: RefineName = "features",
    refine_steps: int = 100,
    refine_weight: float | None = None,
    composite: bool = True,
    rng: torch.Generator | None = None,
    indices: Sequence[int] | None = None,
    callback: Callback | None = None,
) -> Inversion:
    """Restore a batch of images; each result is the same as if its image were alone.

    Args:
        generator: Maps (B, latent_dim) to (B,C,H,W) in [-1, 1], and has `latent_dim`. It is used in evaluation mode
            and left as it is.
        degradation: A: a gan_lightning.degradations module, or any differentiable function on (B,C,H,W) that treats
            images alike and apart.
        observed: y = A(x) + noise, (B,...) of the shape of A(G(z)), in the range that A makes of [-1, 1].
        solver: "lbfgs", "levenberg_marquardt" (squared loss only), "adam", or "auto": Adam for l1, which has kinks,
            else L-BFGS, in measurements on a CPU the fastest of the three.
        num_steps: Steps at most; 12 Jacobians, 300 steps of Adam or 100 of L-BFGS unless given.
        loss: "mse", "l1", "huber", "perceptual" (needs the discriminator) or "lpips" (downloads weights).
        discriminator: For the perceptual loss.
        latent_weight: Of the latents' mean square: more makes likelier faces that resemble the photograph less.
        start: "best_of_k" draws, "mean" latent, "random" draw, or latents (B, latent_dim), such as an encoder's.
        start_scale: Standard deviation of the draws of "random", "best_of_k" and restarts; the prior's is 1.
        restarts: Further starts, from random latents, for images whose data term did not reach the noise; the best of
            all is kept.
        tolerance: An image is done when its objective improved by less than this share within the solver's window.
        noise_level: Standard deviation of the noise on the [0, 1] scale; images are not fitted more closely than this.
            Estimated unless given, where an estimate below 0.02 counts as none; none where A changes the size.
        refine: "features" goes on with the features after the first block, "weights" with the weights of a copy of the
            generator, which helps plain inversion and harms denoising; "none".
        refine_steps: Steps of the refinement at most.
        refine_weight: Of the penalty that keeps features near the latent's; unless given, by the noise's level, and
            none for plain inversion of an image without noise.
        composite: Make the image agree with what is known (see data_consistency), where A has an adjoint and is not
            the identity; false leaves what the generator made.
        rng: Its seed, not its state, is that of all draws, together with each image's index.
        indices: Index of each image in its data set; 0 to B - 1 unless given.
        callback: Called after each step with the stage ("latent", "features", "weights"), the step, the best
            objectives (B,) and a function that renders the images as they are.

    Raises:
        InputError: Something that does not fit together: a shape, a channel, a choice, a pixel that is not finite.
    """
    # Under Lightning's inference mode no gradient could be had, and tensors made in it stay so: hence the copy.
    device = next(generator.parameters()).device
    with torch.inference_mode(False), torch.enable_grad(), torch.autocast(device.type, enabled=False):
        frozen = freeze_generator(generator)
        observed = observed.detach().to(device, torch.float32, copy=True)
        names = list(range(len(observed)) if indices is None else indices)
        chosen = _choose_solver(solver, loss)
        check_choice("refine", refine, ("features", "weights", "none"))
        check_numbers(
            num_steps=num_steps, latent_weight=latent_weight, start_scale=start_scale, restarts=restarts,
            tolerance=tolerance, noise_level=noise_level, refine_steps=refine_steps, refine_weight=refine_weight,
        )  # fmt: skip
        check_observed(frozen, degradation, observed, names)
        if refine == "features" and frozen.first is None:
            raise InputError(NO_FIRST_BLOCK)
        check_start(start, len(observed), frozen.latent_dim)
        if composite:
            composite = has_adjoint(degradation) and not isinstance(degradation, Identity)
        problem, noise = _pose(frozen, degradation, observed, noise_level)
        problem = replace(
            problem,
            loss=make_loss(loss, discriminator, observed.device),
            weight=torch.full_like(problem.weight, latent_weight),
        )
        # Only a squared error can be compared with the noise's variance.
        floor = noise.square().clamp(min=EXACT) if loss == "mse" else torch.zeros_like(noise)
        stopping = Stopping(NUM_STEPS[chosen] if num_steps is None else num_steps, tolerance, floor, callback=callback)
        sampler = LatentSampler(0 if rng is None else rng.initial_seed(), start_scale)
        search = Search(SOLVERS[chosen], start, sampler, names, frozen)
        solution = search.run(problem, stopping, restarts)
        with torch.no_grad():
            result = Inversion(frozen(solution.variables), solution.variables, noise, **_course(solution))
        stopping = replace(stopping, num_steps=refine_steps, stage=refine)
        result = _refine(result, problem, frozen, degradation, refine, refine_weight, stopping)
        if composite:
            assert isinstance(degradation, Degradation)
            image = data_consistency(result.image, degradation, problem.observed, noise)
            result = replace(result, image=image)
        return result


@dataclass(frozen=True)
class Search:
    """A solver and the places that it starts from."""

    solver: Solver
    start: StartName | Tensor
    sampler: LatentSampler
    indices: list[int]
    frozen: FrozenGenerator

    def run(self, problem: Problem, stopping: Stopping, restarts: int) -> Solution:
        """Solve, and solve again from elsewhere what did not reach the noise; keep each image's best."""
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
        if self.solver is levenberg_marquardt:  # it knows each image's own J'J, and needs no mean of them
            return levenberg_marquardt(part, begin, stopping)
        return self.frozen.whitening.solve(self.solver, part, begin, stopping)


def _side_by_side(solution: Solution, again: Solution, won: Tensor, better: Tensor) -> Tensor:
    """Return the history in which the images that a restart won have the restart's course."""
    steps = max(len(solution.history), len(again.history))
    histories = [torch.cat([h, h[-1:].expand(steps - len(h), -1)]) for h in (solution.history, again.history)]
    history = histories[0].clone()
    history[:, won] = histories[1][:, better]
    return history


def _choose_solver(solver: str, loss: str) -> str:
    check_choice("solver", solver, ("auto", *SOLVERS))
    if solver == "levenberg_marquardt" and loss != "mse":
        raise InputError(f"levenberg_marquardt minimises squared errors, not {loss}: choose the solver adam or lbfgs")
    if solver == "auto":
        return "adam" if loss == "l1" else "lbfgs"
    return solver


def _pose(
    frozen: FrozenGenerator, degradation: Callable[[Tensor], Tensor], observed: Tensor, noise_level: float | None
) -> tuple[Problem, Tensor]:
    """Return the problem, and the level of each image's noise (B,)."""
    known = degradation.known(observed) if isinstance(degradation, Degradation) else None
    fraction = observed.new_ones(len(observed))
    if known is not None:
        known = known.to(observed)
        observed = observed * known  # what lies in a hole is no observation, whatever was left there
        fraction = known.flatten(1).mean(1).expand(len(observed))
    center = observed.new_zeros(len(observed), frozen.latent_dim)
    if noise_level is not None:
        noise = observed.new_full((len(observed),), noise_level)
    elif observed.shape[-2:] == frozen(center[:1]).shape[-2:]:
        noise = visible_noise(observed, known)
    else:
        noise = torch.zeros_like(fraction)  # in a small image detail looks like noise
    return Problem(frozen, degradation, observed, mse, fraction, center, torch.zeros_like(center[:, :1])), noise


def _course(solution: Solution) -> dict[str, Tensor]:
    return {name: getattr(solution, name) for name in ("loss", "history", "converged", "num_steps")}


def _refine(
    result: Inversion,
    problem: Problem,
    frozen: FrozenGenerator,
    degradation: object,
    refine: RefineName,
    weight: float | None,
    stopping: Stopping,
) -> Inversion:
    if refine == "none" or not stopping.num_steps:
        return result
    if refine == "weights":
        return _continued(result, *refine_weights(problem, frozen, result.latent, stopping))
    noise = result.noise_level
    lossy = not isinstance(degradation, Identity)
    weights = feature_penalty(noise, lossy) if weight is None else torch.full_like(noise, weight)
    return _continued(result, *refine_features(problem, frozen, result.latent, weights, stopping))


def _continued(result: Inversion, image: Tensor, solution: Solution) -> Inversion:
    """Return the inversion with its refinement added."""
    return replace(
        result,
        image=image,
        loss=solution.loss,
        history=torch.cat([result.history, solution.history[1:]]),
        converged=solution.converged,
        num_steps=result.num_steps + solution.num_steps,
    )


SOLVERS: dict[str, Solver] = {
    "levenberg_marquardt": levenberg_marquardt,
    "adam": adam,
    "lbfgs": lbfgs,
}
