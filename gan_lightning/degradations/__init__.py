"""Forward operators A(x) of image restoration as differentiable modules on (B,C,H,W), and, separately, noise."""

from gan_lightning.degradations.base import Compose, Degradation, Identity
from gan_lightning.degradations.color import Grayscale
from gan_lightning.degradations.mask_files import read_mask
from gan_lightning.degradations.masks import FileMask, HalfMask, Mask, RandomMask, SquareMask, read_masks
from gan_lightning.degradations.noise import GaussianNoise, PoissonNoise, SaltAndPepperNoise
from gan_lightning.degradations.separable import Downsample, GaussianBlur

__all__ = [
    "Compose",
    "Degradation",
    "Downsample",
    "FileMask",
    "GaussianBlur",
    "GaussianNoise",
    "Grayscale",
    "HalfMask",
    "Identity",
    "Mask",
    "PoissonNoise",
    "RandomMask",
    "SaltAndPepperNoise",
    "SquareMask",
    "read_mask",
    "read_masks",
]
