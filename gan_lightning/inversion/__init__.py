"""Latent inversion: the search for an image in or near the range of a generator that explains a degraded photograph."""

from gan_lightning.inversion.blind import BlurEstimate, estimate_blur
from gan_lightning.inversion.data_consistency import data_consistency
from gan_lightning.inversion.invert import Inversion, invert
from gan_lightning.inversion.noise_level import estimate_noise_level
from gan_lightning.inversion.prior import DrawsLatents, HasFeatures, Prior
from gan_lightning.inversion.settings import InversionSettings

__all__ = [
    "BlurEstimate",
    "DrawsLatents",
    "HasFeatures",
    "Inversion",
    "InversionSettings",
    "Prior",
    "data_consistency",
    "estimate_blur",
    "estimate_noise_level",
    "invert",
]
