"""The work of the command `restore`: its photographs, the settings of `predict`, and the delivery of the results."""

from __future__ import annotations

import argparse
import contextlib
import filecmp
import json
import os
import re
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from gan_lightning.atomic import atomic_path
from gan_lightning.errors import InputError, StorageError
from gan_lightning.file_names import printable, target_names, writable

COLORS = {1: "gray", 3: "color"}
FACTOR = 4  # of super_resolve, by default


class Job:
    """Photographs to restore, with the settings and the output folder.

    The restored photographs are in the output folder, under the names of the photographs. Everything else is in its
    folder details/, in one run folder of `predict` for each job.

    Args:
        options: Options of the command.

    Attributes:
        folder: Folder of the run.
        targets: Path of each restored photograph, by the name of the photograph in the listing.
    """

    def __init__(self, options: argparse.Namespace) -> None:
        from gan_lightning.data.listing import read_paths
        from gan_lightning.networks.checkpoints import load_generator

        self.options = options
        self.output = Path(options.output).expanduser()
        given = [Path(os.path.abspath(Path(photo).expanduser())) for photo in options.photos]
        self.photos = [str(path) for path in given]
        for path in (*self.photos, options.generator, options.mask or "", options.output):
            if any("\ud800" <= letter <= "\udfff" for letter in path):
                raise InputError(f"{printable(path)} is not UTF-8, as arguments must be: give the folder that holds it")
        self.generator, self.listing = load_generator(options.generator), read_paths(self.photos)
        folders = [Path(os.path.realpath(path)) for path in given if path.is_dir()]
        if inside := [folder for folder in folders if Path(os.path.realpath(self.output)).is_relative_to(folder)]:
            raise InputError(
                f"--output {printable(self.output)} lies in {printable(inside[0])}, where the next command would take "
                "the results for photographs: choose a folder outside of it"
            )
        first = given[0].name if given[0].is_dir() else given[0].stem
        more = f"-and-{len(given) - 1}-more" if len(given) > 1 else ""
        self.name = writable(f"{first}{more}-{options.task}", 100)
        self.folder = self.output / "details" / self.name
        self.targets = {name: self.output / target for name, target in target_names(self.listing.names).items()}

    def command(self, others: Sequence[str]) -> list[str]:
        """Return the command line of `predict`: settings of the task, the user's files, and explicit options."""
        shipped, implied, chosen = map(as_json, self.configs())
        return [
            "predict",
            *(f"--config={config}" for config in (shipped, implied, *self.options.config, chosen)),
            *others,
        ]

    def configs(self) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
        """Return the configurations of `predict`: shipped for the task, implied by the task, and from the options."""
        from gan_lightning.options.parser import shipped_configs  # slow to import

        shipped = yaml.safe_load(shipped_configs()[f"restore/{self.options.task}"].read_text(encoding="utf-8"))
        return {"model": shipped["model"]}, *self.settings()

    def settings(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """Return the settings of `predict` implied by the task, and those from the options."""
        options, task = self.options, self.options.task
        model: dict[str, Any] = {"noise": None}  # only `test` adds noise
        asked: dict[str, Any] = {"generator_ckpt": options.generator}
        inversion: dict[str, Any] = {}
        if options.label is not None:
            asked["label"] = options.label
        if options.keep_searches:
            asked["keep_searches"] = True
        if options.searches is not None:
            inversion["num_searches"] = options.searches
        if options.noise is not None:
            inversion["noise_level"] = options.noise
        if task == "inpaint":
            model |= {"degradation": degradation("Identity"), "masks": "alpha"}
            if options.mask is not None:
                path = os.path.abspath(Path(options.mask).expanduser())  # "null" or "alpha" is a path, too
                asked |= {"masks": path, "masks_white": options.mask_white or "known"}
        elif task == "deblur" and options.blur is None:
            model |= {"degradation": None, "blind_blur": True}
        elif task == "deblur":
            asked |= {"degradation": degradation("GaussianBlur", sigma=options.blur), "blind_blur": False}
        elif task == "super_resolve":
            model["degradation"] = degradation("Downsample", factor=FACTOR)
            asked |= {} if options.factor is None else {"degradation": degradation("Downsample", factor=options.factor)}
        elif task == "colorize":
            model["degradation"] = degradation("Grayscale", channels=self.generator.channels)
        if inversion:
            asked["inversion"] = inversion
        data = {"resize": "center_crop", "to_gray": task == "colorize"}
        implied = {
            "model": {"class_path": "gan_lightning.LatentRestoration", "init_args": model},
            "data": {"class_path": "gan_lightning.data.photos.Photos", "init_args": {"root": ".", **data}},
            "trainer": {"devices": 1, "enable_model_summary": False},
        }
        chosen = {
            "name": self.name,
            "model": {"class_path": "gan_lightning.LatentRestoration", "init_args": asked},
            "data": {"class_path": "gan_lightning.data.photos.Photos", "init_args": {"root": self.photos}},
            "trainer": {"default_root_dir": str(self.folder.parent)},
        }
        return implied, chosen

    def check(self) -> None:
        """Check for problems that `predict` would detect late or not at all.

        Raises:
            InputError: If the generator makes gray images but color is needed; if a photograph is too small, or too
                large to be enlarged; if no pixels are marked as missing; or if a file in the output folder is not a
                result of the same command.
        """
        size, taken = self.generator.image_size, self.size_taken
        if self.options.task == "colorize" and self.generator.channels == 1:
            raise InputError(f"{self.options.generator} makes gray images: colorize needs a generator of color images")
        for name, (width, height) in self.sizes().items():
            is_now = f"{printable(name)} is {width}x{height} pixels"
            if self.options.task == "super_resolve" and min(width, height) >= size:
                raise InputError(f"{is_now}, and the generator makes {size}x{size}: there is nothing to enlarge")
            if min(width, height) < taken:
                factor = next(n for n in range(2, size + 1) if size % n == 0 and size // n <= min(width, height))
                raise InputError(f"{is_now}, too small for {taken}x{taken}: try --task super_resolve --factor {factor}")
        by_alpha = self.options.task == "inpaint" and self.options.mask is None and not self.options.config
        if by_alpha and not any(is_transparent(self.listing.root / name) for name in self.listing.names):
            raise InputError("nothing says which pixels are missing: add --mask FILE, or make them transparent")
        finished = self.finished()
        for name, target in self.targets.items():
            if target.exists() and not (name in finished and filecmp.cmp(finished[name], target, shallow=False)):
                raise InputError(
                    f"{printable(target)} exists, and is not a result of this command: choose another --output, or "
                    "remove it"
                )
            blocking = next((p for p in target.parents if p.exists() and not p.is_dir()), self.output)
            if blocking != self.output:
                raise InputError(f"{printable(blocking)} is a file, where a folder is needed: choose another --output")

    @property
    def size_taken(self) -> int:
        """Side of the photographs in the search."""
        size, task = self.generator.image_size, self.options.task
        return size // (self.options.factor or FACTOR) if task == "super_resolve" else size

    def sizes(self) -> dict[str, tuple[int, int]]:
        """Return width and height of the photographs that can be read."""
        from gan_lightning.data.decode import upright_size

        found = {}
        for name in self.listing.names:
            with contextlib.suppress(Exception):  # `predict` reports skipped photographs
                found[name] = upright_size(self.listing.root / name)
        return found

    def plan(self) -> list[str]:
        """Describe the photographs and the planned work."""
        size, channels, taken = self.generator.image_size, self.generator.channels, self.size_taken
        names = self.listing.names
        lines = [
            f"{self.options.task}: {count(len(names), 'photograph')} ({some(names)}), with "
            f"{printable(self.options.generator)}, which makes {size}x{size} pixels in {COLORS.get(channels, channels)}"
        ]
        others = {name: shape for name, shape in self.sizes().items() if shape != (taken, taken)}
        if others:
            listed = some([f"{name} ({width}x{height})" for name, (width, height) in others.items()])
            lines.append(f"cropped to the square in the center and resized to {taken}x{taken}: {listed}")
            if (name := "noise" if self.options.noise else "blur" if self.options.blur else None) is not None:
                lines.append(f"--{name} {getattr(self.options, name)} is taken as that of the resized photographs")
        return lines

    def finished(self) -> dict[str, Path]:
        """Return the restored images in the folder of the run, by the names of the photographs."""
        from gan_lightning.modules.restoration_store import RestorationStore

        store = RestorationStore(self.folder)
        paths = {record.source: store.picture(record.name) for record in store.read()}
        return {name: paths[name] for name in self.targets if name in paths and paths[name].is_file()}

    def missing_folders(self) -> list[Path]:
        """Return the run folder and its parents that do not exist yet, the innermost first."""
        return [folder for folder in (self.folder, *self.folder.parents) if not folder.exists()]

    def deliver(self) -> dict[str, Path]:
        """Copy the finished images to the output folder; return their paths by the names of the photographs.

        Raises:
            InputError: If a record of an image is damaged.
            StorageError: If a file cannot be written.
        """
        finished = self.finished()
        for name, source in finished.items():
            try:
                with atomic_path(self.targets[name]) as path:
                    shutil.copyfile(source, path)
            except OSError as error:
                raise StorageError(
                    f"{printable(self.targets[name])} could not be written ({error.strerror}): the restored photograph "
                    f"is {printable(source)}; free disk space, and give the same command again"
                ) from error
        return {name: self.targets[name] for name in finished}

    def report(self, earlier: dict[str, Path], seconds: float) -> list[str]:
        """Deliver the results, and return the lines of a report.

        Args:
            earlier: Images that were finished before.
            seconds: Seconds that `predict` took.
        """
        from gan_lightning.modules.restoration_store import RestorationStore

        written = self.deliver()
        records = RestorationStore(self.folder).read()
        labels = {record.source: f", of class {record.label}" for record in records if record.label is not None}
        new = len(written) - len(earlier)
        took = f" in {seconds:.1f} s, {seconds / new:.1f} s each" if new else ""
        resumed = f", {len(earlier)} of them earlier" if earlier else ""
        searches = [f"the result of each search is in {printable(self.folder / 'searches')}"]
        return [
            f"restored {len(written)} of {count(len(self.targets), 'photograph')}{took}{resumed}",
            *(f"  {printable(name)} -> {printable(path)}{labels.get(name, '')}" for name, path in written.items()),
            f"comparisons and measures (panel/, images.csv) are in {printable(self.folder)}",
            *(searches if (self.folder / "searches").is_dir() else []),
        ]


def is_transparent(path: Path) -> bool:
    """Return whether an image may have transparent pixels, by its header."""
    from PIL import Image

    try:
        with Image.open(path) as image:
            return "A" in image.getbands() or "transparency" in image.info
    except Exception:  # `predict` reports skipped photographs
        return False


def degradation(kind: str, **options: Any) -> dict[str, Any]:
    """Return the configuration of a degradation."""
    return {"class_path": f"gan_lightning.degradations.{kind}", "init_args": options}


def as_json(config: dict[str, Any]) -> str:
    """Return a configuration as JSON that is also valid YAML, for file names with any letters."""
    text = json.dumps(config, ensure_ascii=False)
    return re.sub("[\x7f-\x9f\ufeff\ufffe\uffff]", lambda found: f"\\u{ord(found[0]):04x}", text)


def some(names: Sequence[str]) -> str:
    """Return the first names of several."""
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return printable(", ".join(names[:3])) + more


def count(number: int, noun: str) -> str:
    """Return a number with its noun."""
    return f"{number} {noun}{'s' * (number != 1)}"
