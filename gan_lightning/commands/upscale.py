"""The command `upscale`, which enlarges photographs."""

from __future__ import annotations

import argparse
import hashlib
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from gan_lightning.atomic import atomic_path
from gan_lightning.commands.upscale_options import HELP as HELP
from gan_lightning.commands.upscale_options import parse
from gan_lightning.errors import InputError
from gan_lightning.file_names import printable, target_names

MADE_BY = "gan-lightning upscale"  # key of a text in our PNG files: a hash of everything that the result depends on


def main(words: Sequence[str]) -> int:
    """Enlarge photographs.

    Args:
        words: Words of the command line after `upscale`.

    Returns:
        Exit status: 1 if a photograph could not be read.

    Raises:
        InputError: If the command line, a photograph, the weights or the output cannot be used.
    """
    job = Job(parse(words))
    return job.run()


class Job:
    """Photographs to enlarge, the network, and the output folder; everything is checked before any work.

    Args:
        options: Options of the command.

    Raises:
        InputError: As for `main`.
    """

    def __init__(self, options: argparse.Namespace) -> None:
        from gan_lightning.commands.parser import choose_device
        from gan_lightning.data.listing import read_paths
        from gan_lightning.networks.tiles import check_tile
        from gan_lightning.upscaler import load_upscaler

        self.tile = options.tile
        check_tile(self.tile)
        self.device = choose_device(options.device)
        self.listing, self.output = read_paths(options.photos), Path(options.output).expanduser()
        for folder in (Path(os.path.realpath(photo)) for photo in map(os.path.expanduser, options.photos)):
            if folder.is_dir() and Path(os.path.realpath(self.output)).is_relative_to(folder):
                raise InputError(
                    f"--output {printable(self.output)} lies in {printable(folder)}, where the next command would take "
                    "the results for photographs: choose a folder outside of it"
                )
        self.upscaler = load_upscaler(options.weights, self.device)
        self.targets = {name: self.output / target for name, target in target_names(self.listing.names).items()}
        self.finished = self._find_finished()
        self._check_channels(options.weights)

    def _find_finished(self) -> set[str]:
        """Return the names of the photographs whose results exist, and refuse to overwrite other files."""
        found = set()
        for name, target in self.targets.items():
            if target.exists():
                if made_by(target) != self._key(name):
                    raise InputError(
                        f"{printable(target)} exists, and is not a result of this command: choose another --output, or "
                        "remove it"
                    )
                found.add(name)
        return found

    def _key(self, name: str) -> str:
        """Return a hash of everything that a result depends on."""
        content = hashlib.sha256((self.listing.root / name).read_bytes()).hexdigest()
        return hashlib.sha256(f"{content}/{self.upscaler.digest}/{self.tile}".encode()).hexdigest()[:32]

    def _check_channels(self, weights: str) -> None:
        if self.upscaler.channels == 1:
            from gan_lightning.upscale_photo import is_gray

            for name in self.listing.names:
                if not is_gray(self.listing.root / name):
                    raise InputError(f"{printable(name)} is in color, but {printable(weights)} takes gray images")

    def run(self) -> int:
        """Enlarge the remaining photographs, and return the exit status."""
        from tqdm import tqdm  # type: ignore[import-untyped]

        left = [name for name in self.listing.names if name not in self.finished]
        self.listing.report_left_out()
        network = f"{self.upscaler.name}, {self.upscaler.scale} times as large"
        print(f"upscale: {count(len(self.listing.names), 'image')} by {network}", flush=True)
        if self.finished:
            print(f"{count(len(self.finished), 'image')} finished earlier")
        skipped = sum(not self._enlarge(name) for name in tqdm(left, unit="img", disable=not sys.stderr.isatty()))
        if skipped == len(self.listing.names):
            raise InputError(f"none of the {skipped} images can be read")
        print(f"wrote {count(len(left) - skipped, 'image')} to {printable(self.output)}")
        return 1 if skipped else 0

    def _enlarge(self, name: str) -> bool:
        """Enlarge one photograph; return whether it could be read."""
        from PIL.PngImagePlugin import PngInfo

        from gan_lightning.data.decode import describe_failure
        from gan_lightning.upscale_photo import enlarge_photo, read_upright

        path = self.listing.root / name
        try:
            photo = read_upright(path)
        except Exception as error:  # Pillow's plugins raise nearly any class on a broken file
            print(f"skipped {printable(name)}: it cannot be read ({describe_failure(error, path)})", file=sys.stderr)
            return False
        text = PngInfo()
        text.add_text(MADE_BY, self._key(name))
        image = enlarge_photo(photo, self.upscaler, self.tile, self.device)
        with atomic_path(self.targets[name]) as beside:
            image.save(beside, "PNG", pnginfo=text, icc_profile=photo.icc_profile)
        return True


def count(number: int, noun: str) -> str:
    """Return a number with its noun."""
    return f"{number} {noun}{'s' * (number != 1)}"


def made_by(path: Path) -> str | None:
    """Return the hash in a PNG file written by this command; None for other files."""
    from PIL import Image

    try:
        with Image.open(path) as image:
            text = getattr(image, "text", {})
    except Exception:  # something else
        return None
    return text.get(MADE_BY) if isinstance(text, dict) else None
