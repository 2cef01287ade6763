"""Precision of the landmarks used for alignment, and of faces that are pasted back unchanged.

    python benchmarks/alignment.py --photos folder/of/aligned/CelebA/images

Rendered faces, whose landmarks are known exactly, are turned by up to 30 degrees and scaled by 0.5 to 2 in a picture of
600 pixels. Common alternatives are measured if their packages are installed: MTCNN (facenet-pytorch) and the Haar
cascades of OpenCV.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path

import environment  # noqa: F401  first: it sets what torch reads when it is imported
import numpy as np
from report import print_header, print_table

from gan_lightning.alignment import FaceMesh, YuNet, make_frame, paste, warp
from gan_lightning.alignment.frames import CELEBA_LANDMARKS, apply
from gan_lightning.alignment.pictures import read_upright
from gan_lightning.errors import InputError
from gan_lightning.faces import render_face, sample_face
from gan_lightning.faces.attributes import landmark_points

SIZE, MARGIN = 600, 500
Find = Callable[[np.ndarray], np.ndarray]  # picture (H,W,3) -> eyes, or all landmarks, (N,2 or 5,2)


def picture(seed: int, index: int) -> tuple[np.ndarray, np.ndarray]:
    """Return a picture (H,W,3) with one face, and its landmarks (5,2)."""
    face, rng = sample_face(seed, index), np.random.default_rng((seed, index))
    angle, scale = np.deg2rad(rng.uniform(-30, 30)), 2 ** rng.uniform(-1, 1)
    turn = scale * np.array([(np.cos(angle), -np.sin(angle)), (np.sin(angle), np.cos(angle))])
    shift = SIZE / 2 - turn @ (88.5, 130)
    pixels = np.pad(render_face(face), ((MARGIN, MARGIN), (MARGIN, MARGIN), (0, 0)), mode="edge")
    placed = warp(pixels, np.column_stack([turn, shift - turn @ (MARGIN, MARGIN)]), SIZE, SIZE)
    truth = apply(np.column_stack([turn, shift]), np.array(landmark_points(face)))
    return np.clip(np.rint(placed), 0, 255).astype(np.uint8), truth


def single_view() -> Find:
    """Return YuNet as its package has it: one view of each face."""
    return YuNet().detect


def mtcnn() -> Find:
    """Return the MTCNN of facenet-pytorch."""
    from facenet_pytorch import MTCNN
    from PIL import Image

    network = MTCNN(keep_all=True)

    def find(pixels: np.ndarray) -> np.ndarray:
        points = network.detect(Image.fromarray(pixels), landmarks=True)[2]
        return np.empty((0, 5, 2)) if points is None else np.asarray(points, float)

    return find


def haar() -> Find:
    """Return the cascades of OpenCV: a face, and two eyes in its upper half."""
    import cv2

    faces, eyes = (
        cv2.CascadeClassifier(cv2.data.haarcascades + f"haarcascade_{name}.xml")
        for name in ("frontalface_default", "eye")
    )

    def find(pixels: np.ndarray) -> np.ndarray:
        gray, found = cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY), []
        for left, top, width, height in faces.detectMultiScale(gray):
            boxes = eyes.detectMultiScale(gray[top : top + height * 6 // 10, left : left + width])
            if len(boxes) >= 2:
                best = sorted(boxes, key=lambda box: -box[2])[:2]
                centers = sorted((left + x + (w - 1) / 2, top + y + (h - 1) / 2) for x, y, w, h in best)
                found.append(centers)
        return np.array(found, float).reshape(-1, 2, 2)

    return find


def eye_errors(find: Find, pictures: list[tuple[np.ndarray, np.ndarray]]) -> tuple[np.ndarray, float]:
    """Return the error of the worse eye of each face found, over the distance of the eyes, and seconds a picture."""
    errors, started = [], time.perf_counter()
    for pixels, truth in pictures:
        distance = np.hypot(*(truth[1] - truth[0]))
        off = [np.hypot(*(points[:2] - truth[:2]).T).max() / distance for points in find(pixels)]
        if off and min(off) < 0.5:
            errors.append(min(off))
    return np.array(errors), (time.perf_counter() - started) / len(pictures)


def pasted_psnr(pictures: list[tuple[np.ndarray, np.ndarray]], name: str, size: int | None, known: bool) -> str:
    """Return the PSNR over the frame of faces that are cut out and put back unchanged: the lowest and the median."""
    frame, values = make_frame(name, size), []
    for pixels, truth in pictures:
        matrix = frame.transform(truth)
        face = np.clip(np.rint(warp(pixels, matrix, frame.width, frame.height)), 0, 255).astype(np.uint8)
        result = paste(pixels, face, matrix, frame, face if known else None)
        y, x = np.indices(pixels.shape[:2])
        points = apply(matrix, np.stack([x.ravel(), y.ravel()], axis=1).astype(float))
        inside = ((points > 0) & (points < (frame.width - 1, frame.height - 1))).all(axis=1).reshape(y.shape)
        error = np.mean((result[inside].astype(float) - pixels[inside]) ** 2)
        values.append(10 * np.log10(255**2 / error) if error else np.inf)
    return "the same pixels" if np.isinf(values).all() else f"{np.median(values):.1f} ({min(values):.1f})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=100, help="number of rendered faces")
    parser.add_argument("--photos", type=Path, help="folder of aligned CelebA photographs")
    arguments = parser.parse_args()
    print_header(
        "Alignment: precision of the landmarks",
        f"{arguments.count} rendered faces, turned by up to 30 degrees, scaled by 0.5 to 2, in {SIZE} pixels",
        "error of the worse of the two eyes, in percent of the distance of the eyes",
    )
    pictures = [picture(7, index) for index in range(arguments.count)]
    methods = {"face mesh and its network for eyes": FaceMesh, "YuNet, median of 16 views": YuNet}
    methods |= {"YuNet, one view": single_view}
    methods |= {"MTCNN (facenet-pytorch)": mtcnn, "Haar cascades (OpenCV)": haar}
    finders = {}
    for name, make in methods.items():
        try:
            finders[name] = make()
        except (ImportError, InputError):  # not installed
            continue
    rows = []
    for name, find in finders.items():
        errors, seconds = eye_errors(find, pictures)
        percent = 100 * errors
        rows.append(
            [
                name,
                f"{len(errors) / len(pictures):.0%}",
                f"{np.mean(percent < 3):.0%}",
                f"{np.mean(percent < 10):.0%}",
                f"{np.median(percent):.1f}",
                f"{np.percentile(percent, 95):.1f}",
                f"{seconds:.2f}",
            ]
        )
    print_table(["method", "found", "eyes within 3%", "within 10%", "median", "95th percentile", "s/photograph"], rows)
    if arguments.photos:
        print_photos(arguments.photos, finders)
    print("\nFaces that are cut out and pasted back unchanged: PSNR over the frame in dB, median (lowest)\n")
    frames = [("celeba", None), ("celeba_square", 64), ("ffhq", 256), ("ffhq", 1024)]
    few = pictures[:20]
    table = [
        [f"{name} {size or ''}".strip(), pasted_psnr(few, name, size, True), pasted_psnr(few, name, size, False)]
        for name, size in frames
    ]
    print_table(["frame", "as the commands do", "resampled twice, whole frame replaced"], table)
    print()


def print_photos(folder: Path, finders: dict[str, Find]) -> None:
    """Print where the landmarks of aligned photographs lie, whose mean is known."""
    photos = [read_upright(path) for path in sorted(folder.glob("*.jpg"))]
    print(f"\n{len(photos)} photographs of CelebA, with eyes at (69.4, 111.2) and (107.6, 111.2) on average\n")
    rows = []
    for name, find in finders.items():
        found = [points for pixels in photos if len(points := find(pixels))]
        nearest = [min(points, key=lambda p: np.abs(p[:2] - CELEBA_LANDMARKS[:2]).max())[:2] for points in found]
        eyes = np.array(nearest)
        off = np.hypot(*(eyes.mean(axis=0) - CELEBA_LANDMARKS[:2]).T).max()
        rows.append([name, f"{len(found)} of {len(photos)}", f"{off:.1f}", f"{eyes.std(axis=0).mean():.1f}"])
    print_table(["method", "found", "mean of the eyes off by, px", "standard deviation, px"], rows)


if __name__ == "__main__":
    main()
