"""Data of recipes.py: rendered faces and real digits at 64 px, and the features by which recipes are compared."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from conditional_digits import write_folders
from torch import Tensor, nn
from torch.nn import functional as F

from gan_lightning import ImageFolder, SyntheticFaces
from gan_lightning.data.image_data_module import ImageDataModule
from gan_lightning.images import to_float
from gan_lightning.metrics.extractors import RandomFeatures, as_rgb

ATTRIBUTES = [  # of the rendered faces, which a classifier tells apart
    "Bald", "Bangs", "Black_Hair", "Blond_Hair", "Brown_Hair", "Bushy_Eyebrows", "Eyeglasses", "Goatee", "Gray_Hair",
    "Male", "Mouth_Slightly_Open", "Mustache", "Narrow_Eyes", "No_Beard", "Pale_Skin", "Smiling", "Wavy_Hair",
    "Wearing_Hat", "Wearing_Lipstick", "Young",
]  # fmt: skip
EPOCHS, BATCH = 6, 128  # of the classifiers


class Fewer:
    """A data module that trains on the first images of its split."""

    limit: int | None = None

    def dataset(self, split: str) -> Any:
        """Return a split, and of the training split only as many rows as there may be."""
        dataset = super().dataset(split)  # type: ignore[misc]
        if split == "train" and self.limit is not None:
            dataset.rows = dataset.rows[: self.limit]
        return dataset


class FewerFaces(Fewer, SyntheticFaces):
    """Rendered faces."""


class FewerDigits(Fewer, ImageFolder):
    """Real digits."""


@dataclass(frozen=True)
class DataSet:
    """One of the two data sets.

    Attributes:
        name: "faces" or "digits".
        folder: Folder of all data and caches.
        count: Number of faces.
        image_size: Height and width of the images.
    """

    name: str
    folder: Path
    count: int
    image_size: int

    @property
    def channels(self) -> int:
        """Number of channels."""
        return 3 if self.name == "faces" else 1

    def module(self, batch_size: int = 32, limit: int | None = None, **options: Any) -> ImageDataModule:
        """Return the data module.

        Args:
            batch_size: Number of images in a batch.
            limit: Number of training images; all if None.
            options: Further options.
        """
        common = {"image_size": self.image_size, "batch_size": batch_size, "cache_dir": str(self.folder / "cache")}
        common |= {"resident": True, **options}
        data: Any
        if self.name == "faces":
            data = FewerFaces(str(self.folder / "faces"), count=self.count, **common)
        else:
            common |= {"channels": 1, "flip": False, "split_fractions": (0.9, 0.05, 0.05)}
            data = FewerDigits(str(self.folder / "digits"), **common)
        data.limit = limit
        return data

    def prepare(self, digits: Path | None, device: torch.device) -> None:
        """Write the images, and train the classifier, unless that is done."""
        if self.name == "digits" and not (self.folder / "digits").is_dir():
            if digits is None:
                raise SystemExit("--digits is missing: the path of mnist_5k.csv.gz")
            write_folders(digits, self.folder / "digits")
        labels: dict[str, Any] = {"attributes": ATTRIBUTES} if self.name == "faces" else {"labels": "folder"}
        data = self.module(**labels)
        data.prepare_data()
        self.module().prepare_data()
        if not self.classifier_file.is_file():
            data.setup("fit")
            images, targets = self._labeled(data, "train")
            classifier = train_classifier(images, targets, device)
            held_out, true = self._labeled(data, "val")
            with torch.no_grad():
                right = ((classifier(held_out.to(device)) > 0).cpu() == (true > 0)).float().mean()
            print(f"{self.name}: the classifier is right about {right:.1%} of the held-out labels", flush=True)
            torch.save(classifier.cpu().state_dict(), self.classifier_file)

    def _labeled(self, data: Any, split: str) -> tuple[Tensor, Tensor]:
        dataset = data.dataset(split)
        images = dataset.read(np.arange(len(dataset))).contiguous()
        if self.name == "faces":
            return images, torch.from_numpy(dataset.attributes[dataset.rows]).float().clamp(0, 1)
        return images, F.one_hot(torch.from_numpy(dataset.labels[dataset.rows]), 10).float()

    @property
    def classifier_file(self) -> Path:
        """File of the weights of the classifier."""
        return self.folder / f"classifier-{self.name}-{self.image_size}.pt"

    def extractors(self, device: torch.device) -> dict[str, nn.Module]:
        """Return the random features, by which recipes are chosen, and those of the classifier, by which none is."""
        classifier = Classifier(len(ATTRIBUTES) if self.name == "faces" else 10)
        classifier.load_state_dict(torch.load(self.classifier_file, weights_only=True))
        return {"random": RandomFeatures().to(device), "classifier": classifier.features.to(device).eval()}

    def reference(self, limit: int | None, count: int) -> Tensor:
        """Return images that samples are compared with: (count,C,H,W) uint8, evenly spaced.

        They are the training images; or, if only a few of these are trained on, images that are not.
        """
        data = self.module()
        data.prepare_data()
        data.setup("fit")
        dataset = data.dataset("train")
        rows = np.arange(limit or 0, len(dataset))
        images: Tensor = dataset.read(rows[np.arange(min(count, len(rows))) * len(rows) // min(count, len(rows))])
        return images


class Classifier(nn.Module):
    """A small convolutional network from uint8 images to logits; its features are the last but one layer's."""

    def __init__(self, labels: int) -> None:
        super().__init__()
        self.features = ClassifierFeatures()
        self.last = nn.Linear(self.features.num_features, labels)

    def forward(self, images: Tensor) -> Tensor:
        """Map (B,1 or 3,H,W) uint8 images to logits (B,labels)."""
        logits: Tensor = self.last(self.features(images))
        return logits


class ClassifierFeatures(nn.Sequential):
    """(B,1 or 3,H,W) uint8 images to (B,128) features."""

    num_features = 128

    def __init__(self) -> None:
        layers: list[nn.Module] = []
        width = 3
        for following in (32, 64, 128, 128):
            layers += [nn.Conv2d(width, following, 3, 2, 1), nn.BatchNorm2d(following), nn.ReLU()]
            width = following
        super().__init__(*layers, nn.Flatten(), nn.LazyLinear(self.num_features), nn.ReLU())
        super().forward(torch.zeros(2, 3, 64, 64))  # decides the size of the lazy layer

    def forward(self, images: Tensor) -> Tensor:
        """Map images to features."""
        pixels = to_float(as_rgb(images))
        if pixels.shape[-1] != 64:
            pixels = F.interpolate(pixels, (64, 64), mode="bilinear")
        features: Tensor = super().forward(pixels)
        return features


def train_classifier(images: Tensor, targets: Tensor, device: torch.device) -> Classifier:
    """Train on uint8 images and targets (N,labels) of 0 and 1."""
    torch.manual_seed(0)
    classifier, rng = Classifier(targets.shape[1]).to(device), torch.Generator().manual_seed(0)
    optimizer = torch.optim.AdamW(classifier.parameters(), 1e-3)
    per_epoch = len(images) // BATCH
    rates = torch.optim.lr_scheduler.OneCycleLR(optimizer, 3e-3, total_steps=EPOCHS * per_epoch)
    images, targets = images.to(device), targets.to(device)
    for _ in range(EPOCHS):
        for rows in torch.randperm(len(images), generator=rng)[: per_epoch * BATCH].view(-1, BATCH).to(device):
            loss = F.binary_cross_entropy_with_logits(classifier(images[rows]), targets[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            rates.step()
    return classifier.eval()
