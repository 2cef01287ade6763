"""The records of a restoration on disk, from which a later run in the same folder resumes."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from gan_lightning.atomic import atomic_path
from gan_lightning.errors import InputError, StorageError
from gan_lightning.file_names import MAX_BYTES, printable, writable

FORMAT = 3  # of the records and the settings; 1 had no number, 2 a single search
LONGEST = MAX_BYTES - 25  # bytes of a name; leaves room for a suffix and keeps names from before the limit existed


@dataclass(frozen=True)
class Record:
    """Record of a restored image.

    Attributes:
        name: Name of the image, unique in its run.
        tensors: "latent" (latent_dim,), "history" (steps + 1,) and the number of its "latent_steps"; for an unknown
            blur also "sigmas" and "residuals" (K,).
        metrics: Metrics of the search and of the image.
        source: Path of the photograph relative to its folder, or None if it has no file.
        label: Name of the class that was found, or None if there was no search for the class.
    """

    name: str
    tensors: dict[str, Tensor]
    metrics: dict[str, float]
    source: str | None = None
    label: str | None = None


def output_names(indices: Sequence[int], sources: Sequence[str] | None = None) -> list[str]:
    """Return sortable, unique and sufficiently short names of images for the files of a run.

    Args:
        indices: Numbers of the images, unique in the run.
        sources: Paths of the image files, whose names without the suffix are appended.
    """
    numbers = [f"{index:06d}" for index in indices]
    if sources is None:
        return numbers
    return [writable(f"{number}-{Path(source).stem}", LONGEST) for number, source in zip(numbers, sources, strict=True)]


class UnwrittenError(StorageError, OSError):
    """Failure to write a file of a restoration; an image that it belongs to is not finished."""


@contextmanager
def one_line_if_unwritten(folder: Path, what: str) -> Iterator[None]:
    """Raise an error of one line, for the user, if the block cannot write its files, as on a full disk.

    Args:
        folder: Run folder.
        what: What is written.

    Raises:
        UnwrittenError: If a file cannot be written.
    """
    try:
        yield
    except (OSError, SafetensorError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise UnwrittenError(
            f"{printable(folder)}: {printable(what)} could not be written ({reason}): free disk space, and resume by "
            "the same command"
        ) from error


class RestorationStore:
    """Records of restored images, in the folder records/ of a run.

    An image is finished when its record, NAME.safetensors, and its picture, restored/NAME.png, exist; settings.json
    describes the run that wrote them.

    Args:
        folder: Run folder.
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self.folder = Path(folder)
        self.records = self.folder / "records"
        self._settings = self.records / "settings.json"

    def resume(self, settings: Mapping[str, Any]) -> dict[str, dict[str, float]]:
        """Return the metrics of the finished images by name, after checking that the run on disk has the same settings.

        Args:
            settings: Plain values that determine how images are restored.

        Raises:
            InputError: If the folder holds other images, images restored with other settings or by an incompatible
                version, or a file that is not a record.
        """
        known, files = self._read_settings(), self._files()
        if files and known is not None and known.get("format") != FORMAT:
            raise InputError(
                f"{self.folder} holds a restoration by an earlier version, which cannot be resumed: "
                "choose another folder (--name)"
            )
        records = self.read()
        if records and known != _as_json(settings):
            raise InputError(
                f"{self.folder} holds other images, or images restored with other settings: "
                "choose another folder (--name)"
            )
        return {record.name: record.metrics for record in records if self.picture(record.name).is_file()}

    def picture(self, name: str) -> Path:
        """Return the path of the restored image of this name."""
        return self.folder / "restored" / f"{name}.png"

    def write_settings(self, settings: Mapping[str, Any]) -> None:
        """Write the settings of the run, before its first record."""
        with one_line_if_unwritten(self.folder, "records"), atomic_path(self._settings) as path:
            path.write_text(json.dumps(_as_json(settings), indent=2) + "\n")

    def read(self) -> list[Record]:
        """Return all records, sorted by name.

        Raises:
            InputError: If a file is not a record.
        """
        records = []
        for path in self._files():
            try:
                with safe_open(path, "pt") as file:
                    about = {key: json.loads(value) for key, value in file.metadata().items()}
                    names = file.keys()  # not a dictionary
                    tensors = {name: file.get_tensor(name) for name in names}
                    records.append(
                        Record(path.stem, tensors, about["metrics"], about.get("source"), about.get("label"))
                    )
            except (SafetensorError, AttributeError, KeyError, TypeError, ValueError) as error:
                raise InputError(
                    f"{path} is not a record of a restored image: remove it, or choose another folder (--name)"
                ) from error
        return records

    def write(
        self,
        name: str,
        tensors: Mapping[str, Tensor],
        metrics: Mapping[str, float],
        source: str | None = None,
        label: str | None = None,
    ) -> None:
        """Write the record of an image atomically, after all its other files."""
        own = {key: tensor.cpu().contiguous() for key, tensor in tensors.items()}
        optional = {"source": source, "label": label}
        about = {"metrics": json.dumps(metrics)}
        about |= {key: json.dumps(value) for key, value in optional.items() if value is not None}
        with atomic_path(self.records / f"{name}.safetensors") as path:
            save_file(own, path, about)

    def _files(self) -> list[Path]:
        return sorted(self.records.glob("[!.]*.safetensors"))

    def _read_settings(self) -> dict[str, Any] | None:
        try:
            known = json.loads(self._settings.read_text())
        except FileNotFoundError:
            return None
        except ValueError:
            return {}
        return known if isinstance(known, dict) else {}


def _as_json(settings: Mapping[str, Any]) -> Any:
    """Return settings as they are read back from a file: tuples are lists, paths are strings."""
    return json.loads(json.dumps({"format": FORMAT, **settings}, default=str))
