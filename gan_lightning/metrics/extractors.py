"""Feature extractors for distances between distributions of images."""

from __future__ import annotations

import hashlib
import os
import socket
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Final

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gan_lightning.errors import InputError

INCEPTION_FILE: Final = "weights-inception-2015-12-05-6726825d.pth"
INCEPTION_URL: Final = f"https://github.com/toshas/torch-fidelity/releases/download/v0.2.0/{INCEPTION_FILE}"
INCEPTION_SHA256: Final = "6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2"


class FeatureExtractor(nn.Module, ABC):
    """A fixed map from images to feature vectors.

    Attributes:
        name: Name of network and weights. Features with the same name are comparable; cached statistics rely on this.
        label: Short name, used as the suffix of the names of metrics.
        num_features: Length of a feature vector.
    """

    name: str
    label: str
    num_features: int

    @abstractmethod
    def forward(self, images: Tensor) -> Tensor:
        """Map (B,1 or 3,H,W) uint8 images to (B, num_features) float32 features."""


class RandomFeatures(FeatureExtractor):
    """A random convolutional network with fixed weights, which needs no download.

    Naeem et al. 2020, "Reliable Fidelity and Diversity Metrics for Generative Models", section 4: random embeddings
    measure distributions without the bias of a network trained on ImageNet. It consists of five convolutions of stride
    2 with absolute values; the features are mean and standard deviation over the image of each channel of each layer.
    Half of the kernels sum to zero, because brightness would dominate texture otherwise; square roots do the same for
    weak contrasts.

    Any change to this class must change `name`.
    """

    name = "random-v1"
    label = "random"
    image_size = 64
    channels = (16, 32, 64, 64, 64)
    seed = 0

    def __init__(self) -> None:
        super().__init__()
        self.num_features = 2 * sum(self.channels)
        rng = torch.Generator().manual_seed(self.seed)
        in_channels = 3
        for layer, out_channels in enumerate(self.channels):
            kernels = _orthogonal_kernels(out_channels, in_channels, rng)
            # The first layer's kernels sum to zero in each color, the others' over all channels.
            dims = (2, 3) if layer == 0 else (1, 2, 3)
            kernels[: out_channels // 2] -= kernels[: out_channels // 2].mean(dims, keepdim=True)
            kernels /= kernels.square().sum((1, 2, 3), keepdim=True).sqrt()
            self.register_buffer(f"kernels_{layer}", kernels.float())
            in_channels = out_channels

    def forward(self, images: Tensor) -> Tensor:
        """Map (B,1 or 3,H,W) uint8 images of any size to (B, num_features) float32 features, each about 1."""
        x = as_rgb(images).to(torch.float32).sub(127.5).div(63.75)  # about unit variance
        if x.shape[-2:] != (self.image_size, self.image_size):
            x = F.interpolate(x, (self.image_size, self.image_size), mode="bilinear", align_corners=False)
        features = []
        for layer in range(len(self.channels)):
            x = F.conv2d(x, self.get_buffer(f"kernels_{layer}"), stride=2, padding=1).abs()
            variance = x.var((2, 3), correction=0)
            features += [x.mean((2, 3)).sqrt(), (variance + 4e-4).pow(0.25)]  # an offset of about one gray level
        return torch.cat(features, dim=1).mul(2)


def _orthogonal_kernels(out_channels: int, in_channels: int, rng: torch.Generator) -> Tensor:
    """Draw (out,in,3,3) float64 kernels with orthogonal rows, or columns if there are more rows than columns."""
    rows, columns = out_channels, in_channels * 9
    gaussian = torch.randn(max(rows, columns), min(rows, columns), generator=rng, dtype=torch.float64)
    q, r = torch.linalg.qr(gaussian)
    q = q * r.diagonal().sign()  # makes the decomposition unique, whatever the LAPACK
    kernels: Tensor = (q if rows >= columns else q.T).reshape(out_channels, in_channels, 3, 3)
    return kernels.clone()


class InceptionFeatures(FeatureExtractor):
    """The 2048 pooled features of the Inception network that defines FID (Heusel et al. 2017).

    This is the network of torchmetrics' `FrechetInceptionDistance(feature=2048, antialias=False)`: the TensorFlow graph
    of 2015-12-05 with its own bilinear resize to 299 px, which is the published protocol.

    Args:
        weights: Path of the weights file; its SHA-256 is checked before it is opened.

    Raises:
        InputError: If the file does not exist, or is not the published one.
    """

    name = "inception-2015-12-05"
    label = "inception"

    def __init__(self, weights: str | os.PathLike[str]) -> None:
        super().__init__()
        # This import is slow, and needed only here.
        from torchmetrics.image.fid import NoTrainInceptionV3

        check_inception_weights(weights)
        self.num_features = 2048
        with torch.random.fork_rng(devices=[]):  # the layers are initialized at random before they are loaded
            self.network = NoTrainInceptionV3(
                name="inception-v3-compat",
                features_list=[str(self.num_features)],
                feature_extractor_weights_path=os.fspath(weights),
                antialias=False,
            )

    def forward(self, images: Tensor) -> Tensor:
        """Map (B,1 or 3,H,W) uint8 images of any size to (B, 2048) float32 features."""
        features: Tensor = self.network(as_rgb(images))
        return features

    def class_logits(self, features: Tensor) -> Tensor:
        """Map (B, 2048) features to (B, 1008) logits without bias, which define the Inception Score."""
        weight: Tensor = self.network.fc.weight
        return features.to(weight).mm(weight.T)


def as_rgb(images: Tensor) -> Tensor:
    """Return uint8 images (B,1 or 3,H,W) with three channels; the channel of gray images is repeated."""
    if images.dtype != torch.uint8:
        raise TypeError(f"expected uint8 images but got {images.dtype}: convert them by gan_lightning.images.to_uint8")
    return images.expand(-1, 3, -1, -1) if images.shape[1] == 1 else images


def inception_weights_path(weights: str | None = None) -> Path:
    """Return the given path, or by default that of the file downloaded by torch-fidelity."""
    return Path(weights).expanduser() if weights else Path(torch.hub.get_dir()) / "checkpoints" / INCEPTION_FILE


def check_inception_weights(path: str | os.PathLike[str]) -> None:
    """Check that a weights file is the published one, without unpickling it.

    Args:
        path: Path of the file. torchmetrics unpickles it, which can run code: only the published bytes are safe.

    Raises:
        InputError: If the file does not exist, or its SHA-256 is not the published one.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(
            f"no Inception weights at {path}: put {INCEPTION_URL} there, set `inception_weights` to a copy, or set "
            "`download: true`; offline, `extractor: random` needs no weights (it logs fd_random instead of fid)"
        )
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    if digest.hexdigest() != INCEPTION_SHA256:
        raise InputError(
            f"{path} is not the published Inception network (sha256 {digest.hexdigest()[:8]}, not "
            f"{INCEPTION_SHA256[:8]}): delete it and put {INCEPTION_URL} there"
        )


def download_inception_weights(path: Path, timeout: float = 30.0) -> None:
    """Download the Inception weights (96 MB) and check them, unless the file exists.

    Args:
        path: Path of the file.
        timeout: Seconds without an answer after which the download fails.

    Raises:
        InputError: If the download fails, or the file is not the published one.
    """
    if path.exists():
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    timeout_before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(timeout)  # torch.hub sets no timeout, and a silent proxy would hang the run
    try:
        torch.hub.download_url_to_file(INCEPTION_URL, str(path), hash_prefix=INCEPTION_SHA256, progress=False)
    except (OSError, RuntimeError) as error:
        raise InputError(
            f"cannot download {INCEPTION_URL} ({error}): fetch it yourself and put it at {path}"
        ) from error
    finally:
        socket.setdefaulttimeout(timeout_before)
