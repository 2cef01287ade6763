"""Data consistency, Poisson blending, noise level and blind blur estimation."""

import pytest
import torch
from scipy.sparse.linalg import LinearOperator, cg  # type: ignore[import-untyped,unused-ignore]
from torch import Tensor

from gan_lightning.degradations import Compose, Downsample, GaussianBlur, GaussianNoise, Grayscale, Mask, SquareMask
from gan_lightning.degradations.base import Degradation
from gan_lightning.errors import InputError
from gan_lightning.inversion import blend_poisson, data_consistency, estimate_blur, estimate_noise_level
from gan_lightning.inversion.blind import BlurMethod
from gan_lightning.inversion.blur_likelihood import maximum_likelihood_sigma
from gan_lightning.inversion.data_consistency import MODEL_ERROR
from gan_lightning.networks.dcgan import Generator


@pytest.mark.parametrize(
    "degradation", [SquareMask(16, 6), Grayscale(), Downsample(4), Compose([GaussianBlur(1.0), Downsample(2)])]
)
def test_data_consistency_reduces_the_error(degradation: Degradation) -> None:
    rng = torch.Generator().manual_seed(0)
    truth = 0.5 * torch.rand(2, 3, 16, 16, generator=rng)
    wrong = truth + 0.2 * torch.randn(truth.shape, generator=rng)
    better = data_consistency(wrong, degradation, degradation(truth), torch.zeros(2))
    assert (better - truth).norm() < (wrong - truth).norm()
    assert (degradation(better) - degradation(truth)).abs().max() < 0.05


def test_agreement_is_scipys_solution() -> None:
    rng = torch.Generator().manual_seed(0)
    blur, observed = GaussianBlur(1.5), 0.3 * torch.randn(1, 1, 12, 12, generator=rng)
    image, noise = 0.3 * torch.randn(1, 1, 12, 12, generator=rng), torch.tensor([0.05])
    ratio = (0.05 / MODEL_ERROR) ** 2

    def apply(flat: object) -> object:
        x = torch.as_tensor(flat).reshape(1, 1, 12, 12).float()
        return (blur.adjoint(blur(x)) + ratio * x).flatten().numpy()

    right = blur.adjoint(observed) + ratio * image
    expected, _ = cg(LinearOperator((144, 144), apply), right.flatten().numpy(), rtol=1e-8)
    ours = data_consistency(image, blur, observed, noise)
    torch.testing.assert_close(ours.flatten(), torch.as_tensor(expected).float(), atol=1e-4, rtol=0)


def test_poisson_blending_removes_an_offset() -> None:
    """A restored image with a constant offset is blended without error."""
    ramp = torch.linspace(-0.5, 0.5, 16).expand(1, 3, 16, 16)
    photograph = ramp + 0.1 * torch.rand(1, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    mask = SquareMask(16, 6, top=0).mask  # at the border, where nothing is known on one side
    blended = blend_poisson(photograph + 0.2, photograph * mask, mask)
    torch.testing.assert_close(blended, photograph, atol=1e-4, rtol=0)


@pytest.mark.parametrize("sigma", [0.05, 0.1, 0.2])
def test_noise_level_of_smooth_images(sigma: float) -> None:
    smooth = torch.linspace(-0.5, 0.5, 64).expand(3, 3, 64, 64)
    noisy = GaussianNoise(sigma)(smooth)
    torch.testing.assert_close(estimate_noise_level(noisy), torch.full((3,), sigma), rtol=0.06, atol=0)
    mask = Mask(torch.rand(64, 64, generator=torch.Generator().manual_seed(0)) > 0.3)
    known = mask.known(noisy)
    torch.testing.assert_close(estimate_noise_level(mask(noisy), known), torch.full((3,), sigma), rtol=0.1, atol=0)
    assert estimate_noise_level(smooth).max() < 0.01


def test_noise_level_is_zero_for_too_few_pixels() -> None:
    assert estimate_noise_level(torch.randn(2, 1, 4, 4)).tolist() == [0, 0]


@pytest.mark.parametrize("method", ["evidence", "joint"])
@pytest.mark.parametrize("sigma", [0.8, 1.4])
def test_blur_is_found(generator: Generator, own_images: Tensor, sigma: float, method: BlurMethod) -> None:
    found = estimate_blur(generator, GaussianBlur(sigma)(own_images), sigmas=(0.5, 1.0, 2.0), method=method)
    assert found.sigma.median().item() == pytest.approx(sigma, rel=0.1)
    assert found.residuals.shape == (3, 6)
    assert (found.residuals >= 0).all()
    lowest = found.sigmas[found.residuals.argmin(0)]
    assert ((lowest / sigma).log().abs() < 0.8).float().mean() > 0.6


@pytest.mark.parametrize("noise", [0.0, 0.02])
@pytest.mark.parametrize("sigma", [0.8, 1.5, 2.5])
def test_evidence_finds_the_blur_of_images_with_a_known_spectrum(sigma: float, noise: float) -> None:
    rng = torch.Generator().manual_seed(0)
    white = torch.randn(64, 3, 64, 64, generator=rng)
    textures = 0.3 * white + GaussianBlur(1.2)(white)
    observed = GaussianBlur(sigma)(0.7 * textures[:8]) + 2 * noise * torch.randn(8, 3, 64, 64, generator=rng)
    found = maximum_likelihood_sigma(observed, textures[8:], torch.full((8,), max(noise, 1e-3)), (0.4, 5.0))
    torch.testing.assert_close(found, torch.full((8,), sigma), rtol=0.1, atol=0)


def test_evidence_is_independent_for_each_image() -> None:
    rng = torch.Generator().manual_seed(0)
    textures, noise = torch.randn(20, 1, 32, 32, generator=rng), torch.full((4,), 1e-3)
    observed = torch.cat([GaussianBlur(1.0)(textures[:2]), GaussianBlur(2.0)(textures[2:4])])
    together = maximum_likelihood_sigma(observed, textures[4:], noise, (0.5, 4.0))
    apart = [maximum_likelihood_sigma(image[None], textures[4:], noise[:1], (0.5, 4.0)) for image in observed]
    torch.testing.assert_close(together, torch.cat(apart), rtol=1e-6, atol=0)


def test_unknown_blur_methods_raise(generator: Generator, own_images: Tensor) -> None:
    with pytest.raises(InputError, match="evidence, joint"):
        estimate_blur(generator, own_images, method="guess")  # type: ignore[arg-type]


def test_decreasing_sigmas_raise(generator: Generator, own_images: Tensor) -> None:
    with pytest.raises(InputError, match="rising"):
        estimate_blur(generator, own_images, sigmas=(1.0, 0.5))
