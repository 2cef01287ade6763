"""Images a second of packing: 178x218 JPEG decoded, cropped, resized, written and synchronised.

    python benchmarks/pack_throughput.py
    python benchmarks/pack_throughput.py --root /data/celeba --count 0

Prints a Markdown table for one thread and for one a core. Without --root it renders faces into a temporary folder.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from dataclasses import replace
from functools import partial
from pathlib import Path

from report import measure_in_turn, print_header, print_table, spread

from gan_lightning.data.celeba import read_celeba
from gan_lightning.data.listing import ImageListing
from gan_lightning.data.packing import pack_images
from gan_lightning.faces.synthesis import synthesize


def images_per_second(files: ImageListing, image_size: int, num_workers: int) -> float:
    with tempfile.TemporaryDirectory() as cache:
        started = time.perf_counter()
        pack_images(
            files,
            image_size=image_size,
            crop=178,
            channels=3,
            cache_dir=cache,
            num_workers=num_workers,
            progress=False,
        )
        return len(files) / (time.perf_counter() - started)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", default=None, help="a folder in CelebA's layout")
    parser.add_argument("--count", type=int, default=4096, help="images to pack; 0 for all of the root's")
    parser.add_argument("--image_size", type=int, default=64)
    parser.add_argument("--repeats", type=int, default=5)
    arguments = parser.parse_args()
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    with tempfile.TemporaryDirectory() as temporary:
        if arguments.root is None:
            synthesize(Path(temporary), arguments.count, progress=False)
        files = read_celeba(arguments.root or temporary)
        files = replace(files, names=files.names[: arguments.count or None])
        candidates = {
            str(workers): partial(images_per_second, files, arguments.image_size, workers)
            for workers in dict.fromkeys((1, cores))
        }
        candidates[str(cores)]()  # the files into the page cache
        rates = measure_in_turn(candidates, arguments.repeats)
    size = arguments.image_size
    print_header(
        "Packing: throughput",
        f"{len(files):,} JPEG of 178 x 218 to {size} x {size} x 3, from the page cache; fingerprint and fsync included",
        f"median (least to greatest) of {arguments.repeats} runs in turn",
    )
    print_table(["threads", "images/s"], [[workers, spread(values)] for workers, values in rates.items()])


if __name__ == "__main__":
    main()
