"""The command `gan-lightning pack`: pack the images of a data module ahead of a job."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from pathlib import Path

import yaml
from jsonargparse import ArgumentParser

from gan_lightning import MNIST, CelebA, FashionMNIST, ImageFolder, StreamedImages, SyntheticFaces  # noqa: F401
from gan_lightning.data.image_data_module import ImageDataModule
from gan_lightning.data.packed_data_module import PackedDataModule
from gan_lightning.errors import InputError

DESCRIPTION = (
    "Decode, crop and resize the images of a data module once, on all cores, into the cache from which training reads "
    "them; what is packed already is kept. fit does the same by itself, and this ahead of a job: give it the --config "
    "and the --data options of that job. `--data.help CelebA` explains the options of CelebA."
)
CLASS_OPTIONS = ("--data", "--data.class_path")


def main(arguments: Sequence[str]) -> int:
    """Run the command; prints where the pack lies, what is in it, and how long it took.

    Args:
        arguments: Those after `gan-lightning pack`.

    Returns:
        The exit status, 0.

    Raises:
        InputError: What was asked for cannot be done; the message says what to do.
    """
    data = read_options(arguments)
    if not isinstance(data, PackedDataModule):
        raise InputError("StreamedImages are fetched as they are needed: there is nothing to pack.")
    data.auto_pack = True
    started = time.perf_counter()
    data.prepare_data()
    data.setup()
    seconds = time.perf_counter() - started
    images = data.packed
    size = sum(path.stat().st_size for path in images.folder.iterdir())
    print(f"path     {images.folder}")
    print(f"images   {len(images.rows):,}")
    print(f"skipped  {len(images.skipped):,}")
    print(f"bytes    {size:,}")
    print(f"seconds  {seconds:.1f}")
    return 0


def read_options(arguments: Sequence[str]) -> ImageDataModule:
    """Build the data module that the arguments describe.

    Args:
        arguments: Those of the command line.

    Raises:
        InputError: A configuration that is not there or no YAML, or a setting that is not possible.
    """
    parser = ArgumentParser(prog="gan-lightning pack", description=DESCRIPTION)
    parser.add_argument("--config", action="config", help="YAML of a training; all but its `data` is passed over.")
    parser.add_subclass_arguments(ImageDataModule, "data", required=True)
    given = with_data_alone(arguments)
    if not any(argument.split("=")[0] in CLASS_OPTIONS or '"class_path"' in argument for argument in given):
        # Not as a default of every call: its crop would be handed on to any class that is named.
        parser.set_defaults({"data": {"class_path": "gan_lightning.SyntheticFaces"}})
    options = parser.parse_args(given)
    instantiate = getattr(parser, "instantiate", None) or parser.instantiate_classes  # the name before 4.49
    data: ImageDataModule = instantiate(options).data
    return data


def with_data_alone(arguments: Sequence[str]) -> list[str]:
    """Put in place of each configuration file that the arguments name what it says of the data.

    Args:
        arguments: Those of the command line.

    Raises:
        InputError: A configuration that is not there or no YAML.
    """
    result: list[str] = []
    for argument in arguments:
        if argument.startswith("--config="):
            result.append(f"--config={read_data(argument.partition('=')[2])}")
        else:
            result.append(read_data(argument) if result[-1:] == ["--config"] else argument)
    return result


def read_data(path: str) -> str:
    """Give what a configuration says of the data, as JSON."""
    try:
        content = yaml.safe_load(Path(path).expanduser().read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror}): give the YAML of a training.") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise InputError(f"{path} is no YAML: give the configuration of a training.") from error
    if not isinstance(content, dict):
        raise InputError(f"{path} is no configuration of a training: it holds no keys.")
    return json.dumps({"data": content["data"]} if "data" in content else {})
