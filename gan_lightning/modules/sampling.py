"""Drawing images from a generator, in Python and by `predict`."""

from __future__ import annotations

import torch
from lightning import LightningModule
from torch import Tensor
from torch.utils.data import DataLoader

from gan_lightning.errors import DivergedError, InputError
from gan_lightning.seeding import batch_rng


class SamplingModule(LightningModule):
    """A module whose `forward` maps latents (B, latent_dim) to images (B,C,H,W) in [-1, 1].

    Attributes:
        latent_dim: Length of the latent vector.
        num_samples: Number of images that `predict` draws; set it before `Trainer.predict`.
    """

    latent_dim: int
    num_samples: int = 64

    @torch.no_grad()
    def sample(self, count: int, rng: torch.Generator | None = None) -> Tensor:
        """Draw images.

        Args:
            count: Number of images.
            rng: Source of the latents, on any device; the images are a function of its state.

        Returns:
            (count,C,H,W) float32 in [-1, 1], on the module's device.

        Raises:
            DivergedError: The images are not finite.
        """
        device = rng.device if rng is not None else self.device
        latents = torch.randn(count, self.latent_dim, generator=rng, device=device)
        images: Tensor = self(latents.to(self.device)).float()
        if not images.isfinite().all():
            raise DivergedError("the generator's images are not finite: train it again with a lower learning rate")
        return images

    def predict_dataloader(self) -> DataLoader[int]:
        """Return a loader of the numbers of the images, from 0 to `num_samples` - 1.

        Raises:
            InputError: There are fewer images than ranks.
        """
        if self.num_samples < self.trainer.world_size:
            raise InputError(
                f"{self.num_samples} images are fewer than {self.trainer.world_size} ranks: use fewer devices"
            )
        return DataLoader(range(self.num_samples), batch_size=64)  # type: ignore[arg-type]

    def predict_step(self, batch: Tensor, batch_idx: int) -> Tensor:
        """Draw the images with these numbers (B,), each from a seed of its own, so that batching changes nothing."""
        seed = torch.initial_seed() % 2**63
        no_rank = 2**31  # keeps these latents apart from those of training batches
        return torch.cat([self.sample(1, batch_rng(seed, no_rank, int(number))) for number in batch])
