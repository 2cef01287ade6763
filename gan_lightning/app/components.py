"""Components of the page that hand over files and strokes undecoded: what is too large is refused by its header.

The methods are replaced on the instances: gradio writes a file beside the source of every class of components.
"""

from __future__ import annotations

from typing import Any

import gradio as gr


def photo_input(**options: Any) -> gr.Image:
    """Return an input for a photograph, whose value is the path of the file that was dropped, chosen or taken.

    Args:
        **options: Of gradio's `Image`, which would decode the file first.
    """
    photo = gr.Image(type="filepath", **options)

    def hand_over(payload: Any) -> str | None:
        return None if payload is None else payload.path

    photo.preprocess = hand_over  # type: ignore[method-assign]
    return photo


def mask_editor(**options: Any) -> gr.ImageEditor:
    """Return a picture to paint on, whose value is the list of its layers: PNG images, or paths of their files.

    Args:
        **options: Of gradio's `ImageEditor`, which would decode them first.
    """
    editor = gr.ImageEditor(**options)

    def hand_over(payload: Any) -> list[bytes | str]:
        if payload is None:
            return []
        if payload.id is not None:
            sent = editor.blob_storage.pop(payload.id, None)
            return [] if sent is None else [layer for layer in sent.layers if layer is not None]
        return [layer.path for layer in payload.layers]

    editor.preprocess = hand_over  # type: ignore[assignment, method-assign]
    return editor
