"""Rendering of a face from its parameters in layers, from the background to the glasses."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from gan_lightning.faces import scene, skin, worn
from gan_lightning.faces.beard import draw_beard
from gan_lightning.faces.canvas import Light, encode
from gan_lightning.faces.eyes import draw_eyes
from gan_lightning.faces.hair import Hair, draw_back, draw_front
from gan_lightning.faces.head import Head, surface
from gan_lightning.faces.mouth import draw_mouth
from gan_lightning.faces.parameters import Face


def render_face(face: Face) -> npt.NDArray[np.uint8]:
    """Render one face.

    Args:
        face: Parameters of the face.

    Returns:
        (218,178,3) uint8 RGB, aligned like CelebA's images, with the eyes near (69,111) and (108,111).
    """
    head, light = Head.of(face), Light.of(face)
    shape = surface(face, head)
    canvas = scene.background(face)
    hairdo = Hair.of(face, head, light)
    if hairdo:
        draw_back(canvas, face, hairdo)
    skin.draw_neck(canvas, face, head, light)
    scene.draw_necklace(canvas, face, head, light)
    scene.draw_shoulders(canvas, face, head, light)
    skin.draw_ears(canvas, face, head, light)
    worn.draw_earrings(canvas, face, head, light)
    skin.draw_head(canvas, face, head, shape, light)
    draw_mouth(canvas, face, head, light)
    draw_beard(canvas, face, head, shape, light)
    draw_eyes(canvas, face, head, light)
    if hairdo:
        draw_front(canvas, face, head, shape, hairdo)
    worn.draw_hat(canvas, face, head, light)
    worn.draw_glasses(canvas, face, head, light)
    return encode(canvas, face)
