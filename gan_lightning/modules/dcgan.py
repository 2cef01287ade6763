"""DCGAN as a LightningModule: Algorithm 1 of Goodfellow et al. 2014, optimized by hand."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from typing import Any, cast

import torch
from lightning.pytorch.core.optimizer import LightningOptimizer
from torch import Tensor
from torch.optim import Adam, Optimizer
from torch.utils.data import DataLoader
from torchmetrics import MeanMetric

from gan_lightning import distributed
from gan_lightning.errors import DivergedError, InputError
from gan_lightning.modules.ddp import prepare_ddp
from gan_lightning.modules.precision import NetworkName, ScalerPerNetwork, scale_per_network
from gan_lightning.modules.safe_loading import SafelyLoaded
from gan_lightning.modules.step_metrics import FiniteWatch, log_metrics, without_side_effects
from gan_lightning.networks.dcgan import Discriminator, DiscriminatorNormalization, Generator, GeneratorNormalization
from gan_lightning.networks.ema import frozen_copy, update_average, warm_decay
from gan_lightning.objectives import OBJECTIVES, SMOOTHABLE, ObjectiveName, Penalties
from gan_lightning.seeding import batch_rng

Player = Callable[[Tensor], Tensor]


class DCGAN(SafelyLoaded):
    """Deep convolutional GAN (Radford et al. 2016), with a choice of objectives and penalties.

    A step, for `max_steps`, checkpoints and loggers, is one iteration of the generator; it takes `d_steps` batches.
    """

    def __init__(
        self,
        image_size: int = 64,
        channels: int = 3,
        latent_dim: int = 100,
        base_channels: int = 64,
        generator_normalization: GeneratorNormalization = "batch",
        discriminator_normalization: DiscriminatorNormalization = "batch",
        objective: ObjectiveName = "non_saturating",
        lr_g: float = 2e-4,
        lr_d: float = 2e-4,
        betas: tuple[float, float] = (0.5, 0.999),
        d_steps: int = 1,
        fresh_latents: bool = False,
        label_smoothing: float = 0.0,
        r1: float = 0.0,
        r2: float = 0.0,
        gradient_penalty: float = 0.0,
        penalty_interval: int = 1,
        gradient_clip: float | None = None,
        accumulate: int = 1,
        ema_decay: float = 0.999,
        compile: bool = False,
    ) -> None:
        """Build both networks.

        Args:
            image_size: Height and width of the images: 16, 32, 64, 128 or 256.
            channels: 1 for grey images, 3 for colour.
            latent_dim: Length of the latent vector.
            base_channels: Channels at the layer nearest to the image, in both networks.
            generator_normalization: "batch" or "none".
            discriminator_normalization: "batch", "spectral" or "none".
            objective: The game: saturating, non_saturating, bce_mse, least_squares, hinge, wasserstein, relativistic.
            lr_g: Adam's learning rate for the generator.
            lr_d: Adam's learning rate for the discriminator.
            betas: Adam's decay rates, for both networks.
            d_steps: Discriminator steps, each on a batch of its own, per generator step: k of Algorithm 1.
            fresh_latents: Draw new latents for the generator's step, as Algorithm 1 does. Otherwise the step reuses
                the fakes that the discriminator has just seen, as the PyTorch example does, and saves a forward pass.
            label_smoothing: Lowers the target of real images to 1 - label_smoothing (one-sided).
            r1: Weight gamma of the gradient penalty on real images (Mescheder et al. 2018); 10 is common.
            r2: Weight gamma of the gradient penalty on fakes.
            gradient_penalty: Weight lambda of the WGAN-GP penalty (Gulrajani et al. 2017); 10 is common.
            penalty_interval: Compute penalties only every n-th discriminator step, n times as heavy (lazy).
            gradient_clip: Largest L2 norm of a network's gradient; longer ones are scaled down to it.
            accumulate: Parts that a batch is split into to save memory; their gradients are accumulated to one step.
            ema_decay: Decay, per step, of the averaged generator that validation, sampling and restoration use.
                It is warmed up from 0.1. With 0 the average is the generator itself.
            compile: Let torch.compile make the training step's networks faster; it takes a minute or so at the start.
                Gradient penalties stay uncompiled: compiled networks have no second derivative.

        Raises:
            InputError: A value that is not supported, with those that are.
        """
        super().__init__()
        self.save_hyperparameters()
        self.automatic_optimization = False
        self.image_size, self.channels, self.latent_dim = image_size, channels, latent_dim
        self.lr_g, self.lr_d, self.betas = lr_g, lr_d, betas
        self.d_steps, self.fresh_latents, self.accumulate = d_steps, fresh_latents, accumulate
        self.label_smoothing, self.gradient_clip, self.ema_decay = label_smoothing, gradient_clip, ema_decay
        self.compiled = compile
        self.penalties, self.penalty_interval = Penalties(r1, r2, gradient_penalty), penalty_interval
        self._check_settings(objective)
        self.objective = OBJECTIVES[objective]
        self.generator = Generator(image_size, channels, latent_dim, base_channels, generator_normalization)
        self.discriminator = Discriminator(image_size, channels, base_channels, discriminator_normalization)
        self.to(memory_format=torch.channels_last)  # convolutions are faster on it
        self.generator_ema = frozen_copy(self.generator)
        self.num_samples = 64  # how many images `predict` draws
        self._watch = FiniteWatch()
        self._score_held_out = MeanMetric()
        self._gradient_norms: dict[str, Tensor] = {}
        self._seed = 0  # of the latents: see on_fit_start
        self._loaded_seed: int | None = None

    def _check_settings(self, objective: str) -> None:
        if objective not in OBJECTIVES:
            raise InputError(f"objective {objective!r} is not known: choose one of {', '.join(OBJECTIVES)}")
        if self.label_smoothing and objective not in SMOOTHABLE:
            raise InputError(f"label_smoothing needs an objective with targets: {', '.join(SMOOTHABLE)}")
        for name in ("d_steps", "penalty_interval", "accumulate"):
            if getattr(self, name) < 1:
                raise InputError(f"{name} must be at least 1, not {getattr(self, name)}")
        for name in ("label_smoothing", "ema_decay"):
            if not 0 <= getattr(self, name) < 1:
                raise InputError(f"{name} must lie in [0, 1), not {getattr(self, name)}")
        for name, value in (("lr_g", self.lr_g), ("lr_d", self.lr_d), *vars(self.penalties).items()):
            if value < 0:
                raise InputError(f"{name} must not be negative, but is {value}")
        if not all(0 <= beta < 1 for beta in self.betas):
            raise InputError(f"betas must lie in [0, 1), not {list(self.betas)}")
        if self.gradient_clip is not None and self.gradient_clip <= 0:
            raise InputError(f"gradient_clip must be positive, or null for no clipping, not {self.gradient_clip}")

    def forward(self, latents: Tensor) -> Tensor:
        """Map latents (B, latent_dim) to images (B,C,H,W) in [-1, 1] by the averaged generator."""
        images: Tensor = self.generator_ema(latents)
        return images

    def train(self, mode: bool = True) -> DCGAN:
        """Set the mode of both networks; the averaged generator always stays in evaluation mode."""
        super().train(mode)
        self.generator_ema.eval()
        return self

    def load_state_dict(self, state_dict: Mapping[str, Any], *args: Any, **kwargs: Any) -> Any:
        """Take weights.

        Raises:
            InputError: They are of other networks.
        """
        try:
            return super().load_state_dict(state_dict, *args, **kwargs)
        except RuntimeError as error:
            raise InputError(
                "the checkpoint's networks are not those of the configuration: "
                "leave model.image_size, channels, latent_dim, base_channels and the normalizations as they were"
            ) from error

    @torch.no_grad()
    def sample(self, count: int, rng: torch.Generator | None = None) -> Tensor:
        """Draw images from the averaged generator.

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
            raise DivergedError(
                "the generator makes images that are not finite: train again with a lower learning rate"
            )
        return images

    def setup(self, stage: str) -> None:
        """Compare model, data and trainer; make DDP fit for two networks.

        Raises:
            InputError: The data's channels or image size are not the model's; a precision that is not supported;
                SyncBatchNorm together with a gradient penalty, or without a GPU.
        """
        data = getattr(self.trainer, "datamodule", None)
        for name in ("channels", "image_size"):
            ours, theirs = getattr(self, name), getattr(data, name, None)
            if theirs not in (None, ours):
                raise InputError(f"the data's {name} is {theirs}, the model's {ours}: set data.{name} or model.{name}")
        if str(self.trainer.precision).endswith("-true") and self.trainer.precision != "32-true":
            raise InputError(
                f"precision {self.trainer.precision} is not supported: 32-true, bf16-mixed or 16-mixed are"
            )
        scale_per_network(self.trainer.strategy)
        prepare_ddp(self, second_derivative=bool(self.penalties))

    def configure_optimizers(self) -> list[Optimizer]:
        """One Adam for each network: generator, discriminator."""
        fused = self.device.type in ("cpu", "cuda")
        return [
            Adam(self.generator.parameters(), self.lr_g, self.betas, fused=fused),
            Adam(self.discriminator.parameters(), self.lr_d, self.betas, fused=fused),
        ]

    def on_fit_start(self) -> None:
        """Take the seed of the latents from the checkpoint, or from `seed_everything`: the same on every rank."""
        self._seed = torch.initial_seed() % 2**63 if self._loaded_seed is None else self._loaded_seed
        self._loaded_seed = None
        self._log_interval: int = self.trainer.log_every_n_steps  # type: ignore[attr-defined]

    def on_train_start(self) -> None:
        """Start the clock of images per second; use the settings of this run, not those of the one it resumes."""
        for optimizer, lr in zip(self._optimizers(), (self.lr_g, self.lr_d), strict=True):
            for group in optimizer.param_groups:
                group["lr"], group["betas"] = lr, self.betas
        # As the training step calls them. In a tuple: attributes that are modules would be in the state dict again.
        self._players: tuple[Player, Player] = (self.generator, self.discriminator)
        if self.compiled:
            self._players = torch.compile(self.generator), torch.compile(self.discriminator)
        self._restart_clock()

    def training_step(self, batch: dict[str, Tensor], batch_idx: int) -> None:
        """Take one minibatch of Algorithm 1: D's step, and after `d_steps` of them G's.

        Args:
            batch: "image" holds (B,C,H,W) float32 in [-1, 1].
            batch_idx: Index in the epoch; the cycle of `d_steps` runs on over epochs instead.
        """
        real = batch["image"]
        count = self.trainer.fit_loop.total_batch_idx
        turn_of_g = (count + 1) % self.d_steps == 0
        reuse = turn_of_g and not self.fresh_latents and self.accumulate == 1
        step = self.global_step + 1
        self._due = turn_of_g and (
            step == 1 or (self._log_interval and step % self._log_interval == 0)
        )  # the first: networks as yet untrained
        self._rng = batch_rng(self._seed, self.global_rank, count, self.device)
        self._images_seen += len(real) * self.trainer.world_size

        generator, _ = self._players
        latents = self._draw_latents(len(real))
        with torch.set_grad_enabled(reuse):
            fake = generator(latents)
        loss_d, logits_real = self._discriminator_step(real, fake.detach(), penalize=count % self.penalty_interval == 0)
        if not turn_of_g:
            distributed.average_buffers(self.generator, self.discriminator)
            return
        if not reuse:
            latents = self._draw_latents(len(real))
        loss_g, logits_fake = self._generator_step(real, latents, fake if reuse else None)
        distributed.average_buffers(self.generator, self.discriminator)
        update_average(self.generator_ema, self.generator, warm_decay(self.ema_decay, self.global_step - 1))

        self._watch.add(self.global_step, loss_d, loss_g)
        if self._due or self._watch.is_free:
            self._watch.check(self.trainer)
        if self._due:
            self._log_step(loss_d, loss_g, logits_real, logits_fake, latents)

    def _draw_latents(self, count: int) -> Tensor:
        return torch.randn(count, self.latent_dim, generator=self._rng, device=self.device)

    def _discriminator_step(self, real: Tensor, fake: Tensor, penalize: bool) -> tuple[Tensor, Tensor]:
        """Update D on reals and fakes, which carry no graph; give its loss and the logits of reals."""
        (_, discriminator), (_, optimizer) = self._players, self._optimizers()
        optimizer.zero_grad()
        total = real.new_zeros(())
        for real_part, fake_part in zip(self._parts(real), self._parts(fake), strict=True):
            logits_real, logits_fake = discriminator(real_part), discriminator(fake_part)
            loss = self.objective.discriminator(logits_real, logits_fake, 1 - self.label_smoothing)
            if penalize and self.penalties:
                penalty = self.penalties(self.discriminator, real_part, fake_part, self._rng)
                loss = loss + self.penalty_interval * penalty
            loss = loss * (len(real_part) / len(real))
            self._backward(loss, "discriminator")
            total += loss.detach()
        # Not by `optimizer.step()`: the trainer would count this as a step of its own.
        self.trainer.strategy.optimizer_step(optimizer.optimizer, lambda: None)
        return total, logits_real.detach()

    def _generator_step(self, real: Tensor, latents: Tensor, fake: Tensor | None) -> tuple[Tensor, Tensor]:
        """Update G through a D that is held fixed; give its loss and the logits of fakes.

        `fake` is G(latents) with its graph, if it has been made already.
        """
        (generator, discriminator), (optimizer, _) = self._players, self._optimizers()
        self.toggle_optimizer(optimizer)
        optimizer.zero_grad()
        total = real.new_zeros(())
        for real_part, latents_part in zip(self._parts(real), self._parts(latents), strict=True):
            logits_fake = discriminator(generator(latents_part) if fake is None else fake)
            logits_real = discriminator(real_part) if self.objective.needs_real else None
            loss = self.objective.generator(logits_fake, logits_real) * (len(real_part) / len(real))
            self._backward(loss, "generator")
            total += loss.detach()
        optimizer.step()
        self.untoggle_optimizer(optimizer)
        return total, logits_fake.detach()

    def _backward(self, loss: Tensor, network: NetworkName) -> None:
        """Add the gradients of a network's loss: scaled by its own scale, where the precision has one."""
        plugin = self.trainer.precision_plugin
        if isinstance(plugin, ScalerPerNetwork):
            plugin.choose(network)
        with torch.autocast(self.device.type, enabled=False):  # or a penalty's second derivative would not be float32
            self.manual_backward(loss)

    def _parts(self, batch: Tensor) -> tuple[Tensor, ...]:
        return batch.chunk(self.accumulate)

    def _optimizers(self) -> list[LightningOptimizer]:
        return cast(list[LightningOptimizer], self.optimizers())

    def on_before_optimizer_step(self, optimizer: Optimizer) -> None:
        """Measure and clip a network's gradient: here it is unscaled, whatever the precision."""
        clip = self.gradient_clip
        if self._due or clip is not None:
            name = "g" if optimizer is self._optimizers()[0].optimizer else "d"
            parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
            norm = torch.nn.utils.clip_grad_norm_(parameters, math.inf if clip is None else clip)
            self._gradient_norms[f"train/grad_norm_{name}"] = norm

    def _log_step(
        self, loss_d: Tensor, loss_g: Tensor, logits_real: Tensor, logits_fake: Tensor, latents: Tensor
    ) -> None:
        """Log the figures of one step; "after" is D on the same latents once G has moved."""
        images_after = without_side_effects(self.generator)(latents)
        logits_after = without_side_effects(self.discriminator)(images_after)
        tensors = {
            "train/loss_d": loss_d,
            "train/loss_g": loss_g,
            "train/d_x": self.objective.score(logits_real),
            "train/d_g_z_before": self.objective.score(logits_fake),
            "train/d_g_z_after": self.objective.score(logits_after),
            **self._gradient_norms,
        }
        metrics = distributed.mean(tensors)  # waits for the device: now the clock is true
        if isinstance(plugin := self.trainer.precision_plugin, ScalerPerNetwork):
            metrics |= plugin.scales()
        metrics["train/images_per_second"] = self._images_seen / (time.perf_counter() - self._started)
        log_metrics(self, metrics, bar=("train/loss_d", "train/loss_g", "train/images_per_second"))
        self._restart_clock()

    def _restart_clock(self) -> None:
        self._started, self._images_seen = time.perf_counter(), 0

    def on_validation_start(self) -> None:
        """Stop before networks that have diverged are measured."""
        self._watch.check(self.trainer, self)

    def validation_step(self, batch: dict[str, Tensor], batch_idx: int) -> None:
        """Score held-out images by D: below its score of training images, D has begun to memorise those."""
        if count := len(batch["image"]):  # of fewer images than ranks some have none
            self._score_held_out.update(self.objective.score(self.discriminator(batch["image"])), count)

    def on_validation_epoch_end(self) -> None:
        """Log D's mean score of held-out images, over all ranks."""
        score = self._score_held_out.compute()
        self._score_held_out.reset()
        if not self.trainer.sanity_checking:
            log_metrics(self, {"val/d_x": score})

    def on_validation_end(self) -> None:
        """Leave the time of validation out of images per second."""
        self._restart_clock()

    def test_step(self, batch: dict[str, Tensor], batch_idx: int) -> None:
        """Nothing for a batch: the figures of a test are those of the callbacks, on samples."""

    def predict_dataloader(self) -> DataLoader[int]:
        """Give the numbers of the images to draw: `num_samples` of them.

        Raises:
            InputError: They are fewer than the ranks.
        """
        if self.num_samples < self.trainer.world_size:
            raise InputError(
                f"{self.num_samples} images are fewer than {self.trainer.world_size} ranks: use fewer devices"
            )
        return DataLoader(range(self.num_samples), batch_size=64)  # type: ignore[arg-type]

    def predict_step(self, batch: Tensor, batch_idx: int) -> Tensor:
        """Draw the images of these numbers (B,), each from a seed of its own: the same however they are batched."""
        seed = torch.initial_seed() % 2**63
        no_rank = 2**31  # or the latents would be those of the training's batches
        return torch.cat([self.sample(1, batch_rng(seed, no_rank, int(number))) for number in batch])

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Never save networks that have diverged; keep the seed of the latents."""
        self._watch.check(self.trainer, self)
        checkpoint["latent_seed"] = self._seed

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Go on with the latents of the run, whatever `seed_everything` is now."""
        self._loaded_seed = checkpoint.get("latent_seed")
