"""Averages kept by a training, and those of other lengths made of their snapshots, against those over all its steps."""

import pytest
import torch
from lightning import Callback, seed_everything
from safetensors.torch import load_file, save_file
from torch import nn
from torch.utils.data import DataLoader

from gan_lightning import DCGAN, AverageTracks, InputError, LatentEncoder, StyleGAN2, average_after, load_generator
from gan_lightning.networks.average_snapshots import FOLDER, TRACKS, Snapshot, find_snapshots, write_snapshot
from gan_lightning.networks.posthoc_ema import exponent_of
from tests.commands import CONFIGS, SMALL, command, fit
from tests.conftest import FACES
from tests.modules.test_dcgan import BATCH, SIZE, TINY, train
from tests.processes import run_ranks

STEPS, EVERY = 120, 4  # steps, and those between snapshots


class History(Callback):
    """Keeps the weights of the generator after each of its steps, and the images seen until then."""

    def __init__(self):
        self.images, self.weights = [], []

    def on_train_batch_end(self, trainer, module, *_):
        if trainer.global_step > len(self.images):  # not after a step of D alone
            self.images.append(module.images_seen)
            self.weights.append(flat(module.generator.state_dict()))


def flat(state):
    """Weights and statistics of batch normalization as one vector (P,) float64."""
    return torch.cat([value.double().flatten() for value in state.values() if value.is_floating_point()])


def brute_force(history, length):
    """Average over all steps: the profile's integral from one to the next is the weight of the latter."""
    times = torch.tensor([0, *history.images], dtype=torch.float64) / history.images[-1]
    weights = (times ** (exponent_of(length) + 1)).diff()
    return weights @ torch.stack(history.weights)


def distance(one, other):
    return float((one - other).norm() / other.norm())


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Folder, history and callback of a training with two steps of D for one of G."""
    folder, history = tmp_path_factory.mktemp("trained"), History()
    tracks = AverageTracks(every_n_images=EVERY * 2 * BATCH)
    train(DCGAN(**TINY, d_steps=2, lr_g=2e-3), STEPS, folder, callbacks=[tracks, history])
    return folder, history, tracks


def test_a_run_has_a_snapshot_of_both_averages_at_each_interval(trained):
    folder, history, _ = trained
    assert history.images == [2 * BATCH * step for step in range(1, STEPS + 1)]
    expected = [Snapshot(images, length) for images in history.images[EVERY - 1 :: EVERY] for length in TRACKS]
    assert find_snapshots(folder) == expected
    assert {path.name for path in (folder / FOLDER).iterdir()} == {snapshot.path(folder).name for snapshot in expected}


@pytest.mark.parametrize("length", TRACKS)
def test_both_averages_are_those_over_all_steps(trained, length):
    _, history, tracks = trained
    state = tracks.state_dict()["averages"][f"{length:.2f}"]
    assert distance(flat(state), brute_force(history, length)) < 1e-6


@pytest.mark.parametrize("length", TRACKS)
def test_an_average_of_a_length_that_was_kept_is_exact_to_half_precision(trained, length):
    folder, _, tracks = trained
    expected = tracks.state_dict()["averages"][f"{length:.2f}"]
    for name, value in average_after(folder, length).state_dict().items():
        torch.testing.assert_close(value, expected[name], rtol=2**-11, atol=2e-6, msg=name)


@pytest.mark.parametrize("length", [0.03, 0.07, 0.15, 0.2])
def test_an_average_of_another_length_is_that_over_all_steps(trained, length):
    folder, history, _ = trained
    expected, nearest = brute_force(history, length), min(TRACKS, key=lambda track: abs(track - length))
    error = distance(flat(average_after(folder, length).state_dict()), expected)
    assert error < 2e-3
    assert error < 0.1 * distance(brute_force(history, nearest), expected)


def test_the_generator_is_ready_to_use_and_its_file_is_read_as_any_other(trained, tmp_path):
    path = tmp_path / "average.safetensors"
    made = average_after(str(trained[0]), 0.15, path)
    assert not made.training
    assert {value.dtype for value in made.parameters()} == {torch.float32}
    latents = torch.randn(3, TINY["latent_dim"], generator=torch.Generator().manual_seed(0))
    images = made(latents)
    assert images.shape == (3, 3, SIZE, SIZE)
    assert torch.equal(load_generator(path)(latents), images)
    snapshot = find_snapshots(trained[0])[-1].path(trained[0])
    assert load_generator(snapshot)(latents).shape == images.shape


class Same(nn.Module):
    """An image that is all there is: a resumed loader of Lightning begins anew."""

    def __len__(self):
        return 10 * BATCH

    def __getitem__(self, index):
        return torch.linspace(-1, 1, 3 * SIZE * SIZE).reshape(3, SIZE, SIZE)


def run(folder, steps, ckpt_path=None, every=3 * BATCH):
    seed_everything(0)
    tracks = AverageTracks(every)
    data = DataLoader(Same(), batch_size=BATCH)
    train(DCGAN(**TINY), steps, folder, data, ckpt_path, callbacks=[tracks]).save_checkpoint(folder / "end.ckpt")
    return tracks.state_dict()


def test_a_resumed_run_goes_on_to_the_bit(tmp_path):
    whole = run(tmp_path / "whole", 12)
    run(tmp_path / "parts", 7)
    torch.load(tmp_path / "parts" / "end.ckpt", weights_only=True)
    resumed = run(tmp_path / "parts", 12, tmp_path / "parts" / "end.ckpt")
    assert resumed["images"] == whole["images"] == 12 * BATCH
    for name, state in whole["averages"].items():
        for key, value in state.items():
            if not key.endswith("batches_tracked"):
                assert torch.equal(value, resumed["averages"][name][key]), (name, key)
    for snapshot in find_snapshots(tmp_path / "whole"):
        one, other = (load_file(snapshot.path(tmp_path / folder)) for folder in ("whole", "parts"))
        assert all(torch.equal(value, other[key]) for key, value in one.items())


def test_snapshots_after_the_checkpoint_are_removed_when_a_run_goes_on(tmp_path):
    run(tmp_path, 4)
    (tmp_path / "end.ckpt").rename(tmp_path / "early.ckpt")
    run(tmp_path, 9, tmp_path / "early.ckpt")
    run(tmp_path, 5, tmp_path / "early.ckpt")
    assert sorted({snapshot.images // BATCH for snapshot in find_snapshots(tmp_path)}) == [3, 4, 5]


def test_networks_that_were_trained_without_averages_have_none(tmp_path):
    train(DCGAN(**TINY), 2, tmp_path).save_checkpoint(tmp_path / "end.ckpt")
    with pytest.raises(InputError, match="from its first step on"):
        run(tmp_path, 4, tmp_path / "end.ckpt")


def test_labels_and_stylegan2(tmp_path):
    """Generators of both are built of a combination of snapshots, classes included, constants unchanged."""
    data = [{"image": torch.full((3, SIZE, SIZE), index / 8), "label": index % 2} for index in range(8)]
    labeled = DCGAN(**TINY, num_classes=2)
    train(labeled, 2, tmp_path / "labels", DataLoader(data, batch_size=4), callbacks=[AverageTracks(4)])
    generator = average_after(tmp_path / "labels", 0.15)
    assert generator(torch.zeros(2, 6), torch.tensor([0, 1])).shape == (2, 3, SIZE, SIZE)
    assert generator.class_names == labeled.class_names
    small = StyleGAN2(image_size=SIZE, latent_dim=8, base_channels=4, max_channels=8, w_dim=8, mapping_layers=2)
    train(small, 3, tmp_path / "style", DataLoader(Same(), batch_size=4), callbacks=[AverageTracks(4)])
    generator = average_after(tmp_path / "style", 0.15)
    assert generator(torch.zeros(2, 8)).shape == (2, 3, SIZE, SIZE)
    for (name, made), kept in zip(generator.named_buffers(), small.generator.buffers(), strict=True):
        if "w_avg" not in name and "noise" not in name:
            torch.testing.assert_close(made, kept, msg=name)


def test_a_disk_that_is_full_ends_no_run(tmp_path, monkeypatch, caplog):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("gan_lightning.callbacks.average_tracks.write_snapshot", full)
    run(tmp_path, 3)
    assert "No space left on device" in caplog.text


@pytest.mark.parametrize("length", [0.0, 0.019, 0.21, -0.1, float("nan")])
def test_lengths_that_two_averages_do_not_give_are_refused(trained, length):
    with pytest.raises(InputError, match=r"must be from 0.02 to 0.2, but is"):
        average_after(trained[0], length)


def test_a_run_without_snapshots_is_refused(tmp_path):
    for folder in (tmp_path, tmp_path / "missing"):
        with pytest.raises(InputError, match=r"there are no snapshots in .*AverageTracks"):
            average_after(folder, 0.1)


@pytest.fixture
def few(tmp_path):
    """Folder with four snapshots of an untrained generator."""
    module = DCGAN(**TINY)
    for images in (100, 200):
        for length in TRACKS:
            write_snapshot(tmp_path, Snapshot(images, length), module.generator_ema, {})
    return tmp_path


@pytest.mark.parametrize("damage", ["truncated", "empty", "not finite", "renamed", "foreign"])
def test_a_damaged_snapshot_is_named(few, damage):
    path = Snapshot(200, 0.05).path(few)
    if damage == "truncated":
        path.write_bytes(path.read_bytes()[:-100])
    elif damage == "empty":
        path.write_bytes(b"")
    elif damage == "not finite":
        module = DCGAN(**TINY)
        write_snapshot(few, Snapshot(200, 0.05), module.generator_ema, {})
        content = bytearray(path.read_bytes())
        content[-2:] = b"\xff\xff"
        path.write_bytes(content)
    elif damage == "renamed":
        Snapshot(100, 0.05).path(few).replace(path)
    else:
        save_file({"main.0.weight": torch.zeros(2, 2)}, path)
    with pytest.raises(InputError, match=f"{path.name} is damaged: remove it"):
        average_after(few, 0.1)
    path.unlink()
    assert isinstance(average_after(few, 0.1), nn.Module)


def test_variances_do_not_become_negative(tmp_path):
    """As they would where they fall: in shorter averages than those that were kept, the longer one is subtracted."""
    module = DCGAN(**TINY)
    for images in (150, 200):
        for length, variance in zip(TRACKS, (0.001, 1.0), strict=True):
            for name, buffer in module.generator_ema.named_buffers():
                if name.endswith("running_var"):
                    buffer.fill_(variance)
            write_snapshot(tmp_path, Snapshot(images, length), module.generator_ema, {})
    average = average_after(tmp_path, 0.02)
    variances = torch.cat([value for name, value in average.named_buffers() if name.endswith("running_var")])
    assert (variances == 0).all()
    assert average(torch.zeros(2, TINY["latent_dim"])).isfinite().all()


def test_snapshots_of_another_network_are_refused(few):
    write_snapshot(few, Snapshot(300, 0.05), DCGAN(**{**TINY, "base_channels": 8}).generator_ema, {})
    with pytest.raises(InputError, match="of another network"):
        average_after(few, 0.1)


def test_a_file_of_another_format_is_refused(few):
    with pytest.raises(InputError, match=r"name the file \.\.\..safetensors"):
        average_after(few, 0.1, few / "average.ckpt")


class Own(nn.Module):
    """A generator that no function of the package builds."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(TINY["latent_dim"], 3 * SIZE * SIZE)

    def forward(self, latents):
        return self.linear(latents).reshape(-1, 3, SIZE, SIZE).tanh()


def test_modules_whose_generator_cannot_be_built_again_are_refused(tmp_path, trained):
    with pytest.raises(InputError, match="not a Own: leave it out"):
        train(DCGAN(**TINY, generator=Own()), 1, tmp_path, callbacks=[AverageTracks()])
    path = tmp_path / "average.safetensors"
    average_after(trained[0], 0.1, path)
    with pytest.raises(InputError, match="LatentEncoder trains none"):
        train(LatentEncoder(path), 1, tmp_path, callbacks=[AverageTracks()])


def test_an_interval_of_nothing_is_refused():
    with pytest.raises(InputError, match="every_n_images must be at least 1"):
        AverageTracks(0)


def test_the_command_line(own_folder, faces_root, tmp_path):
    added = ["--data.count", FACES, "--trainer.callbacks+=AverageTracks", "--trainer.callbacks.every_n_images", "32"]
    assert fit(faces_root, *added) == 0
    folder = tmp_path / "runs" / "run"
    assert [snapshot.images for snapshot in find_snapshots(folder)] == [32, 32, 64, 64]
    checkpoint = torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)
    assert checkpoint["callbacks"]["AverageTracks"]["images"] == 64
    assert fit(faces_root, "--trainer.max_steps", 6, "--ckpt_path", "last", *added) == 0
    assert find_snapshots(folder)[-1].images == 96
    options = ["--name", "drawn", "--ckpt_path", folder / "checkpoints" / "last.ckpt", "--num_samples", 2]
    assert command("predict", "--config", folder / "config.yaml", *options) == 0
    assert not (tmp_path / "runs" / "drawn" / FOLDER).exists()


@pytest.mark.slow
def test_two_ranks_count_the_images_of_both_and_one_writes(own_folder, faces_root, tmp_path):
    words = ["fit", "--config", CONFIGS / "quickstart.yaml", *SMALL, "--data.root", faces_root, "--data.count", FACES]
    words += ["--trainer.callbacks+=AverageTracks", "--trainer.callbacks.every_n_images", "32", "--name", "two"]
    words += ["--trainer.devices", "2", "--trainer.strategy", "ddp"]
    for more in ([], ["--trainer.max_steps", "6", "--ckpt_path", "last"]):
        assert [rank.returncode for rank in run_ranks("gan_lightning", *words, *more, ranks=2)] == [0, 0]
    folder = tmp_path / "runs" / "two"
    assert sorted({snapshot.images for snapshot in find_snapshots(folder)}) == [32, 64, 96, 128, 160, 192]
    assert torch.load(folder / "checkpoints" / "last.ckpt")["callbacks"]["AverageTracks"]["images"] == 192
    assert isinstance(average_after(folder, 0.1), nn.Module)
