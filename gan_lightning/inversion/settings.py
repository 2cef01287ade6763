"""Settings of latent inversion, which validate themselves."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple, get_args

from gan_lightning.errors import InputError
from gan_lightning.inversion.checks import check_choice, check_counts, check_numbers
from gan_lightning.inversion.initialization import StartName
from gan_lightning.inversion.losses import LossName
from gan_lightning.inversion.robust_chain import STEPS as ROBUST_STEPS

SolverName = Literal["auto", "levenberg_marquardt", "adam", "lbfgs", "robust"]
RefineName = Literal["features", "weights", "none"]
NoiseMapsName = Literal["held", "optimized"]
ScheduleName = Literal["cosine", "projector"]

SEVERAL = 8  # searches; more hardly improve the mean
DEFAULT_STEPS = {"levenberg_marquardt": 12, "adam": 300, "lbfgs": 100, "robust": ROBUST_STEPS}
REFINE_STEPS = 240, 25  # of a single search, of each of several


class Counts(NamedTuple):
    """Numbers of searches for each image, and of the steps of each search and of its refinement."""

    num_searches: int
    num_steps: int
    refine_steps: int


@dataclass(frozen=True)
class InversionSettings:
    """Settings of the search for an image that explains a degraded one.

    Attributes:
        solver: "lbfgs", "levenberg_marquardt" (squared loss only), "adam", or "auto": Adam for the l1 loss, which has
            kinks, else L-BFGS. "robust" is for a StyleGAN2 in w.
        schedule: Rate of adam: "cosine" or "projector".
        num_searches: Number of searches from different starts. The restored image is the mean of their results, and
            their spread shows where it is a guess. Default: 1 for denoising, inversion, robust; else 8.
        num_steps: Maximum number of solver steps of a search. Default: 12 for levenberg_marquardt, 300 for adam, 100
            for lbfgs, and a quarter of it for each of several searches; 150 for robust.
        loss: "mse", "l1", "huber", "perceptual" (distance between features of the discriminator) or "lpips" (downloads
            weights).
        loss_size: Size at which reduced images are compared.
        latent_weight: Weight of the mean square of the latent. Larger values favor likelier images that resemble the
            photograph less. Default: 0 for robust and for inversion without noise; otherwise 0.003, and more
            where fewer values are observed, in proportion.
        start: The best of 256 draws ("best_of_k"), the "mean" latent (default for robust), or a "random" draw.
        start_scale: Standard deviation of the draws of "random", "best_of_k" and the restarts. The prior has 1.
        restarts: Number of further searches from random latents where the residual is above the noise.
        tolerance: Relative improvement of the objective within the solver's window below which an image is done.
        noise_level: Standard deviation of the noise on the [0, 1] scale; images are not fitted more closely than this.
            Default: estimated, where less than 0.02 counts as none; none where A changes the size.
        refine: Refinement beyond the range of the generator: "features" optimizes the output of its first block,
            "weights" a copy of its weights, which helps inversion and harms denoising; "none" skips it.
        refine_steps: Maximum number of its steps. Default: 240; 25 for several searches; 150 for robust.
        refine_weight: Weight of the penalty that keeps features close to those of the latent. Default: chosen by the
            noise level, and 0 for plain inversion of images without noise.
        noise_maps: Those of a StyleGAN2: "held" or "optimized".
        composite: Make the result consistent with the photograph (known pixels, luma, sums of pixels), for
            degradations that have an adjoint, and take details from a noisy one that the generator lacks. If false, the
            output of the generator is returned.

    Raises:
        InputError: If a choice is unknown, a number is negative or not finite, no search is asked for, or the
            solver does not support the loss.
    """

    solver: SolverName = "auto"
    schedule: ScheduleName = "cosine"
    num_searches: int | None = None
    num_steps: int | None = None
    loss: LossName = "mse"
    loss_size: int | None = None
    latent_weight: float | None = None
    start: StartName | None = None
    start_scale: float = 1.0
    restarts: int = 0
    tolerance: float = 1e-3
    noise_level: float | None = None
    refine: RefineName = "features"
    refine_steps: int | None = None
    refine_weight: float | None = None
    noise_maps: NoiseMapsName = "held"
    composite: bool = True

    def __post_init__(self) -> None:
        check_choice("solver", self.solver, get_args(SolverName))
        check_choice("schedule", self.schedule, get_args(ScheduleName))
        check_choice("loss", self.loss, get_args(LossName))
        check_choice("start", self.chosen_start, get_args(StartName))
        check_choice("refine", self.refine, get_args(RefineName))
        check_choice("noise_maps", self.noise_maps, get_args(NoiseMapsName))
        check_counts(0, num_steps=self.num_steps, refine_steps=self.refine_steps, restarts=self.restarts)
        check_counts(1, num_searches=self.num_searches, loss_size=self.loss_size)
        check_numbers(
            latent_weight=self.latent_weight,
            start_scale=self.start_scale,
            tolerance=self.tolerance,
            noise_level=self.noise_level,
            refine_weight=self.refine_weight,
        )
        if self.solver == "robust" and (self.noise_maps != "held" or self.refine == "weights"):
            raise InputError(
                "the solver robust neither optimizes noise maps nor tunes weights: leave noise_maps and refine out"
            )
        if self.schedule == "projector" and self.chosen_solver != "adam":
            raise InputError("schedule: projector is the learning rate of adam: set solver to adam")
        if self.solver == "levenberg_marquardt" and self.noise_maps == "optimized":
            raise InputError(
                "noise maps are too many variables for levenberg_marquardt: choose the solver adam or lbfgs"
            )
        if self.solver == "levenberg_marquardt" and self.loss != "mse":
            raise InputError(
                f"levenberg_marquardt minimizes squared errors, not {self.loss}: choose the solver adam or lbfgs"
            )

    @property
    def chosen_solver(self) -> Literal["levenberg_marquardt", "adam", "lbfgs", "robust"]:
        """Solver, with "auto" resolved by the loss."""
        if self.solver == "auto":
            return "adam" if self.loss == "l1" else "lbfgs"
        return self.solver

    @property
    def chosen_start(self) -> StartName:
        """Start, with its default resolved by the solver."""
        return self.start or ("mean" if self.solver == "robust" else "best_of_k")

    def counts(self, every_pixel_observed: bool) -> Counts:
        """Return the numbers of searches and of their steps, with the defaults that follow from what is observed.

        Args:
            every_pixel_observed: Whether every pixel is observed, so that one search is nearly as good as several.
        """
        robust = self.solver == "robust"
        single = every_pixel_observed or self.refine == "weights" or robust
        searches = self.num_searches or (1 if single else SEVERAL)
        steps, refine_steps = DEFAULT_STEPS[self.chosen_solver], ROBUST_STEPS if robust else REFINE_STEPS[searches > 1]
        if searches > 1 and not robust:
            steps //= 4
        return Counts(
            searches,
            steps if self.num_steps is None else self.num_steps,
            refine_steps if self.refine_steps is None else self.refine_steps,
        )
