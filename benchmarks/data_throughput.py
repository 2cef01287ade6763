"""Images per second from a JPEG folder, packed images and resident images to a training batch.

    OMP_NUM_THREADS=1 taskset -c 0 python benchmarks/data_throughput.py --workers 0     # all on one core
    python benchmarks/data_throughput.py --device cuda --workers 0 16

Prints a Markdown table. The JPEG folder is read by torchvision's ImageFolder with the transforms of the PyTorch DCGAN
tutorial and a DataLoader of 0 or more worker processes. Images are rendered to --root if they do not exist yet.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from itertools import count
from typing import Any

import environment  # noqa: F401  first: it sets what torch reads when it is imported
import lightning as L
import torch
from report import measure_in_turn, print_header, print_table, quieten_lightning, ratio, spread, synchronize
from torch import Tensor
from tutorial import jpeg_loader

from gan_lightning.data.image_data_module import ImageDataModule
from gan_lightning.data.synthetic_faces import SyntheticFaces

Batches = Callable[[], Iterator[Tensor]]


def epochs(loader: Any) -> Iterator[Any]:
    for epoch in count():
        if hasattr(loader.sampler, "set_epoch"):
            loader.sampler.set_epoch(epoch)
        yield from loader


def images_per_second(batches: Batches, device: torch.device, seconds: float, warm_up: int) -> float:
    iterator = batches()
    for _ in range(warm_up):
        next(iterator)
    synchronize(device)
    images, started = 0, time.perf_counter()
    while time.perf_counter() - started < seconds:
        images += len(next(iterator))
    synchronize(device)
    return images / (time.perf_counter() - started)


def jpeg_batches(data: SyntheticFaces, workers: int, device: torch.device) -> Iterator[Tensor]:
    for images, _ in epochs(jpeg_loader(data.root / "celeba", data.image_size, data.batch_size, workers)):
        yield images.to(device)


def uint8_batches(data: ImageDataModule) -> Iterator[Tensor]:
    for batch in epochs(data.train_dataloader()):
        yield batch["image"]


def float_batches(data: ImageDataModule, device: torch.device) -> Iterator[Tensor]:
    for batch in epochs(data.train_dataloader()):
        moved = {name: tensor.to(device, non_blocking=True) for name, tensor in batch.items()}
        yield data.on_after_batch_transfer(moved, 0)["image"]


def open_data(arguments: argparse.Namespace, cache: str, resident: bool) -> SyntheticFaces:
    data = SyntheticFaces(
        arguments.root,
        count=arguments.count,
        image_size=arguments.image_size,
        batch_size=arguments.batch_size,
        cache_dir=cache,
        num_workers=arguments.readers,
        resident=resident,
    )
    data.trainer = L.Trainer(accelerator=arguments.device, devices=1, logger=False, enable_checkpointing=False)
    data.prepare_data()
    data.setup("fit")
    return data


def measure(arguments: argparse.Namespace, device: torch.device, cache: str) -> dict[str, list[float]]:
    mapped, resident = (open_data(arguments, cache, choice) for choice in (False, True))
    ways: dict[str, tuple[Batches, int]] = {
        f"JPEG folder, {workers} workers": (partial(jpeg_batches, mapped, workers, device), 1 + 3 * workers)
        for workers in arguments.workers
    }
    ways["packed, uint8 as read"] = (partial(uint8_batches, mapped), 5)
    ways["packed, flipped floats on the device"] = (partial(float_batches, mapped, device), 5)
    ways["resident, flipped floats on the device"] = (partial(float_batches, resident, device), 5)
    candidates = {
        name: partial(images_per_second, batches, device, arguments.seconds, warm_up)
        for name, (batches, warm_up) in ways.items()
    }
    return measure_in_turn(candidates, arguments.repeats)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", default="data/synthetic", help="folder of synthetic faces")
    parser.add_argument("--count", type=int, default=8000, help="number of faces")
    parser.add_argument("--image_size", type=int, default=64)
    parser.add_argument("--batch_size", type=int, default=128)
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--workers", type=int, nargs="+", default=[0, 2], help="worker processes of the JPEG folder")
    parser.add_argument("--readers", type=int, default=0, help="number of worker processes of the packed images")
    parser.add_argument("--threads", type=int, default=1, help="number of threads of torch in this process")
    parser.add_argument("--seconds", type=float, default=2.0, help="seconds per measurement")
    parser.add_argument("--repeats", type=int, default=5)
    arguments = parser.parse_args()
    quieten_lightning()
    torch.set_num_threads(arguments.threads)
    with tempfile.TemporaryDirectory() as cache:
        rates = measure(arguments, torch.device(arguments.device), cache)
    size = arguments.image_size
    print_header(
        "Data: throughput",
        f"batches of {arguments.batch_size} at {size} x {size} x 3 on {arguments.device}, from the page cache",
        f"median (least to greatest) of {arguments.repeats} measurements of {arguments.seconds} s, in turn",
    )
    reference = next(iter(rates))
    rows = [[name, spread(values), f"{ratio(rates, name, reference):.1f}"] for name, values in rates.items()]
    print_table(["way", "images/s", "times the first"], rows)


if __name__ == "__main__":
    main()
