"""Restoration of a batch of images: degrade, invert, measure; and the results that are passed to callbacks."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from gan_lightning.data.photo_format import PhotoFormat
from gan_lightning.degradations import Degradation, GaussianBlur, Identity
from gan_lightning.degradations.base import has_adjoint, unwrap
from gan_lightning.degradations.noise import Noise
from gan_lightning.errors import InputError
from gan_lightning.inversion import BlurEstimate, Inversion, InversionSettings, estimate_blur, invert
from gan_lightning.inversion.checks import range_is_known
from gan_lightning.inversion.class_search import ClassSearch
from gan_lightning.inversion.loss_size import ReducedPrior, reduction
from gan_lightning.metrics.restoration import RestorationMetrics
from gan_lightning.modules.masking import ImageMasks
from gan_lightning.modules.restoration_settings import describe
from gan_lightning.modules.restoration_store import output_names
from gan_lightning.networks.class_priors import ClassPriors
from gan_lightning.networks.stylegan2_prior import PlainGenerator, StyleGAN2Prior

AnyPrior = PlainGenerator | StyleGAN2Prior | ClassPriors

INVERSION_METRICS = ("loss", "converged", "num_steps", "noise_level", "explained")
SEARCH_METRICS = (*INVERSION_METRICS, "spread", "blur_sigma")  # of the search, not of the image


@dataclass(frozen=True)
class SearchStep:
    """A step of the search for a batch of images.

    Attributes:
        names: Names of the B images.
        stage: "latent", or the refinement: "features" or "weights"; before them "blur" where a blur is estimated.
        number: Number of the step within its stage.
        losses: (B,) best objective of each image so far.
        render: Function that renders the current images (B,C,H,W) in [-1, 1]; the refinement of weights renders only
            some of the images at a time.
    """

    names: Sequence[str]
    stage: str
    number: int
    losses: Tensor
    render: Callable[[], Tensor]


StepObserver = Callable[[SearchStep], None]


@dataclass  # not frozen: Lightning moves the fields of predictions to the CPU
class Restored:
    """A batch of restored images.

    Attributes:
        names: (B) names of the images for files, unique in a run.
        degraded: (B,C',H',W') in the range to which the degradation maps [-1, 1].
        restored: (B,C,H,W) in [-1, 1].
        latent: (B, latent_dim).
        history: (steps + 1, B) objective at each step.
        latent_steps: Number of steps in `history` that the search for latents took, before the refinement.
        metrics: (B,) each: "loss", "converged", "num_steps", "noise_level", "explained", the mean "spread" of several
            searches, and in `test` also the errors.
        target: (B,C,H,W) in [-1, 1], the ground truth, or None if it is unknown.
        blur: Estimate of an unknown blur.
        sources: (B) paths of the photographs relative to their folder, or None if they have no files.
        spread: (B,1,H,W) standard deviation of the solutions of several searches, on the [0, 1] scale, or None for a
            single search.
        solutions: (B,K,C,H,W) result of each search, from the most to the least likely, or None if not kept.
        labels: (B) names of the classes that were found, or None if there was no search for the class.
    """

    names: list[str]
    degraded: Tensor
    restored: Tensor
    latent: Tensor
    history: Tensor
    metrics: dict[str, Tensor]
    target: Tensor | None = None
    blur: BlurEstimate | None = None
    sources: list[str] | None = None
    spread: Tensor | None = None
    solutions: Tensor | None = None
    latent_steps: int = 0
    labels: list[str] | None = None

    def rows(self) -> list[dict[str, float]]:
        """Return the metrics of each image."""
        columns = {name: values.tolist() for name, values in self.metrics.items()}
        return [{name: float(values[row]) for name, values in columns.items()} for row in range(len(self.names))]


@dataclass
class Restorer:
    """Networks and settings of a restoration; see `LatentRestoration`, which owns the networks and moves them."""

    generator: AnyPrior
    discriminator: nn.Module | None
    encoder: nn.Module | None
    degradation: Degradation
    noise: Noise | None
    masks: ImageMasks | None
    inversion: InversionSettings
    measure: RestorationMetrics
    blind_blur: bool
    seed: int
    keep_searches: bool
    observers: list[StepObserver] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.reduce = reduction(self.generator.image_size, self.inversion.loss_size)
        plain = isinstance(self.reduce, Identity)
        self._reduced_prior = self.generator if plain else ReducedPrior(self.generator, self.reduce)

    def settings(self) -> dict[str, Any]:
        """Return plain values that differ between any two restorers whose results may differ."""
        return {
            "inversion": asdict(self.inversion),
            "masks": self.masks and self.masks.describe(),
            "measures": sorted(self.measure.measures),
            "blind_blur": self.blind_blur,
            "keep_searches": self.keep_searches,
            "seed": self.seed,
            "generator": describe(self.generator),
            "degradation": describe(self.degradation),
            "noise": self.noise and [type(self.noise).__name__, dict(sorted(vars(self.noise).items()))],
            "encoder": self.encoder and describe(self.encoder),
        }

    @torch.inference_mode(False)  # that of test and predict: no gradient flows in it, or through tensors made in it
    @torch.enable_grad()
    @range_is_known()  # it was checked at the first batch
    def restore(self, batch: dict[str, Any], rows: list[int], names: list[str], clean: bool) -> Restored:
        """Restore some rows of a batch, with these names; clean images are degraded first, and results are measured."""
        images, indices = batch["image"][rows].clone(), batch["index"][rows].tolist()
        degradation = self.masks.after(self.degradation, batch, rows) if self.masks else self.degradation
        observed = self._degrade(images, degradation, indices) if clean else images
        start, blur = None, None
        if self.blind_blur:
            level, tell = self.inversion.noise_level, partial(self._report, names)
            blur = estimate_blur(self._reduced_prior, observed, noise_level=level, callback=tell)
            degradation, start = GaussianBlur(blur.sigma.tolist()), blur.latent
        elif self.encoder is not None:
            with torch.no_grad():
                start = self.encoder(observed)

        result, labels = self._invert(degradation, observed, start, indices, names)
        settings = self.inversion
        same = isinstance(unwrap(degradation), Identity) and isinstance(self.reduce, Identity)
        if same and settings.composite and settings.noise_level is None:
            clean_already = (result.noise_level == 0)[:, None, None, None]  # there is no noise to remove
            result.image = torch.where(clean_already, observed, result.image)
        known = degradation.known(observed)
        metrics = {name: getattr(result, name) for name in INVERSION_METRICS}
        spread = result.spread if result.solutions.shape[1] > 1 else None
        if spread is not None:
            metrics["spread"] = spread.flatten(1).mean(1)
        if blur is not None:
            metrics["blur_sigma"] = blur.sigma
        if clean:
            metrics |= self.measure(result.image, observed, images, known, spread)
        return Restored(
            names,
            observed,
            result.image,
            result.latent,
            result.history,
            metrics,
            target=images if clean else None,
            blur=blur,
            sources=[batch["name"][row] for row in rows] if "name" in batch else None,
            spread=spread,
            solutions=likeliest_first(result) if self.keep_searches else None,
            latent_steps=result.latent_steps,
            labels=labels,
        )

    def _invert(
        self, degradation: Degradation, observed: Tensor, start: Tensor | None, indices: list[int], names: list[str]
    ) -> tuple[Inversion, list[str] | None]:
        """Return the inversion of a batch, and the names of its classes if they were searched for."""
        problem = degradation, observed, self.inversion
        options: dict[str, Any] = {"discriminator": self.discriminator, "indices": indices}
        options["rng"] = torch.Generator().manual_seed(self.seed)
        generator = self.generator
        if not isinstance(generator, ClassPriors):
            callback = partial(self._report, names)
            return invert(generator, *problem, start=start, callback=callback, **options), None
        search = ClassSearch(generator, *problem, **options)
        labels = search.find()

        def report_rows(rows: Sequence[int], *step: Any) -> None:
            self._report([names[row] for row in rows], *step)

        return search.invert(labels, report_rows), generator.named(labels)

    def _report(self, names: Sequence[str], *step: Any) -> None:
        for observe in self.observers:
            observe(SearchStep(names, *step))

    def leaves_out_generator(self, noise_level: float) -> bool:
        """Return whether photographs with this noise level are restored without the generator if none explains them."""
        plain = isinstance(self.degradation, Identity) and self.masks is None and not self.blind_blur
        asked_for = (plain and noise_level == 0) or not self.inversion.composite
        return has_adjoint(self.degradation) and not asked_for

    @torch.no_grad()
    def _degrade(self, images: Tensor, degradation: Degradation, indices: list[int]) -> Tensor:
        """Return noise(A(x))."""
        expected = self.generator.channels, self.generator.image_size, self.generator.image_size
        if images.shape[1:] != expected:
            ours, theirs = ("x".join(map(str, shape)) for shape in (expected, images.shape[1:]))
            raise InputError(
                f"images of {theirs} are not the generator's {ours}: set data.channels and data.image_size"
            )
        observed: Tensor = degradation(self.reduce(images))
        if self.noise is not None:
            observed = self.noise(observed, indices)
            known = degradation.known(observed)
            observed = observed if known is None else observed * known
        return observed


def likeliest_first(result: Inversion) -> Tensor:
    """Return the solutions (B,K,C,H,W) of each image, from the most to the least likely."""
    order = result.weights.argsort(dim=1, descending=True, stable=True)
    return torch.stack([solutions[row] for solutions, row in zip(result.solutions, order, strict=True)])


@torch.no_grad()
def photo_format(generator: AnyPrior, degradation: Degradation, loss_size: int | None) -> PhotoFormat:
    """Return the format of degraded photographs: that of A(G(z)), with G(z) at the size at which it is compared."""
    reduce = reduction(generator.image_size, loss_size)
    return PhotoFormat(*degradation(reduce(generator(torch.zeros(1, generator.latent_dim)))).shape[1:])


def image_names(batch: Mapping[str, Any]) -> list[str]:
    """Return unique, sortable names, made of the indices and of the file names if there are any.

    Raises:
        InputError: If the batch has no indices.
    """
    if not isinstance(batch, dict) or "index" not in batch:
        raise InputError('a batch must be a dict with "image" and "index", the number of each image')
    return output_names(batch["index"].tolist(), batch.get("name"))
