"""Training of an encoder on samples of the generator: image -> latent, with unlimited data."""

from __future__ import annotations

from typing import Any

import torch
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor
from torch.optim import Adam
from torch.optim.lr_scheduler import CosineAnnealingLR
from torch.utils.data import DataLoader
from torchmetrics import MeanMetric

from gan_lightning import distributed
from gan_lightning.data.batches import batches_done
from gan_lightning.degradations.random_operators import degrade_at_random
from gan_lightning.errors import InputError
from gan_lightning.modules.batch_numbers import BatchNumbers
from gan_lightning.modules.ddp import prepare_ddp
from gan_lightning.modules.learning_rates import LearningRates
from gan_lightning.modules.run_seed import RunSeed
from gan_lightning.modules.safe_loading import SafelyLoaded
from gan_lightning.networks.checkpoints import load_generator
from gan_lightning.networks.conditional import ConditionalGenerator
from gan_lightning.networks.encoder import Encoder
from gan_lightning.networks.stylegan2_prior import LatentSpace, PlainGenerator, StyleGAN2Prior, as_prior
from gan_lightning.seeding import batch_rng

VALIDATION_EPOCH = 2**31  # an epoch that training never reaches: other latents


class LatentEncoder(SafelyLoaded, RunSeed):
    """Encoder that guesses the latent of an image, degraded or not, so that an inversion starts near the solution.

    It needs no data set: batches are samples of the generator, each determined by seed, epoch and batch number.
    """

    monitor = ("val/latent_mse", "min")

    def __init__(
        self,
        generator_ckpt: str,
        base_channels: int = 64,
        hidden_dim: int = 512,
        lr: float = 1e-3,
        image_weight: float = 10.0,
        batch_size: int = 64,
        batches_per_epoch: int = 500,
        validation_images: int = 256,
        seed: int | None = None,
        space: LatentSpace | None = None,
    ) -> None:
        """Load the generator and build the encoder.

        Args:
            generator_ckpt: Checkpoint of a training, or a generator of the PyTorch DCGAN tutorial.
            base_channels: Number of channels of the first layer of the encoder.
            hidden_dim: Width of the dense layer.
            lr: Initial learning rate of Adam; it decays to zero on a cosine schedule.
            image_weight: Weight of the squared error of the guessed image, relative to that of the latent.
            batch_size: Number of images per batch and device.
            batches_per_epoch: Number of batches, over all devices, between two validations.
            validation_images: Number of fixed validation images, over all degradations.
            seed: Seed of the latents and the degradations; null for that of `seed_everything` in training and 0 in
                validation, so that runs are measured on the same images.
            space: Space of the latents of a StyleGAN2: "z", "w" or "w+". Default: w, in units of its spread.

        Raises:
            InputError: If the file contains no generator, or a number is out of range.
        """
        super().__init__()
        generator_ckpt = str(generator_ckpt)  # a checkpoint with a Path cannot be loaded with weights_only
        self.save_hyperparameters()
        for name, value in (
            ("batch_size", batch_size),
            ("batches_per_epoch", batches_per_epoch),
            ("validation_images", validation_images),
        ):
            if value < 1:
                raise InputError(f"{name} must be at least 1, not {value}")
        if lr <= 0 or image_weight < 0:
            raise InputError(f"lr must be positive and image_weight not negative, not {lr} and {image_weight}")
        network = load_generator(generator_ckpt).requires_grad_(False)
        if isinstance(network, ConditionalGenerator) or getattr(network, "label_dim", False):
            raise InputError(
                "an encoder guesses the latents of a generator without classes: give another generator_ckpt"
            )
        generator = as_prior(network, space)
        # A tuple hides it from the module: it is not trained, saved with checkpoints, or broadcast.
        self._generator = (generator,)
        self.encoder = Encoder(
            generator.image_size, generator.channels, generator.latent_dim, base_channels, hidden_dim
        )
        self.lr, self.image_weight, self.seed = lr, image_weight, seed
        self.batch_size, self.batches_per_epoch = batch_size, batches_per_epoch
        self.validation_images = validation_images
        self._latent_mse, self._psnr = MeanMetric(), MeanMetric()

    @property
    def generator(self) -> PlainGenerator | StyleGAN2Prior:
        """The generator, which is not trained."""
        return self._generator[0]

    def forward(self, images: Tensor) -> Tensor:
        """Guess the latents (B, latent_dim) of images (B, 1 or C, h, w) in [-1, 1]."""
        latents: Tensor = self.encoder(images)
        return latents

    def setup(self, stage: str) -> None:
        """Move the generator to the device.

        Raises:
            InputError: If SyncBatchNorm is used without a GPU.
        """
        prepare_ddp(self, second_derivative=False)
        self.generator.to(self.trainer.strategy.root_device)

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """Return Adam with a cosine schedule."""
        optimizer = Adam(self.encoder.parameters(), self.lr)
        steps = max(1, int(self.trainer.estimated_stepping_batches))
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": CosineAnnealingLR(optimizer, steps), "interval": "step"},
        }

    def on_fit_start(self) -> None:
        """Choose the seed, and store the learning rate."""
        super().on_fit_start()
        self._rates = LearningRates(self, ["lr"])

    def on_train_start(self) -> None:
        """Check that the schedule of a resumed run began at this learning rate.

        Raises:
            InputError: If it began at another one.
        """
        self._rates.settle(self)

    def train_dataloader(self) -> DataLoader[int]:
        """Return the numbers of the batches of an epoch."""
        numbers = BatchNumbers(self.batches_per_epoch)
        numbers.resume(self.trainer.current_epoch, batches_done(self.trainer))
        return self._loader(numbers)

    def val_dataloader(self) -> DataLoader[int]:
        """Return the numbers of the fixed validation batches."""
        return self._loader(BatchNumbers(-(-self.validation_images // self.batch_size)))

    def _number(self, batch: Any) -> int:
        """Return the number of a batch.

        Raises:
            InputError: If it is a batch of images.
        """
        if isinstance(batch, int) or (isinstance(batch, Tensor) and batch.ndim == 0):
            return int(batch)
        raise InputError("LatentEncoder trains on images of the generator: leave the data out of Trainer.fit")

    def _loader(self, numbers: BatchNumbers) -> DataLoader[int]:
        every = range(len(numbers) * numbers.num_replicas)
        return DataLoader(every, batch_size=None, sampler=numbers)  # type: ignore[arg-type]

    def training_step(self, batch: int, batch_idx: int) -> Tensor:
        """Draw latents, degrade their images, and return the error of the guess.

        Args:
            batch: Number of the batch, which seeds its draws.
            batch_idx: Unused.
        """
        latents, images, degraded = self._draw(self.current_epoch, self._number(batch), self.batch_size)
        guess = self(degraded)
        latent_mse = (guess - latents).square().mean()
        loss: Tensor = latent_mse
        if self.image_weight:
            image_mse = (self.generator(guess) - images).square().mean() / 4
            loss = latent_mse + self.image_weight * image_mse
            self.log("train/image_mse", image_mse)
        self.log("train/latent_mse", latent_mse, prog_bar=True)
        self.log("train/loss", loss)
        return loss

    def on_after_backward(self) -> None:
        """Average the batch-norm statistics over the ranks."""
        distributed.average_buffers(self.encoder)

    def validation_step(self, batch: int, batch_idx: int) -> None:
        """Measure the guesses of fixed latents, and the images generated from them."""
        number = self._number(batch)
        count = min(self.batch_size, self.validation_images - number * self.batch_size)
        if count < 1:  # more ranks than batches
            return
        latents, images, degraded = self._draw(VALIDATION_EPOCH, number, count)
        guess = self(degraded)
        mse = ((self.generator(guess) - images) / 2).square().flatten(1).mean(1)
        self._latent_mse.update((guess - latents).square().mean(), count)
        self._psnr.update((-10 * mse.log10()).mean(), count)

    def on_validation_epoch_end(self) -> None:
        """Log the means over the fixed images of all ranks."""
        metrics = {"val/latent_mse": self._latent_mse.compute(), "val/psnr": self._psnr.compute()}
        for metric in (self._latent_mse, self._psnr):
            metric.reset()
        # The value is the same on every rank: sync_dist only keeps Lightning from warning.
        self.log_dict(metrics, prog_bar=True, sync_dist=True)

    @torch.no_grad()
    def _draw(self, epoch: int, number: int, count: int) -> tuple[Tensor, Tensor, Tensor]:
        """Return latents (B, latent_dim), their images, and the degraded images, both (B,C,H,W)."""
        drawn = 0 if epoch == VALIDATION_EPOCH else self._seed
        rng = batch_rng(drawn if self.seed is None else self.seed, epoch, number)
        drawn_by = self.generator if isinstance(self.generator, StyleGAN2Prior) else None
        latents = (
            drawn_by.draw(count, rng) if drawn_by else torch.randn(count, self.generator.latent_dim, generator=rng)
        )
        latents = latents.to(self.device)
        images = self.generator(latents).float()  # mixed precision returns half precision
        return latents, images, degrade_at_random(images, rng)
