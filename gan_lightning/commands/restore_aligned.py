"""`restore --align`: faces are aligned, restored, and put back into the photographs."""

from __future__ import annotations

import argparse
import filecmp
import hashlib
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from gan_lightning.alignment.faces import align_photos, paste_back
from gan_lightning.alignment.frames import Frame, make_frame
from gan_lightning.alignment.pictures import write_image
from gan_lightning.alignment.table import AlignedFace
from gan_lightning.alignment.warp import warp
from gan_lightning.atomic import atomic_path
from gan_lightning.commands.align import face_finder, stems_of, summary
from gan_lightning.commands.restore_job import Job
from gan_lightning.data.decode import upright_size
from gan_lightning.degradations.mask_files import MaskFolder, SharedMask, open_masks, read_mask
from gan_lightning.errors import InputError
from gan_lightning.file_names import printable

FRAMES = {"celeba": "celeba_square", "ffhq": "ffhq"}
Restore = Callable[[argparse.Namespace, Sequence[str]], int]


def restore_aligned(options: argparse.Namespace, others: Sequence[str], restore: Restore) -> int:
    """Restore the faces of photographs, and put them back.

    Args:
        options: Options of the command.
        others: Options for `predict`.
        restore: Function that restores the aligned images.

    Returns:
        Exit status.

    Raises:
        InputError: As for `restore`, or if no photograph shows a face.
    """
    job = Job(options)
    folder = job.folder.with_name(f"{job.folder.name}-aligned")
    check_targets(job, folder)
    frame = make_frame(FRAMES[options.align], job.size_taken)
    find = face_finder(options.landmarks, job.listing.names)
    for part in ("aligned", "masks"):  # from an earlier command
        shutil.rmtree(folder / part, ignore_errors=True)
    faces, left_alone = align_photos(job.listing, find, frame, folder / "aligned", stems_of(job.listing.names))
    print(summary(faces, left_alone, frame), flush=True)
    masks = align_masks(options, job, faces, frame, folder / "masks") if options.mask else None
    results = folder / f"restored-{digest_of(folder)}"  # never mixed up with results for other faces or masks
    own = {
        "photos": [str(folder / "aligned")],
        "output": str(results),
        "mask": masks,
        "mask_white": None,
        "align": None,
        "landmarks": None,
    }
    status = restore(argparse.Namespace(**{**vars(options), **own}), others)
    if status or options.print_config:
        return status
    restored = {face.aligned: results / face.aligned for face in faces}
    restored = {name: path for name, path in restored.items() if path.is_file()}
    written = {name: folder / "pasted" / path.relative_to(job.output) for name, path in job.targets.items()}
    names = paste_back(job.listing, faces, restored, folder / "aligned", written)
    for name in names:
        with atomic_path(job.targets[name]) as path:
            shutil.copyfile(written[name], path)
    print(f"put the faces back into {len(names)} of {len(job.listing.names)} photographs")
    print("\n".join(f"  {printable(name)} -> {printable(job.targets[name])}" for name in names))
    return 0


def digest_of(folder: Path) -> str:
    """Return a digest of the aligned images, their table and their masks."""
    digest = hashlib.sha256()
    for part in ("aligned", "masks"):
        for path in sorted((folder / part).rglob("*.*")):
            digest.update(path.relative_to(folder).as_posix().encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()[:8]


def check_targets(job: Job, folder: Path) -> None:
    """Check that only results of the same command are overwritten.

    Raises:
        InputError: If another file would be overwritten.
    """
    for target in job.targets.values():
        earlier = folder / "pasted" / target.relative_to(job.output)
        if target.exists() and not (earlier.exists() and filecmp.cmp(earlier, target, shallow=False)):
            raise InputError(
                f"{printable(target)} exists, and is not a result of this command: choose another --output, or "
                "remove it"
            )


def align_masks(options: argparse.Namespace, job: Job, faces: Sequence[AlignedFace], frame: Frame, folder: Path) -> str:
    """Align the mask of each photograph with its face; return the folder of the aligned masks.

    A pixel is missing if any part of it is. Beyond the borders of the photograph, the mask is also mirrored.

    Raises:
        InputError: If a mask is missing, cannot be read, or has another size than its photograph.
    """
    masks: MaskFolder | SharedMask = open_masks(options.mask)
    files = masks.assign(sorted({face.photo for face in faces}), job.listing.names)
    for face in faces:
        path = masks.folder / files[face.photo]
        known = read_mask(path, options.mask_white or "known")
        if known.shape[::-1] != upright_size(job.listing.root / face.photo):
            width, height = known.shape[::-1]
            raise InputError(
                f"mask {printable(path)} is {width}x{height} pixels: with --align it must have the size of its "
                f"photograph, {face.size[0]}x{face.size[1]}"
            )
        missing = warp((~known[..., None]).astype(np.float32), face.matrix, frame.width, frame.height)
        levels = np.where(missing > 0.02, 0, 255).astype(np.uint8)
        write_image(folder / face.aligned, levels)
    return str(folder)
