"""Check that the tests detect small bugs, planted one at a time in a copy of the sources.

    python benchmarks/planted_bugs.py --jobs 2
    python benchmarks/planted_bugs.py --only objectives.py
    python benchmarks/planted_bugs.py --check

A bug is seen if a test fails or hangs. Each set of tests is run without a bug first. The working tree is never touched.
All bugs take a few minutes on two cores.
Prints a Markdown table, and ends with status 1 if a bug goes unseen or no longer applies: then the source has changed,
and the list needs a new line. `--check` runs no tests and names the bugs that do not apply.
"""

from __future__ import annotations

import argparse
import importlib
import os
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import types
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


@dataclass(frozen=True)
class Bug:
    """A change at one place of a file, and the arguments of pytest for the tests that should see it."""

    what: str
    file: str
    old: str
    new: str
    tests: str

    def applies(self, root: Path) -> bool:
        """Return whether the text to change occurs exactly once."""
        path = root / self.file
        return path.is_file() and path.read_text().count(self.old) == 1

    def missing_tests(self, root: Path) -> list[str]:
        """Return the named tests, files or functions, that do not exist."""
        named = [argument.partition("::") for argument in shlex.split(self.tests) if argument.startswith("tests/")]
        return [
            path + separator + function
            for path, separator, function in named
            if not (root / path).is_file() or (function and f"def {function}(" not in (root / path).read_text())
        ]


def bugs_of(file: str, tests: str, *changes: tuple[str, str, str] | tuple[str, str, str, str]) -> list[Bug]:
    """List the bugs of a file, each (what, old, new), with tests of its own as a fourth where they differ."""
    return [Bug(what, f"gan_lightning/{file}", old, new, own[0] if own else tests) for what, old, new, *own in changes]


STEP = "tests/modules/test_training_step.py"
MODULE = "tests/modules/test_dcgan.py"
SOLVERS = "tests/inversion/test_solvers.py"
INVERT = "tests/inversion/test_invert.py"
CONSISTENCY = "tests/inversion/test_data_consistency.py -k 'not blur_is_found and not evidence'"
RESUME = "tests/resume/test_exact_resume.py"
EVALUATION = "tests/callbacks/test_evaluation.py"

# One bug a line.
# fmt: off
BUGS = [
    *bugs_of(
        "objectives.py",
        "tests/test_objectives.py",
        ("cross entropy ignores smoothing", "F.softplus(logits_real.float()) - real_target * logits_real.float()", "F.softplus(logits_real.float()) - logits_real.float()"),
        ("least squares ignores smoothing", "(logits_real.float() - real_target).square()", "(logits_real.float() - 1).square()"),
        ("saturating loss with the wrong sign", "return -F.softplus(logits_fake", "return F.softplus(logits_fake"),
        ("D's score of a batch is its sum", "logits.sigmoid().mean() if", "logits.sigmoid().sum() if"),
        ("D's score is a logit", "return logits.sigmoid().mean() if self.probability else", "return"),
        ("a penalty without its half", "images).mean() / 2", "images).mean()"),
        ("norms over pixels, not images", "gradient.square().flatten(1).sum(1)", "gradient.square().flatten(1).mean(1)"),
        ("penalties in the precision around them", 'autocast(images.device.type, enabled=False)', 'autocast(images.device.type)'),
        ("a penalty without a second derivative", "create_graph=True", "create_graph=False"),
        ("WGAN-GP at the reals", "torch.lerp(fake.to(real), real, weight)", "real"),
        ("one weight for all of a batch", "torch.rand(len(real), 1, 1, 1,", "torch.rand(1, 1, 1, 1,"),
        ("the weight of gradient_penalty dropped", "total + self.gradient_penalty * one", "total + one"),
        ("R2 looks at reals", "self.r2 * zero_centered_penalty(discriminator, fake)", "self.r2 * zero_centered_penalty(discriminator, real)"),
        ("R2 is no penalty to compute", "any((self.r1, self.r2, self.gradient_penalty))", "any((self.r1, self.gradient_penalty))"),
        ("relativistic losses swapped", "F.softplus(logits_real.float() - logits_fake.float())", "F.softplus(logits_fake.float() - logits_real.float())"),
    ),
    *bugs_of(
        "networks/ema.py",
        "tests/networks/test_ema.py",
        ("the average moves by its decay", "get_ema_multi_avg_fn(decay)", "get_ema_multi_avg_fn(1 - decay)"),
        ("statistics are left behind", "if target.is_floating_point():", "if False:"),
        ("warm-up begins at one", "(1 + step) / (10 + step)", "(1 + step) / (1 + step)"),
        ("no warm-up", "return min(decay, (1 + step) / (10 + step))", "return decay"),
        ("the copy is in training mode", "requires_grad_(False).eval()", "requires_grad_(False)"),
    ),
    *bugs_of(
        "networks/dcgan.py",
        "tests/networks/test_dcgan_networks.py",
        ("weights of half the spread", "nn.init.normal_(module.weight, 0.0, 0.02)", "nn.init.normal_(module.weight, 0.0, 0.01)"),
        ("another slope", "nn.LeakyReLU(0.2", "nn.LeakyReLU(0.1"),
        ("batch norm on D's first layer", "if index and normalization in", "if normalization in"),
    ),
    *bugs_of(
        "degradations/separable.py",
        "tests/degradations/test_degradations.py",
        ("a kernel cut off at two deviations", "TRUNCATE = 4.0", "TRUNCATE = 2.0"),
        ("borders mirrored about the edge", "period = max(2 * (size - 1), 1)", "period = max(2 * size, 1)"),
        ("an adjoint of columns alone", "return rows.mT @ values @ columns", "return rows @ values @ columns"),
        ("bicubic without antialiasing", 'mode="bicubic", antialias=True', 'mode="bicubic", antialias=False'),
        ("every image has the first one's blur", "self.taps[rows.to(self.taps.device)]", "self.taps[0 * rows.to(self.taps.device)]"),
    ),
    *bugs_of(
        "degradations/masks.py",
        "tests/degradations/test_degradations.py",
        ("a hole off centre", "(image_size - hole_size) // 2", "(image_size - hole_size) // 2 + 1"),
        ("masks of other images", "self.mask[rows.to(self.mask.device)]", "self.mask[: len(rows)]"),
        ("left is right", 'missing in ("right", "bottom")', 'missing in ("left", "bottom")'),
    ),
    *bugs_of(
        "degradations/mask_files.py",
        "tests/degradations/test_mask_files.py",
        ("a mask read as it is dark", "known: NDArray[np.bool_] = levels > high / 2", "known: NDArray[np.bool_] = levels <= high / 2"),
        ("opaque alpha is the mask", "if alpha.min() == alpha.max():", "if False:"),
        ("masks shrunk by their nearest pixel", "Image.Resampling.BOX", "Image.Resampling.NEAREST"),
        ("photographs share a mask", "if owner.setdefault(file, name) != name:", "if False:"),
    ),
    *bugs_of(
        "degradations/color.py",
        "tests/degradations/test_degradations.py",
        ("luma of another standard", "(0.299, 0.587, 0.114)", "(0.2126, 0.7152, 0.0722)"),
    ),
    *bugs_of(
        "degradations/base.py",
        "tests/degradations/test_degradations.py",
        ("adjoints in the order of the maps", "for degradation in reversed(self.parts)", "for degradation in self.parts"),
        ("a composition knows what its first part knows", "self.parts[-1].known", "self.parts[0].known"),
    ),
    *bugs_of(
        "degradations/noise.py",
        "tests/degradations/test_noise.py",
        ("noise of half its level", "image + 2 * self.sigma", "image + self.sigma"),
        ("noise by the place in the batch", "image_rng(self.seed, int(index), \"noise\")", "image_rng(self.seed, 0, \"noise\")"),
        ("more pepper than salt", "chance < self.fraction / 2", "chance < self.fraction / 3"),
    ),
    *bugs_of(
        "inversion/solvers/lbfgs.py",
        SOLVERS,
        ("a line search that accepts anything", "accepted = (losses <= torch.addcmul(self.losses, self.length, slope, value=ARMIJO)) & active", "accepted = active", f"{SOLVERS}::test_lbfgs_halves_a_step_that_overshoots"),
        ("a line search that accepts what is no higher", "torch.addcmul(self.losses, self.length, slope, value=ARMIJO)", "self.losses", f"{SOLVERS}::test_lbfgs_wants_more_than_any_fall"),
        ("a search that finds no way down goes on", "data, accepted | stuck, stuck)", "data, accepted | stuck)", f"{SOLVERS}::test_a_search_that_finds_no_way_down_ends"),
    ),
    *bugs_of(
        "inversion/solvers/inverse_hessian.py",
        SOLVERS,
        ("pairs of other images", "getattr(self, name)[rows])", "getattr(self, name)[: len(rows)])", f"{SOLVERS}::test_lbfgs_on_a_quadratic_bowl"),
        ("a direction without the changes of the gradient", "first * self._scale[:, :, None]], 1)", "first * 0], 1)", f"{SOLVERS}::test_the_second_step_of_lbfgs_is_that_of_bfgs"),
        ("an inverse that keeps the row of the oldest pair", "without = self._inverse.masked_fill(here[:, :, None], 0.0)", "without = self._inverse", f"{SOLVERS}::test_the_inverse_hessian_is_that_of_the_two_loop_recursion"),
    ),
    *bugs_of(
        "inversion/convergence.py",
        SOLVERS,
        ("a trial that is a step", "self._steps = self._steps + moved", "self._steps = self._steps + 1", f"{SOLVERS}::test_no_image_waits_for_the_line_search_of_another"),
    ),
    *bugs_of(
        "inversion/solvers/adam.py",
        f"{SOLVERS}::test_adam_is_torchs_on_a_cosine",
        ("no correction of the first moment", "rate / (1 - ADAM_BETAS[0] ** (step + 1))", "rate"),
        ("a rate that does not fall", "math.pi * progress", "0 * progress"),
    ),
    *bugs_of(
        "inversion/solvers/levenberg_marquardt.py",
        f"{SOLVERS}::test_normal_equations_are_the_gradient",
        ("normal equations of a mask not divided by what is known", "1 / (problem.known_fraction * residuals.shape[1])", "1 / (torch.ones_like(problem.known_fraction) * residuals.shape[1])"),
        ("a penalty about zero", "penalty * (variables - problem.center)", "penalty * variables"),
        ("a step that is always taken", "better = loss < best_loss[rows]", "better = loss < torch.inf", f"{SOLVERS}::test_a_search_that_finds_no_way_down_ends"),
    ),
    *bugs_of(
        "inversion/problem.py",
        "tests/inversion/test_losses.py",
        ("the masked loss not divided by what is known", "self.observed) / self.known_fraction", "self.observed)"),
    ),
    *bugs_of(
        "inversion/losses.py",
        "tests/inversion/test_losses.py",
        ("errors on the scale of [-1, 1]", "reduction=\"none\")) / 4", "reduction=\"none\"))"),
        ("a perceptual loss that is not relative", "distance / mean_of_each(targets.square())", "distance / mean_of_each(torch.ones_like(targets))"),
        ("a perceptual loss of a critic in training", "copy.deepcopy(discriminator).eval()", "copy.deepcopy(discriminator)"),
    ),
    *bugs_of(
        "inversion/noise_level.py",
        CONSISTENCY,
        ("a median that is a deviation", "torch.where(enough, flat.nanmedian(1).values / NORMAL_MEDIAN", "torch.where(enough, flat.nanmedian(1).values / 1.0"),
        ("frequencies that the blur leaves count as noise", "power < EIGHT_BITS**2", "power < 1e4 * EIGHT_BITS**2"),
        ("details that touch a hole count", ".masked_fill(~usable, torch.nan)", ".masked_fill(~usable, 0.0)"),
    ),
    *bugs_of(
        "inversion/data_consistency.py",
        CONSISTENCY,
        ("an error of the images half as large", "std, flat_below = 2 * prior[0], prior[1]", "std, flat_below = prior[0], prior[1]"),
        ("photographs with noise filled like those without", "torch.where(exact, filled, result)", "torch.where(exact, filled, filled)"),
    ),
    *bugs_of(
        "inversion/smoothness.py",
        CONSISTENCY,
        ("colors as free as the brightness", "return _scale_color(coefficients, CHROMA**-2)", "return _scale_color(coefficients, 1.0)"),
        ("a flat spectrum", "shape = squared**-EXPONENT", "shape = squared**-0.0"),
    ),
    *bugs_of(
        "inversion/posterior_mean.py",
        CONSISTENCY,
        ("a noise weight not squared", "weight = noise**-2", "weight = noise**-1"),
        ("holes filled from the wrong side", "-hole * prior.multiply_by_precision(correction)", "hole * prior.multiply_by_precision(correction)"),
    ),
    *bugs_of(
        "inversion/nonlocal_bayes.py",
        "tests/inversion/test_nonlocal_bayes.py",
        ("a standard deviation for a variance", "(2 * noise_level).square()", "(2 * noise_level)"),
        ("a flat region without an estimate", "distances.scatter_(1, own, -torch.inf)", "None"),
        ("the farthest patches in place of the nearest", "largest=False, sorted", "largest=True, sorted"),
    ),
    *bugs_of(
        "inversion/learned_prior.py",
        "tests/inversion/test_learned_prior.py tests/inversion/test_plug_and_play.py",
        ("a noise level on the wrong scale", "std = (2 * noise_level).clamp", "std = noise_level.clamp"),
        ("the network trusted where it is wrong", "trust[:, None, None, None])", "torch.ones_like(better))"),
        ("any image taken for a photograph", "< PHOTOGRAPHIC * (2 * STANDARD) ** 2", "< torch.inf"),
        ("all images of a batch at once", "at_once = 1 if noisy.device.type == \"cpu\" else len(noisy)", "at_once = len(noisy)"),
    ),
    *bugs_of(
        "networks/denoiser.py",
        "tests/networks/test_denoiser.py tests/inversion/test_learned_prior.py",
        ("a border of zeros", 'mode="replicate"', 'mode="constant"'),
        ("half the noise level", "2 * noise_level[:, None, None, None]", "noise_level[:, None, None, None]"),
    ),
    *bugs_of(
        "inversion/plug_and_play.py",
        "tests/inversion/test_plug_and_play.py",
        ("what is explained is smoothed too", "[:, None, None, None] > EXPLAINED, better", "[:, None, None, None] > -1, better"),
        ("patches for photographs too", "(by_network, learned_denoiser,", "(by_network, _by_patches,"),
    ),
    *bugs_of(
        "inversion/combination.py",
        "tests/inversion/test_combination.py",
        ("solutions weighted alike", "clamp(min=1e-12)).square()", "clamp(min=1e-12)).square() * 0 + 1"),
        ("a spread of the sum of channels", ".sum(1).mean(1, keepdim=True)", ".sum(1).sum(1, keepdim=True)"),
        ("a guess shown as a restoration", "keep = explained[:, None, None, None] | ", "keep = True | "),
    ),
    *bugs_of(
        "inversion/search.py",
        INVERT,
        ("restarts keep the last of each image", "better = again.loss < solution.loss[rows]", "better = again.loss < torch.inf", f"{INVERT}::test_restarts_keep_the_best_of_each_image"),
    ),
    *bugs_of(
        "inversion/whitening.py",
        "tests/inversion/test_whitening.py",
        ("the penalty of the latents on the variables", "weight=problem.weight * scales,", "weight=problem.weight.expand(-1, len(scales)),"),
        ("a floor ten times as high", "FLOOR = 0.03", "FLOOR = 0.3"),
    ),
    *bugs_of(
        "inversion/refinement.py",
        INVERT,
        ("no penalty for features of a restoration", "(FEATURE_PENALTY if lossy else 0.0)", "0.0", f"{INVERT}::test_the_feature_penalty_is_for_restoration_and_noise"),
        ("every image tuned from the first latent", "selected.latents = self.latents[rows]", "selected.latents = self.latents[0 * rows]", f"{INVERT}::test_refinement_leaves_the_range"),
    ),
    *bugs_of(
        "data/batches.py",
        "tests/data/test_batches.py",
        ("every epoch in the same order", "default_rng([self.seed, self.epoch])", "default_rng([self.seed, 0])"),
        ("each rank takes a block", "order[self.rank :: self.num_replicas], flips[self.rank :: self.num_replicas]", "order[self.rank :: self.num_replicas], flips[: len(order[self.rank :: self.num_replicas])]"),
        ("a rank has one batch more", "math.ceil(math.ceil(self.num_items / self.num_replicas) / self.batch_size)", "math.ceil(len(range(self.rank, self.num_items, self.num_replicas)) / self.batch_size)"),
        ("a resumed epoch begins anew", "bounds[batches_done if epoch == self.epoch else 0 :]", "bounds[0:]"),
        ("every later epoch is cut short too", "batches_done if epoch == self.epoch else 0", "batches_done"),
    ),
    *bugs_of(
        "images.py",
        "tests/test_images.py",
        ("pixels cut off, not rounded", ".round_().clamp_(0, 255)", ".clamp_(0, 255)"),
        ("pixels that wrap around", ".round_().clamp_(0, 255)", ".round_()"),
        ("a range of 256", "mul_(2 / 255)", "mul_(2 / 256)"),
    ),
    *bugs_of(
        "seeding.py",
        "tests/test_seeding.py",
        ("ranks share their draws", "SeedSequence([seed, rank, batch])", "SeedSequence([seed, batch])"),
        ("all purposes share their draws", 'f"{seed}/{index}/{purpose}"', 'f"{seed}/{index}"'),
    ),
    *bugs_of(
        "metrics/distances.py",
        "tests/metrics/test_distances.py",
        ("subsets of the global seed", "        torch.manual_seed(seed)\n        metric = Kernel", "        metric = Kernel"),
        ("generated images taken for real", "metric.update(fake, real=False)", "metric.update(real, real=False)"),
    ),
    *bugs_of(
        "metrics/restoration.py",
        "tests/metrics/test_restoration.py",
        ("the best image stands for the worst", "values.max() if name.startswith(LOWER_IS_BETTER) else values.min()", "values.min() if name.startswith(LOWER_IS_BETTER) else values.max()"),
        ("errors beside the hole", "weight).flatten(1).sum(1) / pixels", "(1 - weight)).flatten(1).sum(1) / pixels"),
    ),
    *bugs_of(
        "modules/dcgan.py",
        STEP,
        ("label_smoothing not passed to the loss", "logits_real, logits_fake, 1 - self.label_smoothing)", "logits_real, logits_fake)", f"{STEP} -k label_smoothing"),
        ("a penalty at every step", "count % self.penalty_interval == 0", "True", f"{STEP} -k penalty_interval"),
        ("a lazy penalty not multiplied by its interval", "loss + self.penalty_weight * penalty", "loss + penalty", f"{STEP} -k penalty_interval"),
        ("parts of D's batch weighted alike", "            share = len(real_part) / len(real)", "            share = 1 / self.accumulate", f"{STEP} -k accumulate"),
        ("parts of G's batch weighted alike", 'add_gradients("generator", loss, len(real_part) / len(real))', 'add_gradients("generator", loss, 1 / self.accumulate)', f"{STEP} -k accumulate"),
        ("fresh latents are the old ones", "                latents = self._draw_latents(len(real))", "                pass", f"{STEP} -k fresh_latents"),
        ("two optimizer steps are two steps", "self.trainer.strategy.optimizer_step(optimizer.optimizer, lambda: None)", "optimizer.step()", f"{MODULE}::test_a_step_is_a_generator_iteration_everywhere"),
        ("d_steps begin anew in each epoch", "count = self.trainer.fit_loop.total_batch_idx", "count = batch_idx", f"{STEP} -k d_steps"),
    ),
    *bugs_of(
        "modules/gan_training.py",
        STEP,
        ("lr_g and lr_d swapped", "(self.generator, self.lr_g), (self.discriminator, self.lr_d)", "(self.generator, self.lr_d), (self.discriminator, self.lr_g)", f"{STEP} -k lr_g"),
    ),
    *bugs_of(
        "modules/step_metrics.py",
        STEP,
        ("train/d_x scores fakes", '"d_x": score(outputs["logits_real"])', '"d_x": score(outputs["logits_fake"])', f"{STEP} -k defaults"),
        ("before and after are the same", 'metrics["d_g_z_after"] = score(without_side_effects(self.discriminator)(images_after, *labels))', 'metrics["d_g_z_after"] = metrics["d_g_z_before"]', f"{STEP} -k defaults"),
    ),
    *bugs_of(
        "modules/schedule.py",
        "tests/modules/test_schedule.py",
        ("the average warms up a step late", "warm_decay(self.ema_decay, self.global_step - 1)", "warm_decay(self.ema_decay, self.global_step)", f"{STEP} -k defaults"),
        ("the schedule counts the images of the step", "group[\"lr\"] = rate * schedule.rate_factor(seen)", "group[\"lr\"] = rate * schedule.rate_factor(self.images_seen)"),
        ("images seen are not saved", 'checkpoint["images_seen"] = self.images_seen', "pass"),
        ("a half-life that does not begin short", "min(half_life, RAMP * images_seen)", "half_life"),
    ),
    *bugs_of(
        "modules/network_gradients.py",
        STEP,
        ("D's gradient is not clipped", "if self._norms_are_due or clip is not None:\n", "if (self._norms_are_due or clip is not None) and optimizer is self.optimizer_pair()[0].optimizer:\n", f"{STEP} -k gradient_clip"),
        ("ranks that do not average gradients", "            parameter.grad = average\n", "            pass\n", "tests/modules/test_distributed.py::test_a_step_sends_each_gradient_once"),
        ("ranks that do not average buffers", "            buffer.copy_(average)\n", "            pass\n", "tests/modules/test_distributed.py::test_a_step_sends_each_gradient_once"),
        ("DDP's reducer takes part", "strategy.block_backward_sync() if isinstance(strategy, ParallelStrategy) else nullcontext()", "nullcontext()", "tests/modules/test_distributed.py::test_a_step_sends_each_gradient_once"),
    ),
    *bugs_of(
        "modules/step_graphs.py",
        "tests/modules/test_step_graphs.py",
        ("replays are no steps of the trainer", "        if kind.of_generator:\n            count_optimizer_step(self._module.trainer)\n", ""),
        ("a step counted twice", "count_optimizer_step(self._module.trainer, -1)", "pass"),
        ("hooks that a replay leaves out", "            return f\"a replay would not call {hook}\"\n", "            pass\n"),
    ),
    *bugs_of(
        "modules/captured_step.py",
        "tests/modules/test_step_graphs.py",
        ("a replay of the images of the capture", "            ours.copy_(theirs)\n", "            pass\n"),
        ("a replay at the learning rate of the capture", "            self.tensor.fill_(value)\n", ""),
        ("a replay for a batch of another size", "[tensor.shape for tensor in inputs] == [tensor.shape for tensor in self.inputs]", "True"),
        ("a replay with other betas", " and self.settings == list(map(settings_of, self.optimizers))", ""),
        ("a replay with layers frozen since", "same and self.state == state", "same"),
        ("rates that stay tensors", "        for group, settings in zip(groups, before, strict=True):\n            group.update(settings)\n", "        pass\n"),
    ),
    *bugs_of(
        "networks/conditional.py",
        "tests/networks/test_conditional.py",
        ("the shift of another class", "self.weight, self.bias))", "self.weight, self.bias.flip(0)))"),
        ("a folded scale left out", "state[f\"{before}.bias\"] * scale + shift", "state[f\"{before}.bias\"] + shift"),
        ("a projection of no class", "(features.flatten(1).float() * vectors).sum(1)", "vectors.sum(1)"),
        ("classes found by number before name", "if isinstance(label, str) and label in names:", "if isinstance(label, str) and label in names and not label.isdecimal():"),
    ),
    *bugs_of(
        "modules/labels.py",
        "tests/modules/test_labels.py",
        ("classes in another order than the checkpoint's", "if known and self.class_names != names:", "if known and len(self.class_names) != len(names):"),
        ("labels out of range", "low < 0 or high >= num_classes", "low < 0 or high > num_classes"),
    ),
    *bugs_of(
        "networks/interpolation.py",
        "tests/networks/test_interpolation.py",
        ("a straight line", "return torch.lerp(lengths[0], lengths[1], way) * direction", "return torch.lerp(start[:, None], end[:, None], way)"),
    ),
    *bugs_of(
        "augmentation.py",
        "tests/test_augmentation.py",
        ("contrast about black", "(brightness + (1 - contrast) * mean)", "brightness"),
        ("gray is lost with saturation", "rest = gray * (contrast * (1 - saturation)) + ", "rest = "),
        ("gradients move the same way", "translate(gradient, -down, -right)", "translate(gradient, down, right)"),
        ("borders are repeated", " * inside[:, None]", ""),
        ("every image is changed", "(draw < probability for draw in (colored, moved, cut))", "(draw < 1 for draw in (colored, moved, cut))"),
        ("a square of a quarter of the side", "CUTOUT = 1 / 2", "CUTOUT = 1 / 4"),
        ("the probability falls when D overfits", "torch.sign(self.signs / self.batches - self.settings.adaptive_target)", "torch.sign(self.settings.adaptive_target - self.signs / self.batches)", "tests/modules/test_augmented_images.py"),
        ("adaptation counts steps, not images", "due * direction * self.images / self", "due * direction / self", "tests/modules/test_augmented_images.py"),
    ),
    *bugs_of(
        "networks/tiles.py",
        "tests/networks/test_tiles.py",
        ("a tile counts up to where it was cut", "((places - first) / border + 0.5).clamp(0, 1)", "((places - start) / border).clamp(0, 1)"),
        ("the overlap of two strips is lost", "strip[:, : left_over.shape[1]] = left_over", "pass"),
        ("tiles without context", "max(0, first - border), min(side, last + border)", "first, last"),
        ("tiles begin anywhere", "multiple * round((border + (side - 2 * border) * index / count) / multiple)", "round(border + (side - 2 * border) * index / count)"),
    ),
    *bugs_of(
        "networks/posthoc_ema.py",
        "tests/networks/test_posthoc_ema.py",
        ("a decay of gamma", "(1 - passed / time) ** (exponent + 1)", "(1 - passed / time) ** exponent"),
        ("another root", "[1, 7, 16 - inverse, 12 - inverse]", "[1, 7, 16 - inverse, 12 + inverse]"),
        ("profiles overlap up to the later end", "torch.minimum(t, u)", "torch.maximum(t, u)"),
        ("another integral", "(h + 1) / (g + h + 1)", "(h + 1) / (g + h + 2)"),
        ("factors that do not add up to 1", "return factors / factors.sum()", "return factors"),
    ),
    *bugs_of(
        "alignment/frames.py",
        "tests/alignment/test_transform.py",
        ("pixels counted from their corners", "(CELEBA_LANDMARKS - (left, top) + 0.5) * scale - 0.5", "(CELEBA_LANDMARKS - (left, top)) * scale"),
        ("a face turned the other way", "(scaled_cosine, -scaled_sine), (scaled_sine, scaled_cosine)", "(scaled_cosine, scaled_sine), (-scaled_sine, scaled_cosine)"),
        ("a square about the eyes", "center = eyes + 0.1 * down", "center = eyes"),
        ("the side of long faces", "max(2.0 * np.hypot(*between), 1.8 * np.hypot(*down))", "2.0 * np.hypot(*between)"),
    ),
    *bugs_of(
        "pretrained.py",
        "tests/test_pretrained.py",
        ("layers in the order of the alphabet", 'json.loads(metadata.get(ORDER, "null")) or sorted(stored, key=_by_number)', "sorted(stored)"),
        ("variances in half precision", "value.is_floating_point() and value.ndim > 1", "value.is_floating_point()"),
        ("weights of the package win over a file", "    if path.is_file():\n        return None\n", ""),
    ),
    *bugs_of(
        "metrics/nearest_images.py",
        "tests/metrics/test_nearest_images.py",
        ("the nearest of the last batch alone", "zip(best, found, strict=True)", "zip(found, found, strict=True)"),
    ),
    *bugs_of(
        "modules/held_out.py",
        MODULE,
        ("val/d_x unweighted over uneven batches", "self.objective.score(self.discriminator(images, *labels)), count)", "self.objective.score(self.discriminator(images, *labels)))", f"{MODULE}::test_the_score_of_held_out_images_is_the_mean_over_images"),
    ),
    *bugs_of(
        "modules/run_seed.py",
        "tests/modules/test_run_seed.py",
        ("latents of the seed of the resuming run", "if self._loaded_seed is None else self._loaded_seed", "", f"{RESUME}::test_a_resumed_run_keeps_its_seed_when_another_is_given"),
    ),
    *bugs_of(
        "data/image_data_module.py",
        "tests/modules/test_run_seed.py",
        ("data that know no seed_everything", "self._resumed_seed, global_seed()", "self._resumed_seed, 0"),
        ("a resumed run in the order of another seed", "self._given_seed, self._resumed_seed, global_seed()", "self._given_seed, global_seed()"),
    ),
    *bugs_of(
        "modules/learning_rates.py",
        "tests/modules/test_learning_rates.py",
        ("betas of the run that is resumed", "if name not in kept}", 'if name not in {*kept, "betas"}}', "tests/resume/test_resume_from_python.py"),
        ("rates set anew in a schedule", '{"lr", "initial_lr"}', "set()"),
        ("a schedule that steps with each batch", 'after_generator and schedule.config.interval == "step"', 'schedule.config.interval == "step"'),
        ("a frequency left out", "if self._is_ours is False or count % self.config.frequency:", "if self._is_ours is False:"),
        ("a step of a subclass and ours", "                self._take_back(others)\n", "                pass\n"),
    ),
    *bugs_of(
        "modules/image_batches.py",
        "tests/modules/test_image_batches.py",
        ("[0, 1] is taken for [-1, 1]", "if 0 <= low < high:", "if False:"),
        ("any second part is a label", "if other.is_floating_point() or other.ndim >= 3]", "if False]"),
        ("the range is read in each step", "            self.checked = True\n", ""),
    ),
    *bugs_of(
        "modules/step_axis.py",
        "tests/modules/test_step_axis.py",
        ("LearningRateMonitor counts batches", "        count_steps_for_loggers(self.trainer, self.global_step)\n", ""),
        ("an axis that is not moved on", "        if self._epoch_of_use == self.current_epoch:\n            self._log_axis()\n        elif", "        if"),
    ),
    *bugs_of(
        "resume/checkpoint_io.py",
        "tests/resume/test_checkpoint_io.py",
        ("weights_only=None in a resume from Python", "weights_only=weights_only is None or weights_only", "weights_only=weights_only", "tests/resume/test_resume_from_python.py"),
        ("no previous.ckpt is kept", "if path.name == LAST and path in self._known:", "if False:"),
    ),
    *bugs_of(
        "resume/random_states.py",
        f"{RESUME}::test_global_random_generators_are_resumed",
        ("NumPy's generator begins anew", "    np.random.set_state((name, keys.numpy().astype(np.uint32), *rest))\n", ""),
    ),
    *bugs_of(
        "resume/progress_state.py",
        f"{RESUME}::test_resumed_from_a_checkpoint_of_any_step",
        ("a validation that is due is left out", "if validation_due:", "if False:"),
    ),
    *bugs_of(
        "callbacks/evaluation.py",
        f"{EVALUATION}::test_loggers_get_steps_the_untrained_value_and_the_protocol",
        ("the sanity check is measured", "if not trainer.sanity_checking and self._evaluator is not None:", "if self._evaluator is not None:"),
        ("a test measures the validation split", 'return stage if self.split == "auto"', 'return "val" if self.split == "auto"', f"{EVALUATION}::test_value_is_the_distance_of_exactly_these_images"),
        ("the untrained networks are not measured", "if trainer.global_step == 0:", "if trainer.global_step < 0:"),
    ),
    *bugs_of(
        "metrics/generation.py",
        f"{EVALUATION}::test_value_is_the_distance_of_exactly_these_images",
        ("one image too few", "(self.num_images, self.batch_size, distributed.rank()", "(self.num_images - 1, self.batch_size, distributed.rank()"),
    ),
    *bugs_of(
        "inversion/invert.py",
        INVERT,
        ("fitted beyond the noise", "floor = noises.square().clamp(min=EXACT)", "floor = torch.zeros_like(noises).clamp(min=EXACT)", "tests/inversion/test_stopping.py"),
        ("what lies in a hole is observed", "observed = observed * known", "observed = observed * 1", f"{INVERT}::test_what_lies_in_a_hole_does_not_matter"),
        ("the penalty of the latents dropped", "torch.full_like(noise, settings.latent_weight)", "torch.zeros_like(noise)", f"{INVERT}::test_latent_weight_draws_latents_to_the_mean"),
    ),
]
# fmt: on


def check(bugs: Sequence[Bug], root: Path = ROOT) -> list[str]:
    """Return a line for each bug that does not apply to the sources, or whose tests do not exist."""
    lines = []
    for bug in bugs:
        name = f"{bug.file}: {bug.what}"
        if not bug.applies(root):
            lines.append(f"{name}: the text to change does not occur exactly once")
        lines += [f"{name}: {test} does not exist" for test in bug.missing_tests(root)]
    return lines


def copied_sources(folder: Path) -> Path:
    """Copy what git tracks, and new files that it would, as they are in the working tree."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"], cwd=ROOT, capture_output=True, check=True
    )
    for name in listed.stdout.decode().splitlines():
        if (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(ROOT / name, folder / name)
    return folder


@dataclass(frozen=True)
class Run:
    """Tests that run on a tree, in a process of their own, with one bug or none."""

    tests: str
    bug: Bug | None
    source: str
    tree: Path
    process: int
    ends: float

    @classmethod
    def start(cls, tests: str, bug: Bug | None, tree: Path, timeout: float) -> Run:
        """Plant the bug and run the tests in a fork of this process, which has imported torch already."""
        source = (tree / bug.file).read_text() if bug else ""
        if bug:
            (tree / bug.file).write_text(source.replace(bug.old, bug.new))
        return cls(tests, bug, source, tree, os.fork() or _run_pytest(tests, tree), time.monotonic() + timeout)

    def result(self) -> str | None:
        """Return the verdict and restore the tree, or None while the tests run."""
        done, status = os.waitpid(self.process, os.WNOHANG)
        if done:
            code = os.waitstatus_to_exitcode(status)
        elif time.monotonic() < self.ends:
            return None
        else:
            code = None
            self.kill()
        if self.bug:
            (self.tree / self.bug.file).write_text(self.source)
        return {None: "seen (hangs)", 0: "UNSEEN", 1: "seen"}.get(code, f"TESTS DID NOT RUN ({code})")

    def kill(self) -> None:
        """End the tests and the processes that they started."""
        os.killpg(self.process, signal.SIGKILL)
        os.waitpid(self.process, 0)


def _run_pytest(tests: str, tree: Path) -> int:
    """Run the tests on a tree and leave the process, which is a fork."""
    status = 70
    try:
        os.setsid()
        output = os.open(tree.with_suffix(".txt"), os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(output, 1)
        os.dup2(output, 2)
        os.chdir(tree)
        ours = (ROOT, ROOT / "benchmarks")
        sys.path[:] = [str(tree), *(path for path in sys.path if Path(path or ROOT).resolve() not in ours)]
        for name in [name for name in sys.modules if name.split(".")[0] == "gan_lightning"]:
            del sys.modules[name]
        sys.modules["__main__"] = types.ModuleType("__main__")  # or processes that tests spawn would run this script
        os.environ["PYTHONPATH"] = str(tree)
        import pytest

        import gan_lightning

        assert Path(gan_lightning.__file__).is_relative_to(tree)
        arguments = ["-x", "-q", "-p", "no:cacheprovider", "-m", "not slow", f"--basetemp={tree.with_suffix('.tmp')}"]
        status = int(pytest.main([*arguments, *shlex.split(tests)]))
    finally:
        os._exit(status)


def verdicts(bugs: Sequence[Bug], trees: Sequence[Path], timeout: float) -> Iterator[tuple[Bug, str]]:
    """Plant each bug and run its tests, one at a time in each tree, after the same tests without a bug.

    Raises:
        SystemExit: If tests fail without a bug.
    """
    waiting: deque[tuple[str, Bug | None]] = deque()
    for tests in dict.fromkeys(bug.tests for bug in bugs):
        waiting.append((tests, None))
        waiting.extend((tests, bug) for bug in bugs if bug.tests == tests)
    free, runs = deque(trees), deque[Run]()
    try:
        while waiting or runs:
            while waiting and free:
                runs.append(Run.start(*waiting.popleft(), free.popleft(), timeout))
            time.sleep(0.02)
            for run in list(runs):
                if verdict := run.result():
                    runs.remove(run)
                    free.append(run.tree)
                    if run.bug:
                        yield run.bug, verdict
                    elif verdict != "UNSEEN":
                        log = run.tree.with_suffix(".txt").read_text()
                        sys.exit(f"{log[-4000:]}\n{run.tests}: fails without any bug, or has no end: repair it first")
    finally:
        for run in runs:
            run.kill()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--only", default="", help="Plant only bugs whose file, tests or description contain this text."
    )
    parser.add_argument("--check", action="store_true", help="Only check that each bug applies and its tests exist.")
    parser.add_argument("--jobs", type=int, default=1, help="Number of bugs at a time, each in its own copy.")
    parser.add_argument("--timeout", type=float, default=180.0, help="Seconds that the tests of one bug may take.")
    arguments = parser.parse_args()
    chosen = [bug for bug in BUGS if arguments.only in f"{bug.file} {bug.tests} {bug.what}"]
    if stale := check(chosen):
        sys.exit("\n".join([*stale, f"{len(stale)} entries of the list are out of date"]))
    if arguments.check:
        print(f"All {len(chosen)} bugs apply.")
        return
    # Two threads would make a fork of this process hang, and most of what is tested here is small.
    os.environ |= {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1"}
    sys.dont_write_bytecode = True
    import torch
    from report import print_header, print_table

    print_header("Planted bugs", "seen: a test fails; one bug at a time is planted, in a copy of the sources")
    for name in ("pytest", "lightning.pytorch.cli", "torchmetrics.image"):
        importlib.import_module(name)

    torch.set_num_threads(1)
    found: dict[Bug, str] = {}
    with tempfile.TemporaryDirectory() as folder:
        trees = [copied_sources(Path(folder) / f"sources_{job}") for job in range(arguments.jobs)]
        for bug, verdict in verdicts(chosen, trees, arguments.timeout):
            found[bug] = verdict
            print(f"{len(found)}/{len(chosen)} {bug.what} | {bug.file} | {verdict}", file=sys.stderr, flush=True)
    rows = [[bug.what, bug.file.removeprefix("gan_lightning/"), found[bug]] for bug in chosen]
    print_table(["bug", "file", "the tests"], rows)
    seen = sum(verdict.startswith("seen") for verdict in found.values())
    print(f"{seen} of {len(chosen)} bugs are seen.")
    if seen < len(chosen):
        sys.exit(1)


if __name__ == "__main__":
    main()
