"""DCGAN apart from its training step, which tests/modules/test_training_step.py checks."""

import math
import traceback

import pytest
import torch
from lightning import Callback, Trainer, seed_everything
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.plugins import MixedPrecision
from torch.utils.data import DataLoader, Dataset

from gan_lightning import DCGAN, DivergedError, InputError
from gan_lightning.loggers.metrics_file import MetricsFile
from gan_lightning.modules.finite_watch import FiniteWatch
from gan_lightning.resume.last_checkpoint import LastCheckpoint

SIZE, LATENT, BATCH = 16, 6, 8
TINY = {"image_size": SIZE, "latent_dim": LATENT, "base_channels": 4}
SEED = 7


class Noise(Dataset):
    """Images (3,16,16) of noise in [-1, 1], the same for the same index."""

    def __init__(self, count=BATCH * 10):
        self.images = torch.rand(count, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(1)) * 2 - 1

    def __len__(self):
        return len(self.images)

    def __getitem__(self, index):
        return {"image": self.images[index]}


def loader(count=BATCH * 10):
    return DataLoader(Noise(count), batch_size=BATCH)


def train(module, steps, tmp_path, data=None, ckpt_path=None, **options):
    """Train on the CPU without output; return the trainer."""
    seed_everything(SEED)
    options = {"logger": False, "enable_checkpointing": False, "log_every_n_steps": 5} | options
    trainer = Trainer(
        accelerator="cpu",
        devices=1,
        max_steps=steps,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=tmp_path,
        num_sanity_val_steps=0,
        **options,
    )
    training, *validation = data if isinstance(data, tuple) else (data or loader(),)
    trainer.fit(module, training, *validation, ckpt_path=ckpt_path)
    return trainer


class Passes(Callback):
    """Counts forward passes of both networks and gradients of their weights, one row per step."""

    def __init__(self):
        self.rows, self.counts = [], {}

    def count(self, what):
        self.counts[what] = self.counts.get(what, 0) + 1

    def on_fit_start(self, trainer, module):
        for name in ("generator", "discriminator"):
            network = getattr(module, name)
            network.register_forward_hook(lambda *_, name=name: self.count(f"{name} forward"))
            last = network.main[-2] if name == "generator" else network.main[-1]  # its gradient comes first
            last.weight.register_post_accumulate_grad_hook(lambda *_, name=name: self.count(f"{name} gradient"))

    def on_train_batch_end(self, *_):
        self.rows.append(self.counts)
        self.counts = {}


@pytest.mark.parametrize(("fresh", "of_generator"), [(False, 1), (True, 2)])
def test_a_step_makes_no_unnecessary_pass(tmp_path, fresh, of_generator):
    """D's weights get no gradient in G's step, and G's none in D's: a third backward pass would show here."""
    passes = Passes()
    train(DCGAN(**TINY, fresh_latents=fresh), 3, tmp_path, callbacks=[passes], log_every_n_steps=100)
    expected = {"generator forward": of_generator, "discriminator forward": 3}
    # Both of D's gradients, for reals and fakes, are added up in one backward pass.
    expected |= {"generator gradient": 1, "discriminator gradient": 1}
    assert passes.rows[1:] == [expected] * 2  # the first step is logged, for which D looks once more


def test_networks_are_channels_last_and_adam_is_fused(tmp_path):
    module = DCGAN(**TINY)
    trainer = train(module, 2, tmp_path)
    for network in (module.generator, module.discriminator, module.generator_ema):
        weights = [p for p in network.parameters() if p.ndim == 4 and min(p.shape) > 1]
        assert weights
        assert all(weight.is_contiguous(memory_format=torch.channels_last) for weight in weights)
    assert all(optimizer.defaults["fused"] for optimizer in trainer.optimizers)


def test_logging_does_not_change_the_training(tmp_path):
    weights = []
    for interval in (1, 1000):
        torch.manual_seed(0)
        module = DCGAN(**TINY)
        train(module, 6, tmp_path, log_every_n_steps=interval)
        weights.append(module.state_dict())
    for name, tensor in weights[0].items():
        assert tensor.equal(weights[1][name]), name


def test_accumulation_without_batch_norm_is_the_same_step(tmp_path):
    states = []
    for accumulate in (1, 2):
        torch.manual_seed(0)
        norms = {"generator_normalization": "none", "discriminator_normalization": "none"}
        module = DCGAN(**TINY, **norms, accumulate=accumulate, fresh_latents=True)
        train(module, 5, tmp_path)
        states.append(module.state_dict())
    for name, tensor in states[0].items():
        torch.testing.assert_close(tensor, states[1][name], rtol=0, atol=1e-5)


@pytest.mark.parametrize("d_steps", [1, 2, 5])
def test_a_step_is_a_generator_iteration_everywhere(tmp_path, d_steps):
    logger = MetricsFile(tmp_path)
    checkpoint = ModelCheckpoint(tmp_path, filename="{step}", every_n_train_steps=4, save_top_k=-1)
    options = {"logger": logger, "callbacks": [checkpoint], "enable_checkpointing": True, "log_every_n_steps": 2}
    trainer = train(DCGAN(**TINY, d_steps=d_steps), 8, tmp_path, **options)
    assert trainer.global_step == 8
    assert {path.name for path in tmp_path.glob("*.ckpt")} == {"step=4.ckpt", "step=8.ckpt"}
    history = logger.history()
    names = {
        "loss_d",
        "loss_g",
        "d_x",
        "d_g_z_before",
        "d_g_z_after",
        "grad_norm_g",
        "grad_norm_d",
        "images_per_second",
    }
    assert {f"train/{name}" for name in names} == history.keys()
    for points in history.values():
        assert [step for step, _ in points] == [1, 2, 4, 6, 8]
        assert all(math.isfinite(value) for _, value in points)


def test_training_learns_a_single_color(tmp_path):
    """All real images have one color: after 150 steps the averaged generator's mean is close to it."""

    class Blue(Noise):
        def __getitem__(self, index):
            return {"image": torch.tensor([-0.5, 0.0, 0.7])[:, None, None].expand(3, SIZE, SIZE)}

    torch.manual_seed(0)
    module = DCGAN(**TINY, lr_g=2e-3, lr_d=2e-3, ema_decay=0.9, discriminator_normalization="none")
    train(module, 150, tmp_path, DataLoader(Blue(), batch_size=BATCH))
    mean = module.sample(64, torch.Generator().manual_seed(0)).mean((0, 2, 3))
    torch.testing.assert_close(mean, torch.tensor([-0.5, 0.0, 0.7]), rtol=0, atol=0.25)


def test_samples_depend_only_on_the_generator_and_never_on_the_batch():
    module = DCGAN(**TINY).train()
    images = module.sample(5, torch.Generator().manual_seed(3))
    assert images.equal(module.sample(5, torch.Generator().manual_seed(3)))
    latents = torch.randn(5, LATENT)
    torch.testing.assert_close(module(latents)[:2], module(latents[:2]))
    assert images.abs().max() <= 1
    assert images.dtype == torch.float32


def test_a_checkpoint_restores_networks_and_settings(tmp_path):
    module = DCGAN(**TINY, objective="hinge", d_steps=2, betas=(0.0, 0.9))
    trainer = train(module, 3, tmp_path)
    trainer.save_checkpoint(tmp_path / "made.ckpt")
    loaded = DCGAN.load_from_checkpoint(tmp_path / "made.ckpt", map_location="cpu")
    for name, tensor in module.state_dict().items():
        assert tensor.equal(loaded.state_dict()[name]), name
    assert (loaded.d_steps, loaded.betas) == (2, (0.0, 0.9))
    keys = torch.load(tmp_path / "made.ckpt", weights_only=True)["state_dict"].keys()
    assert {key.split(".")[0] for key in keys} == {"generator", "discriminator", "generator_ema"}


@pytest.mark.parametrize("precision", ["bf16-mixed", "16-mixed"])
def test_mixed_precision_stays_close_to_float32(tmp_path, precision):
    weights = {}
    for mode in ("32-true", precision):
        torch.manual_seed(0)
        module = DCGAN(**TINY, r1=1.0, gradient_clip=5.0)
        scaler = torch.amp.GradScaler("cpu", init_scale=2.0**10)
        # Lightning would take bf16 for 16-mixed on the CPU.
        options = {"precision": mode} if mode != "16-mixed" else {"plugins": MixedPrecision(mode, "cpu", scaler)}
        trainer = train(module, 10, tmp_path, **options)
        assert trainer.global_step == 10
        weights[mode] = torch.cat([p.detach().flatten() for p in module.generator.parameters()])
    drift = (weights[precision] - weights["32-true"]).norm() / weights["32-true"].norm()
    assert 0 < drift < 0.05


def test_gradients_are_clipped_unscaled(tmp_path):
    """With a loss scale of 2**16, gradients clipped before they are unscaled would be next to nothing."""
    logger = MetricsFile(tmp_path)
    torch.manual_seed(0)
    plugin = MixedPrecision("16-mixed", "cpu", torch.amp.GradScaler("cpu", init_scale=2.0**12))
    train(DCGAN(**TINY, gradient_clip=1e3), 2, tmp_path, plugins=plugin, logger=logger, log_every_n_steps=1)
    assert all(norm < 50 for name in ("g", "d") for _, norm in logger.history()[f"train/grad_norm_{name}"])


class Poisoned(Noise):
    """Images that are NaN from the sixth batch on."""

    def __getitem__(self, index):
        return {"image": self.images[index] * (math.nan if index >= 5 * BATCH else 1)}


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_a_loss_that_is_not_finite_stops_and_keeps_the_last_good_checkpoint(tmp_path, precision):
    checkpoint = ModelCheckpoint(tmp_path, filename="{step}", every_n_train_steps=2, save_top_k=-1)
    options = {"callbacks": [checkpoint], "enable_checkpointing": True, "precision": precision}
    with pytest.raises(DivergedError, match=r"NaN or infinite at step 6; last good checkpoint: .*step=4\.ckpt"):
        train(DCGAN(**TINY), 20, tmp_path, DataLoader(Poisoned(), batch_size=BATCH), **options)
    for path in tmp_path.glob("*.ckpt"):
        state = torch.load(path, weights_only=True)["state_dict"]
        assert all(tensor.isfinite().all() for tensor in state.values())


def test_a_loss_that_is_not_finite_leaves_the_last_checkpoint_as_it_was(tmp_path, monkeypatch):
    """Even if the loss is checked only before the networks are saved, as on an accelerator."""
    monkeypatch.setattr(FiniteWatch, "is_free", False)
    written = {}

    class Note(Callback):
        def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx):
            path = tmp_path / "last.ckpt"
            if path.is_file():
                written[trainer.global_step] = path.read_bytes()

    callbacks = [ModelCheckpoint(tmp_path, monitor="val/d_x"), LastCheckpoint(), Note()]
    options = {"callbacks": callbacks, "enable_checkpointing": True, "val_check_interval": 4, "log_every_n_steps": 100}
    trained = DataLoader(Poisoned(), batch_size=BATCH), loader(BATCH)
    with pytest.raises(DivergedError, match=r"infinite at step 6; last good checkpoint: .*last\.ckpt.*lower learning"):
        train(DCGAN(**TINY), 20, tmp_path, trained, **options)
    assert (tmp_path / "last.ckpt").read_bytes() == written[5]
    state = torch.load(tmp_path / "last.ckpt", weights_only=True)
    assert state["global_step"] == 4
    assert all(tensor.isfinite().all() for tensor in state["state_dict"].values())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"objective": "hing"}, "choose one of saturating"),
        ({"objective": "hinge", "label_smoothing": 0.1}, "label_smoothing needs"),
        ({"label_smoothing": 1.0}, r"label_smoothing must lie in \[0, 1\)"),
        ({"d_steps": 0}, "d_steps must be at least 1"),
        ({"ema_decay": 1.0}, "ema_decay"),
        ({"lr_g": -1.0}, "lr_g must not be negative"),
        ({"r1": -1.0}, "r1 must not be negative"),
        ({"gradient_clip": 0.0}, "gradient_clip must be positive"),
        ({"image_size": 60}, "image_size 60 is not supported"),
    ],
)
def test_invalid_settings_are_refused(arguments, message):
    with pytest.raises(InputError, match=message):
        DCGAN(**(TINY | arguments))


def test_the_score_of_held_out_images_is_the_mean_over_images(tmp_path):
    """The batches have 8, 8 and 3 images, the last three unlike the others, and the scores are far from 0.5."""
    torch.manual_seed(0)
    module = DCGAN(**TINY)
    with torch.no_grad():
        for layer in (module.discriminator.main[0], module.discriminator.main[-1]):
            layer.weight.mul_(20)
    held_out = Noise(2 * BATCH + 3)
    held_out.images[2 * BATCH :] = held_out.images[2 * BATCH :].sign()
    trainer = train(module, 1, tmp_path)
    trainer.validate(module, DataLoader(held_out, batch_size=BATCH), verbose=False)
    logged = float(trainer.callback_metrics["val/d_x"])
    with torch.no_grad():
        scores = module.discriminator.eval()(held_out.images).sigmoid()
    assert scores.std() > 0.1
    assert logged == pytest.approx(float(scores.mean()), rel=1e-4)
    by_batch = torch.stack([part.mean() for part in scores.split(BATCH)]).mean()
    assert logged != pytest.approx(float(by_batch), rel=1e-2)


def test_lightning_fetches_no_metric_after_a_step_that_is_not_logged(tmp_path, monkeypatch):
    """On a GPU each `item()` waits for the device: Lightning's own logging calls three after every batch."""
    fetched, item = [], torch.Tensor.item

    def counted(tensor):
        callers = [frame.filename for frame in traceback.extract_stack()]
        fetched.extend(path for path in callers if "logger_connector" in path)
        return item(tensor)

    monkeypatch.setattr(torch.Tensor, "item", counted)
    trainer = train(DCGAN(**TINY), 4, tmp_path, log_every_n_steps=2)
    assert fetched == []
    assert {"train/loss_d", "train/loss_g"} <= trainer.progress_bar_metrics.keys()
    assert math.isfinite(trainer.callback_metrics["train/grad_norm_d"])
