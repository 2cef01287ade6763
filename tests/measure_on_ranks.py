"""Compute every metric on some CPU ranks; run by test_exact_metrics.py.

Usage: measure_on_ranks.py FOLDER RANKS COUNT. FOLDER holds images/, 3 COUNT of them, of which a third is measured;
the first rank writes figures-RANKS.json.
"""

import json
import math
import sys
from pathlib import Path

import torch
from lightning import Trainer, seed_everything

from gan_lightning import DCGAN, ImageFolder
from gan_lightning.callbacks.evaluation import GenerationMetrics
from gan_lightning.degradations import SquareMask
from gan_lightning.inversion import InversionSettings
from gan_lightning.metrics.extractors import InceptionFeatures, RandomFeatures
from gan_lightning.modules.encoder import LatentEncoder
from gan_lightning.modules.restoration import LatentRestoration
from gan_lightning.modules.restoration_store import RestorationStore

SIZE = 16


class NoInception(InceptionFeatures):
    """Replaces the Inception network, whose weights no test may download, by random features and classes of them."""

    name = "stand-in"

    def __init__(self):
        torch.nn.Module.__init__(self)
        self.random = RandomFeatures()
        self.num_features = self.random.num_features

    def forward(self, images):
        return self.random(images)

    def class_logits(self, features):
        weight = torch.randn(self.num_features, 10, generator=torch.Generator().manual_seed(0))
        return features.cpu() @ weight / 10


class StandInMetrics(GenerationMetrics):
    def _make_extractor(self, trainer):
        return NoInception()


def main(folder, ranks, count):
    folder = Path(folder)
    seed_everything(0)
    thirds = (1 / 3, 1 / 3, 1 / 3)
    common = {"image_size": SIZE, "eval_batch_size": 2, "batch_size": 1, "cache_dir": str(folder / "cache")}
    data = ImageFolder(str(folder / "images"), split_fractions=thirds, **common)
    gan = DCGAN(image_size=SIZE, latent_dim=6, base_channels=4)
    for parameter in gan.generator_ema.parameters():  # as drawn, its images are all but grey
        parameter.data *= 4
    checkpoint = folder / f"generator-{ranks}.pt"
    callbacks = []
    if count > 1:
        cache = str(folder / f"statistics-{ranks}")
        metrics = StandInMetrics(
            num_images=count, metrics=("fd", "kid", "is"), extractor="inception", batch_size=2, cache_dir=cache
        )
        callbacks.append(metrics)
    options = {"accelerator": "cpu", "devices": ranks, "strategy": "ddp" if ranks > 1 else "auto", "logger": False}
    options |= {"enable_progress_bar": False, "enable_model_summary": False, "enable_checkpointing": False}
    trainer = Trainer(callbacks=callbacks, default_root_dir=folder, **options)
    trainer.validate(gan, data, verbose=False)
    figures = {name: float(value) for name, value in trainer.callback_metrics.items()}
    if trainer.is_global_zero:
        torch.save(gan.generator_ema.state_dict(), checkpoint)
    trainer.strategy.barrier()

    seed_everything(0)
    encoder = LatentEncoder(str(checkpoint), base_channels=4, hidden_dim=8, validation_images=count, batch_size=2)
    figures |= Trainer(**options).validate(encoder, verbose=False)[0]

    def restoration():
        quick = InversionSettings(solver="adam", num_steps=3, start="random", refine="none", noise_level=0.0)
        return LatentRestoration(str(checkpoint), SquareMask(SIZE, 4), inversion=quick)

    figures |= Trainer(default_root_dir=folder / f"restored-{ranks}", **options).test(
        restoration(), data, verbose=False
    )[0]
    photos = folder / f"photos-{ranks}"
    trainer = Trainer(default_root_dir=photos, **options)
    trainer.predict(restoration(), ImageFolder(str(folder / "photos"), **common), return_predictions=False)
    if trainer.is_global_zero:
        names = [record.name for record in RestorationStore(photos).read()]
        figures = {name: value for name, value in figures.items() if "seconds" not in name and not math.isnan(value)}
        (folder / f"figures-{ranks}.json").write_text(json.dumps({"figures": figures, "names": names}))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
