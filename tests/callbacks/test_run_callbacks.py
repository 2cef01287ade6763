"""Pictures, curves and summary of a run with a module from outside the package: callbacks only ask it for samples."""

import json

import numpy as np
import pytest
import torch
from lightning import LightningDataModule, LightningModule, Trainer
from lightning.pytorch.loggers import Logger
from PIL import Image
from torch.utils.data import DataLoader

from gan_lightning.callbacks.curves import SMOOTHED, Curves, draw_curves, make_figure, smooth
from gan_lightning.callbacks.samples import SampleGrid, SampleWriter
from gan_lightning.callbacks.summary import RunSummary, summarize
from gan_lightning.errors import InputError
from gan_lightning.loggers.metrics_file import MetricsFile


class Shade(LightningModule):
    """Module whose samples are latents enlarged to 8x8; training does not change them."""

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))

    def sample(self, count, rng=None):
        return torch.randn(count, 3, 1, 1, generator=rng).clamp(-1, 1).expand(-1, -1, 8, 8)

    def training_step(self, batch, batch_idx):
        return self.weight.sum()

    def validation_step(self, batch, batch_idx):
        for logger in self.loggers:
            logger.log_metrics({"val/fid": 10.0 - self.global_step}, step=self.global_step)

    def predict_step(self, batch, batch_idx):
        return self.sample(len(batch), torch.Generator().manual_seed(int(batch[0])))

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 0.1)


class ImageLogger(Logger):
    """Logger that keeps the images it is given."""

    name, version = "kept", "0"

    def __init__(self):
        super().__init__()
        self.images = []

    def log_metrics(self, metrics, step=None):
        pass

    def log_hyperparams(self, params, *args, **kwargs):
        pass

    def log_image(self, key, images, step=None):
        self.images.append((key, images[0], step))


@pytest.fixture
def finished_run(tmp_path):
    loggers = [MetricsFile(tmp_path), ImageLogger()]
    trainer = Trainer(
        accelerator="cpu",
        max_steps=4,
        val_check_interval=2,
        logger=loggers,
        callbacks=[SampleGrid(num_images=4), Curves(), RunSummary()],
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=tmp_path,
    )
    batches = DataLoader([{"image": torch.zeros(3, 8, 8)}] * 20, batch_size=5)
    trainer.fit(Shade(), batches, batches)
    return tmp_path, loggers[1]


def test_grids_are_of_the_same_latents_at_every_validation(finished_run):
    folder, logger = finished_run
    paths = sorted((folder / "samples").iterdir())
    assert [path.name for path in paths] == [f"step-{step:07d}.png" for step in (0, 2, 4)]
    assert len({path.read_bytes() for path in paths}) == 1
    assert [(key, step) for key, _, step in logger.images] == [("samples", 0), ("samples", 2), ("samples", 4)]
    expected = Shade().sample(4, torch.Generator().manual_seed(0))
    top_left = np.asarray(Image.open(paths[0]))[2, 2]
    assert np.abs(top_left - (expected[0, :, 0, 0].numpy() + 1) * 127.5).max() <= 0.5


class WithoutValidation(LightningDataModule):
    """Data whose only split is that of training."""

    def train_dataloader(self):
        return DataLoader([{"image": torch.zeros(3, 8, 8)}] * 10, batch_size=5)

    def real_images(self, split):
        raise InputError(f"there is no split {split}")


def test_a_grid_is_drawn_without_real_images_where_there_are_none(tmp_path):
    quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    trainer = Trainer(
        accelerator="cpu", max_steps=2, callbacks=[SampleGrid(num_images=4)], default_root_dir=tmp_path, **quiet
    )
    trainer.fit(Shade(), datamodule=WithoutValidation())
    with Image.open(tmp_path / "samples" / "step-0000002.png") as picture:
        assert picture.size == (22, 22)


def test_summary_has_metrics_cost_and_hardware(finished_run):
    summary = json.loads((finished_run[0] / "summary.json").read_text())
    assert summary["metrics"]["val/fid"] == {"first": 10.0, "best": 6.0, "best_step": 4, "last": 6.0}
    assert (summary["g_steps"], summary["images_seen"]) == (4, 20)
    assert summary["seconds"] > 0
    assert summary["peak_memory_bytes"]["host"] > 50e6
    assert summary["versions"]["torch"] == torch.__version__.split("+")[0]
    assert summary["hardware"]["cores"] >= 1


def test_each_row_of_metrics_has_the_images_seen_and_the_learning_rate(finished_run):
    history = MetricsFile(finished_run[0]).history()
    assert set(history["images_seen"]) == {(0, 0), (2, 10), (4, 20)}
    assert set(history["train/lr"]) == {(0, 0.1), (2, 0.1), (4, 0.1)}
    assert len(history["images_seen"]) == len(history["val/fid"])


def test_curves_are_drawn_at_the_end(finished_run):
    picture = np.asarray(Image.open(finished_run[0] / "curves.png"))
    assert picture.shape[1] > 800
    assert len(np.unique(picture.reshape(-1, picture.shape[-1]), axis=0)) > 10


def test_curves_are_drawn_with_negative_and_missing_values(tmp_path):
    draw_curves({"train/loss_d": [(1, -2.0), (2, float("nan")), (3, 4.0)]}, tmp_path / "curves.png")
    assert (tmp_path / "curves.png").stat().st_size > 5000


def test_the_best_value_depends_on_the_direction_of_the_metric():
    points = [(0, 5.0), (1, float("nan")), (2, 1.0), (3, 3.0)]
    assert summarize("val/fid", points) == {"first": 5.0, "best": 1.0, "best_step": 2, "last": 3.0}
    assert summarize("val/is", points)["best"] == 5.0
    assert summarize("val/psnr", points)["best_step"] == 0


def test_only_metrics_with_a_better_value_have_a_best_one():
    points = [(0, 5.0), (2, 1.0)]
    for name in ("train/d_x", "train/loss_g", "train/loss_d", "val/d_x", "images_seen", "train/lr_g"):
        assert summarize(name, points) == {"first": 5.0, "last": 1.0}
    assert summarize("own/score", points, "max")["best"] == 5.0, "the run has chosen what is best"


def long_history(count=200):
    noise = np.random.default_rng(0).normal(size=count)
    losses = [(step, 1 + float(value)) for step, value in enumerate(noise, start=1)]
    return {
        "train/loss_d": losses,
        "train/grad_norm_g": losses,
        "train/lr_g": [(step, 2e-4) for step, _ in losses],
        "val/fid": [(0, 9.0), (100, 3.0), (200, 5.0)],
    }


def test_curves_show_gradients_rates_the_runs_name_and_the_best_step():
    figure = make_figure(long_history(), "run of $mine")
    assert figure.get_suptitle() == r"run of \$mine"
    titles = [axis.get_title(loc="left") for axis in figure.axes]
    assert {"losses", "norm of the gradients", "learning rates", "Fréchet distance, logarithmic"} <= set(titles)
    stars = [line for line in figure.axes[-2].lines if line.get_marker() == "*"]
    assert [(line.get_xdata()[0], line.get_ydata()[0]) for line in stars] == [(100, 3.0)]
    assert stars[0].get_label() == "best: 3 at step 100"
    assert not [line for line in figure.axes[0].lines if line.get_marker() == "*"], "a loss has no best value"


def test_smoothed_curves_have_the_raw_ones_behind_and_vary_less():
    raw, smoothed = make_figure(long_history()).axes[0].lines
    assert raw.get_alpha() < 0.5
    assert list(raw.get_ydata()) == [value for _, value in long_history()["train/loss_d"]]
    assert np.std(smoothed.get_ydata()) < 0.5 * np.std(raw.get_ydata())
    assert raw.get_color() == smoothed.get_color()
    assert len(make_figure(long_history(SMOOTHED - 1)).axes[0].lines) == 1


def test_steps_are_whole_and_legends_hide_nothing():
    figure = make_figure({"train/loss_d": [(0, 1.0), (1, 2.0), (2, 0.5)], "val/fid": [(0, 1.0), (2, 0.5)]}, "short")
    figure.canvas.draw()
    for axis in figure.axes:
        assert all(tick == round(tick) for tick in axis.get_xticks())
        if (legend := axis.get_legend()) is not None:
            assert not any(legend.get_window_extent().overlaps(other.get_window_extent()) for other in figure.axes)
    assert sum(axis.get_legend() is not None for axis in figure.axes) == 2


def test_small_numbers_beside_the_axes_are_whole():
    figure = make_figure({"train/penalty_d": [(0, 0.0001675), (1, 0.0001681)]})
    figure.canvas.draw()
    for label in figure.axes[0].get_yticklabels():
        assert label.get_window_extent().x0 >= 0, label.get_text()


def test_a_moving_average_keeps_a_constant_and_leaves_nan_out():
    values = np.full(50, 3.0)
    values[7] = np.nan
    assert smooth(values, 5) == pytest.approx(np.full(50, 3.0))
    assert smooth(np.arange(9.0), 3)[1:-1] == pytest.approx(np.arange(1.0, 8.0))
    assert len(smooth(np.arange(100.0))) == 100


def test_predicted_images_are_written_under_their_numbers(tmp_path):
    trainer = Trainer(
        accelerator="cpu",
        logger=False,
        callbacks=[SampleWriter()],
        enable_progress_bar=False,
        default_root_dir=tmp_path,
    )
    trainer.predict(Shade(), DataLoader(range(5), batch_size=2))
    assert sorted(path.name for path in (tmp_path / "samples").iterdir()) == [f"{i:06d}.png" for i in range(5)]
