"""Any generator is a prior: StyleGAN2 in each of its spaces, and networks of torch.nn, exported or conditional."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from gan_lightning.degradations import Degradation, Downsample, GaussianBlur, Grayscale, Identity, SquareMask
from gan_lightning.errors import InputError
from gan_lightning.inversion import estimate_blur, invert, whitening
from gan_lightning.inversion.frozen_generator import FrozenGenerator, freeze_generator
from gan_lightning.inversion.whitening import MAX_WHITENED, NoWhitening, Whitening, images_at_once
from gan_lightning.networks.dcgan import Generator
from gan_lightning.networks.stylegan2 import StyleGAN2Generator
from gan_lightning.networks.stylegan2_prior import LatentSpace, StyleGAN2Prior, as_prior
from gan_lightning.seeding import image_rng
from tests.networks.stylegan2 import tiny_stylegan2

SPACES: tuple[LatentSpace, ...] = ("z", "w", "w+")


@pytest.fixture(autouse=True)
def few_probes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Measure a rougher preconditioner, which takes less time than the searches of these tests."""
    monkeypatch.setattr(whitening, "PROBES", 128)


@pytest.fixture(scope="module")
def stylegan2() -> StyleGAN2Generator:
    return tiny_stylegan2().requires_grad_(False)


@pytest.fixture(scope="module")
def small() -> StyleGAN2Generator:
    """One of 16 px, for properties that do not depend on the weights."""
    torch.manual_seed(4)
    sizes = {"latent_dim": 16, "w_dim": 16, "base_channels": 8, "max_channels": 16, "mapping_layers": 2}
    return StyleGAN2Generator(16, **sizes).eval().requires_grad_(False)


@pytest.fixture(scope="module")
def in_w(small: StyleGAN2Generator) -> StyleGAN2Prior:
    return StyleGAN2Prior(small)


@pytest.fixture(scope="module")
def images(small: StyleGAN2Generator) -> Tensor:
    with torch.no_grad():
        images: Tensor = small(torch.randn(4, 16, generator=torch.Generator().manual_seed(1)))
    return images


def psnr(images: Tensor, targets: Tensor) -> Tensor:
    return -10 * ((images - targets) / 2).square().flatten(1).mean(1).log10()


PLAIN: dict[str, Any] = {"noise_level": 0.0, "latent_weight": 0.0, "refine": "none", "composite": False}


def test_images_of_the_reference_are_found_again_in_w(stylegan2: StyleGAN2Generator) -> None:
    """Of 64 images, benchmarks/stylegan2_inversion.py."""
    images = stylegan2(torch.randn(5, 64, generator=torch.Generator().manual_seed(1)))
    prior = StyleGAN2Prior(stylegan2)
    found = invert(prior, Identity(), images, num_steps=200, start="mean", **PLAIN)
    assert psnr(found.image, images).median() > 50
    torch.testing.assert_close(stylegan2.synthesis(prior.ws(found.latent)), found.image, atol=1e-5, rtol=0)


def test_an_image_of_stylegan2_is_the_same_in_any_batch(in_w: StyleGAN2Prior, images: Tensor) -> None:
    settings: dict[str, Any] = {"num_searches": 2, "num_steps": 10, "refine_steps": 3, "noise_level": 0.0}
    whole = invert(in_w, GaussianBlur(1.0), images, **settings)
    alone = invert(in_w, GaussianBlur(1.0), images[2:3], indices=[2], **settings)
    assert alone.image.equal(whole.image[2:3])


@pytest.mark.parametrize("space", SPACES)
@torch.no_grad()
def test_latents_are_in_units_of_the_spread_around_the_mean(stylegan2: StyleGAN2Generator, space: LatentSpace) -> None:
    prior = StyleGAN2Prior(stylegan2, space)
    latents = prior.draw(4096, torch.Generator().manual_seed(3))
    assert latents.shape == (4096, prior.latent_dim)
    assert latents.mean(0).abs().mean() < 0.03
    assert latents.square().mean().item() == pytest.approx(1, abs=0.02)
    z = torch.randn(4096, 64, generator=torch.Generator().manual_seed(3))
    torch.testing.assert_close(prior.ws(latents[:5]), stylegan2.mapping(z[:5]), atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(prior(latents[:5]), stylegan2(z[:5]), atol=1e-4, rtol=1e-4)
    w = stylegan2.mapping(torch.randn(8192, 64, generator=torch.Generator().manual_seed(5)))[:, 0]
    assert (prior.mean - w.mean(0)).norm() < 0.05 * w.std(0).norm()
    assert prior.spread.item() == pytest.approx(w.var(0).mean().sqrt().item(), rel=0.02)


@torch.no_grad()
def test_the_search_starts_at_the_mean_w_or_at_random_ones(in_w: StyleGAN2Prior, images: Tensor) -> None:
    at_mean = invert(in_w, Identity(), images[:2], start="mean", num_steps=0, **PLAIN)
    expected = in_w.generator.synthesis(in_w.mean.expand(2, -1))
    torch.testing.assert_close(at_mean.image, expected, atol=1e-5, rtol=0)
    at_random = invert(in_w, Identity(), images[:2], start="random", num_steps=0, **PLAIN).latent
    for row, latent in enumerate(at_random):
        torch.testing.assert_close(latent, in_w.draw(1, image_rng(0, row, "start 0"))[0], atol=1e-3, rtol=0)
    best = invert(in_w, Identity(), images[:2], num_steps=0, **PLAIN).latent
    assert torch.cdist(best, in_w.draw(256, image_rng(0, 0, "candidates"))).amin(1).max() < 0.01


def test_latent_weight_draws_to_the_mean_w(in_w: StyleGAN2Prior, images: Tensor) -> None:
    settings = {**PLAIN, "num_steps": 30, "start": "mean"}
    distances = [
        invert(in_w, Identity(), images[:3], **{**settings, "latent_weight": weight}).latent.square().mean()
        for weight in (0.001, 0.3)
    ]
    assert distances[1] < 0.5 * distances[0]


@pytest.mark.parametrize("refine", ["features", "weights"])
def test_refinement_leaves_w(in_w: StyleGAN2Prior, images: Tensor, refine: Any) -> None:
    """For w+, or for the weights around the latent that was found."""
    photos = (images[:2] + 0.3 * images[2:4].roll(4, 3)).clamp(-1, 1)
    settings = {**PLAIN, "num_steps": 25, "start": "mean"}
    found = invert(in_w, Identity(), photos, **settings)
    before = {name: value.clone() for name, value in in_w.state_dict().items()}
    refined = invert(in_w, Identity(), photos, **{**settings, "refine": refine, "refine_steps": 15})
    assert (refined.loss < 0.9 * found.loss).all()
    torch.testing.assert_close(refined.latent, found.latent)
    assert all(torch.equal(value, before[name]) for name, value in in_w.state_dict().items())


@pytest.mark.parametrize("space", ["z", "w+"])
def test_other_spaces_are_searched(small: StyleGAN2Generator, images: Tensor, space: LatentSpace) -> None:
    prior = StyleGAN2Prior(small, space)
    found = invert(prior, Identity(), images, num_steps=40, **PLAIN)
    assert (found.history[-1] < 0.3 * found.history[0]).all()
    assert found.latent.shape == (4, {"z": 16, "w+": 6 * 16}[space])


@pytest.mark.parametrize("solver", ["adam", "levenberg_marquardt"])
def test_every_solver_works_in_w(in_w: StyleGAN2Prior, images: Tensor, solver: Any) -> None:
    steps = {"adam": 40, "levenberg_marquardt": 3}[solver]
    found = invert(in_w, Identity(), images[:1], solver=solver, num_steps=steps, **PLAIN)
    assert (found.history[-1] < 0.3 * found.history[0]).all()


@pytest.mark.parametrize(
    "degradation",
    [SquareMask(16, 4), GaussianBlur(1.0), Grayscale(), Downsample(2)],
    ids=lambda degradation: type(degradation).__name__,
)
def test_every_degradation_is_restored(in_w: StyleGAN2Prior, images: Tensor, degradation: Degradation) -> None:
    found = invert(in_w, degradation, degradation(images[:1]), num_searches=2, num_steps=15, refine_steps=5)
    assert found.solutions.shape == (1, 2, 3, 16, 16)
    assert found.spread.shape == (1, 1, 16, 16)
    assert found.image.isfinite().all()
    assert (found.history[-1] < found.history[0]).all()


def test_an_unknown_blur_is_estimated(in_w: StyleGAN2Prior, images: Tensor) -> None:
    blurred = GaussianBlur(1.5)(images[:1])
    found = estimate_blur(in_w, blurred, sigmas=(1.0, 2.0), noise_level=0.0, method="joint")
    assert 1.1 < found.sigma.item() < 1.9


def test_a_prior_of_stylegan2_is_asked_for_in_its_terms(stylegan2: StyleGAN2Generator) -> None:
    with pytest.raises(InputError, match=r"space 'p' is unknown: choose one of z, w, w\+"):
        StyleGAN2Prior(stylegan2, "p")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="noise_mode 'random' is unknown: choose one of const, none"):
        StyleGAN2Prior(stylegan2, noise_mode="random")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="label is 0, but this generator has 0 classes"):
        StyleGAN2Prior(stylegan2, label=0)
    labeled = StyleGAN2Generator(16, latent_dim=4, base_channels=2, w_dim=4, label_dim=3, mapping_layers=1)
    with pytest.raises(InputError, match="has 3 classes: set label to a number from 0 to 2"):
        StyleGAN2Prior(labeled)
    latents = torch.zeros(1, 4)
    assert not StyleGAN2Prior(labeled, "z", 0)(latents).equal(StyleGAN2Prior(labeled, "z", 1)(latents))
    assert labeled.mapping.training
    assert not labeled.mapping.w_avg.any()
    dcgan = Generator(16, latent_dim=4, base_channels=2)
    assert as_prior(dcgan) is dcgan
    with pytest.raises(InputError, match="a DCGAN, which has z alone"):
        as_prior(dcgan, "w")
    with pytest.raises(InputError, match="a DCGAN without classes"):
        as_prior(dcgan, label=1)


def decoder() -> nn.Module:
    """A generator of torch.nn alone, which says nothing of its latents."""
    torch.manual_seed(1)
    layers = [nn.Linear(8, 16 * 16), nn.ELU(), nn.Unflatten(1, (16, 4, 4)), nn.ConvTranspose2d(16, 3, 4, 2, 1)]
    return nn.Sequential(*layers, nn.BatchNorm2d(3), nn.Tanh())


class Adapted(nn.Module):
    """What docs/stylegan2.md shows: the length of the latents, and latents to images."""

    def __init__(self, network: nn.Module, latent_dim: int) -> None:
        super().__init__()
        self.network, self.latent_dim = network, latent_dim

    def forward(self, latents: Tensor) -> Tensor:
        images: Tensor = self.network(latents)
        return images


@pytest.mark.parametrize("exported", [False, True])
def test_a_generator_of_torch_alone_is_a_prior(tmp_path: Any, exported: bool) -> None:
    network = decoder().eval()
    images = network(torch.randn(4, 8)).detach()
    if exported:
        program = torch.export.export(
            network, (torch.zeros(2, 8),), dynamic_shapes=({0: torch.export.Dim("batch", max=4096)},)
        )
        torch.export.save(program, tmp_path / "G.pt2")
        network = torch.export.load(tmp_path / "G.pt2").module()
    found = invert(Adapted(network, 8), Identity(), images, num_steps=200, **PLAIN)
    assert psnr(found.image, images).median() > 40
    filled = invert(Adapted(network, 8), SquareMask(8, 2), SquareMask(8, 2)(images), refine="none", num_steps=10)
    assert filled.image.isfinite().all()


class Conditional(nn.Module):
    """Makes images of a class, on which its first layer depends."""

    def __init__(self) -> None:
        super().__init__()
        self.classes, self.network = nn.Embedding(3, 8), decoder()

    def forward(self, latents: Tensor, labels: Tensor) -> Tensor:
        images: Tensor = self.network(latents + 3 * self.classes(labels))
        return images


class OfAClass(nn.Module):
    """A conditional generator as a prior, its class chosen."""

    def __init__(self, network: nn.Module, latent_dim: int, label: int) -> None:
        super().__init__()
        self.network, self.latent_dim = network, latent_dim
        self.register_buffer("label", torch.tensor(label))

    def forward(self, latents: Tensor) -> Tensor:
        images: Tensor = self.network(latents, self.label.expand(len(latents)))  # type: ignore[operator]
        return images


def test_a_conditional_generator_is_a_prior_for_each_class() -> None:
    torch.manual_seed(2)
    network = Conditional().eval()
    images = network(0.1 * torch.randn(4, 8), torch.full((4,), 2)).detach()
    losses = [
        invert(OfAClass(network, 8, label), Identity(), images, num_steps=60, start="mean", **PLAIN).history[0].mean()
        for label in range(3)
    ]
    assert losses[2] < 0.2 * min(losses[:2])


class TwoParts(Adapted):
    """A prior of two parts, whose latents are uniform in [-sqrt(3), sqrt(3)]."""

    def draw(self, count: int, rng: torch.Generator) -> Tensor:
        return 3**0.5 * (2 * torch.rand(count, self.latent_dim, generator=rng) - 1)

    def features(self, latents: Tensor) -> Tensor:
        features: Tensor = self.network[:3](latents)  # type: ignore[index, operator]
        return features

    def render(self, features: Tensor) -> Tensor:
        images: Tensor = self.network[3:](features)  # type: ignore[index, operator]
        return images


def test_a_prior_may_offer_parts_and_draws() -> None:
    prior = TwoParts(decoder().eval(), 8)
    frozen = FrozenGenerator(prior)
    latents = frozen.draw(64, torch.Generator().manual_seed(1))
    assert latents.equal(prior.draw(64, torch.Generator().manual_seed(1)))
    with torch.no_grad():
        torch.testing.assert_close(frozen(latents), prior(latents))
    photos = torch.rand(2, 3, 8, 8) - 0.5
    settings: dict[str, Any] = {**PLAIN, "num_steps": 20}
    found = invert(prior, Identity(), photos, **settings)
    refined = invert(prior, Identity(), photos, **{**settings, "refine": "features"})
    assert (refined.loss < 0.5 * found.loss).all()
    start = invert(prior, Identity(), photos, start="random", **{**PLAIN, "num_steps": 0}).latent
    assert start.abs().max() <= 3**0.5
    with pytest.raises(InputError, match="offers no features: set refine to none"):
        invert(Adapted(decoder(), 8), Identity(), photos)


class Lookup(nn.Module):
    """As many latents as pixels."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.size, self.latent_dim = size, size**2
        self.gain = nn.Parameter(torch.ones(()))

    def forward(self, latents: Tensor) -> Tensor:
        return self.gain * latents.view(-1, 1, self.size, self.size)


def test_very_long_latents_are_not_whitened() -> None:
    short, long = Lookup(8), Lookup(64)
    assert long.latent_dim > MAX_WHITENED
    assert isinstance(freeze_generator(short).whitening, Whitening)
    assert isinstance(freeze_generator(long).whitening, NoWhitening)
    photos = torch.rand(2, 1, 64, 64) - 0.5
    found = invert(long, Identity(), photos, num_steps=20, **PLAIN)
    assert (psnr(found.image, photos) > 60).all()


def test_large_images_are_made_a_few_at_once() -> None:
    counts = {
        size: images_at_once(lambda z, s=size: z.view(-1, 1, 1, 1).expand(-1, 3, s, s), torch.zeros(1, 1), 64)  # type: ignore[misc]
        for size in (16, 256, 512, 1024)
    }
    assert counts == {16: 64, 256: 64, 512: 16, 1024: 4}
