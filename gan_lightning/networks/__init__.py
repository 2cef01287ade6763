"""Networks as plain `torch.nn` modules, independent of Lightning."""

from gan_lightning.networks.dcgan import Discriminator, Generator
from gan_lightning.networks.stylegan2 import StyleGAN2Generator
from gan_lightning.networks.stylegan2_prior import StyleGAN2Prior

__all__ = ["Discriminator", "Generator", "StyleGAN2Generator", "StyleGAN2Prior"]
