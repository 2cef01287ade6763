"""The commands for data sets: pack, synthesize."""

from __future__ import annotations

import time
from collections.abc import Sequence

from jsonargparse import Namespace

from gan_lightning.data.image_data_module import ImageDataModule
from gan_lightning.data.packed_data_module import PackedDataModule
from gan_lightning.errors import InputError
from gan_lightning.faces.synthesis import synthesize
from gan_lightning.options.parser import CommandParser, DataConfigFile, OneLineErrors


def main(arguments: Sequence[str]) -> int:
    """Run one of these commands, given by the first word of the command line, and return its exit status."""
    command, options = parse(arguments)
    if command == "pack":
        pack(options.data)
    else:
        print(synthesize(**options))
    return 0


def parse(arguments: Sequence[str]) -> tuple[str, Namespace]:
    """Return the command of a command line and its options, with classes instantiated."""
    packing = CommandParser(usage="pack")
    packing.add_argument("--config", action=DataConfigFile, help="Configuration of a training; only its data counts.")
    packing.add_subclass_arguments(ImageDataModule, "data", required=True)
    rendering = CommandParser(usage="synthesize")
    rendering.add_argument("--root", default="data/synthetic", help="Folder to write to, or to complete.")
    rendering.add_function_arguments(synthesize, skip={"root", "progress"})
    parser = OneLineErrors(prog="gan-lightning")
    commands = parser.add_subcommands()
    commands.add_subcommand("pack", packing)
    commands.add_subcommand("synthesize", rendering)
    words = list(arguments)
    if words[0] == "pack":  # not as a default, whose crop would be kept if another class is chosen
        words[1:1] = ["--data", "SyntheticFaces"]
    return words[0], parser.parse_classes(words)[words[0]]


def pack(data: ImageDataModule) -> None:
    """Pack the images of a data module; print the path and the content of the pack, and the time.

    Raises:
        InputError: If the data cannot be packed.
    """
    if not isinstance(data, PackedDataModule):
        raise InputError(f"{type(data).__name__} are fetched when they are needed: there is nothing to pack")
    data.auto_pack = True
    started = time.perf_counter()
    data.prepare_data()
    data.setup()
    seconds = time.perf_counter() - started
    print(f"{data.packed.report()}\nseconds  {seconds:.1f}")
