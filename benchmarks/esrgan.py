"""ESRGAN 32 -> 128 px on the built-in faces against bicubic enlargement, as a Markdown table.

    python benchmarks/esrgan.py --steps 4400 --adversarial_steps 1000 --output runs/esrgan_benchmark
    python benchmarks/esrgan.py --minutes 2.5 --precision 32-true

The faces are rendered first. The PSNR stage minimizes the absolute error; the adversarial one goes on from there. The
images that are measured are held out. With --minutes, three quarters of the time are those of the PSNR stage.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

import environment  # noqa: F401  first: it sets what torch reads when it is imported
import lightning as L
import torch
from lightning.pytorch.callbacks import Callback
from report import print_header, print_table, quieten_lightning, synchronize
from safetensors.torch import save_file

from gan_lightning import ESRGAN, SyntheticFaces
from gan_lightning.callbacks.samples import read_real
from gan_lightning.callbacks.upscale_panels import panels
from gan_lightning.images import to_float, write_png
from gan_lightning.metrics.restoration import image_errors
from gan_lightning.modules.held_out_quality import VALIDATION, bicubic
from gan_lightning.seeding import batch_rng

PSNR_SHARE = 0.75  # of the time


class Limit(Callback):
    """Stop a training after a number of seconds or steps, and save it every two minutes if there is a path."""

    def __init__(self, seconds: float, steps: int, path: Path | None) -> None:
        self.seconds, self.steps, self.path = seconds, steps, path

    def on_train_start(  # noqa: D102
        self, trainer: L.Trainer, pl_module: L.LightningModule
    ) -> None:
        self.started = self.saved = time.perf_counter()
        self.first = trainer.global_step

    def on_train_batch_end(  # noqa: D102
        self, trainer: L.Trainer, pl_module: L.LightningModule, *args: Any
    ) -> None:
        now, done = time.perf_counter(), trainer.global_step - self.first
        if now - self.started >= self.seconds or done >= self.steps:
            trainer.should_stop = True
        if self.path is not None and now - self.saved > 120:
            save(pl_module, self.path)
            self.saved = now


def save(module: Any, path: Path) -> None:
    """Save the averaged generator under the names of the public RRDBNet."""
    path.parent.mkdir(parents=True, exist_ok=True)
    state = {name: value.detach().cpu().contiguous() for name, value in module.generator_ema.state_dict().items()}
    save_file(state, path)


@torch.no_grad()
def measure(module: ESRGAN, data: SyntheticFaces, of_bicubic: bool = False) -> tuple[float, float]:
    """Return mean PSNR and SSIM of the validation images."""
    psnr, ssim = [], []
    for index, batch in enumerate(data.val_dataloader()):
        large = to_float(batch["image"].contiguous()).to(module.device)
        small = module.reduce(large, batch_rng(0, VALIDATION, index))
        errors = image_errors(bicubic(small, module.scale) if of_bicubic else module(small).float(), large)
        psnr.append(errors["psnr"])
        ssim.append(errors["ssim"])
    return float(torch.cat(psnr).mean()), float(torch.cat(ssim).mean())


def train(module: ESRGAN, data: SyntheticFaces, options: argparse.Namespace, limit: Limit) -> tuple[int, float]:
    """Train until the limit; return steps and seconds."""
    trainer = L.Trainer(
        max_steps=-1,
        max_epochs=-1,
        accelerator=options.accelerator,
        devices=1,
        precision=options.precision,
        logger=False,
        callbacks=[limit],
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        limit_val_batches=0,
        log_every_n_steps=50,
    )
    trainer.fit(module, datamodule=data)
    synchronize(trainer.strategy.root_device)
    return trainer.global_step, time.perf_counter() - limit.started


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=4400, help="steps of the PSNR stage")
    parser.add_argument("--adversarial_steps", type=int, default=1000, help="steps of the adversarial stage")
    parser.add_argument("--minutes", type=float, help="minutes of training, of both stages together")
    parser.add_argument("--faces", type=int, default=4000)
    parser.add_argument("--root", default="data/synthetic")
    parser.add_argument("--image_size", type=int, default=128)
    parser.add_argument("--batch_size", type=int, default=16)
    parser.add_argument("--features", type=int, default=32)
    parser.add_argument("--blocks", type=int, default=3)
    parser.add_argument("--base_channels", type=int, default=12)
    parser.add_argument("--degradation", default="bicubic")
    parser.add_argument("--weights", type=float, nargs=3, default=(1.0, 1.0, 0.05), help="L1, features, adversarial")
    parser.add_argument("--halve_every", type=int, default=1500)
    parser.add_argument("--precision", default="bf16-mixed")
    parser.add_argument("--accelerator", default="auto")
    parser.add_argument("--threads", type=int, help="torch threads")
    parser.add_argument("--output", type=Path, help="folder of weights and panels")
    options = parser.parse_args()
    if options.threads:
        torch.set_num_threads(options.threads)
    torch.set_float32_matmul_precision("high")
    quieten_lightning()
    print_header("ESRGAN on synthetic faces", f"{options.faces} faces, a tenth of them held out")

    started = time.perf_counter()
    data = SyntheticFaces(
        options.root, count=options.faces, image_size=options.image_size, batch_size=options.batch_size, seed=0
    )
    data.prepare_data()
    data.setup("fit")
    rendering = time.perf_counter() - started
    L.seed_everything(0, verbose=False)
    module = ESRGAN(
        options.image_size,
        generator=(options.features, options.blocks),
        base_channels=options.base_channels,
        degradation=options.degradation,
        loss_weights=tuple(options.weights),
        learning_rates=(4e-4, 1e-4),
        halve_every=options.halve_every,
        adversarial_from=10**9,
    )
    on_gpu = torch.cuda.is_available() and options.accelerator != "cpu"
    device = torch.device("cuda" if on_gpu else "cpu")
    seconds = 60 * options.minutes if options.minutes else 10**9
    psnr, ssim = measure(module.to(device), data, of_bicubic=True)
    rows = [["bicubic", f"{psnr:.2f} dB", f"{ssim:.4f}", "", "", "", ""]]
    large = to_float(read_real_of(data, 8))
    for stage, steps, share in (
        ("PSNR stage", options.steps, PSNR_SHARE),
        ("adversarial stage", options.adversarial_steps, 1 - PSNR_SHARE),
    ):
        path = options.output / f"{stage.split()[0].lower()}.safetensors" if options.output else None
        if stage != "PSNR stage":
            module.adversarial_from, module.halve_every, module.lr_g = 0, 0, 1e-4
        if not steps:
            continue
        done, took = train(module, data, options, Limit(share * seconds, steps, path))
        ours, similarity = measure(module.to(device), data)
        rate = done * options.batch_size / took
        rows.append(
            [
                stage,
                f"{ours:.2f} dB",
                f"{similarity:.4f}",
                f"{ours - psnr:+.2f} dB",
                f"{done:,}",
                f"{took:.0f}",
                f"{rate:.0f}",
            ]
        )
        if path is not None:
            save(module, path)
            write_png(path.with_suffix(".png"), panels(module, large.to(device), seed=0))
        print_table(["", "PSNR", "SSIM", "over bicubic", "steps", "seconds", "images/s"], rows)
    print(f"Faces were rendered, or found, in {rendering:.0f} s. Panels: small, bicubic, ours, original.\n")


def read_real_of(data: SyntheticFaces, count: int) -> torch.Tensor:
    """Return images (B,C,H,W) uint8 of the validation split, evenly spaced."""
    return read_real(argparse.Namespace(datamodule=data), count)  # type: ignore[arg-type]


if __name__ == "__main__":
    main()
