"""`LatentRestoration` with a StyleGAN2 generator: the same degradations, searches and files as with a DCGAN."""

from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file, save_file

from gan_lightning.degradations import GaussianBlur, Identity, SquareMask
from gan_lightning.errors import InputError
from gan_lightning.inversion import InversionSettings, invert, whitening
from gan_lightning.modules.encoder import LatentEncoder
from gan_lightning.modules.restoration import LatentRestoration
from gan_lightning.networks.checkpoints import load_generator
from gan_lightning.networks.dcgan import Generator
from gan_lightning.networks.encoder_checkpoint import load_encoder
from gan_lightning.networks.stylegan2 import StyleGAN2Generator
from gan_lightning.networks.stylegan2_prior import StyleGAN2Prior
from tests.modules.test_encoder import fit
from tests.modules.test_restoration import run_test

SIZES = {"latent_dim": 6, "base_channels": 4, "max_channels": 8, "w_dim": 5, "mapping_layers": 2}
QUICK = InversionSettings(solver="adam", num_searches=2, num_steps=8, start="mean", refine_steps=4, noise_level=0.0)

OPTIMIZED_NOISE = replace(QUICK, noise_maps="optimized")


@pytest.fixture(autouse=True)
def few_probes(monkeypatch):
    """Measure a rougher preconditioner, which takes less time than the searches of these tests."""
    monkeypatch.setattr(whitening, "PROBES", 64)


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("stylegan2") / "G.safetensors"
    save_file(StyleGAN2Generator(16, **SIZES).state_dict(), path)
    return str(path)


@pytest.fixture(scope="module")
def images(weights):
    with torch.no_grad():
        return load_generator(weights)(torch.randn(3, 6, generator=torch.Generator().manual_seed(0))).clamp(-1, 1)


@pytest.mark.parametrize("space", [None, "z", "w+"])
def test_a_test_step_searches_in_the_space_that_was_asked_for(weights, images, tmp_path, space):
    module = LatentRestoration(weights, SquareMask(16, 4), seed=5, inversion=QUICK, space=space)
    metrics, (output,) = run_test(module, images, tmp_path)
    prior = StyleGAN2Prior(load_generator(weights), space or "w")
    rng = torch.Generator().manual_seed(5)
    expected = invert(prior, SquareMask(16, 4), SquareMask(16, 4)(images), QUICK, rng=rng, indices=range(3))
    torch.testing.assert_close(output.restored, expected.image, atol=1e-5, rtol=0)
    assert output.latent.shape == (3, {None: 5, "z": 6, "w+": 30}[space])
    assert metrics["test/images"] == 3
    assert module.photo_format.height == 16


def test_an_unknown_blur_of_photographs_is_removed(weights, images, tmp_path):
    module = LatentRestoration(weights, GaussianBlur(1.0), inversion=QUICK, blind_blur=True)
    metrics, (output,) = run_test(module, images, tmp_path)
    assert output.blur.sigma.isfinite().all()
    assert metrics["test/psnr"] > 0
    (record,) = tmp_path.glob("*/records/000000.safetensors")
    assert load_file(record)["latent"].shape == (5,)


def test_noise_maps_are_searched_beside_w(weights, images, tmp_path):
    hole = SquareMask(16, 4)
    _, (output,) = run_test(LatentRestoration(weights, hole, inversion=OPTIMIZED_NOISE), images, tmp_path)
    prior, rng = StyleGAN2Prior(load_generator(weights)), torch.Generator().manual_seed(0)
    expected = invert(prior, hole, hole(images), OPTIMIZED_NOISE, rng=rng, indices=range(3))
    torch.testing.assert_close(output.restored, expected.image, atol=1e-5, rtol=0)
    assert output.latent.shape == (3, 5)


@pytest.mark.parametrize("degradation", [None, GaussianBlur(1.0), SquareMask(8, 2)])
def test_images_are_compared_at_a_reduced_size(weights, images, tmp_path, degradation):
    blind = isinstance(degradation, GaussianBlur)
    inversion = replace(QUICK, loss_size=8)
    module = LatentRestoration(weights, degradation, inversion=inversion, blind_blur=blind)
    metrics, (output,) = run_test(module, images, tmp_path)
    assert (module.photo_format.height, module.photo_format.width) == (8, 8)
    assert output.degraded.shape == (3, 3, 8, 8)
    assert output.restored.shape == (3, 3, 16, 16)
    assert metrics["test/psnr"] > metrics["test/psnr_degraded"] - 10
    if degradation is None:
        small = torch.nn.functional.avg_pool2d(output.restored, 2)
        torch.testing.assert_close(small, output.degraded, atol=0.05, rtol=0)


def test_a_search_follows_the_ramps_of_the_projector(weights, images, tmp_path):
    inversion = replace(QUICK, schedule="projector", num_steps=6)
    _, (output,) = run_test(LatentRestoration(weights, inversion=inversion, seed=4), images, tmp_path)
    prior, rng = StyleGAN2Prior(load_generator(weights)), torch.Generator().manual_seed(4)
    expected = invert(prior, Identity(), images, inversion, rng=rng, indices=range(3))
    torch.testing.assert_close(output.latent, expected.latent, atol=1e-5, rtol=0)


def test_the_robust_chain_restores_in_the_same_way(weights, images, tmp_path):
    inversion = InversionSettings(solver="robust", num_steps=4, refine_steps=3, noise_level=0.0)
    hole = SquareMask(16, 4)
    _, (output,) = run_test(LatentRestoration(weights, hole, inversion=inversion), images, tmp_path)
    expected = invert(StyleGAN2Prior(load_generator(weights)), hole, hole(images), inversion, indices=range(3))
    torch.testing.assert_close(output.restored, expected.image, atol=1e-5, rtol=0)
    assert len(output.history) == 4 + 3 + 3 + 1


def test_spaces_are_told_apart_in_the_record_of_a_run(weights):
    digests = {
        LatentRestoration(weights, inversion=QUICK, space=space).restorer.settings()["generator"]
        for space in ("z", "w", "w+")
    }
    assert len(digests) == 3


@pytest.fixture(scope="module")
def encoder(weights, tmp_path_factory):
    """The checkpoint of an encoder of w, and its training."""
    folder = tmp_path_factory.mktemp("encoder")
    torch.manual_seed(0)
    sizes = {"base_channels": 8, "hidden_dim": 16, "batch_size": 16, "batches_per_epoch": 20, "validation_images": 24}
    module = LatentEncoder(weights, **sizes)
    trainer = fit(module, folder, epochs=3)
    return str(folder / "best.ckpt"), module, trainer


def test_an_encoder_learns_to_guess_w(encoder, weights):
    _, module, trainer = encoder
    assert module.generator.latent_dim == 5
    assert float(trainer.callback_metrics["val/latent_mse"]) < 0.9  # in units of the spread of w: the mean has 1
    latents, images, _ = module._draw(0, 3, 16)
    torch.testing.assert_close(module.generator(latents), images)
    # The generator is the same as in the file, and not part of the checkpoint.
    for name, value in load_generator(weights).state_dict().items():
        assert value.equal(module.generator.generator.state_dict()[name])
    assert not any("mapping" in name for name in module.state_dict())


def test_the_search_in_w_starts_from_the_guess_of_an_encoder(encoder, weights, images, tmp_path):
    path, _, _ = encoder
    still = replace(QUICK, num_searches=1, num_steps=0, refine="none", composite=False)
    module = LatentRestoration(weights, inversion=still, encoder_ckpt=path)
    _, (output,) = run_test(module, images, tmp_path)
    with torch.no_grad():
        guess = load_encoder(path, module.generator)(images)
    torch.testing.assert_close(output.latent, guess, atol=1e-5, rtol=0)
    with pytest.raises(InputError, match="guesses latents of w, but the search is in z: set space to w"):
        LatentRestoration(weights, inversion=still, encoder_ckpt=path, space="z")
    content = torch.load(path, weights_only=True)
    del content["hyper_parameters"]["space"]  # one of an earlier version
    torch.save(content, tmp_path / "old.ckpt")
    with pytest.raises(InputError, match="set space to z, or train an encoder with space w"):
        LatentRestoration(weights, inversion=still, encoder_ckpt=str(tmp_path / "old.ckpt"))


def test_settings_that_do_not_fit_are_refused(weights, tmp_path):
    torch.save(Generator(16, latent_dim=6, base_channels=4).state_dict(), tmp_path / "dcgan.pt")
    for path, options, message in (
        (weights, {"encoder_ckpt": "encoder.ckpt"}, "encoder.ckpt"),
        (weights, {"label": 1}, "this generator has 0 classes"),
        (weights, {"space": "v"}, "space 'v' is unknown"),
        (weights, {"inversion": InversionSettings(loss="perceptual")}, "holds no discriminator"),
        (tmp_path / "dcgan.pt", {"space": "w"}, "leave space out"),
        (weights, {"inversion": replace(QUICK, loss_size=5)}, "loss_size is 5, but .* choose 2, 4, 8, 16"),
        (weights, {"inversion": replace(QUICK, loss_size=8), "degradation": SquareMask(16, 4)}, "mask"),
        (weights, {"inversion": InversionSettings(solver="robust"), "space": "w+"}, "leave space out"),
        (tmp_path / "dcgan.pt", {"inversion": InversionSettings(solver="robust")}, "searches a StyleGAN2"),
        (tmp_path / "dcgan.pt", {"inversion": OPTIMIZED_NOISE}, "set noise_maps to held"),
    ):
        with pytest.raises(InputError, match=message):
            LatentRestoration(path, **options)
