"""Networks as plain `torch.nn` modules: usable with no Lightning at all."""

from gan_lightning.networks.dcgan import Discriminator, Generator

__all__ = ["Discriminator", "Generator"]
