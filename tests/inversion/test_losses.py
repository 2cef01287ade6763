"""Losses against SciPy and scikit-image, and their requirements."""

from typing import Any

import numpy as np
import pytest
import torch
import torchmetrics.image.lpip
from scipy.special import huber as scipy_huber  # type: ignore[import-untyped,unused-ignore]
from skimage.metrics import mean_squared_error  # type: ignore[import-not-found,unused-ignore]
from torch import Tensor

from gan_lightning.degradations import Mask
from gan_lightning.errors import InputError
from gan_lightning.inversion import invert
from gan_lightning.inversion.losses import HUBER_DELTA, make_loss
from gan_lightning.lpips import load_lpips
from gan_lightning.networks.dcgan import Discriminator

CPU = torch.device("cpu")


@pytest.fixture
def pair() -> tuple[Tensor, Tensor]:
    first, second = torch.rand(2, 4, 3, 16, 16, generator=torch.Generator().manual_seed(0)) * 2 - 1
    return first, second


@pytest.fixture
def critic() -> Discriminator:
    torch.manual_seed(0)
    return Discriminator(image_size=16, base_channels=8)


def on_unit_scale(images: Tensor) -> Any:
    return (images.double().numpy() + 1) / 2


@pytest.mark.parametrize("name", ["mse", "l1", "huber"])
def test_pixel_losses_are_those_of_the_unit_scale(name: Any, pair: tuple[Tensor, Tensor]) -> None:
    loss = make_loss(name, None, CPU)(*pair)
    for row, (one, other) in enumerate(zip(*map(on_unit_scale, pair), strict=True)):
        expected = {
            "mse": lambda a, b: mean_squared_error(a, b),
            "l1": lambda a, b: np.abs(a - b).mean(),
            "huber": lambda a, b: scipy_huber(HUBER_DELTA, a - b).mean(),
        }[name](one, other)
        assert loss[row].item() == pytest.approx(expected, rel=1e-5)


def test_the_perceptual_loss_is_the_sum_of_relative_distances(
    pair: tuple[Tensor, Tensor], critic: Discriminator
) -> None:
    loss = make_loss("perceptual", critic, CPU)
    assert (loss(pair[0], pair[0]) == 0).all()
    expected = make_loss("mse", None, CPU)(*pair)
    ours, theirs = pair
    with torch.no_grad():
        for layer in critic.eval().main[:-1]:
            ours, theirs = layer(ours), layer(theirs)
            if isinstance(layer, torch.nn.LeakyReLU):
                expected = expected + ((ours - theirs) ** 2).sum((1, 2, 3)) / (theirs**2).sum((1, 2, 3))
    torch.testing.assert_close(loss(*pair), expected)


def test_grey_images_are_shown_in_three_channels(pair: tuple[Tensor, Tensor], critic: Discriminator) -> None:
    loss = make_loss("perceptual", critic, CPU)
    grey = [images[:, :1] for images in pair]
    torch.testing.assert_close(loss(*grey), loss(*(images.expand(-1, 3, -1, -1) for images in grey)))


def test_lpips_is_loaded_once_and_says_what_it_lacks(monkeypatch: pytest.MonkeyPatch) -> None:
    made = []

    class Lpips(torch.nn.Module):
        def __init__(self, net_type: str) -> None:
            super().__init__()
            made.append(net_type)
            self.net = torch.nn.Identity()

    load_lpips.cache_clear()
    monkeypatch.setattr(torchmetrics.image.lpip, "LearnedPerceptualImagePatchSimilarity", Lpips)
    assert make_loss("lpips", None, CPU) is make_loss("lpips", None, CPU)
    assert made == ["alex"]

    def unreachable(**_: object) -> None:
        raise OSError("no network")

    load_lpips.cache_clear()
    monkeypatch.setattr(torchmetrics.image.lpip, "LearnedPerceptualImagePatchSimilarity", unreachable)
    with pytest.raises(InputError, match=r"AlexNet's weights, which cannot be had \(no network\)"):
        make_loss("lpips", None, CPU)
    load_lpips.cache_clear()


def test_the_objective_of_a_masked_image_is_a_mean_over_what_is_known(generator: Any, own_images: Tensor) -> None:
    mask = Mask(torch.rand(16, 16, generator=torch.Generator().manual_seed(3)) > 0.7)
    latents = torch.randn(6, 8, generator=torch.Generator().manual_seed(9))
    settings: dict[str, Any] = {"start": latents, "num_steps": 0, "refine": "none", "noise_level": 0.0}
    settings |= {"num_searches": 1, "latent_weight": 0.0}
    for name, power in (("mse", 2), ("l1", 1)):
        found = invert(generator, mask, mask(own_images), loss=name, **settings)
        with torch.no_grad():
            errors = (generator(latents) - own_images).abs() / 2
        known = errors[:, :, mask.mask[0, 0] > 0]
        assert 0.2 < known.shape[2] / 256 < 0.4
        torch.testing.assert_close(found.loss, known.pow(power).mean((1, 2)), rtol=1e-3, atol=1e-6)


def test_huber_turns_linear_at_a_tenth() -> None:
    """On the [0, 1] scale: e^2 / 2 up to 0.1, then 0.1 (e - 0.05)."""
    images, zeros = torch.tensor([0.1, -0.2, 0.4]).reshape(3, 1, 1, 1), torch.zeros(3, 1, 1, 1)
    torch.testing.assert_close(make_loss("huber", None, CPU)(images, zeros), torch.tensor([0.00125, 0.005, 0.015]))


def test_the_discriminator_of_a_perceptual_loss_stays_as_it_is(
    pair: tuple[Tensor, Tensor], critic: Discriminator
) -> None:
    critic.train()
    before = {name: tensor.clone() for name, tensor in critic.state_dict().items()}
    loss = make_loss("perceptual", critic, CPU)
    predicted = pair[0].clone().requires_grad_()
    loss(predicted, pair[1]).sum().backward()
    assert predicted.grad is not None
    torch.testing.assert_close(critic.state_dict(), before, rtol=0, atol=0)
    assert critic.training
    assert all(parameter.grad is None and parameter.requires_grad for parameter in critic.parameters())
    with pytest.raises(InputError, match=r"reads the features of gan_lightning\.Discriminator"):
        make_loss("perceptual", torch.nn.Conv2d(3, 1, 3), CPU)
    with pytest.raises(InputError, match="needs the discriminator"):
        make_loss("perceptual", None, CPU)


def test_losses_are_found_by_name() -> None:
    with pytest.raises(InputError, match="unknown loss 'l3': choose mse, l1, huber"):
        make_loss("l3", None, CPU)  # type: ignore[arg-type]
