"""Part of gpu.py on CUDA graphs: the replayed step against the same step without a graph."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

import lightning as L
import torch
from gpu_setup import Setup, Table
from gpu_training import FULL, MIXED, SameBatch
from torch import Tensor, nn
from torch.optim.lr_scheduler import LinearLR

from gan_lightning import DCGAN

STEPS = 40
OPTIONS: dict[str, tuple[dict[str, Any], str]] = {
    "32-true": ({}, FULL),
    "bf16-mixed": ({}, MIXED),
    "r1, r2": ({"r1": 1.0, "r2": 0.5}, FULL),
    "r1, penalty_interval 4": ({"r1": 1.0, "penalty_interval": 4}, MIXED),
    "gradient_penalty, wasserstein": ({"gradient_penalty": 10.0, "objective": "wasserstein"}, FULL),
    "spectral, hinge": ({"discriminator_normalization": "spectral", "objective": "hinge"}, FULL),
    "relativistic": ({"objective": "relativistic"}, FULL),
    "d_steps 2, fresh_latents": ({"d_steps": 2, "fresh_latents": True}, FULL),
    "gradient_clip": ({"gradient_clip": 0.5}, FULL),
}


class Scheduled(DCGAN):
    """Lowers G's learning rate at every step."""

    def configure_optimizers(self) -> Any:
        """Return the optimizers and a schedule."""
        optimizers = super().configure_optimizers()
        return optimizers, [{"scheduler": LinearLR(optimizers[0], 1.0, 0.0, STEPS), "interval": "step"}]


class Reading(DCGAN):
    """Has a generator that reads a value back, which no graph can."""

    def build_generator(self) -> nn.Module:
        """Return G with a layer that looks at its input."""
        generator = super().build_generator()
        generator.main.insert(0, Look())  # type: ignore[operator, union-attr]
        return generator


class Look(nn.Module):
    """Reads the sum of its input."""

    def forward(self, inputs: Tensor) -> Tensor:
        """Return the input."""
        if inputs.sum().item() == torch.inf:
            raise ValueError("the input is not finite")
        return inputs


class OneSmaller(SameBatch):
    """The same batch again and again, but a smaller one after twenty."""

    def __iter__(self) -> Iterator[dict[str, Tensor]]:
        for number, batch in enumerate(super().__iter__()):
            yield {"image": batch["image"][:-2]} if number == 20 else batch


def train(
    setup: Setup, cls: type[DCGAN], options: dict[str, Any], precision: str, loader: Any, **settings: Any
) -> DCGAN:
    """Train for some steps, logging every tenth."""
    L.seed_everything(0, verbose=False)
    sizes = setup.sizes
    common = {"image_size": sizes.image_size, "latent_dim": sizes.latent_dim, "base_channels": sizes.base_channels}
    model = cls(**{**common, **options})
    trainer = setup.trainer(precision, max_steps=STEPS, log_every_n_steps=10, deterministic=True, **settings)
    trainer.fit(model, loader)
    if trainer.global_step != STEPS:
        raise RuntimeError(f"{trainer.global_step} steps were taken, not {STEPS}")
    return model


def apart(one: DCGAN, other: DCGAN) -> float:
    """Return the distance of the weights, as a fraction of how far they moved; 0 if they are equal to the bit."""
    networks = (model.generator.requires_grad_(False).cpu().parameters() for model in (one, other))
    pairs = list(zip(*networks, strict=True))
    distance = sum(float((a.double() - b.double()).square().sum()) for a, b in pairs)
    L.seed_everything(0, verbose=False)
    start = type(one)(**one.hparams).requires_grad_(False).generator.parameters()
    moved = sum(float((a.double() - b.double()).square().sum()) for (a, _), b in zip(pairs, start, strict=True))
    return (distance / moved) ** 0.5


def graphs(setup: Setup) -> None:
    """Compare the weights after some steps, replayed and not."""
    table = Table(
        "The step as a CUDA graph",
        "training", "apart from the step without a graph", "apart when repeated without", "captured",
        notes=f"Distance of G's weights after {STEPS} steps, as a fraction of how far they have moved; deterministic.",
    )  # fmt: skip
    if not setup.cuda:
        table.row("all", "needs CUDA")
        table.end()
        return

    def compare(
        cls: type[DCGAN], options: dict[str, Any], precision: str, small: bool = False, **more: Any
    ) -> list[str]:
        images = setup.random_batch(setup.sizes.batch_sizes[0])

        def run(graph: bool | None, **settings: Any) -> DCGAN:
            loader = (OneSmaller if small else SameBatch)(images, STEPS * options.get("d_steps", 1))
            return train(setup, cls, {**options, "cuda_graph": graph}, precision, loader, **settings)

        eager, replayed, again = run(False), run(more.pop("asked", None), **more), run(False)
        kinds = replayed._graphs._captured
        return [f"{apart(eager, replayed):.1e}", f"{apart(eager, again):.1e}", f"{len(kinds)} kinds of steps"]

    for name, (options, precision) in OPTIONS.items():
        table.try_row(name, partial(compare, DCGAN, options, precision))
    table.try_row("a schedule of G's learning rate", partial(compare, Scheduled, {}, FULL))
    table.try_row("a smaller batch in between", partial(compare, DCGAN, {}, FULL, small=True))
    table.try_row("ddp, one rank", partial(compare, DCGAN, {}, MIXED, strategy="ddp"))
    table.try_row("a generator that reads a value", partial(compare, Reading, {}, FULL))
    table.try_row("the same, asked for", partial(compare, Reading, {}, FULL, asked=True))
    table.try_row("accumulate 2, asked for", partial(compare, DCGAN, {"accumulate": 2}, FULL, asked=True))
    table.try_row("16-mixed, asked for", partial(compare, DCGAN, {}, "16-mixed", asked=True))
    table.end()
