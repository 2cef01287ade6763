"""The private parts of Lightning and torch that we need are there, and do what we need them for."""

import signal
import socket
from datetime import timedelta

import pytest
import torch
from lightning import Trainer
from lightning.pytorch.strategies import DDPStrategy
from torch.utils.data._utils import signal_handling

from gan_lightning.resume import lightning_internals as internals
from gan_lightning.resume.progress_state import COUNTERS, set_to_batch_boundary


@pytest.fixture
def trainer(tmp_path):
    return Trainer(accelerator="cpu", logger=False, enable_checkpointing=False, default_root_dir=tmp_path, max_steps=7)


def has(owner, name, consequence):
    assert hasattr(owner, name), f"{name} is gone: {consequence}"


def test_lightning_tells_whether_validation_is_due(trainer):
    loss = "a resumed run would skip or repeat a validation"
    has(trainer.fit_loop, "_data_fetcher", loss)
    has(trainer.fit_loop.epoch_loop, "_should_check_val_fx", loss)
    assert not internals.validation_is_due(trainer), "before the data are there, none is due"


def test_validation_is_due_after_every_batch_that_the_interval_names(trainer, monkeypatch):
    monkeypatch.setattr(trainer.fit_loop, "_data_fetcher", object())
    monkeypatch.setattr(trainer.fit_loop.epoch_loop, "_should_check_val_epoch", lambda: True)
    trainer.val_check_batch, trainer.check_val_every_n_epoch, trainer.limit_train_batches = 2, None, 1.0
    due = []
    for _ in range(6):
        trainer.fit_loop.epoch_loop._batches_that_stepped += 1
        trainer.fit_loop.epoch_loop.batch_progress.increment_ready()
        due.append(internals.validation_is_due(trainer))
    assert due == [False, True] * 3


def test_lightning_counts_batches_that_are_under_way(trainer):
    progress = trainer.fit_loop.epoch_loop.batch_progress
    for counter in COUNTERS:
        has(progress.total, counter, "a signal could stop a run in the middle of a step")
    assert internals.batch_is_processed(trainer)
    progress.increment_ready()
    progress.increment_started()
    assert not internals.batch_is_processed(trainer)
    progress.increment_processed()
    assert internals.batch_is_processed(trainer)


def test_one_step_more_can_be_allowed(trainer):
    has(trainer.fit_loop.epoch_loop, "max_steps", "a run stopped at its last validation would end without it")
    internals.set_max_steps(trainer, 8)
    assert trainer.max_steps == trainer.fit_loop.epoch_loop.max_steps == 8


def test_loggers_can_be_given_another_axis_than_batches(trainer):
    has(trainer.fit_loop.epoch_loop, "_batches_that_stepped", "LearningRateMonitor would count batches of D too")
    internals.count_steps_for_loggers(trainer, 5)
    assert trainer.fit_loop.epoch_loop._batches_that_stepped + 1 == 5  # Lightning adds one after the batch


def test_lightnings_broadcast_of_sigterm_can_be_skipped(trainer, monkeypatch):
    has(trainer.fit_loop.epoch_loop, "_broadcast_sigterm_tensor", "every step would wait for the device")
    trainer._signal_connector.received_sigterm = True
    internals.skip_sigterm_broadcast(trainer)
    trainer.fit_loop.epoch_loop._broadcast_sigterm_tensor()  # neither waits nor raises


def test_torchs_handler_of_dead_workers_stays_away():
    has(signal_handling, "_set_SIGCHLD_handler", "a dead data worker would raise an error in the middle of a step")
    before = signal.getsignal(signal.SIGCHLD)
    try:
        internals.ignore_dead_workers_in_signals()
        signal_handling._set_SIGCHLD_handler()  # as the first data worker does
        assert signal.getsignal(signal.SIGCHLD) == signal.SIG_DFL
    finally:
        signal.signal(signal.SIGCHLD, before)


def test_ddp_takes_defaults_where_the_user_has_set_nothing():
    strategy = DDPStrategy(find_unused_parameters=False)
    has(strategy, "_ddp_kwargs", "`--trainer.strategy ddp` would fail in the first step")
    internals.set_ddp_defaults(strategy, find_unused_parameters=True, broadcast_buffers=False)
    assert strategy._ddp_kwargs == {"find_unused_parameters": False, "broadcast_buffers": False}


@pytest.mark.parametrize("given", [None, timedelta(minutes=5)])
def test_the_timeout_is_ours_unless_the_user_has_set_one(given):
    strategy = DDPStrategy() if given is None else DDPStrategy(timeout=given)
    has(strategy, "_timeout", "ranks would wait for an evaluation for half an hour at most")
    internals.set_default_timeout(strategy, timedelta(hours=6))
    assert strategy._timeout == (given or timedelta(hours=6))


def test_a_process_that_forks_its_ranks_is_none_itself():
    has(DDPStrategy(), "_start_method", "a process would wait for itself to join the ranks that it has forked")
    assert internals.runs_in_this_process(DDPStrategy())
    assert not internals.runs_in_this_process(DDPStrategy(start_method="fork"))


def test_the_store_of_the_ranks_outlives_their_group(monkeypatch):
    for name, value in {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "0"}.items():
        monkeypatch.setenv(name, value)
    assert internals.default_store() is None
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    torch.distributed.init_process_group("gloo", f"tcp://127.0.0.1:{port}", rank=0, world_size=1)
    try:
        store = internals.default_store()
    finally:
        torch.distributed.destroy_process_group()
    client = torch.distributed.TCPStore("127.0.0.1", port, is_master=False)
    client.set("reason", "why")
    assert store is not None
    assert client.get("reason") == b"why"


@pytest.mark.parametrize("chosen", [True, False])
def test_sync_batchnorm_is_seen(chosen):
    trainer = Trainer(
        accelerator="cpu", devices=2, strategy="ddp", sync_batchnorm=chosen, logger=False, enable_checkpointing=False
    )
    has(trainer.strategy, "_layer_sync", "sync_batchnorm on CPUs or with r1 would fail in a traceback")
    assert internals.uses_sync_batchnorm(trainer.strategy) is chosen


def test_a_strategy_of_one_device_has_no_sync_batchnorm(trainer):
    assert not internals.uses_sync_batchnorm(trainer.strategy)


def test_the_launcher_of_subprocesses_can_kill_them():
    trainer = Trainer(accelerator="cpu", devices=2, strategy="ddp", logger=False, enable_checkpointing=False)
    has(trainer.strategy.launcher, "kill", "after an error on one rank the others would wait for it forever")


def test_the_state_of_the_fit_loop_has_the_counters_that_we_set(trainer):
    state = trainer.fit_loop.state_dict()
    loss = "checkpoints saved within a batch, an epoch or a validation would be resumed inexactly"
    for part in ("epoch_progress", "epoch_loop.batch_progress", "epoch_loop.val_loop.batch_progress"):
        assert part in state, f"{part} is gone: {loss}"
        for counters in (state[part]["total"], state[part]["current"]):
            assert counters.keys() == set(COUNTERS), f"the counters of {part} have changed: {loss}"
    assert "is_last_batch" in state["epoch_loop.val_loop.batch_progress"], loss


def test_a_checkpoint_saved_within_a_batch_counts_it_as_done(trainer):
    loop = trainer.fit_loop
    loop.epoch_progress.increment_ready()
    loop.epoch_progress.increment_started()
    for _ in range(3):
        loop.epoch_loop.batch_progress.increment_ready()
    state = loop.state_dict()
    set_to_batch_boundary(state, batches_in_epoch=5, validation_due=True)
    assert state["epoch_loop.batch_progress"]["total"] == dict.fromkeys(COUNTERS, 3)
    assert state["epoch_progress"]["current"] == {"ready": 1, "started": 1, "processed": 0, "completed": 0}
    validation = state["epoch_loop.val_loop.batch_progress"]
    assert validation["total"] == {"ready": 1, "started": 1, "processed": 0, "completed": 0}
    loop.load_state_dict(state)
    assert loop.epoch_loop.batch_progress.current.completed == 3
