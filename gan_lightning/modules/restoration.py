"""Restoration by latent inversion as a LightningModule: degrade, invert, measure."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from dataclasses import asdict, fields, replace
from typing import Any

import torch
from lightning import Callback, LightningModule, Trainer
from torch import Tensor

from gan_lightning import distributed
from gan_lightning.callbacks.restoration_progress import RestorationProgress
from gan_lightning.callbacks.restoration_writer import RestorationWriter
from gan_lightning.data.fingerprint import read_content
from gan_lightning.data.photos import PhotoFormat
from gan_lightning.degradations import Degradation, GaussianBlur, Identity, Mask
from gan_lightning.degradations.noise import Noise
from gan_lightning.errors import InputError
from gan_lightning.inversion import Inversion, InversionSettings, blend_poisson, estimate_blur, invert
from gan_lightning.inversion.losses import make_loss
from gan_lightning.metrics.restoration import RestorationMetrics, summarize
from gan_lightning.modules.checks import check_sizes
from gan_lightning.modules.ddp import leave_ranks_at_exit
from gan_lightning.modules.encoder import load_encoder
from gan_lightning.modules.masking import ImageMasks
from gan_lightning.modules.restoration_store import RestorationStore
from gan_lightning.modules.restored import Restored, SearchStep, StepObserver, describe, image_names
from gan_lightning.networks.checkpoints import load_discriminator, load_generator

DEFAULT_SETTINGS = InversionSettings()
MOVED_OPTIONS = {  # former options of the model -> where they are set now
    **{field.name: f"model.inversion.{field.name}" for field in fields(InversionSettings)},
    "resize": "data.resize of --data Photos",
}
SEARCH_METRICS = ("loss", "converged", "num_steps", "noise_level", "blur_sigma")  # of the search, not of the image


class LatentRestoration(LightningModule):
    """Restoration of degraded images with the generator of a GAN, which is left unchanged.

    `test` degrades clean images, restores and measures them. `predict` takes photographs that are degraded already.
    The results are written to the folder of the run (`RestorationWriter`). A run that was interrupted is resumed by
    another one with the same settings in the same folder.

    Attributes:
        goes_on_in_its_folder: Tells the command line that a run may use the folder of an earlier one.
        finished: Metrics of the images that an earlier run has restored, by name; they are not restored again.
    """

    goes_on_in_its_folder = True

    def __init__(
        self,
        generator_ckpt: str | os.PathLike[str],
        degradation: Degradation | None = None,
        noise: Noise | None = None,
        inversion: InversionSettings = DEFAULT_SETTINGS,
        masks: str | None = None,
        blind_blur: bool = False,
        encoder_ckpt: str | os.PathLike[str] | None = None,
        poisson: bool = False,
        lpips: bool = False,
        identity_network: str | os.PathLike[str] | None = None,
        seed: int = 0,
    ) -> None:
        """Load the networks and check the settings.

        Args:
            generator_ckpt: Checkpoint of a `DCGAN`, or generator of the PyTorch DCGAN tutorial.
            degradation: A, a class of gan_lightning.degradations. Default: the identity.
            noise: Noise that `test` adds to A(x), such as gan_lightning.degradations.GaussianNoise.
            inversion: Settings of the search.
            masks: Missing pixels of each image, applied after `degradation`: "alpha" for the transparency of the
                photographs, or a folder of masks named like the images, white where pixels are known.
            blind_blur: Estimate the Gaussian blur of each image. `degradation` is then the blur that `test` applies,
                and the search does not know it.
            encoder_ckpt: Checkpoint of a `LatentEncoder`, whose guess replaces `inversion.start`.
            poisson: Blend the content of holes into the known pixels without a seam (Perez et al. 2003), instead of
                `inversion.composite`.
            lpips: Measure LPIPS too (downloads weights).
            identity_network: TorchScript file of a face recognition network that measures the similarity of faces.
            seed: Seed of the starts.

        Raises:
            InputError: If a file is missing or contains something else, settings exclude each other, or the
                degradation does not fit the images of the generator.
        """
        super().__init__()
        if poisson and masks is None and not isinstance(degradation, Mask):
            raise InputError("poisson blends holes: give masks, or a degradation that is a mask")
        if blind_blur and (masks is not None or not isinstance(degradation, GaussianBlur | None)):
            raise InputError("blind_blur estimates a Gaussian blur alone: leave masks and other degradations out")
        if blind_blur and encoder_ckpt is not None:
            raise InputError("blind_blur starts where its own search for the blur ended: leave encoder_ckpt out")
        if inversion.loss == "lpips":
            make_loss(inversion.loss, None, torch.device("cpu"))  # are its weights available?
        self.inversion = replace(inversion, composite=inversion.composite and not poisson)
        self.noise, self.blind_blur, self.poisson, self.seed = noise, blind_blur, poisson, seed
        self.generator = load_generator(generator_ckpt).requires_grad_(False)
        self.discriminator = load_discriminator(generator_ckpt) if inversion.loss == "perceptual" else None
        self.degradation = Identity() if degradation is None else degradation
        self.encoder = None if encoder_ckpt is None else load_encoder(encoder_ckpt, self.generator)
        self.measure = RestorationMetrics(lpips, identity_network)
        with torch.no_grad():
            image = self.generator(torch.zeros(1, self.generator.latent_dim))
            self.image_shape, self.observed_shape = image.shape[1:], self.degradation(image).shape[1:]
        self.masks = None if masks is None else ImageMasks(masks, self.observed_shape[-1])
        self.finished: Mapping[str, Mapping[str, float]] = {}
        self._observers: list[StepObserver] = []
        self._rows: dict[str, Mapping[str, float]] = {}
        self._seconds, self._restored = 0.0, 0

    @property
    def photo_format(self) -> PhotoFormat:
        """Format of the photographs that `predict` takes: the shape of degraded images of the generator."""
        return PhotoFormat(*self.observed_shape)

    def settings(self) -> dict[str, Any]:
        """Return plain values that are equal for two modules only if they restore images in the same way."""
        return {
            "inversion": asdict(self.inversion),
            "masks": self.masks and self.masks.describe(),
            "measures": sorted(self.measure.measures),
            "blind_blur": self.blind_blur,
            "poisson": self.poisson,
            "seed": self.seed,
            "generator": describe(self.generator),
            "degradation": describe(self.degradation),
            "noise": self.noise and [type(self.noise).__name__, dict(sorted(vars(self.noise).items()))],
            "encoder": self.encoder and describe(self.encoder),
        }

    def configure_callbacks(self) -> list[Callback]:
        """Return the callbacks that write results and show progress, except those that the trainer has already."""
        self._observers.clear()  # those of an earlier run
        given = self.trainer.callbacks  # type: ignore[attr-defined]
        ours = (RestorationWriter, RestorationProgress)
        return [kind() for kind in ours if not any(isinstance(callback, kind) for callback in given)]

    def observe_steps(self, observer: StepObserver) -> None:
        """Call a function after each step of a search, until the end of the run; callbacks do so in their `setup`."""
        self._observers.append(observer)

    def setup(self, stage: str) -> None:
        """Look up which images an earlier run in this folder has finished.

        Raises:
            InputError: If the folder holds other images, or images restored with other settings.
        """
        leave_ranks_at_exit()
        store = RestorationStore(self.trainer.default_root_dir)
        settings = {"command": stage, "data": data_content(self.trainer, stage), **self.settings()}
        self.finished = store.resume(settings)
        self.trainer.strategy.barrier("restoration records were read")
        if self.trainer.is_global_zero:
            store.write_settings(settings)

    def on_test_start(self) -> None:
        """Check that the data fit the generator.

        Raises:
            InputError: If the number of channels or the size differs, or masks are missing or do not fit.
        """
        data: Any = getattr(self.trainer, "datamodule", None)
        check_sizes(self.generator, data)
        if self.masks is not None:
            self.masks.prepare_test(data)
        self._rows, self._seconds, self._restored = {}, 0.0, 0

    def on_predict_start(self) -> None:
        """Check the masks of the photographs.

        Raises:
            InputError: If a mask is missing or does not fit.
        """
        if self.masks is not None:
            self.masks.check(getattr(getattr(self.trainer.predict_dataloaders, "dataset", None), "names", []))

    def test_step(self, batch: dict[str, Any], batch_idx: int) -> Restored | None:  # type: ignore[override]
        """Degrade clean images, restore and measure them.

        Args:
            batch: "image" (B,C,H,W) in [-1, 1], and "index" (B), which seeds all random draws.
            batch_idx: Unused.
        """
        return self._restore(batch, clean=True)

    def predict_step(self, batch: dict[str, Any], batch_idx: int) -> Restored | None:
        """Restore photographs that are degraded already.

        Args:
            batch: "image" (B,C',H',W') in [-1, 1], and "index" (B); optionally "name", a list of B, and "alpha"
                (B,1,H',W').
            batch_idx: Unused.
        """
        return self._restore(batch, clean=False)

    def on_test_epoch_end(self) -> None:
        """Log the mean, the median and the worst of each metric over the images of all ranks."""
        parts = distributed.gather((self._rows, self._seconds, self._restored))
        rows: dict[str, Mapping[str, float]] = {name: row for part, _, _ in parts for name, row in part.items()}
        ordered = [rows[name] for name in sorted(rows)]  # sums must not depend on the order of the ranks
        summary = summarize([{name: row[name] for name in row if name not in SEARCH_METRICS} for row in ordered])
        summary |= {"images": float(len(rows)), "converged": sum(row["converged"] for row in ordered) / len(rows)}
        if restored := sum(count for _, _, count in parts):
            summary["seconds_per_image"] = sum(seconds for _, seconds, _ in parts) / restored
        self.log_dict({f"test/{name}": value for name, value in summary.items()}, sync_dist=True)

    def _restore(self, batch: dict[str, Any], clean: bool) -> Restored | None:
        """Restore the images of a batch that are not finished; return None if all are."""
        if "index" not in batch:
            raise InputError('batches need "index", the number of each image, beside "image"')
        names = image_names(batch)
        self._rows |= {name: self.finished[name] for name in names if name in self.finished}
        rows = [row for row, name in enumerate(names) if name not in self.finished]
        if not rows:
            return None
        started = time.perf_counter()
        # Test and predict run in inference mode: no gradient can flow there, or through tensors that were made there.
        with torch.inference_mode(False), torch.enable_grad():
            restored = self._restore_rows(batch, rows, [names[row] for row in rows], clean)
        self._rows |= dict(zip(restored.names, restored.rows(), strict=True))
        self._seconds, self._restored = self._seconds + time.perf_counter() - started, self._restored + len(rows)
        return restored

    def _restore_rows(self, batch: dict[str, Any], rows: list[int], names: list[str], clean: bool) -> Restored:
        images, indices = batch["image"][rows].clone(), batch["index"][rows].tolist()
        degradation = self.masks.after(self.degradation, batch, rows) if self.masks else self.degradation
        observed = self._degrade(images, degradation, indices) if clean else images
        noise_level, start, blur = self.inversion.noise_level, None, None
        if self.blind_blur:
            blur = estimate_blur(self.generator, observed, noise_level=noise_level)
            degradation, start = GaussianBlur(blur.sigma.tolist()), blur.latent
        elif self.encoder is not None:
            with torch.no_grad():
                start = self.encoder(observed)
        result = self._invert(degradation, observed, start, indices, names)
        restored, known = result.image, degradation.known(observed)
        if self.poisson and known is not None:
            restored = blend_poisson(restored, observed, known)
        metrics = {name: getattr(result, name) for name in SEARCH_METRICS[:4]}
        if blur is not None:
            metrics["blur_sigma"] = blur.sigma
        if clean:
            metrics |= self.measure(restored, observed, images, known)
        target = images if clean else None
        return Restored(names, observed, restored, result.latent, result.history, metrics, target, blur)

    def _degrade(self, images: Tensor, degradation: Degradation, indices: list[int]) -> Tensor:
        """Return noise(A(x))."""
        if images.shape[1:] != self.image_shape:
            ours, theirs = ("x".join(map(str, shape)) for shape in (self.image_shape, images.shape[1:]))
            raise InputError(
                f"images of {theirs} are not the generator's {ours}: set data.channels and data.image_size"
            )
        with torch.no_grad():
            observed: Tensor = degradation(images)
            if self.noise is not None:
                observed = self.noise(observed, indices)
                known = degradation.known(observed)
                observed = observed if known is None else observed * known
        return observed

    def _invert(
        self, degradation: Degradation, observed: Tensor, start: Tensor | None, indices: list[int], names: list[str]
    ) -> Inversion:
        def report(*step: Any) -> None:
            for observe in self._observers:
                observe(SearchStep(names, *step))

        return invert(
            self.generator,
            degradation,
            observed,
            self.inversion,
            start=start,
            discriminator=self.discriminator,
            rng=torch.Generator().manual_seed(self.seed),
            indices=indices,
            callback=report,
        )


def data_content(trainer: Trainer, stage: str) -> str | None:
    """Return a digest of the images to restore, or None if no data module knows them."""
    data: Any = getattr(trainer, "datamodule", None)
    if stage == "test" and hasattr(data, "protocol"):
        return str(data.protocol("test")["content"])
    if stage == "predict" and hasattr(data, "read_files"):
        return f"{read_content(data.read_files())} {getattr(data, 'resize', '')}".strip()
    return None
