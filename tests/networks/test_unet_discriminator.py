"""The U-Net discriminator: a logit for each pixel, at any size, with weights of bounded norm."""

import pytest
import torch

from gan_lightning.errors import InputError
from gan_lightning.networks.unet_discriminator import UNetDiscriminator


def test_each_pixel_is_judged_and_spectral_norms_are_one():
    torch.manual_seed(0)
    network = UNetDiscriminator(3, 4)
    for size in ((16, 16), (24, 40)):
        logits, levels = network.judge(torch.randn(2, 3, *size))
        assert logits.shape == (2, 1, *size)
        assert [level.shape[1:] for level in levels] == [(4 * 2**i, size[0] // 2**i, size[1] // 2**i) for i in range(4)]
    for _ in range(30):
        network(torch.randn(1, 3, 16, 16))
    for layer in (*network.down, *network.up, *network.same):
        assert float(torch.linalg.matrix_norm(layer.weight.detach().flatten(1), 2)) == pytest.approx(1, abs=0.05)
    with pytest.raises(InputError, match="must be at least 1"):
        UNetDiscriminator(3, 0)
