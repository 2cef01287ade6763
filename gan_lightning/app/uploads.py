"""Files sent by the browser, before they are decoded: gradio's own components would decode files of any size."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

Sent = Mapping[str, Any] | None  # as gradio passes it to a function of an event with preprocess=False


def photo_file(sent: Sent) -> Path | None:
    """Return the file of a photograph, which gradio has checked to lie in its folder of uploads."""
    path = None if sent is None else sent.get("path")
    return None if path is None else Path(path)


def layer_files(sent: Sent) -> list[Path]:
    """Return the files of the layers that were painted on a picture."""
    layers = [] if sent is None else sent.get("layers") or []
    return [Path(layer["path"]) for layer in layers if layer is not None]
