"""Writing of synthetic faces to disk in the layout of CelebA, for any program that reads CelebA."""

from __future__ import annotations

import json
import multiprocessing
import os
import sys
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from PIL import Image
from tqdm import tqdm  # type: ignore[import-untyped]

from gan_lightning.atomic import atomic_path
from gan_lightning.errors import InputError
from gan_lightning.faces import ATTRIBUTES, LANDMARKS, face_attributes, face_landmarks, render_face, sample_face
from gan_lightning.hardware import count_cores

FORMAT = 1  # version of the faces and the files; another number means other images
JPEG_QUALITY = 92
MARKER = "synthetic.json"
IMAGES = "img_align_celeba"
LISTS = ("list_attr_celeba.txt", "list_eval_partition.txt", "list_landmarks_align_celeba.txt", "identity_CelebA.txt")
_CHUNK = 50  # images that a worker process renders between two reports
_ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")


class _Row(NamedTuple):
    """Entries of one image in the text files."""

    attributes: tuple[int, ...]
    landmarks: tuple[int, ...]
    identity: int


def synthesize(
    root: str | Path,
    count: int = 20000,
    seed: int = 0,
    num_workers: int | None = None,
    progress: bool = True,
) -> Path:
    """Write a dataset of synthetic faces to `root/celeba`, in the layout of CelebA's official files.

    After an interruption, call the function again: complete images are kept. A folder with as many faces or more is not
    changed; one with fewer is extended. An image depends only on `seed` and its number.

    Args:
        root: Folder to write to. It is created if it does not exist.
        count: Number of images, 178 x 218 JPEG.
        seed: Seed of the faces, at least 0.
        num_workers: Number of rendering processes; one per core if null. With 0 or 1, this process renders.
        progress: Show a progress bar on stderr.

    Returns:
        The folder `root/celeba`.

    Raises:
        InputError: If `count` or `seed` is out of range, or the folder contains something else: files other than
            synthetic faces, or faces of another seed or another version of the renderer.
    """
    if count < 1 or seed < 0:
        raise InputError(f"expected count of at least 1 and seed of at least 0 but got count={count}, seed={seed}.")
    folder = Path(root) / "celeba"
    if _complete_count(folder, seed) >= count:
        return folder
    whole = _whole_images(folder, seed)
    (folder / IMAGES).mkdir(parents=True, exist_ok=True)
    chunks = [range(start, min(start + _CHUNK, count)) for start in range(0, count, _CHUNK)]
    tasks = [(folder / IMAGES, seed, chunk, [index in whole for index in chunk]) for chunk in chunks]
    workers = min(count_cores() if num_workers is None else num_workers, len(tasks))
    rows: dict[int, list[_Row]] = {}
    with tqdm(total=count, desc="faces", unit="img", disable=not progress) as bar:
        for chunk, result in _in_processes(tasks, workers) if workers > 1 else map(_render_chunk, tasks):
            rows[chunk.start] = result
            bar.update(len(chunk))
    for part in (folder / IMAGES).glob(".*.part"):  # from an interrupted call
        part.unlink()
    (folder / MARKER).unlink(missing_ok=True)  # the marker of a smaller dataset
    _write_lists(folder, [row for start in sorted(rows) for row in rows[start]])
    _write_whole(folder / MARKER, json.dumps({"format": FORMAT, "seed": seed, "count": count}).encode() + b"\n")
    return folder


_Task = tuple[Path, int, range, list[bool]]  # folder, seed, indices, which of them exist


def _render_chunk(task: _Task) -> tuple[range, list[_Row]]:
    """Write the missing images of a range of indices, and return the rows of all."""
    folder, seed, indices, whole = task
    rows = []
    for index, there in zip(indices, whole, strict=True):
        face = sample_face(seed, index)
        if not there:
            _write_image(folder / file_name(index), Image.fromarray(render_face(face)), seed)
        rows.append(_Row(tuple(face_attributes(face).values()), face_landmarks(face), face.identity))
    return indices, rows


def _in_processes(tasks: list[_Task], workers: int) -> Iterator[tuple[range, list[_Row]]]:
    """Yield the results of all tasks as they complete, from processes that share nothing with this one."""
    # The pool uses all cores: threads in each worker process would compete for them.
    with _environment(_ONE_THREAD), _script_left_alone():
        pool = ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn"))
        try:
            for future in as_completed([pool.submit(_render_chunk, task) for task in tasks]):
                yield future.result()
        finally:
            pool.shutdown(cancel_futures=True)


@contextmanager
def _script_left_alone() -> Iterator[None]:
    """Prevent spawned processes from running the user's script again, which may have no `__main__` guard.

    The worker processes need only this module; multiprocessing finds the script by two attributes of `__main__`.
    """
    script = sys.modules["__main__"]
    hidden: dict[str, object] = {
        name: script.__dict__.pop(name) for name in ("__spec__", "__file__") if name in script.__dict__
    }
    script.__spec__ = None
    try:
        yield
    finally:
        script.__dict__.update(hidden)


@contextmanager
def _environment(variables: dict[str, str]) -> Iterator[None]:
    """Set environment variables for child processes, and restore them afterwards."""
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def file_name(index: int) -> str:
    """Return the file name of an image in CelebA: 000001.jpg for index 0."""
    return f"{index + 1:06d}.jpg"


def partition(index: int) -> int:
    """Return the split of an image: 0 train, 1 val, 2 test. No person is in two splits, for any count."""
    return {8: 1, 9: 2}.get(index % 10, 0)


def _comment(seed: int) -> bytes:
    """Return the comment of each JPEG, which identifies a folder without a marker."""
    return f"gan-lightning synthetic face, format {FORMAT}, seed {seed}".encode()


def _write_image(path: Path, image: Image.Image, seed: int) -> None:
    """Write one JPEG atomically."""
    with atomic_path(path) as beside:
        image.save(beside, format="JPEG", quality=JPEG_QUALITY, comment=_comment(seed))


def _write_whole(path: Path, content: bytes) -> None:
    """Write a file atomically."""
    with atomic_path(path) as beside:
        beside.write_bytes(content)


def _write_lists(folder: Path, rows: list[_Row]) -> None:
    """Write the four text files of CelebA, with its column widths."""
    names = [file_name(index) for index in range(len(rows))]
    attributes = [
        f"{name} {' '.join(f'{a:2d}' for a in row.attributes)}" for name, row in zip(names, rows, strict=True)
    ]
    landmarks = [f"{name} {' '.join(f'{p:4d}' for p in row.landmarks)}" for name, row in zip(names, rows, strict=True)]
    lines = {
        "list_attr_celeba.txt": [str(len(rows)), " ".join(ATTRIBUTES), *attributes],
        "list_landmarks_align_celeba.txt": [str(len(rows)), " ".join(LANDMARKS), *landmarks],
        "list_eval_partition.txt": [f"{name} {partition(index)}" for index, name in enumerate(names)],
        "identity_CelebA.txt": [f"{name} {row.identity}" for name, row in zip(names, rows, strict=True)],
    }
    for name in LISTS:
        _write_whole(folder / name, ("\n".join(lines[name]) + "\n").encode())


def _complete_count(folder: Path, seed: int) -> int:
    """Return the number of faces of a complete synthesis in the folder, or 0 without a marker.

    Raises:
        InputError: If the marker is from another seed or another version.
    """
    marker = folder / MARKER
    if not marker.is_file():
        return 0
    try:
        told = json.loads(marker.read_bytes())
        made, other_seed, count = int(told["format"]), int(told["seed"]), int(told["count"])
    except (ValueError, KeyError, TypeError):
        raise InputError(f"{marker} cannot be read: delete the folder {folder} or choose another root.") from None
    if made != FORMAT:
        raise InputError(f"{folder} was written by another version of gan-lightning: delete it or choose another root.")
    if other_seed != seed:
        raise InputError(f"{folder} holds faces of seed {other_seed}, not {seed}: delete it or choose another root.")
    return count


def _whole_images(folder: Path, seed: int) -> set[int]:
    """Return the indices of the complete images of an earlier call; broken images are written again.

    Raises:
        InputError: If the folder contains anything that this module did not write for this seed.
    """
    if not folder.exists():
        return set()
    refusal = f"{folder} holds files that are not synthetic faces of seed {seed}: choose another root."
    whole, broken = set(), 0
    for path in (*folder.iterdir(), *((folder / IMAGES).iterdir() if (folder / IMAGES).is_dir() else ())):
        if path.name.endswith(".part") or (path.parent == folder and path.name in (*LISTS, MARKER, IMAGES)):
            continue
        if path.parent == folder or path.suffix != ".jpg" or not path.stem.isdecimal():
            raise InputError(refusal)
        content = path.read_bytes()
        if not content.startswith(b"\xff\xd8") or not content.endswith(b"\xff\xd9"):
            broken += 1
        elif _comment(seed) + b"\xff" in content[:256]:
            whole.add(int(path.stem) - 1)
        else:
            raise InputError(refusal)
    listed = any((folder / name).exists() for name in LISTS)
    if not whole and (broken or listed):  # no sign that the files are ours
        raise InputError(refusal)
    return whole
