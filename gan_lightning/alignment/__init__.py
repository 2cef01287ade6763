"""Alignment of faces: landmarks, the transform to a training frame, and the way back into the photograph."""

from gan_lightning.alignment.detector import LandmarkDetector, Landmarks, YuNet
from gan_lightning.alignment.frames import FRAMES, Frame, make_frame, similarity
from gan_lightning.alignment.warp import paste, warp

__all__ = [
    "FRAMES",
    "Frame",
    "LandmarkDetector",
    "Landmarks",
    "YuNet",
    "make_frame",
    "paste",
    "similarity",
    "warp",
]
