"""Any network as a feature extractor: a network of torchvision or timm, a TorchScript file, or an ONNX file."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gan_lightning.errors import InputError, first_line
from gan_lightning.file_names import printable
from gan_lightning.metrics.extractors import (
    FeatureExtractor,
    InceptionFeatures,
    RandomFeatures,
    as_rgb,
    download_inception_weights,
    inception_weights_path,
)

SCRIPTS: Final = (".pt", ".pth", ".ts", ".torchscript")
IMAGENET_MEAN: Final = (0.485, 0.456, 0.406)
IMAGENET_STD: Final = (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class NetworkInput:
    """Format of the input of a network.

    Attributes:
        size: Height and width to which images are resized; None for any size.
        mean: Mean of each channel, for pixels in [0, 1].
        std: Standard deviation of each channel. With the default values, pixels are in [-1, 1].
    """

    size: int | None = None
    mean: tuple[float, ...] = (0.5, 0.5, 0.5)
    std: tuple[float, ...] = (0.5, 0.5, 0.5)


class NetworkFeatures(FeatureExtractor):
    """The output of any network, averaged over positions if it is a feature map.

    Args:
        network: Map from (B,3,H,W) float32 images to (B,F) or (B,F,h,w) features.
        name: Name of network and weights.
        label: Short name, used as the suffix of the names of metrics.
        expects: Format of the input.

    Raises:
        InputError: If the network fails on such images.
    """

    def __init__(self, network: nn.Module, name: str, label: str, expects: NetworkInput) -> None:
        super().__init__()
        self.network, self.name, self.label, self.expects = network.eval(), name, label, expects
        side = expects.size or 64
        try:
            features = self(torch.zeros(2, 3, side, side, dtype=torch.uint8))
        except Exception as error:  # a network in a file may raise anything
            reason = str(error).strip().splitlines()[-1:] or [repr(error)]
            raise InputError(
                f"extractor {label} cannot be run on images of {side} x {side} ({reason[0][:200]}): give "
                "--extractor_size N, the size that it expects"
            ) from error
        self.num_features = features.shape[1]

    @torch.no_grad()
    def forward(self, images: Tensor) -> Tensor:
        """Map (B,1 or 3,H,W) uint8 images of any size to (B, num_features) float32 features."""
        x, size = as_rgb(images).to(torch.float32).div(255), self.expects.size
        if size is not None and x.shape[-2:] != (size, size):
            x = F.interpolate(x, (size, size), mode="bilinear", align_corners=False, antialias=True)
        mean, std = (x.new_tensor(values)[:, None, None] for values in (self.expects.mean, self.expects.std))
        features: Tensor = self.network((x - mean) / std)
        if not isinstance(features, Tensor):
            raise TypeError(f"its output is a {type(features).__name__}, not a tensor")
        return (features.mean((2, 3)) if features.ndim == 4 else features.flatten(1)).float()


def make_extractor(
    name: str, weights: str | None = None, size: int | None = None, download: bool = False
) -> FeatureExtractor:
    """Return the feature extractor with the given name.

    Args:
        name: "inception", "random", a network of torchvision or timm ("resnet50", "timm:vit_small_patch14_dinov2"), or
            the path of a TorchScript (.pt, .ts) or ONNX (.onnx) file.
        weights: File of the weights; None for the published ones, in the download folder of their library.
        size: Height and width to which images are resized; None for the size that the network specifies.
        download: Whether to download published weights that are missing.

    Raises:
        InputError: If the network does not exist, or its weights are missing or do not fit.
    """
    if name == RandomFeatures.label:
        return RandomFeatures()
    if name == InceptionFeatures.label:
        path = inception_weights_path(weights)
        if download:
            download_inception_weights(path)
        return InceptionFeatures(path)
    suffix = Path(name).suffix.lower()
    if suffix == ".onnx" or suffix in SCRIPTS:
        path = Path(name).expanduser()
        if not path.is_file():
            raise InputError(f"extractor {printable(name)} does not exist: check the path")
        network, own_size = _load_onnx(path) if suffix == ".onnx" else (_load_script(path), None)
        return NetworkFeatures(network, _file_name(path), label_of(path.stem), NetworkInput(size or own_size))
    return _named(name, weights, size, download)


def label_of(name: str) -> str:
    """Return a name as a part of the name of a metric: letters, digits, "-" and "_"."""
    return re.sub(r"[^A-Za-z0-9_-]+", "-", name).strip("-") or "network"


def without_head(network: nn.Module) -> nn.Module:
    """Return a classifier without its last linear layer, whose output are the inputs of this layer."""
    names = [name for name, module in network.named_modules() if isinstance(module, nn.Linear)]
    if names:
        parent, _, last = names[-1].rpartition(".")
        setattr(network.get_submodule(parent), last, nn.Identity())
    return network


def _named(name: str, weights: str | None, size: int | None, download: bool) -> NetworkFeatures:
    from torchvision import models  # slow to import

    library, _, network = name.rpartition(":")
    classifiers = models.list_models(module=models)
    if library == "torchvision" or (not library and network in classifiers):
        if network not in classifiers:
            raise InputError(unknown_extractor(network, classifiers))
        return _of_torchvision(network, weights, size, download)
    try:
        import timm
    except ModuleNotFoundError as error:
        if library == "timm":
            raise  # the command says how to install it
        raise InputError(unknown_extractor(name, classifiers)) from error
    if library not in ("", "timm") or not timm.is_model(network):
        raise InputError(unknown_extractor(network, [*classifiers, *timm.list_models()]))
    return _of_timm(network, weights, size, download)


def unknown_extractor(name: str, known: list[str]) -> str:
    """Return the message for an unknown extractor, with the most similar names."""
    similar = get_close_matches(name, ["inception", "random", *known], n=2)
    meant = f" (did you mean {' or '.join(similar)}?)" if similar else ""
    return (
        f"unknown extractor {printable(name)}{meant}: give inception, random, the name of a network of torchvision or "
        "timm, or a TorchScript (.pt) or ONNX (.onnx) file"
    )


def _of_torchvision(network: str, weights: str | None, size: int | None, download: bool) -> NetworkFeatures:
    from torchvision import models

    published = models.get_model_weights(network).DEFAULT
    transforms = published.transforms()
    given = None if weights is None else Path(weights).expanduser()
    path = given or Path(torch.hub.get_dir()) / "checkpoints" / Path(published.url).name
    if given is None and download and not path.exists():
        try:
            published.get_state_dict(progress=False, check_hash=True)
        except (OSError, RuntimeError) as error:
            raise InputError(f"cannot download {published.url} ({error}): put it at {path}") from error
    if not path.is_file():
        raise InputError(
            f"no weights of {network} at {path}: put {published.url} there, give a file by --weights, or --download"
        )
    with torch.random.fork_rng(devices=[]):  # the layers are initialized at random before they are loaded
        built = models.get_model(network, weights=None)
    _load_state(built, path)
    expects = NetworkInput(size or transforms.crop_size[0], tuple(transforms.mean), tuple(transforms.std))
    name = f"torchvision {network} {published.name if given is None else _file_name(path)}"
    return NetworkFeatures(without_head(built), name, label_of(network), expects)


def _of_timm(network: str, weights: str | None, size: int | None, download: bool) -> NetworkFeatures:
    if not download:
        os.environ.setdefault("HF_HUB_OFFLINE", "1")  # read when the library that downloads is imported
    import timm

    try:
        with torch.random.fork_rng(devices=[]):
            built = timm.create_model(network, pretrained=weights is None)
    except Exception as error:  # from the hub, the network connection, or a file
        raise InputError(
            f"no weights of timm's {network} ({first_line(error)[:200]}): give a file by --weights, or --download"
        ) from error
    config = built.pretrained_cfg
    if weights is not None:
        _load_state(built, Path(weights).expanduser())
    built.reset_classifier(0)
    side = size or int(config.get("input_size", (3, 224, 224))[-1])
    expects = NetworkInput(side, tuple(config.get("mean", IMAGENET_MEAN)), tuple(config.get("std", IMAGENET_STD)))
    name = f"timm {network} {config.get('tag') or '' if weights is None else _file_name(Path(weights))}".strip()
    return NetworkFeatures(built, name, label_of(network), expects)


def _load_state(network: nn.Module, path: Path) -> None:
    from gan_lightning.networks.checkpoints import load_tensors

    state = load_tensors(path)
    try:
        network.load_state_dict(state)
    except (RuntimeError, TypeError, AttributeError) as error:
        raise InputError(f"the weights in {printable(path)} do not fit this network: give its state dict") from error


def _load_script(path: Path) -> nn.Module:
    try:
        network: nn.Module = torch.jit.load(path, map_location="cpu")  # type: ignore[no-untyped-call]
    except RuntimeError as error:
        raise InputError(
            f"extractor {printable(path)} is not a TorchScript file: write it with torch.jit.save"
        ) from error
    return network


def _load_onnx(path: Path) -> tuple[nn.Module, int | None]:
    """Return the network in an ONNX file, and the size of its images if it is fixed."""
    import onnxruntime  # if it is missing, the command says how to install it

    try:
        session = onnxruntime.InferenceSession(os.fspath(path), providers=["CPUExecutionProvider"])
    except Exception as error:  # of private classes
        raise InputError(f"extractor {printable(path)} is not a whole ONNX file") from error
    entry = session.get_inputs()[0]
    batch, side = (entry.shape[0], entry.shape[-1]) if entry.shape else (None, None)
    run: Callable[..., Any] = session.run

    return _Onnx(run, entry.name, batch == 1), side if isinstance(side, int) else None


class _Onnx(nn.Module):
    """A network that ONNX Runtime runs on the CPU."""

    def __init__(self, run: Callable[..., Any], name: str, one_by_one: bool) -> None:
        super().__init__()
        self._run, self._name, self._one_by_one = run, name, one_by_one

    def forward(self, images: Tensor) -> Tensor:
        parts = torch.split(images.cpu(), 1 if self._one_by_one else len(images))
        outputs = [torch.from_numpy(self._run(None, {self._name: part.numpy()})[0]) for part in parts]
        return torch.cat(outputs).to(images.device)


def _file_name(path: Path) -> str:
    """Return the name of a file and the beginning of its SHA-256, which identifies its content."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return f"{printable(path.name)} sha256 {digest.hexdigest()[:16]}"
