"""Latent inversion: the image that a generator can make, or nearly make, whose degradation explains a photograph."""

from gan_lightning.inversion.invert import Inversion, invert

__all__ = ["Inversion", "invert"]
