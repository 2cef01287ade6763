"""Inversion as a whole: independence of batches, what it leaves alone, and what it refuses."""

import copy
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from gan_lightning.degradations import (
    Degradation,
    Downsample,
    GaussianBlur,
    GaussianNoise,
    Grayscale,
    Identity,
    Mask,
    SquareMask,
)
from gan_lightning.errors import InputError
from gan_lightning.inversion import estimate_blur, invert
from gan_lightning.inversion.checks import PixelRangeWarning
from gan_lightning.inversion.problem import Solution, Stopping
from gan_lightning.inversion.refinement import WeightSpace, feature_penalty
from gan_lightning.inversion.whitening import Whitening
from gan_lightning.networks.dcgan import Discriminator, Generator


def mean_squares(images: Tensor, targets: Tensor) -> Tensor:
    return ((images - targets) / 2).square().flatten(1).mean(1)


def test_recovers_its_own_images(generator: Generator, own_images: Tensor) -> None:
    found = invert(generator, Identity(), own_images, noise_level=0.0, num_steps=300, restarts=3, refine="none")
    psnr = -10 * mean_squares(found.image, own_images).log10()
    assert psnr.median() > 60
    assert found.converged[psnr > 80].all()
    with torch.no_grad():
        torch.testing.assert_close(generator(found.latent), found.image, atol=1e-5, rtol=0)


@pytest.mark.parametrize("start", ["mean", "random", "best_of_k"])
def test_results_do_not_depend_on_the_batch(generator: Generator, other_images: Tensor, start: str) -> None:
    mask = Mask(torch.rand(6, 1, 16, 16, generator=torch.Generator().manual_seed(3)) > 0.3)
    settings: dict[str, Any] = {"start": start, "num_steps": 25, "refine_steps": 15, "restarts": 1, "noise_level": 0.01}
    whole = invert(generator, mask, mask(other_images), indices=range(10, 16), **settings)
    rows = torch.tensor([4, 1])
    part = mask.select(rows)
    some = invert(generator, part, part(other_images[rows]), indices=[14, 11], **settings)
    for name in ("image", "latent", "loss", "converged", "num_steps"):
        assert torch.equal(getattr(some, name), getattr(whole, name)[rows]), name


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize(
    "degradation", [Identity(), GaussianBlur(1.0), Grayscale(), Downsample(2)], ids=lambda a: type(a).__name__
)
def test_results_are_the_same_to_the_last_bit_in_any_batch(
    generator: Generator, other_images: Tensor, degradation: Degradation, threads: int
) -> None:
    """A search of many steps makes a difference of one bit as large as the image."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        observed = degradation(other_images)
        whole = invert(generator, degradation, observed, num_steps=60, refine_steps=40)
        for rows in (range(1), range(1, 4), range(1, 6)):
            part = invert(generator, degradation, observed[list(rows)], num_steps=60, refine_steps=40, indices=rows)
            assert torch.equal(part.image, whole.image[list(rows)])
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("solver", ["levenberg_marquardt", "adam"])
def test_solvers_do_not_depend_on_the_batch(generator: Generator, other_images: Tensor, solver: str) -> None:
    settings: dict[str, Any] = {"solver": solver, "num_steps": 10, "refine": "none", "tolerance": 0.02}
    whole = invert(generator, Identity(), other_images, **settings)
    alone = invert(generator, Identity(), other_images[3:4], indices=[3], **settings)
    torch.testing.assert_close(alone.image, whole.image[3:4], atol=1e-4, rtol=0)


@pytest.mark.parametrize(("solver", "white"), [("auto", True), ("adam", True), ("levenberg_marquardt", False)])
def test_searches_by_gradients_alone_are_whitened(
    generator: Generator, own_images: Tensor, solver: Any, white: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All of them: those of a restart and of the curve of blind deblurring too."""
    begun, solve = [], Whitening.solve

    def told(self: Whitening, solver: Any, *given: Any) -> Solution:
        begun.append(solver.__name__)
        return solve(self, solver, *given)

    monkeypatch.setattr(Whitening, "solve", told)
    settings: dict[str, Any] = {"solver": solver, "num_steps": 2, "refine": "none", "restarts": 1, "noise_level": 0.0}
    invert(generator, Identity(), own_images, **settings)
    assert begun == ([{"auto": "lbfgs"}.get(solver, solver)] * 2 if white else [])
    estimate_blur(generator, own_images, sigmas=(0.5, 1.0))
    assert begun[-2:] == ["lbfgs"] * 2


def test_the_solver_is_chosen_by_the_loss(
    generator: Generator, own_images: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    chosen: list[str] = []

    def note(self: Whitening, solver: Any, problem: Any, start: Tensor, stopping: Stopping) -> Solution:
        chosen.append(solver.__name__)
        return solver(problem, start, stopping)

    monkeypatch.setattr(Whitening, "solve", note)
    losses: list[Any] = ["mse", "l1", "huber"]
    for loss in losses:
        invert(generator, Identity(), own_images, loss=loss, num_steps=1, refine="none")
    assert chosen == ["lbfgs", "adam", "lbfgs"]


def test_restarts_keep_the_best_of_each_image(generator: Generator, other_images: Tensor) -> None:
    """From bad starts, far outside of the prior, some images are better off by another one."""
    settings: dict[str, Any] = {"num_steps": 12, "refine": "none", "noise_level": 0.0, "start_scale": 3.0}
    start = 3 * torch.randn(6, 8, generator=torch.Generator().manual_seed(5))
    once = invert(generator, Identity(), other_images, start=start, **settings)
    again = invert(generator, Identity(), other_images, start=start, restarts=2, **settings)
    assert (again.loss <= once.loss).all()
    better = again.loss < once.loss
    assert better.any()
    assert torch.equal(again.history[0, ~better], once.history[0, ~better])  # the courses are those of the winners
    torch.testing.assert_close(again.history.amin(0), again.loss)
    torch.testing.assert_close(mean_squares(again.image, other_images), again.loss, atol=1e-6, rtol=1e-3)
    assert (again.num_steps > once.num_steps).all()


def test_steps_that_run_out_are_no_convergence(generator: Generator, other_images: Tensor) -> None:
    settings: dict[str, Any] = {"refine": "none", "noise_level": 0.0}
    cut = invert(generator, Identity(), other_images, num_steps=3, tolerance=0.0, **settings)
    assert not cut.converged.any()
    assert (cut.num_steps == 3).all()
    done = invert(generator, Identity(), other_images, num_steps=500, tolerance=1e-3, **settings)
    assert done.converged.all()
    assert (done.num_steps < 500).all()
    # It stopped where the last window brought less than the tolerance, and no window before did.
    best = done.history.cummin(0).values
    for image, stopped in enumerate(done.num_steps.tolist()):
        gains = 1 - best[10 : stopped + 1, image] / best[: max(0, stopped - 9), image]
        assert (gains[:-1] >= 1e-3).all()


def test_draws_are_scaled(generator: Generator, own_images: Tensor) -> None:
    settings: dict[str, Any] = {"num_steps": 0, "refine": "none"}
    starts: list[Any] = ["random", "best_of_k"]
    for start in starts:
        one, two = (
            invert(generator, Identity(), own_images, start=start, start_scale=scale, **settings).latent
            for scale in (1.0, 1e-3)
        )
        assert two.abs().max() < 0.01 < one.abs().max()
    plain = invert(generator, Identity(), own_images, start="random", **settings).latent
    half = invert(generator, Identity(), own_images, start="random", start_scale=0.5, **settings).latent
    torch.testing.assert_close(half, plain / 2, atol=1e-5, rtol=0)


def test_a_generator_that_was_changed_is_another_one(generator: Generator, own_images: Tensor) -> None:
    network = copy.deepcopy(generator)
    settings: dict[str, Any] = {"num_steps": 3, "refine": "none", "noise_level": 0.0}
    invert(network, Identity(), own_images, **settings)
    for parameter in network.parameters():
        parameter.data.mul_(0.9)  # without a trace
    found = invert(network, Identity(), own_images, **settings)
    with torch.no_grad():
        torch.testing.assert_close(network(found.latent), found.image, atol=1e-5, rtol=0)


def test_the_feature_penalty_is_for_restoration_and_noise() -> None:
    silent, noisy = feature_penalty(torch.tensor([0.0, 0.1]), lossy=False)
    assert silent == 0
    assert noisy > 0
    assert (feature_penalty(torch.tensor([0.0, 0.1]), lossy=True) > torch.stack([silent, noisy])).all()


def test_the_penalty_of_plain_inversion_is_none(generator: Generator, other_images: Tensor) -> None:
    settings: dict[str, Any] = {"noise_level": 0.0, "num_steps": 20, "refine_steps": 10}
    plain = [invert(generator, Identity(), other_images, refine_weight=w, **settings).image for w in (None, 0.0)]
    assert torch.equal(*plain)
    blurred = GaussianBlur(1.0)(other_images)
    held = [invert(generator, GaussianBlur(1.0), blurred, refine_weight=w, **settings).image for w in (None, 0.0)]
    assert not torch.equal(*held)


class Doubled(Generator):
    """Has the layers of our generator, and does more than run them."""

    def forward(self, latents: Tensor) -> Tensor:
        images: Tensor = super().forward(2 * latents)
        return images


class Plain(nn.Module):
    """No convolution at all."""

    def __init__(self, wrapped: Generator) -> None:
        super().__init__()
        self.wrapped, self.latent_dim = wrapped, wrapped.latent_dim

    def forward(self, latents: Tensor) -> Tensor:
        images: Tensor = self.wrapped(latents)
        return images


def test_generators_that_are_laid_out_otherwise(generator: Generator, own_images: Tensor) -> None:
    doubled = Doubled(16, latent_dim=8, base_channels=8)
    doubled.load_state_dict(generator.state_dict())
    settings: dict[str, Any] = {"num_steps": 200, "refine": "none", "noise_level": 0.0, "composite": False}
    for network in (doubled.eval(), Plain(generator)):
        told: list[str] = []
        found = invert(network, Identity(), own_images, **settings)
        with torch.no_grad():
            torch.testing.assert_close(network(found.latent), found.image, atol=1e-5, rtol=0)
        assert (found.loss < 1e-4).float().mean() > 0.5
        with pytest.raises(InputError, match="set refine to none"):
            invert(network, Identity(), own_images, callback=lambda stage, *_: told.append(stage))  # noqa: B023
        assert not told
        with pytest.raises(InputError, match="choose the method evidence"):
            estimate_blur(network, own_images, method="joint")


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_generators_of_another_precision_are_searched_in_float32(
    generator: Generator, own_images: Tensor, dtype: torch.dtype
) -> None:
    network = copy.deepcopy(generator).to(dtype)
    found = invert(network, Identity(), own_images, num_steps=30, noise_level=0.0)
    assert found.image.dtype == torch.float32
    assert next(network.parameters()).dtype == dtype
    assert (found.history[-1] < 0.1 * found.history[0]).all()


def test_a_map_without_an_adjoint_is_not_composited(generator: Generator, own_images: Tensor) -> None:
    class Halved(Degradation):
        def forward(self, images: Tensor) -> Tensor:
            return images / 2

    told: list[Any] = [invert(generator, a, own_images / 2, num_steps=5).image for a in (Halved(), lambda x: x / 2)]
    assert torch.equal(*told)


@pytest.mark.parametrize("solver", ["auto", "adam", "levenberg_marquardt"])
def test_what_is_not_finite_is_refused(generator: Generator, own_images: Tensor, solver: Any) -> None:
    diverged = copy.deepcopy(generator)
    diverged.main[3].weight.data[0, 0] = torch.nan
    with pytest.raises(InputError, match="the generator makes images that are not finite"):
        invert(diverged, Identity(), own_images, solver=solver)
    with pytest.raises(InputError, match="the degradation makes pixels that are not finite"):
        invert(generator, lambda images: images / 0, own_images, solver=solver)


@pytest.mark.parametrize("refine", ["none", "features", "weights"])
def test_leaves_the_generator_alone(generator: Generator, other_images: Tensor, refine: Any) -> None:
    network = copy.deepcopy(generator).train()
    network.main[0].weight.requires_grad_(False)
    before = copy.deepcopy(network.state_dict())
    with torch.inference_mode():
        invert(network, Identity(), other_images[:2], num_steps=2, refine=refine, refine_steps=2)
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert network.training
    assert [p.requires_grad for p in network.parameters()].count(False) == 1
    assert all(parameter.grad is None for parameter in network.parameters())


@pytest.mark.parametrize("refine", ["features", "weights"])
def test_refinement_leaves_the_range(generator: Generator, other_images: Tensor, refine: Any) -> None:
    found = invert(generator, Identity(), other_images, noise_level=0.0, refine="none")
    refined = invert(generator, Identity(), other_images, noise_level=0.0, refine=refine, refine_steps=30)
    assert (refined.loss < found.loss).all()
    torch.testing.assert_close(mean_squares(refined.image, other_images), refined.loss, atol=1e-6, rtol=1e-3)
    torch.testing.assert_close(refined.latent, found.latent)
    assert len(refined.history) > len(found.history)


def test_weights_of_several_images_are_tuned_at_once(
    generator: Generator, other_images: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on a GPU; images that reach their noise leave before the others."""
    settings: dict[str, Any] = {"noise_level": 0.044, "refine": "weights", "num_steps": 10, "refine_steps": 40}
    alone = invert(generator, Identity(), other_images, **settings)
    monkeypatch.setattr(WeightSpace, "at_once", lambda self: 4)
    together = invert(generator, Identity(), other_images, **settings)
    assert len(alone.num_steps.unique()) > 2
    torch.testing.assert_close(together.image, alone.image, atol=1e-3, rtol=0)
    torch.testing.assert_close(together.num_steps, alone.num_steps, atol=1, rtol=0)
    torch.testing.assert_close(together.history[:11], alone.history[:11], atol=1e-5, rtol=1e-3)


def test_a_heavy_penalty_keeps_the_features(generator: Generator, other_images: Tensor) -> None:
    found = invert(generator, Identity(), other_images, refine="none")
    held = invert(generator, Identity(), other_images, refine_weight=1e6)
    torch.testing.assert_close(held.image, found.image, atol=1e-3, rtol=0)


def test_latent_weight_draws_latents_to_the_mean(generator: Generator, other_images: Tensor) -> None:
    settings: dict[str, Any] = {"noise_level": 0.0, "refine": "none"}
    norms = [invert(generator, Identity(), other_images, latent_weight=w, **settings).latent.norm() for w in (0.0, 1.0)]
    assert norms[1] < 0.5 * norms[0]


@pytest.mark.parametrize("loss", ["l1", "huber", "perceptual"])
def test_losses_are_minimized(generator: Generator, own_images: Tensor, loss: str) -> None:
    torch.manual_seed(0)
    critic = Discriminator(image_size=16, base_channels=8)
    settings: dict[str, Any] = {"loss": loss, "discriminator": critic, "refine": "none"}
    found = invert(generator, GaussianBlur(0.7), GaussianBlur(0.7)(own_images), **settings)
    assert (found.history[-1] < 0.5 * found.history[0]).float().mean() > 0.5


def test_stops_at_the_noise(generator: Generator, own_images: Tensor) -> None:
    noisy = GaussianNoise(0.1)(own_images)
    found = invert(generator, Identity(), noisy, noise_level=0.2, start="best_of_k", refine="none")
    assert (found.loss <= 0.04).all()
    assert found.converged.all()
    assert (found.num_steps < 20).all()


def test_an_encoders_start_and_any_callable(generator: Generator, own_images: Tensor) -> None:
    truth = torch.randn(6, 8, generator=torch.Generator().manual_seed(1))
    flipped = own_images.flip(3)
    settings: dict[str, Any] = {"num_steps": 0, "refine": "none", "latent_weight": 0.0}
    found = invert(generator, lambda images: images.flip(3), flipped, start=truth, **settings)
    assert (found.loss < 1e-8).all()
    assert found.converged.all()


def test_callback_is_told(generator: Generator, other_images: Tensor) -> None:
    told = []
    invert(
        generator,
        Identity(),
        other_images[:2],
        num_steps=3,
        refine_steps=2,
        tolerance=0,
        noise_level=0,
        callback=lambda stage, step, losses, render: told.append((stage, step, losses.shape, render().shape)),
    )
    shapes = (torch.Size([2]), torch.Size([2, 3, 16, 16]))
    expected = [("latent", step, *shapes) for step in range(4)] + [("features", step, *shapes) for step in range(3)]
    assert told == expected


def test_what_lies_in_a_hole_does_not_matter(generator: Generator, own_images: Tensor) -> None:
    mask = SquareMask(16, 4)
    spoiled = torch.where(mask.mask > 0, own_images, torch.tensor(0.7))
    both = [
        invert(generator, mask, y, num_steps=10, refine="none", noise_level=0.0).image
        for y in (mask(own_images), spoiled)
    ]
    torch.testing.assert_close(*both)
    torch.testing.assert_close(both[0] * mask.mask, own_images * mask.mask, atol=0.01, rtol=0)  # composited


@pytest.mark.parametrize(
    ("degradation", "shape", "settings", "message"),
    [
        (Identity(), (2, 1, 16, 16), {}, "have 1 channels"),
        (Grayscale(), (2, 3, 16, 16), {}, "have 3 channels"),
        (Identity(), (2, 3, 32, 32), {}, "of 32x32 pixels"),
        (Downsample(2), (2, 3, 16, 16), {}, "degraded generator's of 8x8"),
        (SquareMask(8, 2), (2, 3, 16, 16), {}, "of 8x8 pixels"),
        (Identity(), (3, 16, 16), {}, r"give images as \(B,C,H,W\)"),
        (Identity(), (0, 3, 16, 16), {}, "one or more"),
        (Identity(), (2, 3, 16, 16), {"solver": "newton"}, "choose one of auto"),
        (Identity(), (2, 3, 16, 16), {"loss": "l3"}, "choose one of mse"),
        (Identity(), (2, 3, 16, 16), {"loss": "l1", "solver": "levenberg_marquardt"}, "not l1"),
        (Identity(), (2, 3, 16, 16), {"loss": "perceptual"}, "give it"),
        (Identity(), (2, 3, 16, 16), {"start": "zeros"}, "choose one of mean"),
        (Identity(), (2, 3, 16, 16), {"start": torch.zeros(2, 7)}, r"give finite latents of shape \(2, 8\)"),
        (Identity(), (2, 3, 16, 16), {"start": torch.zeros(1, 8)}, r"give finite latents of shape \(2, 8\)"),
        (Identity(), (2, 3, 16, 16), {"start": torch.zeros(5, 8)}, r"give finite latents of shape \(2, 8\)"),
        (Identity(), (2, 3, 16, 16), {"start_scale": -1.0}, "start_scale is -1"),
        (GaussianBlur([1.0, 1.0, 1.0]), (2, 3, 16, 16), {}, "got 3 sigmas for 2"),
        (Identity(), (2, 3, 16, 16), {"noise_level": -1.0}, "noise_level is -1"),
        (Identity(), (2, 3, 16, 16), {"latent_weight": float("nan")}, "latent_weight is nan"),
        (Identity(), (2, 3, 16, 16), {"indices": [1]}, "1 indices"),
        (Identity(), (2, 3, 16, 16), {"refine": "all"}, "refine 'all'"),
    ],
)
def test_mistakes_are_named(
    generator: Generator, degradation: nn.Module, shape: tuple[int, ...], settings: dict[str, Any], message: str
) -> None:
    with pytest.raises(InputError, match=message) as caught:
        invert(generator, degradation, torch.zeros(shape), **settings)
    assert "\n" not in str(caught.value)


def test_pixels_that_are_not_finite(generator: Generator, own_images: Tensor) -> None:
    own_images[2, 0, 3, 3] = torch.nan
    with pytest.raises(InputError, match=r"not finite, in images \[2\]"):
        invert(generator, Identity(), own_images)


@pytest.mark.parametrize(
    ("observed", "message"),
    [
        (Image.new("RGB", (16, 16)), r"is a PIL.Image.Image: give a tensor.*to_tensor"),
        (np.zeros((16, 16, 3), np.uint8), "is a numpy.ndarray: give a tensor"),
        ([[0.0]], "is a builtins.list"),
        (torch.zeros(1, 3, 16, 16, dtype=torch.uint8), r"torch.uint8.*observed / 127.5 - 1"),
        (torch.full((1, 3, 16, 16), 200.0), r"values up to 200: give \[-1, 1\]"),
    ],
)
def test_images_in_another_form_or_range_are_refused_by_name(generator: Generator, observed: Any, message: str) -> None:
    for call in (lambda: invert(generator, Identity(), observed), lambda: estimate_blur(generator, observed)):
        with pytest.raises(InputError, match=message):
            call()


def test_images_that_may_be_in_another_range_are_named(generator: Generator, own_images: Tensor) -> None:
    settings: dict[str, Any] = {"num_steps": 1, "refine": "none"}
    with pytest.warns(PixelRangeWarning, match=r"observed \* 2 - 1"):
        invert(generator, Identity(), (own_images + 1) / 2, **settings)
    # neither double precision, nor an A whose range is [0, 1] itself, nor loud noise
    invert(generator, Identity(), own_images.double(), **settings)
    invert(generator, lambda images: (images + 1) / 2, (own_images + 1) / 2, **settings)
    invert(generator, Identity(), own_images + 3 * torch.randn(own_images.shape), **settings)
