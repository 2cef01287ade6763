"""Objectives against closed forms and torch's own losses; penalties against gradients by hand."""

import math

import pytest
import torch
import torch.nn.functional as F

from gan_lightning.objectives import (
    OBJECTIVES,
    SMOOTHABLE,
    Penalties,
    gradient_norms_squared,
    one_centered_penalty,
    zero_centered_penalty,
)

torch.manual_seed(0)
REAL, FAKE = torch.randn(50, dtype=torch.float32) * 3, torch.randn(50, dtype=torch.float32) * 3
LARGE = torch.full((4,), 200.0)


def probabilities():
    return REAL.double().sigmoid(), FAKE.double().sigmoid()


def expected_losses(name):
    """The losses as the papers write them, on probabilities, in float64."""
    p_real, p_fake = probabilities()
    real, fake = REAL.double(), FAKE.double()
    cross_entropy = -(p_real.log().mean() + (1 - p_fake).log().mean())
    return {
        "saturating": (cross_entropy, (1 - p_fake).log().mean()),
        "non_saturating": (cross_entropy, -p_fake.log().mean()),
        "bce_mse": (cross_entropy, ((1 - p_fake) ** 2).mean()),
        "least_squares": ((((real - 1) ** 2).mean() + (fake**2).mean()) / 2, ((fake - 1) ** 2).mean() / 2),
        "hinge": ((1 - real).clamp(min=0).mean() + (1 + fake).clamp(min=0).mean(), -fake.mean()),
        "wasserstein": (fake.mean() - real.mean(), -fake.mean()),
        "relativistic": (-(real - fake).sigmoid().log().mean(), -(fake - real).sigmoid().log().mean()),
    }[name]


@pytest.mark.parametrize("name", OBJECTIVES)
def test_losses_equal_their_definition(name):
    expected_d, expected_g = expected_losses(name)
    torch.testing.assert_close(OBJECTIVES[name].discriminator(REAL, FAKE).double(), expected_d, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(OBJECTIVES[name].generator(FAKE, REAL).double(), expected_g, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", ["saturating", "non_saturating", "bce_mse"])
def test_smoothed_cross_entropy_equals_torchs(name):
    expected = F.binary_cross_entropy_with_logits(REAL, torch.full_like(REAL, 0.9))
    expected += F.binary_cross_entropy_with_logits(FAKE, torch.zeros_like(FAKE))
    torch.testing.assert_close(OBJECTIVES[name].discriminator(REAL, FAKE, 0.9), expected)


def test_smoothed_least_squares_draw_reals_to_the_lower_target():
    expected = ((REAL.double() - 0.7) ** 2).mean() / 2 + (FAKE.double() ** 2).mean() / 2
    torch.testing.assert_close(OBJECTIVES["least_squares"].discriminator(REAL, FAKE, 0.7).double(), expected)


@pytest.mark.parametrize("name", OBJECTIVES)
def test_a_lower_target_matters_to_those_that_can_be_smoothed_alone(name):
    plain, smoothed = (OBJECTIVES[name].discriminator(REAL, FAKE, target) for target in (1.0, 0.5))
    assert (plain != smoothed) == (name in SMOOTHABLE)


@pytest.mark.parametrize("name", OBJECTIVES)
def test_generators_look_at_reals_only_where_they_say_so(name):
    objective = OBJECTIVES[name]
    losses = [objective.generator(FAKE, real) for real in (REAL, REAL + 1)]
    assert (losses[0] != losses[1]) == objective.needs_real
    if not objective.needs_real:
        assert objective.generator(FAKE, None) == losses[0]


@pytest.mark.parametrize("name", OBJECTIVES)
def test_losses_stay_finite_and_float32(name):
    for logits in (LARGE, -LARGE, LARGE.bfloat16(), LARGE.half()):
        for loss in (OBJECTIVES[name].discriminator(logits, -logits), OBJECTIVES[name].generator(logits, -logits)):
            assert loss.isfinite()
            assert loss.dtype == torch.float32


@pytest.mark.parametrize("name", OBJECTIVES)
def test_a_step_along_the_gradient_pleases_each_player(name):
    """D's gradient raises logits of reals and lowers those of fakes; G's raises those of fakes."""
    real, fake = torch.tensor([0.1, -0.2]).requires_grad_(), torch.tensor([0.2, 0.3]).requires_grad_()
    grad_real, grad_fake = torch.autograd.grad(OBJECTIVES[name].discriminator(real, fake), (real, fake))
    (grad_g,) = torch.autograd.grad(OBJECTIVES[name].generator(fake, real), fake)
    assert (grad_real < 0).all()
    assert (grad_fake > 0).all()
    assert (grad_g < 0).all()


def test_score_is_a_probability_only_where_there_is_one():
    logits = torch.tensor([0.0, 0.0])
    assert OBJECTIVES["non_saturating"].score(logits) == 0.5
    assert OBJECTIVES["hinge"].score(logits + 3) == 3
    assert {name for name in OBJECTIVES if OBJECTIVES[name].probability} == {"saturating", "non_saturating", "bce_mse"}


def test_score_is_the_mean_over_a_batch_without_a_graph_in_float32():
    logits = torch.tensor([2.0, -1.0, 0.5, 4.0]).bfloat16().requires_grad_()
    expected = logits.detach().float()
    for name, mean in (("saturating", expected.sigmoid().mean()), ("wasserstein", expected.mean())):
        score = OBJECTIVES[name].score(logits)
        assert score == mean
        assert score.dtype == torch.float32
        assert not score.requires_grad


def quadratic(images):
    """D(x) = |x|^2 / 2, whose gradient is x."""
    return images.flatten(1).square().sum(1) / 2


def test_zero_centered_penalty_equals_the_gradient_by_hand():
    images = torch.randn(5, 3, 4, 4)
    torch.testing.assert_close(zero_centered_penalty(quadratic, images), images.flatten(1).square().sum(1).mean() / 2)


def test_zero_centered_penalty_of_a_linear_discriminator_has_the_right_double_gradient():
    """D(x) = w.x: the penalty is |w|^2 / 2, its gradient w."""
    weight = torch.randn(48, requires_grad=True)
    penalty = zero_centered_penalty(lambda images: images.flatten(1) @ weight, torch.randn(5, 3, 4, 4))
    penalty.backward()
    torch.testing.assert_close(weight.grad, weight.detach())


def test_one_centered_penalty_of_a_linear_discriminator_ignores_where():
    weight = torch.randn(48)
    penalty = one_centered_penalty(lambda x: x.flatten(1) @ weight, torch.randn(5, 3, 4, 4), torch.randn(5, 3, 4, 4))
    torch.testing.assert_close(penalty, (weight.norm() - 1) ** 2)


def test_one_centered_penalty_looks_between_reals_and_fakes():
    """With D = |x|^2 / 2 the norm at a point is its length: between 1 and 3 for points of those lengths on a ray."""
    direction = F.normalize(torch.randn(400, 48)).reshape(400, 3, 4, 4)
    rng = torch.Generator().manual_seed(0)
    penalty = one_centered_penalty(quadratic, direction, 3 * direction, rng)
    assert penalty.item() == pytest.approx(4 / 3, rel=0.15)  # E[(2u)^2] for uniform u


def test_penalties_are_float32_under_autocast():
    images = torch.randn(2, 3, 4, 4)
    plain = zero_centered_penalty(quadratic, images)
    with torch.autocast("cpu", torch.bfloat16):
        assert zero_centered_penalty(quadratic, images) == plain


def test_penalties_add_up():
    real, fake = torch.randn(5, 3, 4, 4), torch.randn(5, 3, 4, 4)
    total = Penalties(r1=2.0, r2=3.0)(quadratic, real, fake)
    torch.testing.assert_close(
        total, 2 * zero_centered_penalty(quadratic, real) + 3 * zero_centered_penalty(quadratic, fake)
    )
    assert not Penalties()
    assert math.isclose(Penalties()(quadratic, real, fake), 0)


@pytest.mark.parametrize("weights", [{"r1": 2.0}, {"r2": 3.0}, {"gradient_penalty": 7.0}])
def test_each_penalty_has_its_own_weight_and_place(weights):
    """Where D is of degree two, R1 looks at reals, R2 at fakes, and the third at points between."""
    real, fake = torch.randn(5, 3, 4, 4), 2 * torch.randn(5, 3, 4, 4)
    weight = torch.rand(5, 1, 1, 1, generator=torch.Generator().manual_seed(4))
    (name, factor), between = next(iter(weights.items())), (weight * real + (1 - weight) * fake)
    lengths = {"r1": real.flatten(1).norm(dim=1), "r2": fake.flatten(1).norm(dim=1)}
    expected = {name: length.square().mean() / 2 for name, length in lengths.items()}
    expected["gradient_penalty"] = (between.flatten(1).norm(dim=1) - 1).square().mean()
    penalties = Penalties(**weights)
    assert penalties
    total = penalties(quadratic, real, fake, torch.Generator().manual_seed(4))
    torch.testing.assert_close(total, factor * expected[name])


def test_gradient_norms_are_of_each_image_and_can_be_had_without_gradients_around():
    images = torch.randn(5, 3, 4, 4).half()
    with torch.no_grad():
        norms = gradient_norms_squared(quadratic, images)
    torch.testing.assert_close(norms, images.float().flatten(1).square().sum(1))
    assert norms.dtype == torch.float32
    assert not images.requires_grad


def test_the_one_centered_penalty_has_a_gradient_where_d_is_flat():
    """The root of a norm of zero has none: hence the small number under it."""
    weight = torch.zeros(48, requires_grad=True)
    images = torch.randn(2, 5, 3, 4, 4)
    penalty = one_centered_penalty(lambda x: x.flatten(1) @ weight, *images)
    (gradient,) = torch.autograd.grad(penalty, weight)
    assert gradient.isfinite().all()
    torch.testing.assert_close(penalty, torch.tensor(1.0), rtol=0, atol=1e-5)


def test_points_between_are_drawn_anew_without_a_generator():
    torch.manual_seed(0)
    real, fake = torch.randn(5, 3, 4, 4), torch.randn(5, 3, 4, 4)
    assert one_centered_penalty(quadratic, real, fake) != one_centered_penalty(quadratic, real, fake)
