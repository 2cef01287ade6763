"""What a restoration leaves behind: pictures, latents, losses and figures of every image."""

from __future__ import annotations

import csv
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from lightning import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import TQDMProgressBar
from lightning.pytorch.utilities import rank_zero_only
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from gan_lightning.atomic import atomic_path
from gan_lightning.callbacks.restoration_pictures import draw_blur_curves, draw_losses, make_panel
from gan_lightning.callbacks.summary import write_json
from gan_lightning.data.fingerprint import read_content
from gan_lightning.errors import InputError
from gan_lightning.images import make_grid, write_png

RECORDS = "records"
SETTINGS = "settings.json"
UPLOADED = (
    "latents.safetensors",
    "images.csv",
    *(f"{kind}/*.png" for kind in ("target", "degraded", "restored", "panel", "intermediate/*")),
)
SECONDS_BETWEEN = 0.5  # two views of the progress: in a log file each is a line


class RestorationWriter(Callback):
    """Writes each batch of a restoration to the run folder as it ends, and goes on with what it finds there.

    target/, degraded/, restored/ and panel/ hold PNGs, each under the image's name; records/ holds the latent, the
    losses and the figures of each image, and by this says that it is finished. At the end, also when the run is
    interrupted, images.csv, latents.safetensors and losses.png are made of all records.
    """

    def __init__(self, intermediate_every: int = 0, logged_panels: int = 16) -> None:
        """Set what is not always written.

        Args:
            intermediate_every: Steps from one intermediate image to the next, written to intermediate/NAME/; 0 for
                none.
            logged_panels: Panels that loggers such as W&B get, as one picture.

        Raises:
            InputError: A number below 0.
        """
        if min(intermediate_every, logged_panels) < 0:
            raise InputError("intermediate_every and logged_panels must be 0 or more")
        self.intermediate_every, self.logged_panels = intermediate_every, logged_panels
        self.folder = Path()

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Tell the module which images are finished.

        Raises:
            InputError: The folder holds images that were restored with other settings, or other images.
        """
        self.folder = Path(trainer.default_root_dir)
        what = {"command": stage, "data": data_content(trainer, stage), **pl_module.settings()}  # type: ignore[operator]
        settings = json.loads(json.dumps(what, default=str))
        records = read_records(self.folder)
        file = self.folder / RECORDS / SETTINGS
        if records and (not file.is_file() or json.loads(file.read_text()) != settings):
            raise InputError(
                f"{self.folder} holds other images, or images restored with other settings: "
                "choose another folder (--name)"
            )
        pl_module.finished = {record.name: record.figures for record in records}  # type: ignore[assignment]
        trainer.strategy.barrier("restoration records were read")
        if trainer.is_global_zero:
            write_json(file, settings)

    def on_restoration_step(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        names: Sequence[str],
        stage: str,
        step: int,
        losses: Tensor,
        render: Callable[[], Tensor],
    ) -> None:
        """Write intermediate images, if told to.

        Args:
            trainer: The trainer.
            pl_module: The module.
            names: Of the images.
            stage: "latent", or the refinement's.
            step: Of this stage.
            losses: The best so far.
            render: Gives the images as they are, (B,C,H,W).
        """
        if not self.intermediate_every or step % self.intermediate_every:
            return
        images = render()
        if len(images) == len(names):  # the tuning of weights goes on image by image
            for name, image in zip(names, images, strict=True):
                write_png(self.folder / "intermediate" / name / f"{stage}-{step:04d}.png", image)

    def on_test_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Write a batch."""
        self._write(outputs)

    def on_predict_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Write a batch."""
        self._write(outputs)

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Sum up."""
        trainer.strategy.barrier("restoration records were written")
        self._collect(trainer)

    def on_predict_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Sum up."""
        trainer.strategy.barrier("restoration records were written")
        self._collect(trainer)

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Sum up what there is."""
        self._collect(trainer)

    def _write(self, restored: Any) -> None:
        """Write the pictures of a batch, and last the records, which say that these are there."""
        if restored is None:  # all finished before
            return
        rows = restored.rows()
        for place, name in enumerate(restored.names):
            target = None if restored.target is None else restored.target[place]
            degraded, image = restored.degraded[place], restored.restored[place]
            for kind, picture in (("target", target), ("degraded", degraded), ("restored", image)):
                if picture is not None:
                    write_png(self.folder / kind / f"{name}.png", picture)
            write_png(self.folder / "panel" / f"{name}.png", make_panel(target, degraded, image))
            curve = {}
            if restored.blur is not None:
                curve = {"sigmas": restored.blur.sigmas, "residuals": restored.blur.residuals[:, place]}
            tensors = {"latent": restored.latent[place], "history": until_it_stopped(restored.history[:, place])}
            write_record(self.folder, name, {**tensors, **curve}, rows[place])

    @rank_zero_only
    def _collect(self, trainer: Trainer) -> None:
        """Make the files that tell of all images, and give them to the loggers."""
        records = read_records(self.folder)
        if not records:
            return
        names = [record.name for record in records]
        latents = {"latent": torch.stack([record.tensors["latent"] for record in records])}
        metadata = {"names": json.dumps(names)}
        with atomic_path(self.folder / "latents.safetensors") as path:
            save_file(latents, path, metadata)
        table = [{"name": record.name} | tidy(record.figures) for record in records]
        with atomic_path(self.folder / "images.csv") as path:
            write_csv(path, table)
        losses = {record.name: record.tensors["history"] for record in records}
        with atomic_path(self.folder / "losses.png") as path:
            draw_losses(losses, path)
        if "sigmas" in records[0].tensors:
            sigmas = records[0].tensors["sigmas"]
            curves = {r.name: (r.tensors["residuals"], r.figures["blur_sigma"]) for r in records}
            with atomic_path(self.folder / "blur.png") as path:
                draw_blur_curves(sigmas, curves, path)
        for logger in trainer.loggers:
            self._log(logger, names, table)

    def _log(self, logger: Any, names: list[str], table: list[dict[str, Any]]) -> None:
        """Give a logger what it can take: W&B takes all."""
        if hasattr(logger, "log_image"):
            from PIL import Image

            shown = []
            for name in names[: self.logged_panels]:
                with Image.open(self.folder / "panel" / f"{name}.png") as panel:
                    shown.append(torch.frombuffer(bytearray(panel.convert("RGB").tobytes()), dtype=torch.uint8))
                    size = panel.size
            if shown:
                panels = torch.stack(shown).reshape(len(shown), size[1], size[0], 3).permute(0, 3, 1, 2)
                write_png(self.folder / "panels.png", make_grid(panels, columns=1))
                logger.log_image("restoration/panels", [str(self.folder / "panels.png")])
            for name in ("losses", "blur"):
                if (picture := self.folder / f"{name}.png").is_file():
                    logger.log_image(f"restoration/{name}", [str(picture)])
        if hasattr(logger, "log_table"):
            logger.log_table("restoration/images", columns=list(table[0]), data=[list(row.values()) for row in table])
        if save := getattr(getattr(logger, "experiment", None), "save", None):
            for pattern in UPLOADED:
                if any(self.folder.glob(pattern)):
                    save(str(self.folder / pattern), base_path=str(self.folder), policy="now")


def data_content(trainer: Trainer, stage: str) -> str | None:
    """Digest the images that are restored, to the bit; None where no data module knows them."""
    data: Any = getattr(trainer, "datamodule", None)
    if stage == "test" and hasattr(data, "protocol"):
        return str(data.protocol("test")["content"])
    return read_content(data.read_files()) if stage == "predict" and hasattr(data, "read_files") else None


@dataclass(frozen=True)
class Record:
    """What is kept of one image: its tensors ("latent", "history") and its figures."""

    name: str
    tensors: dict[str, Tensor]
    figures: dict[str, float]


def until_it_stopped(history: Tensor) -> Tensor:
    """Cut off the end of an image's losses (steps + 1), where others of its batch went on and it stayed."""
    moves = history.diff().nonzero()
    return history[: int(moves[-1]) + 2 if len(moves) else 1]


def write_record(folder: Path, name: str, tensors: dict[str, Tensor], figures: dict[str, float]) -> None:
    """Write the record of one image, whole or not at all."""
    own = {key: tensor.cpu().contiguous() for key, tensor in tensors.items()}
    file = folder / RECORDS / f"{name}.safetensors"
    with atomic_path(file) as path:
        save_file(own, path, {"figures": json.dumps(figures)})


def read_records(folder: Path) -> list[Record]:
    """Read all records of a run folder, sorted by name.

    Raises:
        InputError: A file among them that is none.
    """
    records = []
    for path in sorted((folder / RECORDS).glob("[!.]*.safetensors")):
        try:
            with safe_open(path, "pt") as file:
                figures = json.loads(file.metadata()["figures"])
                names = file.keys()  # it is no dictionary
                records.append(Record(path.stem, {name: file.get_tensor(name) for name in names}, figures))
        except (SafetensorError, KeyError, TypeError, ValueError) as error:
            raise InputError(f"{path} is no record of a restored image: remove it") from error
    return records


def tidy(figures: dict[str, float]) -> dict[str, float | int | bool]:
    """Give figures as a table shows them."""
    counts = {"converged": bool(figures["converged"]), "num_steps": int(figures["num_steps"])}
    return figures | counts


def write_csv(path: Path, table: list[dict[str, Any]]) -> None:
    """Write one row an image; images whose row lacks a figure have an empty place there."""
    columns = list(dict.fromkeys(name for row in table for name in row))
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, columns)
        writer.writeheader()
        writer.writerows(table)


class RestorationProgress(Callback):
    """Shows the step of the inversion and its mean loss on the trainer's progress bar."""

    def __init__(self) -> None:
        self._shown_at = 0.0

    def on_restoration_step(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        names: Sequence[str],
        stage: str,
        step: int,
        losses: Tensor,
        render: Callable[[], Tensor],
    ) -> None:
        """Show a step; the arguments are those of `RestorationWriter.on_restoration_step`."""
        bar = trainer.progress_bar_callback
        if isinstance(bar, TQDMProgressBar) and time.monotonic() > self._shown_at + SECONDS_BETWEEN:
            self._shown_at = time.monotonic()
            shown = bar.predict_progress_bar if trainer.predicting else bar.test_progress_bar
            shown.set_postfix_str(f"{len(names)} images, {stage} step {step}, loss {float(losses.mean()):.2e}")
