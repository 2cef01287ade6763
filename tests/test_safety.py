"""Files from strangers: no code in them runs, none is decoded before its size is known, none leads out of its folder.

Lists that point out of their folder: tests/data/test_celeba.py. Generators and Inception's weights:
tests/test_checkpoints.py, tests/metrics/test_extractors.py.
"""

import contextlib
import http.server
import io
import json
import os
import pickle
import sys
import threading
import zlib

import numpy as np
import pytest
import torch
from PIL import Image, ImageFile

from gan_lightning import DCGAN
from gan_lightning.__main__ import main
from gan_lightning.data.decode import CropResize, decode_image
from gan_lightning.data.listing import read_folder
from gan_lightning.data.packed import open_packed
from gan_lightning.data.packing import pack_images
from gan_lightning.data.photo_format import PhotoFormat, read_photo
from gan_lightning.data.photos import PhotoDataset
from gan_lightning.data.streamed_images import StreamedImages
from gan_lightning.degradations import FileMask, read_masks
from gan_lightning.errors import InputError
from gan_lightning.metrics.cache import StatisticsCache
from gan_lightning.modules.encoder import LatentEncoder
from gan_lightning.modules.restoration import LatentRestoration
from gan_lightning.networks.dcgan import Generator
from tests.commands import CONFIGS, SMALL
from tests.conftest import FACES

SIZE = 16


class MakesAFolder:
    """An object that makes a folder when it is unpickled."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return os.mkdir, (self.path,)


@pytest.fixture
def trace(tmp_path):
    """What is there if code of a file has run."""
    path = tmp_path / "the code has run"
    yield path
    assert not path.exists()


@pytest.fixture
def evil_checkpoint(tmp_path, trace):
    """A checkpoint of DCGAN in all but one entry."""
    module = DCGAN(image_size=SIZE, base_channels=4)
    content = {"state_dict": module.state_dict(), "hyper_parameters": dict(module.hparams), "global_step": 0}
    torch.save({**content, "callbacks": {"x": MakesAFolder(trace)}}, tmp_path / "evil.ckpt")
    return tmp_path / "evil.ckpt"


@pytest.mark.parametrize("command", ["fit", "validate", "test", "predict"])
def test_no_command_runs_the_code_of_a_checkpoint(command, evil_checkpoint, faces_root, monkeypatch, capsys, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["gan-lightning"])
    words = [command, "--config", CONFIGS / "quickstart.yaml", *SMALL, "--data.root", faces_root, "--data.count", FACES]
    assert main([str(word) for word in [*words, "--name", "run", "--ckpt_path", evil_checkpoint]]) == 2
    assert "evil.ckpt is refused" in capsys.readouterr().err


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *arguments):
        pass


@contextlib.contextmanager
def served(folder, monkeypatch):
    """Serve a folder, which is the working one; give its address."""
    monkeypatch.chdir(folder)
    monkeypatch.setenv("TORCH_HOME", str(folder / "downloads"))
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Quiet)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


def test_nor_of_one_on_a_server(evil_checkpoint, faces_root, monkeypatch, tmp_path):
    """Lightning alone would: for an address of http its default is to run pickles."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["gan-lightning"])
    words = ["validate", "--config", CONFIGS / "quickstart.yaml", *SMALL, "--data.root", faces_root]
    words += ["--data.count", FACES, "--name", "run", "--ckpt_path"]
    with served(tmp_path, monkeypatch) as address, pytest.raises(pickle.UnpicklingError):
        main([str(word) for word in [*words, f"{address}/{evil_checkpoint.name}"]])
    assert list((tmp_path / "downloads").rglob("evil.ckpt")), "it has been fetched"


def test_nor_does_a_module_that_is_read_from_one(evil_checkpoint, monkeypatch, tmp_path):
    with served(tmp_path, monkeypatch) as address:
        for place in (str(evil_checkpoint), f"{address}/{evil_checkpoint.name}"):
            with pytest.raises(pickle.UnpicklingError):
                DCGAN.load_from_checkpoint(place)
            with pytest.raises(pickle.UnpicklingError):
                LatentEncoder.load_from_checkpoint(place)


def test_modules_that_take_a_generator_refuse_code(evil_checkpoint, tmp_path):
    torch.save(Generator(SIZE, base_channels=4).state_dict(), tmp_path / "good.pt")
    for make in (
        lambda: LatentEncoder(str(evil_checkpoint)),
        lambda: LatentRestoration(evil_checkpoint),
        lambda: LatentRestoration(tmp_path / "good.pt", encoder_ckpt=evil_checkpoint),
    ):
        with pytest.raises(InputError, match=r"evil\.ckpt is refused"):
            make()


def test_cached_statistics_and_packs_run_no_code(tmp_path, trace, caplog):
    cache = StatisticsCache(tmp_path / "statistics")
    path = cache.path({"a": 1})
    path.parent.mkdir()
    path.write_bytes(pickle.dumps(MakesAFolder(trace)))
    assert cache.load({"a": 1}) is None
    Image.new("RGB", (SIZE, SIZE)).save(tmp_path / "image.png")
    files = read_folder(tmp_path, (1, 0, 0))
    framing = {"image_size": SIZE, "crop": None, "channels": 3}
    pack_images(files, cache_dir=tmp_path / "packs", **framing)
    (pixels,) = (tmp_path / "packs").rglob("pixels.npy")
    pixels.chmod(0o644)
    np.save(pixels, np.array([MakesAFolder(trace)], dtype=object), allow_pickle=True)
    with pytest.raises(InputError, match="cannot be used"):
        open_packed(files, cache_dir=tmp_path / "packs", **framing)


def test_streams_of_pickled_items_are_refused(tmp_path, trace):
    litdata = pytest.importorskip("litdata.streaming")
    for split in ("train", "val", "test"):
        cache = litdata.Cache(str(tmp_path / "source" / split), chunk_size=2)
        cache[0] = {"image": Image.new("RGB", (SIZE, SIZE)), "x": MakesAFolder(trace)}
        cache.done()
        cache.merge()
    data = StreamedImages(str(tmp_path / "source"), image_size=SIZE, cache_dir=str(tmp_path / "cache"))
    with pytest.raises(InputError, match="could run code"):
        data.setup("test")


def write_stream(folder, compression=None):
    litdata = pytest.importorskip("litdata.streaming")
    for split in ("train", "val", "test"):
        cache = litdata.Cache(str(folder / split), chunk_size=2)
        cache[0] = {"image": Image.new("RGB", (SIZE, SIZE))}
        cache.done()
        cache.merge()
        index = folder / split / "index.json"
        content = json.loads(index.read_text())
        content["config"]["compression"] = compression
        index.write_text(json.dumps(content))
    return index


@pytest.mark.parametrize("name", ["../../../escaped.bin", "/etc/hostname", "a/../../b.bin"])
@pytest.mark.parametrize("place", ["", "local:"])
def test_streams_cannot_name_files_outside_of_them(tmp_path, name, place):
    index = write_stream(tmp_path / "source")
    content = json.loads(index.read_text())
    content["chunks"][0]["filename"] = name
    index.write_text(json.dumps(content))
    data = StreamedImages(f"{place}{tmp_path / 'source'}", image_size=SIZE, cache_dir=str(tmp_path / "cache"))
    before = sorted(tmp_path.parent.rglob("*"))
    with pytest.raises(InputError, match=r"is refused: its index names the file .* outside of the source"):
        data.setup("test")
    assert [path for path in sorted(tmp_path.parent.rglob("*.bin")) if path not in before] == []


def test_a_compressed_stream_is_not_unpacked_in_its_own_place(tmp_path):
    write_stream(tmp_path / "source", compression="zstd")
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    data = StreamedImages(str(tmp_path / "source"), image_size=SIZE, cache_dir=str(tmp_path / "cache"))
    with pytest.raises(InputError, match=r"compressed.*give local:"):
        data.setup("test")
    assert {path: path.read_bytes() for path in before} == before


def png(width, height):
    """A PNG of a few bytes that says it is of this size."""

    def chunk(kind, content):
        return len(content).to_bytes(4, "big") + kind + content + zlib.crc32(kind + content).to_bytes(4, "big")

    header = width.to_bytes(4, "big") + height.to_bytes(4, "big") + bytes([8, 0, 0, 0, 0])
    parts = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + parts


@pytest.mark.parametrize("side", [10_000, 60_000])  # Pillow refuses only the second, and warns of the first
@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_bombs_are_never_decoded(side, tmp_path, monkeypatch):
    path = tmp_path / "masks" / "bomb.png"
    path.parent.mkdir()
    path.write_bytes(png(side, side))

    def load(image):
        raise AssertionError("decoded")

    monkeypatch.setattr(ImageFile.ImageFile, "load", load)
    too_large = "pixels|exceeds limit|none of the|cannot be read"
    for read in (
        lambda: decode_image(path, CropResize(SIZE, None, 3)),
        lambda: read_photo(path, PhotoFormat(3, SIZE, SIZE), "center_crop"),
        lambda: PhotoDataset(path.parent, PhotoFormat(3, SIZE, SIZE), "center_crop"),
        lambda: FileMask(path, SIZE),
        lambda: read_masks(path.parent, ["bomb.jpg"], SIZE),
    ):
        with pytest.raises((InputError, ValueError, Image.DecompressionBombError), match=too_large):
            read()


@pytest.mark.parametrize("kind", ["bytes", "jpeg"])
def test_bombs_in_a_stream_are_never_decoded(kind, tmp_path, monkeypatch):
    """Written while they could pass; litdata would decode a JPEG by itself, however large."""
    litdata = pytest.importorskip("litdata.streaming")
    file = io.BytesIO()
    Image.new("L", (400, 400)).save(file, format="JPEG")
    item = file.getvalue() if kind == "bytes" else Image.open(file)
    for split in ("train", "val", "test"):
        cache = litdata.Cache(str(tmp_path / "source" / split), chunk_size=2)
        cache[0] = {"image": item}
        cache.done()
        cache.merge()
    monkeypatch.delattr("litdata.streaming.serializers._decode_image_tensor")
    monkeypatch.setattr("gan_lightning.data.decode.MAX_PIXELS", 100_000)
    data = StreamedImages(str(tmp_path / "source"), image_size=SIZE, cache_dir=str(tmp_path / "cache"))
    data.setup("test")
    with pytest.raises(InputError, match="more than the limit"):
        data.dataset("test").read(np.arange(1))
