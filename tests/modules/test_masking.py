"""The masks of single images: found, checked before any work, and cropped and resized like the photographs."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from gan_lightning import ImageFolder
from gan_lightning.data.photo_format import PhotoFormat
from gan_lightning.data.photos import PhotoDataset
from gan_lightning.degradations import Identity
from gan_lightning.errors import InputError
from gan_lightning.modules.masking import ImageMasks, make_masks, prepare_photos

SIDE = 16


def save(path, width, height, hole=None, photo=False, **options):
    """Write a gray photograph, or a mask with a black hole (left, top, right, bottom)."""
    image = Image.new("RGB" if photo else "L", (width, height), (90, 90, 90) if photo else 255)
    if hole is not None:
        image.paste(0, hole)
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path, **options)


def photos(folder, resize="center_crop"):
    return PhotoDataset(folder, PhotoFormat(3, SIDE, SIDE), resize)


def known(masks, names):
    batch = {"image": torch.ones(len(names), 3, SIDE, SIDE), "name": names}
    return masks.after(Identity(), batch, list(range(len(names)))).mask[:, 0].bool()


def hole(left, top, right, bottom):
    expected = torch.ones(SIDE, SIDE, dtype=torch.bool)
    expected[top:bottom, left:right] = False
    return expected


def test_a_mask_is_cropped_and_resized_with_its_photograph(tmp_path):
    save(tmp_path / "photos" / "a.jpg", 64, 32, photo=True)
    save(tmp_path / "photos" / "b.jpg", 64, 32, photo=True)
    save(tmp_path / "photos" / "c.jpg", SIDE, SIDE, photo=True)
    save(tmp_path / "masks" / "a.png", 64, 32, (24, 8, 40, 20))
    save(tmp_path / "masks" / "b.png", SIDE, SIDE, (2, 3, 4, 5))  # of the restored image
    save(tmp_path / "masks" / "c.png", SIDE, SIDE, (0, 0, 4, 5))
    masks = ImageMasks(str(tmp_path / "masks"), SIDE)
    masks.prepare_predict(photos(tmp_path / "photos"))
    a, b, c = known(masks, ["a.jpg", "b.jpg", "c.jpg"])
    assert torch.equal(a, hole(4, 4, 12, 10))
    assert torch.equal(b, hole(2, 3, 4, 5))
    assert torch.equal(c, hole(0, 0, 4, 5))


def test_a_mask_of_a_photograph_that_is_turned_fits_it_as_it_is_seen(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    save(tmp_path / "photos" / "a.jpg", 32, 64, photo=True, exif=exif)  # seen 64 wide
    save(tmp_path / "masks" / "a.png", 64, 32, (24, 8, 40, 20))
    masks = ImageMasks(str(tmp_path / "masks"), SIDE)
    masks.prepare_predict(photos(tmp_path / "photos"))
    assert torch.equal(known(masks, ["a.jpg"])[0], hole(4, 4, 12, 10))


@pytest.mark.parametrize(
    ("resize", "wanted"), [("center_crop", "64x32, or of the restored image, 16x16"), ("refuse", "16x16")]
)
def test_a_mask_that_fits_no_photograph_is_refused_by_name(tmp_path, resize, wanted):
    save(tmp_path / "photos" / "a.jpg", *((64, 32) if resize == "center_crop" else (SIDE, SIDE)), photo=True)
    save(tmp_path / "masks" / "a.png", 32, 16, (1, 1, 3, 3))
    masks = ImageMasks(str(tmp_path / "masks"), SIDE)
    with pytest.raises(InputError, match=rf"masks/a\.png is 32x16 pixels: it must have the size .*{wanted}"):
        masks.prepare_predict(photos(tmp_path / "photos", resize))


def test_in_test_masks_are_cropped_like_the_packed_images(tmp_path, monkeypatch):
    for number in range(6):
        save(tmp_path / "images" / f"{number}.png", 40, 60, photo=True)
        save(tmp_path / "masks" / f"{number}.png", 40, 60, (4 + number, 14, 20 + number, 30))
    options = {"image_size": SIDE, "crop": 32, "split_fractions": (0.4, 0.2, 0.4), "cache_dir": str(tmp_path / "cache")}
    data = ImageFolder(str(tmp_path / "images"), **options)
    data.prepare_data()
    data.setup("test")
    masks = ImageMasks(str(tmp_path / "masks"), SIDE)
    masks.prepare_test(data)
    for row in data.dataset("test").rows:
        batch = {"image": torch.ones(1, 3, SIDE, SIDE), "index": torch.tensor([row])}
        mask = masks.after(Identity(), batch, [0]).mask[0, 0].bool()
        assert torch.equal(mask, hole(row // 2, 0, -(-(16 + row) // 2), 8))


def test_a_mirrored_tree_and_a_shared_mask(tmp_path):
    for folder, left in (("a", 1), ("b", 10)):
        save(tmp_path / "photos" / folder / "face.jpg", SIDE, SIDE, photo=True)
        save(tmp_path / "tree" / folder / "face.png", SIDE, SIDE, (left, 4, left + 5, 12))
    save(tmp_path / "flat" / "face.png", SIDE, SIDE, (1, 1, 3, 3))
    masks = ImageMasks(str(tmp_path / "tree"), SIDE)
    masks.prepare_predict(photos(tmp_path / "photos"))
    a, b = known(masks, ["a/face.jpg", "b/face.jpg"])
    assert torch.equal(a, hole(1, 4, 6, 12))
    assert torch.equal(b, hole(10, 4, 15, 12))
    with pytest.raises(InputError, match=r"a/face\.jpg and b/face\.jpg would both get the mask face\.png"):
        ImageMasks(str(tmp_path / "flat"), SIDE).prepare_predict(photos(tmp_path / "photos"))


def test_one_file_is_the_mask_of_all(tmp_path, caplog):
    for name in ("a.jpg", "below/b.jpg"):
        save(tmp_path / "photos" / name, 64, 32, photo=True)
    save(tmp_path / "mask.png", 64, 32, (24, 8, 40, 20))
    masks = ImageMasks(str(tmp_path / "mask.png"), SIDE)
    before = masks.describe()
    masks.prepare_predict(photos(tmp_path / "photos"))
    assert caplog.text == ""
    for found in known(masks, ["a.jpg", "below/b.jpg"]):
        assert torch.equal(found, hole(4, 4, 12, 10))
    assert masks.known_pixels("a.jpg").shape == (32, 64)
    save(tmp_path / "mask.png", 64, 32, (24, 8, 40, 24))
    assert masks.describe() != before
    save(tmp_path / "mask.png", 20, 20, (1, 1, 3, 3))
    with pytest.raises(InputError, match=r"mask\.png is 20x20 pixels: it must have the size of its photograph, 64x32"):
        ImageMasks(str(tmp_path / "mask.png"), SIDE).prepare_predict(photos(tmp_path / "photos"))


def test_what_does_nothing_is_told_by_name(tmp_path, caplog):
    for name in ("a", "b", "c"):
        save(tmp_path / "photos" / f"{name}.jpg", SIDE, SIDE, photo=True)
        save(tmp_path / "masks" / f"{name}.png", SIDE, SIDE, (1, 1, 3, 3) if name == "b" else None)
    (tmp_path / "photos" / "c.jpg").write_bytes(b"")  # unreadable: its mask is not said to be too many
    save(tmp_path / "masks" / "d.png", SIDE, SIDE, (1, 1, 3, 3))
    dataset = photos(tmp_path / "photos")
    caplog.clear()
    ImageMasks(str(tmp_path / "masks"), SIDE).prepare_predict(dataset)
    folder = tmp_path / "masks"
    assert caplog.messages == [
        f"1 of 2 masks in {folder} mark no pixel as missing: a.png",
        f"1 of 4 masks in {folder} belong to no photograph: d.png",
    ]
    caplog.clear()
    ImageMasks("alpha", SIDE).prepare_predict(dataset)
    assert caplog.messages == ["2 of 2 photographs have no transparent pixel: a.jpg, b.jpg"]


def test_a_hole_that_is_cropped_away_is_told(tmp_path, caplog):
    save(tmp_path / "photos" / "a.jpg", 64, 32, photo=True)
    save(tmp_path / "masks" / "a.png", 64, 32, (0, 0, 9, 32))
    ImageMasks(str(tmp_path / "masks"), SIDE).prepare_predict(photos(tmp_path / "photos"))
    assert "1 of 1 masks" in caplog.text
    save(tmp_path / "masks" / "a.png", 64, 32, (9, 0, 55, 32))
    with pytest.raises(InputError, match=r"a\.png marks every pixel as missing"):
        ImageMasks(str(tmp_path / "masks"), SIDE).prepare_predict(photos(tmp_path / "photos"))


def test_white_can_be_what_is_missing(tmp_path):
    save(tmp_path / "photos" / "a.jpg", SIDE, SIDE, photo=True)
    save(tmp_path / "masks" / "a.png", SIDE, SIDE, (1, 1, 3, 3))
    plain, inverted = (ImageMasks(str(tmp_path / "masks"), SIDE, white) for white in ("known", "missing"))
    inverted.prepare_predict(photos(tmp_path / "photos"))
    assert torch.equal(known(inverted, ["a.jpg"]), ~known(plain, ["a.jpg"]))
    assert plain.describe() != inverted.describe()
    for source, said in (("alpha", "transparent pixels are missing"), (None, "set masks to their folder")):
        with pytest.raises(InputError, match=f"masks_white is for mask files.*{said}"):
            make_masks(source, SIDE, "missing")
    assert make_masks(None, SIDE, "known") is None


def test_a_description_changes_with_masks_in_the_tree_alone(tmp_path):
    save(tmp_path / "masks" / "sub" / "a.png", SIDE, SIDE, (1, 1, 3, 3))
    before = ImageMasks(str(tmp_path / "masks"), SIDE).describe()
    (tmp_path / "masks" / ".DS_Store").write_bytes(b"x")
    (tmp_path / "masks" / "notes.txt").write_bytes(b"x")
    assert ImageMasks(str(tmp_path / "masks"), SIDE).describe() == before
    save(tmp_path / "masks" / "sub" / "a.png", SIDE, SIDE, (1, 1, 4, 3))
    assert ImageMasks(str(tmp_path / "masks"), SIDE).describe() != before


def test_photographs_of_another_kind_find_masks_when_they_are_needed(tmp_path):
    save(tmp_path / "masks" / "a.png", SIDE, SIDE, (1, 1, 3, 3))
    for dataset in (None, SimpleNamespace()):
        masks = ImageMasks(str(tmp_path / "masks"), SIDE)
        masks.prepare_predict(dataset)
        assert torch.equal(known(masks, ["a.jpg"])[0], hole(1, 1, 3, 3))
    np.save(tmp_path / "masks" / "b.npy", hole(1, 1, 3, 3).numpy())
    assert torch.equal(known(masks, ["b.jpg"])[0], hole(1, 1, 3, 3))


def test_what_a_mask_hides_does_not_spoil_the_pixels_beside_it(tmp_path):
    """Without a mask, bicubic resizing leaves a halo of a scratch around the hole."""
    scratched = Image.new("RGB", (48, 32), (90, 90, 90))
    scratched.paste((255, 0, 255), (20, 8, 30, 20))
    (tmp_path / "photos" / "a").mkdir(parents=True)
    scratched.save(tmp_path / "photos" / "a" / "face.png")
    save(tmp_path / "masks" / "a" / "face.png", 48, 32, (20, 8, 30, 20))
    masks = ImageMasks(str(tmp_path / "masks"), SIDE)
    halo = {}
    for source in (None, masks.known_pixels):
        dataset = PhotoDataset(tmp_path / "photos", PhotoFormat(3, SIDE, SIDE), "center_crop", source)
        masks.prepare_predict(dataset)
        batch = dataset[np.array([0])]
        visible = known(masks, batch["name"])[0]
        halo[source] = ((batch["image"][0][:, visible] + 1) * 127.5 - 90).abs().max()
        assert batch["alpha"].eq(1).all()
    assert halo[None] > 8
    assert halo[masks.known_pixels] < 2


def test_masks_told_apart_by_the_names_of_all_photographs_are_found_early_too(tmp_path):
    """A loader reads its first batch before the masks are checked."""
    for name, left in (("a.png", 1), ("a.tif", 5)):
        save(tmp_path / "photos" / name, SIDE, SIDE, photo=True)
        save(tmp_path / "masks" / name, SIDE, SIDE, (left, 1, left + 3, 3))
    masks = ImageMasks(str(tmp_path / "masks"), SIDE)
    dataset = PhotoDataset(tmp_path / "photos", PhotoFormat(3, SIDE, SIDE), known=masks.known_pixels)
    assert dataset[np.arange(2)]["name"] == ["a.png", "a.tif"]
    masks.prepare_predict(dataset)
    assert torch.equal(known(masks, ["a.tif"])[0], hole(5, 1, 8, 3))


def test_hidden_colors_that_count_as_observed_are_told_by_name(tmp_path, caplog):
    save(tmp_path / "a.png", SIDE, SIDE, photo=True)
    erased = Image.new("RGBA", (SIDE, SIDE), (90, 90, 90, 255))
    erased.paste((255, 0, 255, 0), (4, 4, 9, 9))
    erased.save(tmp_path / "b.png")
    dataset = photos(tmp_path)
    for name in ("a.png", "b.png"):
        save(tmp_path / "masks" / name, SIDE, SIDE, (1, 1, 3, 3))
    for masks in (None, ImageMasks(str(tmp_path / "masks"), SIDE)):
        prepare_photos(dataset, masks)
        assert [message for message in caplog.messages if "colors" in message] == [
            "1 of 2 photographs are transparent in parts, whose hidden colors are restored (masks: alpha fills them "
            "in): b.png"
        ]
        caplog.clear()
    prepare_photos(dataset, ImageMasks("alpha", SIDE))
    prepare_photos(None, None)
    assert not any("colors" in message for message in caplog.messages)
