"""Restoration with a generator whose class is searched for."""

import csv
from dataclasses import replace

import pytest
import torch
from safetensors.torch import save_file

from gan_lightning.callbacks.restoration_writer import describe_labels
from gan_lightning.degradations import Identity, Mask
from gan_lightning.errors import InputError
from gan_lightning.images import write_png
from gan_lightning.inversion import InversionSettings, invert, whitening
from gan_lightning.inversion.class_search import in_one
from gan_lightning.modules.restoration import LatentRestoration
from gan_lightning.modules.restoration_store import Record
from gan_lightning.networks.checkpoints import load_generator
from gan_lightning.networks.class_priors import ClassPriors
from gan_lightning.networks.conditional import ConditionalGenerator
from gan_lightning.networks.stylegan2 import StyleGAN2Generator
from gan_lightning.networks.stylegan2_prior import StyleGAN2Prior
from tests.commands import CONFIGS, command, refusal
from tests.modules.test_restoration import checkpoint, generator, run_test  # noqa: F401

pytestmark = pytest.mark.usefixtures("undrawn_figures")

SIZE, LATENT = 16, 5
NAMES = ("none", "Smiling", "Eyeglasses", "both")
QUICK = InversionSettings(num_searches=1, num_steps=4, refine_steps=2, noise_level=0.0)


@pytest.fixture(autouse=True)
def few_probes(monkeypatch):
    """Measure a rougher preconditioner, which takes less time than the searches of these tests."""
    monkeypatch.setattr(whitening, "PROBES", 64)


@pytest.fixture(scope="module")
def classes():
    """A generator whose four classes differ clearly."""
    torch.manual_seed(2)
    network = ConditionalGenerator(len(NAMES), SIZE, 1, LATENT, 4).eval()
    network.class_names = NAMES
    for parameter in network.parameters():
        parameter.data *= 3
    return network


@pytest.fixture(scope="module")
def weights(classes, tmp_path_factory):
    path = tmp_path_factory.mktemp("classes") / "generator.pt"
    state = {f"generator.{name}": value for name, value in classes.state_dict().items()}
    torch.save({"state_dict": state, "class_names": list(NAMES)}, path)
    return str(path)


@pytest.fixture(scope="module")
def drawn(classes):
    """Labels, and an image of each of them."""
    labels = torch.tensor([2, 0, 1, 3, 3, 1, 0, 2])
    with torch.no_grad():
        images = classes(torch.randn(len(labels), LATENT, generator=torch.Generator().manual_seed(7)), labels)
    return labels, images


def lower_half():
    mask = torch.ones(1, SIZE, SIZE)
    mask[:, SIZE // 2 :] = 0
    return Mask(mask)


@pytest.mark.parametrize("degradation", [None, lower_half()], ids=["whole", "half"])
def test_the_class_of_each_image_is_found(weights, drawn, tmp_path, degradation):
    labels, images = drawn
    module = LatentRestoration(weights, degradation, inversion=QUICK, label="search")
    _, (output,) = run_test(module, images, tmp_path, batch_size=len(images))
    assert output.labels == [NAMES[label] for label in labels]
    (table,) = tmp_path.glob("*/images.csv")
    with table.open() as file:
        assert [row["label"] for row in csv.DictReader(file)] == output.labels


def test_images_are_those_of_their_class_in_any_batch(weights, classes, drawn, tmp_path):
    labels, images = drawn
    whole, parts = (
        run_test(LatentRestoration(weights, lower_half(), inversion=QUICK, label="search"), images, tmp_path, size)[1]
        for size in (len(images), 3)
    )
    assert [label for part in parts for label in part.labels] == whole[0].labels
    assert torch.allclose(torch.cat([part.restored for part in parts]), whole[0].restored, atol=1e-4)
    for row in (0, 3):
        expected = invert(
            classes.of_class(int(labels[row])),
            lower_half(),
            lower_half()(images[row : row + 1]),
            QUICK,
            rng=torch.Generator().manual_seed(0),
            indices=[row],
        )
        assert torch.allclose(whole[0].restored[row], expected.image[0], atol=1e-5)


def test_a_search_for_the_class_is_another_setting(weights):
    searching, other, given = (
        LatentRestoration(weights, inversion=QUICK, label=label).restorer.settings()
        for label in ("search", "search", "none")
    )
    assert searching == other != given


def test_histories_of_several_classes_are_one(classes, drawn):
    parts = [
        invert(classes.of_class(0), lower_half(), lower_half()(drawn[1][:count]), replace(QUICK, num_steps=steps))
        for count, steps in ((1, 1), (2, 4))
    ]
    merged = in_one(parts, torch.tensor([1, 2, 0]))
    assert merged.latent_steps == max(part.latent_steps for part in parts)
    assert torch.equal(merged.image, torch.cat([parts[1].image, parts[0].image]))
    short = merged.history[:, 2]
    steps = parts[0].latent_steps
    assert torch.equal(short[: steps + 1], parts[0].history[: steps + 1, 0])
    assert (short[steps : merged.latent_steps + 1] == short[steps]).all(), "it waits for the others"
    refined = parts[0].history[steps + 1 :, 0]
    assert torch.equal(short[merged.latent_steps + 1 :][: len(refined)], refined)


def test_a_stylegan2_is_searched_by_number(tmp_path):
    torch.manual_seed(0)
    sizes = {"latent_dim": 6, "base_channels": 4, "max_channels": 8, "w_dim": 5, "mapping_layers": 2}
    path = tmp_path / "G.safetensors"
    save_file(StyleGAN2Generator(16, **sizes, label_dim=3).state_dict(), path)
    settings = replace(QUICK, refine="none", latent_weight=0.0)
    module = LatentRestoration(str(path), inversion=settings, label="search", space="z")
    latents = torch.randn(1, 6, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        image = module.generator.of_class(2)(latents).clamp(-1, 1)
    _, (output,) = run_test(module, image, tmp_path)
    assert output.labels[0] in ("0", "1", "2")
    prior = StyleGAN2Prior(load_generator(path), "z", int(output.labels[0]))
    expected = invert(prior, Identity(), image, settings, rng=torch.Generator().manual_seed(0))
    assert torch.allclose(output.restored, expected.image, atol=1e-5)


def test_only_so_many_priors_are_kept(classes, monkeypatch):
    monkeypatch.setattr("gan_lightning.networks.class_priors.KEPT", 2)
    priors = ClassPriors(classes)
    first = priors.of_class(0)
    assert priors.of_class(0) is first
    priors.of_class(1), priors.of_class(2)
    assert priors.of_class(0) is not first
    assert not {"_kept"} & priors.state_dict().keys()


def test_what_cannot_be_searched_is_refused(weights, checkpoint, tmp_path):  # noqa: F811
    with pytest.raises(InputError, match="the generator is a DCGAN without classes: leave label out"):
        LatentRestoration(checkpoint, label="search")
    path = tmp_path / "G.safetensors"
    save_file(StyleGAN2Generator(16, latent_dim=6, base_channels=4, max_channels=8, w_dim=5).state_dict(), path)
    with pytest.raises(InputError, match="this generator has no classes: leave label out"):
        LatentRestoration(path, label="search")
    with pytest.raises(InputError, match="blind_blur needs the class of the images: set label to it"):
        LatentRestoration(weights, label="search", blind_blur=True)
    with pytest.raises(InputError, match="z alone: leave space out"):
        LatentRestoration(weights, label="search", space="w")


def test_the_log_names_few_images_and_counts_many():
    records = [Record(f"{row:06d}", {}, {}, label=str(row % 2)) for row in range(6)]
    assert describe_labels(records[:2]) == "Classes found, see images.csv: 000000 is 0, 000001 is 1"
    assert describe_labels(records) == "Classes found, see images.csv: 3 of 0, 3 of 1"
    assert describe_labels([Record("000000", {}, {})]) is None


def test_both_commands_find_the_class(weights, drawn, own_folder, tmp_path, capsys, caplog):
    caplog.set_level("INFO")
    for row in range(2):
        write_png(tmp_path / "photos" / f"{row}.png", drawn[1][row])
    quick = ["--model.inversion.num_steps", "2", "--model.inversion.refine_steps", "2"]
    assert command("restore", "photos", "--generator", weights, "--task", "invert", "--label", "search", *quick) == 0
    assert "0.png, of class Eyeglasses" in capsys.readouterr().out
    assert (tmp_path / "restored" / "0.png").is_file()
    words = ["predict", "--config", CONFIGS / "restore" / "denoise.yaml", "--data", "Photos", "--data.root", "photos"]
    words += ["--model.generator_ckpt", weights, *quick, "--trainer.accelerator", "cpu"]
    assert command(*words, "--model.label", "search", "--name", "found") == 0
    assert "Classes found, see images.csv: 0.png is Eyeglasses, 1.png is none" in caplog.text
    with open("runs/found/images.csv") as file:
        assert [row["label"] for row in csv.DictReader(file)] == ["Eyeglasses", "none"]
    line = refusal(capsys, command(*words, "--name", "unlabeled"))
    assert line.endswith("set label to one of none, Smiling, Eyeglasses, both, or to search")
