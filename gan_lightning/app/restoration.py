"""One photograph, restored as `gan-lightning restore` does it, but in this process and with pictures for a page."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Event
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import nn

from gan_lightning.app.holes import Mask, write_mask
from gan_lightning.app.limits import Limits, check_photo
from gan_lightning.app.pictures import spread_picture, to_picture
from gan_lightning.app.stopping import StopWhen
from gan_lightning.app.tasks import Wish
from gan_lightning.commands.restore_job import Job, as_json
from gan_lightning.data.photo_format import PhotoFormat, read_photo
from gan_lightning.data.photos import photo_loader
from gan_lightning.degradations import Identity
from gan_lightning.errors import InputError
from gan_lightning.file_names import printable, writable
from gan_lightning.inversion.blind import CURVE_STEPS, SIGMAS
from gan_lightning.inversion.frozen_generator import share_frozen
from gan_lightning.modules.restoration import LatentRestoration
from gan_lightning.modules.restorer import Restored, SearchStep, image_names
from gan_lightning.networks.checkpoints import load_generator
from gan_lightning.options.parser import CommandParser, ConfigFile

Tell = Callable[[float, str], None]  # fraction that is done, and what is being done


@dataclass(frozen=True)
class Outcome:
    """A restored photograph for the page.

    Attributes:
        before: The photograph as the search took it; holes are gray.
        after: The restored photograph.
        fillings: What each of several searches found, from the most to the least likely.
        spread: Where they differ, in color; None for a single search.
        name: Name of the restored photograph as a file.
        report: What was done, in a sentence or two.
    """

    before: Image.Image
    after: Image.Image
    fillings: list[Image.Image]
    spread: Image.Image | None
    name: str
    report: str


class PhotoRestoration:
    """Restoration of single photographs with a generator.

    Args:
        generator: Checkpoint, as for `restore`.
        limits: Largest photographs that are accepted.
        device: Device of the networks.

    Raises:
        InputError: If the generator cannot be loaded.
    """

    def __init__(self, generator: str, limits: Limits, device: torch.device) -> None:
        network = load_generator(generator)
        self.generator, self.limits, self.device = generator, limits, device
        self.image_size, self.channels = network.image_size, network.channels
        self._last: nn.Module = network  # the generator of the last restoration

    def preview(self, photo: Path) -> Image.Image:
        """Return the square in the center of a photograph, in the size of the generator's images.

        Raises:
            InputError: If it cannot be used, or is smaller.
        """
        check_photo(photo, self.limits)
        photo_format = PhotoFormat(self.channels, self.image_size, self.image_size)
        try:
            image, _ = read_photo(photo, photo_format, "center_crop", to_gray=True)
        except InputError:
            raise
        except Exception as error:
            raise InputError(f"{printable(photo.name)} cannot be read ({error}): choose another photograph") from error
        return to_picture(image)

    def restore(self, photo: Path, wish: Wish, painted: Mask | None, tell: Tell, stop: Event) -> Outcome:
        """Restore a photograph.

        Args:
            photo: The file.
            wish: What to do.
            painted: (S,S) what was painted over, for the task "inpaint".
            tell: Function that is told of the progress.
            stop: Event that stops the work.

        Raises:
            InputError: If the photograph or the drawing cannot be used.
            Stopped: If the work was stopped.
        """
        started = time.perf_counter()
        suffix = check_photo(photo, self.limits)
        tell(0.0, "Reading the photograph")
        with TemporaryDirectory(prefix="restore-") as folder, StopWhen(stop):
            copy, mask = Path(folder, "photo", f"{writable(photo.stem, 100)}{suffix}"), None
            copy.parent.mkdir()
            shutil.copyfile(photo, copy)
            if wish.task == "inpaint":
                mask = Path(folder, "mask.npy")
                write_mask(mask, copy, painted, self.image_size)
            job = Job(wish.options(copy, self.generator, mask, Path(folder, "restored")))
            job.check()
            model = load_model(job, self.device)
            share_frozen(model.generator, self._last)  # its preconditioner takes as long as many steps
            self._last = model.generator
            batch = read_batch(job, model)
            restored = search(model, batch, tell)
            before = shown_before(model, batch, restored)
        seconds = time.perf_counter() - started
        found = restored.solutions if restored.spread is not None else None
        return Outcome(
            before=before,
            after=to_picture(restored.restored[0]),
            fillings=[] if found is None else [to_picture(solution) for solution in found[0]],
            spread=None if restored.spread is None else spread_picture(restored.spread[0]),
            name=f"{copy.stem}-restored.png",
            report=report(model, restored, seconds),
        )

    def warm_up(self) -> None:
        """Restore nothing in particular, so that the first photograph takes as long as the others."""
        with TemporaryDirectory(prefix="restore-") as folder:
            photo = Path(folder, "warm-up.png")
            side = self.image_size
            Image.fromarray(np.linspace(0, 255, side * side * 3).astype(np.uint8).reshape(side, side, 3)).save(photo)
            painted = np.zeros((side, side), dtype=np.bool_)
            painted[: side // 2, : side // 2] = True
            self.restore(photo, Wish("inpaint", searches=2), painted, lambda fraction, what: None, Event())


def load_model(job: Job, device: torch.device) -> LatentRestoration:
    """Return the module that `predict` would restore the photographs of a job with."""
    parser = CommandParser(usage="app")
    parser.add_argument("--config", action=ConfigFile)
    parser.add_subclass_arguments(LatentRestoration, "model")
    models = [as_json({"model": config["model"]}) for config in job.configs()]
    options = parser.parse_classes([f"--config={config}" for config in models])
    model: LatentRestoration = options.model
    return model.to(device).eval()


def read_batch(job: Job, model: LatentRestoration) -> dict[str, Any]:
    """Return the photograph of a job as a batch of `predict`.

    Raises:
        InputError: If it cannot be used.
    """
    data = job.configs()[1]["data"]["init_args"]
    loader = photo_loader(
        job.photos, model.photo_format, 1, resize=data["resize"], known=model.known_pixels, to_gray=data["to_gray"]
    )
    if model.restorer.masks is not None:
        model.restorer.masks.prepare_predict(loader.dataset)
    batch: dict[str, Any] = next(iter(loader))
    return {name: value.to(model.device) if name in ("image", "alpha") else value for name, value in batch.items()}


def search(model: LatentRestoration, batch: dict[str, Any], tell: Tell) -> Restored:
    """Restore a batch, and tell of each step."""
    restorer = model.restorer
    every_pixel = isinstance(restorer.degradation, Identity) and restorer.masks is None and not restorer.blind_blur
    counts = restorer.inversion.counts(every_pixel)
    refining = "Refining", 0.5, 0.45, counts.refine_steps
    stages = {  # what is being done, the fraction that is done before, that of the stage, and its most steps
        "blur": ("Estimating the blur", 0.02, 0.03, len(SIGMAS) * CURVE_STEPS),
        "latent": ("Searching", 0.05, 0.45, counts.num_steps),
        "features": refining,
        "weights": refining,
    }
    tell(0.02, "Estimating the blur" if restorer.blind_blur else "Starting the searches")

    def observe(step: SearchStep) -> None:
        what, before, part, limit = stages[step.stage]
        tell(before + part * min(1.0, step.number / max(1, limit)), f"{what}, step {step.number}")

    restorer.observers.append(observe)
    return restorer.restore(batch, [0], image_names(batch), clean=False)


def shown_before(model: LatentRestoration, batch: dict[str, Any], restored: Restored) -> Image.Image:
    """Return the photograph as the search took it, in the size of the result."""
    degraded, masks = restored.degraded, model.restorer.masks
    if masks is not None:
        degraded = masks.after(Identity(), batch, [0])(degraded)
    height, width = restored.restored.shape[-2:]
    return to_picture(degraded[0]).resize((width, height), Image.Resampling.NEAREST)


def report(model: LatentRestoration, restored: Restored, seconds: float) -> str:
    """Return what was done, in a sentence or two."""
    (row,) = restored.rows()
    count = 1 if restored.spread is None or restored.solutions is None else restored.solutions.shape[1]
    sentences = [f"Restored in {seconds:.1f} s by {count} search{'es' * (count > 1)}."]
    if restored.blur is not None:
        sentences.append(f"Estimated blur: {row['blur_sigma']:.1f} pixels.")
    elif row["noise_level"] > 0:
        sentences.append(f"Noise level: {row['noise_level']:.2f}.")
    if not row["explained"]:
        without = model.restorer.leaves_out_generator(row["noise_level"])
        so = ", and was restored without it" if without else ""
        sentences.append(f"The photograph is not explained by this generator{so}.")
    return " ".join(sentences)
