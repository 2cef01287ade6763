"""The recipes that recipes.py compares: options of DCGAN and the batch size.

A recipe is named by where it begins and what is changed: "second guess + cosine to 0.1 + gamma 2".
"""

from __future__ import annotations

from typing import Any

Options = dict[str, Any]

TUTORIAL: Options = {"batch_size": 128, "ema_decay": 0.0}  # the defaults of DCGAN are the tutorial's
TODAY: Options = {"batch_size": 32, "ema_decay": 0.995}  # configs/quickstart.yaml until this study
FIRST: Options = {  # a first guess, with which others are compared
    "batch_size": 32,
    "objective": "relativistic",
    "discriminator_normalization": "none",
    "r1": 0.5,
    "r2": 0.5,
    "penalty_interval": 8,
    "lr_g": 3e-4,
    "lr_d": 3e-4,
    "ema_half_life": 10_000.0,
}


def schedule(**settings: Any) -> Options:
    """Return a schedule over the images of a run, whatever their number."""
    return {"schedule": settings}


CHANGES: dict[str, Options] = {
    "non-saturating": {"objective": "non_saturating"},
    "hinge": {"objective": "hinge"},
    "least squares": {"objective": "least_squares"},
    "wasserstein, WGAN-GP": {"objective": "wasserstein", "r1": 0.0, "r2": 0.0, "gradient_penalty": 10.0},
    "no penalty": {"r1": 0.0, "r2": 0.0},
    "R1 alone": {"r2": 0.0},
    "R1 of 2": {"r1": 2.0},
    "R1 of 10": {"r1": 10.0},
    "gamma 0.05": {"r1": 0.05, "r2": 0.05},
    "gamma 0.2": {"r1": 0.2, "r2": 0.2},
    "gamma 2": {"r1": 2.0, "r2": 2.0},
    "gamma 10": {"r1": 10.0, "r2": 10.0},
    "every step": {"penalty_interval": 1},
    "every 4th step": {"penalty_interval": 4},
    "every 16th step": {"penalty_interval": 16},
    "every 32nd step": {"penalty_interval": 32},
    "D batch": {"discriminator_normalization": "batch"},
    "D group": {"discriminator_normalization": "group"},
    "D spectral": {"discriminator_normalization": "spectral"},
    "D spectral, no penalty": {"discriminator_normalization": "spectral", "r1": 0.0, "r2": 0.0},
    "hinge, D spectral, no penalty": {
        "objective": "hinge",
        "discriminator_normalization": "spectral",
        "r1": 0.0,
        "r2": 0.0,
    },
    "G group": {"generator_normalization": "group"},
    "G none": {"generator_normalization": "none"},
    "rates 1e-4": {"lr_g": 1e-4, "lr_d": 1e-4},
    "rates 2e-4": {"lr_g": 2e-4, "lr_d": 2e-4},
    "rates 5e-4": {"lr_g": 5e-4, "lr_d": 5e-4},
    "rates 8e-4": {"lr_g": 8e-4, "lr_d": 8e-4},
    "rates 6e-4": {"lr_g": 6e-4, "lr_d": 6e-4},
    "rates 1e-3": {"lr_g": 1e-3, "lr_d": 1e-3},
    "rates 2e-4, 4e-4": {"lr_g": 2e-4, "lr_d": 4e-4},
    "rates 4e-4, 2e-4": {"lr_g": 4e-4, "lr_d": 2e-4},
    "betas 0, 0.99": {"betas": (0.0, 0.99)},
    "betas 0, 0.9": {"betas": (0.0, 0.9)},
    "betas 0.5, 0.99": {"betas": (0.5, 0.99)},
    "batch 16": {"batch_size": 16},
    "batch 64": {"batch_size": 64},
    "batch 64, rates 5e-4": {"batch_size": 64, "lr_g": 5e-4, "lr_d": 5e-4},
    "batch 128, rates 6e-4": {"batch_size": 128, "lr_g": 6e-4, "lr_d": 6e-4},
    "no average": {"ema_half_life": 0.0},
    "half-life 2,500": {"ema_half_life": 2500.0},
    "half-life 5,000": {"ema_half_life": 5000.0},
    "half-life 20,000": {"ema_half_life": 20_000.0},
    "two D steps": {"d_steps": 2},
    "fresh latents": {"fresh_latents": True},
    "cosine to 0.1": schedule(lr=0.1),
    "linear to 0": schedule(lr=0.0, shape="linear"),
    "warm-up": schedule(warmup=0.1),
    "gamma falls to 0.1": schedule(penalties=0.1),
    "translation": {"augmentation": {"kinds": ("translation",)}},
    "color, translation": {"augmentation": {"kinds": ("color", "translation")}},
    "color, translation, cutout": {"augmentation": {"kinds": ("color", "translation", "cutout")}},
    "residual": {"architecture": "residual", "base_channels": 16, "discriminator_normalization": "none"},
    "residual, spectral": {"architecture": "residual", "base_channels": 16, "discriminator_normalization": "spectral"},
    "modern": {"architecture": "modern", "generator_normalization": "none"},
    "modern, betas 0, 0.99": {"architecture": "modern", "generator_normalization": "none", "betas": (0.0, 0.99)},
}

SECOND: Options = FIRST | {"objective": "non_saturating", "r2": 0.0, "penalty_interval": 16}  # by the first variants

STARTS: dict[str, Options] = {"tutorial": TUTORIAL, "today": TODAY, "first guess": FIRST, "second guess": SECOND}
PLUS = " + "
POINTS = 6  # measurements of a run, evenly spaced
AUGMENTED = "color, translation"  # the change for few images
CHOSEN = "second guess + betas 0, 0.99 + batch 16 + R1 of 2 + rates 5e-4"  # by the study; the shipped configurations


def recipe(name: str) -> Options:
    """Return the options of a recipe.

    Raises:
        KeyError: If a part of the name is unknown.
    """
    start, *changes = name.split(PLUS)
    options = STARTS[start]
    for change in changes:
        options = options | CHANGES[change]
    return options


# Each change of the first guess, then the most promising ones of the second.
FIRST_ROUND = ["tutorial", "today", "first guess", *(f"first guess{PLUS}{change}" for change in CHANGES)]
SECOND_ROUND = ["second guess"] + [
    f"second guess{PLUS}{change}"
    for change in (
        "rates 5e-4 + cosine to 0.1",
        "cosine to 0.1",
        "rates 5e-4",
        "betas 0, 0.99",
        "color, translation",
        "half-life 5,000",
        "R1 of 2",
        "batch 16",
    )
]
