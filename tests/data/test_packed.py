from __future__ import annotations

import errno
import hashlib
import json
import multiprocessing
import os
import pickle
import re
import shutil
import socket
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import PIL
import pytest
import torch
from PIL import Image

from gan_lightning.data import decode, fingerprint, listing, packing
from gan_lightning.data import packed as packed_module
from gan_lightning.data.batches import ImageDataset
from gan_lightning.data.listing import ImageListing, read_folder
from gan_lightning.data.packed import PackedImages, describe_size, open_packed, pack_folder
from gan_lightning.data.packing import pack_images
from gan_lightning.errors import InputError
from gan_lightning.file_names import printable
from tests.processes import run

Write = Callable[..., Path]
SETTINGS = {"image_size": 16, "crop": 148, "channels": 3}


@pytest.fixture
def files(tmp_path: Path, make_image: Write) -> ImageListing:
    for number in range(9):
        make_image(tmp_path / "images" / f"{number}.jpg", number)
    return read_folder(tmp_path / "images")


@pytest.fixture
def pack(tmp_path: Path) -> Callable[..., PackedImages]:
    def call(files: ImageListing, **settings: object) -> PackedImages:
        return pack_images(files, **{**SETTINGS, "cache_dir": tmp_path / "cache", "progress": False, **settings})

    return call


def left_in(cache: Path) -> list[str]:
    return sorted(path.name for path in cache.iterdir() if not path.name.endswith(".lock") and path.name != "sources")


def test_pixels_are_those_of_torchvisions_transforms(files: ImageListing, pack: Callable[..., PackedImages]) -> None:
    transforms = pytest.importorskip("torchvision.transforms")
    for image_size, crop, channels in [(16, 148, 3), (64, 178, 3), (24, 107, 1), (200, 108, 3)]:
        reference = transforms.Compose(
            [
                transforms.CenterCrop(crop),
                transforms.Resize((image_size, image_size), transforms.InterpolationMode.BICUBIC),
                transforms.PILToTensor(),
            ]
        )
        packed = pack(files, image_size=image_size, crop=crop, channels=channels)
        rows = np.array([8, 0, 3])
        for row, image in zip(rows, packed.read(rows), strict=True):
            with Image.open(files.root / files.names[row]) as opened:
                expected = reference(opened.convert("RGB" if channels == 3 else "L"))
            torch.testing.assert_close(image, expected, rtol=0, atol=0)


def test_without_a_crop_the_largest_square_is_kept(tmp_path: Path, make_image: Write, pack: Write) -> None:
    path = make_image(tmp_path / "images" / "wide.png", 0, size=(90, 41))
    packed = pack(read_folder(path.parent), crop=None)
    with Image.open(path) as image:
        expected = np.asarray(image.crop((24, 0, 65, 41)).resize((16, 16), Image.Resampling.BICUBIC))
    np.testing.assert_array_equal(packed.read(np.array([0]))[0].permute(1, 2, 0).numpy(), expected)


def test_a_batch_is_channels_last_and_its_own(files: ImageListing, pack: Write) -> None:
    packed = pack(files)
    batch = packed.read(np.array([1, 2]))
    assert batch.dtype == torch.uint8
    assert batch.shape == (2, 3, 16, 16)
    assert batch.is_contiguous(memory_format=torch.channels_last)
    before = batch.clone()
    batch.zero_()
    torch.testing.assert_close(packed.read(np.array([1, 2])), before)


def test_a_batch_costs_as_many_calls_as_one_image(files: ImageListing, pack: Write) -> None:
    dataset = ImageDataset(pack(files), np.arange(9))

    def calls(count: int) -> int:
        events: list[str] = []
        sys.setprofile(lambda frame, event, argument: events.append(event))
        try:
            dataset[np.arange(count), np.zeros(count, dtype=bool)]
        finally:
            sys.setprofile(None)
        return len(events)

    assert calls(1) == calls(9) > 0


@pytest.mark.parametrize(("mode", "suffix"), [("L", "png"), ("RGBA", "png"), ("CMYK", "jpg"), ("RGB", "webp")])
@pytest.mark.parametrize("channels", [1, 3])
def test_every_mode_becomes_the_channels_asked_for(
    tmp_path: Path, make_image: Write, mode: str, suffix: str, channels: int
) -> None:
    path = make_image(tmp_path / f"x.{suffix}", 1, size=(16, 16), mode=mode)
    with Image.open(path) as image:
        assert image.mode == mode
        expected = np.asarray(image.convert("L" if channels == 1 else "RGB")).reshape(16, 16, channels)
    np.testing.assert_array_equal(decode.decode_image(path, decode.CropResize(16, None, channels)), expected)


def test_palette_and_16_bit_images_keep_their_colors(tmp_path: Path) -> None:
    colors = np.array([[[255, 0, 0], [0, 255, 0]], [[0, 0, 255], [9, 9, 9]]], dtype=np.uint8)
    Image.fromarray(colors).quantize(4).save(tmp_path / "palette.png")
    ramp = np.array([[0, 256], [32768, 65535]], dtype=np.uint16)
    Image.fromarray(ramp).save(tmp_path / "deep.png")
    decoded = decode.decode_image(tmp_path / "palette.png", decode.CropResize(2, None, 3))
    np.testing.assert_array_equal(decoded, colors)
    decoded = decode.decode_image(tmp_path / "deep.png", decode.CropResize(2, None, 1))
    np.testing.assert_array_equal(decoded[..., 0], [[0, 1], [128, 255]])


def test_exif_orientation_is_applied(tmp_path: Path, make_image: Write) -> None:
    path = make_image(tmp_path / "x.png", 3, size=(20, 20))
    with Image.open(path) as image:
        exif = image.getexif()
        exif[0x0112] = 6  # the camera was turned: rotate by 90 degrees clockwise to see it upright
        image.save(tmp_path / "turned.png", exif=exif)
    upright, turned = (
        decode.decode_image(tmp_path / name, decode.CropResize(20, None, 3)) for name in ("x.png", "turned.png")
    )
    np.testing.assert_array_equal(turned, np.rot90(upright, k=-1))


def test_a_pack_is_reused_until_a_file_changes(files: ImageListing, pack: Write, make_image: Write) -> None:
    first = pack(files)
    made = (first.folder / "pixels.npy").stat().st_mtime_ns
    assert (pack(files).folder / "pixels.npy").stat().st_mtime_ns == made
    make_image(files.root / "4.jpg", seed=99)
    os.utime(files.root / "4.jpg", ns=(1, 1))
    second = pack(files)
    assert second.folder != first.folder
    changed = (second.read(files_rows := np.arange(9)) != first.read(files_rows)).flatten(1).any(1)
    assert changed.nonzero().flatten().tolist() == [4]
    assert second.digest != first.digest


def test_every_setting_changes_the_pack(files: ImageListing, pack: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    variants = [{}, {"image_size": 8}, {"crop": 108}, {"crop": None}, {"channels": 1}]
    folders = {pack(files, **settings).folder for settings in variants}
    monkeypatch.setattr("PIL.__version__", "999.0")
    assert len(folders | {pack(files).folder}) == 6


def test_one_byte_makes_another_pack_even_under_the_old_size_and_time(files: ImageListing, pack: Write) -> None:
    first = pack(files)
    path = files.root / "4.jpg"
    status, content = path.stat(), bytearray(path.read_bytes())
    content[-3] ^= 1  # within the coded pixels
    path.write_bytes(content)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert (path.stat().st_size, path.stat().st_mtime_ns) == (status.st_size, status.st_mtime_ns)
    assert pack(files).folder != first.folder


def test_a_file_more_or_less_or_of_another_name_makes_another_pack(
    files: ImageListing, pack: Write, make_image: Write
) -> None:
    folders = [pack(files).folder]
    make_image(files.root / "more.jpg", 50)
    folders.append(pack(read_folder(files.root)).folder)
    (files.root / "more.jpg").rename(files.root / "other.jpg")
    folders.append(pack(read_folder(files.root)).folder)
    (files.root / "other.jpg").unlink()
    assert len(set(folders)) == 3
    assert pack(read_folder(files.root)).folder == folders[0]


def test_a_copy_of_the_images_is_not_packed_again(
    files: ImageListing, pack: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = pack(files)
    shutil.copytree(files.root, tmp_path / "copy" / "images", copy_function=shutil.copyfile)  # with new times
    monkeypatch.setattr("gan_lightning.data.listing.decode_image", None)  # calling it would fail
    assert pack(read_folder(tmp_path / "copy" / "images")).folder == first.folder


def test_files_are_read_once_and_then_looked_at(
    files: ImageListing, pack: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = pack(files)
    monkeypatch.setattr(fingerprint, "read_content", None)
    assert pack(files).folder == pack(files, image_size=16).folder == first.folder


def test_a_truncated_note_of_the_content_is_computed_again(files: ImageListing, pack: Write, tmp_path: Path) -> None:
    first = pack(files)
    (note,) = (tmp_path / "cache" / "sources").iterdir()
    note.write_text(note.read_text()[:20])
    assert pack(files).folder == first.folder
    assert len(note.read_text()) == 64


def test_images_that_change_while_they_are_packed_are_refused(
    files: ImageListing, pack: Write, tmp_path: Path, make_image: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = packing._write_pixels

    def write_while_another_does(*arguments: object) -> object:
        make_image(files.root / "8.jpg", seed=77)
        return write(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(packing, "_write_pixels", write_while_another_does)
        with pytest.raises(InputError, match="changed while they were packed"):
            pack(files)
    assert left_in(tmp_path / "cache") == []
    assert len(pack(files).rows) == 9


def test_a_read_only_cache_serves(files: ImageListing, pack: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    first = pack(files)
    shutil.rmtree(first.folder.parent / "sources")
    monkeypatch.setattr(fingerprint, "atomic_path", refuse)
    monkeypatch.setattr(packing, "exclusive", refuse)
    assert pack(files).folder == first.folder
    with pytest.raises(InputError, match=r"Cannot write to the cache folder .*Read-only file system.*: set cache_dir"):
        pack(files, image_size=8)


def test_digest_depends_only_on_the_pixels(files: ImageListing, pack: Write, tmp_path: Path) -> None:
    first = pack(files)
    with (files.root / "0.jpg").open("ab") as file:
        file.write(b"x")  # after the end of the image
    second = pack(files, num_workers=3)
    assert second.folder != first.folder
    assert second.digest == first.digest


def test_chunks_and_workers_do_not_change_the_pixels(
    files: ImageListing, pack: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = pack(files, num_workers=1)
    monkeypatch.setattr(packing, "CHUNK", 2)
    many = pack(files, num_workers=4, cache_dir=tmp_path / "other")
    torch.testing.assert_close(one.read(one.rows), many.read(many.rows), rtol=0, atol=0)
    assert one.digest == many.digest


def break_some(files: ImageListing) -> None:
    content = (files.root / "2.jpg").read_bytes()
    (files.root / "2.jpg").write_bytes(content[: len(content) // 2])
    (files.root / "5.jpg").write_bytes(b"not an image")
    (files.root / "7.jpg").unlink()


def test_unreadable_images_are_left_out_and_named(files: ImageListing, pack: Write) -> None:
    break_some(files)
    for _ in range(2):  # packed, and found packed
        with pytest.warns(
            UserWarning, match=r"3 of 9 images .* 2\.jpg \(.*truncated.*\), 5\.jpg \(.*\), 7\.jpg \(.*missing"
        ):
            packed = pack(files)
    assert [entry.row for entry in packed.skipped] == [2, 5, 7]
    assert packed.rows.tolist() == [0, 1, 3, 4, 6, 8]
    assert (packed.read(packed.rows).flatten(1).float().std(1) > 0).all()


def test_strict_refuses_the_first_unreadable_image(files: ImageListing, pack: Write, tmp_path: Path) -> None:
    break_some(files)
    with pytest.raises(InputError, match=r"2\.jpg cannot be read .*strict: false"):
        pack(files, strict=True)
    assert left_in(tmp_path / "cache") == []
    with pytest.warns(UserWarning, match="3 of 9"):
        pack(files)
    with pytest.raises(InputError, match=r"2\.jpg cannot be read"):  # also where they were left out before
        pack(files, strict=True)


def test_a_repaired_image_is_packed_again(files: ImageListing, pack: Write, make_image: Write) -> None:
    (files.root / "7.jpg").unlink()
    with pytest.warns(UserWarning, match="1 of 9"):
        pack(files)
    make_image(files.root / "7.jpg", 7)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert len(pack(files).rows) == 9


def test_nothing_readable_is_an_error(files: ImageListing, pack: Write, tmp_path: Path) -> None:
    for name in files.names:
        (files.root / name).write_bytes(b"")
    with pytest.raises(InputError, match="None of the 9 images"):
        pack(files)
    assert left_in(tmp_path / "cache") == []


def test_a_bomb_is_not_decoded(files: ImageListing, pack: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    Image.new("1", (4000, 4000)).save(files.root / "1.jpg", format="PNG")
    monkeypatch.setattr(decode, "MAX_PIXELS", 1_000_000)
    with pytest.warns(UserWarning, match=r"1\.jpg \(4000 x 4000 pixels are more than the limit"):
        pack(files)


def test_a_crop_that_does_not_fit_is_an_error(files: ImageListing, pack: Write, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"0\.jpg is 178 x 218, smaller than the crop of 179"):
        pack(files, crop=179)
    assert left_in(tmp_path / "cache") == []


def test_a_fault_of_the_machine_is_not_blamed_on_the_image(
    files: ImageListing, pack: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(path: Path, crop_resize: object) -> None:
        raise OSError(errno.EIO, "Input/output error", str(path))

    monkeypatch.setattr("gan_lightning.data.listing.decode_image", fail)
    with pytest.raises(OSError, match="Input/output error"):
        pack(files)


@pytest.mark.parametrize(
    "damage",
    ["no header", "half a header", "half the pixels", "no pixels", "other version", "other size", "other fingerprint"],
)
def test_a_damaged_pack_is_not_used(files: ImageListing, pack: Write, damage: str) -> None:
    packed = pack(files)
    expected = packed.read(packed.rows)
    header, pixels = packed.folder / "pack.json", packed.folder / "pixels.npy"
    if damage == "no header":
        header.unlink()
    elif damage == "half a header":
        header.write_text(header.read_text()[:50])
    elif damage == "half the pixels":
        os.truncate(pixels, 1000)
    elif damage == "no pixels":
        pixels.unlink()
    elif damage == "other size":
        np.save(pixels, np.zeros((9, 8, 8, 3), dtype=np.uint8))
    elif damage == "other fingerprint":  # another pack, under the name of this one
        other = pack(files, crop=100).folder
        shutil.rmtree(packed.folder)
        other.rename(packed.folder)
    else:
        header.write_text(json.dumps({**json.loads(header.read_text()), "format_version": 0}))
    message = "no up-to-date pack" if damage in ("no header", "no pixels") else "cannot be used .*: delete that folder"
    with pytest.raises(InputError, match=message):
        open_packed(files, **SETTINGS, cache_dir=packed.folder.parent)
    again = pack(files)
    torch.testing.assert_close(again.read(again.rows), expected, rtol=0, atol=0)
    assert left_in(packed.folder.parent) == [packed.folder.name]


@pytest.mark.parametrize(("host", "hours", "removed"), [("", 0, True), ("other", 0, False), ("other", 25, True)])
def test_what_a_dead_process_left_is_removed(
    files: ImageListing, pack: Write, tmp_path: Path, host: str, hours: int, removed: bool
) -> None:
    """A process of another host may be alive: the lock does not reach it on every file system."""
    packed = pack(files)
    part = packed.folder.with_name(f".{packed.folder.name}.{host or socket.gethostname()}-1.part")
    packed.folder.rename(part)
    for path in (*part.iterdir(), part):
        os.utime(path, (time.time() - 3600 * hours,) * 2)
    with pytest.raises(InputError, match="no up-to-date pack"):
        open_packed(files, **SETTINGS, cache_dir=tmp_path / "cache")
    pack(files)
    assert left_in(tmp_path / "cache") == sorted([packed.folder.name, *([] if removed else [part.name])])


def test_a_full_disk_is_reported_and_leaves_nothing(
    files: ImageListing, pack: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(packing, "_flush", full)
        with pytest.raises(InputError, match=r"is full: the packed images need 6,912 bytes"):
            pack(files)
    with monkeypatch.context() as patch:
        patch.setattr(packing.shutil, "disk_usage", lambda _: SimpleNamespace(free=100))
        with pytest.raises(InputError, match=r"need 6,912 bytes, 100 are free"):
            pack(files)
    assert left_in(tmp_path / "cache") == []


def test_a_limit_on_the_size_of_files_is_reported_and_leaves_nothing(files: ImageListing, tmp_path: Path) -> None:
    limited = tmp_path / "limited.py"
    limited.write_text(
        "import resource, sys\nfrom gan_lightning.__main__ import main\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))\nsys.exit(main())\n"
    )
    options = ["--data.image_size", "16", "--data.cache_dir", tmp_path / "cache"]
    result = run(limited, "pack", "--data", "ImageFolder", "--data.root", files.root, *options)
    assert result.returncode == 2
    assert re.search(r"^gan-lightning: error: The disk of .* is full: .* set cache_dir", result.stderr, re.MULTILINE)
    assert "Traceback" not in result.stderr
    assert left_in(tmp_path / "cache") == []


def pack_in_child(arguments: tuple[Path, Path]) -> tuple[str, str]:
    root, cache = arguments
    packed = pack_images(read_folder(root), **SETTINGS, cache_dir=cache, num_workers=1, progress=False)
    return str(packed.folder), packed.digest


def test_two_processes_at_once_make_one_pack(
    files: ImageListing, pack: Write, tmp_path: Path, make_image: Write
) -> None:
    for number in range(100, 300):
        make_image(files.root / f"{number}.jpg", number)
    cache = tmp_path / "shared"
    with multiprocessing.get_context("forkserver").Pool(2) as pool:
        results = pool.map(pack_in_child, [(files.root, cache)] * 2, chunksize=1)
    assert results[0] == results[1]
    assert left_in(cache) == [Path(results[0][0]).name]
    assert results[0][1] == pack(read_folder(files.root)).digest


def pack_slowly(root: Path, cache: Path) -> None:
    decode_image = listing.decode_image
    listing.decode_image = lambda *arguments: time.sleep(0.5) or decode_image(*arguments)
    pack_in_child((root, cache))


def test_a_killed_packing_starts_again_cleanly(files: ImageListing, pack: Write, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    child = multiprocessing.get_context("forkserver").Process(target=pack_slowly, args=(files.root, cache))
    child.start()
    deadline = time.monotonic() + 60
    while not (parts := list(cache.glob(".*.part/pixels.npy"))) and time.monotonic() < deadline:
        time.sleep(0.02)
    child.kill()
    child.join()
    assert [path.parent.name for path in parts] == left_in(cache)
    packed = pack(files)
    assert left_in(cache) == [packed.folder.name]
    assert len(packed.rows) == 9


def no_locks(*_: object) -> None:
    raise OSError(errno.ENOLCK, "No locks available")


def test_without_locks_the_first_to_finish_wins(
    files: ImageListing, pack: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = packing._write_pixels

    def write_while_another_does(*arguments: object) -> object:
        monkeypatch.setattr(packing, "_write_pixels", write)
        monkeypatch.setattr(packing.os, "getpid", lambda: 1)
        pack(files)
        return write(*arguments)

    monkeypatch.setattr("fcntl.flock", no_locks)
    monkeypatch.setattr(packing, "_write_pixels", write_while_another_does)
    packed = pack(files)
    assert left_in(tmp_path / "cache") == [packed.folder.name]


def test_pickles_as_a_path(files: ImageListing, pack: Write) -> None:
    packed = pack(files)
    content = pickle.dumps(packed)
    assert len(content) < 1000
    torch.testing.assert_close(pickle.loads(content).read(packed.rows), packed.read(packed.rows))


def test_the_source_is_not_touched(files: ImageListing, pack: Write) -> None:
    def snapshot() -> dict[str, tuple[int, bytes]]:
        return {str(path): (path.stat().st_mtime_ns, path.read_bytes()) for path in files.root.iterdir()}

    before = snapshot()
    pack(files)
    assert snapshot() == before


def test_size_is_stated_for_celeba() -> None:
    assert describe_size(202_599, decode.CropResize(64, 178, 3)) == "202,599 images at 64 x 64 x 3 take 2.49 GB"


@pytest.mark.parametrize(
    ("settings", "message"),
    [({"image_size": 0}, "image_size is 0"), ({"crop": 0}, "crop is 0"), ({"channels": 2}, "channels is 2")],
)
def test_settings_out_of_range_are_refused(files: ImageListing, pack: Write, settings: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        pack(files, **settings)


def test_a_cache_that_cannot_be_created_is_reported(files: ImageListing, pack: Write, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match=r"Cannot create the cache folder .*GAN_LIGHTNING_CACHE"):
        pack(files, cache_dir=tmp_path / "file" / "cache")


def test_a_pack_made_by_an_earlier_version_is_still_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("PIL.__version__", "13.0.0")
    root = tmp_path / "photos"
    for name in ("a/1.jpg", "a/2.PNG", "b/1.jpg", "été.webp", "写真.jpeg", "x y.bmp", "7.jpg"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(name.encode())
    crop_resize = decode.CropResize(16, None, 3)
    assert pack_folder(read_folder(root), crop_resize, tmp_path).name == "photos-16x3-5074977ada2e8109"


def test_integer_tiffs_that_were_packed_black_are_packed_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "a.tif").write_bytes(b"a")
    listing = read_folder(tmp_path / "photos")
    settings = [packed_module.FORMAT_VERSION, decode.RESIZER, PIL.__version__.split(".")[0]]
    settings += [{"image_size": 16, "crop": None, "channels": 3}, 1, fingerprint.content_of(listing, tmp_path)]
    before = hashlib.sha256(json.dumps(settings).encode()).hexdigest()[:16]
    assert not pack_folder(listing, decode.CropResize(16, None, 3), tmp_path).name.endswith(before)


def test_names_in_any_encoding_are_packed_and_named(tmp_path: Path, make_image: Write, pack: Write) -> None:
    root = tmp_path / "images"
    names = sorted(os.fsdecode(name) for name in (b"caf\xe9.png", "写真.png".encode(), b"two\nlines.png", b"\xff.png"))
    for number, name in enumerate(names):
        make_image(root / name, number)
    (root / names[0]).write_bytes(b"")
    bad = printable(names[0])
    with pytest.warns(UserWarning, match=rf"1 of 4 images .*: {re.escape(bad)} \(the file is empty\)"):
        packed = pack(read_folder(root))
    assert (packed.rows.tolist(), packed.skipped[0].name) == ([1, 2, 3], names[0])
    with pytest.warns(UserWarning, match="1 of 4"):
        assert pack(read_folder(root)).folder == packed.folder


def test_a_loop_of_links_is_left_out_by_name(files: ImageListing, pack: Write) -> None:
    for name in ("1.jpg", "2.jpg"):
        (files.root / name).unlink()
    (files.root / "1.jpg").symlink_to(files.root / "2.jpg")
    (files.root / "2.jpg").symlink_to(files.root / "1.jpg")
    with pytest.warns(UserWarning, match=r"2 of 9 .*: 1\.jpg \((Too many levels of symbolic links|Symlink loop)"):
        assert len(pack(files).rows) == 7


@pytest.mark.parametrize("name", ["写" * 85, "x" * 255, "photos [2020]"])
def test_a_folder_of_any_name_is_packed(tmp_path: Path, make_image: Write, pack: Write, name: str) -> None:
    make_image(tmp_path / name / "a.png", 0)
    packed = pack(read_folder(tmp_path / name))
    shutil.rmtree(packed.folder)
    stale = packed.folder.with_name(f".{packed.folder.name}.{socket.gethostname()}-{2**22 + 1}.part")
    stale.mkdir()
    assert pack(read_folder(tmp_path / name)).folder == packed.folder
    assert not stale.exists()
