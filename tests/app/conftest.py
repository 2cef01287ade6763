import pytest
import torch

from gan_lightning.app.limits import Limits
from gan_lightning.app.restoration import PhotoRestoration
from tests.generators import write_generator


@pytest.fixture(scope="package")
def generator(tmp_path_factory):
    return write_generator(tmp_path_factory.mktemp("generator"))


@pytest.fixture(scope="package")
def restoration(generator):
    return PhotoRestoration(generator, Limits(megabytes=1, megapixels=0.1), torch.device("cpu"))
