"""Fast decoding of the left part of a PNG file."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path
from typing import Final

import numpy as np
from PIL import Image

CHANNELS: Final = {0: ("L", 1), 2: ("RGB", 3)}  # by the color type of the file
SIGNATURE: Final = b"\x89PNG\r\n\x1a\n"


def left_columns(path: Path, columns: int) -> Image.Image | None:
    """Read the first columns of an image.

    A pixel of a PNG is stored as a difference from the pixels to its left and above. Summing these differences takes
    longer than decompressing them, and does not need the columns on the right.

    Args:
        path: Path of a PNG file.
        columns: Number of columns to read, at most the width of the image.

    Returns:
        The image; None if the file does not have the format of this package: 8 bits, gray or RGB, not interlaced.

    Raises:
        ValueError, zlib.error, struct.error: If the file is damaged.
    """
    data = path.read_bytes()
    width, height, *layout = struct.unpack(">IIBBBBB", data[16:29])
    depth, color, _, _, interlaced = layout
    if not data.startswith(SIGNATURE) or depth != 8 or color not in CHANNELS or interlaced:
        return None
    mode, channels = CHANNELS[color]
    rows = np.frombuffer(zlib.decompress(_compressed(data)), np.uint8).reshape(height, 1 + width * channels)
    kept = np.ascontiguousarray(rows[:, : 1 + columns * channels])  # the first byte of a row states its filter
    return Image.frombytes(mode, (columns, height), zlib.compress(kept.tobytes(), level=0), "zip", mode)


def _compressed(data: bytes) -> bytes:
    """Return the content of all chunks of pixels."""
    found, place = [], len(SIGNATURE)
    while place < len(data):
        length, kind = struct.unpack(">I4s", data[place : place + 8])
        if kind == b"IDAT":
            found.append(data[place + 8 : place + 8 + length])
        place += length + 12  # length, kind and checksum
    return b"".join(found)
