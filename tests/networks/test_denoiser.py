"""The denoising network, whatever its weights."""

import pytest
import torch

from gan_lightning.networks.denoiser import Denoiser


@pytest.fixture(scope="module")
def network() -> Denoiser:
    torch.manual_seed(0)
    return Denoiser(width=8).requires_grad_(False)


def test_what_is_twice_as_large_stays_twice_as_large(network: Denoiser) -> None:
    noisy, level = torch.randn(2, 3, 12, 16), torch.tensor([0.1, 0.3])
    assert not [name for name, _ in network.named_parameters() if "bias" in name]
    torch.testing.assert_close(network(2 * noisy, 2 * level), 2 * network(noisy, level))
    assert not torch.allclose(network(noisy, 2 * level), network(noisy, level))


@pytest.mark.parametrize("size", [(1, 1), (5, 7), (8, 12)])
def test_borders_of_any_size_are_continued(network: Denoiser, size: tuple[int, int]) -> None:
    noisy, level = torch.randn(2, 3, *size), torch.tensor([0.1, 0.2])
    denoised = network(noisy, level)
    assert denoised.shape == noisy.shape
    rows = torch.arange(8).clamp(max=size[0] - 1)
    columns = torch.arange(12).clamp(max=size[1] - 1)
    whole = network(noisy[:, :, rows][..., columns][..., : -(-size[0] // 4) * 4, : -(-size[1] // 4) * 4], level)
    torch.testing.assert_close(denoised, whole[..., : size[0], : size[1]])
