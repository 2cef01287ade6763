"""Networks as plain `torch.nn` modules, independent of Lightning."""

from gan_lightning.networks.dcgan import Discriminator, Generator

__all__ = ["Discriminator", "Generator"]
