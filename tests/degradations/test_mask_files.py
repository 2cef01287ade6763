"""Masks as paint programs, labeling tools and segmentation networks write them."""

from __future__ import annotations

import os
import unicodedata
import warnings
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter

from gan_lightning.degradations import FileMask, read_masks
from gan_lightning.degradations.mask_files import MaskFolder, fit_mask, read_mask
from gan_lightning.errors import InputError

SIDE = 16
KNOWN = np.ones((SIDE, SIDE), dtype=bool)
KNOWN[4:12, 5:10] = False


def save(path: Path, image: Image.Image | NDArray[np.generic]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    (image if isinstance(image, Image.Image) else Image.fromarray(image)).save(path)
    return path


def gray(high: int = 255, low: int = 0) -> NDArray[np.uint8]:
    return np.where(KNOWN, high, low).astype(np.uint8)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "I", "I;16", "F", "CMYK"])
def test_black_is_missing_in_every_mode(tmp_path: Path, mode: str) -> None:
    """Alpha that is opaque all over, as paint programs add it, carries nothing."""
    path = save(tmp_path / "x.tif", Image.fromarray(gray()).convert("RGB" if mode == "CMYK" else "L").convert(mode))
    with Image.open(path) as opened:
        assert opened.mode == mode
    np.testing.assert_array_equal(read_mask(path), KNOWN)
    np.testing.assert_array_equal(read_mask(path, "missing"), ~KNOWN)


@pytest.mark.parametrize("dtype", [bool, np.uint8, np.uint16, np.int32, np.float32])
@pytest.mark.parametrize("high", [1, 255])
def test_zeros_and_ones_are_as_good_as_0_and_255(tmp_path: Path, dtype: type, high: int) -> None:
    values = np.where(KNOWN, high, 0).astype(dtype)
    np.testing.assert_array_equal(read_mask(save(tmp_path / "x.tif", values)), KNOWN)
    for shape in (values, values[None], values[..., None]):
        np.save(tmp_path / "x.npy", shape)
        np.testing.assert_array_equal(read_mask(tmp_path / "x.npy"), KNOWN)


def test_probabilities_are_known_from_a_half_on(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.array([[0.0, 0.49], [0.5, 0.8]]))
    assert read_mask(tmp_path / "x.npy").tolist() == [[False, False], [True, True]]


def test_a_palette_is_read_by_its_colors(tmp_path: Path) -> None:
    """Index 1 is red in the palette of VOC; paint programs may store white before black."""
    for colors, indices in (([0, 0, 0, 128, 0, 0], KNOWN), ([255, 255, 255, 0, 0, 0], ~KNOWN)):
        image = Image.fromarray(indices.astype(np.uint8)).convert("P")
        image.putpalette(colors)
        np.testing.assert_array_equal(read_mask(save(tmp_path / "x.png", image)), KNOWN)
        with Image.open(tmp_path / "x.png") as opened:
            assert opened.mode == "P"


@pytest.mark.parametrize("color", [0, 9, 255])
def test_alpha_that_varies_is_the_mask(tmp_path: Path, color: int) -> None:
    image = Image.new("RGB", (SIDE, SIDE), (color, color, color))
    image.putalpha(Image.fromarray(gray()))
    np.testing.assert_array_equal(read_mask(save(tmp_path / "x.png", image)), KNOWN)


def test_a_photograph_with_an_erased_part_is_a_mask(tmp_path: Path) -> None:
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8))
    image.putalpha(Image.fromarray(gray()))
    np.testing.assert_array_equal(read_mask(save(tmp_path / "x.png", image)), KNOWN)


def test_a_transparent_color_is_alpha_too(tmp_path: Path) -> None:
    image = Image.fromarray((~KNOWN).astype(np.uint8)).convert("P")
    image.putpalette([10, 20, 30, 40, 50, 60])
    image.save(tmp_path / "x.png", transparency=1)
    np.testing.assert_array_equal(read_mask(tmp_path / "x.png"), KNOWN)


def test_half_transparent_all_over_is_read_by_its_colors(tmp_path: Path) -> None:
    image = Image.fromarray(gray())
    image.putalpha(128)
    np.testing.assert_array_equal(read_mask(save(tmp_path / "x.png", image)), KNOWN)


def test_a_mask_is_turned_like_its_photograph(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(np.ascontiguousarray(np.rot90(gray()))).save(tmp_path / "x.png", exif=exif)
    np.testing.assert_array_equal(read_mask(tmp_path / "x.png"), KNOWN)


def test_a_jpeg_is_read_without_its_noise(tmp_path: Path) -> None:
    np.testing.assert_array_equal(read_mask(save(tmp_path / "x.jpg", gray())), KNOWN)


def three(low: int, middle: int, high: int) -> NDArray[np.uint8]:
    values = gray(high, low)
    values[0] = middle
    return values


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (three(0, 1, 2), "holds 3 classes, 0, 1, 2, ...: save a mask of two"),
        (three(0, 1, 255), "holds 3 classes, 0, 1, 255"),
        (np.where(KNOWN, 3.0, -3.0).astype(np.float32), "holds negative numbers"),
        (np.where(KNOWN, 1.0, np.nan).astype(np.float32), "not finite"),
        (np.stack([three(0, 128, 0), three(0, 0, 128), gray(0)], axis=2), "has 3 colors, as maps of several classes"),
    ],
)
def test_what_is_no_mask_of_two_values_is_refused_by_name(
    tmp_path: Path, content: NDArray[np.generic], said: str
) -> None:
    path = save(tmp_path / "x.tif", content)
    with pytest.raises(InputError, match=f"mask {path} .*{said}") as caught:
        read_mask(path)
    assert "\n" not in str(caught.value)


def test_transparent_as_well_as_black_and_white_is_refused(tmp_path: Path) -> None:
    image = Image.fromarray(gray())
    image.putalpha(Image.fromarray(gray().T.copy()))
    with pytest.raises(InputError, match="transparent in parts, and black and white in others"):
        read_mask(save(tmp_path / "x.png", image))


@pytest.mark.parametrize("content", [b"", b"text", b"\x89PNG\r\n\x1a\n"])
@pytest.mark.parametrize("name", ["x.png", "x.npy"])
def test_broken_files_are_refused_by_name(tmp_path: Path, content: bytes, name: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=r"x\.\w+ cannot be read as an image .*: check the path and the file"):
        read_mask(tmp_path / name)
    with pytest.raises(InputError, match=r"nowhere\.png cannot be read as an image \(No such file"):
        read_mask(tmp_path / "nowhere.png")


def test_arrays_of_objects_and_of_several_channels_are_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.array([{}], dtype=object), allow_pickle=True)
    with pytest.raises(InputError, match="cannot be read"):
        read_mask(tmp_path / "x.npy")
    np.save(tmp_path / "x.npy", np.zeros((2, 8, 8)))
    with pytest.raises(InputError, match=r"float64 \(2, 8, 8\): expected booleans or numbers of shape \(H, W\)"):
        read_mask(tmp_path / "x.npy")


def test_everything_missing_is_refused_and_nothing_missing_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for image in (gray(0), Image.new("RGBA", (SIDE, SIDE))):
        with pytest.raises(InputError, match=r"x\.png marks every pixel as missing: known pixels are white"):
            FileMask(save(tmp_path / "x.png", image), SIDE)
    assert not caplog.messages
    assert FileMask(save(tmp_path / "x.png", gray(255, 255)), SIDE).mask.all()
    assert caplog.messages == [f"mask {tmp_path / 'x.png'} marks no pixel as missing"]
    assert FileMask(save(tmp_path / "x.png", gray()), SIDE, white="missing").mask.sum() == 40
    with pytest.raises(InputError, match="white is 'black': choose known or missing"):
        read_mask(tmp_path / "x.png", "black")  # type: ignore[arg-type]


def test_a_pixel_is_missing_if_any_part_of_it_is() -> None:
    known = np.ones((60, 40), dtype=bool)
    known[10:50:7, 5:35:9] = False  # single pixels, within the center of 40x40
    fitted = fit_mask(known, (40, 40), (8, 8))
    expected = np.ones((8, 8), dtype=bool)
    for row in range(10, 50, 7):
        for column in range(5, 35, 9):
            expected[(row - 10) // 5, column // 5] = False
    np.testing.assert_array_equal(fitted, expected)


def test_a_mask_that_is_cropped_lies_where_the_photograph_does() -> None:
    known = np.ones((36, 64), dtype=bool)
    known[8:20, 24:40] = False
    expected = np.ones((18, 18), dtype=bool)
    expected[4:10, 5:13] = False
    np.testing.assert_array_equal(fit_mask(known, (36, 36), (18, 18)), expected)


def names_in(folder: Path, *names: str) -> MaskFolder:
    for name in names:
        save(folder / name, gray()) if Path(name).suffix == ".png" else (folder / name).write_bytes(b"x")
    return MaskFolder(folder)


def test_masks_lie_in_a_tree_like_that_of_the_images_beside_other_files(tmp_path: Path) -> None:
    masks = names_in(tmp_path, "a/1.png", "b/1.png", "2.png", "c/3.jpg.png", "a/1.json", ".x.png", "notes.txt")
    names = ["a/1.jpg", "b/1.jpg", "deep/2.tif", "c/3.jpg"]
    assert masks.assign(names) == dict(zip(names, ["a/1.png", "b/1.png", "2.png", "c/3.jpg.png"], strict=True))
    assert masks.files == ["2.png", "a/1.png", "b/1.png", "c/3.jpg.png"]
    mask = read_masks(tmp_path, names[:2], SIDE).mask
    assert mask.shape == (2, 1, SIDE, SIDE)


def test_images_of_one_name_never_share_a_mask_by_chance(tmp_path: Path) -> None:
    masks = names_in(tmp_path, "face.png")
    for names in (["a/face.jpg", "b/face.jpg"], ["face.png", "face.jpg"], ["Face.jpg", "face.jpg"]):
        with pytest.raises(InputError, match=r"would both get the mask face\.png") as caught:
            masks.assign(names)
        assert all(name in str(caught.value) for name in names)


def test_several_masks_of_one_image_are_refused_unless_named_like_the_images(tmp_path: Path) -> None:
    masks = names_in(tmp_path, "a.png", "a.tif")
    with pytest.raises(InputError, match=r"several masks for a\.jpg \(a\.png, a\.tif\): remove all but one"):
        masks.assign(["a.jpg"])
    with pytest.raises(InputError, match="several masks"):
        masks.assign(["a.png"])  # the other may be the photograph itself
    assert masks.assign(["a.png", "a.tif"]) == {"a.png": "a.png", "a.tif": "a.tif"}
    assert masks.assign(["a.png"], every=["a.png", "a.tif"]) == {"a.png": "a.png"}


def test_case_and_accents_are_forgiven_where_they_tell_nothing(tmp_path: Path) -> None:
    nfc, nfd = (unicodedata.normalize(form, "é") for form in ("NFC", "NFD"))
    masks = names_in(tmp_path, f"{nfd}.png", "IMG_1.png", "b.png", "B.png")
    names = [f"{nfc}.JPG", "img_1.jpg", "b.jpg", "B.jpg"]
    assert list(masks.assign(names).values()) == [f"{nfd}.png", "IMG_1.png", "b.png", "B.png"]


def test_names_in_any_encoding_are_found_and_named(tmp_path: Path) -> None:
    latin = os.fsdecode(b"caf\xe9")
    with open(tmp_path / f"{latin}.png", "wb") as file:
        Image.fromarray(gray()).save(file, "PNG")
    assert read_masks(tmp_path, [f"{latin}.jpg"], SIDE).mask.sum() == 216
    with pytest.raises(InputError, match=r"no mask for \\xe9\.jpg"):
        read_masks(tmp_path, [os.fsdecode(b"\xe9.jpg")], SIDE)


def test_reading_masks_warns_of_nothing(tmp_path: Path) -> None:
    palette = Image.fromarray((~KNOWN).astype(np.uint8)).convert("P")
    palette.save(tmp_path / "x.png", transparency=bytes([255, 0]))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        np.testing.assert_array_equal(read_mask(tmp_path / "x.png"), KNOWN)


def ellipse(softness: float, size: tuple[int, int] = (178, 218)) -> Image.Image:
    image = Image.new("L", size, 255)
    ImageDraw.Draw(image).ellipse((49, 69, 129, 149), fill=0)
    return image.filter(ImageFilter.GaussianBlur(softness))


@pytest.mark.parametrize("softness", [0, 1, 5, 12])
@pytest.mark.parametrize("tones", [(0, 255), (64, 255), (0, 100), (90, 200)])
def test_brushes_may_be_soft_and_tones_gray(tmp_path: Path, softness: float, tones: tuple[int, int]) -> None:
    dark, light = tones
    image = ellipse(softness).point(lambda level: round(dark + level / 255 * (light - dark)))
    for suffix in ("png", "jpg"):
        read_mask(save(tmp_path / f"x.{suffix}", image))


def test_a_photograph_is_no_mask(tmp_path: Path) -> None:
    """Such as one that lies beside the masks; half of it would be filled in."""
    coarse = np.random.default_rng(0).integers(0, 256, (6, 5, 3), dtype=np.uint8)
    photo = Image.fromarray(coarse).resize((178, 218), Image.Resampling.BICUBIC)
    for mode, name in (("RGB", "x.jpg"), ("L", "x.jpg"), ("L", "x.tif"), ("CMYK", "x.tif")):
        with pytest.raises(InputError, match=r"mask .*x\.\w+ holds many shades, as photographs do: save a mask"):
            read_mask(save(tmp_path / name, photo.convert(mode)))
    np.save(tmp_path / "x.npy", np.asarray(photo.convert("L")))
    with pytest.raises(InputError, match="many shades"):
        read_mask(tmp_path / "x.npy")
    np.save(tmp_path / "x.npy", np.asarray(photo.convert("L")) / 255)  # what a network is not sure of
    read_mask(tmp_path / "x.npy")
