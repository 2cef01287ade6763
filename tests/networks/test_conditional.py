"""Networks with classes."""

import pytest
import torch

from gan_lightning import DCGAN, InputError, load_generator
from gan_lightning.networks.checkpoints import load_discriminator
from gan_lightning.networks.conditional import (
    ConditionalDiscriminator,
    ConditionalGenerator,
    find_label,
    with_labels,
)
from gan_lightning.networks.dcgan import Discriminator, Generator
from gan_lightning.networks.stylegan2_prior import as_prior
from gan_lightning.objectives import Penalties

CLASSES, LATENT = 3, 5
LABELS = torch.tensor([0, 2, 1, 1, 2, 0])


def make_generator(normalization="batch"):
    torch.manual_seed(0)
    generator = ConditionalGenerator(CLASSES, 16, 1, LATENT, 4, normalization)
    for parameter in generator.parameters():  # so that classes differ visibly
        parameter.data += 0.3 * torch.randn_like(parameter)
    generator.train()(torch.randn(16, LATENT), torch.arange(16) % CLASSES)  # moves the statistics
    return generator.eval()


@pytest.mark.parametrize("normalization", ["batch", "none"])
def test_the_generator_of_a_class_makes_the_same_images(normalization):
    generator, latents = make_generator(normalization), torch.randn(6, LATENT)
    before = torch.get_rng_state()
    with torch.no_grad():
        images = generator(latents, LABELS)
        for label in range(CLASSES):
            ordinary = generator.of_class(label)
            assert type(ordinary) is Generator
            same = torch.eq(LABELS, label)
            torch.testing.assert_close(ordinary(latents)[same], images[same])
            assert (ordinary(latents)[~same] - images[~same]).abs().max() > 0.01
    assert torch.equal(torch.get_rng_state(), before)  # of_class draws no weights


@pytest.mark.parametrize("normalization", ["batch", "spectral", "none"])
def test_the_discriminator_adds_the_projection_of_its_features(normalization):
    """Miyato and Koyama 2018, equation 3: the inner product of the features and a vector of the class, and a logit."""
    torch.manual_seed(0)
    discriminator = ConditionalDiscriminator(CLASSES, 16, 1, 4, normalization).eval()
    images = torch.randn(6, 1, 16, 16)
    with torch.no_grad():
        features = discriminator.main[:-1](images)
        vectors = discriminator.classes.weight[LABELS].view_as(features)
        kernel = discriminator.main[-1].weight[0]
        expected = (features * (kernel + vectors)).sum((1, 2, 3))
        if discriminator.main[-1].bias is not None:
            expected += discriminator.main[-1].bias
        torch.testing.assert_close(discriminator(images, LABELS), expected)


def test_networks_with_classes_ask_for_labels():
    for network, inputs in (
        (make_generator(), torch.zeros(2, LATENT)),
        (ConditionalDiscriminator(CLASSES, 16, 1, 4), torch.zeros(2, 1, 16, 16)),
    ):
        with pytest.raises(InputError, match="has 3 classes: pass labels as the second argument"):
            network(inputs)
    for count in (1, -1):
        with pytest.raises(InputError, match=f"num_classes is {count}: set it to 2 or more, or to 0"):
            DCGAN(16, num_classes=count)


def test_penalties_have_second_derivatives_in_the_weights_of_the_classes():
    torch.manual_seed(0)
    discriminator = ConditionalDiscriminator(CLASSES, 16, 1, 4, "none").double()
    images = torch.randn(6, 1, 16, 16, dtype=torch.float64)

    def penalty():
        critic = with_labels(discriminator, LABELS)
        gradient = torch.autograd.grad(critic(images.requires_grad_()).sum(), images, create_graph=True)[0]
        return gradient.square().flatten(1).sum(1).mean() / 2

    (gradient,) = torch.autograd.grad(penalty(), discriminator.classes.weight)
    step = 1e-5
    with torch.no_grad():
        discriminator.classes.weight[1, 3] += step
    after = penalty()
    with torch.no_grad():
        discriminator.classes.weight[1, 3] -= 2 * step
    torch.testing.assert_close(gradient[1, 3], (after - penalty()) / (2 * step), rtol=1e-5, atol=1e-9)
    float32 = discriminator.float()
    value = Penalties(r1=1.0)(with_labels(float32, LABELS), images.float(), images.float())
    torch.testing.assert_close(value.double(), penalty_of(float32, images.float()).double())


def penalty_of(discriminator, images):
    images = images.detach().requires_grad_()
    gradient = torch.autograd.grad(discriminator(images, LABELS).sum(), images)[0]
    return gradient.square().flatten(1).sum(1).mean() / 2


@pytest.mark.parametrize("normalization", ["batch", "none"])
def test_a_checkpoint_with_classes_is_loaded_with_their_names(tmp_path, normalization):
    module = DCGAN(16, 1, LATENT, 4, generator_normalization=normalization, num_classes=CLASSES)
    content = {"state_dict": module.state_dict(), "class_names": ["cat", "dog", "2"]}
    torch.save(content, tmp_path / "a.ckpt")
    generator = load_generator(tmp_path / "a.ckpt")
    assert isinstance(generator, ConditionalGenerator)
    assert generator.class_names == ("cat", "dog", "2")
    latents = torch.randn(6, LATENT)
    torch.testing.assert_close(generator(latents, LABELS), module(latents, LABELS), rtol=0, atol=0)
    prior = as_prior(generator, label="dog")
    torch.testing.assert_close(prior(latents), module(latents, torch.ones(6, dtype=torch.int64)))
    for label, message in ((None, "set label to one of cat, dog, 2"), ("bird", "no class 'bird': choose one of cat")):
        with pytest.raises(InputError, match=message):
            as_prior(generator, label=label)
    discriminator = load_discriminator(tmp_path / "a.ckpt")  # its features are what the perceptual loss compares
    assert type(discriminator) is Discriminator
    images = torch.randn(2, 1, 16, 16)
    expected = module.discriminator.eval().main[:-1](images)
    torch.testing.assert_close(discriminator.main[:-1](images), expected)


def test_names_in_checkpoints_without_classes_stay():
    """Checkpoints of before are loaded: their names and shapes, written out."""
    expected = {
        **{"main.0.weight": (LATENT, 8, 4, 4), "main.3.weight": (8, 4, 4, 4), "main.6.weight": (4, 1, 4, 4)},
        **{f"main.{i}.{name}": (w,) for i, w in ((1, 8), (4, 4)) for name in ("weight", "bias")},
        **{f"main.{i}.running_{name}": (w,) for i, w in ((1, 8), (4, 4)) for name in ("mean", "var")},
        **{f"main.{i}.num_batches_tracked": () for i in (1, 4)},
    }
    of_d = {
        **{"main.0.weight": (4, 1, 4, 4), "main.2.weight": (8, 4, 4, 4), "main.5.weight": (1, 8, 4, 4)},
        **{f"main.3.{name}": (8,) for name in ("weight", "bias", "running_mean", "running_var")},
        "main.3.num_batches_tracked": (),
    }
    module = DCGAN(16, 1, LATENT, 4)
    shapes = {name: tuple(value.shape) for name, value in module.state_dict().items()}
    assert shapes == {
        **{f"generator.{name}": shape for name, shape in expected.items()},
        **{f"generator_ema.{name}": shape for name, shape in expected.items()},
        **{f"discriminator.{name}": shape for name, shape in of_d.items()},
    }


def test_labels_are_drawn_as_often_as_they_occur():
    generator = make_generator()
    generator.class_counts.copy_(torch.tensor([600, 300, 100]))
    drawn = generator.draw_labels(20_000, torch.Generator().manual_seed(0)).bincount() / 20_000
    torch.testing.assert_close(drawn, torch.tensor([0.6, 0.3, 0.1]), rtol=0, atol=0.015)


def test_a_class_is_found_by_name_before_it_is_by_number():
    names = ["0", "1", "10", "2"]
    assert find_label("2", names) == 3
    assert find_label(2, names) == 2
    assert find_label("3", names) == 3
    for wrong in ("4", 4, -1, "-1", "cat", "1.0"):
        with pytest.raises(
            InputError, match=r"^the model has no class '?(4|-1|cat|1\.0)'?: choose one of 0, 1, 10, 2$"
        ):
            find_label(wrong, names)
