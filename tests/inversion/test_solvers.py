"""Solvers against finite differences, SciPy, and images of known latents."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from scipy.optimize import least_squares  # type: ignore[import-untyped,unused-ignore]
from torch import Tensor

from gan_lightning.degradations import Downsample, GaussianBlur, Mask
from gan_lightning.inversion.frozen_generator import FrozenGenerator
from gan_lightning.inversion.losses import mse
from gan_lightning.inversion.problem import Problem, Solution, Stopping
from gan_lightning.inversion.solvers.adam import adam
from gan_lightning.inversion.solvers.lbfgs import lbfgs
from gan_lightning.inversion.solvers.levenberg_marquardt import jacobian, levenberg_marquardt, normal_equations
from gan_lightning.networks.dcgan import Generator


def problem_of(generator: Generator, observed: Tensor, degradation: torch.nn.Module, weight: float = 0.0) -> Problem:
    ones = torch.ones(len(observed), dtype=observed.dtype)
    frozen = FrozenGenerator(generator).to(observed.dtype)
    center = torch.zeros(len(observed), 8, dtype=observed.dtype)
    return Problem(frozen, degradation, observed, mse, ones, center, weight * ones[:, None])


def stopping(observed: Tensor, num_steps: int, tolerance: float = 0.0) -> Stopping:
    return Stopping(num_steps, tolerance, torch.zeros(len(observed), dtype=observed.dtype))


def test_frozen_generator_makes_the_same_images(generator: Generator) -> None:
    latents = torch.randn(4, 8)
    with torch.no_grad():
        torch.testing.assert_close(FrozenGenerator(generator)(latents), generator(latents), atol=1e-5, rtol=0)


@pytest.mark.parametrize("degradation", [torch.nn.Identity(), GaussianBlur(1.0), Downsample(2, "bicubic")])
def test_jacobian_is_that_of_finite_differences(generator: Generator, degradation: torch.nn.Module) -> None:
    observed = degradation.double()(torch.zeros(3, 3, 16, 16, dtype=torch.float64))
    problem = problem_of(generator, observed, degradation)
    latents = torch.randn(3, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(4))
    predicted, columns = jacobian(problem, latents)
    torch.testing.assert_close(predicted, problem.predict(latents))
    step = 1e-6
    for index in range(8):
        move = step * torch.eye(8, dtype=torch.float64)[index]
        numeric = (problem.predict(latents + move) - problem.predict(latents - move)).flatten(1) / (2 * step)
        torch.testing.assert_close(columns[:, index], numeric, atol=1e-6, rtol=1e-4)


def test_normal_equations_are_the_gradient(generator: Generator, other_images: Tensor) -> None:
    mask = Mask(torch.rand(6, 1, 16, 16, generator=torch.Generator().manual_seed(3)) > 0.5)
    problem = problem_of(generator, mask(other_images), mask, weight=0.1)
    latents = torch.randn(6, 8)
    _, half = normal_equations(problem, latents)
    torch.testing.assert_close(2 * half, problem.gradient(latents)[2], atol=1e-5, rtol=1e-3)


def test_levenberg_marquardt_finds_scipys_minimum(generator: Generator, other_images: Tensor) -> None:
    observed = other_images[:2].double()
    problem = problem_of(generator, observed, GaussianBlur(0.8).double(), weight=0.01)
    found = levenberg_marquardt(problem, torch.zeros(2, 8, dtype=torch.float64), stopping(observed, 30, 1e-9))
    for index in range(2):
        one = problem.select(torch.tensor([index]))

        def residuals(latent: np.ndarray, one: Problem = one) -> np.ndarray:
            with torch.no_grad():
                tensor = torch.from_numpy(latent)[None]
                data = ((one.predict(tensor) - one.observed) / 2).flatten().numpy()
            return np.concatenate([data / data.size**0.5, (0.01 / 8) ** 0.5 * latent])

        # From where ours ended: SciPy finds nothing better near it, and the same objective.
        reference = least_squares(residuals, found.variables[index].numpy(), method="lm", xtol=1e-12, ftol=1e-12)
        assert found.loss[index].item() == pytest.approx(2 * reference.cost, rel=1e-5)
        np.testing.assert_allclose(found.variables[index].numpy(), reference.x, atol=2e-2)


def test_a_rejected_damping_costs_no_jacobian(
    generator: Generator, other_images: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    from gan_lightning.inversion.solvers import levenberg_marquardt as module

    calls = []
    original = module.jacobian

    def counted(problem: Problem, variables: Tensor) -> tuple[Tensor, Tensor]:
        calls.append(len(variables))
        return original(problem, variables)

    monkeypatch.setattr(module, "jacobian", counted)
    problem = problem_of(generator, other_images, torch.nn.Identity())
    found = levenberg_marquardt(problem, torch.zeros(6, 8), stopping(other_images, 5), damping=1e-8)
    assert sum(calls) == found.num_steps.sum()
    assert (found.history.diff(dim=0) <= 0).all()


@pytest.mark.parametrize("solver", [levenberg_marquardt, adam, lbfgs])
def test_solvers_fall_into_the_minimum(
    solver: Callable[..., Solution], generator: Generator, own_images: Tensor
) -> None:
    problem = problem_of(generator, own_images, torch.nn.Identity())
    with torch.no_grad():
        start = torch.randn(6, 8, generator=torch.Generator().manual_seed(1)) + 0.2  # near the truth
    found = solver(problem, start, stopping(own_images, 150))
    assert (found.loss < 1e-5).all()
    torch.testing.assert_close(problem.losses(found.variables)[0], found.loss, atol=1e-7, rtol=1e-3)
    assert found.history.shape == (len(found.history), 6)
    torch.testing.assert_close(found.history.amin(0), found.loss)


def test_lbfgs_on_a_quadratic_bowl() -> None:
    """Ill-conditioned quadratic with a known minimum; images of different scales are independent."""
    scales = torch.logspace(0, 2, 12, dtype=torch.float64)
    target = torch.randn(2, 12, 1, 1, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    ones = torch.ones(2, dtype=torch.float64)
    zeros = torch.zeros(2, 12, dtype=torch.float64)
    bowl = Problem(
        lambda v: (v * scales)[:, :, None, None], torch.nn.Identity(), target, mse, ones, zeros, zeros[:, :1]
    )
    found = lbfgs(bowl, zeros, Stopping(120, 0.0, torch.full_like(ones, 1e-16)))
    torch.testing.assert_close(found.variables, target[:, :, 0, 0] / scales, atol=1e-6, rtol=1e-5)
