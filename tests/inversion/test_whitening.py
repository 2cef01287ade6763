"""Preconditioning of the latents against closed forms, and the cache of frozen generators."""

import copy
import gc
import weakref
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from gan_lightning.inversion import frozen_generator
from gan_lightning.inversion.frozen_generator import FrozenGenerator, freeze_generator, share_frozen
from gan_lightning.inversion.losses import mse
from gan_lightning.inversion.problem import Problem, Stopping
from gan_lightning.inversion.solvers.lbfgs import lbfgs
from gan_lightning.inversion.solvers.levenberg_marquardt import jacobian
from gan_lightning.inversion.whitening import PROBES, Whitening, estimate_gauss_newton_matrix, multiply_rows
from gan_lightning.networks.dcgan import Generator

DIM = 12


class LinearGenerator(nn.Module):
    """Images W z, whose sensitivity to latent directions differs by a factor of a thousand."""

    def __init__(self) -> None:
        super().__init__()
        self.latent_dim = DIM
        rng = torch.Generator().manual_seed(0)
        left, _ = torch.linalg.qr(torch.randn(48, DIM, generator=rng))
        right, _ = torch.linalg.qr(torch.randn(DIM, DIM, generator=rng))
        self.weight = nn.Parameter(left * torch.logspace(0, -3, DIM) @ right)

    def forward(self, latents: Tensor) -> Tensor:
        return (latents @ self.weight.T).view(-1, 3, 4, 4)


def problem_of(generator: nn.Module, observed: Tensor, latent_dim: int, weight: float = 0.0) -> Problem:
    ones = torch.ones(len(observed))
    center = torch.zeros(len(observed), latent_dim)
    return Problem(generator, nn.Identity(), observed, mse, ones, center, weight * ones[:, None])


def test_gauss_newton_estimate_matches_jacobians(generator: Generator) -> None:
    frozen = FrozenGenerator(generator)
    latents = torch.randn(512, 8, generator=torch.Generator().manual_seed(5))
    problem = problem_of(frozen, frozen(latents), 8)
    _, columns = jacobian(problem, latents)
    expected = (columns @ columns.mT).mean(0) / columns.shape[2]
    measured = estimate_gauss_newton_matrix(frozen, 8, latents)
    # Both average a few hundred latents; a diagonal entry of a Wishart matrix has a relative error of sqrt(2 / N).
    torch.testing.assert_close(measured.diagonal(), expected.diagonal(), rtol=4 * (2 / PROBES) ** 0.5, atol=0)
    assert (measured - expected).norm() < 0.2 * expected.norm()


def test_preconditioned_directions_are_equally_sensitive() -> None:
    generator = LinearGenerator()
    metric = (generator.weight.T @ generator.weight).detach()
    whitening = Whitening(metric)
    whole = whitening.basis * whitening.scale
    values = torch.linalg.eigvalsh(whole.T @ metric @ whole)
    strong = torch.linalg.eigvalsh(metric) > metric.diagonal().mean()
    assert (values[strong] / values.max() > 0.9).all()
    assert torch.linalg.cond(metric) > 1e5
    # The floor limits the scale of the weakest directions.
    assert whitening.scale.max() < (1 / 0.03) ** 0.5 * 1.02
    # Under the prior, variables and latents have the same mean square.
    latents = torch.randn(100_000, DIM, generator=torch.Generator().manual_seed(0))
    assert whitening.variables(latents).square().mean().item() == pytest.approx(1, rel=0.02)


def test_latents_and_variables_are_inverses() -> None:
    metric = torch.randn(DIM, DIM, generator=torch.Generator().manual_seed(1))
    whitening = Whitening(metric @ metric.T)
    latents = torch.randn(5, DIM, generator=torch.Generator().manual_seed(2))
    torch.testing.assert_close(whitening.latents(whitening.variables(latents)), latents, atol=1e-5, rtol=0)


def test_a_constant_generator_keeps_its_latents() -> None:
    whitening = Whitening(torch.zeros(4, 4))
    torch.testing.assert_close(whitening.scale, torch.ones(4))
    assert whitening.latents(torch.ones(2, 4)).isfinite().all()


def test_preconditioning_preserves_the_problem(generator: Generator, other_images: Tensor) -> None:
    """The minimum of a penalized problem is the same in latents and in variables."""
    frozen = FrozenGenerator(generator)
    problem = problem_of(frozen, other_images, 8, weight=0.1)
    start = torch.randn(6, 8, generator=torch.Generator().manual_seed(3))
    stopping = Stopping(0, 0.0, torch.zeros(6))
    here = frozen.whitening.solve(lbfgs, problem, start, stopping)
    torch.testing.assert_close(here.variables, start, atol=1e-5, rtol=0)
    with torch.no_grad():
        torch.testing.assert_close(here.loss, problem.losses(start)[0], atol=1e-6, rtol=1e-4)
    found = frozen.whitening.solve(lbfgs, problem, start, Stopping(200, 0.0, torch.zeros(6)))
    with torch.no_grad():
        torch.testing.assert_close(problem.losses(found.variables)[0], found.loss, atol=1e-6, rtol=1e-4)
    assert problem.gradient(found.variables)[2].abs().max() < 1e-3


def test_preconditioned_solvers_take_fewer_steps() -> None:
    generator = LinearGenerator()
    truth = torch.randn(4, DIM, generator=torch.Generator().manual_seed(4))
    with torch.no_grad():
        problem = problem_of(generator, generator(truth), DIM)
    zeros, stopping = torch.zeros(4, DIM), Stopping(8, 0.0, torch.zeros(4))
    plain = lbfgs(problem, zeros, stopping)
    white = FrozenGenerator(generator).whitening.solve(lbfgs, problem, zeros, stopping)
    assert (white.loss < 0.1 * plain.loss).all()


@pytest.mark.parametrize(("inner", "outer"), [(8, 8), (6, 512), (100, 100), (100, 4096)])
def test_rows_are_bit_identical_in_any_batch(inner: int, outer: int) -> None:
    weight = torch.randn(outer, inner)
    rows = torch.randn(48, inner)

    def forward_and_backward(count: int) -> tuple[Tensor, Tensor]:
        leaf = rows[:count].clone().requires_grad_()
        product = multiply_rows(leaf, weight)
        (gradient,) = torch.autograd.grad(product.square().sum(), leaf)
        return product.detach(), gradient

    products, gradients = forward_and_backward(48)
    for count in (1, 2, 3, 5, 8, 13, 16, 31):
        product, gradient = forward_and_backward(count)
        assert product.equal(products[:count])
        assert gradient.equal(gradients[:count])


def fused_step(generator: Generator) -> None:
    """Take a step of fused Adam, which does not increment tensor versions."""
    optimizer = torch.optim.Adam(generator.parameters(), fused=True)
    generator.eval()(torch.randn(2, 6)).square().mean().backward()
    optimizer.step()


def changed_data(generator: Generator) -> None:
    generator.main[0].weight.data.mul_(1.5)


def loaded_state(generator: Generator) -> None:
    generator.load_state_dict(Generator(16, latent_dim=6, base_channels=4).state_dict())


def replaced_layer(generator: Generator) -> None:
    generator.main[-1] = nn.Sigmoid()


def changed_statistics(generator: Generator) -> None:
    generator.main[1].running_mean += 0.1


def changed_precision(generator: Generator) -> None:
    generator.double().float()
    generator.main[0].weight.data.add_(1e-3)


@pytest.mark.parametrize(
    "change", [fused_step, changed_data, loaded_state, replaced_layer, changed_statistics, changed_precision]
)
def test_a_frozen_generator_is_cached_until_its_generator_changes(change: Callable[[Generator], None]) -> None:
    generator = Generator(16, latent_dim=6, base_channels=4)
    first = freeze_generator(generator)
    assert freeze_generator(generator) is first
    assert first.whitening is freeze_generator(generator).whitening
    change(generator)
    now = freeze_generator(generator)
    assert now is not first
    latents = torch.randn(2, 6)
    with torch.no_grad():
        torch.testing.assert_close(now(latents), generator.eval()(latents), atol=1e-5, rtol=0)


def test_a_copy_of_a_generator_shares_what_was_made_of_it_until_it_changes() -> None:
    generator = Generator(16, latent_dim=6, base_channels=4)
    copied, other = copy.deepcopy(generator), Generator(16, latent_dim=6, base_channels=4)
    frozen = freeze_generator(generator)
    for own in (copied, other):
        share_frozen(own, generator)
    assert freeze_generator(copied) is frozen
    assert freeze_generator(other) is not frozen
    changed_data(copied)
    assert freeze_generator(copied) is not frozen
    assert freeze_generator(generator) is frozen


def test_the_cache_does_not_keep_a_generator_alive() -> None:
    generator = Generator(16, latent_dim=6, base_channels=4)
    freeze_generator(generator)
    held = weakref.ref(generator)
    assert generator in frozen_generator._frozen
    del generator
    gc.collect()
    assert held() is None


def test_a_frozen_generator_is_built_once(monkeypatch: pytest.MonkeyPatch) -> None:
    generator, built = Generator(16, latent_dim=6, base_channels=4), []
    monkeypatch.setattr(frozen_generator, "FrozenGenerator", lambda g: built.append(g) or FrozenGenerator(g))
    first = freeze_generator(generator)
    for mode in (generator.train, generator.eval):
        mode()
        assert freeze_generator(generator) is first
    assert built == [generator]


class Scaled(LinearGenerator):
    """A generator with a plain attribute that its images depend on."""

    factor = 1.0

    def forward(self, latents: Tensor) -> Tensor:
        return self.factor * super().forward(latents)


def test_a_plain_attribute_of_a_generator_is_part_of_it() -> None:
    generator, latents = Scaled(), torch.randn(2, DIM)
    freeze_generator(generator)
    generator.factor = 2.0
    with torch.no_grad():
        torch.testing.assert_close(freeze_generator(generator)(latents), generator(latents))
