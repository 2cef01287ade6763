"""Generators are read from the tutorial's files and ours; other files are refused."""

import os
import pickle
from pathlib import Path

import pytest
import torch

from gan_lightning import DCGAN, InputError, load_generator
from gan_lightning.networks import Discriminator, Generator
from gan_lightning.networks.checkpoints import load_discriminator
from tests.networks.tutorial import tutorial_discriminator, tutorial_generator


@pytest.mark.parametrize(
    "wrap",
    [
        lambda state: state,
        lambda state: {"epoch": 3, "netG": state, "netD": tutorial_discriminator(8).state_dict()},
        lambda state: {"checkpoint": {"model": {f"module.{name}": value for name, value in state.items()}}},
        lambda state: {name: value for name, value in state.items() if "num_batches" not in name},
    ],
)
def test_reads_the_tutorials_state_dict(tmp_path, wrap):
    theirs = tutorial_generator(latent_dim=20, width=8).eval()
    torch.save(wrap(theirs.state_dict()), tmp_path / "netG.pth")
    ours = load_generator(tmp_path / "netG.pth")
    latents = torch.randn(4, 20, 1, 1)
    torch.testing.assert_close(ours(latents), theirs.main(latents))
    assert not ours.training


@pytest.mark.parametrize(
    "architecture",
    [
        {"image_size": 16, "channels": 1, "latent_dim": 5, "base_channels": 4},
        {"image_size": 128, "channels": 3, "latent_dim": 9, "base_channels": 2, "normalization": "none"},
    ],
)
def test_architecture_is_read_off_the_shapes(tmp_path, architecture):
    generator = Generator(**architecture).eval()
    torch.save({"G": generator.state_dict()}, tmp_path / "G.pt")
    latents = torch.randn(2, architecture["latent_dim"])
    assert load_generator(tmp_path / "G.pt")(latents).equal(generator(latents))


def test_of_our_own_checkpoint_the_average_is_taken(tmp_path):
    module = DCGAN(image_size=16, base_channels=4, latent_dim=8)
    with torch.no_grad():
        for parameter in module.generator_ema.parameters():
            parameter.add_(0.01)
    torch.save({"state_dict": module.state_dict(), "hyper_parameters": dict(module.hparams)}, tmp_path / "best.ckpt")
    latents = torch.randn(2, 8)
    assert load_generator(tmp_path / "best.ckpt")(latents).equal(module(latents))


class WritesAFile:
    """An object that writes a file when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("save", [torch.save, lambda content, path: Path(path).write_bytes(pickle.dumps(content))])
def test_a_pickle_with_code_is_refused_and_not_run(tmp_path, save):
    trace = tmp_path / "trace"
    save({"netG": tutorial_generator(8, 8).state_dict(), "x": WritesAFile(trace)}, tmp_path / "evil.pth")
    with pytest.raises(InputError, match=r"evil\.pth is refused"):
        load_generator(tmp_path / "evil.pth")
    assert not trace.exists()


def test_other_files_are_refused_in_one_line(tmp_path):
    torch.save(Generator(16, base_channels=4).state_dict(), tmp_path / "whole.pth")
    (tmp_path / "half.pth").write_bytes((tmp_path / "whole.pth").read_bytes()[:5000])
    (tmp_path / "empty.pth").touch()
    (tmp_path / "text.pth").write_text("not a checkpoint")
    torch.save(Discriminator(16, base_channels=4).state_dict(), tmp_path / "discriminator.pth")
    torch.save({"weights": torch.zeros(3)}, tmp_path / "other.pth")
    for name in ("half.pth", "empty.pth", "text.pth", "discriminator.pth", "other.pth", "absent.pth"):
        with pytest.raises(InputError, match=name) as caught:
            load_generator(tmp_path / name)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("normalization", ["batch", "spectral", "none"])
def test_the_discriminator_of_our_checkpoint_is_the_one_that_was_trained(tmp_path, normalization):
    module = DCGAN(image_size=32, channels=1, base_channels=4, discriminator_normalization=normalization)
    path = tmp_path / "best.ckpt"
    torch.save({"state_dict": module.state_dict(), "hyper_parameters": dict(module.hparams)}, path)
    read = load_discriminator(path)
    images = torch.randn(3, 1, 32, 32)
    torch.testing.assert_close(read(images), module.discriminator.eval()(images).detach(), atol=1e-7, rtol=1e-3)
    trained = module.discriminator.state_dict()
    assert all(torch.equal(value, trained[name]) for name, value in read.state_dict().items())
    assert not read.training
    assert not any(parameter.requires_grad for parameter in read.parameters())
    torch.save(module.generator.state_dict(), path)
    with pytest.raises(InputError, match="holds no discriminator"):
        load_discriminator(path)
