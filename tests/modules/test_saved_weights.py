"""Modules are saved for others, and loaded from a folder or from the Hugging Face Hub."""

import inspect
import json
import sys
from functools import partial
from pathlib import Path

import pytest
import torch

from gan_lightning import DCGAN, InputError, StyleGAN2, load_generator
from gan_lightning.modules.saved_weights import checkpoint_of_weights

TINY = {"image_size": 16, "base_channels": 4, "latent_dim": 8}


class Wider(DCGAN):
    """A subclass with an option of its own."""

    def __init__(self, margin: float = 1.0, **kwargs):
        super().__init__(**kwargs)
        self.margin = margin


def same_images(ours, theirs, *labels):
    latents = torch.randn(3, 8)
    return ours(latents, *labels).equal(theirs(latents, *labels))


@pytest.mark.parametrize("kind", [DCGAN, Wider, StyleGAN2])
def test_a_module_is_the_same_after_a_round_trip(kind, tmp_path):
    own = {"margin": 0.5} if kind is Wider else {}
    model = kind(**TINY, lr_g=3e-4, **own)
    model.generator_ema.load_state_dict({k: v + 0.01 for k, v in model.generator_ema.state_dict().items()})
    model.save_pretrained(tmp_path / "mine")
    assert sorted(path.name for path in (tmp_path / "mine").iterdir()) == [
        "README.md",
        "config.json",
        "model.safetensors",
    ]
    loaded = kind.from_pretrained(tmp_path / "mine")
    assert same_images(loaded, model)
    assert dict(loaded.hparams).keys() == dict(model.hparams).keys()
    assert (loaded.lr_g, getattr(loaded, "margin", None)) == (3e-4, own.get("margin"))
    assert not loaded.training
    latents = torch.randn(3, 8)  # to rounding: the module's networks have another memory format
    torch.testing.assert_close(load_generator(tmp_path / "mine")(latents), model(latents), atol=1e-5, rtol=0)
    assert list(inspect.signature(DCGAN).parameters)[:2] == ["image_size", "channels"]


def test_classes_keep_their_names(tmp_path):
    model = DCGAN(**TINY, num_classes=2)
    model._set_names(("cat", "dog"))
    model.save_pretrained(tmp_path)
    loaded = DCGAN.from_pretrained(tmp_path)
    assert loaded.class_names == ("cat", "dog")
    assert load_generator(tmp_path).class_names == ("cat", "dog")


def test_weights_of_the_package_are_a_module(tmp_path):
    model = DCGAN.from_pretrained("faces64")
    latents = torch.randn(2, model.latent_dim)
    torch.testing.assert_close(model(latents), load_generator("faces64")(latents), atol=1e-5, rtol=0)


def test_the_card_has_the_metrics_of_the_run(tmp_path):
    metrics = {"val/fd_random": {"first": 9.0, "best": 2.0, "last": 3.0}}
    (tmp_path / "summary.json").write_text(json.dumps({"metrics": metrics}))
    DCGAN(**TINY).save_pretrained(tmp_path / "mine", run=tmp_path)
    assert "| `val/fd_random` | 9 | 2 | 3 |" in (tmp_path / "mine" / "README.md").read_text()
    DCGAN(**TINY).save_pretrained(tmp_path / "other")
    assert "Not measured." in (tmp_path / "other" / "README.md").read_text()


def test_a_download_that_is_not_whole_is_refused_in_one_line(tmp_path):
    DCGAN(**TINY).save_pretrained(tmp_path)
    path = tmp_path / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-10])
    for load in (DCGAN.from_pretrained, partial(checkpoint_of_weights, command="predict")):
        with pytest.raises(InputError, match="are not whole: copy or download them again"):
            load(tmp_path)


@pytest.mark.usefixtures("own_folder")
def test_a_name_that_is_no_name_is_refused():
    Path("empty").mkdir()
    for name in ("nowhere", "empty", "a/b/c"):
        with pytest.raises(InputError, match="has no weights: give a folder of save_pretrained, OWNER/NAME"):
            DCGAN.from_pretrained(name)


def test_the_hub_needs_its_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(InputError, match=r"gan-lightning\[hub\]"):
        DCGAN.from_pretrained("somebody/faces")


def test_the_hub_without_a_network(monkeypatch, tmp_path):
    constants = pytest.importorskip("huggingface_hub.constants")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(InputError, match="cannot be downloaded from the Hugging Face Hub") as caught:
        DCGAN.from_pretrained("somebody/faces", cache_dir=str(tmp_path))
    assert "\n" not in str(caught.value)


def test_the_hub_with_one(monkeypatch, tmp_path):
    hub = pytest.importorskip("huggingface_hub")
    model = DCGAN(**TINY)
    model.save_pretrained(tmp_path)
    asked = []
    monkeypatch.setattr(hub, "snapshot_download", lambda name, **options: asked.append((name, options)) or tmp_path)
    assert same_images(DCGAN.from_pretrained("somebody/faces", revision="v1"), model)
    assert (asked[0][0], asked[0][1]["revision"]) == ("somebody/faces", "v1")
