"""Latent inversion with an unknown class: choose a class for each image, and invert with its generator."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import fields, replace
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


def find_classes(
    priors: PriorOfEachClass,
    degradation: Callable[[Tensor], Tensor],
    observed: Tensor,
    settings: InversionSettings,
    *,
    discriminator: nn.Module | None = None,
    rng: torch.Generator,
    indices: Sequence[int],
) -> Tensor:
    """Return the class (B,) of each image: the one of the lowest objective after short searches.

    All classes are compared by 256 samples each, and short searches are made with the best two. The latents are
    penalized even where every pixel is observed: without it, a flexible class explains the images of any other. The
    class of an image does not depend on the other images of the batch.

    Args:
        priors: Generator with classes.
        degradation: A, as for `invert`.
        observed: y, (B,C,H,W).
        settings: Settings of the inversion.
        discriminator: Discriminator for the perceptual loss.
        rng: Generator whose seed determines the samples.
        indices: Index of each image in its data set.
    """
    degradation = unwrap(degradation)
    samples = [
        _losses_of_samples(priors.of_class(label), degradation, observed, settings, discriminator, rng, indices)
        for label in range(len(priors.names))
    ]
    sampled = torch.stack(samples, dim=1).cpu()
    considered = sampled.argsort(dim=1, stable=True)[:, :CONSIDERED]
    weight = LATENT_WEIGHT if isinstance(degradation, Identity) else None
    short = replace(
        settings,
        solver="lbfgs",
        schedule="cosine",
        noise_maps="held",
        start="best_of_k",
        num_searches=SEARCHES,
        num_steps=STEPS,
        restarts=0,
        refine="none",
        composite=False,
        latent_weight=weight if settings.latent_weight is None else settings.latent_weight,
    )
    losses = torch.full_like(sampled, torch.inf)
    for label in sorted(set(considered.flatten().tolist())):
        rows = (considered == label).any(1).nonzero()[:, 0]
        prior = priors.of_class(label)
        found = _invert_rows(prior, degradation, observed, short, rows, indices, discriminator=discriminator, rng=rng)
        losses[rows, label] = found.loss.cpu()
    return losses.argmin(1)


def invert_classes(
    priors: PriorOfEachClass,
    labels: Tensor,
    degradation: Callable[[Tensor], Tensor],
    observed: Tensor,
    settings: InversionSettings,
    *,
    discriminator: nn.Module | None = None,
    rng: torch.Generator,
    indices: Sequence[int],
    callback: Observer,
) -> Inversion:
    """Restore each image of a batch with the prior of its class.

    Args:
        priors: Generator with classes.
        labels: (B,) class of each image.
        degradation: As for `invert`, as are the following ones.
        observed: y, (B,C,H,W).
        settings: Settings of the search.
        discriminator: Discriminator for the perceptual loss.
        rng: Generator whose seed determines all random draws.
        indices: Index of each image in its data set.
        callback: Function called as that of `invert`, with the rows of the images before its arguments.
    """
    degradation = unwrap(degradation)
    parts: list[Inversion] = []
    groups = [(labels == label).nonzero()[:, 0] for label in sorted(set(labels.tolist()))]
    for rows in groups:
        parts.append(
            _invert_rows(
                priors.of_class(int(labels[rows[0]])),
                degradation,
                observed,
                settings,
                rows,
                indices,
                discriminator=discriminator,
                rng=rng,
                callback=partial(callback, rows.tolist()),
            )
        )
    return in_one(parts, torch.cat(groups).argsort())


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


def _losses_of_samples(
    prior: nn.Module,
    degradation: Callable[[Tensor], Tensor],
    observed: Tensor,
    settings: InversionSettings,
    discriminator: nn.Module | None,
    rng: torch.Generator,
    indices: Sequence[int],
) -> Tensor:
    """Return the lowest loss (B,) of samples of a class for each image."""
    device = next(prior.parameters()).device
    with float32_gradients(device), torch.no_grad():
        frozen = freeze_generator(prior)
        sampler = LatentSampler(rng.initial_seed(), draw=frozen.draw)
        observed = observed.detach().to(device, torch.float32, copy=True)
        reduce = reduction(frozen(observed.new_zeros(1, frozen.latent_dim)).shape[-1], settings.loss_size)
        check_observed(frozen, after_reduction(reduce, degradation), observed, indices)
        problem, _ = build_problem(frozen, reduce, degradation, observed, settings, discriminator)
        return candidate_losses(problem, frozen.latent_dim, sampler, range(len(observed)))[1].amin(1)


def _invert_rows(
    prior: nn.Module,
    degradation: Callable[[Tensor], Tensor],
    observed: Tensor,
    settings: InversionSettings,
    rows: Tensor,
    indices: Sequence[int],
    **options: Any,
) -> Inversion:
    """Invert some images of a batch."""
    at = rows.to(observed.device)
    own = degradation.select(at) if isinstance(degradation, Degradation) else degradation
    return invert(prior, own, observed[at], settings, indices=[indices[row] for row in rows.tolist()], **options)
