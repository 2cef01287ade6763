"""Photographs: which are read, which are refused, and which rank reads which."""

import os

import lightning as L
import numpy as np
import pytest
import torch
from PIL import Image, ImageCms

from gan_lightning import ImageFolder, Photos
from gan_lightning.data.photo_format import PhotoFormat
from gan_lightning.data.photos import PhotoBatches, PhotoDataset, photo_loader
from gan_lightning.errors import InputError

SIZE = 16
COLOR, GRAY = PhotoFormat(3, SIZE, SIZE), PhotoFormat(1, SIZE, SIZE)


def picture(mode="RGB", size=(SIZE, SIZE), seed=0):
    depth = {"L": (), "RGB": (3,), "RGBA": (4,), "LA": (2,)}[mode]
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], *depth), dtype=np.uint8)
    return Image.fromarray(pixels, mode)


def read_one(folder, photo_format, **settings):
    return next(iter(photo_loader(folder, photo_format, 4, **settings)))


def test_pixels_and_transparency_come_as_they_are(tmp_path):
    image = picture("RGBA")
    image.putpixel((0, 0), (10, 20, 30, 255))
    image.save(tmp_path / "a.png")
    batch = read_one(tmp_path, COLOR)
    expected = np.asarray(image).astype(np.float32)
    restored = (batch["image"][0].permute(1, 2, 0).numpy() + 1) * 127.5
    assert np.abs(restored - expected[..., :3]).max() < 1e-3
    assert np.abs(batch["alpha"][0, 0].numpy() - expected[..., 3] / 255).max() < 1e-6
    assert (batch["name"], batch["index"].tolist()) == (["a.png"], [0])


def test_photographs_without_transparency_are_opaque(tmp_path):
    picture().save(tmp_path / "a.png")
    assert read_one(tmp_path, COLOR)["alpha"].eq(1).all()


def test_gray_photographs_serve_both_kinds_of_models(tmp_path):
    gray = picture("L")
    gray.save(tmp_path / "a.png")
    gray.convert("RGB").save(tmp_path / "b.png")
    one, three = read_one(tmp_path, GRAY)["image"], read_one(tmp_path, COLOR)["image"]
    assert one.shape == (2, 1, SIZE, SIZE)
    assert torch.equal(one[0], one[1])
    assert torch.equal(three, one.expand(-1, 3, -1, -1))


def test_color_is_never_dropped_silently(tmp_path):
    picture().save(tmp_path / "a.png")
    with pytest.raises(InputError, match="is in color"):
        PhotoDataset(tmp_path, GRAY)
    picture().convert("L").save(tmp_path / "b.png")
    color, gray = read_one(tmp_path, GRAY, to_gray=True)["image"]
    assert torch.equal(color, gray)


def test_files_and_folders_can_be_listed(folder, tmp_path):
    other = tmp_path / "other.png"
    picture(seed=8).save(other)
    batches = predict(Collector(COLOR), Photos([str(folder / "1.png"), str(folder / "below"), str(other)]), tmp_path)
    assert [name for batch in batches for name in batch["name"]] == [
        "other.png",
        "photos/1.png",
        "photos/below/4.png",
    ]


@pytest.mark.parametrize(
    ("size", "resize", "message"),
    [((32, 32), "refuse", "center_crop"), ((8, 8), "refuse", "Downsample"), ((64, 8), "center_crop", "Downsample")],
)
def test_other_sizes_are_refused_with_what_to_do(tmp_path, size, resize, message):
    picture(size=size).save(tmp_path / "a.png")
    with pytest.raises(InputError, match=message) as error:
        PhotoDataset(tmp_path, COLOR, resize)
    assert f"{size[0]}x{size[1]}" in str(error.value)


@pytest.mark.parametrize("resize", ["center_crop", "centre_crop"])
def test_a_center_crop_keeps_the_middle(tmp_path, resize):
    wide = Image.new("RGB", (64, 32), (255, 0, 0))
    wide.paste((0, 0, 255), (16, 0, 48, 32))
    wide.save(tmp_path / "a.png")
    image = read_one(tmp_path, COLOR, resize=resize)["image"][0]
    blue = torch.tensor([-1.0, -1.0, 1.0]).view(3, 1, 1).expand_as(image)
    assert torch.equal(image, blue)


def test_unreadable_photographs_are_named_and_counted(tmp_path, caplog):
    picture().save(tmp_path / "good.png")
    (tmp_path / "broken.png").write_bytes((tmp_path / "good.png").read_bytes()[:60])
    Image.new("RGBA", (SIZE, SIZE), (1, 2, 3, 0)).save(tmp_path / "ghost.png")
    with caplog.at_level("WARNING"):
        photos = PhotoDataset(tmp_path, COLOR)
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
    photos = PhotoDataset(tmp_path, COLOR)
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
    assert PhotoDataset(tmp_path, COLOR, "center_crop").names == ["a.png"]
    assert "skipped b.png: it cannot be read (it is fully transparent)" in caplog.text


def test_nothing_to_restore_is_an_error(tmp_path):
    with pytest.raises(InputError, match=r"does not exist: set data\.root"):
        PhotoDataset(tmp_path / "missing", COLOR)
    with pytest.raises(InputError, match="No image"):
        PhotoDataset(tmp_path, COLOR)
    (tmp_path / "a.png").write_bytes(b"no image")
    with pytest.raises(InputError, match="none of the 1"):
        PhotoDataset(tmp_path, COLOR)


def test_an_unsupported_resize_is_refused(tmp_path):
    picture().save(tmp_path / "a.png")
    for make in (lambda: Photos(str(tmp_path), resize="stretch"), lambda: PhotoDataset(tmp_path, COLOR, "stretch")):
        with pytest.raises(InputError, match="'stretch' is unsupported: choose refuse or center_crop"):
            make()


class Collector(L.LightningModule):
    """Collects the batches of `predict`; takes photographs if it is given their format."""

    def __init__(self, photo_format=None):
        super().__init__()
        self.batches = []
        if photo_format is not None:
            self.photo_format = photo_format

    def predict_step(self, batch, batch_idx):
        self.batches.append(batch)


def predict(model, data, tmp_path):
    quiet = dict.fromkeys(("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary"), False)
    L.Trainer(accelerator="cpu", devices=1, default_root_dir=tmp_path, **quiet).predict(
        model, datamodule=data, return_predictions=False
    )
    return model.batches


@pytest.fixture
def folder(tmp_path):
    """A folder of five photographs, the last of them in a folder below."""
    for number in range(5):
        path = tmp_path / "photos" / ("below" if number == 4 else "") / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        picture("RGBA", seed=number).save(path)
    return tmp_path / "photos"


def test_predict_reads_a_folder_of_photographs_as_the_model_takes_them(folder, tmp_path):
    batches = predict(Collector(COLOR), Photos(str(folder), batch_size=2), tmp_path)
    assert [batch["name"] for batch in batches] == [["0.png", "1.png"], ["2.png", "3.png"], ["below/4.png"]]
    expected = read_one(folder, COLOR)
    for key in ("image", "alpha"):
        assert torch.equal(torch.cat([batch[key] for batch in batches])[:4], expected[key])


def test_an_image_folder_reads_the_same_photographs(folder, tmp_path):
    photos = predict(Collector(COLOR), Photos(str(folder), batch_size=2), tmp_path)
    others = predict(Collector(COLOR), ImageFolder(str(folder), batch_size=2), tmp_path)
    for one, other in zip(photos, others, strict=True):
        assert one.pop("name") == other.pop("name")
        torch.testing.assert_close(one, other, rtol=0, atol=0)


def test_larger_photographs_are_refused_before_any_work_or_cropped_if_requested(folder, tmp_path):
    picture(size=(40, 20), seed=7).save(folder / "5.png")
    model = Collector(COLOR)
    for data in (Photos(str(folder)), ImageFolder(str(folder))):
        with pytest.raises(InputError, match=r"5\.png is 40x20 .*--data Photos --data\.resize center_crop"):
            predict(model, data, tmp_path)
    assert model.batches == []
    batches = predict(model, Photos(str(folder), resize="center_crop"), tmp_path)
    assert batches[0]["name"][-2:] == ["5.png", "below/4.png"]
    assert Photos(str(folder), resize="centre_crop").resize == "center_crop"


def test_photographs_are_only_for_predict_with_a_model_that_takes_them(folder, tmp_path):
    with pytest.raises(InputError, match="needs a model that restores them"):
        predict(Collector(), Photos(str(folder)), tmp_path)
    with pytest.raises(InputError, match="Photos is for predict, not for fit"):
        Photos(str(folder)).setup("fit")
    with pytest.raises(InputError, match="batch_size is 0"):
        Photos(str(folder), batch_size=0)


def test_the_content_of_a_folder_can_be_told_apart(folder):
    """A resumed restoration compares it."""
    from gan_lightning.data.fingerprint import read_content

    before = read_content(Photos(str(folder)).read_files())
    picture(seed=9).save(folder / "0.png")
    assert read_content(Photos(str(folder)).read_files()) != before


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


def test_what_is_left_out_is_said_once(tmp_path, caplog):
    picture().save(tmp_path / "a.png")
    (tmp_path / "b.heic").write_bytes(b"x")
    photos = PhotoDataset(tmp_path, COLOR)
    assert photos.names == ["a.png"]
    assert caplog.messages == [f"{tmp_path}: left out 1 other file (.heic: 1)"]


def test_integers_are_photographs_or_skipped_by_name(tmp_path, caplog):
    ramp = np.arange(SIZE * SIZE).reshape(SIZE, SIZE)
    Image.fromarray(ramp.astype(np.int32)).save(tmp_path / "a.tif")
    Image.fromarray((ramp * 16).astype(np.uint16)).save(tmp_path / "b.tif")
    (tmp_path / "c.png").write_bytes(b"")
    photos = PhotoDataset(tmp_path, GRAY)
    assert photos.names == ["a.tif"]
    assert np.abs((photos[np.array([0])]["image"][0, 0].numpy() + 1) * 127.5 - ramp).max() < 1e-3
    assert (
        "skipped b.tif: it cannot be read (the range of its 16-bit integers, 0 to 4080, cannot be told)" in caplog.text
    )
    assert "skipped c.png: it cannot be read (the file is empty)" in caplog.text
    assert "skipped 2 of 3 photographs" in caplog.text


def test_a_photograph_that_vanishes_is_named(tmp_path):
    picture().save(tmp_path / "a.png")
    photos = PhotoDataset(tmp_path, COLOR)
    (tmp_path / "a.png").unlink()
    with pytest.raises(InputError, match=r"a\.png cannot be read any more \(the file is missing\): .*--name"):
        photos[np.array([0])]


def test_names_in_any_encoding_are_read(tmp_path, caplog):
    names = sorted(os.fsdecode(name) for name in (b"caf\xe9.png", "写真.png".encode(), b"two\nlines.png"))
    for name in names:
        with open(tmp_path / name, "wb") as file:
            picture().save(file, "PNG")
    (tmp_path / names[0]).write_bytes(b"")
    photos = PhotoDataset(tmp_path, COLOR)
    assert photos.names == names[1:]
    assert photos[np.arange(2)]["name"] == names[1:]
    assert "\n" not in caplog.messages[0]


@pytest.mark.parametrize("photo_format", [COLOR, GRAY])
def test_hidden_colors_do_not_spoil_those_beside_them(tmp_path, photo_format):
    """Below transparent pixels there is often black, or what was to be erased."""
    image = Image.new("RGBA", (2 * SIZE, 2 * SIZE), (90, 90, 90, 255))
    image.paste((255, 255, 255, 0), (9, 9, 21, 21))
    image.save(tmp_path / "a.png")
    batch = read_one(tmp_path, photo_format, resize="center_crop")
    known = batch["alpha"][0, 0] > 0.5
    assert 200 < known.sum() < 250
    assert ((batch["image"][0, :, known] + 1) * 127.5 - 90).abs().max() < 6  # 60 if they did


def test_opaque_photographs_are_told_apart(tmp_path):
    picture("RGBA").save(tmp_path / "b.png")
    picture().save(tmp_path / "a.png")
    assert PhotoDataset(tmp_path, COLOR).opaque == ["a.png"]


def test_huge_and_extreme_photographs_are_named(tmp_path, caplog, monkeypatch):
    picture().save(tmp_path / "a.png")
    monkeypatch.setattr("gan_lightning.data.decode.MAX_PIXELS", 5000)
    Image.new("1", (100, 100)).save(tmp_path / "b.png")
    assert PhotoDataset(tmp_path, COLOR, "center_crop").names == ["a.png"]
    assert "skipped b.png: it cannot be read (100 x 100 pixels are more than the limit of 5000)" in caplog.text
    Image.new("1", (4000, 1)).save(tmp_path / "c.png")
    with pytest.raises(InputError, match=r"c\.png is 4000x1 .*Downsample"):
        PhotoDataset(tmp_path, COLOR, "center_crop")


def test_colors_of_a_profile_are_converted(tmp_path):
    """An image in color has no profile when it is restored: it would look pale or too vivid."""
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    swapped = profile.replace(b"rXYZ", b"____").replace(b"bXYZ", b"rXYZ").replace(b"____", b"bXYZ")
    image = Image.new("RGBA", (SIZE, SIZE), (200, 60, 30, 255))
    image.paste((0, 0, 0, 0), (0, 0, 4, 4))
    colors = {
        "a": profile,
        "b": swapped.replace(b"s\0R\0G\0B", b"o\0t\0h\0e").replace(b"sRGB", b"othe"),
        "c": b"broken",
    }
    for name, used in colors.items():
        image.save(tmp_path / f"{name}.png", icc_profile=used)
    batch = read_one(tmp_path, COLOR)
    found = ((batch["image"][:, :, 8, 8] + 1) * 127.5).round().int().tolist()
    assert found[0] == found[2] == [200, 60, 30]
    assert np.abs(np.subtract(found[1], [30, 60, 200])).max() <= 2
    assert batch["alpha"][:, 0, :4, :4].eq(0).all()
    assert batch["alpha"][:, 0, 8, 8].eq(1).all()


def test_photographs_of_several_frames_are_named(tmp_path, caplog):
    first, second = (Image.new("RGB", (SIZE, SIZE), (gray, gray, gray)) for gray in (30, 200))
    for name in ("a.gif", "b.png", "c.tif", "d.webp"):
        first.save(tmp_path / name, save_all=True, append_images=[second])
    first.save(tmp_path / "e.jpg", "MPO", save_all=True, append_images=[second])  # as phones write them
    first.save(tmp_path / "f.gif")
    image = read_one(tmp_path, COLOR)["image"]
    assert caplog.messages == [
        "4 of 6 photographs have several frames, of which the first is taken: a.gif, b.png, c.tif and 1 more"
    ]
    assert ((image + 1) * 127.5 - 30).abs().max() < 8
