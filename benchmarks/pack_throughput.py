"""Images per second of packing: 178x218 JPEG decoded, cropped, resized, written and synchronized.

    python benchmarks/pack_throughput.py
    python benchmarks/pack_throughput.py --root /data/celeba --count 0

Prints a Markdown table for one thread and for one thread per core. Without --root, faces are rendered to a temporary
folder.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from dataclasses import replace
from functools import partial
from pathlib import Path

import environment  # noqa: F401  first: it sets what torch reads when it is imported
from report import measure_in_turn, print_header, print_table, spread

from gan_lightning.data.celeba import read_celeba
from gan_lightning.data.listing import ImageListing
from gan_lightning.data.packing import pack_images
from gan_lightning.faces.synthesis import synthesize
from gan_lightning.hardware import count_cores


def images_per_second(listing: ImageListing, image_size: int, num_workers: int) -> float:
    with tempfile.TemporaryDirectory() as cache:
        started = time.perf_counter()
        pack_images(
            listing,
            image_size=image_size,
            crop=178,
            channels=3,
            cache_dir=cache,
            num_workers=num_workers,
            progress=False,
        )
        return len(listing) / (time.perf_counter() - started)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", default=None, help="folder in the layout of CelebA")
    parser.add_argument("--count", type=int, default=4096, help="number of images to pack; 0 for all")
    parser.add_argument("--image_size", type=int, default=64)
    parser.add_argument("--repeats", type=int, default=5)
    arguments = parser.parse_args()
    cores = count_cores()
    with tempfile.TemporaryDirectory() as temporary:
        if arguments.root is None:
            synthesize(Path(temporary), arguments.count, progress=False)
        listing = read_celeba(arguments.root or temporary)
        listing = replace(listing, names=listing.names[: arguments.count or None])
        candidates = {
            str(workers): partial(images_per_second, listing, arguments.image_size, workers)
            for workers in dict.fromkeys((1, cores))
        }
        candidates[str(cores)]()  # reads the files into the page cache
        rates = measure_in_turn(candidates, arguments.repeats)
    size = arguments.image_size
    print_header(
        "Packing: throughput",
        f"{len(listing):,} JPEG of 178 x 218 to {size} x {size} x 3, from the page cache, with fingerprint and fsync",
        f"median (least to greatest) of {arguments.repeats} runs in turn",
    )
    print_table(["threads", "images/s"], [[workers, spread(values)] for workers, values in rates.items()])


if __name__ == "__main__":
    main()
