"""Train GANs at scale with Lightning, measure them exactly, restore photographs with them."""

from __future__ import annotations

from importlib import import_module
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gan_lightning.data.celeba import CelebA
    from gan_lightning.data.image_folder import ImageFolder
    from gan_lightning.data.mnist import MNIST, FashionMNIST
    from gan_lightning.data.photos import Photos
    from gan_lightning.data.streamed_images import StreamedImages
    from gan_lightning.data.synthetic_faces import SyntheticFaces
    from gan_lightning.errors import DivergedError, InputError
    from gan_lightning.inversion import Inversion, invert
    from gan_lightning.modules.dcgan import DCGAN
    from gan_lightning.modules.encoder import LatentEncoder
    from gan_lightning.modules.restoration import LatentRestoration
    from gan_lightning.networks.checkpoints import load_generator
    from gan_lightning.networks.dcgan import Discriminator, Generator

# Public name -> where it lives. Imported on first use, so that `gan-lightning --help` does not wait for torch.
_HOMES = {
    "DCGAN": "gan_lightning.modules.dcgan",
    "CelebA": "gan_lightning.data.celeba",
    "DivergedError": "gan_lightning.errors",
    "Discriminator": "gan_lightning.networks.dcgan",
    "FashionMNIST": "gan_lightning.data.mnist",
    "Generator": "gan_lightning.networks.dcgan",
    "ImageFolder": "gan_lightning.data.image_folder",
    "InputError": "gan_lightning.errors",
    "Inversion": "gan_lightning.inversion",
    "LatentEncoder": "gan_lightning.modules.encoder",
    "LatentRestoration": "gan_lightning.modules.restoration",
    "MNIST": "gan_lightning.data.mnist",
    "Photos": "gan_lightning.data.photos",
    "StreamedImages": "gan_lightning.data.streamed_images",
    "SyntheticFaces": "gan_lightning.data.synthetic_faces",
    "invert": "gan_lightning.inversion",
    "load_generator": "gan_lightning.networks.checkpoints",
}

__all__ = [
    "DCGAN",
    "MNIST",
    "CelebA",
    "Discriminator",
    "DivergedError",
    "FashionMNIST",
    "Generator",
    "ImageFolder",
    "InputError",
    "Inversion",
    "LatentEncoder",
    "LatentRestoration",
    "Photos",
    "StreamedImages",
    "SyntheticFaces",
    "invert",
    "load_generator",
]


def __getattr__(name: str) -> Any:
    if name == "__version__":
        return version("gan-lightning")
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOMES])
