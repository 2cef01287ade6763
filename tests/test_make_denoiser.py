"""The script behind the denoising network of the package: its drawings, and a training of two steps."""

import importlib
import sys
from pathlib import Path

import numpy as np
import torch

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


def test_weights_are_trained_and_written(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(BENCHMARKS)
    before = torch.get_num_threads()
    words = ["--steps", "2", "--leaves", "2", "--faces", "1", "--weights", str(tmp_path)]
    monkeypatch.setattr(sys, "argv", ["make_denoiser.py", *words])
    try:
        importlib.import_module("make_denoiser").main()
    finally:
        torch.set_num_threads(before)
    read = read_weights(tmp_path / "denoiser.safetensors")
    Denoiser().load_state_dict(read["state_dict"])
    assert read["steps"] == 2
