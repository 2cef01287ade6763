"""Small generator that is quick to invert, with batch norm statistics like those of a trained one."""

import pytest
import torch

from gan_lightning.networks.dcgan import Generator


@pytest.fixture(scope="session")
def generator() -> Generator:
    torch.manual_seed(0)
    network = Generator(image_size=16, channels=3, latent_dim=8, base_channels=8)
    for parameter in network.parameters():
        if parameter.ndim == 4:
            parameter.data.mul_(6)
    network(torch.randn(256, 8))  # initializes the running statistics
    for _ in range(40):
        network(torch.randn(256, 8))
    return network.eval()


@pytest.fixture
def own_images(generator: Generator) -> torch.Tensor:
    with torch.no_grad():
        images: torch.Tensor = generator(torch.randn(6, 8, generator=torch.Generator().manual_seed(1)))
    return images


@pytest.fixture
def other_images(own_images: torch.Tensor) -> torch.Tensor:
    """Images outside the range of the generator."""
    noise = torch.randn(own_images.shape, generator=torch.Generator().manual_seed(2))
    return (own_images + 0.1 * noise).clamp(-1, 1)
