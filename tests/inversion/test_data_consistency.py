"""Data consistency, holes, noise level and blind blur estimation."""

import copy

import numpy as np
import pytest
import scipy.fft  # type: ignore[import-untyped,unused-ignore]
import torch
from torch import Tensor

from gan_lightning.degradations import Compose, Downsample, GaussianBlur, GaussianNoise, Grayscale, Mask, SquareMask
from gan_lightning.degradations.base import Degradation
from gan_lightning.errors import InputError
from gan_lightning.inversion import data_consistency, estimate_blur, estimate_noise_level
from gan_lightning.inversion.blind import BlurMethod
from gan_lightning.inversion.blur_likelihood import maximum_likelihood_sigma
from gan_lightning.inversion.data_consistency import MODEL_ERROR, linear_estimate
from gan_lightning.inversion.noise_level import noise_after_blur, visible_noise
from gan_lightning.inversion.posterior_mean import conjugate_gradients
from gan_lightning.inversion.smoothness import CHROMA, EXPONENT, SmoothnessPrior, operator_gain
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


def precision_matrix(channels: int, size: int) -> np.ndarray:
    """Return the inverse covariance of errors, from SciPy's cosine transform and the shape of the spectrum."""
    std, flat_below = MODEL_ERROR
    frequencies = np.arange(size) / (2 * (size - 1))
    power = (frequencies[:, None] ** 2 + frequencies**2 + flat_below**2) ** -EXPONENT
    variance = (2 * std) ** 2 * power / power.mean()
    # The functions whose coefficients SciPy's DCT-I of a mirrored signal returns, of norm one.
    functions = scipy.fft.idct(np.eye(size), type=1, axis=0).T
    functions /= np.linalg.norm(functions, axis=1, keepdims=True)
    basis = np.kron(functions, functions).T
    smooth = np.linalg.inv(basis @ np.diag(variance.flatten()) @ basis.T)
    brightness = np.full((channels, channels), 1 / channels)
    chroma = np.eye(channels) - brightness
    matrix: np.ndarray = np.kron(brightness + chroma / CHROMA**2, smooth)
    return matrix


OPERATORS = [
    GaussianBlur(1.5),
    Grayscale(),
    Downsample(2),
    SquareMask(8, 3),
    Compose([GaussianBlur(1.0), Downsample(2)]),
]


@pytest.mark.parametrize("level", [0.02, 0.05, 0.2])
@pytest.mark.parametrize("operator", OPERATORS, ids=lambda operator: type(operator).__name__)
def test_data_consistency_solves_its_normal_equations(operator: Degradation, level: float) -> None:
    rng = torch.Generator().manual_seed(0)
    operator = copy.deepcopy(operator).double()
    image = 0.3 * torch.randn(1, 3, 8, 8, generator=rng, dtype=torch.float64)
    observed = operator(0.3 * torch.randn(1, 3, 8, 8, generator=rng, dtype=torch.float64))
    matrix = np.stack([operator(unit[None]).flatten().numpy() for unit in torch.eye(192).double().view(-1, 3, 8, 8)], 1)
    weight, precision = (2 * level) ** -2, precision_matrix(3, 8)
    right = weight * matrix.T @ (observed - operator(image)).flatten().numpy()
    expected = image.flatten().numpy() + np.linalg.solve(weight * matrix.T @ matrix + precision, right)
    ours = data_consistency(image, operator, observed, torch.tensor([level], dtype=torch.float64), iterations=300)
    np.testing.assert_allclose(ours.flatten(), expected.clip(-1, 1), atol=1e-6)


def test_a_smooth_error_is_continued_into_a_hole() -> None:
    """What is wrong around the hole is wrong in it: an offset and a ramp nearly vanish."""
    photograph = 0.3 * torch.rand(2, 3, 24, 24, generator=torch.Generator().manual_seed(0))
    hole = SquareMask(24, 6)
    error = torch.stack([torch.full((3, 24, 24), 0.3), torch.linspace(0, 0.4, 24).expand(3, 24, 24)])
    better = data_consistency(photograph + error, hole, hole(photograph), torch.zeros(2), iterations=200)
    inside = (slice(None), slice(None), slice(9, 15), slice(9, 15))
    assert ((better - photograph)[inside].abs().amax((1, 2, 3)) < 0.06).all()
    assert torch.equal(better * hole.mask, hole(photograph))


@pytest.mark.parametrize("operator", [GaussianBlur(1.5), Downsample(4), SquareMask(32, 8)], ids=["blur", "4x", "hole"])
def test_the_linear_estimate_is_closer_than_what_was_observed(operator: Degradation) -> None:
    rows = torch.linspace(-1, 1, 32)
    photograph = torch.stack([torch.sin(3 * rows)[:, None] * torch.cos(2 * rows), rows[:, None] * rows])[:, None]
    photograph = 0.5 * photograph.expand(-1, 3, -1, -1)
    observed = operator(photograph)
    shown = torch.nn.functional.interpolate(observed, (32, 32), mode="nearest")
    estimate = linear_estimate(operator, observed, torch.zeros(2))
    errors = [(image - photograph).square().flatten(1).mean(1) for image in (estimate, shown)]
    assert (errors[0] < 0.2 * errors[1]).all()


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


@pytest.mark.parametrize("top", [0, 3])
def test_holes_are_filled_by_the_conditional_mean(top: int) -> None:
    """Of a Gaussian with this inverse covariance, given the known pixels; what was left in the hole does not matter."""
    rng = torch.Generator().manual_seed(0)
    image, observed = 0.2 * torch.randn(2, 1, 3, 8, 8, generator=rng, dtype=torch.float64)
    hole = SquareMask(8, 3, top=top, left=2).double()
    missing = np.flatnonzero(hole.mask.expand(1, 3, 8, 8).flatten() == 0)
    known = np.setdiff1d(np.arange(192), missing)
    matrix, error = precision_matrix(3, 8), (observed - image).flatten().numpy()
    expected = observed.flatten().numpy().copy()
    filled = -np.linalg.solve(matrix[np.ix_(missing, missing)], matrix[np.ix_(missing, known)] @ error[known])
    expected[missing] = image.flatten().numpy()[missing] + filled
    found = data_consistency(image, hole, observed * hole.mask + 0.3 * (1 - hole.mask), torch.zeros(1).double())
    np.testing.assert_allclose(found.flatten(), expected.clip(-1, 1), atol=1e-6)


def test_a_photograph_with_noise_and_one_without_are_masked_alike_in_a_batch() -> None:
    rng = torch.Generator().manual_seed(0)
    images, observed = torch.rand(2, 2, 3, 16, 16, generator=rng) - 0.5
    hole, levels = SquareMask(16, 6), torch.tensor([0.0, 0.1])
    together = data_consistency(images, hole, hole(observed), levels)
    for row in range(2):
        alone = data_consistency(images[row : row + 1], hole, hole(observed[row : row + 1]), levels[row : row + 1])
        torch.testing.assert_close(together[row : row + 1], alone)
    assert torch.equal((together * hole.mask)[0], hole(observed)[0])
    assert not torch.allclose((together * hole.mask)[1], hole(observed)[1], atol=0.01)


def test_agreement_is_each_images_own_and_in_range() -> None:
    rng = torch.Generator().manual_seed(0)
    images = torch.rand(3, 1, 8, 8, generator=rng) * 4 - 2
    blur, noise = GaussianBlur(1.0), torch.tensor([0.01, 0.1, 0.3])
    together = data_consistency(images, blur, blur(images), noise)
    for row in range(3):
        alone = data_consistency(images[row : row + 1], blur, blur(images[row : row + 1]), noise[row : row + 1])
        torch.testing.assert_close(together[row : row + 1], alone)
    assert together.abs().max() == 1


def test_the_rounding_to_8_bits_is_the_least_noise() -> None:
    rng = torch.Generator().manual_seed(0)
    image, observed = 0.3 * torch.randn(2, 1, 1, 8, 8, generator=rng)
    blur = GaussianBlur(1.0)
    ours = [data_consistency(image, blur, observed, torch.tensor([n])) for n in (0.0, 12**-0.5 / 255, 0.01)]
    assert torch.equal(ours[0], ours[1])
    assert not torch.equal(ours[0], ours[2])


def test_iterations_are_those_of_conjugate_gradients() -> None:
    """Exact after as many as there are unknowns; and no image looks at another."""
    rng = torch.Generator().manual_seed(0)
    matrices = torch.randn(2, 16, 16, generator=rng, dtype=torch.float64) * torch.tensor([1.0, 30.0]).view(2, 1, 1)
    matrices = matrices @ matrices.mT + torch.eye(16, dtype=torch.float64)
    right = torch.randn(2, 1, 4, 4, generator=rng, dtype=torch.float64)
    diagonal = matrices.diagonal(dim1=1, dim2=2).view(2, 1, 4, 4)

    def solve(rows: slice, iterations: int) -> Tensor:
        return conjugate_gradients(
            lambda x: (matrices[rows] @ x.flatten(1)[..., None]).view_as(x),
            right[rows],
            iterations,
            lambda x: x / diagonal[rows],
        )

    whole, few = solve(slice(None), 40), solve(slice(None), 3)
    expected = torch.linalg.solve(matrices, right.flatten(1)[..., None]).view_as(right)
    torch.testing.assert_close(whole, expected, rtol=1e-6, atol=1e-9)
    for row in range(2):
        torch.testing.assert_close(solve(slice(row, row + 1), 3), few[row : row + 1], rtol=1e-9, atol=0)
        assert (few[row] - whole[row]).abs().max() > 1e-6


def test_visible_noise_is_none_where_texture_may_be_all_and_looks_at_known_pixels() -> None:
    rng = torch.Generator().manual_seed(0)
    levels = torch.tensor([0.01, 0.1])
    noisy = 2 * levels[:, None, None, None] * torch.randn(2, 3, 64, 64, generator=rng)
    silent, loud = visible_noise(noisy).tolist()
    assert silent == 0
    assert loud == pytest.approx(0.1, rel=0.1)
    left = torch.ones(1, 1, 64, 64)
    left[..., 32:] = 0
    half_noisy = torch.where(left > 0, torch.zeros(()), noisy[1:])
    assert visible_noise(half_noisy, 1 - left).item() == pytest.approx(0.1, rel=0.1)
    assert visible_noise(half_noisy, left).item() == 0


@pytest.mark.parametrize("sigma", [1.5, 3.0])
def test_noise_after_a_blur_is_told_from_what_the_blur_leaves(sigma: float) -> None:
    """From the rounding to 8 bits on, whatever is shown: an edge, a texture."""
    rng = torch.Generator().manual_seed(0)
    photographs = 0.3 * torch.randn(3, 3, 48, 48, generator=rng)
    photographs[1] = torch.linspace(-1, 1, 48) > 0
    levels = torch.tensor([0.002, 0.01, 0.1])
    noisy = GaussianBlur(sigma)(photographs) + 2 * levels.view(3, 1, 1, 1) * torch.randn(3, 3, 48, 48, generator=rng)
    found = noise_after_blur(noisy, GaussianBlur(sigma))
    assert found is not None
    torch.testing.assert_close(found, levels, rtol=0.1, atol=0)
    several = noise_after_blur(noisy, GaussianBlur([sigma] * 3))
    assert several is not None
    torch.testing.assert_close(several, found)
    assert noise_after_blur(noisy, GaussianBlur(0.5)) is None
    assert noise_after_blur(noisy, SquareMask(48, 8)) is None


def test_an_image_with_too_few_known_pixels_has_no_estimate_and_spoils_no_other() -> None:
    noisy = 0.2 * torch.randn(3, 1, 32, 32, generator=torch.Generator().manual_seed(0))
    known = torch.zeros(3, 1, 32, 32)
    known[0, :, :9, :9] = 1  # 8 x 8 diagonal details: just enough
    known[1, :, :9, :8] = 1
    known[2] = 1
    estimates = estimate_noise_level(noisy, known)
    assert (estimates > 0).tolist() == [True, False, True]
    assert estimates[2].item() == pytest.approx(0.1, rel=0.1)


def test_the_gain_of_an_operator_is_computed_once_for_all_searches(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is that of each basis image, one after the other; images with the same operator share it."""
    mask = Mask(torch.rand(2, 1, 8, 8, generator=torch.Generator().manual_seed(0)) > 0.3)
    rows = torch.tensor([0, 0, 0, 1, 1, 1])
    prior = SmoothnessPrior(8, 8, 1.0, 0.02, torch.zeros(()))
    images = torch.zeros(6, 3, 8, 8)
    degraded: list[int] = []
    forward = Mask.forward

    def counted(self: Mask, images: Tensor) -> Tensor:
        degraded.append(len(images))
        return forward(self, images)

    monkeypatch.setattr(Mask, "forward", counted)
    found = operator_gain(prior, mask.select(rows), images, searches=3)
    assert sum(degraded) == 2 * (8 + 8)
    alone = operator_gain(prior, mask.select(rows[4:5]), images[:1])
    assert torch.equal(found[4:5], alone)
    shared = operator_gain(prior, GaussianBlur(1.0), images)
    for row, column in ((0, 3), (5, 0)):
        basis = torch.outer(prior.rows[row], prior.columns[column])[None, None].expand(1, 3, -1, -1) / 3**0.5
        expected = mask.select(rows[4:5])(basis).square().sum()
        torch.testing.assert_close(alone[0, 0, row, column], expected)
        torch.testing.assert_close(shared[0, 0, row, column], GaussianBlur(1.0)(basis).square().sum())
