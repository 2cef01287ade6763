"""What may come out of a stream: plain values, and images that are not decoded before their size is known."""

from __future__ import annotations

import json

from litdata.streaming.serializers import (  # type: ignore[import-not-found, import-untyped, unused-ignore]
    BytesSerializer,
)

from gan_lightning.data.listing import stays_inside
from gan_lightning.errors import InputError

# litdata's own others run pickles, or decode what no image is made of.
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
    """Gives the bytes of an encoded image, which litdata would decode however large it is."""

    def can_serialize(self, item: object) -> bool:
        """Nothing is written with it."""
        return False


SERIALIZERS = {"jpeg": Undecoded()}


def check_formats(index: bytes, url: str) -> None:
    """Refuse a source that could do harm when it is read.

    Args:
        index: Its index.json.
        url: What to call it.

    Raises:
        InputError: It holds pickled objects, or others that are no plain values or images; files that lie elsewhere;
            or it is compressed and lies in a plain folder, where litdata would put what it unpacked in the place of
            the source.
    """
    content = json.loads(index)
    for chunk in content["chunks"]:
        if not stays_inside(str(chunk["filename"])):
            raise InputError(f"{url} is refused: its index names the file {chunk['filename']!r}, outside of the source")
    if content["config"].get("compression") and "://" not in url and not url.startswith("local:"):
        raise InputError(
            f"{url} is compressed, and would be unpacked in its own place: give local:{url}, which is copied first"
        )
    for written_as in content["config"]["data_format"] or ():
        if str(written_as).split(":")[0] not in PLAIN:
            raise InputError(
                f"{url} is refused: it holds items written as {written_as!r}, which could run code: write it anew with "
                "images, arrays or the bytes of files alone"
            )
