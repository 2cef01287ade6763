"""Known pixels back into an inpainted image: pasted, or blended so that no seam shows."""

from __future__ import annotations

import torch
from torch import Tensor

TOLERANCE = 1e-4  # of the squared residual, relative: far below one level of 8 bits
MAX_ITERATIONS = 1000


def paste_known(restored: Tensor, observed: Tensor, known: Tensor) -> Tensor:
    """Keep the restored image in the holes alone.

    Args:
        restored: (B,C,H,W).
        observed: (B,C,H,W).
        known: (1 or B,1,H,W), one where `observed` is right, zero in a hole.
    """
    return torch.where(known > 0.5, observed, restored)


@torch.no_grad()
def blend_known(restored: Tensor, observed: Tensor, known: Tensor) -> Tensor:
    """Keep the restored image's gradients in the holes, joined to the known pixels: Poisson blending.

    Perez et al. 2003, equation 7: inside a hole the correction to the restored image is the harmonic function that
    takes, on its border, the difference of known and restored pixels. Conjugate gradients, each image by itself.

    Args:
        restored: (B,C,H,W).
        observed: (B,C,H,W).
        known: (1 or B,1,H,W), one where `observed` is right, zero in a hole.
    """
    hole = (known < 0.5).to(restored)
    difference = (observed - restored) * (1 - hole)

    def laplacian(values: Tensor) -> Tensor:  # sum over the neighbours within the image of own minus theirs
        result = torch.zeros_like(values)
        for dimension in (-2, -1):
            steps = values.diff(dim=dimension)
            size = steps.shape[dimension]
            result.narrow(dimension, 0, size).sub_(steps)
            result.narrow(dimension, 1, size).add_(steps)
        return result

    correction = torch.zeros_like(restored)
    residual = -laplacian(difference) * hole
    direction, power = residual, residual.square().flatten(1).sum(1)
    enough = TOLERANCE**2 * power
    for _ in range(MAX_ITERATIONS):
        active = power > enough
        if not active.any():
            break
        moved = laplacian(direction) * hole
        curvature = (direction * moved).flatten(1).sum(1)
        step = torch.where(active, power / curvature.clamp(min=1e-30), 0.0).view(-1, 1, 1, 1)
        correction, residual = correction + step * direction, residual - step * moved
        before, power = power, residual.square().flatten(1).sum(1)
        ratio = torch.where(active, power / before.clamp(min=1e-30), 0.0).view(-1, 1, 1, 1)
        direction = residual + ratio * direction
    return restored + difference + correction
