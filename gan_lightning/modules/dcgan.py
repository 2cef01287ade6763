"""DCGAN as a LightningModule: Algorithm 1 of Goodfellow et al. 2014, with manual optimization."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from gan_lightning.augmentation import Augmentation
from gan_lightning.modules.augmented_images import AugmentedImages
from gan_lightning.modules.checks import check_sizes, check_training_options
from gan_lightning.modules.ddp import prepare_ddp
from gan_lightning.modules.gan_networks import GanNetworks
from gan_lightning.modules.held_out import HeldOutScore
from gan_lightning.modules.image_batches import repeated
from gan_lightning.modules.learning_rates import LearningRates
from gan_lightning.modules.network_gradients import NetworkGradients
from gan_lightning.modules.precision import prepare_precision, weights_cast_once
from gan_lightning.modules.sampling import SamplingModule
from gan_lightning.modules.saved_weights import SavedWeights
from gan_lightning.modules.schedule import Schedule, Scheduled
from gan_lightning.modules.step_graphs import StepGraphs, StepKind
from gan_lightning.modules.step_metrics import LOSSES, LoggedStep
from gan_lightning.networks.architectures import ArchitectureName
from gan_lightning.networks.conditional import with_labels
from gan_lightning.networks.dcgan import DiscriminatorNormalization, GeneratorNormalization
from gan_lightning.networks.ema import frozen_copy, update_average
from gan_lightning.objectives import OBJECTIVES, ObjectiveName, Penalties
from gan_lightning.seeding import batch_seed

Network = Callable[..., Tensor]
Outputs = dict[str, Tensor]


class DCGAN(
    SavedWeights, AugmentedImages, Scheduled, LoggedStep, GanNetworks, NetworkGradients, HeldOutScore, SamplingModule
):
    """Deep convolutional GAN (Radford et al. 2016) with a choice of objectives and gradient penalties.

    A step, for `max_steps`, checkpoints and loggers, is one iteration of the generator and takes `d_steps` batches.
    """

    def __init__(
        self,
        image_size: int = 64,
        channels: int = 3,
        latent_dim: int = 100,
        base_channels: int = 64,
        generator_normalization: GeneratorNormalization | None = None,
        discriminator_normalization: DiscriminatorNormalization | None = None,
        objective: ObjectiveName = "non_saturating",
        lr_g: float = 2e-4,
        lr_d: float = 2e-4,
        betas: tuple[float, float] = (0.5, 0.999),
        d_steps: int = 1,
        fresh_latents: bool = False,
        generator_batch: int | None = None,
        label_smoothing: float = 0.0,
        r1: float = 0.0,
        r2: float = 0.0,
        gradient_penalty: float = 0.0,
        penalty_interval: int = 1,
        gradient_clip: float | None = None,
        accumulate: int = 1,
        ema_decay: float = 0.999,
        ema_half_life: float | None = None,
        schedule: Schedule | None = None,
        compile: bool = False,
        cuda_graph: bool | None = None,
        num_classes: int = 0,
        architecture: ArchitectureName = "dcgan",
        generator: nn.Module | None = None,
        discriminator: nn.Module | None = None,
        augmentation: Augmentation | None = None,
    ) -> None:
        """Build both networks.

        Args:
            image_size: Height and width of the images: 16, 32, 64, 128 or 256.
            channels: 1 for gray images, 3 for color.
            latent_dim: Length of the latent vector.
            base_channels: Number of channels of the layer closest to the image, in both networks.
            generator_normalization: "batch", "group" or "none"; by default "batch", and "none" for modern networks.
            discriminator_normalization: "batch", "group", "spectral" or "none"; by default "batch", "spectral" for
                residual and "none" for modern networks.
            objective: saturating, non_saturating, bce_mse, least_squares, hinge, wasserstein or relativistic.
            lr_g: Adam's learning rate for the generator.
            lr_d: Adam's learning rate for the discriminator.
            betas: Adam's decay rates, for both networks.
            d_steps: Discriminator steps per generator step, each on its own batch: k of Algorithm 1.
            fresh_latents: Draw new latents for the generator's step, as Algorithm 1 does. Otherwise the step reuses
                the fakes that the discriminator has just seen, as the PyTorch example does, and saves a forward pass.
            generator_batch: Number of fakes in the generator's step on each rank, from new latents; by default the
                size of the batch.
            label_smoothing: Lower the target of real images to 1 - label_smoothing (one-sided).
            r1: Weight gamma of the gradient penalty on real images (Mescheder et al. 2018); 10 is common.
            r2: Weight gamma of the gradient penalty on fakes.
            gradient_penalty: Weight lambda of the WGAN-GP penalty (Gulrajani et al. 2017); 10 is common.
            penalty_interval: Compute penalties only at every n-th discriminator step, multiplied by n.
            gradient_clip: Largest L2 norm of a network's gradient; a longer gradient is scaled down to it.
            accumulate: Number of parts that a batch is split into to save memory; their gradients add up to one step.
            ema_decay: Decay per step of the averaged generator that validation, sampling and restoration use,
                warmed up from 0.1. With 0 the average is the generator itself.
            ema_half_life: Half-life of that average in images, instead of ema_decay; shorter in the beginning.
            schedule: Changes of learning rates, betas and penalties with the number of images seen; null for none.
            compile: Compile the networks of the training step with torch.compile, which takes about a minute at the
                start. Gradient penalties are not compiled, because compiled networks have no second derivative.
            cuda_graph: Replay the training step as a CUDA graph, which the host launches in one call. By default on a
                single GPU, if the step can be captured. Up to rounding, the weights are the same without it.
            num_classes: Number of classes, for data with labels; 0 for a model without labels.
            architecture: dcgan, residual (SNGAN: Miyato et al. 2018) or modern (R3GAN: Huang et al. 2024).
            generator: Your own generator: latents (B, latent_dim), and labels if any, to images in [-1, 1].
            discriminator: Your own discriminator: images (B,C,H,W), and labels if any, to logits (B,).
            augmentation: Differentiable augmentation of the discriminator's images, for small data sets; null for none.

        Raises:
            InputError: If a value is unsupported.
        """
        super().__init__()
        self.save_hyperparameters()
        self.set_schedule(schedule)
        self.set_augmentation(augmentation, channels, objective)
        self.automatic_optimization = False
        self.image_size, self.channels, self.num_classes = image_size, channels, num_classes
        self.latent_dim, self.lr_g, self.lr_d, self.betas = latent_dim, lr_g, lr_d, betas
        self.d_steps, self.fresh_latents, self.accumulate = d_steps, fresh_latents, accumulate
        self.label_smoothing, self.gradient_clip, self.ema_decay = label_smoothing, gradient_clip, ema_decay
        self.ema_half_life, self.generator_batch = ema_half_life, generator_batch
        self.penalties, self.penalty_interval = Penalties(r1, r2, gradient_penalty), penalty_interval
        check_training_options({**vars(self), **vars(self.penalties), "objective": objective})
        self.compiled, self.cuda_graph, self.objective = compile, cuda_graph, OBJECTIVES[objective]
        self._network_options = architecture, base_channels, generator_normalization, discriminator_normalization
        self._given_networks = generator, discriminator
        self.generator, self.discriminator = self.build_networks()
        self.to(memory_format=torch.channels_last)  # convolutions are faster on it
        self.generator_ema = frozen_copy(self.generator)
        self.expect_images(channels, image_size, num_classes)

    def setup(self, stage: str) -> None:
        """Check model, data and trainer against each other, and prepare precision and DDP for two networks.

        Raises:
            InputError: If the data have another number of channels, image size or classes; if the precision is
                unsupported; or if SyncBatchNorm is used with a gradient penalty or without a GPU.
        """
        super().setup(stage)
        check_sizes(self, getattr(self.trainer, "datamodule", None))
        prepare_precision(self.trainer)
        prepare_ddp(self, second_derivative=bool(self.penalties))

    def configure_optimizers(self) -> list[Optimizer]:
        """Return one Adam for each network: generator, discriminator."""
        return self.adam_of_each(self.betas)

    def on_fit_start(self) -> None:
        """Choose the seed of the latents, and store the settings of the optimizers."""
        super().on_fit_start()
        self._log_interval: int = self.trainer.log_every_n_steps  # type: ignore[attr-defined]
        self._rates = LearningRates(self)

    def on_train_start(self) -> None:
        """Use the optimizer settings of this run, not those of the checkpoint; compile or capture on request.

        Raises:
            InputError: If a CUDA graph is requested, but impossible.
        """
        self._rates.settle(self)
        self.start_schedule()
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
            batch_idx: Index in the epoch. It is not used, because the cycle of `d_steps` continues across epochs.
        """
        inputs = self._train_batches.inputs(batch)
        self._rates.begin_batch()
        count = self.trainer.fit_loop.total_batch_idx
        turn_of_g = (count + 1) % self.d_steps == 0
        step, interval = self.global_step + 1, self._log_interval
        due = turn_of_g and (step == 1 or (interval > 0 and step % interval == 0))  # 1: of untrained networks
        penalize = bool(self.penalties) and count % self.penalty_interval == 0
        self._graphs.rng.manual_seed(batch_seed(self._seed, self.global_rank, count))
        global_batch = len(inputs[0]) * self.trainer.world_size
        self._clock.add(global_batch)
        self.follow_schedule(global_batch)

        outputs = self._graphs.run(self._update_networks, inputs, StepKind(turn_of_g, penalize, due))
        self.keep_penalty(outputs)
        if turn_of_g:
            update_average(self.generator_ema, self.generator, self.average_decay(self.d_steps * global_batch))
        self._rates.step(self.trainer, batch_idx, turn_of_g)
        self.end_batch_on_axis()

        if turn_of_g:
            self._watch.add(self.global_step, *(outputs[name] for name in LOSSES if name in outputs))
        if due or (turn_of_g and self._watch.is_free):
            self._watch.check(self.trainer)
        if due:
            self.log_step(outputs)

    def _update_networks(self, inputs: tuple[Tensor, ...], kind: StepKind) -> Outputs:
        """Update D, and G if it is its turn; may be captured as a CUDA graph, so no value is read back to the host."""
        real, labels = self.augmented(inputs[0]), inputs[1:]  # fakes get the labels of the reals
        self.measure_gradients(kind.logged)
        fresh = self.fresh_latents or self.accumulate > 1 or self.generator_batch is not None
        reuse = kind.of_generator and not fresh
        latents = self._draw_latents(len(real))
        with torch.set_grad_enabled(reuse):
            fake = self.augmented(self._networks[0](latents, *labels))
        outputs = self._discriminator_step(kind, real, fake.detach(), *labels)
        if kind.of_generator:
            if not reuse:
                real, *rows = repeated(self.generator_batch or len(real), real, *labels)
                labels = tuple(rows)
                latents = self._draw_latents(len(real))
            outputs |= self._generator_step(fake if reuse else None, real, latents, *labels)
            outputs |= {"latents": latents} | ({"labels": labels[0]} if labels else {})
        return outputs | self.gradient_norms

    def _draw_latents(self, count: int) -> Tensor:
        return torch.randn(count, self.latent_dim, generator=self._graphs.rng, device=self.device)

    def _discriminator_step(self, kind: StepKind, real: Tensor, fake: Tensor, *labels: Tensor) -> Outputs:
        """Update D on reals and detached fakes; return its loss, its penalty and the logits of the reals."""
        (_, discriminator), (_, optimizer) = self._networks, self.optimizer_pair()
        optimizer.zero_grad()
        losses: list[Tensor] = []
        penalties: list[Tensor] = []
        for real_part, fake_part, *label in self.parts(real, fake, *labels):
            share = len(real_part) / len(real)
            with weights_cast_once(self.device.type):
                logits_real, logits_fake = discriminator(real_part, *label), discriminator(fake_part, *label)
            loss = self.objective.discriminator(logits_real, logits_fake, 1 - self.label_smoothing)
            losses.append(share * loss.detach())
            if kind.penalized:
                critic = with_labels(self.discriminator, *label)
                penalty = self.penalties(critic, real_part, fake_part, self._graphs.rng)
                loss = loss + self.penalty_weight * penalty
                penalties.append(share * penalty.detach())
            self.add_gradients("discriminator", loss, share)
        penalized = {"penalty_d": sum(penalties[1:], penalties[0])} if penalties else {}
        changed = () if kind.of_generator else (self.generator, self.discriminator)  # else they go with G's gradients
        self.average_gradients(optimizer, *changed, others=list(penalized.values()))
        # `optimizer.step()` would count as a step of the trainer.
        self.trainer.strategy.optimizer_step(optimizer.optimizer, lambda: None)
        adapted = self.adapt_augmentation(logits_real, logits_fake, len(real))
        loss_d = sum(losses[1:], losses[0])
        return {"loss_d": loss_d, "logits_real": logits_real.detach(), **penalized, **adapted}

    def _generator_step(self, fake: Tensor | None, real: Tensor, latents: Tensor, *labels: Tensor) -> Outputs:
        """Update G through a frozen D, on the given fakes and their graph if any; return the loss and the logits."""
        (generator, discriminator), (optimizer, _) = self._networks, self.optimizer_pair()
        self.toggle_optimizer(optimizer)
        optimizer.zero_grad()
        losses: list[Tensor] = []
        for real_part, latents_part, *label in self.parts(real, latents, *labels):
            seen = self.augmented(generator(latents_part, *label)) if fake is None else fake
            logits_fake = discriminator(seen, *label)
            logits_real = discriminator(real_part, *label) if self.objective.needs_real else None
            loss = self.objective.generator(logits_fake, logits_real)
            losses.append(self.add_gradients("generator", loss, len(real_part) / len(real)))
        self.average_gradients(optimizer, self.generator, self.discriminator)
        optimizer.step()
        self.untoggle_optimizer(optimizer)
        return {"loss_g": sum(losses[1:], losses[0]), "logits_fake": logits_fake.detach()}

    def on_train_end(self) -> None:
        """Free the memory of CUDA graphs."""
        self._graphs.close()
