"""Checks of the options of a module, before anything is built or trained."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from gan_lightning.degradations import Degradation, GaussianBlur
from gan_lightning.errors import InputError
from gan_lightning.inversion import InversionSettings
from gan_lightning.inversion.losses import make_loss
from gan_lightning.networks.class_priors import SEARCH
from gan_lightning.objectives import OBJECTIVES, SMOOTHABLE


def check_sizes(model: object, data: object) -> None:
    """Check that data and model have the same number of channels and image size, if both state them.

    Args:
        model: A module, a network, or the options of one, with the attributes `channels` and `image_size`.
        data: A data module, or the options of one, with the same attributes.

    Raises:
        InputError: If they differ.
    """
    for name in ("channels", "image_size"):
        ours, theirs = getattr(model, name, None), getattr(data, name, None)
        if ours is not None and theirs is not None and ours != theirs:
            raise InputError(
                f"the data's {name} is {theirs}, the model's {ours}: set data.{name} to {ours}, or change the model"
            )


def check_training_options(options: Mapping[str, Any]) -> None:
    """Check the values of the training options of DCGAN.

    Args:
        options: All options by name.

    Raises:
        InputError: If a value is unsupported.
    """
    objective, clip = options["objective"], options["gradient_clip"]
    if objective not in OBJECTIVES:
        raise InputError(f"unsupported objective {objective!r}: choose one of {', '.join(OBJECTIVES)}")
    if options["label_smoothing"] and objective not in SMOOTHABLE:
        raise InputError(f"label_smoothing needs an objective with targets: {', '.join(SMOOTHABLE)}")
    for name in ("d_steps", "penalty_interval", "accumulate"):
        if options[name] < 1:
            raise InputError(f"{name} must be at least 1, but is {options[name]}")
    for name in ("label_smoothing", "ema_decay"):
        if not 0 <= options[name] < 1:
            raise InputError(f"{name} must lie in [0, 1), but is {options[name]}")
    for name in ("lr_g", "lr_d", "r1", "r2", "gradient_penalty"):
        if options[name] < 0:
            raise InputError(f"{name} must not be negative, but is {options[name]}")
    if not all(0 <= beta < 1 for beta in options["betas"]):
        raise InputError(f"betas must lie in [0, 1), but are {list(options['betas'])}")
    if options["generator_batch"] is not None and options["generator_batch"] < 1:
        raise InputError(
            f"generator_batch must be at least 1, or null for the batch's, not {options['generator_batch']}"
        )
    if options["ema_half_life"] is not None and options["ema_half_life"] < 0:
        raise InputError(f"ema_half_life must not be negative, but is {options['ema_half_life']}")
    if clip is not None and clip <= 0:
        raise InputError(f"gradient_clip must be positive, or null for no clipping, but is {clip}")


def check_restoration_options(
    degradation: Degradation | None,
    inversion: InversionSettings,
    masks: str | None,
    encoder_ckpt: object,
    label: int | str | None,
    *,
    blind_blur: bool,
) -> None:
    """Raise if options of `LatentRestoration` exclude each other, or the weights of LPIPS are not available."""
    if label == SEARCH and (blind_blur or encoder_ckpt is not None):
        option = "blind_blur" if blind_blur else "encoder_ckpt"
        raise InputError(f"{option} needs the class of the images: set label to it, or leave {option} out")
    if blind_blur and (masks is not None or not isinstance(degradation, GaussianBlur | None)):
        raise InputError("blind_blur estimates a Gaussian blur alone: leave masks and other degradations out")
    if blind_blur and encoder_ckpt is not None:
        raise InputError("blind_blur starts where its own search for the blur ended: leave encoder_ckpt out")
    if inversion.loss == "lpips":
        make_loss(inversion.loss, None, torch.device("cpu"))
