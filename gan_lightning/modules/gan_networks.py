"""The two networks of a GAN: built by the name of an architecture or passed as modules, and checked in checkpoints."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from gan_lightning.errors import InputError
from gan_lightning.modules.gan_training import GanTraining
from gan_lightning.modules.step_metrics import without_side_effects
from gan_lightning.networks.architectures import make_discriminator, make_generator
from gan_lightning.networks.checkpoints import DISCRIMINATOR_CLASS, GENERATOR_CLASS, class_name

CLASSES = {"generator": GENERATOR_CLASS, "discriminator": DISCRIMINATOR_CLASS}  # network -> key of our checkpoints
DCGAN_ALONE = {"architecture": "dcgan", "generator": None, "discriminator": None}  # options and their defaults
TRIED = 2  # images; batch normalization needs more than one


class GanNetworks(GanTraining):
    """A module whose generator and discriminator are built by the name of an architecture, or are passed as modules."""

    image_size: int
    channels: int
    latent_dim: int
    num_classes: int
    _network_options: tuple[Any, ...]  # architecture, base_channels, both normalizations
    _given_networks: tuple[nn.Module | None, nn.Module | None]  # in a tuple: not in the state dict twice

    def forward(self, latents: Tensor, *labels: Tensor) -> Tensor:
        """Map latents (B, latent_dim), and labels (B,), to images (B,C,H,W) in [-1, 1] with the averaged generator."""
        images: Tensor = self.generator_ema(latents, *labels)
        return images

    def build_generator(self) -> nn.Module:
        """Return G: latents (B, latent_dim), and labels (B,) of classes, to images. A subclass may return its own."""
        name, width, normalization, _ = self._network_options
        if (given := self._given_networks[0]) is not None:
            return _without_normalization(given, "generator", normalization)
        sizes = {"image_size": self.image_size, "channels": self.channels, "latent_dim": self.latent_dim}
        return make_generator(name, normalization, self.num_classes, base_channels=width, **sizes)

    def build_discriminator(self) -> nn.Module:
        """Return D: images, and labels (B,) of classes, to logits (B,) of being real. A subclass may return its own."""
        name, width, _, normalization = self._network_options
        if (given := self._given_networks[1]) is not None:
            return _without_normalization(given, "discriminator", normalization)
        sizes = {"image_size": self.image_size, "channels": self.channels}
        return make_discriminator(name, normalization, self.num_classes, base_channels=width, **sizes)

    def build_networks(self) -> tuple[nn.Module, nn.Module]:
        """Return G and D; networks that were passed as modules are tried on two images.

        Raises:
            InputError: If such a network does not return the right shape.
        """
        generator, discriminator = self.build_generator(), self.build_discriminator()
        of_generator, of_discriminator = self._given_networks
        labels = [torch.zeros(TRIED, dtype=torch.long)] if self.num_classes else []
        images = (TRIED, self.channels, self.image_size, self.image_size)
        if of_generator is not None:
            latents = torch.randn(TRIED, self.latent_dim, generator=torch.Generator().manual_seed(0))
            _try("generator", generator, images, latents, *labels)
        if of_discriminator is not None:
            pixels = torch.rand(images, generator=torch.Generator().manual_seed(0)) * 2 - 1
            _try("discriminator", discriminator, (TRIED,), pixels, *labels)
        return generator, discriminator

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Save the classes of both networks."""
        super().on_save_checkpoint(checkpoint)
        checkpoint |= {key: class_name(getattr(self, name)) for name, key in CLASSES.items()}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Check that the networks have the classes of those that were trained.

        Raises:
            InputError: If a class differs, even if the shapes of the weights are the same.
        """
        super().on_load_checkpoint(checkpoint)
        for name, key in CLASSES.items():
            theirs, ours = checkpoint.get(key), class_name(getattr(self, name))
            # Compare without the module: a class of a script is in __main__ when it is trained, and elsewhere later.
            if theirs is not None and theirs.rpartition(".")[2] != ours.rpartition(".")[2]:
                raise InputError(
                    f"the {name} of the checkpoint is a {theirs}, this model's a {ours}: give the network that was "
                    f"trained, as in load_from_checkpoint(path, {name}={theirs.rpartition('.')[2]}(...))"
                )


def refuse_other_networks(model: str, options: dict[str, Any]) -> None:
    """Check that a model with its own networks is not given others.

    Args:
        model: Name of the model.
        options: Options that it passes on to `DCGAN`.

    Raises:
        InputError: If these options choose other networks.
    """
    for name, default in DCGAN_ALONE.items():
        if options.get(name, default) is not default and options[name] != default:
            raise InputError(f"{model} has networks of its own: leave {name} out, or train a DCGAN")


def _without_normalization(network: nn.Module, name: str, normalization: str | None) -> nn.Module:
    if normalization is not None:
        raise InputError(f"{name}_normalization is {normalization}, but a {name} was given: leave one of them out")
    return network


def _try(name: str, network: nn.Module, expected: tuple[int, ...], *inputs: Tensor) -> None:
    """Check the shape of a network's output, without changing its buffers or the state of the random generators."""
    call: Callable[..., Any] = without_side_effects(network)
    taken = " and labels ".join(str(tuple(tensor.shape)) for tensor in inputs)
    needed = f"it must map {'latents' if name == 'generator' else 'images'} {taken} to {expected}"
    try:
        with torch.random.fork_rng(devices=[]):
            output = call(*inputs)
    except (RuntimeError, TypeError, ValueError, IndexError, AttributeError) as error:
        reason = str(error).strip().partition("\n")[0]
        raise InputError(f"the {name} {type(network).__name__} fails ({reason}): {needed}") from error
    shape = tuple(output.shape) if isinstance(output, Tensor) else type(output).__name__
    if shape != expected:
        raise InputError(f"the {name} {type(network).__name__} returns {shape}: {needed}")
