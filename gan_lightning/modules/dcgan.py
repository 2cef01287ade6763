"""DCGAN as a LightningModule: Algorithm 1 of Goodfellow et al. 2014, with manual optimization."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Adam, Optimizer

from gan_lightning import distributed
from gan_lightning.modules.checks import check_sizes, check_training_options
from gan_lightning.modules.ddp import prepare_ddp
from gan_lightning.modules.finite_watch import FiniteWatch
from gan_lightning.modules.held_out import HeldOutScore
from gan_lightning.modules.learning_rates import LearningRates
from gan_lightning.modules.network_gradients import NetworkGradients
from gan_lightning.modules.precision import ScalerPerNetwork, prepare_precision, weights_cast_once
from gan_lightning.modules.run_seed import RunSeed
from gan_lightning.modules.sampling import SamplingModule
from gan_lightning.modules.saved_weights import SavedWeights
from gan_lightning.modules.step_axis import StepAxis
from gan_lightning.modules.step_graphs import StepGraphs, StepKind
from gan_lightning.modules.step_metrics import StepClock, log_metrics, without_side_effects
from gan_lightning.networks.checkpoints import GENERATOR_CLASS, class_name
from gan_lightning.networks.conditional import make_discriminator, make_generator, with_labels
from gan_lightning.networks.dcgan import DiscriminatorNormalization, GeneratorNormalization
from gan_lightning.networks.ema import frozen_copy, update_average, warm_decay
from gan_lightning.objectives import OBJECTIVES, ObjectiveName, Penalties
from gan_lightning.seeding import batch_seed

Network = Callable[..., Tensor]
Outputs = dict[str, Tensor]


class DCGAN(SavedWeights, RunSeed, StepAxis, NetworkGradients, HeldOutScore, SamplingModule):
    """Deep convolutional GAN (Radford et al. 2016) with a choice of objectives and gradient penalties.

    A step, for `max_steps`, checkpoints and loggers, is one iteration of the generator and takes `d_steps` batches.
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
        cuda_graph: bool | None = None,
        num_classes: int = 0,
    ) -> None:
        """Build both networks.

        Args:
            image_size: Height and width of the images: 16, 32, 64, 128 or 256.
            channels: 1 for gray images, 3 for color.
            latent_dim: Length of the latent vector.
            base_channels: Number of channels of the layer nearest to the image, in both networks.
            generator_normalization: "batch" or "none".
            discriminator_normalization: "batch", "spectral" or "none".
            objective: saturating, non_saturating, bce_mse, least_squares, hinge, wasserstein or relativistic.
            lr_g: Adam's learning rate for the generator.
            lr_d: Adam's learning rate for the discriminator.
            betas: Adam's decay rates, for both networks.
            d_steps: Discriminator steps per generator step, each on a batch of its own: k of Algorithm 1.
            fresh_latents: Draw new latents for the generator's step, as Algorithm 1 does. Otherwise the step reuses
                the fakes that the discriminator has just seen, as the PyTorch example does, and saves a forward pass.
            label_smoothing: Lower the target of real images to 1 - label_smoothing (one-sided).
            r1: Weight gamma of the gradient penalty on real images (Mescheder et al. 2018); 10 is common.
            r2: Weight gamma of the gradient penalty on fakes.
            gradient_penalty: Weight lambda of the WGAN-GP penalty (Gulrajani et al. 2017); 10 is common.
            penalty_interval: Compute penalties only at every n-th discriminator step, multiplied by n.
            gradient_clip: Largest L2 norm of a network's gradient; a longer gradient is scaled down to it.
            accumulate: Number of parts that a batch is split into to save memory; their gradients add up to one step.
            ema_decay: Decay per step of the averaged generator that validation, sampling and restoration use,
                warmed up from 0.1. With 0 the average is the generator itself.
            compile: Speed up the training step's networks by torch.compile, which takes about a minute at the start.
                Gradient penalties stay uncompiled: compiled networks have no second derivative.
            cuda_graph: Replay the training step as a CUDA graph, which the host launches in one call. By default on a
                single GPU, if the step can be captured; the weights are those of the step without it, to rounding.
            num_classes: Number of classes, for data with labels; 0 for a model without labels.

        Raises:
            InputError: An unsupported value.
        """
        super().__init__()
        self.save_hyperparameters()
        self.automatic_optimization = False
        self.image_size, self.channels, self.latent_dim = image_size, channels, latent_dim
        self.lr_g, self.lr_d, self.betas = lr_g, lr_d, betas
        self.d_steps, self.fresh_latents, self.accumulate = d_steps, fresh_latents, accumulate
        self.label_smoothing, self.gradient_clip, self.ema_decay = label_smoothing, gradient_clip, ema_decay
        self.penalties, self.penalty_interval = Penalties(r1, r2, gradient_penalty), penalty_interval
        check_training_options({**vars(self), **vars(self.penalties), "objective": objective})
        self.compiled, self.cuda_graph, self.objective = compile, cuda_graph, OBJECTIVES[objective]
        self._network_options = base_channels, generator_normalization, discriminator_normalization
        self.num_classes = num_classes
        self.generator, self.discriminator = self.build_generator(), self.build_discriminator()
        self.to(memory_format=torch.channels_last)  # convolutions are faster on it
        self.generator_ema = frozen_copy(self.generator)
        self._watch, self._clock = FiniteWatch(), StepClock()
        self.expect_images(channels, image_size, num_classes)

    def build_generator(self) -> nn.Module:
        """Return G: latents (B, latent_dim), and labels (B,) of classes, to images. A subclass may return its own."""
        width, normalization, _ = self._network_options
        return make_generator(self.num_classes, self.image_size, self.channels, self.latent_dim, width, normalization)

    def build_discriminator(self) -> nn.Module:
        """Return D: images, and labels (B,) of classes, to logits (B,) of being real. A subclass may return its own."""
        width, _, normalization = self._network_options
        return make_discriminator(self.num_classes, self.image_size, self.channels, width, normalization)

    def forward(self, latents: Tensor, *labels: Tensor) -> Tensor:
        """Map latents (B, latent_dim), and labels (B,), to images (B,C,H,W) in [-1, 1] by the averaged generator."""
        images: Tensor = self.generator_ema(latents, *labels)
        return images

    def train(self, mode: bool = True) -> DCGAN:
        """Set the mode of both networks; the averaged generator always stays in evaluation mode."""
        super().train(mode)
        self.generator_ema.eval()
        return self

    def setup(self, stage: str) -> None:
        """Check model, data and trainer against each other, and prepare precision and DDP for two networks.

        Raises:
            InputError: The data have another number of channels, image size or classes; an unsupported precision;
                SyncBatchNorm with a gradient penalty, or without a GPU.
        """
        super().setup(stage)
        check_sizes(self, getattr(self.trainer, "datamodule", None))
        prepare_precision(self.trainer)
        prepare_ddp(self, second_derivative=bool(self.penalties))

    def configure_optimizers(self) -> list[Optimizer]:
        """Return one Adam for each network: generator, discriminator."""
        fused = self.device.type in ("cpu", "cuda")
        networks = (self.generator, self.lr_g), (self.discriminator, self.lr_d)
        return [Adam(network.parameters(), lr, self.betas, fused=fused) for network, lr in networks]

    def on_fit_start(self) -> None:
        """Choose the seed of the latents, and note the settings of the optimizers."""
        super().on_fit_start()
        self._log_interval: int = self.trainer.log_every_n_steps  # type: ignore[attr-defined]
        self._rates = LearningRates(self)

    def on_train_start(self) -> None:
        """Use the optimizer settings of this run, not those of the checkpoint; compile or capture if asked to.

        Raises:
            InputError: A CUDA graph is asked for, but impossible.
        """
        self._rates.settle(self)
        networks = (self.generator, self.discriminator)
        # In a tuple: as attributes, compiled modules would be in the state dict again.
        self._networks: tuple[Network, ...] = tuple(map(torch.compile, networks)) if self.compiled else networks
        self._graphs = StepGraphs(self, self.cuda_graph, DCGAN)
        self._clock.restart()

    def training_step(self, batch: Any, batch_idx: int) -> None:
        """Process one minibatch of Algorithm 1: a discriminator step, and after `d_steps` of them a generator step.

        Args:
            batch: Images (B,C,H,W) float32 in [-1, 1], and labels (B,) of classes: {"image": images, "label": labels},
                (images, labels), or images alone.
            batch_idx: Index in the epoch; the cycle of `d_steps` continues over epochs instead.
        """
        real, *labels = inputs = self._train_batches.inputs(batch)
        self._rates.begin_batch()
        count = self.trainer.fit_loop.total_batch_idx
        turn_of_g = (count + 1) % self.d_steps == 0
        step, interval = self.global_step + 1, self._log_interval
        due = turn_of_g and (step == 1 or (interval > 0 and step % interval == 0))  # 1: of untrained networks
        penalize = bool(self.penalties) and count % self.penalty_interval == 0
        self._graphs.rng.manual_seed(batch_seed(self._seed, self.global_rank, count))
        self._clock.add(len(real) * self.trainer.world_size)

        outputs = self._graphs.run(self._update_networks, inputs, StepKind(turn_of_g, penalize, due))
        if turn_of_g:
            update_average(self.generator_ema, self.generator, warm_decay(self.ema_decay, self.global_step - 1))
        self._rates.step(self.trainer, batch_idx, turn_of_g)
        self.end_batch_on_axis()

        if turn_of_g:
            self._watch.add(self.global_step, outputs["loss_d"], outputs["loss_g"])
        if due or (turn_of_g and self._watch.is_free):
            self._watch.check(self.trainer)
        if due:
            self._log_step(outputs, *labels)

    def _update_networks(self, inputs: tuple[Tensor, ...], kind: StepKind) -> Outputs:
        """Update D, and G if it is its turn: what is captured as a CUDA graph, and so reads nothing back."""
        real, *labels = inputs  # fakes are made for the labels of the reals
        self.measure_gradients(kind.logged)
        reuse = kind.of_generator and not self.fresh_latents and self.accumulate == 1
        latents = self._draw_latents(len(real))
        with torch.set_grad_enabled(reuse):
            fake = self._networks[0](latents, *labels)
        outputs = self._discriminator_step(kind, real, fake.detach(), *labels)
        if kind.of_generator:
            if not reuse:
                latents = self._draw_latents(len(real))
            outputs |= {"latents": latents, **self._generator_step(fake if reuse else None, real, latents, *labels)}
        return outputs | self.gradient_norms

    def _draw_latents(self, count: int) -> Tensor:
        return torch.randn(count, self.latent_dim, generator=self._graphs.rng, device=self.device)

    def _discriminator_step(self, kind: StepKind, real: Tensor, fake: Tensor, *labels: Tensor) -> Outputs:
        """Update D on reals and fakes, which carry no graph; return its loss and the logits of reals."""
        (_, discriminator), (_, optimizer) = self._networks, self.optimizer_pair()
        optimizer.zero_grad()
        losses: list[Tensor] = []
        for real_part, fake_part, *label in self._parts(real, fake, *labels):
            with weights_cast_once(self.device.type):
                logits_real, logits_fake = discriminator(real_part, *label), discriminator(fake_part, *label)
            loss = self.objective.discriminator(logits_real, logits_fake, 1 - self.label_smoothing)
            if kind.penalized:
                critic = with_labels(self.discriminator, *label)
                penalty = self.penalties(critic, real_part, fake_part, self._graphs.rng)
                loss = loss + self.penalty_interval * penalty
            losses.append(self.add_gradients("discriminator", loss, len(real_part) / len(real)))
        changed = () if kind.of_generator else (self.generator, self.discriminator)  # else they go with G's gradients
        self.average_gradients(optimizer, *changed)
        # `optimizer.step()` would count as a step of the trainer.
        self.trainer.strategy.optimizer_step(optimizer.optimizer, lambda: None)
        return {"loss_d": sum(losses[1:], losses[0]), "logits_real": logits_real.detach()}

    def _generator_step(self, fake: Tensor | None, real: Tensor, latents: Tensor, *labels: Tensor) -> Outputs:
        """Update G through a frozen D, by fakes with their graph if there are any; return its loss and their logits."""
        (generator, discriminator), (optimizer, _) = self._networks, self.optimizer_pair()
        self.toggle_optimizer(optimizer)
        optimizer.zero_grad()
        losses: list[Tensor] = []
        for real_part, latents_part, *label in self._parts(real, latents, *labels):
            logits_fake = discriminator(generator(latents_part, *label) if fake is None else fake, *label)
            logits_real = discriminator(real_part, *label) if self.objective.needs_real else None
            loss = self.objective.generator(logits_fake, logits_real)
            losses.append(self.add_gradients("generator", loss, len(real_part) / len(real)))
        self.average_gradients(optimizer, self.generator, self.discriminator)
        optimizer.step()
        self.untoggle_optimizer(optimizer)
        return {"loss_g": sum(losses[1:], losses[0]), "logits_fake": logits_fake.detach()}

    def _parts(self, *batch: Tensor) -> Iterable[tuple[Tensor, ...]]:
        count = self.accumulate
        return zip(*(tensor.chunk(count) for tensor in batch), strict=True) if count > 1 else (batch,)

    def _log_step(self, outputs: Outputs, *labels: Tensor) -> None:
        """Log the metrics of one step, and D on the same latents now that G has been updated."""
        score = self.objective.score
        images_after = without_side_effects(self.generator)(outputs["latents"], *labels)
        metrics = {name: outputs[name] for name in ("loss_d", "loss_g", "grad_norm_d", "grad_norm_g")}
        metrics |= {"d_x": score(outputs["logits_real"]), "d_g_z_before": score(outputs["logits_fake"])}
        metrics["d_g_z_after"] = score(without_side_effects(self.discriminator)(images_after, *labels))
        means = distributed.mean(metrics)  # waits for the device, so that the clock is right
        if isinstance(plugin := self.trainer.precision_plugin, ScalerPerNetwork):
            means |= plugin.scales()
        means["images_per_second"] = self._clock.images_per_second()
        named = {f"train/{name}": value for name, value in means.items()}
        log_metrics(self, named, bar=("train/loss_d", "train/loss_g", "train/images_per_second"))
        self._clock.restart()

    def on_train_end(self) -> None:
        """Free the memory of CUDA graphs."""
        self._graphs.close()

    def on_validation_start(self) -> None:
        """Raise before networks that have diverged are evaluated."""
        self._watch.check(self.trainer, self)

    def on_validation_end(self) -> None:
        """Leave the time of validation out of images per second."""
        self._clock.restart()

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Save the seed of the latents and the class of G; raise instead of saving networks that have diverged."""
        self._watch.check(self.trainer, self)
        super().on_save_checkpoint(checkpoint)
        checkpoint[GENERATOR_CLASS] = class_name(self.generator)
