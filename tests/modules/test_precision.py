"""Mixed precision: a gradient scale for each network, exact on resume, and a step that never waits for the device."""

import copy
import math
from itertools import pairwise

import pytest
import torch
from lightning import Callback
from lightning.pytorch.plugins import MixedPrecision
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.data import DataLoader

from gan_lightning import DCGAN, DivergedError
from gan_lightning.loggers.metrics_file import MetricsFile
from gan_lightning.modules.finite_watch import FiniteWatch
from gan_lightning.modules.precision import ScalerPerNetwork
from gan_lightning.objectives import Penalties
from tests.modules.test_dcgan import BATCH, SIZE, TINY, Noise, loader, train

NETWORKS = ("generator", "discriminator")
BLUE = [-0.5, 0.0, 0.7]


class Blue(Noise):
    """One color with a little noise."""

    def __getitem__(self, index):
        return {"image": torch.tensor(BLUE)[:, None, None] + 0.1 * self.images[index]}


def float16(scale=2.0**10, growth_interval=2000):
    """Lightning's plugin for 16-mixed: asked for by name on the CPU, it would be bfloat16."""
    return MixedPrecision("16-mixed", "cpu", torch.amp.GradScaler("cpu", scale, growth_interval=growth_interval))


class Overflow(Callback):
    """Makes the gradient of one network infinite in one step; notes scales and weights after each."""

    def __init__(self, network, step):
        self.network, self.step = network, step
        self.scales, self.weights, self.averages = [], [], []

    def on_train_batch_start(self, trainer, module, batch, batch_idx):
        if trainer.global_step == self.step:
            weight = next(getattr(module, self.network).parameters())

            def spoil(weight):
                weight.grad.fill_(math.inf)
                handle.remove()

            handle = weight.register_post_accumulate_grad_hook(spoil)

    def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx):
        self.scales.append([trainer.precision_plugin.scalers[name].get_scale() for name in NETWORKS])
        self.weights.append([flat(getattr(module, name)) for name in NETWORKS])
        self.averages.append(flat(module.generator_ema))


def flat(network):
    return torch.cat([parameter.detach().flatten() for parameter in network.parameters()])


@pytest.mark.parametrize("clip", [None, 1.0])
@pytest.mark.parametrize("network", [0, 1], ids=NETWORKS)
def test_an_overflow_in_one_network_leaves_the_other_alone(tmp_path, network, clip):
    torch.manual_seed(0)
    module, watch = DCGAN(**TINY, gradient_clip=clip), Overflow(NETWORKS[network], step=2)
    trainer = train(module, 5, tmp_path, plugins=float16(), callbacks=[watch])
    other = 1 - network
    assert [scales[network] for scales in watch.scales] == [1024, 1024, 512, 512, 512]
    assert [scales[other] for scales in watch.scales] == [1024] * 5
    moved = [[not a.equal(b) for a, b in zip(*pair, strict=True)] for pair in pairwise(watch.weights)]
    assert [step[network] for step in moved] == [True, False, True, True]
    assert [step[other] for step in moved] == [True] * 4
    # What counts steps is not thrown off: a step that was left out is still an iteration, as in Lightning.
    assert trainer.global_step == 5
    decay = (1 + 2) / (10 + 2)
    expected = watch.averages[1].lerp(watch.weights[2][0], 1 - decay)
    torch.testing.assert_close(watch.averages[2], expected, rtol=0, atol=1e-7)
    for name, optimizer in zip(NETWORKS, trainer.optimizers, strict=True):
        taken = {int(state["step"]) for state in optimizer.state.values()}
        assert taken == {4 if name == NETWORKS[network] else 5}
    assert all(tensor.isfinite().all() for tensor in module.state_dict().values())


def test_a_network_that_never_steps_is_an_error(tmp_path):
    """Without an error, a network whose gradients are finite at no scale would skip every step."""

    def spoil(weight):
        weight.grad.fill_(math.nan)

    module, logger = DCGAN(**TINY), MetricsFile(tmp_path)
    next(module.generator.parameters()).register_post_accumulate_grad_hook(spoil)
    with pytest.raises(DivergedError, match=r"the generator's gradients overflow at every step.*bf16-mixed"):
        train(module, 100, tmp_path, plugins=float16(), logger=logger)
    history = logger.history()
    assert history["train/scale_g"][:2] == [(1, 512.0), (5, 32.0)]
    assert {value for _, value in history["train/scale_d"]} == {1024.0}


def test_scaling_changes_nothing_but_rounding(tmp_path, monkeypatch):
    """A scale is a power of two, so that scaling is exact: without float16 the weights are those of float32."""
    monkeypatch.setattr(ScalerPerNetwork, "autocast_context_manager", lambda self: torch.autocast("cpu", enabled=False))
    states = []
    for options in ({}, {"plugins": float16(2.0**8)}):
        torch.manual_seed(0)
        module = DCGAN(**TINY, r1=1.0, gradient_clip=0.5)
        train(module, 10, tmp_path, **options)
        states.append(module.state_dict())
    for name, tensor in states[0].items():
        torch.testing.assert_close(tensor, states[1][name], rtol=0, atol=1e-6, msg=lambda text, name=name: name + text)


def test_a_resumed_run_has_both_scales_and_ends_with_the_same_weights(tmp_path):
    def run(steps, *callbacks, ckpt_path=None):
        torch.manual_seed(0)
        module = DCGAN(**TINY)
        plugin = float16(growth_interval=3)
        trainer = train(module, steps, tmp_path, loader(BATCH), ckpt_path, plugins=plugin, callbacks=[*callbacks])
        return module.state_dict(), trainer

    overflow = Overflow("discriminator", step=1)
    _, first = run(4, overflow)
    first.save_checkpoint(tmp_path / "cut.ckpt")
    saved = torch.load(tmp_path / "cut.ckpt", weights_only=True)["ScalerPerNetwork"]
    assert {name: (state["scale"], state["_growth_tracker"]) for name, state in saved.items()} == {
        "generator": (2048, 1),  # grown after three steps
        "discriminator": (512, 2),
    }
    whole, trainer = run(8, copy.copy(overflow))
    resumed, trainer_resumed = run(8, ckpt_path=tmp_path / "cut.ckpt")
    assert trainer_resumed.precision_plugin.state_dict() == trainer.precision_plugin.state_dict()
    for name, tensor in whole.items():
        assert tensor.equal(resumed[name]), name


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_penalties_and_their_gradients_are_float32_under_autocast(precision):
    """Not only in value: the second derivative's backward pass has no operation in half precision."""
    torch.manual_seed(0)
    discriminator = DCGAN(**TINY, discriminator_normalization="none").discriminator
    real, fake = torch.rand(2, 4, 3, SIZE, SIZE) * 2 - 1
    gradients = []
    for enabled in (False, True):
        discriminator.zero_grad()
        with torch.autocast("cpu", getattr(torch, precision), enabled, cache_enabled=False), HalfPrecision() as seen:
            assert (discriminator(real).dtype != torch.float32) == enabled
            seen.operations.clear()
            rng = torch.Generator().manual_seed(0)
            penalty = Penalties(r1=1.0, r2=1.0, gradient_penalty=1.0)(discriminator, real, fake, rng)
            penalty.backward()
        assert penalty.dtype == torch.float32
        assert not seen.operations
        gradients.append([p.grad for p in discriminator.parameters() if p.grad is not None])
    assert all(a.equal(b) for a, b in zip(*gradients, strict=True))


def test_losses_go_backward_outside_autocast(tmp_path, monkeypatch):
    """Autocast reaches the backward pass too, where CUDA's convolutions would take a penalty's second derivative."""
    seen, backward = [], DCGAN.manual_backward

    def watched(self, loss, *args, **kwargs):
        seen.append(torch.is_autocast_enabled("cpu"))
        backward(self, loss, *args, **kwargs)

    monkeypatch.setattr(DCGAN, "manual_backward", watched)
    train(DCGAN(**TINY), 2, tmp_path, precision="bf16-mixed")
    assert seen == [False] * 4


class HalfPrecision(TorchDispatchMode):
    """Records the operations whose results are in half precision."""

    def __init__(self):
        super().__init__()
        self.operations = []

    def __torch_dispatch__(self, operation, types, arguments=(), options=None):
        results = operation(*arguments, **(options or {}))
        for result in results if isinstance(results, tuple | list) else [results]:
            if isinstance(result, torch.Tensor) and result.dtype in (torch.float16, torch.bfloat16):
                self.operations.append(operation)
        return results


def test_every_precision_trains_to_the_same_place(tmp_path):
    """150 steps on faces of one color with noise: it is found, in each precision.

    The penalty is strong, so that the networks settle; with a weak one they circle about the color, and how far they
    are from it at a certain step depends on the rounding.
    """
    for mode in ("32-true", "bf16-mixed", "16-mixed"):
        options = {"plugins": float16()} if mode == "16-mixed" else {"precision": mode}
        torch.manual_seed(0)
        module = DCGAN(**TINY, lr_g=2e-3, lr_d=2e-3, ema_decay=0.95, discriminator_normalization="none", r1=10.0)
        train(module, 150, tmp_path, DataLoader(Blue(), batch_size=BATCH), **options)
        mean = module.sample(64, torch.Generator().manual_seed(0)).mean((0, 2, 3))
        torch.testing.assert_close(mean, torch.tensor(BLUE), rtol=0, atol=0.05, msg=lambda text, mode=mode: mode + text)


class Waits(TorchDispatchMode):
    """Counts the operations that return a value to Python, which would wait for an accelerator."""

    NAMES = ("_local_scalar_dense", "nonzero", "equal", "masked_select", "unique2")

    def __init__(self):
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, operation, types, arguments=(), options=None):
        self.count += operation.name().split("::")[1].split(".")[0] in self.NAMES
        return operation(*arguments, **(options or {}))


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed", "16-mixed"])
@pytest.mark.parametrize("variant", [{}, {"r1": 1.0, "gradient_clip": 1.0, "d_steps": 2, "accumulate": 2}])
def test_a_step_that_is_not_logged_never_waits_for_the_device(tmp_path, monkeypatch, precision, variant):
    """Only on the CPU losses are checked at each step, which is disabled here."""
    monkeypatch.setattr(FiniteWatch, "is_free", False)
    counts, step = [], DCGAN.training_step

    def counted(self, batch, batch_idx):
        with Waits() as waits:
            step(self, batch, batch_idx)
        counts.append((self._norms_are_due, waits.count))

    monkeypatch.setattr(DCGAN, "training_step", counted)
    options = {"plugins": float16()} if precision == "16-mixed" else {"precision": precision}
    train(DCGAN(**TINY, **variant), 5, tmp_path, log_every_n_steps=100, **options)
    logged = [count for due, count in counts if due]
    assert logged[0] > 0, "or this counts nothing"
    assert [count for due, count in counts if not due] == [0] * (len(counts) - 1)


def test_losses_on_an_accelerator_are_noted_without_a_look():
    """Tensors on the meta device hold no values, so that reading one raises."""
    watch = FiniteWatch()
    for step in (1, 2):
        watch.add(step, torch.empty((), device="meta"), torch.empty((), device="meta"))
    assert not watch.is_free
    with pytest.raises(RuntimeError, match="meta"):
        watch.check(None)
