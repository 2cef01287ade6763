"""Paths through latents."""

import math

import torch

from gan_lightning.networks.interpolation import closed_path, slerp


def test_slerp_turns_at_a_constant_rate_between_its_ends():
    rng = torch.Generator().manual_seed(0)
    start, end = torch.randn(5, 20, generator=rng), 2 * torch.randn(5, 20, generator=rng)
    path = slerp(start, end, torch.linspace(0, 1, 5))
    torch.testing.assert_close(path[:, 0], start)
    torch.testing.assert_close(path[:, -1], end)
    lengths = path.norm(dim=-1)
    torch.testing.assert_close(lengths.diff(dim=1), (lengths[:, -1:] - lengths[:, :1]).expand(-1, 4) / 4)
    unit = path / lengths[..., None]
    angles = torch.acos((unit[:, 1:] * unit[:, :-1]).sum(-1))
    torch.testing.assert_close(angles, angles.mean(1, keepdim=True).expand(-1, 4))
    whole = torch.acos((unit[:, 0] * unit[:, -1]).sum(-1))
    torch.testing.assert_close(angles.sum(1), whole)


def test_slerp_of_a_right_angle_is_a_quarter_of_a_circle():
    path = slerp(torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 1.0]]), torch.tensor([0.5]))
    torch.testing.assert_close(path, torch.full((1, 1, 2), math.sqrt(0.5)))


def test_slerp_of_equal_latents_stays():
    latents = torch.randn(3, 4)
    torch.testing.assert_close(slerp(latents, latents, torch.tensor([0.3])), latents[:, None])


def test_a_closed_path_passes_its_stations_and_returns():
    stations = torch.randn(2, 3, 6)
    path = closed_path(stations, 4)
    assert path.shape == (2, 12, 6)
    torch.testing.assert_close(path[:, ::4], stations)
    steps = (path.roll(-1, 1) - path).norm(dim=-1)
    assert (steps[:, -1] <= steps.max(dim=1).values).all()  # no jump at the end
