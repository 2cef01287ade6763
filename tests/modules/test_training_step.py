"""The training step against Algorithm 1 of Goodfellow et al. 2014 in plain torch, for every option that changes it."""

import copy

import pytest
import torch
import torch.nn.functional as F

from gan_lightning import DCGAN
from gan_lightning.augmentation import Augmentation
from gan_lightning.loggers.metrics_file import MetricsFile
from gan_lightning.seeding import batch_rng
from tests.augmented import augmented
from tests.modules.test_dcgan import BATCH, LATENT, SEED, TINY, loader, train

STEPS = 8
COUNT = BATCH * 10  # images in an epoch
OPTIONS = {
    "objective": "non_saturating", "lr_g": 2e-4, "lr_d": 2e-4, "betas": (0.5, 0.999), "d_steps": 1,
    "fresh_latents": False, "label_smoothing": 0.0, "r1": 0.0, "r2": 0.0, "gradient_penalty": 0.0,
    "penalty_interval": 1, "gradient_clip": None, "accumulate": 1, "ema_decay": 0.999,
    "augmentation": None,
}  # fmt: skip
PROBABILITIES = ("saturating", "non_saturating", "bce_mse")
PLAIN = {"generator_normalization": "none", "discriminator_normalization": "none"}


def cross_entropy(logits, target):
    return F.binary_cross_entropy_with_logits(logits, torch.full_like(logits, target))


def discriminator_loss(objective, real, fake, smoothing):
    """The loss of D as its paper states it; `real` and `fake` are logits, the target of reals is 1 - smoothing."""
    if objective in PROBABILITIES:
        return cross_entropy(real, 1 - smoothing) + cross_entropy(fake, 0.0)
    return {
        "least_squares": lambda: 0.5 * ((real - (1 - smoothing)) ** 2).mean() + 0.5 * (fake**2).mean(),
        "hinge": lambda: (1 - real).clamp(min=0).mean() + (1 + fake).clamp(min=0).mean(),
        "wasserstein": lambda: fake.mean() - real.mean(),
        "relativistic": lambda: cross_entropy(real - fake, 1.0),
    }[objective]()


def generator_loss(objective, real, fake):
    return {
        "saturating": lambda: -cross_entropy(fake, 0.0),
        "non_saturating": lambda: cross_entropy(fake, 1.0),
        "bce_mse": lambda: ((1 - torch.sigmoid(fake)) ** 2).mean(),
        "least_squares": lambda: 0.5 * ((fake - 1) ** 2).mean(),
        "hinge": lambda: -fake.mean(),
        "wasserstein": lambda: -fake.mean(),
        "relativistic": lambda: cross_entropy(fake - real, 1.0),
    }[objective]()


def gradient_norms(discriminator, images):
    """L2 norms (B,) of D's gradient with respect to each image."""
    images = images.detach().clone().requires_grad_()
    (gradient,) = torch.autograd.grad(discriminator(images).sum(), images, create_graph=True)
    return (gradient.flatten(1).square().sum(1) + 1e-12).sqrt()


def penalties(discriminator, real, fake, rng, o):
    total = torch.zeros(())
    if o["r1"]:
        total = total + o["r1"] / 2 * gradient_norms(discriminator, real).square().mean()
    if o["r2"]:
        total = total + o["r2"] / 2 * gradient_norms(discriminator, fake).square().mean()
    if o["gradient_penalty"]:
        weight = torch.rand(len(real), 1, 1, 1, generator=rng)
        between = weight * real + (1 - weight) * fake
        total = total + o["gradient_penalty"] * (gradient_norms(discriminator, between) - 1).square().mean()
    return total


def score(objective, logits):
    return (logits.sigmoid() if objective in PROBABILITIES else logits).mean().item()


def step(optimizer, network, clip):
    """Clip and apply the gradients of a network; return their L2 norm."""
    norm = torch.nn.utils.clip_grad_norm_(network.parameters(), clip or float("inf"))
    optimizer.step()
    return norm.item()


def plain_torch_training(module, options, steps=STEPS):
    """Run Algorithm 1 without Lightning and without our code, except for the networks and the seeds of the latents.

    Returns:
        Generator, discriminator, averaged generator, and the metrics of each step.
    """
    o = OPTIONS | {name: value for name, value in options.items() if name in OPTIONS}
    g, d = copy.deepcopy(module.generator), copy.deepcopy(module.discriminator)
    average = copy.deepcopy(g)
    adam_g = torch.optim.Adam(g.parameters(), o["lr_g"], o["betas"], fused=True)
    adam_d = torch.optim.Adam(d.parameters(), o["lr_d"], o["betas"], fused=True)
    batches = [batch["image"] for batch in loader(COUNT)]
    history, penalty_d = [], 0.0
    for batch in range(steps * o["d_steps"]):
        real, rng = batches[batch % len(batches)], batch_rng(SEED, 0, batch)
        real = augmented(real, o["augmentation"], rng)
        latents = torch.randn(len(real), LATENT, generator=rng)
        fake = augmented(g(latents), o["augmentation"], rng)

        adam_d.zero_grad()
        loss_d, penalized = 0.0, batch % o["penalty_interval"] == 0
        penalty_d = 0.0 if penalized else penalty_d
        for real_part, fake_part in zip(parts(real, o), parts(fake.detach(), o), strict=True):
            share = len(real_part) / len(real)
            logits_real, logits_fake = d(real_part), d(fake_part)
            loss = discriminator_loss(o["objective"], logits_real, logits_fake, o["label_smoothing"])
            loss_d += share * loss.item()
            if penalized:
                penalty = penalties(d, real_part, fake_part, rng, o)
                loss = loss + o["penalty_interval"] * penalty
                penalty_d += share * penalty.item()
            (share * loss).backward()
        norm_d = step(adam_d, d, o["gradient_clip"])
        if (batch + 1) % o["d_steps"]:
            continue

        if o["fresh_latents"] or o["accumulate"] > 1:
            latents, fake = torch.randn(len(real), LATENT, generator=rng), None
        adam_g.zero_grad()
        loss_g = 0.0
        for real_part, latents_part in zip(parts(real, o), parts(latents, o), strict=True):
            share = len(real_part) / len(real)
            before = d(augmented(g(latents_part), o["augmentation"], rng) if fake is None else fake)
            of_reals = d(real_part) if o["objective"] == "relativistic" else None
            loss = generator_loss(o["objective"], of_reals, before)
            (share * loss).backward()
            loss_g += share * loss.item()
        norm_g = step(adam_g, g, o["gradient_clip"])

        taken = batch // o["d_steps"]
        decay = min(o["ema_decay"], (1 + taken) / (10 + taken))
        ours, theirs = ([*network.parameters(), *network.buffers()] for network in (average, g))
        with torch.no_grad():
            for mine, its in zip(ours, theirs, strict=True):
                mine.copy_(decay * mine + (1 - decay) * its if mine.is_floating_point() else its)
            after = copy.deepcopy(d)(augmented(copy.deepcopy(g)(latents), o["augmentation"], rng))
        scores = {"d_x": logits_real, "d_g_z_before": before, "d_g_z_after": after}
        history.append(
            {f"train/{name}": score(o["objective"], logits) for name, logits in scores.items()}
            | {"train/loss_d": loss_d, "train/loss_g": loss_g}
            | {"train/grad_norm_d": norm_d, "train/grad_norm_g": norm_g}
            | ({"train/penalty_d": penalty_d} if o["r1"] or o["r2"] or o["gradient_penalty"] else {})
        )
    return g, d, average, history


def parts(batch, o):
    return batch.chunk(o["accumulate"])


def distance(ours, theirs):
    """Largest difference between weights or statistics of two networks."""
    pairs = zip(ours.state_dict().values(), theirs.state_dict().values(), strict=True)
    return max(float((one.double() - other.double()).abs().max()) for one, other in pairs)


PENALISED = {
    "r1": 2.0,
    "r2": 3.0,
    "gradient_penalty": 5.0,
    "penalty_interval": 2,
    "discriminator_normalization": "none",
}
VARIANTS = [
    {},
    {"fresh_latents": True},
    {"d_steps": 3},
    {"d_steps": 2, "fresh_latents": True, "objective": "wasserstein"},
    {"lr_g": 1e-3, "lr_d": 1e-4},
    {"betas": (0.0, 0.9)},
    {"label_smoothing": 0.2},
    {"label_smoothing": 0.2, "objective": "least_squares"},
    {"label_smoothing": 0.2, "objective": "saturating"},
    {"label_smoothing": 0.2, "objective": "bce_mse"},
    {"r1": 5.0, **PLAIN},
    {"r2": 5.0, **PLAIN},
    {"gradient_penalty": 5.0, **PLAIN},
    {"gradient_penalty": 5.0, "penalty_interval": 3, "d_steps": 2, **PLAIN},
    {"r1": 5.0, "penalty_interval": 4, **PLAIN},
    {"gradient_clip": 0.01},
    {"gradient_clip": 0.01, "accumulate": 2, "lr_d": 1e-3, **PLAIN},
    {"accumulate": 3},  # parts of 3, 3 and 2 images
    {"accumulate": 3, "r1": 5.0, "gradient_penalty": 1.0, "penalty_interval": 2, **PLAIN},
    {"accumulate": 3, "objective": "relativistic", **PLAIN},
    {"ema_decay": 0.3},
    {"ema_decay": 0.0},
    {"augmentation": Augmentation()},
    {"augmentation": Augmentation(("color", "cutout"), 0.5), "r1": 5.0, "r2": 1.0, "gradient_penalty": 1.0, **PLAIN},
    {"augmentation": Augmentation(), "objective": "relativistic", "accumulate": 3, **PLAIN},
    {"augmentation": Augmentation(("translation",)), "fresh_latents": True, "d_steps": 2},
    *({"objective": name, **PENALISED} for name in ("saturating", "non_saturating", "bce_mse", "least_squares")),
    *({"objective": name, **PENALISED} for name in ("hinge", "wasserstein", "relativistic")),
]


def name_of(variant):
    return "-".join(f"{key}={value}" for key, value in variant.items()) or "defaults"


@pytest.mark.parametrize("variant", VARIANTS, ids=name_of)
def test_the_training_step_is_algorithm_1(tmp_path, variant):
    """Weights, statistics, the averaged generator and all metrics of each step."""
    torch.manual_seed(0)
    module, logger = DCGAN(**TINY, **variant), MetricsFile(tmp_path)
    *expected, history = plain_torch_training(module, variant)
    trainer = train(module, STEPS, tmp_path, logger=logger, log_every_n_steps=1)
    assert trainer.global_step == STEPS
    for ours, theirs in zip((module.generator, module.discriminator, module.generator_ema), expected, strict=True):
        for (name, mine), its in zip(ours.named_parameters(), theirs.parameters(), strict=True):
            # Adam blows the last bit up where a gradient is next to nothing.
            torch.testing.assert_close(mine, its, rtol=0, atol=1e-5, msg=lambda text, name=name: f"{name}: {text}")
    assert distance(module.generator_ema, expected[2]) < 1e-4  # its statistics too
    logged = logger.history()
    for name in history[0]:
        assert [number for number, _ in logged[name]] == list(range(1, STEPS + 1))
        assert [value for _, value in logged[name]] == pytest.approx([row[name] for row in history], rel=1e-3, abs=1e-4)


def test_a_resumed_run_logs_the_last_penalty(tmp_path):
    options, rows = {"r1": 5.0, "penalty_interval": 4, **PLAIN}, []
    for folder, steps, ckpt_path in (("whole", 8, None), ("first", 6, None), ("second", 8, tmp_path / "first.ckpt")):
        torch.manual_seed(0)
        logger = MetricsFile(tmp_path / folder)
        trainer = train(DCGAN(**TINY, **options), steps, tmp_path, None, ckpt_path, logger=logger, log_every_n_steps=1)
        trainer.save_checkpoint(tmp_path / f"{folder}.ckpt")
        rows.append(dict(logger.history()["train/penalty_d"]))
    whole, first, second = rows
    assert len(set(whole.values())) == 2, "of two penalized steps"
    assert first | second == whole
    assert set(second) == {7, 8}
    trainer = train(DCGAN(**TINY), 1, tmp_path)
    trainer.save_checkpoint(tmp_path / "plain.ckpt")
    assert "penalty_d" not in torch.load(tmp_path / "plain.ckpt", weights_only=True)
