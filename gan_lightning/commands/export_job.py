"""The work of the command `export`: write a generator as a program, and compare the file with the generator."""

from __future__ import annotations

import argparse
import json
import logging
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor, nn

from gan_lightning.atomic import atomic_path
from gan_lightning.commands.export_options import MARK
from gan_lightning.errors import InputError
from gan_lightning.images import to_uint8
from gan_lightning.networks.checkpoints import AnyGenerator, check_whole, load_generator
from gan_lightning.networks.conditional import ConditionalGenerator
from gan_lightning.networks.stylegan2 import StyleGAN2Generator

TOLERANCE: Final = 1e-4  # of images in [-1, 1]
CHECKED: Final = (1, 3)  # batch sizes at which a program is compared with the generator
MAX_BATCH: Final = 2**31 - 1
NOTES: Final = "gan_lightning.json"  # description of inputs and outputs, inside the file

Inputs = tuple[Tensor, ...]


class Program(nn.Module):
    """The exported form of a generator: from latents, and labels, to images or pixels.

    Args:
        generator: Generator.
        uint8: Return uint8 pixels.
        label: Class of all images, for a generator with classes; None for labels as a second input.
    """

    def __init__(self, generator: AnyGenerator, uint8: bool, label: int | None) -> None:
        super().__init__()
        self.generator, self.uint8, self.label = generator, uint8, label

    def forward(self, latents: Tensor, labels: Tensor | None = None) -> Tensor:
        """Map latents (B, latent_dim), and labels (B,), to images (B,C,H,W)."""
        if self.label is not None:
            labels = torch.full_like(latents[:, 0], self.label, dtype=torch.int64)
        images: Tensor = self.generator(latents) if labels is None else self.generator(latents, labels)
        return to_uint8(images) if self.uint8 else images


def export_generator(options: argparse.Namespace, output: Path) -> list[str]:
    """Write a generator as a program, and describe it.

    Args:
        options: Options of the command.
        output: File to write.

    Raises:
        InputError: If the generator cannot be read or has no such class, or if the program differs from it.
    """
    check_whole(options.generator)
    program, labeled = make_program(options)
    notes = describe(program.generator, options.uint8, labeled, options.batch)
    write, read = FORMATS[output.suffix.lower()]
    with atomic_path(output) as beside, quiet():
        write(program, example_inputs(program.generator, options.batch or 2, labeled), options.batch, notes, beside)
        sizes = CHECKED if options.batch is None else (options.batch,)
        difference = compare(program, read(beside), [example_inputs(program.generator, n, labeled) for n in sizes])
        if difference > (1 if options.uint8 else TOLERANCE):
            raise InputError(
                f"{output} was not written: its images differ from those of {options.generator} by {difference:.2g}, "
                "more than rounding explains; try the other format"
            )
    size, counts = output.stat().st_size / 1e6, " and ".join(map(str, sizes))
    unit = "gray levels" if options.uint8 else "of images in [-1, 1]"
    return [
        f"{output} ({size:.1f} MB): {notes['inputs']} -> {notes['output']}",
        f"largest difference from the generator: {difference:.2g} {unit}, in batches of {counts}",
    ]


def make_program(options: argparse.Namespace) -> tuple[Program, bool]:
    """Return the program, and whether it takes labels.

    Raises:
        InputError: If the generator has classes and none is chosen, or it has no such class.
    """
    generator = load_generator(options.generator).requires_grad_(False)
    stylegan2 = isinstance(generator, StyleGAN2Generator)
    classes = generator.label_dim if isinstance(generator, StyleGAN2Generator) else getattr(generator, "num_classes", 0)
    if not classes:
        if options.labels or options.label is not None:
            raise InputError(f"the generator of {options.generator} has no classes: leave --labels and --label out")
        return Program(generator, options.uint8, None), False
    if options.labels:
        return Program(generator, options.uint8, None), True
    if options.label is None:
        raise InputError(f"the generator of {options.generator} has {classes} classes: add --labels or --label CLASS")
    if isinstance(generator, ConditionalGenerator):
        return Program(generator.of_class(options.label), options.uint8, None), False
    if stylegan2 and not (options.label.isdecimal() and int(options.label) < classes):
        raise InputError(f"--label is {options.label}, but the generator has {classes} classes: give a smaller number")
    return Program(generator, options.uint8, int(options.label)), False


def describe(generator: AnyGenerator, uint8: bool, labeled: bool, batch: int | None) -> dict[str, Any]:
    """Return the description of inputs and outputs that is saved in the file."""
    count, side = batch or "B", generator.image_size
    kind = "uint8 in [0, 255]" if uint8 else "float32 in [-1, 1]"
    return {
        "format": MARK.decode(),
        "inputs": f"latents ({count},{generator.latent_dim})" + (f", labels ({count},)" if labeled else ""),
        "output": f"images ({count},{generator.channels},{side},{side}), {kind}",
        "latent_dim": generator.latent_dim,
        "class_names": list(getattr(generator, "class_names", ())) if labeled else [],
    }


def example_inputs(generator: AnyGenerator, count: int, labeled: bool) -> Inputs:
    """Return random latents (count, latent_dim), and labels (count,) if the program takes them."""
    latents = torch.randn(count, generator.latent_dim, generator=torch.Generator().manual_seed(count))
    if not labeled:
        return (latents,)
    classes: Any = getattr(generator, "num_classes", None) or getattr(generator, "label_dim", 1)
    return latents, torch.arange(count) % classes


@torch.no_grad()
def compare(program: Program, exported: Callable[..., Tensor], batches: list[Inputs]) -> float:
    """Return the largest difference between the images of two programs; infinity if their shapes differ."""
    largest = 0.0
    for inputs in batches:
        ours, theirs = program(*inputs), exported(*inputs)
        if ours.shape != theirs.shape or ours.dtype != theirs.dtype:
            return float("inf")
        difference = (ours.double() - theirs.double()).abs().max().nan_to_num(float("inf"))
        largest = max(largest, float(difference))
    return largest


def dynamic_shapes(inputs: Inputs, batch: int | None) -> tuple[dict[int, Any], ...] | None:
    """Return which dimensions of the inputs may vary."""
    # torch 2.6 rejects a dimension without a limit, because it compares the limit with the largest integer.
    return None if batch is not None else tuple({0: torch.export.Dim("batch", max=MAX_BATCH)} for _ in inputs)


def write_pt2(program: Program, inputs: Inputs, batch: int | None, notes: Mapping[str, Any], path: Path) -> None:
    """Write a program of torch.export."""
    # `strict=False` is the default of later releases; with `strict=True`, torch 2.6 cannot analyze a StyleGAN2.
    exported = torch.export.export(program, inputs, dynamic_shapes=dynamic_shapes(inputs, batch), strict=False)
    with path.open("wb") as file:  # for a path, torch requires the suffix .pt2
        torch.export.save(exported, file, extra_files={NOTES: json.dumps(notes)})


def read_pt2(path: Path) -> Callable[..., Tensor]:
    """Read a program of torch.export."""
    with path.open("rb") as file:
        module: Callable[..., Tensor] = torch.export.load(file).module()
    return module


def write_onnx(program: Program, inputs: Inputs, batch: int | None, notes: Mapping[str, Any], path: Path) -> None:
    """Write an ONNX model, with its weights in the same file.

    Raises:
        InputError: If this version of torch cannot convert the generator.
    """
    import onnxscript  # noqa: F401  both are checked before the work
    import onnxruntime  # noqa: F401  isort: skip  reads the written file

    names = ["latents", "labels"][: len(inputs)]
    try:
        made = torch.onnx.export(
            program,
            inputs,
            input_names=names,
            output_names=["images"],
            dynamo=True,
            dynamic_shapes=dynamic_shapes(inputs, batch),
            external_data=False,
            verbose=False,
        )
    except torch.onnx.OnnxExporterError as error:  # torch 2.6 with releases of onnxscript for later versions
        raise InputError(
            f"torch {torch.__version__} cannot convert this generator to ONNX: update torch, or write a .pt2"
        ) from error
    assert made is not None
    made.model.metadata_props[NOTES] = json.dumps(notes)
    made.save(str(path), external_data=False)


def read_onnx(path: Path) -> Callable[..., Tensor]:
    """Read an ONNX model."""
    import onnxruntime

    session = onnxruntime.InferenceSession(path.read_bytes(), providers=["CPUExecutionProvider"])
    names = [node.name for node in session.get_inputs()]

    def run(*inputs: Tensor) -> Tensor:
        given = {name: tensor.numpy() for name, tensor in zip(names, inputs, strict=True)}
        return torch.from_numpy(session.run(None, given)[0])

    return run


FORMATS: Final = {".pt2": (write_pt2, read_pt2), ".onnx": (write_onnx, read_onnx)}


@contextmanager
def quiet() -> Iterator[None]:
    """Hide log messages and warnings of the exporters that the user can do nothing about."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "torch.export", "onnxscript", "onnx_ir")]
    levels = [logger.level for logger in loggers]
    try:
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
