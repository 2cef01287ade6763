"""Replays of a step: all but the capture itself, which needs a GPU (benchmarks/gpu_graphs.py).

`Recording` stands for a CUDA graph. As one does, it repeats the operations of a step at the same addresses: it runs the
step again, on the images and the learning rates of the capture.
"""

import logging
from types import SimpleNamespace

import pytest
import torch
from lightning import Callback
from torch.optim import SGD, Adam
from torch.optim.lr_scheduler import LinearLR, OneCycleLR

from gan_lightning import DCGAN, InputError, StyleGAN2
from gan_lightning.augmentation import Augmentation
from gan_lightning.modules import step_graphs
from gan_lightning.modules.captured_step import CapturedStep, rate_tensors, rates_in_tensors, settings_of, state_of
from gan_lightning.modules.step_graphs import StepGraphs, StepKind
from tests.modules.test_dcgan import BATCH, TINY, loader, train


class Recording:
    """A graph whose replay runs the step, which leaves the trainer's count of steps to whoever replays it."""

    def __init__(self, graphs, step, inputs, kind, optimizers, rates):
        self.run, self.inputs, self.kind, self.optimizers, self.rates = step, inputs, kind, optimizers, rates
        self.progress = graphs._module.trainer.fit_loop.epoch_loop.manual_optimization.optim_step_progress
        self.settings = [[dict(group) for group in optimizer.param_groups] for optimizer in optimizers]
        self.outputs, self.replays = {}, 0

    def replay(self):
        self.replays += 1
        counts = self.progress.total.ready, self.progress.total.completed
        now = [[dict(group) for group in optimizer.param_groups] for optimizer in self.optimizers]
        for optimizer, groups in zip(self.optimizers, self.settings, strict=True):
            for group, before in zip(optimizer.param_groups, groups, strict=True):
                group.update({name: value for name, value in before.items() if name != "params"})
        with plain_rates(self.optimizers, self.rates):
            self.outputs.update(self.run(self.inputs, self.kind))
        for optimizer, groups in zip(self.optimizers, now, strict=True):
            for group, before in zip(optimizer.param_groups, groups, strict=True):
                group.update(before)
        self.progress.total.ready, self.progress.total.completed = counts


def plain_rates(optimizers, rates):
    """Adam takes tensors on the CPU only as capturable, which it is not there: give it their values."""
    context = rates_in_tensors(optimizers, rates)

    class Plain:
        def __enter__(self):
            context.__enter__()
            for optimizer in optimizers:
                for group in optimizer.param_groups:
                    group.update(lr=float(group["lr"]), capturable=False)

        def __exit__(self, *raised):
            context.__exit__(*raised)

    return Plain()


@pytest.fixture
def recordings(monkeypatch):
    """Record steps where a GPU would capture them; return what was recorded, by kind."""
    made = {}

    def capture(self, step, inputs, kind):
        optimizers, device = self._module.trainer.optimizers, inputs[0].device
        read, rates = (
            tuple(map(torch.zeros_like, inputs)),
            [rate_tensors(optimizer, device) for optimizer in optimizers],
        )
        if kind.of_generator:  # the capture runs the step's Python, which counts
            step_graphs.count_optimizer_step(self._module.trainer)
        made[kind] = recording = Recording(self, step, read, kind, optimizers, rates)
        settings = list(map(settings_of, optimizers))
        state = state_of(self._module)
        return CapturedStep(recording, read, recording.outputs, optimizers, rates, settings, state)

    monkeypatch.setattr(StepGraphs, "_capture", capture)
    monkeypatch.setattr(step_graphs, "why_impossible", lambda module: None)
    monkeypatch.setattr(torch.cuda, "graph_pool_handle", lambda: None)
    return made


class Scheduled(DCGAN):
    """G's rate falls at every step."""

    def configure_optimizers(self):
        optimizers = super().configure_optimizers()
        return optimizers, [{"scheduler": LinearLR(optimizers[0], 1.0, 0.1, 20), "interval": "step"}]


class Cycled(DCGAN):
    """G's betas change with its rate, which no replay can follow."""

    def configure_optimizers(self):
        optimizers = super().configure_optimizers()
        return optimizers, [{"scheduler": OneCycleLR(optimizers[0], 1e-2, total_steps=30), "interval": "step"}]


def trained(folder, cls=DCGAN, steps=12, data=None, callbacks=(), **options):
    torch.manual_seed(0)
    module = cls(**TINY, **options)
    trainer = train(module, steps, folder, data or loader(), log_every_n_steps=5, callbacks=list(callbacks))
    assert trainer.global_step == steps
    return module


def assert_same(state, expected):
    """Assert that weights are equal but for the rounding of learning rates, which are float32 in a graph."""
    for name, tensor in expected.items():
        torch.testing.assert_close(
            state[name], tensor, rtol=0, atol=1e-6, msg=lambda text, name=name: f"{name}: {text}"
        )


OPTIONS = {
    "defaults": {},
    "penalty": {"r1": 1.0, "penalty_interval": 2},
    "gradient_penalty": {"gradient_penalty": 10.0, "objective": "wasserstein"},
    "d_steps": {"d_steps": 2, "fresh_latents": True},
    "clip": {"gradient_clip": 0.1},
    "augmentation": {"augmentation": Augmentation(adaptive_target=0.01, adaptive_images=64)},
}


@pytest.mark.parametrize("options", OPTIONS.values(), ids=list(OPTIONS))
def test_a_replayed_training_is_the_same(tmp_path, recordings, options):
    expected = trained(tmp_path / "eager", cuda_graph=False, **options).state_dict()
    assert not recordings
    state = trained(tmp_path / "replayed", **options).state_dict()
    kinds = {kind._replace(logged=False) for kind in recordings}
    assert len(kinds) == (2 if {"penalty_interval", "d_steps"} & set(options) else 1)
    assert all(recording.replays for recording in recordings.values())
    assert_same(state, expected)


@pytest.mark.parametrize("cls", [Scheduled, Cycled])
def test_a_replay_follows_the_schedule(tmp_path, recordings, cls):
    expected = trained(tmp_path / "eager", cls, cuda_graph=False).state_dict()
    module = trained(tmp_path / "replayed", cls)
    assert recordings
    assert_same(module.state_dict(), expected)
    for optimizer in module.trainer.optimizers:  # as they are in checkpoints
        assert all(type(group["lr"]) is float and not group["capturable"] for group in optimizer.param_groups)


def test_a_batch_of_another_size_is_not_replayed(tmp_path, recordings):
    class Uneven:
        def __iter__(self):
            for number, batch in enumerate(loader()):
                yield {"image": batch["image"][: BATCH - 1]} if number == 7 else batch

        def __len__(self):
            return len(loader())

    expected = trained(tmp_path / "eager", data=Uneven(), cuda_graph=False).state_dict()
    state = trained(tmp_path / "replayed", data=Uneven()).state_dict()
    assert recordings
    assert_same(state, expected)


def test_steps_with_hooks_inside_are_not_replayed(tmp_path, recordings):
    class Hook(Callback):
        def on_before_optimizer_step(self, *_):
            pass

    class Own(DCGAN):
        def on_after_backward(self):
            pass

    trained(tmp_path, callbacks=[Hook()])
    trained(tmp_path, Own)
    assert not recordings
    with pytest.raises(InputError, match="a replay would not call on_before_optimizer_step"):
        trained(tmp_path, callbacks=[Hook()], cuda_graph=True)


class Freeze(Callback):
    """Freezes a layer of D after some steps, as a replay of earlier ones would not."""

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        if batch_idx == 8:
            pl_module.discriminator.main[0].requires_grad_(False)


class Anneal(Callback):
    """Changes an option of the step."""

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        if batch_idx == 8:
            pl_module.label_smoothing = 0.3


class Settle(Callback):
    """Puts batch normalization into evaluation."""

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        if batch_idx == 8:
            pl_module.generator.main[1].eval()


@pytest.mark.parametrize("change", [Freeze, Anneal, Settle])
def test_what_changes_between_steps_is_no_part_of_a_replay(tmp_path, recordings, change):
    runs = []
    for options in ({"cuda_graph": False}, {}):
        runs.append(trained(tmp_path, callbacks=[change()], steps=10, **options).state_dict())
    replays = [recording.replays for kind, recording in recordings.items() if not kind.logged]
    assert replays == [3]  # of steps 6 to 8; the tenth is logged
    assert_same(runs[1], runs[0])


def test_a_step_that_a_failed_capture_has_counted_is_not_counted_twice(tmp_path, recordings, monkeypatch):
    def capture(self, step, real, kind):
        step_graphs.count_optimizer_step(self._module.trainer)
        raise RuntimeError("too late")

    monkeypatch.setattr(StepGraphs, "_capture", capture)
    logged = []

    class Count(Callback):
        def on_train_batch_end(self, trainer, *_):
            logged.append(trainer.global_step)

    trained(tmp_path, callbacks=[Count()], steps=9)
    assert logged == list(range(1, 10))


@pytest.mark.parametrize(("free", "room"), [(8, True), (5, False)])
def test_a_graph_leaves_room_for_steps_without_one(monkeypatch, free, room):
    numbers = {"memory_allocated": 2, "max_memory_allocated": 5, "memory_reserved": 6, "mem_get_info": (free - 4, 10)}
    for name, number in numbers.items():
        monkeypatch.setattr(torch.cuda, name, lambda device, number=number: number)
    if room:
        step_graphs.check_memory(torch.device("cuda"))
    else:
        with pytest.raises(RuntimeError, match="too little memory is free"):
            step_graphs.check_memory(torch.device("cuda"))


def test_stylegan2_is_never_captured():
    options = {"image_size": 16, "base_channels": 4, "max_channels": 4, "latent_dim": 4, "w_dim": 4}
    assert StyleGAN2(**options).cuda_graph is False
    assert StyleGAN2(**options, cuda_graph=None).cuda_graph is False  # as the command line gives it
    with pytest.raises(InputError, match="path lengths are read by the host"):
        StyleGAN2(**options, cuda_graph=True)


def test_a_step_that_cannot_be_captured_is_run_without_a_graph(tmp_path, recordings, monkeypatch, caplog):
    def capture(self, step, real, kind):
        try:
            raise RuntimeError("operation not permitted when stream is capturing")
        except RuntimeError:
            raise RuntimeError("a previous error") from None

    expected = trained(tmp_path / "eager", cuda_graph=False).state_dict()
    monkeypatch.setattr(StepGraphs, "_capture", capture)
    with caplog.at_level(logging.WARNING):
        state = trained(tmp_path / "replayed").state_dict()
    told = [record.getMessage() for record in caplog.records if "cannot be captured" in record.getMessage()]
    assert len(told) == 1
    assert "operation not permitted when stream is capturing (" in told[0]
    assert "test_step_graphs.py:" in told[0]
    assert_same(state, expected)
    with pytest.raises(InputError, match=r"cannot be captured as a CUDA graph: operation not permitted.*: false$"):
        trained(tmp_path / "asked", cuda_graph=True)


def test_a_graph_that_is_asked_for_and_impossible_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"cuda_graph: true is impossible: it needs a GPU: choose"):
        train(DCGAN(**TINY, cuda_graph=True), 1, tmp_path)


def test_what_a_graph_needs_is_said(monkeypatch):
    module = DCGAN(**TINY)
    weights = list(module.generator.parameters())
    strategy = SimpleNamespace(root_device=torch.device("cuda"))
    trainer = SimpleNamespace(strategy=strategy, precision_plugin=None, optimizers=[Adam(weights, fused=True)])
    monkeypatch.setattr(DCGAN, "trainer", trainer)
    assert step_graphs.why_impossible(module) is None
    module.accumulate = 2
    assert "set accumulate to 1" in step_graphs.why_impossible(module)
    module.accumulate, module.compiled = 1, True
    assert "leave compile out" in step_graphs.why_impossible(module)
    module.compiled = False
    for optimizer in (SGD(weights, 0.1), Adam(weights)):
        trainer.optimizers = [optimizer]
        assert "use Adam or AdamW with fused=True" in step_graphs.why_impossible(module)
    trainer.optimizers = [Adam(weights, torch.tensor(0.1), fused=True)]
    assert "a learning rate is a tensor" in step_graphs.why_impossible(module)


def test_rates_are_tensors_during_the_capture_alone():
    weight = torch.nn.Parameter(torch.ones(2))
    optimizer = Adam([{"params": [weight], "lr": 0.25}, {"params": [torch.nn.Parameter(torch.ones(1))]}], lr=0.5)
    rates = [rate_tensors(optimizer, torch.device("cpu"))]
    with rates_in_tensors([optimizer], rates):
        groups = [(group["lr"].item(), group["capturable"]) for group in optimizer.param_groups]
    assert groups == [(0.25, True), (0.5, True)]
    assert [(group["lr"], group["capturable"]) for group in optimizer.param_groups] == [(0.25, False), (0.5, False)]


def test_kinds_of_steps_are_told_apart():
    assert len({StepKind(a, b, c) for a in (True, False) for b in (True, False) for c in (True, False)}) == 8
