"""What becomes of every kind of image file: the right pixels, or a reason why it cannot be read."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageCms

from gan_lightning.data.decode import CropResize, decode_image, describe_failure, to_pixels, turn_upright, upright_size

SIDE = 16
RAMP = np.arange(256).reshape(SIDE, SIDE)
COLOR = np.stack([RAMP, RAMP[::-1], RAMP.T], axis=2).astype(np.uint8)


def decode(path: Path, channels: int = 1) -> NDArray[np.uint8]:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return decode_image(path, CropResize(SIDE, None, channels))


def save(path: Path, pixels: NDArray[np.generic]) -> Path:
    Image.fromarray(pixels).save(path)
    return path


@pytest.mark.parametrize(
    "mode", ["1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBa", "RGBX", "CMYK", "YCbCr", "HSV", "LAB"]
)
@pytest.mark.parametrize("channels", [1, 3])
def test_images_of_every_mode_of_eight_bits_are_read(mode: str, channels: int) -> None:
    color = Image.fromarray(COLOR)
    if mode == "RGBa":
        image = color.convert("RGBA").convert("RGBa")
    elif mode == "LAB":
        image = ImageCms.profileToProfile(
            color, ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB"), outputMode="LAB"
        )
    else:
        image = color.convert("L" if mode == "LA" else "RGB").convert(mode)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        pixels = to_pixels(image, CropResize(SIDE, None, channels), "x").astype(int)
    kept = color.convert("L") if mode in ("1", "L", "LA") else color
    expected = np.asarray(kept.convert("L" if channels == 1 else "RGB")).reshape(SIDE, SIDE, channels).astype(int)
    tolerance = {"1": 128, "P": 25, "PA": 25, "HSV": 3, "YCbCr": 3, "LAB": 10}.get(mode, 0)
    assert np.abs(pixels - expected).mean() <= tolerance


@pytest.mark.parametrize("dtype", [np.int32, np.uint32, np.uint16])
def test_integers_up_to_255_are_of_eight_bits(tmp_path: Path, dtype: type) -> None:
    """NumPy's default integers, and ImageJ's; those of 32 bits became black."""
    np.testing.assert_array_equal(decode(save(tmp_path / "x.tif", RAMP.astype(dtype)))[..., 0], RAMP)


@pytest.mark.parametrize("suffix", ["tif", "png"])
def test_integers_of_16_bits_are_scaled(tmp_path: Path, suffix: str) -> None:
    np.testing.assert_array_equal(decode(save(tmp_path / f"x.{suffix}", (RAMP * 257).astype(np.uint16)))[..., 0], RAMP)


def test_integers_of_16_bits_in_32_are_scaled(tmp_path: Path) -> None:
    np.testing.assert_array_equal(decode(save(tmp_path / "x.tif", (RAMP * 257).astype(np.int32)))[..., 0], RAMP)


@pytest.mark.parametrize(
    ("pixels", "said"),
    [
        ((RAMP * 16).astype(np.uint16), "16-bit integers, 0 to 4080,"),  # cameras of 12 bits
        ((RAMP * 64).astype(np.uint16), "16-bit integers, 0 to 16320,"),  # of 14 bits
        ((RAMP * (1 << 23)).astype(np.int32), "32-bit integers, 0 to 2139095040,"),
        ((RAMP - 128).astype(np.int32), "32-bit integers, -128 to 127,"),
    ],
)
def test_integers_of_a_range_that_cannot_be_told_are_not_guessed(
    tmp_path: Path, pixels: NDArray[np.generic], said: str
) -> None:
    with pytest.raises(ValueError, match=f"the range of its {said} cannot be told"):
        decode(save(tmp_path / "x.tif", pixels))


def png_of_16_bits(path: Path, pixels: NDArray[np.uint16]) -> Path:
    """Write a PNG in color of 16 bits, which Pillow cannot."""
    import zlib

    def chunk(kind: bytes, content: bytes) -> bytes:
        return len(content).to_bytes(4, "big") + kind + content + zlib.crc32(kind + content).to_bytes(4, "big")

    height, width, _ = pixels.shape
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in pixels)
    header = width.to_bytes(4, "big") + height.to_bytes(4, "big") + bytes([16, 2, 0, 0, 0])
    parts = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + parts)
    return path


def test_color_of_16_bits_is_read_or_refused_like_gray(tmp_path: Path) -> None:
    full = png_of_16_bits(tmp_path / "x.png", COLOR.astype(np.uint16) * 257)
    np.testing.assert_array_equal(decode(full, 3), COLOR)
    for factor in (1, 16):
        with pytest.raises(ValueError, match="range of its 16-bit integers cannot be told"):
            decode(png_of_16_bits(full, COLOR.astype(np.uint16) * factor), 3)


def test_transparency_drops_to_the_colors_below_without_a_warning(tmp_path: Path) -> None:
    image = Image.fromarray(COLOR).convert("RGBA")
    image.putalpha(Image.fromarray(RAMP.astype(np.uint8)))
    image.save(tmp_path / "x.png")
    np.testing.assert_array_equal(decode(tmp_path / "x.png", 3), COLOR)
    palette = image.convert("RGB").quantize(256)
    palette.save(tmp_path / "y.png", transparency=bytes(range(256)))
    np.testing.assert_array_equal(decode(tmp_path / "y.png", 3), np.asarray(palette.convert("RGB")))


@pytest.mark.parametrize("suffix", ["gif", "png", "webp", "tif"])
def test_the_first_frame_of_an_animation_counts(tmp_path: Path, suffix: str) -> None:
    frames = [Image.new("RGB", (SIDE, SIDE), color) for color in ("red", "lime", "blue")]
    options = {"lossless": True} if suffix == "webp" else {}
    frames[0].save(tmp_path / f"x.{suffix}", save_all=True, append_images=frames[1:], **options)
    assert decode(tmp_path / f"x.{suffix}", 3).reshape(-1, 3).tolist() == [[255, 0, 0]] * SIDE**2


@pytest.mark.parametrize("suffix", ["jpe", "jfif", "gif", "avif", "jp2", "ppm", "pgm", "pbm", "pnm"])
def test_less_common_formats_are_read(tmp_path: Path, suffix: str) -> None:
    form = {"jpe": "JPEG", "jfif": "JPEG", "jp2": "JPEG2000", "avif": "AVIF", "gif": "GIF"}.get(suffix, "PPM")
    Image.init()
    if form not in Image.SAVE:
        pytest.skip(f"this Pillow has no {form}")
    Image.new("RGB", (SIDE, SIDE), (255, 255, 255)).save(tmp_path / f"x.{suffix}", form)
    assert decode(tmp_path / f"x.{suffix}").min() > 250


def test_a_color_profile_is_ignored(tmp_path: Path) -> None:
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    Image.fromarray(COLOR).save(tmp_path / "x.png", icc_profile=profile)
    np.testing.assert_array_equal(decode(tmp_path / "x.png", 3), COLOR)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_every_orientation_is_turned_upright(tmp_path: Path, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored = {1: lambda a: a, 2: np.fliplr, 3: lambda a: np.rot90(a, 2), 4: np.flipud, 5: np.transpose}
    stored |= {6: lambda a: np.rot90(a, 1), 7: lambda a: np.rot90(a.T, 2), 8: lambda a: np.rot90(a, -1)}
    deep = (RAMP * 257).astype(np.uint16)
    Image.fromarray(np.ascontiguousarray(stored[orientation](deep))).save(tmp_path / "x.png", exif=exif)
    np.testing.assert_array_equal(decode(tmp_path / "x.png")[..., 0], RAMP)
    Image.new("L", (4, 6)).save(tmp_path / "y.png", exif=exif)
    assert upright_size(tmp_path / "y.png") == ((4, 6) if orientation < 5 else (6, 4))


def test_why_a_file_cannot_be_read_is_said_in_a_few_words(tmp_path: Path) -> None:
    path = save(tmp_path / "x.png", COLOR)
    whole = path.read_bytes()
    for content, reason in ((b"", "the file is empty"), (b"text", "its format is unknown"), (whole[:60], "truncated")):
        path.write_bytes(content)
        with pytest.raises(OSError) as caught:  # noqa: PT011
            decode(path)
        assert reason in describe_failure(caught.value, path)
    path.unlink()
    with pytest.raises(FileNotFoundError) as missing:
        decode(path)
    assert describe_failure(missing.value, path) == "the file is missing"
    assert describe_failure(PermissionError(13, "Permission denied", str(path)), path) == "Permission denied"


@pytest.mark.parametrize("suffix", ["jpg", "png", "tif", "webp"])
@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
def test_the_size_of_a_photograph_on_its_side_is_that_which_is_seen(
    tmp_path: Path, suffix: str, orientation: int
) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.new("RGB", (30, 20)).save(tmp_path / f"a.{suffix}", exif=exif)
    with Image.open(tmp_path / f"a.{suffix}") as opened:
        seen = turn_upright(opened).size
    assert upright_size(tmp_path / f"a.{suffix}") == seen == ((20, 30) if orientation > 4 else (30, 20))
