"""Rendered faces as tensors, of a seed that nothing was trained on."""

import torch
from PIL import Image
from torch import Tensor

from gan_lightning.faces import render_face, sample_face
from gan_lightning.images import to_float


def rendered_faces(size: int) -> Tensor:
    """Return two faces (2,3,size,size) in [-1, 1]."""
    images = [Image.fromarray(render_face(sample_face(3, index))).resize((size, size)) for index in range(2)]
    pixels = [torch.frombuffer(bytearray(image.tobytes()), dtype=torch.uint8).view(size, size, 3) for image in images]
    return to_float(torch.stack(pixels).permute(0, 3, 1, 2))
