"""Every snippet of docs/stylegan2.md runs as it stands, with small networks, and does what the page says."""

import pickle
import re
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from gan_lightning.inversion import whitening
from gan_lightning.networks.stylegan2 import StyleGAN2Generator

PAGE = (Path(__file__).parent.parent.parent / "docs" / "stylegan2.md").read_text()
EXPORT, LOAD, INVERT, ADAPT = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)


class Network(nn.Module):
    """Takes latents as a transposed convolution does, and a class; makes images in [0, 1]."""

    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(4, 16)
        self.layers = nn.Sequential(nn.ConvTranspose2d(16, 3, 4), nn.Upsample(scale_factor=4, mode="bilinear"))

    def forward(self, latents, labels):
        return torch.sigmoid(4 * self.layers(latents + self.embed(labels)[:, :, None, None]))


def test_the_page_is_true(tmp_path, monkeypatch):
    monkeypatch.setattr(whitening, "PROBES", 64)
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    sizes = {"latent_dim": 6, "base_channels": 4, "max_channels": 8, "w_dim": 5, "mapping_layers": 2}
    generator = StyleGAN2Generator(16, **sizes).eval()
    Path("ffhq.pkl").write_bytes(pickle.dumps({"G_ema": generator}))
    monkeypatch.setattr(sys, "argv", ["export.py", "ffhq.pkl", "ffhq.safetensors"])
    exec(EXPORT, {})  # as the reader would
    names = {}
    exec(LOAD, names)
    with torch.no_grad():
        torch.testing.assert_close(names["images"], generator(names["z"], truncation_psi=0.7))
    assert names["w"].shape == (4, 6, 5)
    names["images"] = names["images"].detach().clamp(-1, 1)
    exec(INVERT, names)
    assert names["found"].solutions.shape == (4, 2, 3, 16, 16)
    assert names["w"].shape == (4, 6, 5)
    network = Network()
    images = 2 * network(torch.randn(2, 16, 1, 1), torch.tensor([3, 3])).detach() - 1
    names = {"network": network, "images": images}
    exec(ADAPT, names)
    known = [names["hole"](image) for image in (names["restored"], images)]
    torch.testing.assert_close(*known, rtol=0, atol=1e-2)


@pytest.mark.parametrize("name", ["load_generator", "latent_dim", "draw(count, rng)", "features(latents)"])
def test_the_page_explains(name):
    assert f"`{name}" in PAGE
