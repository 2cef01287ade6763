"""Facts of a run beyond its options: actual precision, devices, batch, memory and versions."""

from __future__ import annotations

import os
import platform
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import torch
from lightning import LightningModule, Trainer

from gan_lightning.hardware import hardware

PACKAGES = ("gan-lightning", "torch", "torchvision", "lightning", "torchmetrics", "numpy", "pillow")


def run_facts(trainer: Trainer, images_per_batch: int | None = None) -> dict[str, Any]:
    """Return the facts of a run that may differ between two runs with the same options.

    Args:
        trainer: The trainer, whose strategy is set up.
        images_per_batch: Number of images in a batch of one rank.
    """
    facts = {
        "precision": str(trainer.precision),
        "accelerator": type(trainer.accelerator).__name__.removesuffix("Accelerator").lower(),
        "strategy": type(trainer.strategy).__name__.removesuffix("Strategy"),
        "devices": trainer.num_devices,
        "nodes": trainer.num_nodes,
        "world_size": trainer.world_size,
        "memory_bytes": memory(),
        "hardware": hardware(),
        "versions": versions(),
    }
    if images_per_batch:
        facts["global_batch"] = images_per_batch * trainer.world_size
    return facts


def memory() -> dict[str, int]:
    """Return the memory of this machine in bytes: "host", and "cuda" for one GPU if there is any."""
    sizes = {"host": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")}
    if torch.cuda.is_available():
        sizes["cuda"] = torch.cuda.get_device_properties(torch.cuda.current_device()).total_memory
    return sizes


def versions() -> dict[str, str]:
    """Return the versions of Python and of the packages that affect metrics."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "not installed"
    return found


def learning_rates(
    trainer: Trainer, module: LightningModule, options: Sequence[str] = ("lr_g", "lr_d")
) -> dict[str, float]:
    """Return the current learning rate of each optimizer, as train/lr_g and train/lr_d for a GAN.

    Args:
        trainer: The trainer.
        module: The module that is trained.
        options: Names of the rates in the order of the optimizers, for a module with attributes of all these names.
    """
    count = len(trainer.optimizers)
    if count != len(options) or not all(hasattr(module, name) for name in options):
        options = ["lr"] if count == 1 else [f"lr_{number}" for number in range(count)]
    return {
        f"train/{name}": float(optimizer.param_groups[0]["lr"])
        for name, optimizer in zip(options, trainer.optimizers, strict=True)
    }
