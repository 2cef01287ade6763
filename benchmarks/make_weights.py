"""Make the weights that come with the package from a finished run: half precision, with a model card.

    python benchmarks/make_weights.py runs/NAME --encoder runs/ENCODER

The averaged generator and the discriminator are those of best.ckpt, or of the checkpoint that is given.
"""

from __future__ import annotations

import argparse
import re
import shutil
import tempfile
from pathlib import Path
from typing import Any

import environment  # noqa: F401  first: it sets what torch reads when it is imported
import yaml

from gan_lightning.atomic import atomic_path
from gan_lightning.errors import InputError
from gan_lightning.model_card import model_card
from gan_lightning.modules.saved_weights import CARD, KEPT, read_summary
from gan_lightning.networks.checkpoints import check_whole, load_tensors
from gan_lightning.pretrained import SHIPPED, SUFFIX, description_of, write_weights

MOST_BYTES = 10_000_000  # of all files together: they are in the wheel
TAKEN = {"generator": "generator_ema.", "discriminator": "discriminator.", "encoder": "encoder."}


def main() -> None:
    """Write the folder of weights."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="folder of the run of a GAN")
    parser.add_argument("--encoder", type=Path, help="folder of the run of an encoder of this GAN")
    parser.add_argument("--checkpoint", default="best.ckpt", help="checkpoint of the run (default: best.ckpt)")
    parser.add_argument("--name", default="faces64", help="name of the weights (default: faces64)")
    parser.add_argument("--notes", type=Path, help="Markdown file about this training, for the model card")
    parser.add_argument("--weights", type=Path, default=SHIPPED, help="folder of all weights")
    options = parser.parse_args()
    try:
        notes = options.notes.read_text(encoding="utf-8") if options.notes is not None else ""
        make_weights(options.run, options.encoder, options.checkpoint, options.weights / options.name, notes)
    except InputError as error:
        parser.error(str(error))


def make_weights(run: Path, encoder: Path | None, checkpoint: str, target: Path, notes: str = "") -> None:
    """Replace a folder of weights by those of a run; nothing is changed if they cannot be.

    Raises:
        InputError: If a run or its checkpoint is missing, lacks a network, or the files are too large for the wheel.
    """
    path = run / "checkpoints" / checkpoint
    sources = {"generator": path, "discriminator": path}
    if encoder is not None:
        sources["encoder"] = encoder / "checkpoints" / "best.ckpt"
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".weights-", dir=target.parent) as folder:
        made = Path(folder) / target.name
        for part, source in sources.items():
            write_part(part, source, made / f"{part}{SUFFIX}")
        config = run / "config.yaml"
        data: Any = None
        if config.is_file():
            # Where things lie on the machine that trained says nothing to others.
            content = without_paths(yaml.safe_load(config.read_text(encoding="utf-8")))
            data = content.get("data")
            with atomic_path(made / "config.yaml") as beside:
                beside.write_text(yaml.safe_dump(content, sort_keys=False), encoding="utf-8")
        hyperparameters = description_of(read(path), ())["hyper_parameters"]
        card = model_card(target.name, hyperparameters, [*sources], read_summary(run), data, notes=notes)
        (made / CARD).write_text(card, encoding="utf-8")
        sizes = {file.name: file.stat().st_size for file in sorted(made.iterdir())}
        if sum(sizes.values()) > MOST_BYTES:
            raise InputError(f"{sizes} are more than {MOST_BYTES:,} bytes: train smaller networks (base_channels)")
        shutil.rmtree(target, ignore_errors=True)
        made.rename(target)
    for name, size in sizes.items():
        print(f"{size:>10,}  {target / name}")
    print(f"{sum(sizes.values()):>10,}  bytes in all, of {MOST_BYTES:,}")


def write_part(part: str, source: Path, target: Path) -> None:
    """Write one network of a checkpoint."""
    checkpoint = read(source)
    tensors = {name: value for name, value in checkpoint["state_dict"].items() if name.startswith(TAKEN[part])}
    if not tensors:
        raise InputError(f"{source} has no {part}: give another run")
    description = description_of(checkpoint, KEPT)
    if part == "encoder":
        description["hyper_parameters"]["generator_ckpt"] = target.parent.name
    write_weights(target, tensors, description, half=True)


def read(path: Path) -> Any:
    """Read a checkpoint of this package."""
    check_whole(path)
    content = load_tensors(path)
    if not isinstance(content, dict) or not {"state_dict", "hyper_parameters"} <= content.keys():
        raise InputError(f"{path} is not a checkpoint of this package: give a run of `gan-lightning fit`")
    return content


def without_paths(content: Any) -> Any:
    """Return a configuration without absolute paths."""
    if isinstance(content, dict):
        return {key: without_paths(value) for key, value in content.items()}
    if isinstance(content, list):
        return [without_paths(value) for value in content]
    return None if isinstance(content, str) and re.match(r"[/~]", content) else content


if __name__ == "__main__":
    main()
