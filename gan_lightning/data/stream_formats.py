"""What may come out of a stream: plain values, and images that are not decoded before their size is known."""

from __future__ import annotations

import json

from litdata.streaming.serializers import (  # type: ignore[import-not-found, import-untyped, unused-ignore]
    BytesSerializer,
)

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
    """Refuse a source whose items could run code when they are read.

    Args:
        index: Its index.json.
        url: What to call it.

    Raises:
        InputError: It holds pickled objects, or others that are no plain values or images.
    """
    for written_as in json.loads(index)["config"]["data_format"] or ():
        if str(written_as).split(":")[0] not in PLAIN:
            raise InputError(
                f"{url} is refused: it holds items written as {written_as!r}, which could run code: write it anew with "
                "images, arrays or the bytes of files alone"
            )
