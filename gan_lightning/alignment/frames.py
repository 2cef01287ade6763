"""Frames on which face generators are trained, and the similarity transforms from photographs to frames.

Points are (x, y) in pixels, and the center of the first pixel is (0, 0). A transform is a matrix (2,3) that maps points
of the photograph to points of the frame.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from gan_lightning.errors import InputError

Points = NDArray[np.float64]
Matrix = NDArray[np.float64]

FRAMES: Final = ("celeba", "celeba_square", "ffhq")
CELEBA_SIZE: Final = (178, 218)
CELEBA_SQUARE: Final = (0, 20, 178, 198)  # the crop of `data.CelebA` before resizing
# Means of list_landmarks_align_celeba.txt: left eye, right eye, nose, corners of the mouth, as the viewer sees them.
CELEBA_LANDMARKS: Final = np.array([(69.4, 111.2), (107.6, 111.2), (88.0, 135.0), (71.1, 152.2), (105.0, 152.2)])


@dataclass(frozen=True)
class Frame:
    """Size of an aligned image, and position of the face in it.

    Attributes:
        name: "celeba", "celeba_square" or "ffhq".
        width: Width in pixels.
        height: Height in pixels.
    """

    name: str
    width: int
    height: int

    def transform(self, landmarks: Points) -> Matrix:
        """Return the transform of a face to this frame.

        Args:
            landmarks: (5,2) left eye, right eye, nose, left and right corner of the mouth, as the viewer sees them.

        Returns:
            (2,3) matrix from the photograph to the frame.
        """
        if self.name == "ffhq":
            return similarity(ffhq_square(landmarks), self.corners())
        left, top, right, _ = CELEBA_SQUARE if self.name == "celeba_square" else (0, 0, *CELEBA_SIZE)
        scale = self.width / (right - left)
        return similarity(landmarks, (CELEBA_LANDMARKS - (left, top) + 0.5) * scale - 0.5)

    def corners(self) -> Points:
        """Return the corners (4,2): upper left, lower left, lower right, upper right."""
        right, bottom = self.width - 0.5, self.height - 0.5
        return np.array([(-0.5, -0.5), (-0.5, bottom), (right, bottom), (right, -0.5)])


def make_frame(name: str, size: int | None = None) -> Frame:
    """Return a frame.

    Args:
        name: "celeba", CelebA's aligned images of 178x218 pixels; "celeba_square", the square of these that data
            modules crop; "ffhq", the square of FFHQ.
        size: Side of a square in pixels; 178 or 256 by default.

    Raises:
        InputError: If the frame does not exist, or does not support the size.
    """
    if name not in FRAMES:
        raise InputError(f"frame {name!r} is unsupported: choose {', '.join(FRAMES)}")
    if name == "celeba":
        if size is not None:
            raise InputError("the frame celeba has 178x218 pixels: choose celeba_square or ffhq for a size of your own")
        return Frame(name, *CELEBA_SIZE)
    side = size or (256 if name == "ffhq" else CELEBA_SIZE[0])
    return Frame(name, side, side)


def similarity(source: Points, target: Points) -> Matrix:
    """Return the rotation, scale and shift that map points to others with the least squared error.

    This is the closed form of Umeyama (1991), without reflections, which in the plane is a division of complex numbers.

    Args:
        source: (N,2) points.
        target: (N,2) points.

    Raises:
        InputError: If the points of the source coincide, or one is not finite.
    """
    before, after = source - source.mean(axis=0), target - target.mean(axis=0)
    spread = float(np.square(before).sum())
    if not (np.isfinite(source).all() and np.isfinite(target).all() and spread > 0):
        raise InputError("landmarks coincide, or are not finite numbers: correct them")
    scaled_cosine = float((before * after).sum()) / spread
    scaled_sine = float((before[:, 0] * after[:, 1] - before[:, 1] * after[:, 0]).sum()) / spread
    turn = np.array([(scaled_cosine, -scaled_sine), (scaled_sine, scaled_cosine)])
    return np.column_stack([turn, target.mean(axis=0) - turn @ source.mean(axis=0)])


def ffhq_square(landmarks: Points) -> Points:
    """Return the corners (4,2) of the crop of FFHQ around a face (Karras et al. 2019, appendix A).

    The direction of its horizontal axis is the average of the line through the eyes and the perpendicular to the line
    from the eyes to the mouth. Half of its side is the larger of 2 eye distances and 1.8 distances from the eyes to the
    mouth. Its center is at a tenth of the distance from the eyes to the mouth.
    """
    eyes, mouth = landmarks[:2].mean(axis=0), landmarks[3:].mean(axis=0)
    between, down = landmarks[1] - landmarks[0], mouth - eyes
    axis = between + np.array((down[1], -down[0]))
    half = max(2.0 * np.hypot(*between), 1.8 * np.hypot(*down))
    x = axis / max(np.hypot(*axis), 1e-12) * half
    y = np.array((-x[1], x[0]))
    center = eyes + 0.1 * down
    return np.stack([center - x - y, center - x + y, center + x + y, center + x - y])


def apply(matrix: Matrix, points: Points) -> Points:
    """Apply a transform to points (N,2)."""
    return np.asarray(points @ matrix[:, :2].T + matrix[:, 2])


def inverse(matrix: Matrix) -> Matrix:
    """Return the inverse transform."""
    turn = np.linalg.inv(matrix[:, :2])
    return np.column_stack([turn, -turn @ matrix[:, 2]])


def scale_of(matrix: Matrix) -> float:
    """Return the factor by which a transform scales lengths."""
    return float(np.hypot(*matrix[:, 0]))
