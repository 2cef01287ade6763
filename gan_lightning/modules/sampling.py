"""Sampling from a generator, in Python and with `predict`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader

from gan_lightning.errors import DivergedError, InputError
from gan_lightning.modules.labels import Label, Labeled
from gan_lightning.networks.conditional import find_label
from gan_lightning.seeding import batch_rng


class SamplingModule(Labeled):
    """A module whose `forward` maps latents (B, latent_dim) to images (B,C,H,W) in [-1, 1]; with classes, labels too.

    Attributes:
        latent_dim: Length of the latent vector.
        num_samples: Number of images that `predict` draws; set it before `Trainer.predict`.
        sample_labels: Names or numbers of the classes of these images, which take turns: one class, several in a list
            or separated by commas, or None for all.
        training_data: Data module of the training, which `predict` of the command line sets for callbacks.
    """

    latent_dim: int
    num_samples: int = 64
    sample_labels: Label | Sequence[Label] | None = None
    training_data: Any = None

    @torch.no_grad()
    def sample(
        self,
        count: int,
        rng: torch.Generator | None = None,
        labels: Label | Sequence[Label] | Tensor | None = None,
    ) -> Tensor:
        """Draw images.

        Args:
            count: Number of images.
            rng: Random generator of the latents, on any device; the images are a function of its state.
            labels: Number or name of the class of all images, or one for each image. By default labels are drawn as
                often as they occur in the training data.

        Returns:
            (count,C,H,W) float32 in [-1, 1], on the module's device.

        Raises:
            DivergedError: If the images are not finite.
            InputError: If the model has no such classes.
        """
        device = rng.device if rng is not None else self.device
        latents = torch.randn(count, self.latent_dim, generator=rng, device=device)
        classes = self.as_labels(labels, count) if labels is not None else self.draw_labels(count, rng)
        images: Tensor = self(latents.to(self.device), *classes).float()
        if not images.isfinite().all():
            raise DivergedError("the generator's images are not finite: train it again with a lower learning rate")
        return images

    def draw_labels(self, count: int, rng: torch.Generator | None = None) -> tuple[Tensor, ...]:
        """Draw labels (count,) as a further argument of `forward`; none for a module without classes."""
        if not self.num_classes:
            return ()
        generator: Any = getattr(self, "generator_ema", None)
        if hasattr(generator, "draw_labels"):
            return (generator.draw_labels(count, rng).to(self.device),)
        device = rng.device if rng is not None else self.device
        return (torch.randint(self.num_classes, (count,), generator=rng, device=device).to(self.device),)

    def label_of_sample(self, number: int) -> int | None:
        """Return the label of an image of `predict`; None for a module without classes.

        Args:
            number: Number of the image.

        Raises:
            InputError: If the model has no such class.
        """
        given, classes = self.sample_labels, self.num_classes
        if given is None or given == []:
            return number % classes if classes else None
        if not classes:
            raise InputError("this model was trained without labels: leave labels out")
        if isinstance(given, str) and given not in self.class_names:
            given = [label.strip() for label in given.split(",")]
        several = [given] if isinstance(given, int | str) else list(given)
        # As strings: a class may be called 3, and be the second one.
        return [find_label(str(label), self.class_names) for label in several][number % len(several)]

    def predict_dataloader(self) -> DataLoader[int]:
        """Return a loader of the numbers of the images, from 0 to `num_samples` - 1.

        Raises:
            InputError: If there are fewer images than ranks, or the model has no such classes.
        """
        self.label_of_sample(0)
        if self.num_samples < self.trainer.world_size:
            raise InputError(
                f"{self.num_samples} images are fewer than {self.trainer.world_size} ranks: use fewer devices"
            )
        return DataLoader(range(self.num_samples), batch_size=64)  # type: ignore[arg-type]

    def predict_step(self, batch: Tensor, batch_idx: int) -> Tensor:
        """Draw the images with these numbers (B,), each from its own seed, so that they do not depend on the batch."""
        seed = torch.initial_seed() % 2**63
        no_rank = 2**31  # gives other latents than those of training batches
        return torch.cat(
            [
                self.sample(1, batch_rng(seed, no_rank, number), self.label_of_sample(number))
                for number in batch.tolist()
            ]
        )
