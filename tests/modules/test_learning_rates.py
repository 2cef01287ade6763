"""Schedules of subclasses against the same schedulers in a plain loop, on their own and through a resume."""

import logging

import pytest
import torch
from lightning import Callback
from torch.optim import SGD
from torch.optim.lr_scheduler import (
    CosineAnnealingLR,
    LambdaLR,
    LinearLR,
    OneCycleLR,
    ReduceLROnPlateau,
    SequentialLR,
    StepLR,
)

from gan_lightning import DCGAN, InputError
from gan_lightning.resume.last_checkpoint import LastCheckpoint
from tests.modules.test_dcgan import BATCH, TINY, loader, train

RATE_G, RATE_D = 1e-3, 4e-3
BATCHES = 5  # in an epoch

SCHEDULES = {
    "linear": lambda optimizer: LinearLR(optimizer, start_factor=0.1, total_iters=6),
    "cosine": lambda optimizer: CosineAnnealingLR(optimizer, 12),
    "lambda": lambda optimizer: LambdaLR(optimizer, lambda step: 1 / (1 + step)),
    "one_cycle": lambda optimizer: OneCycleLR(optimizer, max_lr=0.1, total_steps=30),
    "sequential": lambda optimizer: SequentialLR(
        optimizer, [LinearLR(optimizer, 0.5, total_iters=3), StepLR(optimizer, 2)], [3]
    ),
}
FORMS = {  # what configure_optimizers may return, to Lightning
    "two lists": lambda optimizers, configs: (optimizers, configs),
    "dicts": lambda optimizers, configs: [
        {"optimizer": optimizer, "lr_scheduler": config} for optimizer, config in zip(optimizers, configs, strict=True)
    ],
    "a tuple of dicts": lambda optimizers, configs: tuple(
        {"optimizer": optimizer, "lr_scheduler": config} for optimizer, config in zip(optimizers, configs, strict=True)
    ),
}


class Scheduled(DCGAN):
    """A subclass as Lightning's documentation suggests it."""

    schedule, form, config = "linear", "two lists", {"interval": "step"}

    def configure_optimizers(self):
        optimizers = super().configure_optimizers()
        schedulers = [SCHEDULES[self.schedule](optimizer) for optimizer in optimizers]
        configs = [{"scheduler": scheduler, **self.config} if self.config else scheduler for scheduler in schedulers]
        return FORMS[self.form](optimizers, configs)


class Rates(Callback):
    """The rates with which each batch was trained, G's and D's."""

    def __init__(self):
        self.rates = []

    def on_before_optimizer_step(self, trainer, module, optimizer):
        if optimizer is trainer.optimizers[1]:  # D's comes first in each batch
            self.rates.append([optimizer.param_groups[0]["lr"] for optimizer in trainer.optimizers])


def rates_of(module, folder, steps, callbacks=(), **options):
    rates = Rates()
    options |= {"callbacks": [rates, *callbacks], "enable_checkpointing": bool(callbacks)}
    train(module, steps, folder, loader(BATCH * BATCHES), **options)
    return rates.rates


def plain(schedule, batches, due):
    """The rates of both optimizers, whose schedulers are stepped after the batches for which `due` is true."""
    optimizers = [SGD([torch.zeros(1, requires_grad=True)], rate, momentum=0.9) for rate in (RATE_G, RATE_D)]
    schedulers = [SCHEDULES[schedule](optimizer) for optimizer in optimizers]
    rates = []
    for batch in range(batches):
        rates.append([optimizer.param_groups[0]["lr"] for optimizer in optimizers])
        for optimizer, scheduler in zip(optimizers, schedulers, strict=True):
            optimizer.step()
            if due(batch):
                scheduler.step()
    return rates


def make(cls=Scheduled, d_steps=1, rates=(RATE_G, RATE_D), **attributes):
    torch.manual_seed(0)
    module = cls(**TINY, lr_g=rates[0], lr_d=rates[1], d_steps=d_steps)
    for name, value in attributes.items():
        setattr(module, name, value)
    return module


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_a_schedule_steps_with_each_iteration_of_the_generator(tmp_path, schedule):
    rates = rates_of(make(schedule=schedule, d_steps=2), tmp_path, 8)
    assert rates == plain(schedule, 16, lambda batch: batch % 2 == 1)


@pytest.mark.parametrize(
    ("form", "config", "due"),
    [
        ("two lists", None, lambda batch: (batch + 1) % BATCHES == 0),  # Lightning's default interval is an epoch
        ("dicts", None, lambda batch: (batch + 1) % BATCHES == 0),
        ("dicts", {"interval": "epoch", "frequency": 2}, lambda batch: (batch + 1) % (2 * BATCHES) == 0),
        ("a tuple of dicts", {"interval": "step", "frequency": 3}, lambda batch: (batch + 1) % 3 == 0),
    ],
)
def test_interval_and_frequency_are_lightnings_in_every_form(tmp_path, form, config, due):
    rates = rates_of(make(form=form, config=config), tmp_path, 23)
    assert rates == plain("linear", 23, due)


@pytest.mark.parametrize(
    ("schedule", "config"), [(name, {"interval": "step"}) for name in SCHEDULES] + [("linear", None)]
)
def test_a_resumed_run_goes_on_with_the_schedule(tmp_path, schedule, config):
    whole = rates_of(make(schedule=schedule, config=config), tmp_path / "whole", 13)
    first = rates_of(make(schedule=schedule, config=config), tmp_path / "cut", 7, [LastCheckpoint()])
    last = tmp_path / "cut" / "last.ckpt"
    rest = rates_of(make(schedule=schedule, config=config), tmp_path / "on", 13, ckpt_path=last)
    assert first + rest == whole


def test_a_checkpoint_of_every_batch_holds_the_schedule_of_that_batch(tmp_path):
    class Keep(LastCheckpoint):
        def on_train_batch_end(self, trainer, *args):
            super().on_train_batch_end(trainer, *args)
            trainer.save_checkpoint(tmp_path / f"{trainer.fit_loop.total_batch_idx + 1}.ckpt")

    whole = rates_of(make(d_steps=2), tmp_path, 6, [Keep()])
    for batches in (2, 3, 10):
        rest = rates_of(make(d_steps=2), tmp_path / "on", 6, ckpt_path=tmp_path / f"{batches}.ckpt")
        assert rest == whole[batches:]


def test_a_schedule_that_is_resumed_keeps_its_rate_and_refuses_another(tmp_path):
    rates_of(make(), tmp_path, 3, [LastCheckpoint()])
    for rates, option in (((1e-5, RATE_D), "lr_g"), ((RATE_G, 1e-5), "lr_d")):
        with pytest.raises(InputError, match=rf"{option} is 1e-05, but the schedule of the checkpoint began at 0.00\d"):
            rates_of(make(rates=rates), tmp_path / "on", 6, ckpt_path=tmp_path / "last.ckpt")


def test_a_schedule_may_begin_or_end_with_a_resumed_run(tmp_path):
    rates_of(make(DCGAN), tmp_path / "plain", 3, [LastCheckpoint()])
    rates = rates_of(make(rates=(1e-4, 1e-4)), tmp_path / "on", 6, ckpt_path=tmp_path / "plain" / "last.ckpt")
    assert [g for g, _ in rates] == pytest.approx([1e-5, 2.5e-5, 4e-5])
    rates_of(make(), tmp_path / "scheduled", 3, [LastCheckpoint()])
    last = tmp_path / "scheduled" / "last.ckpt"
    assert rates_of(make(DCGAN), tmp_path / "off", 5, ckpt_path=last) == [[RATE_G, RATE_D]] * 2


class StepsItself(Scheduled):
    """As Lightning's documentation of manual optimization has it."""

    def training_step(self, batch, batch_idx):
        super().training_step(batch, batch_idx)
        for scheduler in self.lr_schedulers():
            scheduler.step()


class StepsAtEpochs(Scheduled):
    def on_train_epoch_end(self):
        for scheduler in self.lr_schedulers():
            scheduler.step()


@pytest.mark.parametrize(
    ("schedule", "config"),
    [("linear", {"interval": "step"}), ("one_cycle", {"interval": "step"}), ("sequential", None)],
)
def test_a_subclass_that_steps_its_schedulers_itself_goes_on_doing_so(tmp_path, schedule, config):
    rates = rates_of(make(StepsItself, schedule=schedule, config=config), tmp_path, 12)
    assert rates == plain(schedule, 12, lambda batch: True)
    rates = rates_of(make(StepsAtEpochs, schedule=schedule, config=None), tmp_path, 12)
    assert rates == plain(schedule, 12, lambda batch: (batch + 1) % BATCHES == 0)


def test_schedulers_that_are_stepped_twice_now_and_then_are_refused(tmp_path):
    class Sometimes(Scheduled):
        def training_step(self, batch, batch_idx):
            super().training_step(batch, batch_idx)
            if self.global_step == 3:
                self.lr_schedulers()[0].step()

    with pytest.raises(InputError, match="stepped twice"):
        rates_of(make(Sometimes), tmp_path, 6)


def test_a_plateau_is_left_to_the_subclass_with_a_word(tmp_path, caplog):
    class Plateau(DCGAN):
        def configure_optimizers(self):
            optimizers = super().configure_optimizers()
            return optimizers, [ReduceLROnPlateau(optimizer, patience=0) for optimizer in optimizers]

    class Stepped(Plateau):
        def lr_scheduler_step(self, scheduler, metric):
            scheduler.step(1.0)

    with caplog.at_level(logging.WARNING):
        assert rates_of(make(Plateau), tmp_path, 12)[-1] == [RATE_G, RATE_D]
    assert "ReduceLROnPlateau needs a metric" in caplog.text
    assert rates_of(make(Stepped), tmp_path, 12)[-1] == pytest.approx([RATE_G / 10, RATE_D / 10])


def test_optimizers_of_a_subclass_keep_their_own_rates(tmp_path):
    class Own(DCGAN):
        def configure_optimizers(self):
            first, *rest = self.generator.parameters()
            groups = [{"params": [first], "lr": 0.5}, {"params": rest}]
            return [SGD(groups, 0.25), SGD(self.discriminator.parameters(), 0.125)]

    module = make(Own)
    trainer = train(module, 2, tmp_path, callbacks=[LastCheckpoint()], enable_checkpointing=True)
    assert [[g["lr"] for g in optimizer.param_groups] for optimizer in trainer.optimizers] == [[0.5, 0.25], [0.125]]
    again = train(make(Own), 3, tmp_path, ckpt_path=tmp_path / "last.ckpt")
    assert [[g["lr"] for g in optimizer.param_groups] for optimizer in again.optimizers] == [[0.5, 0.25], [0.125]]
