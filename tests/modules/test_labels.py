"""Training with labels, and samples of the classes."""

import shutil

import pytest
import torch
from lightning import Trainer
from torch.utils.data import DataLoader, Dataset, TensorDataset

from gan_lightning import DCGAN, ImageFolder, InputError, StyleGAN2
from gan_lightning.images import write_png
from gan_lightning.modules.labels import check_labels
from gan_lightning.resume.last_checkpoint import LastCheckpoint
from tests.modules.test_dcgan import BATCH, SIZE, TINY, loader, train
from tests.modules.test_step_graphs import assert_same, recordings  # noqa: F401

CLASSES = 2
OPTIONS = {
    **{name: {"objective": name} for name in ("saturating", "bce_mse", "least_squares", "hinge", "relativistic")},
    "wasserstein": {"objective": "wasserstein", "gradient_penalty": 10.0, "discriminator_normalization": "none"},
    "penalties": {"r1": 1.0, "r2": 1.0, "penalty_interval": 2},
    "d_steps": {"d_steps": 2, "fresh_latents": True},
    "accumulate": {"accumulate": 2},
    "batch": {"discriminator_normalization": "batch"},
    "none": {"generator_normalization": "none"},
}


class Shades(Dataset):
    """Dark images of class 0 and bright ones of class 1, with a little noise."""

    def __init__(self, count=BATCH * 10):
        rng = torch.Generator().manual_seed(0)
        self.labels = torch.randint(CLASSES, (count,), generator=rng)
        noise = 0.1 * torch.randn(count, 3, SIZE, SIZE, generator=rng)
        self.images = (1.4 * self.labels[:, None, None, None] - 0.7 + noise).clamp(-1, 1)

    def __len__(self):
        return len(self.labels)

    def __getitem__(self, index):
        return {"image": self.images[index], "label": self.labels[index]}


def shades(count=BATCH * 10):
    return DataLoader(Shades(count), batch_size=BATCH)


def conditional(**options):
    torch.manual_seed(0)
    return DCGAN(**{**TINY, "num_classes": CLASSES, **options})


@pytest.mark.parametrize("options", OPTIONS.values(), ids=list(OPTIONS))
def test_samples_are_of_the_class_that_is_asked_for(tmp_path, options):
    """What every objective and penalty learns from two shades: which label is the brighter one."""
    options = {"discriminator_normalization": "spectral", **options}
    module = conditional(lr_g=4e-3, lr_d=4e-3, ema_decay=0.9, **options)
    train(module, 60, tmp_path, shades())
    brightness = [module.sample(32, torch.Generator().manual_seed(1), labels=label).mean() for label in range(CLASSES)]
    assert brightness[1] - brightness[0] > 0.1, brightness


def test_parts_of_a_batch_keep_their_labels(tmp_path):
    options = {"generator_normalization": "none", "discriminator_normalization": "none", "fresh_latents": True}
    states = []
    for accumulate in (1, 2):
        module = conditional(accumulate=accumulate, **options)
        train(module, 5, tmp_path, shades())
        states.append(module.state_dict())
    assert_same(*states)


@pytest.mark.parametrize("options", [{}, {"r1": 1.0}, {"objective": "relativistic", "d_steps": 2}], ids=str)
def test_a_replay_reads_the_labels_of_its_step(tmp_path, recordings, options):  # noqa: F811
    states = []
    for graph in (False, None):
        module = conditional(cuda_graph=graph, **options)
        train(module, 12, tmp_path, shades())
        states.append(module.state_dict())
    assert recordings
    assert_same(states[1], states[0])


def test_pairs_of_images_and_labels_are_batches_too(tmp_path):
    data = Shades()
    states = []
    for batches in (shades(), DataLoader(TensorDataset(data.images, data.labels.int()), batch_size=BATCH)):
        module = conditional()
        train(module, 4, tmp_path, batches)
        states.append(module.state_dict())
    assert_same(*states)


BAD = {
    "missing": (
        lambda image, label: {"image": image},
        r"^a batch has no labels, but the model has 2 classes: expected",
    ),
    "alone": (lambda image, label: image, r"^a batch has no labels, but the model has 2 classes: expected"),
    "floats": (lambda image, label: {"image": image, "label": label.float()}, r"^labels are torch.float32 of shape"),
    "shape": (
        lambda image, label: {"image": image, "label": label[:, None]},
        r"of shape \(8, 1\): expected 8 integers",
    ),
    "large": (
        lambda image, label: (image, label + 1),
        r"^labels are from 1 to 2, but the model's .* 0 to 1: set .* to 3",
    ),
}


@pytest.mark.parametrize("kind", BAD)
def test_batches_without_right_labels_are_refused(tmp_path, kind):
    make, message = BAD[kind]
    batches = [make(batch["image"], batch["label"]) for batch in shades()]
    with pytest.raises(InputError, match=message):
        train(conditional(), 2, tmp_path, DataLoader(batches, batch_size=None))


def test_negative_labels_are_refused():
    with pytest.raises(InputError, match="labels are from -1 to 1"):
        check_labels(torch.tensor([-1, 1]), 2)
    check_labels(torch.empty(0, dtype=torch.int64), 2)


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """The shades as files: root/bright and root/dark, and three times as many dark ones."""
    root, data = tmp_path_factory.mktemp("shades"), Shades(64)
    order = data.labels.argsort()
    dark, bright = order[data.labels[order] == 0][:24], order[data.labels[order] == 1][:8]
    for name, rows in (("dark", dark), ("bright", bright)):
        for row in rows.tolist():
            write_png(root / name / f"{row:03d}.png", data.images[row])
    return root


@pytest.fixture
def files(folders, tmp_path):
    def call(root=folders, **options):
        common = {"labels": "folder", "image_size": SIZE, "batch_size": 4, "split_fractions": (0.5, 0.5, 0)}
        return ImageFolder(str(root), **{**common, "cache_dir": str(tmp_path / "cache"), **options})

    return call


def make_trainer(folder, steps, **options):
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False, "log_every_n_steps": 1}
    quiet |= {
        "enable_checkpointing": bool(options.get("callbacks")),
        "num_sanity_val_steps": 0,
        "accelerator": "cpu",
        "devices": 1,
    }
    return Trainer(max_steps=steps, default_root_dir=folder, **{**quiet, **options})


def test_names_and_frequencies_come_from_the_data_and_stay_with_the_model(files, tmp_path):
    module, data = conditional(), files()
    trainer = make_trainer(tmp_path, 4)
    trainer.fit(module, datamodule=data)
    assert module.class_names == ("bright", "dark")
    counts = data.class_counts().tolist()
    assert module.generator_ema.class_counts.tolist() == counts
    assert counts[1] > counts[0]
    trainer.save_checkpoint(tmp_path / "a.ckpt")
    loaded = DCGAN.load_from_checkpoint(tmp_path / "a.ckpt")
    assert loaded.class_names == ("bright", "dark")
    samples = [model.sample(6, torch.Generator().manual_seed(0)) for model in (module, loaded)]
    torch.testing.assert_close(*samples, rtol=0, atol=0)
    by_name, by_number = (loaded.sample(3, torch.Generator().manual_seed(0), labels=label) for label in ("dark", 1))
    torch.testing.assert_close(by_name, by_number, rtol=0, atol=0)
    each = loaded.sample(3, torch.Generator().manual_seed(0), labels=["bright", "dark", "bright"])
    torch.testing.assert_close(each[1], by_name[1])
    for labels, message in (
        ("gray", "the model has no class 'gray': choose one of bright, dark"),
        ([0, 1, 1], "3 labels were given for 2 images: give one for each, or one for all"),
    ):
        with pytest.raises(InputError, match=message):
            loaded.sample(2, labels=labels)


def conditional_stylegan2():
    torch.manual_seed(0)
    sizes = {"max_channels": 8, "w_dim": 5, "mapping_layers": 2, "path_interval": 2, "penalty_interval": 2}
    return StyleGAN2(num_classes=CLASSES, **TINY, **sizes)


@pytest.mark.parametrize("conditional", [conditional, conditional_stylegan2])
def test_a_run_with_labels_resumes_exactly(files, tmp_path, conditional):
    whole = conditional()
    make_trainer(tmp_path, 6).fit(whole, datamodule=files(seed=0))
    first = conditional()
    trainer = make_trainer(tmp_path, 3, callbacks=[LastCheckpoint()])
    trainer.fit(first, datamodule=files(seed=0))
    second, path = conditional(), next(tmp_path.rglob("last.ckpt"))
    trainer = make_trainer(tmp_path, 6, callbacks=[LastCheckpoint()])  # StyleGAN2's noise is of the global generator
    trainer.fit(second, datamodule=files(seed=0), ckpt_path=path, weights_only=True)
    for name, value in whole.state_dict().items():
        assert torch.equal(value, second.state_dict()[name]), name
    counts = second.class_counts if isinstance(second, StyleGAN2) else second.generator.class_counts
    assert counts[1] > counts[0]


def test_other_classes_than_those_of_the_checkpoint_are_refused(files, folders, tmp_path):
    trainer, other = make_trainer(tmp_path, 2), tmp_path / "other"
    trainer.fit(conditional(), datamodule=files())
    trainer.save_checkpoint(tmp_path / "a.ckpt")
    shutil.copytree(folders, other)
    (other / "bright").rename(other / "pale")  # dark is the first class now
    with pytest.raises(
        InputError, match="classes of the checkpoint are not those of the data: where it has bright, they"
    ):
        make_trainer(tmp_path, 4).fit(
            conditional(), datamodule=files(other), ckpt_path=tmp_path / "a.ckpt", weights_only=True
        )


@pytest.mark.parametrize(
    ("classes", "labels", "message"),
    [
        (
            2,
            None,
            r"^the model has 2 classes, but the data have no labels: set data.labels, or leave model.num_classes",
        ),
        (0, "folder", r"^the data have labels of 2 classes, but the model has none: set model.num_classes to 2, or"),
        (3, "folder", r"^the data have 2 classes, the model has 3: set model.num_classes to 2, or choose other labels"),
    ],
)
def test_data_and_model_must_both_have_labels(files, tmp_path, classes, labels, message):
    with pytest.raises(InputError, match=message):
        make_trainer(tmp_path, 2).fit(conditional(num_classes=classes), datamodule=files(labels=labels))


def test_a_model_without_classes_takes_no_labels(tmp_path):
    module = conditional(num_classes=0)
    train(module, 2, tmp_path, shades())  # a loader's labels are left out, as before
    train(module, 2, tmp_path, loader())
    with pytest.raises(InputError, match="this model was trained without labels: leave labels out"):
        module.sample(2, labels=1)
    with pytest.raises(InputError, match="num_classes is 1: set it to 2 or more"):
        StyleGAN2(num_classes=1)


def test_labels_of_predict_go_in_turn():
    module = conditional()
    module.class_names = ("10", "2")
    for given, expected in (
        (None, [0, 1, 0]),
        ("2", [1, 1, 1]),
        (2, [1, 1, 1]),
        (0, [0, 0, 0]),
        ("2,10", [1, 0, 1]),
        ([2, "10", "10"], [1, 0, 0]),
    ):
        module.sample_labels = given
        assert [module.label_of_sample(number) for number in range(3)] == expected
    module.sample_labels = "2,3"
    with pytest.raises(InputError, match="the model has no class '3'"):
        module.label_of_sample(0)
