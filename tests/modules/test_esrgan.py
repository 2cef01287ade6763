"""ESRGAN: two stages, checkpoints that others read, exact resume, and what its options refuse."""

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from lightning import Trainer, seed_everything
from safetensors.torch import save_file
from torch.utils.data import DataLoader

from gan_lightning import ESRGAN, InputError
from gan_lightning.degradations.second_order import degrade
from gan_lightning.images import to_uint8
from gan_lightning.modules.held_out_quality import bicubic
from gan_lightning.objectives import relativistic_average_discriminator, relativistic_average_generator
from gan_lightning.upscaler import load_upscaler
from tests.commands import CONFIGS, command
from tests.conftest import FACES

TINY = {"image_size": 16, "generator": (8, 1), "base_channels": 4}
CPU = torch.device("cpu")


def images(count=16, side=16):
    coarse = torch.rand(count, 3, 4, 4, generator=torch.Generator().manual_seed(0)) * 1.8 - 0.9
    return F.interpolate(coarse, (side, side), mode="bicubic").clamp(-1, 1)


def train(module, steps, folder, data=None, ckpt_path=None, **options):
    seed_everything(0, verbose=False)
    loader = DataLoader(images() if data is None else data, batch_size=4)
    settings = {"accelerator": "cpu", "logger": False, "enable_progress_bar": False, "enable_model_summary": False}
    settings |= {"num_sanity_val_steps": 0, "log_every_n_steps": 1, "enable_checkpointing": False}
    trainer = Trainer(max_steps=steps, default_root_dir=folder, **{**settings, **options})
    trainer.fit(module, loader, loader, ckpt_path=ckpt_path)
    return trainer


def weights(network):
    return {name: value.clone() for name, value in network.state_dict().items()}


def test_the_first_stage_leaves_the_discriminator_alone(tmp_path):
    module = ESRGAN(**TINY, adversarial_from=4, ema_decay=0.0)
    before_g, before_d = weights(module.generator), weights(module.discriminator)
    trainer = train(module, 4, tmp_path)
    assert all(torch.equal(value, before_d[name]) for name, value in module.discriminator.state_dict().items())
    assert not any(torch.equal(value, before_g[name]) for name, value in module.generator.named_parameters())
    assert {"train/l1", "val/psnr", "val/psnr_bicubic", "val/ssim"} <= trainer.callback_metrics.keys()
    assert "train/loss_d" not in trainer.callback_metrics

    module = ESRGAN(**TINY, adversarial_from=3)
    trainer = train(module, 5, tmp_path)
    assert module.global_step == 5  # steps of the discriminator are not counted
    assert {
        "train/loss_d",
        "train/adversarial",
        "train/features",
        "train/grad_norm_d",
    } <= trainer.callback_metrics.keys()
    parameters = dict(module.discriminator.named_parameters())
    assert len(parameters) == len(before_d.keys() & parameters.keys())
    assert all(parameter.grad is not None for parameter in parameters.values())


def test_it_learns_edges_that_bicubic_blurs(tmp_path):
    data = images(4, 4).sign().mul(0.8).repeat_interleave(4, 2).repeat_interleave(4, 3)
    torch.manual_seed(0)
    module = ESRGAN(16, scale=2, generator=(16, 1), base_channels=4, learning_rates=(2e-3, 1e-4), ema_decay=0.5)
    train(module, 200, tmp_path, data, limit_val_batches=0)
    small = degrade(data, 2, "bicubic", torch.Generator())
    with torch.no_grad():
        errors = [float((x - data).square().mean()) for x in (module(small), bicubic(small, 2))]
    assert errors[0] < 0.5 * errors[1]


def test_relativistic_average_loss_is_that_of_the_paper():
    real, fake = torch.randn(3, 1, 4, 4), torch.randn(3, 1, 4, 4)
    above = (real - fake.mean()).sigmoid().log().mean(), (1 - (fake - real.mean()).sigmoid()).log().mean()
    below = (1 - (real - fake.mean()).sigmoid()).log().mean(), (fake - real.mean()).sigmoid().log().mean()
    torch.testing.assert_close(relativistic_average_discriminator(real, fake), -sum(above) / 2)
    torch.testing.assert_close(relativistic_average_generator(fake, real), -sum(below) / 2)


@pytest.mark.parametrize("degradation", ["bicubic", "second_order"])
def test_a_resumed_run_has_the_weights_of_one_that_was_not_interrupted(degradation, tmp_path):
    options = {**TINY, "adversarial_from": 2, "degradation": degradation, "halve_every": 3}

    def make():
        torch.manual_seed(0)
        return ESRGAN(**options)

    whole, first, second = make(), make(), make()
    train(whole, 8, tmp_path)
    train(first, 4, tmp_path).save_checkpoint(tmp_path / "half.ckpt")
    train(second, 8, tmp_path, ckpt_path=tmp_path / "half.ckpt")
    for name, value in whole.state_dict().items():
        assert torch.equal(value, second.state_dict()[name]), name


def test_spandrel_and_upscale_read_a_checkpoint_and_its_weights(tmp_path):
    spandrel = pytest.importorskip("spandrel")
    module = ESRGAN(**TINY)
    train(module, 3, tmp_path).save_checkpoint(tmp_path / "esrgan.ckpt")
    save_file(
        {k: v.contiguous() for k, v in module.generator_ema.state_dict().items()}, tmp_path / "esrgan.safetensors"
    )
    theirs = spandrel.ModelLoader().load_from_file(tmp_path / "esrgan.safetensors")
    small = images(2, 12)
    with torch.no_grad():
        ours = module(small)
        # Spandrel clamps; the networks differ in the order of their sums, by their memory formats.
        torch.testing.assert_close(theirs((small + 1) / 2), ((ours + 1) / 2).clamp(0, 1), atol=1e-6, rtol=1e-5)
        assert torch.equal(to_uint8(2 * theirs((small + 1) / 2) - 1), to_uint8(ours))
    for name in ("esrgan.ckpt", "esrgan.safetensors"):
        upscaler = load_upscaler(tmp_path / name, CPU)
        assert (upscaler.scale, upscaler.channels) == (4, 3)
        assert torch.equal(to_uint8(upscaler(small)), to_uint8(ours))
    again = ESRGAN.load_from_checkpoint(tmp_path / "esrgan.ckpt", map_location="cpu")
    assert torch.equal(again(small), ours)


def test_panels_and_metrics_are_written_by_the_shipped_configurations(faces_root, own_folder):
    small = ["--data.root", faces_root, "--data.count", FACES, "--data.image_size", "32", "--data.batch_size", "8"]
    small += ["--model.image_size", "32", "--model.generator", "[8, 1]", "--model.base_channels", "4"]
    small += ["--trainer.accelerator", "cpu", "--trainer.max_steps", "4", "--trainer.val_check_interval", "2"]
    small += ["--trainer.log_every_n_steps", "1", "--model.adversarial_from", "2"]
    for fragment in ("surveillance", "256"):
        words = ["--config", CONFIGS / "esrgan.yaml", "--config", CONFIGS / "esrgan" / f"{fragment}.yaml"]
        assert command("fit", *words, *small, "--name", fragment) == 0
        run = Path("runs") / fragment
        assert (run / "checkpoints" / "best.ckpt").is_file()
        assert len(list((run / "samples").glob("step-*.png"))) == 2
        text = (run / "metrics.csv").read_text()
        assert "val/psnr_bicubic" in text
        assert "train/loss_d" in text


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"scale": 3}, "scale 3 is not supported"),
        ({"image_size": 20}, "image_size 20 is not supported: choose a multiple of 8"),
        ({"adversarial_from": -1}, "adversarial_from must not be negative"),
        ({"loss_weights": (1.0, -1.0, 0.0)}, "loss_weights must not be negative"),
        ({"ema_decay": 1.0}, "ema_decay must lie in"),
        ({"generator": (8, 0)}, "blocks must be at least 1"),
    ],
)
def test_unsupported_options_are_refused(options, message):
    with pytest.raises(InputError, match=message):
        ESRGAN(**{**TINY, **options})


def test_predict_names_the_command_that_enlarges(tmp_path):
    trainer = Trainer(accelerator="cpu", logger=False, default_root_dir=tmp_path, enable_checkpointing=False)
    with pytest.raises(InputError, match="use gan-lightning upscale"):
        trainer.predict(ESRGAN(**TINY), DataLoader(images(4, 4)))
