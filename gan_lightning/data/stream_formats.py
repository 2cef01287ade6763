"""Formats allowed in a stream: plain values, and images whose size is checked before they are decoded."""

from __future__ import annotations

import json

from litdata.streaming.serializers import (  # type: ignore[import-not-found, import-untyped, unused-ignore]
    BytesSerializer,
)

from gan_lightning.data.listing import stays_inside
from gan_lightning.errors import InputError

# Other formats of litdata execute pickles, or decode something other than an image.
PLAIN = (
    "str",
    "bool",
    "int",
    "float",
    "pil",
    "jpeg",
    "bytes",
    "numpy",
    "no_header_numpy",
    "tensor",
    "no_header_tensor",
)


class Undecoded(BytesSerializer):  # type: ignore[misc, unused-ignore]
    """Reader of the bytes of an encoded image, which litdata would decode at any size."""

    def can_serialize(self, item: object) -> bool:
        """Return False: this class only reads."""
        return False


SERIALIZERS = {"jpeg": Undecoded()}


def check_formats(index: bytes, url: str) -> None:
    """Raise an InputError if reading a source could do harm.

    Args:
        index: Content of its index.json.
        url: Name of the source in an error message.

    Raises:
        InputError: If the source contains items other than plain values and images, such as pickles; if it names files
            outside of itself; or if it is a compressed local folder, whose files litdata would replace by their
            decompressed content.
    """
    content = json.loads(index)
    for chunk in content["chunks"]:
        if not stays_inside(str(chunk["filename"])):
            raise InputError(f"{url} is refused: its index names the file {chunk['filename']!r}, outside of the source")
    if content["config"].get("compression") and "://" not in url and not url.startswith("local:"):
        raise InputError(
            f"{url} is compressed, and would be unpacked in place: give local:{url}, which is copied first"
        )
    for written_as in content["config"]["data_format"] or ():
        if str(written_as).split(":")[0] not in PLAIN:
            raise InputError(
                f"{url} is refused: it holds items written as {written_as!r}, which could run code: write it anew with "
                "images, arrays or the bytes of files only"
            )
