"""The table `alignment.csv`: photograph, landmarks and transform of each aligned image."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np

from gan_lightning.alignment.frames import Frame, Matrix, Points
from gan_lightning.atomic import atomic_path
from gan_lightning.errors import InputError
from gan_lightning.file_names import printable

TABLE: Final = "alignment.csv"
COLUMNS: Final = (
    *("aligned", "photo", "photo_width", "photo_height", "frame", "width", "height"),
    *("cosine", "sine", "shift_x", "shift_y"),
    *("lefteye_x", "lefteye_y", "righteye_x", "righteye_y", "nose_x", "nose_y"),
    *("leftmouth_x", "leftmouth_y", "rightmouth_x", "rightmouth_y"),
)


@dataclass(frozen=True)
class AlignedFace:
    """One face: a row of the table.

    Attributes:
        aligned: Name of the aligned image, relative to the folder of the table.
        photo: Name of the photograph.
        size: Width and height of the photograph.
        frame: Frame of the aligned image.
        matrix: (2,3) transform from the photograph to the frame.
        landmarks: (5,2) in the photograph.
    """

    aligned: str
    photo: str
    size: tuple[int, int]
    frame: Frame
    matrix: Matrix
    landmarks: Points


def write_table(path: Path, faces: Sequence[AlignedFace]) -> None:
    """Write the table.

    A point (x, y) of the photograph moves to (cosine x - sine y + shift_x, sine x + cosine y + shift_y). Names may have
    any encoding: their bytes are written unchanged.
    """
    with (
        atomic_path(path) as beside,
        beside.open("w", encoding="utf-8", errors="surrogateescape", newline="") as file,
    ):
        rows = csv.writer(file, lineterminator="\n")
        rows.writerow(COLUMNS)
        for face in faces:
            numbers = (*face.matrix[:, 0], *face.matrix[:, 2], *face.landmarks.ravel())
            size = (*face.size, face.frame.name, face.frame.width, face.frame.height)
            rows.writerow([face.aligned, face.photo, *size, *(repr(float(number)) for number in numbers)])


def read_table(path: Path) -> list[AlignedFace]:
    """Read the table.

    Raises:
        InputError: If the file does not exist, or is something else.
    """
    try:
        with path.open(encoding="utf-8", errors="surrogateescape", newline="") as file:
            return [_face(row) for row in csv.DictReader(file)]
    except OSError as error:
        raise InputError(f"{printable(path)} cannot be read ({error.strerror}): give the {TABLE} of align") from error
    except (KeyError, ValueError, TypeError) as error:
        raise InputError(f"{printable(path)} is not a table that align has written: give its {TABLE}") from error


def _face(row: dict[str, str]) -> AlignedFace:
    cosine, sine, shift_x, shift_y, *landmarks = (float(row[name]) for name in COLUMNS[7:])
    return AlignedFace(
        row["aligned"],
        row["photo"],
        (int(row["photo_width"]), int(row["photo_height"])),
        Frame(row["frame"], int(row["width"]), int(row["height"])),
        np.array([(cosine, -sine, shift_x), (sine, cosine, shift_y)]),
        np.array(landmarks).reshape(5, 2),
    )
