"""Batches of loaders of one's own: images are taken from what torchvision gives, anything else is refused by name."""

import logging

import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset

from gan_lightning import DCGAN, InputError
from gan_lightning.callbacks import RunSummary
from gan_lightning.modules.encoder import LatentEncoder
from gan_lightning.modules.image_batches import images_of
from gan_lightning.modules.restoration import LatentRestoration
from gan_lightning.networks.dcgan import Generator
from tests.modules.test_dcgan import BATCH, SIZE, TINY, Noise, loader, train

IMAGES = Noise(2 * BATCH).images
REFUSED = {  # dataset -> what the message says
    "uint8": (((IMAGES + 1) * 127.5).to(torch.uint8), r"uint8.*127\.5 - 1"),
    "float64": (IMAGES.double(), r"float64.*images\.float\(\)"),
    "[0, 1]": ((IMAGES + 1) / 2, r"no value of the first 8 images is below 0.*\[0, 1\].*Normalize"),
    "[0, 255]": ((IMAGES + 1) * 127.5, r"values from .* to 25\d, expected \[-1, 1\]"),
    "ImageNet": ((IMAGES - 0.1) / 0.45, r"values from -2\.\d+ to \d.*expected \[-1, 1\]"),
    "another size": (torch.rand(BATCH, 3, 20, 20) * 2 - 1, "expected images of 3x16x16.*but got 3x20x20"),
    "gray": (IMAGES[:, :1], "but got 1x16x16"),
    "channels last": (IMAGES.permute(0, 2, 3, 1), "but got 16x16x3"),
    "no channels": (IMAGES[:, 0], r"have shape \(8, 16, 16\)"),
}


def items(images):
    return DataLoader([{"image": image} for image in images], batch_size=BATCH)


def trained(folder, data):
    torch.manual_seed(0)
    module = DCGAN(**TINY)
    train(module, 2, folder, data)
    return module.state_dict()


def test_pairs_and_plain_tensors_train_on_the_images_as_a_dict_does(tmp_path):
    """A torchvision data set gives (image, label), the label a number, and a loader collates both."""
    expected = trained(tmp_path, loader(2 * BATCH))
    pairs = [(image, row % 3) for row, image in enumerate(IMAGES)]
    attributes = TensorDataset(IMAGES, torch.ones(len(IMAGES), 40, dtype=torch.int64))
    for data in (pairs, attributes, IMAGES):
        weights = trained(tmp_path, DataLoader(data, batch_size=BATCH))
        assert all(torch.equal(value, expected[name]) for name, value in weights.items())


@pytest.mark.parametrize("name", REFUSED)
def test_images_that_are_not_the_generators_are_refused(name, tmp_path):
    images, message = REFUSED[name]
    with pytest.raises(InputError, match=message):
        train(DCGAN(**TINY), 1, tmp_path, items(images))
    if name != "ImageNet":
        with pytest.raises(InputError, match=message):
            train(DCGAN(**TINY), 1, tmp_path, (loader(BATCH), items(images)))


@pytest.mark.parametrize(
    ("batch", "message"),
    [
        ([IMAGES, IMAGES], r"pair of images and torch.float32 of shape \(16, 3, 16, 16\)"),
        ([IMAGES, torch.zeros(16)], "which are no labels"),
        ({"pixels": IMAGES}, "a dict with pixels"),
        ({"image": [1, 2]}, "a dict with image"),
        ("text", "a batch is str"),
        ([], "a batch is list"),
        (None, "a batch is NoneType"),
    ],
)
def test_what_cannot_be_told_apart_is_refused(batch, message):
    with pytest.raises(InputError, match=message):
        images_of(batch)


def test_a_few_bright_images_are_named_but_not_refused(tmp_path, caplog):
    bright = DataLoader([{"image": image.abs()} for image in IMAGES], batch_size=4)
    with caplog.at_level(logging.WARNING):
        train(DCGAN(**TINY), 1, tmp_path, bright)
    assert "No value of the first 4 images is below 0" in caplog.text


def test_the_range_is_read_once_in_a_fit_and_again_in_the_next(tmp_path, monkeypatch):
    """Each reading of it would wait for the device."""
    read = []
    monkeypatch.setattr("gan_lightning.modules.image_batches.check_range", lambda *_: read.append(1))
    module = DCGAN(**TINY)
    train(module, 5, tmp_path)
    assert len(read) == 1
    train(module, 5, tmp_path)
    assert len(read) == 2


def test_images_of_pairs_are_counted_in_the_summary(tmp_path):
    summary = RunSummary()
    train(DCGAN(**TINY), 2, tmp_path, DataLoader([(i, 0) for i in IMAGES], batch_size=BATCH), callbacks=[summary])
    assert summary.state_dict()["images_seen"] == 2 * BATCH


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    path = tmp_path_factory.mktemp("generator") / "generator.pt"
    torch.save(Generator(SIZE, latent_dim=6, base_channels=4).state_dict(), path)
    return str(path)


def test_an_encoder_refuses_data(checkpoint, tmp_path):
    with pytest.raises(InputError, match="leave the data out"):
        train(LatentEncoder(checkpoint, batches_per_epoch=2, batch_size=4), 1, tmp_path, loader(BATCH))


@pytest.mark.parametrize("command", ["test", "predict"])
@pytest.mark.parametrize("name", ["uint8", "[0, 1]", "[0, 255]", "gray", "another size"])
def test_a_restoration_refuses_the_same(command, name, checkpoint, tmp_path, caplog):
    from tests.modules.test_restoration import QUICK, quiet_trainer

    images, message = REFUSED[name]
    data = DataLoader([{"image": image, "index": row} for row, image in enumerate(images[:BATCH])], batch_size=BATCH)
    run = getattr(quiet_trainer(tmp_path), command)
    module = LatentRestoration(checkpoint, inversion=QUICK)
    if (command, name) == ("predict", "[0, 1]"):  # photographs may be bright
        with caplog.at_level(logging.WARNING):
            run(module, data)
        assert "No value of the first 8 images is below 0" in caplog.text
    else:
        with pytest.raises(InputError, match=message):
            run(module, data)


def test_a_restoration_of_pairs_says_what_is_missing(checkpoint, tmp_path):
    from tests.modules.test_restoration import QUICK, quiet_trainer

    data = DataLoader([(image, 0) for image in IMAGES], batch_size=BATCH)
    with pytest.raises(InputError, match='"image" and "index"'):
        quiet_trainer(tmp_path).predict(LatentRestoration(checkpoint, inversion=QUICK), data)
