"""Photographs as they are: what is read, what is refused, and which rank gets which."""

import numpy as np
import pytest
import torch
from PIL import Image

from gan_lightning.data.photos import PhotoBatches, PhotoFormat, Photos, photo_loader
from gan_lightning.errors import InputError

SIZE = 16
COLOUR, GREY = PhotoFormat(3, SIZE, SIZE), PhotoFormat(1, SIZE, SIZE)
CROP = PhotoFormat(3, SIZE, SIZE, "centre_crop")


def picture(mode="RGB", size=(SIZE, SIZE), seed=0):
    depth = {"L": (), "RGB": (3,), "RGBA": (4,), "LA": (2,)}[mode]
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], *depth), dtype=np.uint8)
    return Image.fromarray(pixels, mode)


def read_one(folder, wanted):
    return next(iter(photo_loader(folder, wanted, 4)))


def test_pixels_and_transparency_come_as_they_are(tmp_path):
    image = picture("RGBA")
    image.putpixel((0, 0), (10, 20, 30, 255))
    image.save(tmp_path / "a.png")
    batch = read_one(tmp_path, COLOUR)
    expected = np.asarray(image).astype(np.float32)
    restored = (batch["image"][0].permute(1, 2, 0).numpy() + 1) * 127.5
    assert np.abs(restored - expected[..., :3]).max() < 1e-3
    assert np.abs(batch["alpha"][0, 0].numpy() - expected[..., 3] / 255).max() < 1e-6
    assert (batch["name"], batch["index"].tolist()) == (["a.png"], [0])


def test_photographs_without_transparency_are_opaque(tmp_path):
    picture().save(tmp_path / "a.png")
    assert read_one(tmp_path, COLOUR)["alpha"].eq(1).all()


def test_grey_photographs_serve_both_kinds_of_models(tmp_path):
    grey = picture("L")
    grey.save(tmp_path / "a.png")
    grey.convert("RGB").save(tmp_path / "b.png")
    one, three = read_one(tmp_path, GREY)["image"], read_one(tmp_path, COLOUR)["image"]
    assert one.shape == (2, 1, SIZE, SIZE)
    assert torch.equal(one[0], one[1])
    assert torch.equal(three, one.expand(-1, 3, -1, -1))


def test_colour_is_never_dropped_silently(tmp_path):
    picture().save(tmp_path / "a.png")
    with pytest.raises(InputError, match="is in colour"):
        Photos(tmp_path, GREY)


@pytest.mark.parametrize(
    ("size", "wanted", "said"),
    [((32, 32), COLOUR, "centre_crop"), ((8, 8), COLOUR, "Downsample"), ((64, 8), CROP, "Downsample")],
)
def test_other_sizes_are_refused_with_what_to_do(tmp_path, size, wanted, said):
    picture(size=size).save(tmp_path / "a.png")
    with pytest.raises(InputError, match=said) as error:
        Photos(tmp_path, wanted)
    assert f"{size[0]}x{size[1]}" in str(error.value)


def test_centre_crop_keeps_the_middle(tmp_path):
    wide = Image.new("RGB", (64, 32), (255, 0, 0))
    wide.paste((0, 0, 255), (16, 0, 48, 32))
    wide.save(tmp_path / "a.png")
    image = read_one(tmp_path, CROP)["image"][0]
    blue = torch.tensor([-1.0, -1.0, 1.0]).view(3, 1, 1).expand_as(image)
    assert torch.equal(image, blue)


def test_unreadable_photographs_are_named_and_counted(tmp_path, caplog):
    picture().save(tmp_path / "good.png")
    (tmp_path / "broken.png").write_bytes((tmp_path / "good.png").read_bytes()[:60])
    Image.new("RGBA", (SIZE, SIZE), (1, 2, 3, 0)).save(tmp_path / "ghost.png")
    with caplog.at_level("WARNING"):
        photos = Photos(tmp_path, COLOUR)
    assert (photos.names, photos.skipped) == (["good.png"], 2)
    assert "broken.png" in caplog.text
    assert "ghost.png" in caplog.text
    assert "2 of 3" in caplog.text


def test_floats_are_of_the_unit_scale(tmp_path, caplog):
    pixels = np.linspace(0, 1, SIZE * SIZE, dtype=np.float32).reshape(SIZE, SIZE)
    Image.fromarray(pixels).save(tmp_path / "a.tif")
    for name, bad in (("b.tif", np.nan), ("c.tif", 2.0)):
        spoiled = pixels.copy()
        spoiled[3, 4] = bad
        Image.fromarray(spoiled).save(tmp_path / name)
    photos = Photos(tmp_path, COLOUR)
    assert photos.names == ["a.tif"]
    assert caplog.text.count("not finite") == 2
    image = photos[np.array([0])]["image"][0, 0]
    assert np.abs((image.numpy() + 1) / 2 - pixels).max() <= 0.5 / 255 + 1e-6


def test_a_photograph_that_is_cropped_to_nothing_is_skipped_by_name(tmp_path, caplog):
    wide = picture("RGBA", (3 * SIZE, SIZE))
    wide.putalpha(255)
    wide.save(tmp_path / "a.png")
    wide.paste((0, 0, 0, 0), (SIZE, 0, 2 * SIZE, SIZE))
    wide.save(tmp_path / "b.png")
    assert Photos(tmp_path, CROP).names == ["a.png"]
    assert "skipped b.png: it cannot be read (it is transparent all over)" in caplog.text


def test_nothing_to_restore_is_an_error(tmp_path):
    with pytest.raises(InputError, match="No folder"):
        Photos(tmp_path / "missing", COLOUR)
    with pytest.raises(InputError, match="No image"):
        Photos(tmp_path, COLOUR)
    (tmp_path / "a.png").write_bytes(b"no image")
    with pytest.raises(InputError, match="none of the 1"):
        Photos(tmp_path, COLOUR)


def test_a_resize_that_is_not_known_is_refused():
    with pytest.raises(InputError, match="centre_crop"):
        PhotoFormat(3, SIZE, SIZE, "stretch")


def test_ranks_share_the_photographs_without_repeating_any(monkeypatch):
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.distributed, "get_world_size", lambda: 3)
    seen = []
    for rank in range(3):
        monkeypatch.setattr(torch.distributed, "get_rank", lambda rank=rank: rank)
        batches = PhotoBatches(10, 2)
        parts = [batch.tolist() for batch in batches]
        assert len(parts) == len(batches)
        seen += [row for part in parts for row in part]
    assert sorted(seen) == list(range(10))
