import pytest
import torch

from gan_lightning.app.limits import Limits
from gan_lightning.app.restoration import PhotoRestoration
from gan_lightning.networks.dcgan import Generator

SIZE = 16


@pytest.fixture(scope="package")
def generator(tmp_path_factory):
    torch.manual_seed(0)
    network = Generator(SIZE, latent_dim=6, base_channels=4)
    path = tmp_path_factory.mktemp("generator") / "generator.pt"
    torch.save(network.state_dict(), path)
    return str(path)


@pytest.fixture(scope="package")
def restoration(generator):
    return PhotoRestoration(generator, Limits(megabytes=1, megapixels=0.1), torch.device("cpu"))
