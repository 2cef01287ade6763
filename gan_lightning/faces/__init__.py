"""Synthetic faces: drawn from (seed, index), rendered with NumPy, and labeled like the images of CelebA."""

from gan_lightning.faces.attributes import ATTRIBUTES, LANDMARKS, face_attributes, face_landmarks
from gan_lightning.faces.parameters import Face
from gan_lightning.faces.render import render_face
from gan_lightning.faces.sampling import sample_face

__all__ = ["ATTRIBUTES", "LANDMARKS", "Face", "face_attributes", "face_landmarks", "render_face", "sample_face"]
