"""ESRGAN as a LightningModule: super-resolution by an adversarial network (Wang et al. 2018, arXiv 1809.00219)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import torch
import torch.nn.functional as F
from lightning import Callback
from torch import Tensor
from torch.optim.lr_scheduler import StepLR

from gan_lightning import distributed
from gan_lightning.callbacks.upscale_panels import UpscalePanels
from gan_lightning.degradations.second_order import RandomDegradation, degrade
from gan_lightning.errors import InputError
from gan_lightning.lpips import load_lpips
from gan_lightning.modules.checks import check_sizes
from gan_lightning.modules.ddp import prepare_ddp
from gan_lightning.modules.gan_training import GanTraining
from gan_lightning.modules.held_out_quality import HeldOutQuality
from gan_lightning.modules.learning_rates import LearningRates
from gan_lightning.modules.network_gradients import NetworkGradients
from gan_lightning.modules.precision import prepare_precision
from gan_lightning.modules.run_seed import RunSeed
from gan_lightning.modules.safe_loading import SafelyLoaded
from gan_lightning.modules.step_metrics import log_metrics
from gan_lightning.networks.checkpoints import GENERATOR_CLASS, class_name
from gan_lightning.networks.ema import frozen_copy, update_average, warm_decay
from gan_lightning.networks.rrdb import RRDBNet
from gan_lightning.networks.unet_discriminator import REDUCTION, UNetDiscriminator
from gan_lightning.objectives import relativistic_average_discriminator, relativistic_average_generator
from gan_lightning.seeding import batch_rng

FeatureLoss = Literal["discriminator", "lpips", "none"]


class ESRGAN(SafelyLoaded, RunSeed, GanTraining, NetworkGradients, HeldOutQuality):
    """ESRGAN, trained to enlarge images on pairs of an image and a smaller, degraded copy made for each batch.

    The first `adversarial_from` steps minimize only the absolute error, which gives the highest PSNR. Later steps add a
    loss between features and that of a relativistic average discriminator, which add detail. After both stages,
    best.ckpt is therefore the network with the highest PSNR, and last.ckpt the one with the most detail.
    """

    monitor = ("val/psnr", "max")
    generator: RRDBNet
    discriminator: UNetDiscriminator
    generator_ema: RRDBNet

    def __init__(
        self,
        image_size: int = 128,
        channels: int = 3,
        scale: int = 4,
        generator: tuple[int, int] = (64, 23),
        base_channels: int = 64,
        degradation: RandomDegradation = "bicubic",
        adversarial_from: int = 100_000,
        feature_loss: FeatureLoss = "discriminator",
        loss_weights: tuple[float, float, float] = (1.0, 1.0, 0.05),
        learning_rates: tuple[float, float] = (2e-4, 1e-4),
        halve_every: int = 0,
        ema_decay: float = 0.999,
    ) -> None:
        """Build both networks.

        Args:
            image_size: Height and width of the images of the data, which are the large ones; a multiple of 8.
            channels: 1 for gray images, 3 for color.
            scale: Factor by which images are enlarged: 1, 2 or 4.
            generator: Number of channels between the blocks of the generator, and number of blocks.
            base_channels: Number of channels of the discriminator at the full size.
            degradation: How small images are made: "bicubic", or at random by "first_order" or "second_order" blur,
                resizing, noise and JPEG, for photographs of unknown origin.
            adversarial_from: Number of steps that minimize only the absolute error.
            feature_loss: Features by which images are compared: those of the "discriminator", "lpips" (its weights must
                be on disk), or "none".
            loss_weights: Weights of the absolute error, of the loss between features, and of the adversarial loss.
            learning_rates: Adam's learning rates for generator and discriminator.
            halve_every: Number of steps between halvings of the generator's learning rate; 0 for none.
            ema_decay: Decay per step of the averaged generator, which validation and `upscale` use.

        Raises:
            InputError: If a value is unsupported, or the weights of LPIPS are missing.
        """
        super().__init__()
        self.save_hyperparameters()
        self.automatic_optimization = False
        self.image_size, self.channels, self.scale = image_size, channels, scale
        self.degradation, self.adversarial_from, self.feature_loss = degradation, adversarial_from, feature_loss
        self.loss_weights, self.halve_every, self.ema_decay = loss_weights, halve_every, ema_decay
        (self.lr_g, self.lr_d), self.gradient_clip = learning_rates, None
        self._check_options()
        self.generator = RRDBNet(channels, scale, *generator)
        self.discriminator = UNetDiscriminator(channels, base_channels)
        self.to(memory_format=torch.channels_last)  # convolutions are faster on it
        self.generator_ema = frozen_copy(self.generator)
        self.expect_images(channels, image_size)

    def _check_options(self) -> None:
        for name in ("adversarial_from", "halve_every", "lr_g", "lr_d"):
            if getattr(self, name) < 0:
                raise InputError(f"{name} must not be negative, but is {getattr(self, name)}")
        if min(self.loss_weights) < 0:
            raise InputError(f"loss_weights must not be negative, but are {list(self.loss_weights)}")
        if not 0 <= self.ema_decay < 1:
            raise InputError(f"ema_decay must lie in [0, 1), but is {self.ema_decay}")
        if self.image_size % REDUCTION:
            raise InputError(f"image_size {self.image_size} is not supported: choose a multiple of {REDUCTION}")
        if self.feature_loss == "lpips":
            load_lpips(torch.device("cpu"))  # raises here rather than in the middle of the training

    def forward(self, images: Tensor) -> Tensor:
        """Enlarge images (B,C,H,W) in [-1, 1] with the averaged generator; the result is not clamped to [-1, 1]."""
        return enlarged(self.generator_ema, images)

    def reduce(self, images: Tensor, rng: torch.Generator) -> Tensor:
        """Make small images of images (B,C,H,W) in [-1, 1], as training does; random kinds draw from `rng`."""
        return degrade(images, self.scale, self.degradation, rng)

    def configure_callbacks(self) -> list[Callback]:
        """Return the callback that draws panels, unless the trainer has one."""
        given = self.trainer.callbacks  # type: ignore[attr-defined]
        return [] if any(isinstance(callback, UpscalePanels) for callback in given) else [UpscalePanels()]

    def setup(self, stage: str) -> None:
        """Check model, data and trainer against each other, and prepare precision and DDP for two networks.

        Raises:
            InputError: If the data have another number of channels or image size, or the precision or stage is
                unsupported.
        """
        super().setup(stage)
        if stage == "predict":
            raise InputError("predict draws images from latents: to enlarge images, use gan-lightning upscale")
        check_sizes(self, getattr(self.trainer, "datamodule", None))
        prepare_precision(self.trainer)
        prepare_ddp(self, second_derivative=False)

    def configure_optimizers(self) -> Any:
        """Return one Adam for each network, generator and discriminator, and the schedule of the generator."""
        optimizers = self.adam_of_each((0.9, 0.99))
        if not self.halve_every:
            return optimizers
        return optimizers, [{"scheduler": StepLR(optimizers[0], self.halve_every, 0.5), "interval": "step"}]

    def on_fit_start(self) -> None:
        """Choose the seed of the degradations, and store the settings of the optimizers."""
        super().on_fit_start()
        self._rates = LearningRates(self)

    def on_train_start(self) -> None:
        """Use the optimizer settings of this run, not those of the checkpoint."""
        self._rates.settle(self)
        self._clock.restart()

    def training_step(self, batch: Any, batch_idx: int) -> None:
        """Update G, and then D from step `adversarial_from` on.

        Args:
            batch: Images (B,C,H,W) float32 in [-1, 1], in a dict, alone or with labels, which are ignored.
            batch_idx: Index in the epoch.
        """
        large = self._train_batches.images(batch)
        self._rates.begin_batch()
        step, interval = self.global_step + 1, self.trainer.log_every_n_steps  # type: ignore[attr-defined]
        due = step == 1 or (interval > 0 and step % interval == 0)
        self.measure_gradients(due)
        self._clock.add(len(large) * self.trainer.world_size)
        rng = batch_rng(self._seed, self.global_rank, self.trainer.fit_loop.total_batch_idx)
        small = self.reduce(large, rng)

        adversarial = step > self.adversarial_from
        fake, losses = self._generator_step(small, large, adversarial)
        if adversarial:
            losses["loss_d"] = self._discriminator_step(large, fake)
        update_average(self.generator_ema, self.generator, warm_decay(self.ema_decay, step - 1))
        self._rates.step(self.trainer, batch_idx, after_generator=True)
        self.end_batch_on_axis()

        self._watch.add(self.global_step, *(losses[name] for name in ("loss_g", "loss_d") if name in losses))
        if due or self._watch.is_free:
            self._watch.check(self.trainer)
        if due:
            means = distributed.mean({**losses, **self.gradient_norms})
            means["images_per_second"] = self._clock.images_per_second()
            log_metrics(self, {f"train/{name}": value for name, value in means.items()}, bar=("train/loss_g",))
            self._clock.restart()

    def _generator_step(self, small: Tensor, large: Tensor, adversarial: bool) -> tuple[Tensor, dict[str, Tensor]]:
        """Update G with the loss of this stage; return its images, detached, and the losses."""
        optimizer = self.optimizer_pair()[0]
        self.toggle_optimizer(optimizer)
        optimizer.zero_grad()
        fake = enlarged(self.generator, small)
        losses = {"l1": (fake.float() - large).abs().mean()}
        loss = losses["l1"]
        if adversarial:
            with torch.no_grad():
                logits_real, features_real = self.discriminator.judge(large)
            logits_fake, features_fake = self.discriminator.judge(fake)
            losses["features"] = self._feature_distance(fake, large, features_fake, features_real)
            losses["adversarial"] = relativistic_average_generator(logits_fake, logits_real)
            parts = (losses[name] for name in ("l1", "features", "adversarial"))
            loss = sum(
                (weight * part for weight, part in zip(self.loss_weights, parts, strict=True)), loss.new_zeros(())
            )
        self.add_gradients("generator", loss, share=1)
        self.average_gradients(optimizer)
        optimizer.step()
        self.untoggle_optimizer(optimizer)
        return fake.detach(), {name: value.detach() for name, value in (losses | {"loss_g": loss}).items()}

    def _feature_distance(
        self, fake: Tensor, large: Tensor, features_fake: Sequence[Tensor], features_real: Sequence[Tensor]
    ) -> Tensor:
        if self.feature_loss == "lpips":
            with torch.autocast(self.device.type, enabled=False):
                images = [x.float().expand(-1, 3, -1, -1) for x in (fake, large)]
                return load_lpips(self.device)(*images).mean()
        pairs = zip(features_fake, features_real, strict=True) if self.feature_loss == "discriminator" else ()
        return sum(
            (F.l1_loss(ours.float(), real.float()) for ours, real in pairs), fake.new_zeros((), dtype=torch.float32)
        )

    def _discriminator_step(self, large: Tensor, fake: Tensor) -> Tensor:
        """Update D on reals and detached fakes; return its loss."""
        optimizer = self.optimizer_pair()[1]
        optimizer.zero_grad()
        logits_real, logits_fake = self.discriminator(large), self.discriminator(fake)
        loss = self.add_gradients(
            "discriminator", relativistic_average_discriminator(logits_real, logits_fake), share=1
        )
        self.average_gradients(optimizer, self.discriminator)
        # `optimizer.step()` would count as a step of the trainer.
        self.trainer.strategy.optimizer_step(optimizer.optimizer, lambda: None)
        return loss

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Save the class of G."""
        super().on_save_checkpoint(checkpoint)
        checkpoint[GENERATOR_CLASS] = class_name(self.generator)


def enlarged(network: RRDBNet, images: Tensor) -> Tensor:
    """Enlarge images in [-1, 1] with a network that works in [0, 1]."""
    large: Tensor = 2 * network((images + 1) / 2) - 1
    return large
