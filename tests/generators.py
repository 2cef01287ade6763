"""Generators as small as they come, in files, for tests of the commands that take one."""

import torch

from gan_lightning.networks.dcgan import Generator


def write_generator(folder, image_size=16):
    """Write the weights of an untrained generator, and return the path as the command line takes it."""
    torch.manual_seed(0)
    path = folder / "generator.pt"
    torch.save(Generator(image_size, latent_dim=6, base_channels=4).state_dict(), path)
    return str(path)
