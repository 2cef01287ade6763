"""StyleGAN2 trained as `DCGAN` is, with its two lazy regularizers."""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor, nn

from gan_lightning import distributed
from gan_lightning.data.image_data_module import ImageDataModule
from gan_lightning.errors import InputError
from gan_lightning.modules.dcgan import DCGAN
from gan_lightning.modules.gan_networks import refuse_other_networks
from gan_lightning.networks.conditional import check_classes
from gan_lightning.networks.stylegan2 import StyleGAN2Generator
from gan_lightning.networks.stylegan2_discriminator import StyleGAN2Discriminator, path_lengths

MEAN_RATE = 0.01  # at which the mean path length follows that of a batch
FEWER = 2  # path lengths are measured on a part of the batch


class StyleGAN2(DCGAN):
    """StyleGAN2 (Karras et al. 2020, arXiv 1912.04958) with the training step, the options and the files of `DCGAN`.

    Regularizers are lazy: R1 at every `penalty_interval`-th step of the discriminator, the path length at every
    `path_interval`-th step of the generator. There is no style mixing.
    """

    path_mean: Tensor
    class_counts: Tensor

    def __init__(
        self,
        image_size: int = 32,
        latent_dim: int = 64,
        base_channels: int = 32,
        max_channels: int = 128,
        w_dim: int = 64,
        mapping_layers: int = 4,
        path_length: float = 2.0,
        path_interval: int = 4,
        r1: float = 0.1,
        penalty_interval: int = 16,
        lr_g: float = 2e-3,
        lr_d: float = 2e-3,
        betas: tuple[float, float] = (0.0, 0.99),
        **training: Any,
    ) -> None:
        """Build both networks.

        Args:
            image_size: Height and width of the images: a power of two from 16 to 1024.
            latent_dim: Length of the latent vector z.
            base_channels: Number of channels at the full size, doubled at each halving of it, in both networks.
            max_channels: Largest number of channels of a layer.
            w_dim: Length of w.
            mapping_layers: Number of layers of the mapping.
            path_length: Weight of the squared distance of the path lengths from their mean; 0 for none.
            path_interval: Compute it only at every n-th generator step, multiplied by n.
            r1: Weight gamma of the gradient penalty on real images; the papers use more for larger images.
            penalty_interval: Compute R1 only at every n-th discriminator step, multiplied by n.
            lr_g: Adam's learning rate for the generator.
            lr_d: Adam's learning rate for the discriminator.
            betas: Adam's decay rates, for both networks.
            training: Options of `DCGAN`.

        Raises:
            InputError: If a value is unsupported.
        """
        refuse_other_networks("StyleGAN2", training)
        if path_length < 0 or path_interval < 1:
            raise InputError(
                f"path_length must not be negative and path_interval at least 1, not {path_length} and {path_interval}"
            )
        if training.get("cuda_graph"):
            raise InputError("cuda_graph: true is impossible: path lengths are read by the host; set it to false")
        training["cuda_graph"] = False  # also for null, which the command line passes
        if training.get("num_classes"):
            check_classes(training["num_classes"])
        self.path_length, self.path_interval = path_length, path_interval
        super().__init__(
            image_size=image_size,
            latent_dim=latent_dim,
            base_channels=base_channels,
            r1=r1,
            penalty_interval=penalty_interval,
            lr_g=lr_g,
            lr_d=lr_d,
            betas=betas,
            **training,
        )
        self.register_buffer("path_mean", torch.zeros(()))
        if self.num_classes:
            self.register_buffer("class_counts", torch.ones(self.num_classes, dtype=torch.int64))

    def build_generator(self) -> nn.Module:
        """Return G."""
        options: Any = self.hparams
        return StyleGAN2Generator(
            self.image_size,
            self.channels,
            self.latent_dim,
            options.base_channels,
            options.max_channels,
            options.w_dim,
            label_dim=self.num_classes,
            mapping_layers=options.mapping_layers,
        )

    def build_discriminator(self) -> nn.Module:
        """Return D."""
        options: Any = self.hparams
        return StyleGAN2Discriminator(
            self.image_size,
            self.channels,
            options.base_channels,
            options.max_channels,
            label_dim=self.num_classes,
            mapping_layers=options.mapping_layers,
        )

    def on_fit_start(self) -> None:
        """Store how often each class occurs in the training data, because the generator's file has no place for it."""
        super().on_fit_start()
        data = getattr(self.trainer, "datamodule", None)
        counts = data.class_counts() if self.num_classes and isinstance(data, ImageDataModule) else None
        if counts is not None:
            self.class_counts.copy_(torch.from_numpy(counts))

    def draw_labels(self, count: int, rng: torch.Generator | None = None) -> tuple[Tensor, ...]:
        """Draw labels (count,) as often as they occur in the training data; none for a module without classes."""
        if not self.num_classes:
            return ()
        weights = self.class_counts.double().to(rng.device if rng else self.device)
        return (torch.multinomial(weights, count, True, generator=rng).to(self.device),)

    def _generator_step(self, fake: Tensor | None, real: Tensor, latents: Tensor, *labels: Tensor) -> dict[str, Tensor]:
        outputs = super()._generator_step(fake, real, latents, *labels)
        if self.path_length and self.global_step % self.path_interval == 0:
            norms = dict(self.gradient_norms)  # those of the losses are logged
            count = max(1, len(latents) // FEWER)
            self._path_length_step(latents[:count], *(label[:count] for label in labels))
            self.gradient_norms = norms
        return outputs

    def _path_length_step(self, latents: Tensor, *labels: Tensor) -> None:
        """Pull the path lengths of G towards their mean, in a separate step."""
        generator, (optimizer, _) = cast(StyleGAN2Generator, self.generator), self.optimizer_pair()
        self.toggle_optimizer(optimizer)
        optimizer.zero_grad()
        with torch.autocast(self.device.type, enabled=False):
            lengths = path_lengths(generator.synthesis, generator.mapping(latents, *labels), self._graphs.rng)
        length = distributed.mean({"length": lengths.mean().detach()})["length"]
        self.path_mean += MEAN_RATE * (length - self.path_mean)
        penalty = self.path_interval * self.path_length * (lengths - self.path_mean).square().mean()
        self.add_gradients("generator", penalty, share=1)
        self.average_gradients(optimizer)
        self.trainer.strategy.optimizer_step(optimizer.optimizer, lambda: None)  # not counted as a step of the trainer
        self.untoggle_optimizer(optimizer)
