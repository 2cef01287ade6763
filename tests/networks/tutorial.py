"""The networks of the PyTorch DCGAN tutorial, written down from its description: the reference of our tests."""

from torch import nn


def tutorial_generator(latent_dim: int = 100, width: int = 64, channels: int = 3) -> nn.Module:
    layers: list[nn.Module] = []
    sizes = [latent_dim, width * 8, width * 4, width * 2, width]
    for index in range(4):
        stride, padding = (1, 0) if index == 0 else (2, 1)
        layers.append(nn.ConvTranspose2d(sizes[index], sizes[index + 1], 4, stride, padding, bias=False))
        layers += [nn.BatchNorm2d(sizes[index + 1]), nn.ReLU(True)]
    network = nn.Module()
    network.main = nn.Sequential(*layers, nn.ConvTranspose2d(width, channels, 4, 2, 1, bias=False), nn.Tanh())
    return network


def tutorial_discriminator(width: int = 64, channels: int = 3) -> nn.Module:
    layers: list[nn.Module] = [nn.Conv2d(channels, width, 4, 2, 1, bias=False), nn.LeakyReLU(0.2, inplace=True)]
    for factor in (1, 2, 4):
        layers.append(nn.Conv2d(width * factor, width * factor * 2, 4, 2, 1, bias=False))
        layers += [nn.BatchNorm2d(width * factor * 2), nn.LeakyReLU(0.2, inplace=True)]
    network = nn.Module()
    network.main = nn.Sequential(*layers, nn.Conv2d(width * 8, 1, 4, 1, 0, bias=False), nn.Sigmoid())
    return network
