"""What the page accepts, read off headers."""

import struct
import zlib
from pathlib import Path

import pytest
from PIL import Image

from gan_lightning.app.limits import Limits, check_photo
from gan_lightning.errors import InputError
from tests.app.photos import draw

pytestmark = pytest.mark.usefixtures("own_folder")


@pytest.fixture
def undecoded(monkeypatch):
    """Let no pixel be decoded."""

    def load(image):
        raise AssertionError("a pixel was decoded")

    monkeypatch.setattr(Image.Image, "load", load)


def png_of(width, height):
    """A PNG whose header promises a size that its content does not hold."""

    def chunk(kind, content):
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


@pytest.mark.parametrize(("width", "height"), [(10_000, 6_000), (20_000, 20_000), (2**20, 2**20)])
def test_an_image_with_too_many_pixels_is_refused_before_it_is_decoded(width, height, undecoded):
    Path("large.png").write_bytes(png_of(width, height))
    with pytest.raises(InputError, match=r"large\.png has \d+ megapixels or more, and the limit is 50: reduce it"):
        check_photo(Path("large.png"), Limits())


def test_a_large_file_is_refused_before_it_is_opened(undecoded):
    Path("large.jpg").write_bytes(bytes(1_200_000))
    with pytest.raises(InputError, match=r"large\.jpg has 1\.2 MB, and the limit is 1 MB: reduce it"):
        check_photo(Path("large.jpg"), Limits(megabytes=1))


def test_the_format_is_that_of_the_content_and_not_of_the_name():
    photo = draw(Path("photo.png"), format="JPEG")
    assert check_photo(photo, Limits()) == ".jpg"
    Path("photo").write_bytes(photo.read_bytes())  # as a camera in the browser may call it
    assert check_photo(Path("photo"), Limits()) == ".jpg"


@pytest.mark.parametrize(
    "content", [b"", b"text", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n", b"<svg></svg>"]
)
def test_what_is_no_photograph_is_refused(content):
    """PostScript, too, which Pillow would hand to another program."""
    Path("file.png").write_bytes(content)
    with pytest.raises(InputError, match=r"file\.png is not an image that can be read \(.+\): choose a JPEG"):
        check_photo(Path("file.png"), Limits())
