"""Reading of landmark files: CelebA's lists, CSV and JSON."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from gan_lightning.alignment.detector import Landmarks
from gan_lightning.errors import InputError
from gan_lightning.file_names import printable

EXAMPLE = "000001.jpg 69 109 106 113 77 142 73 152 108 154"


def read_landmarks(path: Path) -> dict[str, Landmarks]:
    """Read the landmarks of photographs.

    - `list_landmarks_align_celeba.txt` and `list_landmarks_celeba.txt`: lines of a name and ten numbers, (x, y) of left
      eye, right eye, nose, and left and right corner of the mouth; lines of a count and of column names may come first.
    - The same with commas, as in CSV copies of CelebA.
    - JSON: an object of names. A face is a list of five pairs or of ten numbers; several faces are a list of these.

    A name on several lines is a photograph with several faces.

    Args:
        path: The file.

    Returns:
        (N,5,2) landmarks by the name of a photograph.

    Raises:
        InputError: If the file does not exist, or contains something else.
    """
    try:
        text = path.read_text(encoding="utf-8-sig", errors="surrogateescape")
    except OSError as error:
        raise InputError(f"--landmarks {printable(path)} cannot be read: {error.strerror}") from error
    found: dict[str, list[Any]] = {}
    for name, numbers, place in _from_json(text, path) if path.suffix.lower() == ".json" else _from_lines(text):
        try:
            faces = np.array(numbers, dtype=np.float64).reshape(-1, 5, 2)
        except (ValueError, TypeError):
            faces = np.full((1, 5, 2), np.nan)
        if not np.isfinite(faces).all():
            raise InputError(
                f"{place} of {printable(path)} does not have five landmarks: expected ten numbers as in {EXAMPLE!r}"
            )
        found.setdefault(name, []).extend(faces)
    if not found:
        raise InputError(f"{printable(path)} contains no landmarks: expected lines such as {EXAMPLE!r}")
    return {name: np.array(faces) for name, faces in found.items()}


def match_names(landmarks: dict[str, Landmarks], names: Sequence[str], path: Path) -> dict[str, Landmarks]:
    """Return the landmarks of photographs, by their whole names or the last part of them.

    Raises:
        InputError: If the file names none of the photographs.
    """
    found = {name: landmarks.get(name, landmarks.get(name.rpartition("/")[2])) for name in names}
    matched = {name: faces for name, faces in found.items() if faces is not None}
    if not matched:
        raise InputError(
            f"{printable(path)} names no photograph that was given: it has {printable(next(iter(landmarks)))}, ..., "
            f"and the photographs are {printable(names[0])}, ..."
        )
    return matched


def _from_lines(text: str) -> Iterator[tuple[str, list[str], str]]:
    for number, line in enumerate(text.splitlines(), start=1):
        words = next(csv.reader([line])) if "," in line else line.split()
        words = [word.strip() for word in words]
        header = number <= 2 and (len(words) <= 1 or not any(_is_number(word) for word in words[1:]))
        if words and not header:
            count = next((n for n, word in enumerate(words) if n and all(map(_is_number, words[n:]))), 1)
            yield " ".join(words[:count]), words[count:], f"line {number}"


def _from_json(text: str, path: Path) -> Iterator[tuple[str, Any, str]]:
    try:
        content = json.loads(text)
    except ValueError as error:
        raise InputError(f"{printable(path)} is not JSON: {error}") from error
    if not isinstance(content, dict):
        raise InputError(f"{printable(path)} does not contain an object of names and landmarks")
    for name, numbers in content.items():
        yield name, numbers, f"the entry {printable(name)}"


def _is_number(word: str) -> bool:
    try:
        float(word)
    except ValueError:
        return False
    return True
