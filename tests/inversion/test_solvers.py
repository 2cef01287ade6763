"""Solvers against finite differences, SciPy, and images of known latents."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.optimize import least_squares  # type: ignore[import-untyped,unused-ignore]
from torch import Tensor

from gan_lightning.degradations import Downsample, GaussianBlur, Mask
from gan_lightning.inversion.convergence import ConvergenceTracker
from gan_lightning.inversion.frozen_generator import FrozenGenerator
from gan_lightning.inversion.losses import mse
from gan_lightning.inversion.problem import Problem, Solution, Stopping
from gan_lightning.inversion.solvers.adam import adam
from gan_lightning.inversion.solvers.inverse_hessian import InverseHessian
from gan_lightning.inversion.solvers.lbfgs import lbfgs
from gan_lightning.inversion.solvers.levenberg_marquardt import jacobian, levenberg_marquardt, normal_equations
from gan_lightning.networks.dcgan import Generator


def problem_of(
    generator: Generator, observed: Tensor, degradation: torch.nn.Module, weight: float = 0.0, known: float = 1.0
) -> Problem:
    ones = torch.ones(len(observed), dtype=observed.dtype)
    frozen = FrozenGenerator(generator).to(observed.dtype)
    center = torch.zeros(len(observed), 8, dtype=observed.dtype)
    return Problem(frozen, degradation, observed, mse, known * ones, center, weight * ones[:, None])


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
    problem = problem_of(generator, mask(other_images), mask, weight=0.1, known=float(mask.mask.mean()))
    problem = replace(problem, center=torch.randn(6, 8, generator=torch.Generator().manual_seed(5)))
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


@pytest.mark.parametrize(("solver", "latents_found"), [(levenberg_marquardt, 1e-3), (adam, 1e-2), (lbfgs, 1e-2)])
def test_solvers_fall_into_the_minimum(
    solver: Callable[..., Solution], latents_found: float, generator: Generator, own_images: Tensor
) -> None:
    problem = problem_of(generator, own_images, torch.nn.Identity())
    truth = torch.randn(6, 8, generator=torch.Generator().manual_seed(1))
    start = truth + 0.2
    with torch.no_grad():
        assert (problem.losses(start)[0] > 1e-3).all()  # a hundred times what is asked for, and more
    found = solver(problem, start, stopping(own_images, 150))
    assert (found.loss < 1e-5).all()
    torch.testing.assert_close(found.variables, truth, rtol=0, atol=latents_found)
    with torch.no_grad():
        torch.testing.assert_close(problem.losses(found.variables)[0], found.loss, atol=1e-7, rtol=1e-3)
    assert found.history.shape == (len(found.history), 6)
    torch.testing.assert_close(found.history[0], problem.losses(start)[0].detach())
    torch.testing.assert_close(found.history.amin(0), found.loss)


@pytest.mark.parametrize("solver", [levenberg_marquardt, lbfgs])
def test_no_step_goes_uphill(solver: Callable[..., Solution], generator: Generator, other_images: Tensor) -> None:
    """From far outside of the prior the first step of L-BFGS and undamped Gauss-Newton steps overshoot."""
    problem = problem_of(generator, other_images, torch.nn.Identity(), weight=0.01)
    start = 4 * torch.randn(6, 8, generator=torch.Generator().manual_seed(7))
    found = solver(problem, start, stopping(other_images, 40))
    assert (found.history.diff(dim=0) <= 0).all()
    assert (found.history[-1] < 0.5 * found.history[0]).all()


def test_lbfgs_halves_a_step_that_overshoots() -> None:
    """On v^4 from 0.3 a step of length one ends at -0.7, which is higher; half of it, at -0.2, is accepted."""
    ones, zeros = torch.ones(1, dtype=torch.float64), torch.zeros(1, 1, dtype=torch.float64)
    quartic = Problem(
        lambda v: 2 * v.square()[:, :, None, None],
        torch.nn.Identity(),
        zeros[:, :, None, None],
        mse,
        ones,
        zeros,
        zeros,
    )
    found = lbfgs(quartic, torch.full_like(zeros, 0.3), Stopping(1, 0.0, zeros[0]))
    torch.testing.assert_close(found.variables, torch.full_like(zeros, -0.2))
    assert found.history[:, 0].tolist() == pytest.approx([0.3**4, 0.2**4])


def test_lbfgs_wants_more_than_any_fall() -> None:
    """Armijo's condition: a step that turns round, to the same height but for a millionth, is too long."""
    ones, zeros = torch.ones(1, dtype=torch.float64), torch.zeros(1, 1, dtype=torch.float64)
    bowl = Problem(
        lambda v: 2 * v[:, :, None, None], torch.nn.Identity(), zeros[:, :, None, None], mse, ones, zeros, zeros
    )
    found = lbfgs(bowl, torch.full_like(zeros, 0.5 + 1e-6), Stopping(1, 0.0, zeros[0]))
    torch.testing.assert_close(found.variables, torch.full_like(zeros, 1e-6))


def test_adam_is_torchs_on_a_cosine(generator: Generator, other_images: Tensor) -> None:
    problem = problem_of(generator, other_images, torch.nn.Identity(), weight=0.1)
    start = torch.randn(6, 8, generator=torch.Generator().manual_seed(1))
    found = adam(problem, start, stopping(other_images, 20))
    variables = start.clone().requires_grad_()
    optimizer = torch.optim.Adam([variables], lr=0.3, betas=(0.9, 0.99), eps=1e-12)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 20)
    courses = []
    for _ in range(21):
        losses = problem.losses(variables)[0]
        courses.append(losses.detach())
        optimizer.zero_grad()
        losses.sum().backward()
        optimizer.step()
        schedule.step()
    torch.testing.assert_close(found.history, torch.stack(courses), rtol=1e-3, atol=1e-6)


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

    # The second image keeps its own memory of steps when the first one leaves.
    floors = torch.tensor([0.5 * found.history[0, 0], 1e-16], dtype=torch.float64)
    both = lbfgs(bowl, zeros, Stopping(40, 0.0, floors))
    alone = lbfgs(bowl.select(torch.tensor([1])), zeros[1:], Stopping(40, 0.0, floors[1:]))
    assert 1 < both.num_steps[0] < both.num_steps[1]
    torch.testing.assert_close(both.history[:, 1], alone.history[:, 0], rtol=1e-6, atol=0)


def flat_problem(count: int) -> Problem:
    """An objective of 1/4 everywhere, with a gradient that promises a way down."""
    ones, zeros = torch.ones(count), torch.zeros(count, 1)
    observed = zeros[:, :, None, None]
    return Problem(
        lambda v: (v - v.detach() + 1)[:, :, None, None], torch.nn.Identity(), observed, mse, ones, zeros, zeros
    )


@pytest.mark.parametrize("solver", [lbfgs, levenberg_marquardt])
def test_a_search_that_finds_no_way_down_ends(solver: Callable[..., Solution]) -> None:
    found = solver(flat_problem(2), torch.ones(2, 1), Stopping(50, 0.0, torch.zeros(2)))
    assert found.num_steps.tolist() == [1, 1]
    assert found.converged.all()
    assert (found.variables == 1).all()


@pytest.mark.parametrize(("num_steps", "window"), [(40, 20), (200, 50)])
def test_adam_waits_a_quarter_of_its_steps_for_something_better(num_steps: int, window: int) -> None:
    found = adam(flat_problem(1), torch.ones(1, 1), Stopping(num_steps, 1e-3, torch.zeros(1)))
    assert found.num_steps.tolist() == [window]


@pytest.mark.parametrize("solver", [levenberg_marquardt, adam, lbfgs])
def test_images_that_are_done_leave_and_the_others_go_on_as_before(
    solver: Callable[..., Solution], generator: Generator, other_images: Tensor
) -> None:
    problem = problem_of(generator, other_images.double(), torch.nn.Identity())
    start = torch.randn(6, 8, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    alone = [
        solver(problem.select(torch.tensor([row])), start[row : row + 1], stopping(start[:1], 6)) for row in range(6)
    ]
    floors = torch.tensor([1.0, 0.0, 1.0, 0.0, 0.0, 1.0], dtype=torch.float64) * alone[0].history.max()
    told: list[tuple[str, int, torch.Size]] = []

    def note(stage: str, step: int, losses: Tensor, render: Callable[[], Tensor]) -> None:
        told.append((stage, step, render().shape))

    found = solver(problem, start, Stopping(6, 0.0, 10 * floors, "a stage", note))
    assert told == [("a stage", step, torch.Size([6, 3, 16, 16])) for step in range(7)]
    assert len(found.history) == 7
    for row in range(6):
        if floors[row]:
            assert found.num_steps[row] == 0
            assert found.converged[row]
            assert torch.equal(found.variables[row], start[row])
        else:
            assert found.num_steps[row] == 6
            assert not found.converged[row]
            torch.testing.assert_close(found.history[:, row], alone[row].history[:, 0], rtol=1e-6, atol=0)
            torch.testing.assert_close(found.variables[row], alone[row].variables[0], rtol=1e-4, atol=1e-6)


def sum_problem(render: Callable[[Tensor], Tensor], size: int) -> Problem:
    """Minimise the sum of what is rendered."""
    ones, zeros = torch.ones(1, dtype=torch.float64), torch.zeros(1, size, dtype=torch.float64)
    return Problem(
        lambda v: render(v)[:, :, None, None],
        torch.nn.Identity(),
        zeros[:, :, None, None],
        lambda predicted, observed: predicted.flatten(1).sum(1),
        ones,
        zeros,
        zeros[:, :1],
    )


def test_lbfgs_learns_nothing_where_the_curvature_is_negative() -> None:
    """On a cosine, from near its top: a step of length one, and then one along the gradient as it is."""
    found = lbfgs(
        sum_problem(torch.cos, 1), torch.full((1, 1), 0.1, dtype=torch.float64), Stopping(2, 0.0, -torch.ones(1))
    )
    expected = 1.1 + torch.tensor(1.1, dtype=torch.float64).sin()
    torch.testing.assert_close(found.variables[0, 0], expected)


def test_the_second_step_of_lbfgs_is_that_of_bfgs() -> None:
    """Nocedal and Wright 2006, equation 7.16, with one pair and the scale of equation 7.20."""
    scales = torch.tensor([1.0, 3.0, 0.2], dtype=torch.float64)
    bowl = sum_problem(lambda v: scales * v.square() / 2, 3)
    start = torch.tensor([[4.0, 1.0, -3.0]], dtype=torch.float64)
    first, second = (lbfgs(bowl, start, Stopping(n, 0.0, -torch.ones(1))).variables[0] for n in (1, 2))
    torch.testing.assert_close(first, start[0] - (scales * start[0]) / (scales * start[0]).norm())
    move, change = first - start[0], scales * (first - start[0])
    identity = torch.eye(3, dtype=torch.float64)
    projection = identity - torch.outer(change, move) / (move @ change)
    inverse = projection.T @ (identity * (move @ change) / (change @ change)) @ projection
    inverse = inverse + torch.outer(move, move) / (move @ change)
    torch.testing.assert_close(second, first - inverse @ (scales * first))


def quartic_problem(count: int) -> Problem:
    ones, zeros = torch.ones(count, dtype=torch.float64), torch.zeros(count, 1, dtype=torch.float64)
    observed = zeros[:, :, None, None]
    return Problem(
        lambda v: 2 * v.square()[:, :, None, None], torch.nn.Identity(), observed, mse, ones, zeros, zeros[:, :1]
    )


def test_no_image_waits_for_the_line_search_of_another() -> None:
    """From 0.3 and 0.4 the first step overshoots, from 2 it does not; each image ends as it would alone."""
    start = torch.tensor([[0.3], [2.0], [0.4]], dtype=torch.float64)
    floor = torch.full((3,), -1.0, dtype=torch.float64)
    problem, trials = quartic_problem(3), [0]

    def render(variables: Tensor) -> Tensor:
        trials[-1] += 1
        return 2 * variables.square()[:, :, None, None]

    problem = replace(problem, render=render)
    found = lbfgs(problem, start, Stopping(6, 0.0, floor))
    for row in range(3):
        trials.append(0)
        one = torch.tensor([row])
        alone = lbfgs(problem.select(one), start[one], Stopping(6, 0.0, floor[one]))
        assert torch.equal(found.history[:, row], alone.history[:, 0])
        assert torch.equal(found.variables[row], alone.variables[0])
        assert found.num_steps[row] == alone.num_steps[0] == 6
    assert trials[0] == max(trials[1:]) > min(trials[1:]) == 7


def two_loop_recursion(gradient: Tensor, pairs: list[tuple[Tensor, Tensor]], scale: float) -> Tensor:
    """Nocedal and Wright 2006, algorithm 7.4, for one image."""
    result, coefficients = gradient, []
    for step, change in reversed(pairs):
        coefficients.append((step @ result) / (step @ change))
        result = result - coefficients[-1] * change
    result = scale * result
    for (step, change), coefficient in zip(pairs, reversed(coefficients), strict=True):
        result = result + (coefficient - (change @ result) / (step @ change)) * step
    return result


@pytest.mark.parametrize("size", [5, 300])
def test_the_inverse_hessian_is_that_of_the_two_loop_recursion(size: int) -> None:
    """Images add pairs at different times, and more than there is room for; one image leaves."""
    rng = torch.Generator().manual_seed(0)
    memory, rows = 4, torch.tensor([0, 2])
    gradient = torch.randn(3, size, generator=rng, dtype=torch.float64)
    estimate = InverseHessian(gradient, memory)
    pairs: list[list[tuple[Tensor, Tensor]]] = [[], [], []]
    scales = (1 / gradient.norm(dim=1)).tolist()
    for number in range(15):
        if number == 9:
            estimate.select(rows)
            pairs, scales = [pairs[row] for row in rows], [scales[row] for row in rows]
        batch = len(pairs)
        step, gradient = torch.randn(2, batch, size, generator=rng, dtype=torch.float64)
        change = step + 0.3 * torch.randn(batch, size, generator=rng, dtype=torch.float64)
        taken = torch.rand(batch, generator=rng) < 0.7
        if number in (3, 11):
            change[0], taken[0] = -step[0], True  # no curvature to learn from
        given = torch.where(taken[:, None], change, torch.nan)
        direction = estimate.update(step, given, gradient, taken)
        for row in range(batch):
            if taken[row]:
                curvature = step[row] @ change[row]
                scales[row] = float(curvature / change[row].square().sum()) if curvature > 0 else 1.0
                pairs[row] = [*pairs[row], (step[row], change[row])][-memory:]
            usable = [pair for pair in pairs[row] if pair[0] @ pair[1] > 0]
            expected = -two_loop_recursion(gradient[row], usable, scales[row])
            torch.testing.assert_close(direction[row], expected, rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("solver", [levenberg_marquardt, adam, lbfgs])
def test_images_that_are_done_may_stay_and_change_nothing(
    solver: Callable[..., Solution], generator: Generator, other_images: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on a GPU, where they are ignored until enough of them are done."""
    problem = problem_of(generator, other_images, torch.nn.Identity())
    start = torch.randn(6, 8, generator=torch.Generator().manual_seed(7))
    first = problem.losses(start)[0].detach()
    floors = first * torch.tensor([0.9, 0.2, 0.0, 0.5, 0.05, 1.1])
    dropped = solver(problem, start, Stopping(25, 1e-3, floors))
    assert len(dropped.num_steps.unique()) > 2
    monkeypatch.setattr(ConvergenceTracker, "compact", lambda self: None)
    kept = solver(problem, start, Stopping(25, 1e-3, floors))
    for name in ("variables", "loss", "history", "converged", "num_steps"):
        torch.testing.assert_close(getattr(kept, name), getattr(dropped, name), rtol=1e-5, atol=1e-6)
        assert solver is not lbfgs or torch.equal(getattr(kept, name), getattr(dropped, name)), name


@pytest.mark.parametrize("size", [20, 96, 752])
@pytest.mark.parametrize("memory", [3, 20])
def test_the_direction_of_an_image_is_the_same_in_any_batch(size: int, memory: int) -> None:
    """Alone, too: products of a single matrix are not summed like those of several."""
    rng = torch.Generator().manual_seed(0)
    first, taken = torch.randn(4, size, generator=rng), torch.ones(4, dtype=torch.bool)
    inverses = {count: InverseHessian(first[-count:], memory) for count in (4, 3, 2, 1)}
    for _ in range(6):
        step, change, gradient = torch.randn(3, 4, size, generator=rng)
        change = 2 * step + 0.1 * change
        rows = {n: h.update(step[-n:], change[-n:], gradient[-n:], taken[-n:]) for n, h in inverses.items()}
        assert all(direction.equal(rows[4][-count:]) for count, direction in rows.items())
    inverses[4].select(torch.tensor([3]))  # the others are done
    again = torch.randn(3, 1, size, generator=rng)
    assert inverses[4].update(*again, taken[:1]).equal(inverses[1].update(*again, taken[:1]))
    assert inverses[4].scale.equal(inverses[1].scale)
