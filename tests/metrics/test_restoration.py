"""Metrics of restored images against scikit-image."""

import math

import numpy as np
import pytest
import torch
import torchmetrics.image.lpip
from scipy.stats import spearmanr
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from gan_lightning.errors import InputError
from gan_lightning.lpips import load_lpips
from gan_lightning.metrics.restoration import (
    SSIM_BORDER,
    RestorationMetrics,
    enlarge,
    image_errors,
    make_identity,
    rank_correlation,
    spread_ranks,
    summarize,
)

SIZE = 32


@pytest.fixture
def pair():
    rng = torch.Generator().manual_seed(0)
    target = torch.rand(3, 3, SIZE, SIZE, generator=rng) * 2 - 1
    return (target + 0.2 * torch.randn(target.shape, generator=rng)).clamp(-1, 1), target


def unit(image):
    return (image.numpy().astype(np.float64) + 1) / 2


def reference_ssim(image, target, full=False):
    return structural_similarity(
        unit(image),
        unit(target),
        channel_axis=0,
        data_range=1,
        gaussian_weights=True,
        sigma=1.5,
        use_sample_covariance=False,
        full=full,
    )


def test_metrics_agree_with_scikit_image(pair):
    images, target = pair
    figures = image_errors(images, target)
    for row in range(len(images)):
        assert float(figures["psnr"][row]) == pytest.approx(
            peak_signal_noise_ratio(unit(target[row]), unit(images[row]), data_range=1), abs=1e-4
        )
        assert float(figures["ssim"][row]) == pytest.approx(reference_ssim(images[row], target[row]), abs=1e-5)
        assert float(figures["l1"][row]) == pytest.approx(np.abs(unit(target[row]) - unit(images[row])).mean())


def test_metrics_of_the_hole_are_those_of_its_pixels(pair):
    images, target = pair
    hole = torch.zeros(1, 1, SIZE, SIZE, dtype=torch.bool)
    hole[..., 10:20, 12:18] = True
    figures = image_errors(images, target, hole)
    cut = (slice(None), slice(10, 20), slice(12, 18))
    error = unit(images[1])[cut] - unit(target[1])[cut]
    assert float(figures["mse_hole"][1]) == pytest.approx((error**2).mean(), rel=1e-5)
    assert float(figures["psnr_hole"][1]) == pytest.approx(-10 * math.log10((error**2).mean()), rel=1e-5)
    _, full = reference_ssim(images[1], target[1], full=True)
    assert SSIM_BORDER <= 10
    assert float(figures["ssim_hole"][1]) == pytest.approx(full[cut].mean(), abs=1e-5)


def test_values_beyond_the_range_count_as_a_file_would_hold_them(pair):
    images, target = pair
    assert image_errors(target.sign() * 3, target.sign())["mse"].eq(0).all()
    assert image_errors(images, target)["mse"].gt(0).all()


def test_degraded_images_are_measured_at_the_size_of_the_true_ones():
    target = torch.zeros(2, 3, SIZE, SIZE)
    assert enlarge(torch.full((2, 1, 8, 8), 0.5), target.shape).shape == target.shape
    figures = RestorationMetrics()(target, torch.full((2, 1, 8, 8), 0.5), target, known=None)
    assert torch.allclose(figures["l1_degraded"], torch.tensor(0.25))
    assert figures["psnr"].isinf().all()


def test_summary_has_mean_median_and_worst_by_the_direction_of_each_metric():
    rows = [{"psnr": p, "mse": m, "psnr_degraded": 1.0} for p, m in ((10.0, 3.0), (20.0, 1.0), (math.inf, 2.0))]
    summary = summarize([*rows, {"psnr_hole": math.nan}])
    assert (summary["psnr_median"], summary["psnr_worst"], summary["mse_worst"]) == (20.0, 10.0, 3.0)
    assert summary["psnr"] == pytest.approx((10 + 20 + 100) / 3)
    assert "psnr_hole" not in summary
    assert "psnr_degraded_worst" not in summary


@pytest.mark.parametrize("digits", [8, 1], ids=["distinct", "ties"])
def test_rank_correlation_agrees_with_scipy(digits):
    rng = torch.Generator().manual_seed(0)
    first = torch.rand(500, generator=rng)
    second = (first + torch.rand(500, generator=rng)).round(decimals=digits)
    first = first.round(decimals=digits)
    expected = spearmanr(first.numpy(), second.numpy()).statistic
    assert float(rank_correlation(first, second)) == pytest.approx(expected, abs=1e-9)
    assert float(rank_correlation(first, -first.exp())) == pytest.approx(-1)


def test_equal_values_have_no_order():
    """Ranks in the order of the pixels would correlate where both, say known pixels, are all equal."""
    first, second = torch.zeros(100), torch.zeros(100)
    assert rank_correlation(first, second).isnan()
    first[-1], second[0] = 1, 1
    assert abs(float(rank_correlation(first, second))) < 0.02
    assert rank_correlation(first[:1], second[:1]).isnan()


def test_spread_is_compared_with_the_error_of_each_image_over_all_pixels_and_over_the_hole(pair):
    images, target = pair
    images = images * 1.1  # clamped, as in a file
    noise = torch.rand(3, 1, SIZE, SIZE, generator=torch.Generator().manual_seed(1))
    spread = noise + (images - target).abs().mean(1, keepdim=True)
    hole = torch.zeros(1, 1, SIZE, SIZE, dtype=torch.bool)
    hole[..., 10:20, 12:18] = True
    ranks = RestorationMetrics()(images, images, target, (~hole).float(), spread)
    assert ranks.keys() - RestorationMetrics()(images, images, target, (~hole).float()).keys() == {
        "spread_rank",
        "spread_rank_hole",
    }
    for row in range(3):
        error = np.abs(unit(images[row].clamp(-1, 1)) - unit(target[row])).mean(0)
        of_image = spread[row, 0].numpy()
        expected = spearmanr(of_image.ravel(), error.ravel()).statistic
        assert float(ranks["spread_rank"][row]) == pytest.approx(expected, abs=1e-4)
        cut = (slice(10, 20), slice(12, 18))
        expected = spearmanr(of_image[cut].ravel(), error[cut].ravel()).statistic
        assert float(ranks["spread_rank_hole"][row]) == pytest.approx(expected, abs=1e-4)
    assert spread_ranks(spread, target, target)["spread_rank"].isnan().all()


def test_identity_is_the_cosine_of_embeddings(tmp_path):
    network = torch.jit.script(torch.nn.Flatten())
    torch.jit.save(network, tmp_path / "faces.pt")
    identity = make_identity(tmp_path / "faces.pt")
    images = torch.rand(2, 3, 8, 8)
    assert torch.allclose(identity(images, images), torch.ones(2))
    assert torch.allclose(identity(images, -images), -torch.ones(2))
    with pytest.raises(InputError, match="does not exist"):
        make_identity(tmp_path / "missing.pt")
    (tmp_path / "text.pt").write_text("no network")
    with pytest.raises(InputError, match="not a TorchScript"):
        make_identity(tmp_path / "text.pt")


def test_lpips_is_of_clamped_images_in_three_channels(monkeypatch):
    class Lpips(torch.nn.Module):
        def __init__(self, net_type):
            super().__init__()
            self.net = SquaredError()

    class SquaredError(torch.nn.Module):
        def forward(self, images, target):
            assert images.shape[1] == target.shape[1] == 3
            return (images - target).square().mean((1, 2, 3), keepdim=True)

    load_lpips.cache_clear()
    monkeypatch.setattr(torchmetrics.image.lpip, "LearnedPerceptualImagePatchSimilarity", Lpips)
    target = torch.zeros(2, 1, SIZE, SIZE)
    figures = RestorationMetrics(lpips=True)(torch.full_like(target, 1.5), target, target, known=None)
    load_lpips.cache_clear()
    assert figures["lpips"].tolist() == [1, 1]
    assert figures["lpips_degraded"].tolist() == [0, 0]
