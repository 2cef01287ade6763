"""Averages of a network over its training, whose length is chosen afterwards (Karras et al. 2023, arXiv 2312.02696).

The weights of such an average are a power t^gamma of the time. Its length is the standard deviation of this profile,
relative to the length of the training: 0.05 averages over the last twentieth or so (section 3.1 of the paper). Averages
of two lengths are tracked, and snapshots of them combined to that of another length (section 3.2).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from gan_lightning.errors import InputError

LONGEST = 12**-0.5  # standard deviation of equal weights, gamma = 0


def exponent_of(length: float) -> float:
    """Return gamma of the profile of a length: the largest root of (gamma + 2)^2 (gamma + 3) length^2 = gamma + 1.

    Args:
        length: Relative standard deviation of the profile.

    Raises:
        InputError: If the length is not positive, or larger than that of equal weights, 0.288.
    """
    if not 0 < length <= LONGEST:
        raise InputError(f"the length of an average must lie in (0, {LONGEST:.3f}], but is {length}")
    inverse = length**-2
    roots = np.roots([1, 7, 16 - inverse, 12 - inverse])
    return float(max(roots[np.isreal(roots)].real))


def length_of(exponent: float) -> float:
    """Return the length of the profile of an exponent gamma: its relative standard deviation."""
    return float((exponent + 1) ** 0.5 / (exponent + 2) / (exponent + 3) ** 0.5)


def decay_of(exponent: float, time: int, passed: int = 1) -> float:
    """Return the decay of an average at an update; it is 0 at the first update.

    Args:
        exponent: gamma of the profile.
        time: Steps, or images, from the start of the training to this update.
        passed: Steps, or images, since the last update; equal to `time` at the first.
    """
    return float((1 - passed / time) ** (exponent + 1))


def inner_products(times: Tensor, exponents: Tensor, others: Tensor, other_exponents: Tensor) -> Tensor:
    """Integrate the products of profiles (gamma + 1) t^gamma / T^(gamma + 1) on [0, T].

    Args:
        times: T of the first profiles (A,), float64.
        exponents: gamma of the first profiles (A,), float64.
        others: T of the second profiles (B,), float64.
        other_exponents: gamma of the second profiles (B,), float64.

    Returns:
        Integrals (A,B) of each with each: both are zero after the earlier T.
    """
    t, u = times[:, None], others[None]
    g, h = exponents[:, None], other_exponents[None]
    first = torch.minimum(t, u)
    # Powers of ratios, because powers of the numbers of steps would overflow.
    shared: Tensor = (first / t) ** g * (first / u) ** h * first / (t * u)
    return (g + 1) * (h + 1) / (g + h + 1) * shared


def combination(times: Sequence[float], lengths: Sequence[float], time: float, length: float) -> Tensor:
    """Find the combination of snapshots that is closest to an average of another length, by least squares.

    Args:
        times: Step (N,) of each snapshot.
        lengths: Length (N,) of the average in each snapshot.
        time: Step at which the desired average ends.
        length: Length of the desired average.

    Returns:
        Factors (N,) float64 of the snapshots. They sum to 1, so that constant weights are preserved.

    Raises:
        InputError: If a length is out of range, or there is no snapshot.
    """
    if not times:
        raise InputError("there is no snapshot to combine: train with snapshots of two averages")
    known = torch.tensor(times, dtype=torch.float64)
    exponents = torch.tensor([exponent_of(each) for each in lengths], dtype=torch.float64)
    wanted = torch.tensor([time], dtype=torch.float64), torch.tensor([exponent_of(length)], dtype=torch.float64)
    products = inner_products(known, exponents, known, exponents)
    # Scaled to ones on the diagonal, because early snapshots have the largest products.
    scale = products.diagonal().rsqrt()
    right = scale[:, None] * inner_products(known, exponents, *wanted)
    found: Tensor = torch.linalg.lstsq(scale[:, None] * products * scale, right, driver="gelsd").solution
    factors = scale * found[:, 0]
    return factors / factors.sum()
