"""LPIPS, the perceptual distance of Zhang et al. 2018."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import torch
from torch import Tensor

from gan_lightning.errors import InputError, first_line


@cache
def load_lpips(device: torch.device) -> Callable[[Tensor, Tensor], Tensor]:
    """Load the LPIPS of torchmetrics with AlexNet, once per device; the weights are downloaded on first use.

    Args:
        device: Device of the network.

    Returns:
        A differentiable function that maps two batches (B,3,H,W) in [-1, 1] to their distances (B,).

    Raises:
        InputError: If the weights cannot be loaded.
    """
    try:
        from torchmetrics.image.lpip import LearnedPerceptualImagePatchSimilarity

        network = LearnedPerceptualImagePatchSimilarity(net_type="alex").net.eval().requires_grad_(False).to(device)
    except Exception as error:  # no network, no torchvision weights, a full disk
        reason = first_line(error)
        raise InputError(
            f"LPIPS needs AlexNet's weights, which cannot be had ({reason}): choose another loss, or leave lpips out"
        ) from error

    def distance(images: Tensor, target: Tensor) -> Tensor:
        distances: Tensor = network(images, target)
        return distances.flatten()

    return distance
