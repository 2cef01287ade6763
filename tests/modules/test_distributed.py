"""DDP over two processes: the same step as one process, and the same networks on every rank after every step."""

import json
from pathlib import Path

import pytest
import torch
from lightning import Trainer

from gan_lightning import DCGAN, InputError, distributed
from gan_lightning.distributed import float_buffers
from gan_lightning.modules.batch_numbers import BatchNumbers
from gan_lightning.modules.encoder import LatentEncoder
from gan_lightning.networks.dcgan import Generator
from tests.modules.train_on_ranks import OVERFLOW, STEPS, make_module
from tests.processes import run_ranks

SCRIPT = Path(__file__).parent / "train_on_ranks.py"


def train(folder, ranks, kind, *more):
    folder.mkdir()
    for result in run_ranks(SCRIPT, folder, ranks, kind, *more, ranks=ranks):
        assert result.returncode == 0, result.stderr
    assert all(json.loads((folder / f"left-{rank}.json").read_text()) for rank in range(ranks))
    files = [folder / f"rank-{rank}" for rank in range(ranks)]
    return [
        torch.load(file.with_suffix(".pt"), weights_only=True) | json.loads(file.with_suffix(".json").read_text())
        for file in files
    ]


@pytest.fixture(scope="module")
def generator_file(tmp_path_factory):
    path = tmp_path_factory.mktemp("generator") / "generator.pt"
    torch.manual_seed(0)
    torch.save(Generator(16, latent_dim=4, base_channels=4).state_dict(), path)
    return path


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["none", "labels"])
def test_two_ranks_take_the_step_of_one(tmp_path, kind):
    (alone,) = train(tmp_path / "one", 1, kind)
    first, second = train(tmp_path / "two", 2, kind)
    assert (first["unequal"], second["unequal"], first["compared"]) == ([], [], STEPS)
    for name, tensor in alone["state"].items():
        torch.testing.assert_close(first["state"][name], tensor, rtol=0, atol=2e-6, msg=lambda t, n=name: f"{n}: {t}")
    assert len(first["rows"]) == STEPS  # and what is logged is of the whole batch
    for row, expected in zip(first["rows"], alone["rows"], strict=True):
        assert row == pytest.approx(expected, rel=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["batch", "d_steps", "float16", "encoder"])
def test_ranks_agree_after_every_step_on_everything_but_their_latents(tmp_path, kind, generator_file):
    first, second = train(tmp_path / "two", 2, kind, generator_file)
    assert (first["unequal"], second["unequal"]) == ([], [])
    assert first["compared"] == STEPS
    for name, tensor in first["state"].items():
        assert tensor.equal(second["state"][name]), name
    if kind == "float16":  # an overflow on one rank is one on all, and of one network
        assert (
            first["scales"] == second["scales"] == [[1024, 1024 if step < OVERFLOW else 512] for step in range(STEPS)]
        )
    if kind != "encoder":
        assert not first["latent"].equal(second["latent"])


def test_a_step_sends_each_gradient_once(tmp_path):
    """A message for each network; the batch-norm statistics of both go with the gradients of G."""
    first, second = train(tmp_path / "two", 2, "messages")
    assert (first["unequal"], second["unequal"], first["compared"]) == ([], [], STEPS)
    module = make_module("messages", None)
    of_g, of_d = (sum(p.numel() for p in network.parameters()) for network in (module.generator, module.discriminator))
    of_g += sum(buffer.numel() for buffer in float_buffers(module.generator, module.discriminator))
    unlogged = [of_d, of_g]
    assert first["sent"] == second["sent"]
    assert first["sent"][3:-1] == unlogged * (STEPS - 1)  # the first and the last step are logged
    assert first["of_ddp"] == second["of_ddp"] == 0


def test_averages_keep_the_layout_of_what_is_averaged(tmp_path, monkeypatch):
    """With one rank an average is the tensor itself; every element must come back to its place."""
    address = f"file://{tmp_path / 'ranks'}"
    torch.distributed.init_process_group("gloo", init_method=address, rank=0, world_size=1)
    try:
        weight = torch.randn(6, 5, 4, 4)
        tensors = [weight, weight.contiguous(memory_format=torch.channels_last), weight.transpose(0, 1)]
        tensors += [weight[:, ::2], torch.randn(7)[1:], torch.tensor(3.0), torch.empty(0)]
        for tensor, average in zip(tensors, distributed.average(tensors), strict=True):
            assert average.equal(tensor)
            assert average.stride() == tensor.stride() or not distributed.is_dense(tensor)
            assert not tensor.numel() or average.data_ptr() != tensor.data_ptr()
        mixed = [torch.randn(3), torch.randn(2, dtype=torch.float64), torch.randn(2).half()]
        for tensor, average in zip(mixed, distributed.average(mixed), strict=True):
            assert average.equal(tensor)
            assert average.dtype == tensor.dtype
    finally:
        torch.distributed.destroy_process_group()


def refusal(module):
    module.trainer = Trainer(accelerator="cpu", devices=2, strategy="ddp", sync_batchnorm=True, logger=False)
    with pytest.raises(InputError) as caught:
        module.setup("fit")
    return str(caught.value)


def test_synchronised_batch_norm_is_refused_where_it_cannot_work(generator_file):
    for penalty in ("r1", "r2", "gradient_penalty"):
        said = refusal(DCGAN(image_size=16, base_channels=4, **{penalty: 1.0}))
        assert said.startswith("sync_batchnorm has no second derivative"), penalty
    for module in (DCGAN(image_size=16, base_channels=4), LatentEncoder(str(generator_file), base_channels=4)):
        assert refusal(module).startswith("sync_batchnorm needs GPUs")


@pytest.mark.parametrize("count", [1, 2, 6, 7])
def test_ranks_share_numbers_and_get_equally_many(count, monkeypatch):
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.distributed, "get_world_size", lambda: 3)
    shares = []
    for rank in range(3):
        monkeypatch.setattr(torch.distributed, "get_rank", lambda rank=rank: rank)
        numbers = BatchNumbers(count)
        shares.append(list(numbers))
        assert len(shares[-1]) == len(numbers)
        numbers.resume(0, 1)
        assert list(numbers) == shares[-1][1:]
        numbers.set_epoch(1)
        assert list(numbers) == shares[-1]
    assert len({len(share) for share in shares}) == 1
    everything = sorted(number for share in shares for number in share)
    assert everything == list(range(len(everything)))
    assert count <= len(everything) < count + 3
