"""Reading an encoder of latents from a checkpoint, for the generator that it was trained on."""

from __future__ import annotations

import os

from gan_lightning.errors import InputError
from gan_lightning.networks.checkpoints import load_tensors
from gan_lightning.networks.class_priors import ClassPriors
from gan_lightning.networks.encoder import Encoder
from gan_lightning.networks.stylegan2_prior import PlainGenerator, StyleGAN2Prior
from gan_lightning.pretrained import find_weights


def load_encoder(path: str | os.PathLike[str], generator: PlainGenerator | StyleGAN2Prior | ClassPriors) -> Encoder:
    """Read the encoder from a checkpoint of `LatentEncoder`.

    Args:
        path: Checkpoint of a `LatentEncoder`, or name of weights that come with the package.
        generator: The generator whose latents the encoder guesses.

    Returns:
        The encoder, in evaluation mode, without gradients, on the CPU.

    Raises:
        InputError: If the file is missing, contains no encoder, or the encoder of another generator or space.
    """
    path = find_weights(path, "encoder")
    content = load_tensors(path)
    try:
        prefix = "encoder."
        state = {k.removeprefix(prefix): v for k, v in content["state_dict"].items() if k.startswith(prefix)}
        options = content["hyper_parameters"]
        widths = options["base_channels"], options["hidden_dim"]
        encoder = Encoder(generator.image_size, generator.channels, generator.latent_dim, *widths)
    except (KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{path} holds no encoder: give a checkpoint of LatentEncoder") from error
    if isinstance(generator, StyleGAN2Prior):
        guessed = (options["space"] or "w") if "space" in options else "z"  # before there was a choice, it was z
        if guessed != generator.space:
            raise InputError(
                f"{path} guesses latents of {guessed}, but the search is in {generator.space}: set space to {guessed}, "
                f"or train an encoder with space {generator.space}"
            )
    try:
        encoder.load_state_dict(state)
    except RuntimeError as error:
        raise InputError(f"{path} is the encoder of another generator: train one on this generator") from error
    return encoder.eval().requires_grad_(False)
