"""The StyleGAN2 generator against the public implementation and the formulas of the papers, and its files."""

import os
import pickle
import shlex
import sys

import pytest
import torch
from safetensors.torch import load_file, save_file
from scipy.signal import convolve2d
from torch.nn import functional as F

from gan_lightning.errors import InputError
from gan_lightning.networks.checkpoints import load_generator
from gan_lightning.networks.stylegan2 import Mapping, StyleGAN2Generator
from gan_lightning.networks.stylegan2_layers import filter_images, low_pass, upsample
from gan_lightning.networks.stylegan2_synthesis import SynthesisLayer
from tests.networks.stylegan2 import reference, tiny_stylegan2, weights


def small(**changes):
    torch.manual_seed(0)
    sizes = {"image_size": 16, "latent_dim": 6, "base_channels": 4, "max_channels": 8, "w_dim": 5, "mapping_layers": 2}
    return StyleGAN2Generator(**{**sizes, **changes}).eval()


def relative(ours, theirs):
    return float((ours - theirs).abs().max() / theirs.abs().max())


@torch.no_grad()
def test_the_public_implementation_is_reproduced():
    """In float32, by 1e-5 of the largest value for w and 1e-4 for images, as the project asks for."""
    generator, expected = tiny_stylegan2(), reference()
    z = expected["out.z"]
    w = generator.mapping(z)
    assert relative(w, expected["out.w"]) < 1e-5
    assert relative(generator.mapping(z, truncation_psi=0.7), expected["out.w_truncated_0_7"]) < 1e-5
    for mode in ("none", "const"):
        assert relative(generator.synthesis(w, noise_mode=mode), expected[f"out.image_noise_{mode}"]) < 1e-5
    assert relative(generator(z), expected["out.image_noise_const"]) < 1e-5
    truncated = generator(z, truncation_psi=0.7, noise_mode="const")
    assert relative(truncated, expected["out.image_truncated_0_7"]) < 1e-5
    assert relative(generator.double()(z.double()), expected["out.image_noise_const"]) < 1e-5


@pytest.mark.parametrize("up", [False, True])
def test_a_layer_convolves_with_the_modulated_weights_of_each_image(up):
    """Equations 1 and 3 of arXiv 1912.04958, with the weights of each image written out."""
    torch.manual_seed(0)
    layer = SynthesisLayer(4, 6, w_dim=5, size=8, up=up).double()
    with torch.no_grad():
        layer.noise_strength.fill_(0.7)
        layer.bias.normal_()
    features, w = torch.randn(3, 4, 4 if up else 8, 4 if up else 8).double(), torch.randn(3, 5).double()
    noise = torch.randn(3, 1, 8, 8).double()
    ours = layer(features, layer.styles(w), noise)
    for row in range(3):
        style = w[row] @ layer.affine.weight.T / 5**0.5 + layer.affine.bias
        weight = layer.weight * style[:, None, None]
        weight = weight / (weight.square().sum((1, 2, 3), keepdim=True) + 1e-8).sqrt()
        if up:
            spread = F.conv_transpose2d(features[row : row + 1], weight.transpose(0, 1), stride=2)
            image = filter_images(spread, 4 * low_pass().double(), padding=1)
        else:
            image = F.conv2d(features[row : row + 1], weight, padding=1)
        image = F.leaky_relu(image + 0.7 * noise[row] + layer.bias[:, None, None], 0.2) * 2**0.5
        torch.testing.assert_close(ours[row : row + 1], image)


def test_filters_are_convolutions_of_the_image_with_zeros_between_pixels():
    images = torch.randn(2, 3, 5, 5)
    kernel = torch.rand(4, 4)
    spread = torch.zeros(2, 3, 12, 12)
    spread[..., 2:12:2, 2:12:2] = images
    filtered, upsampled = filter_images(images, kernel, padding=1), upsample(images, kernel)
    assert upsampled.shape == (2, 3, 10, 10)
    for row in range(2):
        for channel in range(3):
            expected = convolve2d(F.pad(images, (1, 1, 1, 1))[row, channel], kernel, mode="valid")
            torch.testing.assert_close(filtered[row, channel], torch.tensor(expected))
            expected = convolve2d(spread[row, channel], 4 * kernel, mode="full")[3:13, 3:13]
            torch.testing.assert_close(upsampled[row, channel], torch.tensor(expected))
    constant = upsample(torch.ones(1, 1, 6, 6), low_pass())
    torch.testing.assert_close(constant[..., 2:-2, 2:-2], torch.ones(1, 1, 8, 8))


def test_truncation_draws_to_the_average():
    generator = tiny_stylegan2()
    z, average = torch.randn(2, 64), generator.mapping.w_avg
    whole = generator.mapping(z)
    torch.testing.assert_close(generator.mapping(z, truncation_psi=0.0), average.expand_as(whole))
    part = generator.mapping(z, truncation_psi=0.5, truncation_cutoff=3)
    torch.testing.assert_close(part[:, :3], (whole[:, :3] + average) / 2)
    assert part[:, 3:].equal(whole[:, 3:])


def test_noise_is_that_of_the_buffers_or_seeded_or_none():
    generator, rng = tiny_stylegan2(), torch.Generator()
    w = generator.mapping(torch.randn(2, 64))[:, 0]  # one w for all layers

    def image(mode=None, seed=0):
        return generator.synthesis(w, noise_mode=mode, rng=rng.manual_seed(seed))

    assert image("const").equal(image("const", seed=1))
    assert image("random").equal(image("random"))
    assert not image("random").isclose(image("random", seed=1)).any(0).all()
    assert not image("none").isclose(image("const")).any(0).all()
    drawn = image("random") - image("none")
    assert not drawn[0].isclose(drawn[1], rtol=0.1).all()  # each image has noise of its own
    assert image().equal(image("const"))
    assert generator.train().synthesis(w, rng=rng.manual_seed(3)).equal(image("random", seed=3))
    with pytest.raises(InputError, match="'loud' is unknown: choose one of const, none, random"):
        image("loud")
    with pytest.raises(InputError, match=r"expected ws of shape \(B, 8, 64\) but got \(2, 7, 64\)"):
        generator.synthesis(torch.zeros(2, 7, 64))


def test_labels_change_the_image_and_are_asked_for(tmp_path):
    generator = small(label_dim=3)
    z, classes = torch.randn(2, 6), torch.tensor([2, 0])
    ours = generator(z, classes)
    torch.testing.assert_close(ours, generator(z, F.one_hot(classes, 3).float()))
    assert not ours.isclose(generator(z, torch.tensor([1, 0]))).flatten(1).all(1)[0]
    embedded = F.linear(F.one_hot(classes, 3).float() / 3**0.5, generator.mapping.embed.weight)
    parts = [rows / rows.square().mean(1, keepdim=True).sqrt() for rows in (z, embedded)]
    first = F.leaky_relu(torch.cat(parts, 1) @ generator.mapping.fc0.weight.T * 0.01 / 11**0.5, 0.2) * 2**0.5
    second = F.leaky_relu(first @ generator.mapping.fc1.weight.T * 0.01 / 5**0.5, 0.2) * 2**0.5
    torch.testing.assert_close(generator.mapping(z, classes)[:, 0], second)
    with pytest.raises(InputError, match="has 3 classes: give c"):
        generator(z)
    with pytest.raises(InputError, match="no classes: leave c out"):
        small()(z, classes)
    save_file(generator.state_dict(), tmp_path / "G.safetensors")
    assert load_generator(tmp_path / "G.safetensors")(z, classes).equal(ours)


def test_training_tracks_the_average_of_w():
    mapping = Mapping(4, 0, 3, num_ws=6, num_layers=2)
    z = torch.randn(7, 4)
    w = mapping.eval()(z)[:, 0]
    assert not mapping.w_avg.any()
    mapping.train()(z)
    torch.testing.assert_close(mapping.w_avg, 0.005 * w.mean(0).detach())


@pytest.mark.parametrize("size", [16, 32, 64, 128, 256, 512, 1024])
def test_every_size_fits_together(size):
    with torch.device("meta"):
        generator = StyleGAN2Generator(size)
        images = generator(torch.empty(2, 512))
    assert images.shape == (2, 3, size, size)
    widths = [layer.weight.shape[0] for layer in generator.modules() if isinstance(layer, SynthesisLayer)]
    assert (max(widths), min(widths)) == (min(64 * size // 4, 512), 64)
    assert generator.synthesis.num_ws == 2 * len(generator.synthesis.sizes)


def test_images_start_with_a_spread_of_about_one():
    """Weights are drawn so that no layer amplifies its input."""
    generator = small(image_size=32, base_channels=16, max_channels=32, w_dim=32, latent_dim=32)
    with torch.no_grad():
        std = generator(torch.randn(64, 32)).std()
    assert 0.5 < std < 4


@pytest.mark.parametrize("threads", [1, 2])
def test_an_image_is_bit_identical_in_any_batch(threads):
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        generator = tiny_stylegan2()
        ws = generator.mapping(torch.randn(9, 64)).detach()
        probe = torch.randn(3, 32, 32)

        def forward_and_backward(rows):
            leaf = ws[rows].clone().requires_grad_()
            images = generator.synthesis(leaf)
            return images.detach(), torch.autograd.grad((images * probe).sum(), leaf)[0]

        whole = forward_and_backward(slice(0, 8))
        for rows in (slice(0, 1), slice(5, 6), slice(2, 4), slice(0, 6)):
            for ours, all_of_them in zip(forward_and_backward(rows), whole, strict=True):
                assert ours.equal(all_of_them[rows])
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize(
    "sizes",
    [
        {},
        {"image_size": 32, "channels": 1, "mapping_layers": 1, "max_channels": 4},
        {"image_size": 64, "base_channels": 2, "max_channels": 16, "label_dim": 2},
    ],
)
@pytest.mark.parametrize("wrap", [lambda s: s, lambda s: {f"G_ema.{n}": v for n, v in s.items()}])
def test_the_configuration_is_read_off_the_shapes(tmp_path, sizes, wrap):
    generator = small(**sizes)
    save_file(wrap(generator.state_dict()), tmp_path / "G.safetensors")
    loaded = load_generator(tmp_path / "G.safetensors")
    z = torch.randn(2, 6), torch.tensor([1, 0]) if "label_dim" in sizes else None
    assert loaded(*z).equal(generator(*z))
    assert not loaded.training
    torch.save({"state_dict": generator.state_dict()}, tmp_path / "G.pt")
    assert load_generator(tmp_path / "G.pt")(*z).equal(generator(*z))


def test_of_two_generators_the_averaged_one_is_read(tmp_path):
    states = {"G": small().state_dict(), "G_ema": {n: v + 0.1 for n, v in small().state_dict().items()}}
    both = {f"{prefix}.{name}": value for prefix, state in states.items() for name, value in state.items()}
    save_file(both, tmp_path / "both.safetensors")
    loaded = load_generator(tmp_path / "both.safetensors")
    assert loaded.mapping.w_avg.equal(states["G_ema"]["mapping.w_avg"])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"synthesis.b8.conv0.weight": torch.zeros(64, 32, 3, 3)},
            r"synthesis.b8.conv0.weight: expected shape \(64, 64, 3, 3\) but got shape \(64, 32, 3, 3\)",
        ),
        ({"mapping.fc2.bias": None}, r"mapping.fc2.bias: expected shape \(64,\) but it is missing"),
        ({"mapping.w_avg": None}, "mapping.w_avg: expected a tensor of 1 dimensions but it is missing"),
        (
            {"synthesis.b16.skip.weight": torch.zeros(64, 64, 1, 1)},
            r"synthesis.b16.skip.weight: expected no such tensor but got shape \(64, 64, 1, 1\)",
        ),
        ({"synthesis.b2048.torgb.weight": torch.zeros(3, 8, 1, 1)}, "image_size 2048 is not supported"),
    ],
)
def test_the_first_tensor_that_does_not_fit_is_named(tmp_path, change, message):
    state = {name: value for name, value in {**weights(), **change}.items() if value is not None}
    save_file(state, tmp_path / "other.safetensors")
    with pytest.raises(InputError, match=message) as caught:
        load_generator(tmp_path / "other.safetensors")
    assert "other.safetensors holds a StyleGAN2 generator of an unsupported configuration" in str(caught.value)
    assert "\n" not in str(caught.value)


class WritesAFile:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def test_a_pickled_network_is_refused_with_the_lines_that_export_it(tmp_path, monkeypatch):
    (tmp_path / "evil.pkl").write_bytes(pickle.dumps({"G_ema": WritesAFile(tmp_path / "trace")}))
    with pytest.raises(InputError, match=r"evil\.pkl is refused: unpickling it could run code"):
        load_generator(tmp_path / "evil.pkl")
    assert not (tmp_path / "trace").exists()
    generator = small()
    (tmp_path / "G.pkl").write_bytes(pickle.dumps({"G_ema": generator}))
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError) as caught:
        load_generator("G.pkl")
    assert "\n" not in str(caught.value)
    program, option, code, *arguments = shlex.split(str(caught.value).split("give that file: ")[1])
    assert (program, option, arguments) == ("python", "-c", ["G.pkl", "G.safetensors"])
    monkeypatch.setattr(sys, "argv", ["-c", *arguments])
    exec(code, {})  # as its reader would, beside the code that pickled it
    z = torch.randn(2, 6)
    assert load_generator("G.safetensors")(z).equal(generator(z))


def test_damaged_files_are_refused(tmp_path):
    save_file(weights(), tmp_path / "whole.safetensors")
    (tmp_path / "half.safetensors").write_bytes((tmp_path / "whole.safetensors").read_bytes()[:9000])
    save_file({"other": torch.zeros(2)}, tmp_path / "none.safetensors")
    for name, message in (("half", "not a whole checkpoint"), ("none", "no StyleGAN2 generator")):
        with pytest.raises(InputError, match=message):
            load_generator(tmp_path / f"{name}.safetensors")
    assert load_file(tmp_path / "whole.safetensors").keys() == weights().keys()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"image_size": 48}, "image_size 48 is not supported: choose one of 16, 32"),
        ({"channels": 4}, "choose 1 .* or 3"),
        ({"w_dim": 0}, "w_dim must be at least 1"),
        ({"label_dim": -1}, "label_dim must be at least 0"),
    ],
)
def test_unsupported_arguments_are_refused(arguments, message):
    with pytest.raises(InputError, match=message):
        StyleGAN2Generator(**arguments)
