"""The model card of weights: content, training, metrics and limits."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Final

from gan_lightning.directions import better

HEADER: Final = """\
---
library_name: gan-lightning
license: {license}
pipeline_tag: unconditional-image-generation
tags:
- gan
- image-restoration
---
"""
ABOUT: Final = {
    "generator": "latents from N(0, 1) to images, float32 in [-1, 1]",
    "discriminator": "images to logits, for the perceptual loss of restoration",
    "encoder": "images to latents, from which a restoration starts",
    "model": "generator, its moving average, and discriminator",
}
LIMITS: Final = """\
The generator makes images like those that it was trained on, at one size. What it restores in a photograph is
plausible, not true: do not use it to identify anyone. It knows nothing that was not in the data.
"""


def model_card(
    name: str,
    options: Mapping[str, Any],
    files: Sequence[str],
    summary: Mapping[str, Any] | None = None,
    data: Mapping[str, Any] | None = None,
    license_id: str = "apache-2.0",
    notes: str = "",
) -> str:
    """Return a model card in Markdown, with the header that the Hugging Face Hub reads.

    Args:
        name: Name of the weights.
        options: Hyperparameters of the module.
        files: Available parts: generator, discriminator, encoder, model.
        summary: Content of the summary.json of the run, if there is one.
        data: Options of the data module, if they are known.
        license_id: Identifier of the license.
        notes: Further notes about this training, in Markdown.
    """
    summary = summary or {}
    size, channels = options.get("image_size", "?"), "gray" if options.get("channels") == 1 else "color"
    lines = [HEADER.format(license=license_id), f"# {name}", ""]
    lines += [f"A GAN for images of {size}x{size} pixels in {channels}, trained by gan-lightning.", ""]
    lines += [*(f"- `{part}.safetensors`: {ABOUT[part]}" for part in files), ""]
    lines += ["## Data", "", *_data(summary, data), ""]
    lines += ["## Recipe", "", *_table(("option", "value"), options.items()), ""]
    lines += ["## Metrics", "", *_metrics(summary), ""]
    if notes:
        lines += ["## Notes", "", notes.strip(), ""]
    lines += ["## Limits", "", LIMITS, "## License", "", f"{license_id}, as the package."]
    return "\n".join(lines) + "\n"


def _data(summary: Mapping[str, Any], data: Mapping[str, Any] | None) -> list[str]:
    if data:
        return _table(
            ("option of the data", "value"), {**data, **data.get("init_args", {})}.items(), skip=["init_args"]
        )
    names = {str(protocol["dataset"]) for protocol in summary.get("protocol", {}).values() if "dataset" in protocol}
    return [f"Trained on {', '.join(sorted(names))}." if names else "Not recorded."]


def _metrics(summary: Mapping[str, Any]) -> list[str]:
    """Return a table of the metrics of generated images, each with its protocol."""
    metrics = {name: of for name, of in summary.get("metrics", {}).items() if "best" in of and better(name)}
    measured = {name: of for name, of in metrics.items() if not name.startswith("train/")}
    if not measured:
        return ["Not measured."]
    rows = ["| metric | untrained or first | best | last |", "| --- | ---: | ---: | ---: |"]
    rows += [
        f"| `{name}` | {_number(of['first'])} | {_number(of['best'])} | {_number(of['last'])} |"
        for name, of in measured.items()
    ]
    for name, protocol in summary.get("protocol", {}).items():
        rows += ["", f"Protocol of `{name}`: " + ", ".join(f"{key} {value}" for key, value in protocol.items()) + "."]
    costs = {"steps": "g_steps", "images seen": "images_seen", "seconds": "seconds", "precision": "precision"}
    rows += ["", "; ".join(f"{label}: {summary[key]}" for label, key in costs.items() if key in summary) + "."]
    versions = summary.get("versions", {})
    return [*rows, "", ", ".join(f"{package} {number}" for package, number in versions.items()) + "."]


def _table(head: tuple[str, str], rows: Any, skip: Sequence[str] = ()) -> list[str]:
    lines = [f"| {head[0]} | {head[1]} |", "| --- | --- |"]
    return lines + [f"| `{key}` | {value} |" for key, value in rows if value is not None and key not in skip]


def _number(value: float | None) -> str:
    return "-" if value is None or not math.isfinite(value) else f"{value:.4g}"
