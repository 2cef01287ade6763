"""Alignment of faces: landmarks, the transform to a training frame, and the transform back into the photograph."""

from gan_lightning.alignment.detector import LandmarkDetector, Landmarks, YuNet
from gan_lightning.alignment.frames import FRAMES, Frame, make_frame, similarity
from gan_lightning.alignment.mesh import FaceMesh, default_detector
from gan_lightning.alignment.warp import paste, warp

__all__ = [
    "FRAMES",
    "FaceMesh",
    "Frame",
    "LandmarkDetector",
    "Landmarks",
    "YuNet",
    "default_detector",
    "make_frame",
    "paste",
    "similarity",
    "warp",
]
