"""The script behind the denoising network of the package: its images, and a training of two steps."""

import importlib
import sys
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from gan_lightning.networks.denoiser import Denoiser
from gan_lightning.pretrained import read_weights

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"


def test_a_drawing_is_determined_by_its_number(monkeypatch):
    monkeypatch.syspath_prepend(BENCHMARKS)
    draw_image = importlib.import_module("dead_leaves").draw_image
    image = draw_image(0, 3)
    assert (image.shape, image.dtype) == ((96, 96, 3), np.uint8)
    assert np.array_equal(image, draw_image(0, 3))
    assert not np.array_equal(image, draw_image(0, 4))
    assert image.std() > 10


def test_photographs_are_reduced_to_several_sizes(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(BENCHMARKS)
    sizes_of = importlib.import_module("make_denoiser").sizes_of
    Image.linear_gradient("L").resize((1000, 500)).save(tmp_path / "wide.png")
    assert [image.shape for image in sizes_of(tmp_path / "wide.png")] == [(280, 560, 3), (175, 350, 3), (110, 220, 3)]


def test_weights_are_trained_and_written(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(BENCHMARKS)
    before = torch.get_num_threads()
    photographs = tmp_path / "photographs"
    photographs.mkdir()
    Image.linear_gradient("L").resize((400, 300)).save(photographs / "one.png")
    words = [
        "--photographs",
        str(photographs),
        "--weights",
        str(tmp_path),
        "--steps",
        "2",
        "--leaves",
        "2",
        "--faces",
        "1",
    ]
    monkeypatch.setattr(sys, "argv", ["make_denoiser.py", *words])
    try:
        importlib.import_module("make_denoiser").main()
    finally:
        torch.set_num_threads(before)
    read = read_weights(tmp_path / "denoiser.safetensors")
    Denoiser().load_state_dict(read["state_dict"])
    assert read["steps"] == 2
