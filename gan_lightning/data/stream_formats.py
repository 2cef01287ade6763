"""Formats allowed in a stream: plain values, and images that are not decoded before their size is known."""

from __future__ import annotations

import json

from litdata.streaming.serializers import (  # type: ignore[import-not-found, import-untyped, unused-ignore]
    BytesSerializer,
)

from gan_lightning.data.listing import stays_inside
from gan_lightning.errors import InputError

# The other formats of litdata run pickles, or decode what is not an image.
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
    """Reader of the bytes of an encoded image, which litdata would decode however large it is."""

    def can_serialize(self, item: object) -> bool:
        """Return False: it is for reading only."""
        return False


SERIALIZERS = {"jpeg": Undecoded()}


def check_formats(index: bytes, url: str) -> None:
    """Raise if reading a source could do harm.

    Args:
        index: Content of its index.json.
        url: Name of the source in an error message.

    Raises:
        InputError: If the source holds items other than plain values and images, such as pickles; if it names files
            outside of itself; or if it is compressed and a local folder, whose files litdata would replace by what it
            unpacks.
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
