"""Restoration by latent inversion as a LightningModule: degrade, invert, measure."""

from __future__ import annotations

import os
import time
from typing import Any

from lightning import Callback, LightningModule

from gan_lightning.callbacks.restoration_progress import RestorationProgress
from gan_lightning.callbacks.restoration_writer import RestorationWriter
from gan_lightning.data.photo_format import PhotoFormat
from gan_lightning.degradations import Degradation, Identity
from gan_lightning.degradations.mask_files import White
from gan_lightning.degradations.noise import Noise
from gan_lightning.inversion import InversionSettings
from gan_lightning.inversion.checks import check_prior
from gan_lightning.metrics.restoration import RestorationMetrics
from gan_lightning.modules.checks import check_restoration_options, check_sizes
from gan_lightning.modules.ddp import leave_ranks_at_exit
from gan_lightning.modules.image_batches import ImageBatches
from gan_lightning.modules.masking import make_masks, prepare_photos
from gan_lightning.modules.restoration_settings import data_content
from gan_lightning.modules.restoration_store import RestorationStore
from gan_lightning.modules.restoration_summary import RestorationSummary
from gan_lightning.modules.restorer import Restored, Restorer, StepObserver, image_names, photo_format
from gan_lightning.networks.checkpoints import load_discriminator, load_generator
from gan_lightning.networks.class_priors import as_priors
from gan_lightning.networks.encoder_checkpoint import load_encoder
from gan_lightning.networks.stylegan2_prior import LatentSpace

DEFAULT_SETTINGS = InversionSettings()


class LatentRestoration(LightningModule):
    """Restoration of degraded images with the generator of a GAN.

    `test` degrades clean images, restores and measures them. `predict` takes photographs that are degraded already.
    The results are written to the folder of the run (`RestorationWriter`). A run that was interrupted is resumed by
    another one with the same settings in the same folder.

    Attributes:
        goes_on_in_its_folder: Tells the command line that a run may use the folder of an earlier one.
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
        lpips: bool = False,
        identity_network: str | os.PathLike[str] | None = None,
        seed: int = 0,
        masks_white: White = "known",
        keep_searches: bool = False,
        space: LatentSpace | None = None,
        label: int | str | None = None,
    ) -> None:
        """Load the networks and check the settings.

        Args:
            generator_ckpt: Checkpoint of a `DCGAN`, generator of the PyTorch DCGAN tutorial or of StyleGAN2, or name of
                weights that come with the package: faces64.
            degradation: A, a class of gan_lightning.degradations. Default: the identity.
            noise: Noise that `test` adds to A(x), such as gan_lightning.degradations.GaussianNoise.
            inversion: Settings of the search.
            masks: Missing pixels of each image, applied after `degradation`: "alpha" for the transparency of the
                photographs, a mask file for all images, or a folder of masks named like these. White is known.
            blind_blur: Estimate the Gaussian blur of each image. `degradation` is then the blur that `test` applies,
                and the search does not know it.
            encoder_ckpt: Checkpoint of a `LatentEncoder`, or faces64. Its guess replaces `inversion.start`.
            lpips: Measure LPIPS too (downloads weights).
            identity_network: TorchScript file of a face recognition network that measures the similarity of faces.
            seed: Seed of the starts.
            masks_white: What white pixels of the files in `masks` are: "known" or "missing".
            keep_searches: Keep what each of several searches found, not their mean and spread alone: the writer puts
                them into searches/NAME/, from the most to the least likely.
            space: Space of the search for a StyleGAN2: "z", "w" or "w+". Default: w.
            label: Class of the images, for a generator with classes: its number or, of a DCGAN, its name; or "search",
                which finds the class of each image.

        Raises:
            InputError: If a file is missing or contains something else, settings exclude each other, or the
                degradation does not fit the images of the generator.
        """
        super().__init__()
        check_restoration_options(degradation, inversion, masks, encoder_ckpt, label, blind_blur=blind_blur)
        self.generator = as_priors(load_generator(generator_ckpt), space, label).requires_grad_(False)
        check_prior(self.generator, noise_maps=inversion.noise_maps, solver=inversion.solver)
        self.discriminator = load_discriminator(generator_ckpt) if inversion.loss == "perceptual" else None
        self.degradation = Identity() if degradation is None else degradation
        self.encoder = None if encoder_ckpt is None else load_encoder(encoder_ckpt, self.generator)
        self.photo_format = photo_format(self.generator, self.degradation, inversion.loss_size)  # for `Photos`
        image_masks = make_masks(masks, self.photo_format.width, masks_white)
        self.known_pixels = None if image_masks is None else image_masks.known_pixels  # for the same
        self.restorer = Restorer(
            self.generator,
            self.discriminator,
            self.encoder,
            self.degradation,
            noise,
            image_masks,
            inversion,
            RestorationMetrics(lpips, identity_network),
            blind_blur=blind_blur,
            seed=seed,
            keep_searches=keep_searches,
        )

    def configure_callbacks(self) -> list[Callback]:
        """Return the callbacks that write results and show progress, except those that the trainer has already."""
        self.restorer.observers.clear()  # those of an earlier run
        given = self.trainer.callbacks  # type: ignore[attr-defined]
        ours = (RestorationWriter, RestorationProgress)
        return [kind() for kind in ours if not any(isinstance(callback, kind) for callback in given)]

    def observe_steps(self, observer: StepObserver) -> None:
        """Call a function after each step of a search, until the end of the run; callbacks do so in their `setup`."""
        self.restorer.observers.append(observer)

    def setup(self, stage: str) -> None:
        """Look up which images an earlier run in this folder has finished.

        Raises:
            InputError: If the folder holds other images, or images restored with other settings.
        """
        leave_ranks_at_exit()
        degraded, size = stage != "test", self.generator.image_size
        given = self.photo_format if degraded else PhotoFormat(self.generator.channels, size, size)
        self._batches = ImageBatches(given.channels, given.height, given.width, degraded)
        self._batches.restart(self.trainer)
        store = RestorationStore(self.trainer.default_root_dir)
        data = data_content(getattr(self.trainer, "datamodule", None), stage)
        settings = {"command": stage, "data": data, **self.restorer.settings()}
        self._summary = RestorationSummary(store.resume(settings))
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
        if self.restorer.masks is not None:
            self.restorer.masks.prepare_test(data)

    def on_predict_start(self) -> None:
        """Check the masks and the transparency of the photographs.

        Raises:
            InputError: If a mask is missing or does not fit.
        """
        prepare_photos(getattr(self.trainer.predict_dataloaders, "dataset", None), self.restorer.masks)

    def test_step(self, batch: dict[str, Any], batch_idx: int) -> Restored | None:  # type: ignore[override]
        """Degrade clean images, restore and measure them.

        Args:
            batch: "image" (B,C,H,W) in [-1, 1], and "index" (B), which seeds all random draws.
            batch_idx: Unused.
        """
        return self._restore(batch, clean=True)

    def predict_step(self, batch: dict[str, Any], batch_idx: int) -> Restored | None:
        """Restore photographs that are already degraded.

        Args:
            batch: "image" (B,C',H',W') in [-1, 1], and "index" (B); optionally "name", a list of B, and "alpha"
                (B,1,H',W').
            batch_idx: Unused.
        """
        return self._restore(batch, clean=False)

    def on_test_epoch_end(self) -> None:
        """Log the mean, the median and the worst of each metric over the images of all ranks."""
        self.log_dict({f"test/{name}": value for name, value in self._summary.compute().items()}, sync_dist=True)

    def _restore(self, batch: dict[str, Any], clean: bool) -> Restored | None:
        """Restore the images of a batch that are not finished; return None if all are."""
        names = image_names(batch)
        self._batches.images(batch)
        rows = self._summary.rows_to_restore(names)
        if not rows:
            return None
        started = time.perf_counter()
        restored = self.restorer.restore(batch, rows, [names[row] for row in rows], clean)
        self._summary.add(restored, started)
        return restored
