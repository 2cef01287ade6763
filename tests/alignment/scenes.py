"""Photographs for tests: rendered faces, whose landmarks are known, turned and scaled into larger pictures."""

import numpy as np

from gan_lightning.alignment.frames import apply
from gan_lightning.alignment.warp import warp
from gan_lightning.faces import face_landmarks, render_face, sample_face


def landmarks_of(face):
    return np.array(face_landmarks(face), np.float64).reshape(5, 2)


def placed(index, degrees=0.0, scale=1.0, center=(150, 150), size=(300, 300)):
    """Return a photograph with one face, and the true landmarks (5,2)."""
    face, angle = sample_face(7, index), np.deg2rad(degrees)
    turn = scale * np.array([(np.cos(angle), -np.sin(angle)), (np.sin(angle), np.cos(angle))])
    matrix = np.column_stack([turn, np.array(center) - turn @ (88.5, 130)])
    padded = np.pad(render_face(face), ((300, 300), (300, 300), (0, 0)), mode="edge")  # not mirrored: one face
    pixels = warp(padded, np.column_stack([turn, matrix[:, 2] - turn @ (300, 300)]), *size)
    return np.clip(np.rint(pixels), 0, 255).astype(np.uint8), apply(matrix, landmarks_of(face))


def scene(indices=(3, 5), width=620, height=340):
    """Return a photograph with two faces side by side, the first one larger, and their landmarks (2,5,2)."""
    left, first = placed(indices[0], -12, 1.3, (155, 170), (width // 2, height))
    right, second = placed(indices[1], 15, 0.9, (155, 170), (width // 2, height))
    return np.concatenate([left, right], axis=1), np.stack([first, second + np.array([width // 2, 0])])
