"""Mask files from paint programs, labeling tools and segmentation networks, and folders of such files."""

from __future__ import annotations

import os
import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from gan_lightning.errors import InputError
from gan_lightning.file_names import IMAGE_SUFFIXES, printable
from gan_lightning.images import MAX_PIXELS, center_box

White = Literal["known", "missing"]
SUFFIXES = IMAGE_SUFFIXES | {".npy"}
LABELS = 20  # three or more different integers up to this value are class labels
BINS = 32  # of the histogram
SHADES = 0.45, 0.2  # fractions of pixels between black and white, and outside of the two most common levels


class MaskFolder:
    """The mask files below a folder, found by the names of images.

    The mask of `a/face.jpg` is `a/face.png`, with any image suffix, or `a/face.jpg.png`; if the folder has neither, it
    is `face.png` or `face.jpg.png`. Case and the encoding of accents only matter if a name is ambiguous otherwise.
    Hidden files and files of other kinds are ignored.

    Args:
        folder: The folder.

    Attributes:
        files: Paths of the masks relative to the folder, sorted.
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self.folder = Path(folder)
        paths = (path.relative_to(self.folder) for path in self.folder.rglob("*") if path.is_file())
        visible = (path for path in paths if not any(part.startswith((".", "__MACOSX")) for part in path.parts))
        self.files = sorted(path.as_posix() for path in visible if path.suffix.lower() in SUFFIXES)
        self._exact, self._loose = defaultdict(list), defaultdict(list)
        for file in self.files:
            key = file.rpartition(".")[0]
            self._exact[key].append(file)
            self._loose[_loosen(key)].append(file)

    def find(self, name: str, names: Iterable[str] = ()) -> str | None:
        """Return the mask of an image, relative to the folder, or None if there is none.

        Args:
            name: Name of the image.
            names: Names of all images, to distinguish masks that differ only in their suffix.

        Raises:
            InputError: If there are several.
        """
        for whole in (name, name.rpartition("/")[2]):
            for table, keys in (
                (self._exact, (whole, _stem(whole))),
                (self._loose, (_loosen(whole), _loosen(_stem(whole)))),
            ):
                for key in keys:
                    if found := table.get(key):
                        return found[0] if len(found) == 1 else self._choose(whole, found, names)
        return None

    def assign(self, names: Sequence[str], every: Iterable[str] = ()) -> dict[str, str]:
        """Return the mask of each image, relative to the folder.

        Args:
            names: Names of the images.
            every: Names of all images, if `names` is only a part of them.

        Raises:
            InputError: If an image has no mask or several, or two images would share one.
        """
        every = {*names, *every}
        found = {name: self.find(name, every) for name in names}
        if missing := [name for name in names if found[name] is None]:
            raise InputError(
                f"{printable(self.folder)} has no mask for {printable(missing[0])} (missing: {len(missing)}): name "
                "each mask like its image"
            )
        owner: dict[str, str] = {}
        for name, file in found.items():
            assert file is not None
            if owner.setdefault(file, name) != name:
                raise InputError(
                    f"{printable(owner[file])} and {printable(name)} would both get the mask {printable(file)} of "
                    f"{printable(self.folder)}: put masks in folders like those of the images, and name them "
                    f"{printable(Path(name).name)}.png"
                )
        return {name: file for name, file in found.items() if file is not None}

    def _choose(self, name: str, found: list[str], names: Iterable[str]) -> str:
        if name in found and set(found) <= set(names):
            return name
        some = printable(", ".join(found))
        raise InputError(
            f"{printable(self.folder)} has several masks for {printable(name)} ({some}): remove all but one"
        )


class SharedMask:
    """One mask file for all images, with the methods of a `MaskFolder`.

    Args:
        path: The file.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.folder, self.files = Path(path).parent, [Path(path).name]

    def find(self, name: str, names: Iterable[str] = ()) -> str | None:
        """Return the file, relative to its folder."""
        return self.files[0]

    def assign(self, names: Sequence[str], every: Iterable[str] = ()) -> dict[str, str]:
        """Return the file for each image."""
        return dict.fromkeys(names, self.files[0])


def open_masks(source: str | os.PathLike[str]) -> MaskFolder | SharedMask:
    """Return the masks of a folder, or the one in a file."""
    return MaskFolder(source) if Path(source).is_dir() else SharedMask(source)


def read_mask(path: str | os.PathLike[str], white: White = "known") -> NDArray[np.bool_]:
    """Read a mask: an image of any mode, or an array (H,W) of booleans or numbers in a .npy file.

    - An alpha channel is the mask if it varies: transparent pixels are missing. If it is constant, the colors are the
      mask.
    - Black pixels are missing, and white ones known. Pixels brighter than half of the brightest one count as white, for
      masks of 0 and 1, 0 and 255, or colors of a palette. Floats up to 1 are known from 0.5 on.

    Args:
        path: The file.
        white: Meaning of white (or opaque) pixels: "known" or "missing".

    Returns:
        (H,W), true where a pixel is known.

    Raises:
        InputError: If the file does not exist, cannot be read, or is not a mask: it has labels of several classes,
            negative numbers, the shades of a photograph, or both transparency and black and white.
    """
    if white not in get_args(White):
        raise InputError(f"white is {white!r}: choose known or missing")
    try:
        levels = _read_array(path) if Path(path).suffix.lower() == ".npy" else _read_image(path)
        known = _is_known(levels)
    except Exception as error:  # Pillow's plugins may raise any class on a broken file
        if isinstance(error, InputError):
            problem = str(error)
        else:
            reason = getattr(error, "strerror", None) or str(error).partition(" '")[0] or repr(error)
            problem = f"cannot be read as an image ({reason}): check the path and the file"
        raise InputError(f"mask {printable(path)} {problem}") from error
    return known if white == "known" else ~known


def fit_mask(known: NDArray[np.bool_], crop: tuple[int, int], size: tuple[int, int]) -> NDArray[np.bool_]:
    """Crop and shrink a mask like its photograph; a pixel is missing if any part of it is.

    Args:
        known: (H,W), of the size of the photograph.
        crop: Width and height of the crop at the center of the photograph.
        size: Width and height of the result.
    """
    left, top, right, bottom = center_box(known.shape[::-1], crop)
    missing = Image.fromarray((~known[top:bottom, left:right]).astype(np.float32))
    return np.asarray(missing.resize(size, Image.Resampling.BOX)) <= 0


def _stem(name: str) -> str:
    """Return a path without the suffix of its last part."""
    return name[: len(name) - len(Path(name).suffix)]


def _loosen(key: str) -> str:
    return unicodedata.normalize("NFC", key).casefold()


def _read_array(path: str | os.PathLike[str]) -> NDArray[Any]:
    array = np.load(path, mmap_mode="r", allow_pickle=False)
    if array.dtype.kind not in "buif" or array.size > MAX_PIXELS or array.squeeze().ndim != 2:
        raise InputError(f"holds {array.dtype} {array.shape}: expected booleans or numbers of shape (H, W)")
    return _two_tones(np.array(array.squeeze()))


def _read_image(path: str | os.PathLike[str]) -> NDArray[Any]:
    """Return alpha or brightness (H,W), as integers or floats."""
    with Image.open(path) as opened:
        if opened.width * opened.height > MAX_PIXELS:  # known from the header, before decoding
            raise ValueError(f"{opened.width} x {opened.height} pixels are more than the limit of {MAX_PIXELS}")
        image = ImageOps.exif_transpose(opened)
    if "A" not in image.getbands() and "transparency" not in image.info:
        return _brightness(image)
    rgba = image.convert("RGBA")
    alpha = np.asarray(rgba.getchannel("A"))
    if alpha.max() == 0:
        return alpha
    if alpha.min() == alpha.max():
        return _brightness(rgba)
    visible = np.asarray(rgba.convert("RGB").convert("L"))[alpha > 127]
    black, white = np.count_nonzero(visible < 6), np.count_nonzero(visible > 249)
    if black and white and black + white > 0.95 * visible.size:
        raise InputError("is transparent in parts, and black and white in others: remove the transparency")
    return alpha


def _brightness(image: Image.Image) -> NDArray[Any]:
    if image.mode in ("1", "L", "F") or image.mode.startswith("I"):
        return _two_tones(np.asarray(image))
    rgb = image.convert("RGB")
    colors = len(rgb.getcolors(LABELS) or ())  # none if there are more
    if colors > 2 and np.ptp(np.asarray(rgb), axis=2).any():
        raise InputError(f"has {colors} colors, as maps of several classes have: save a mask of two")
    return _two_tones(np.asarray(rgb.convert("L")))


def _two_tones(levels: NDArray[Any]) -> NDArray[Any]:
    """Return levels of two tones, with edges as soft as those of a brush, and refuse those of a photograph.

    The floats of a network, up to 1, may be anything.
    """
    high = levels.max()
    if not np.isfinite(high) or high <= 1 or len(np.unique(levels)) <= LABELS:  # classes are counted later
        return levels
    share = np.histogram(levels, BINS, (0, high))[0] / levels.size
    between = share[BINS // 10 : -(BINS // 10)].sum()
    for _ in range(2):
        peak = share.argmax()
        share[max(0, peak - 1) : peak + 2] = 0
    if between > SHADES[0] and share.sum() > SHADES[1]:
        raise InputError("holds many shades, as photographs do: save a mask of black and white")
    return levels


def _is_known(levels: NDArray[Any]) -> NDArray[np.bool_]:
    if levels.dtype == bool:
        return np.asarray(levels, dtype=np.bool_)
    low, high = levels.min(), levels.max()
    if not np.isfinite(levels).all() or low < 0:
        raise InputError(
            "holds negative numbers, or some that are not finite: save 0 for missing and 1 for known pixels"
        )
    if levels.dtype.kind == "f":
        return levels >= 0.5 if high <= 1 else levels > high / 2
    values = np.unique(levels)
    if len(values) > 2 and values[1] <= LABELS and (values <= LABELS)[values != 255].all():
        raise InputError(f"holds {len(values)} classes, {', '.join(map(str, values[:4]))}, ...: save a mask of two")
    known: NDArray[np.bool_] = levels > high / 2
    return known
