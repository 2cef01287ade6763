"""Latent inversion with an unknown class: choose a class for each image, and invert with its generator."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from functools import partial
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from gan_lightning.degradations.base import Degradation, Identity, unwrap
from gan_lightning.inversion.checks import check_observed
from gan_lightning.inversion.frozen_generator import freeze_generator
from gan_lightning.inversion.initialization import LatentSampler, candidate_losses
from gan_lightning.inversion.invert import LATENT_WEIGHT, Inversion, build_problem, invert
from gan_lightning.inversion.loss_size import after_reduction, reduction
from gan_lightning.inversion.precision import float32_gradients
from gan_lightning.inversion.problem import Callback
from gan_lightning.inversion.settings import InversionSettings

CONSIDERED = 2  # classes that are searched, those of the best samples
SEARCHES, STEPS = 3, 10  # of each; with more steps or classes, images are explained by other classes than their own

Observer = Callable[[Sequence[int], str, int, Tensor, Callable[[], Tensor]], None]


class PriorOfEachClass(Protocol):
    """A generator with classes."""

    @property
    def names(self) -> Sequence[str]:
        """Names of the classes, by label."""

    def of_class(self, label: int, /) -> nn.Module:
        """Return the `Prior` of a class; the same module each time, as far as memory allows."""


@dataclass
class ClassSearch:
    """Inversion of a batch with a generator whose class is not known, or not the same for all images.

    Attributes:
        priors: Generator with classes.
        degradation: A, as for `invert`.
        observed: y, (B,C,H,W).
        settings: Settings of the inversion.
        rng: Generator whose seed determines all random draws.
        indices: Index of each image in its data set.
        discriminator: Discriminator for the perceptual loss.
    """

    priors: PriorOfEachClass
    degradation: Callable[[Tensor], Tensor]
    observed: Tensor
    settings: InversionSettings
    rng: torch.Generator
    indices: Sequence[int]
    discriminator: nn.Module | None = None

    def __post_init__(self) -> None:
        self.degradation = unwrap(self.degradation)

    def find(self) -> Tensor:
        """Return the class (B,) of each image: the one of the lowest objective after short searches.

        All classes are compared by 256 samples each, and short searches are made with the best two. The latents are
        penalized even where every pixel is observed: without it, a flexible class explains the images of any other. The
        class of an image does not depend on the other images of the batch.
        """
        samples = [self._losses_of_samples(self.priors.of_class(label)) for label in range(len(self.priors.names))]
        sampled = torch.stack(samples, dim=1).cpu()
        considered = sampled.argsort(dim=1, stable=True)[:, :CONSIDERED]
        weight = LATENT_WEIGHT if isinstance(self.degradation, Identity) else None
        short = replace(
            self.settings,
            solver="lbfgs",
            schedule="cosine",
            noise_maps="held",
            start="best_of_k",
            num_searches=SEARCHES,
            num_steps=STEPS,
            restarts=0,
            refine="none",
            composite=False,
            latent_weight=weight if self.settings.latent_weight is None else self.settings.latent_weight,
        )
        losses = torch.full_like(sampled, torch.inf)
        for label in sorted(set(considered.flatten().tolist())):
            rows = (considered == label).any(1).nonzero()[:, 0]
            losses[rows, label] = self._invert_rows(label, short, rows).loss.cpu()
        return losses.argmin(1)

    def invert(self, labels: Tensor, callback: Observer) -> Inversion:
        """Restore each image with the prior of its class.

        Args:
            labels: (B,) class of each image.
            callback: Function called as that of `invert`, with the rows of the images before its arguments.
        """
        groups = [(labels == label).nonzero()[:, 0] for label in sorted(set(labels.tolist()))]
        parts = [
            self._invert_rows(int(labels[rows[0]]), self.settings, rows, partial(callback, rows.tolist()))
            for rows in groups
        ]
        return in_one(parts, torch.cat(groups).argsort())

    def _losses_of_samples(self, prior: nn.Module) -> Tensor:
        """Return the lowest loss (B,) of samples of a class for each image."""
        device = next(prior.parameters()).device
        with float32_gradients(device), torch.no_grad():
            frozen = freeze_generator(prior)
            sampler = LatentSampler(self.rng.initial_seed(), draw=frozen.draw)
            observed = self.observed.detach().to(device, torch.float32, copy=True)
            size = frozen(observed.new_zeros(1, frozen.latent_dim)).shape[-1]
            reduce = reduction(size, self.settings.loss_size)
            check_observed(frozen, after_reduction(reduce, self.degradation), observed, self.indices)
            problem, _ = build_problem(frozen, reduce, self.degradation, observed, self.settings, self.discriminator)
            return candidate_losses(problem, frozen.latent_dim, sampler, range(len(observed)))[1].amin(1)

    def _invert_rows(
        self, label: int, settings: InversionSettings, rows: Tensor, callback: Callback | None = None
    ) -> Inversion:
        """Invert some images of the batch with the prior of a class."""
        at = rows.to(self.observed.device)
        return invert(
            self.priors.of_class(label),
            self.degradation.select(at) if isinstance(self.degradation, Degradation) else self.degradation,
            self.observed[at],
            settings,
            discriminator=self.discriminator,
            rng=self.rng,
            indices=[self.indices[row] for row in rows.tolist()],
            callback=callback,
        )


def in_one(parts: Sequence[Inversion], order: Tensor) -> Inversion:
    """Return inversions of parts of a batch as one inversion of the whole batch.

    Args:
        parts: Inversions.
        order: (B,) place of each image of the batch among the images of all parts, one after the other.
    """
    steps = max(part.latent_steps for part in parts)
    refinement = max(len(part.history) - part.latent_steps for part in parts)
    merged: dict[str, Any] = {"latent_steps": steps}
    for name in (field.name for field in fields(Inversion) if field.name not in ("latent_steps", "history")):
        values = [getattr(part, name) for part in parts]
        if name != "noise_maps" or values[0] is not None:
            merged[name] = torch.cat(values)[order.to(values[0].device)]
    histories = []
    for part in parts:
        stages = part.history[: part.latent_steps + 1], part.history[part.latent_steps + 1 :]
        latent = torch.cat([stages[0], stages[0][-1:].expand(steps - part.latent_steps, -1)])
        whole = torch.cat([latent, stages[1]])
        histories.append(torch.cat([whole, whole[-1:].expand(steps + refinement - len(whole), -1)]))
    merged["history"] = torch.cat(histories, dim=1)[:, order.to(histories[0].device)]
    return Inversion(**merged)
