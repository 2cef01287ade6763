"""Options of the command `export`, and the mark of its files."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from gan_lightning.commands.parser import CommandParser
from gan_lightning.errors import InputError

HELP: Final = """\
usage: gan-lightning export GENERATOR --output FILE [options]

Export a generator as a program that does not need this package: for torch.export (.pt2) or ONNX (.onnx).
GENERATOR is a checkpoint of a DCGAN or a StyleGAN2, or the name of weights that come with the package.

    gan-lightning export runs/demo/checkpoints/best.ckpt --output G.pt2
    gan-lightning export faces64 --output G.onnx --uint8

The program takes latents (B, latent_dim), float32 from N(0, 1), and returns images (B,C,H,W), float32 in [-1, 1]. The
file is read again, and its images are compared with those of the generator; if they differ, the file is removed.

  --output FILE   file for the program, whose suffix selects the format; only files of this command are replaced
  --uint8         return pixels, uint8 in [0, 255]
  --batch N       number of latents in a batch, or dynamic for any number (default: dynamic)
  --labels        take labels (B,), int64, as the second input, for a generator with classes
  --label CLASS   or return images of one class, given by its number or name
  -h, --help      this help

ONNX needs the extra onnx. The noise of a StyleGAN2 is the one in its buffers.
"""
SUFFIXES: Final = (".pt2", ".onnx")
MARK: Final = b"gan-lightning export, version 1"  # identifies our files


def parse(words: Sequence[str]) -> argparse.Namespace:
    """Return the options of the command; `batch` is a number, or None for any.

    Args:
        words: Words of the command line after the command.

    Raises:
        InputError: If an option is unknown or missing, or options exclude each other.
    """
    parser = CommandParser("export", HELP)
    parser.add_argument("generator", metavar="GENERATOR")
    parser.add_argument("--output", required=True)
    parser.add_argument("--uint8", action="store_true")
    parser.add_argument("--batch", default="dynamic")
    parser.add_argument("--labels", action="store_true")
    parser.add_argument("--label")
    options = parser.parse_intermixed_args(list(words))
    if Path(options.output).suffix.lower() not in SUFFIXES:
        raise InputError(f"--output {options.output}: the suffix says the format: give .pt2 (torch.export) or .onnx")
    if options.labels and options.label is not None:
        raise InputError("--labels takes labels as an input, --label CLASS does without: leave one of them out")
    if options.batch != "dynamic" and not (options.batch.isdecimal() and int(options.batch) > 0):
        raise InputError(f"--batch is {options.batch}: give dynamic, or a number from 1 on")
    options.batch = None if options.batch == "dynamic" else int(options.batch)
    return options
