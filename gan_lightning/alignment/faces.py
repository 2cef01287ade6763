"""Alignment of all photographs of a listing, and pasting of restored faces back into them."""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np

from gan_lightning.alignment.detector import Landmarks
from gan_lightning.alignment.frames import Frame, Points, apply, inverse, scale_of
from gan_lightning.alignment.pictures import Pixels, color_of, cut_out, has_alpha, read_upright, write_image
from gan_lightning.alignment.table import TABLE, AlignedFace, write_table
from gan_lightning.alignment.warp import paste
from gan_lightning.data.decode import describe_failure
from gan_lightning.data.listing import ImageListing
from gan_lightning.errors import InputError
from gan_lightning.file_names import printable

logger = logging.getLogger(__name__)
FindFaces = Callable[[str, Pixels], Landmarks]  # name and color (H,W,3) of a photograph -> (N,5,2), the largest first


def align_photos(
    listing: ImageListing,
    find: FindFaces,
    frame: Frame,
    folder: Path,
    stems: Mapping[str, str],
    largest: bool = False,
) -> tuple[list[AlignedFace], dict[str, str]]:
    """Write an aligned image of each face, and the table of all transforms.

    A photograph that cannot be read or shows no face is reported in a warning and skipped.

    Args:
        listing: The photographs.
        find: Function that finds the faces.
        frame: Frame of the aligned faces.
        folder: Folder to write to.
        stems: Name of the result of each photograph, without a suffix. If there are several faces, numbers are
            appended, starting with the largest face.
        largest: Align only the largest face of each photograph.

    Returns:
        The faces, and the reasons for skipping photographs by their names.

    Raises:
        InputError: If no photograph shows a face.
    """
    aligned, left_alone = [], {}
    for name in listing.names:
        try:
            pixels = read_upright(listing.root / name)
            found = [(landmarks, frame.transform(landmarks)) for landmarks in find(name, color_of(pixels))]
            found = found[:1] if largest else found
            if not found:
                raise ValueError("no face was found")
            check_size(pixels, found[0][0], frame)
        except Exception as error:  # Pillow's plugins raise nearly any class on a broken file
            left_alone[name] = describe_failure(error, listing.root / name)
            if len(listing.names) > 1:  # otherwise the error below says the same
                logger.warning("%s is skipped: %s", printable(name), left_alone[name])
            continue
        for number, (landmarks, matrix) in enumerate(found, start=1):
            target = stems[name] + (f"_{number}" if len(found) > 1 else "") + ".png"
            write_image(folder / target, cut_out(pixels, matrix, frame))
            aligned.append(AlignedFace(target, name, (pixels.shape[1], pixels.shape[0]), frame, matrix, landmarks))
    if not aligned:
        name, reason = next(iter(left_alone.items()))
        count = f"none of {len(left_alone)} photographs was aligned: " if len(left_alone) > 1 else ""
        raise InputError(f"{count}{printable(name)}: {reason}")
    write_table(folder / TABLE, aligned)
    return aligned, left_alone


def check_size(pixels: Pixels, landmarks: Points, frame: Frame) -> None:
    """Check that a photograph is not smaller than the crop around its face.

    Raises:
        InputError: If it is smaller in both width and height, or most of the crop is outside of it.
    """
    matrix = frame.transform(landmarks)
    height, width = pixels.shape[:2]
    sides = frame.width / scale_of(matrix), frame.height / scale_of(matrix)
    steps = np.stack(np.meshgrid(np.linspace(0, frame.width - 1, 16), np.linspace(0, frame.height - 1, 16)), axis=-1)
    x, y = apply(inverse(matrix), steps.reshape(-1, 2)).T
    inside = np.mean((x > -1) & (x < width) & (y > -1) & (y < height))
    if inside < 0.5:
        raise InputError(
            f"its {width}x{height} pixels are less than the crop around the face, {sides[0]:.0f}x{sides[1]:.0f}: use a "
            "larger part of the photograph"
        )


def paste_back(
    listing: ImageListing,
    faces: Sequence[AlignedFace],
    restored: Mapping[str, Path],
    aligned: Path,
    targets: Mapping[str, Path],
) -> list[str]:
    """Put restored faces back into their photographs, and write these as PNG.

    Args:
        listing: The photographs.
        faces: Rows of the table of the alignment.
        restored: Files of the restored faces, by the names of the aligned images.
        aligned: Folder of the aligned images.
        targets: Path of each result by the name of the photograph.

    Returns:
        Names of the photographs that were written.

    Raises:
        InputError: If the size of a photograph has changed since the alignment, or a face has not the shape of the
            frame.
    """
    by_photo = defaultdict(list)
    for face in faces:
        if face.aligned in restored:
            by_photo[face.photo].append(face)
    written = []
    for name, own in by_photo.items():
        pixels = read_upright(listing.root / name)
        for face in reversed(own):  # the largest last, on top of the others
            pixels = _with_face(pixels, face, restored[face.aligned], aligned / face.aligned, name)
        write_image(targets[name], pixels)
        written.append(name)
    return written


def _with_face(pixels: Pixels, face: AlignedFace, path: Path, before: Path, name: str) -> Pixels:
    if (pixels.shape[1], pixels.shape[0]) != face.size:
        raise InputError(
            f"{printable(name)} is {pixels.shape[1]}x{pixels.shape[0]} pixels, and was {face.size[0]}x{face.size[1]} "
            "when it was aligned: give the photograph that was aligned"
        )
    restored, frame = color_of(read_upright(path)), face.frame
    height, width = restored.shape[:2]
    if width * frame.height != height * frame.width:
        raise InputError(
            f"{printable(path)} is {width}x{height} pixels, of another shape than the aligned image, "
            f"{frame.width}x{frame.height}"
        )
    aligned = color_of(read_upright(before)) if before.is_file() else None
    original = color_of(pixels)
    result = paste(original, restored, face.matrix, frame, aligned)
    if not has_alpha(pixels):
        gray = pixels.shape[2] == 1 and bool(np.ptp(result, axis=2).max() == 0)
        return result[..., :1] if gray else result
    changed = (result != original).any(axis=2)
    alpha = np.where(changed, 255, pixels[..., -1]).astype(np.uint8)  # filled pixels become visible
    return np.dstack([result, alpha])
