"""Results of a restoration: pictures, latents, losses and metrics of every image."""

from __future__ import annotations

import csv
import json
import logging
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any

import torch
from lightning import Callback, LightningModule, Trainer
from lightning.fabric.utilities import move_data_to_device
from lightning.pytorch.utilities import rank_zero_only
from safetensors.torch import save_file
from torch import Tensor

from gan_lightning.atomic import atomic_path
from gan_lightning.callbacks.best_effort import best_effort
from gan_lightning.callbacks.restoration_pictures import color_map, draw_blur_curves, draw_losses, draw_panel
from gan_lightning.errors import InputError
from gan_lightning.file_names import printable
from gan_lightning.images import make_grid, write_png
from gan_lightning.loggers import SteadyWandbLogger
from gan_lightning.modules.restoration_store import Record, RestorationStore, one_line_if_unwritten
from gan_lightning.modules.restorer import Restored, SearchStep

PICTURES = ("target", "degraded", "restored", "spread", "panel", "intermediate/*", "searches/*")
UPLOADED = ("latents.safetensors", "images.csv", *(f"{kind}/*.png" for kind in PICTURES))
THREADS = 4  # number of threads that encode and write pictures
NAMED = 5  # maximum number of photographs that a warning names

_log = logging.getLogger(__name__)


class RestorationWriter(Callback):
    """Callback that writes each finished batch of a restoration to the run folder while the next one is restored.

    target/, degraded/, restored/ and panel/ contain PNGs named like the images, records/ the latent, the losses and the
    metrics of each image. For several searches, spread/ shows their standard deviation (black: 0; brightest: 0.25 or
    more on the [0, 1] scale), and searches/NAME/ the result of each search, if the module keeps it. At the end, even if
    the run is interrupted, images.csv, latents.safetensors and losses.png are made of all records. `LatentRestoration`
    adds this callback if the trainer has none.
    """

    def __init__(self, intermediate_every: int = 0, logged_panels: int = 16) -> None:
        """Check the options.

        Args:
            intermediate_every: Write the images to intermediate/NAME/ at every n-th step of the search; 0 to disable.
            logged_panels: Number of panels that are sent to loggers such as W&B as one picture.

        Raises:
            InputError: If a number is negative.
        """
        if min(intermediate_every, logged_panels) < 0:
            raise InputError("intermediate_every and logged_panels must be 0 or more")
        self.intermediate_every, self.logged_panels = intermediate_every, logged_panels
        self._wrote = False

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Open the store in the run folder."""
        self.store, self._wrote = RestorationStore(trainer.default_root_dir), False
        self._threads = ThreadPoolExecutor(THREADS, "restoration writer")
        self._pending: list[Future[None]] = []
        if self.intermediate_every:
            pl_module.observe_steps(self.write_step)  # type: ignore[operator]

    def write_step(self, step: SearchStep) -> None:
        """Write the images of every n-th step of a search."""
        if step.number % self.intermediate_every or step.stage == "blur":  # of which no image is a result
            return
        images = step.render()
        if len(images) == len(step.names):  # the refinement of weights works on only some at a time
            for name, image in zip(step.names, images.cpu(), strict=True):
                path = self.store.folder / "intermediate" / name / f"{step.stage}-{step.number:04d}.png"
                self._pending.append(self._threads.submit(write_png, path, image))

    def on_test_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, *args: Any, **kwargs: Any
    ) -> None:
        """Write a batch."""
        self._write(outputs)

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write the files of all images."""
        self._finish()
        trainer.strategy.barrier("restoration records were written")
        with one_line_if_unwritten(self.store.folder, "images.csv and other files of all images"):
            self._collect(trainer, pl_module)

    on_predict_batch_end, on_predict_end = on_test_batch_end, on_test_end

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Write the files of the images that are finished."""
        if self._wrote:
            with best_effort("a picture or record", Exception):  # the first error is the one to raise
                self._finish()
            with best_effort("images.csv", Exception):
                self._collect(trainer, pl_module)

    def _write(self, restored: Restored | None) -> None:
        """Write a batch in other threads while the next one is restored, after the previous one is written."""
        if restored is None:  # all images were finished before
            return
        self._wait()
        restored = move_data_to_device(restored, torch.device("cpu"))
        for place, metrics in enumerate(restored.rows()):
            self._pending.append(self._threads.submit(write_image, self.store, restored, place, metrics))
        self._wrote = True

    def _wait(self) -> None:
        """Wait until everything is written, and raise the first error if there was one."""
        pending, self._pending = self._pending, []
        wait(pending)
        for written in pending:
            written.result()

    def _finish(self) -> None:
        """Wait for the last batch, and end the threads."""
        try:
            self._wait()
        finally:
            self._threads.shutdown()

    @rank_zero_only
    def _collect(self, trainer: Trainer, pl_module: Any) -> None:
        """Write the files of all images, and send them to the loggers."""
        records, folder = self.store.read(), self.store.folder
        if not records:
            return
        with atomic_path(folder / "latents.safetensors") as path:
            latents = torch.stack([record.tensors["latent"] for record in records])
            save_file({"latent": latents}, path, {"names": json.dumps([record.name for record in records])})
        table = make_table(records)
        with atomic_path(folder / "images.csv") as path:
            write_csv(path, table)
        with atomic_path(folder / "losses.png") as path:
            losses = {record.name: record.tensors["history"] for record in records}
            draw_losses(losses, path, {record.name: latent_steps(record) for record in records})
        if "sigmas" in records[0].tensors:
            curves = {r.name: (r.tensors["residuals"], r.metrics["blur_sigma"]) for r in records}
            with atomic_path(folder / "blur.png") as path:
                draw_blur_curves(records[0].tensors["sigmas"], curves, path)
        if (message := describe_unexplained(records, pl_module.restorer.leaves_out_generator)) is not None:
            _log.warning(message)
        if (message := describe_labels(records)) is not None:
            _log.info(message)
        for logger in trainer.loggers:
            self._log(logger, table)

    def _log(self, logger: Any, table: list[dict[str, Any]]) -> None:
        """Send results to a logger, as far as it accepts them; W&B accepts all."""
        folder = self.store.folder
        if hasattr(logger, "log_image"):
            if names := [row["name"] for row in table[: self.logged_panels]]:
                write_png(folder / "panels.png", stack_panels([folder / "panel" / f"{name}.png" for name in names]))
                logger.log_image("restoration/panels", [str(folder / "panels.png")])
            for name in ("losses", "blur"):
                if (picture := folder / f"{name}.png").is_file():
                    logger.log_image(f"restoration/{name}", [str(picture)])
        if isinstance(logger, SteadyWandbLogger):
            panels = [folder / "panel" / f"{row['name']}.png" for row in table]
            logger.log_pictures("restoration/images", table, {"panel": panels})
        elif hasattr(logger, "log_table"):
            logger.log_table("restoration/images", columns=list(table[0]), data=[list(row.values()) for row in table])
        if save := getattr(getattr(logger, "experiment", None), "save", None):
            for pattern in UPLOADED:
                if any(folder.glob(pattern)):
                    save(str(folder / pattern), base_path=str(folder), policy="now")


def write_image(store: RestorationStore, restored: Restored, place: int, metrics: dict[str, float]) -> None:
    """Write the pictures of an image, then its record, which marks it as finished.

    Args:
        store: Store in the run folder.
        restored: A batch of restored images on the CPU.
        place: Position of the image in the batch.
        metrics: Metrics of the image.

    Raises:
        UnwrittenError: If a file cannot be written, for example on a full disk.
    """
    with one_line_if_unwritten(store.folder, f"the results of {restored.names[place]}"):
        _write_image(store, restored, place, metrics)


def _write_image(store: RestorationStore, restored: Restored, place: int, metrics: dict[str, float]) -> None:
    name, folder = restored.names[place], store.folder
    target = None if restored.target is None else restored.target[place]
    degraded, image = restored.degraded[place], restored.restored[place]
    spread = None if restored.spread is None else restored.spread[place]
    pictures = {"target": target, "degraded": degraded, "restored": image}
    pictures |= {
        "spread": None if spread is None else color_map(spread[0]),
        "panel": draw_panel(target, degraded, image, spread),
    }
    for kind, picture in pictures.items():
        if picture is not None:
            write_png(folder / kind / f"{name}.png", picture)
    for number, solution in enumerate([] if restored.solutions is None else restored.solutions[place]):
        write_png(folder / "searches" / name / f"{number}.png", solution)
    tensors = {"latent": restored.latent[place], "history": until_it_stopped(restored.history[:, place])}
    tensors["latent_steps"] = torch.tensor(restored.latent_steps)
    if restored.blur is not None:
        tensors |= {"sigmas": restored.blur.sigmas, "residuals": restored.blur.residuals[:, place]}
    source, label = (None if values is None else values[place] for values in (restored.sources, restored.labels))
    store.write(name, tensors, metrics, source, label)


def latent_steps(record: Record) -> int | None:
    """Return the number of steps of an image before its refinement; None for a record of an earlier version."""
    steps = record.tensors.get("latent_steps")
    return None if steps is None else int(steps)


def until_it_stopped(history: Tensor) -> Tensor:
    """Return the losses (steps + 1) of an image up to its last step; other images of the batch may take more steps."""
    moves = history.diff().nonzero()
    return history[: int(moves[-1]) + 2 if len(moves) else 1]


def describe_unexplained(records: Sequence[Record], leaves_out_generator: Callable[[float], bool]) -> str | None:
    """Return a message that names the photographs that no search explains, or None if there are none.

    Args:
        records: Records of all photographs.
        leaves_out_generator: Function that states whether such photographs, given their noise level, are restored
            without the generator.
    """
    missed = [record for record in records if not record.metrics["explained"]]
    if not missed:
        return None
    names = ", ".join(printable(record.source or record.name) for record in missed[:NAMED])
    more = f" and {len(missed) - NAMED} more" if len(missed) > NAMED else ""
    verb, pronoun = ("is", "it is") if len(missed) == 1 else ("are", "they are")
    message = f"{len(missed)} of {len(records)} photographs {verb} not explained by this generator: {names}{more}"
    if all(leaves_out_generator(record.metrics["noise_level"]) for record in missed):
        return f"{message}; {pronoun} restored without it"
    return message


def describe_labels(records: Sequence[Record]) -> str | None:
    """Return a message about the classes that were found, by image or, for many images, as counts; None if none."""
    labels = {record.source or record.name: record.label for record in records if record.label is not None}
    if not labels:
        return None
    if len(labels) <= NAMED:
        found = [f"{printable(name)} is {label}" for name, label in labels.items()]
    else:
        counts = Counter(labels.values())
        found = [f"{counts[label]} of {label}" for label in sorted(counts, key=str)]
    return f"Classes found, see images.csv: {', '.join(found)}"


def make_table(records: Sequence[Record]) -> list[dict[str, Any]]:
    """Return one row per image with its name and its metrics.

    If names do not identify the photographs (they were shortened, or are in subfolders), a column "photograph" has
    their paths.
    """
    kinds = {"converged": bool, "num_steps": int, "explained": bool}
    rows: list[dict[str, Any]] = []
    for record in records:
        metrics = {name: kinds.get(name, float)(value) for name, value in record.metrics.items()}
        label = {} if record.label is None else {"label": record.label}
        rows.append({"name": record.name, **label, **metrics})
    sources = [record.source for record in records]
    stems = [record.name.partition("-")[2] for record in records]
    plain = all(
        source is None or stem == source.rpartition(".")[0] for stem, source in zip(stems, sources, strict=True)
    )
    if sources == [None] * len(sources) or (plain and len(set(stems)) == len(stems)):
        return rows
    paths = ["" if source is None else printable(source) for source in sources]
    return [{"name": row.pop("name"), "photograph": path, **row} for row, path in zip(rows, paths, strict=True)]


def write_csv(path: Path, table: list[dict[str, Any]]) -> None:
    """Write one row per image, with an empty cell if an image lacks a metric."""
    columns = list(dict.fromkeys(name for row in table for name in row))
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, columns)
        writer.writeheader()
        writer.writerows(table)


def stack_panels(paths: list[Path]) -> Tensor:
    """Return panels of equal size below each other, (3,H,W) uint8."""
    from PIL import Image

    panels = []
    for path in paths:
        with Image.open(path) as panel:
            pixels = torch.frombuffer(bytearray(panel.convert("RGB").tobytes()), dtype=torch.uint8)
            panels.append(pixels.reshape(panel.height, panel.width, 3).permute(2, 0, 1))
    return make_grid(torch.stack(panels), columns=1)
