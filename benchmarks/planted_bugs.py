"""Whether the tests see small bugs: plants one at a time in a copy of the sources and runs the tests that should fail.

    python benchmarks/planted_bugs.py
    python benchmarks/planted_bugs.py --only objectives.py

A bug is seen if a test fails, or hangs. The working tree is never touched. Prints a Markdown table, and ends with
status 1 if a bug goes unseen, or no longer applies: then the source has changed, and the list needs a new line.
"""

from __future__ import annotations

import argparse
import importlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import types
from dataclasses import dataclass
from pathlib import Path

import torch
from report import print_header, print_table

ROOT = Path(__file__).resolve().parents[1]


@dataclass(frozen=True)
class Bug:
    """A change of one place of a file, and the arguments of pytest for the tests that should see it."""

    what: str
    file: str
    old: str
    new: str
    tests: str


def bugs_of(file: str, tests: str, *changes: tuple[str, str, str] | tuple[str, str, str, str]) -> list[Bug]:
    """List the bugs of a file, each (what, old, new), with tests of its own as a fourth where they differ."""
    return [Bug(what, f"gan_lightning/{file}", old, new, own[0] if own else tests) for what, old, new, *own in changes]


STEP = "tests/modules/test_training_step.py"
MODULE = "tests/modules/test_dcgan.py"
INVERT = "tests/inversion/test_invert.py"

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
        ("R2 looks at reals", "self.r2 * zero_centred_penalty(discriminator, fake)", "self.r2 * zero_centred_penalty(discriminator, real)"),
        ("R2 is no penalty to compute", "any((self.r1, self.r2, self.gradient_penalty))", "any((self.r1, self.gradient_penalty))"),
        ("relativistic losses swapped", "F.softplus(logits_real.float() - logits_fake.float())", "F.softplus(logits_fake.float() - logits_real.float())", "tests/test_objectives.py"),
    ),
    *bugs_of(
        "networks/ema.py",
        "tests/networks/test_ema.py",
        ("the average moves by its decay", "1 - decay)\n", "decay)\n"),
        ("statistics are left behind", "if target.is_floating_point():", "if False:"),
        ("warm-up begins at one", "(1 + step) / (10 + step)", "(1 + step) / (1 + step)"),
        ("no warm-up", "return min(decay, (1 + step) / (10 + step))", "return decay"),
        ("the copy is in training mode", "requires_grad_(False).eval()", "requires_grad_(False)"),
    ),
    *bugs_of(
        "networks/dcgan.py",
        "tests/networks",
        ("weights of half the spread", "nn.init.normal_(module.weight, 0.0, 0.02)", "nn.init.normal_(module.weight, 0.0, 0.01)"),
        ("another slope", "nn.LeakyReLU(0.2", "nn.LeakyReLU(0.1"),
        ("batch norm on D's first layer", "if batch and index:", "if batch:"),
    ),
    *bugs_of(
        "degradations/separable.py",
        "tests/degradations",
        ("a kernel cut off at two deviations", "TRUNCATE = 4.0", "TRUNCATE = 2.0"),
        ("borders mirrored about the edge", "period = max(2 * (size - 1), 1)", "period = max(2 * size, 1)"),
        ("an adjoint of columns alone", "self.matrix(height, values).mT @ values", "self.matrix(height, values) @ values"),
        ("bicubic without antialiasing", 'mode="bicubic", antialias=True', 'mode="bicubic", antialias=False'),
        ("every image has the first one's blur", "self.sigma[row] for row in rows.tolist()", "self.sigma[0] for row in rows.tolist()"),
    ),
    *bugs_of(
        "degradations/masks.py",
        "tests/degradations",
        ("a hole off centre", "(image_size - hole_size) // 2", "(image_size - hole_size) // 2 + 1"),
        ("masks of other images", "self.mask[rows.to(self.mask.device)]", "self.mask[: len(rows)]"),
        ("left is right", 'missing in ("right", "bottom")', 'missing in ("left", "bottom")'),
        ("a mask read as it is dark", "np.array(picture) > 127", "np.array(picture) <= 127"),
    ),
    *bugs_of(
        "degradations/color.py",
        "tests/degradations",
        ("luma of another standard", "(0.299, 0.587, 0.114)", "(0.2126, 0.7152, 0.0722)"),
    ),
    *bugs_of(
        "degradations/base.py",
        "tests/degradations",
        ("adjoints in the order of the maps", "for degradation in reversed(self.parts)", "for degradation in self.parts"),
        ("the first part tells what is known", "self.parts[-1].known", "self.parts[0].known"),
    ),
    *bugs_of(
        "degradations/noise.py",
        "tests/degradations",
        ("noise of half its level", "image + 2 * self.sigma", "image + self.sigma"),
        ("noise by the place in the batch", "image_rng(self.seed, int(index), \"noise\")", "image_rng(self.seed, 0, \"noise\")"),
        ("more pepper than salt", "chance < self.fraction / 2", "chance < self.fraction / 3"),
    ),
    *bugs_of(
        "inversion/solvers/lbfgs.py",
        "tests/inversion/test_solvers.py",
        ("a line search that accepts anything", "accepted = tried.losses <= here.losses[waiting] + ARMIJO * length * slope[waiting]", "accepted = torch.ones_like(tried.losses, dtype=torch.bool)"),
        ("a line search that accepts what is no higher", "here.losses[waiting] + ARMIJO * length * slope[waiting]", "here.losses[waiting]"),
        ("pairs of other images", "(moves[going], changes[going])", "(moves[: going.sum()], changes[: going.sum()])", f"tests/inversion/test_solvers.py {INVERT}"),
        ("a direction without the first loop's shares", "result - share * changes", "result"),
    ),
    *bugs_of(
        "inversion/solvers/adam.py",
        "tests/inversion/test_solvers.py",
        ("no correction of the first moment", "rate / (1 - ADAM_BETAS[0] ** (step + 1))", "rate"),
        ("a rate that does not fall", "math.pi * step / stopping", "0 * step / stopping"),
    ),
    *bugs_of(
        "inversion/solvers/levenberg_marquardt.py",
        "tests/inversion/test_solvers.py",
        ("normal equations of a mask not divided by what is known", "1 / (problem.known_fraction * residuals.shape[1])", "1 / (torch.ones_like(problem.known_fraction) * residuals.shape[1])"),
        ("a penalty about zero", "share * (variables - problem.center)", "share * variables"),
        ("a step that is always taken", "won = loss < best_loss[rows]", "won = loss < torch.inf"),
    ),
    *bugs_of(
        "inversion/problem.py",
        "tests/inversion/test_losses.py",
        ("the masked loss not divided by what is known", "self.observed) / self.known_fraction", "self.observed)"),
    ),
    *bugs_of(
        "inversion/losses.py",
        "tests/inversion/test_losses.py",
        ("errors on the scale of [-1, 1]", "((predicted - observed) / 2).square()", "(predicted - observed).square()"),
        ("a perceptual loss that is not relative", "distance / theirs.square()", "distance / torch.ones_like(theirs)"),
        ("a perceptual loss of a critic in training", "copy.deepcopy(layers[:-1]).eval()", "copy.deepcopy(layers[:-1])"),
    ),
    *bugs_of(
        "inversion/noise_level.py",
        "tests/inversion/test_data_consistency.py",
        ("a median that is a deviation", "/ NORMAL_MEDIAN", "/ 1.0"),
        ("details that touch a hole count", ".masked_fill(~usable, torch.nan)", ".masked_fill(~usable, 0.0)"),
    ),
    *bugs_of(
        "inversion/data_consistency.py",
        "tests/inversion/test_data_consistency.py",
        ("a noise ratio not squared", "/ MODEL_ERROR).square()", "/ MODEL_ERROR)"),
        ("blending towards the wrong side", "-hole * _laplacian(offset)", "hole * _laplacian(offset)"),
    ),
    *bugs_of(
        "inversion/whitening.py",
        "tests/inversion/test_whitening.py",
        ("the penalty of the latents on the variables", "weight=problem.weight * self.scale.square()", "weight=problem.weight.expand(-1, len(self.scale))"),
        ("a floor ten times as high", "FLOOR = 0.03", "FLOOR = 0.3"),
    ),
    *bugs_of(
        "inversion/refinement.py",
        INVERT,
        ("no penalty for features of a restoration", "(FEATURE_PENALTY if lossy else 0.0)", "0.0"),
        ("every image tuned from the first latent", "_renderer(generator, parameters, latents[row])", "_renderer(generator, parameters, latents[:1])"),
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
        ("label_smoothing not passed to the loss", "logits_real, logits_fake, 1 - self.label_smoothing)", "logits_real, logits_fake)"),
        ("a penalty at every step", "penalize=count % self.penalty_interval == 0", "penalize=True"),
        ("a lazy penalty not multiplied by its interval", "loss + self.penalty_interval * penalty", "loss + penalty"),
        ("parts of D's batch weighted alike", "loss = loss * (len(real_part) / len(real))", "loss = loss / self.accumulate"),
        ("parts of G's batch weighted alike", "(logits_fake, logits_real) * (len(real_part) / len(real))", "(logits_fake, logits_real) / self.accumulate"),
        ("lr_g and lr_d swapped", "strict=True):\n            for group in optimizer.param_groups:\n                group[\"lr\"], group[\"betas\"] = lr,", "strict=True):\n            for group in optimizer.param_groups:\n                group[\"lr\"], group[\"betas\"] = self.lr_g + self.lr_d - lr,"),
        ("train/d_x scores fakes", '"train/d_x": self.objective.score(logits_real)', '"train/d_x": self.objective.score(logits_fake)'),
        ("before and after are the same", '"train/d_g_z_after": self.objective.score(logits_after)', '"train/d_g_z_after": self.objective.score(logits_fake)'),
        ("fresh latents are the old ones", "        if not reuse:\n            latents = self._draw_latents(len(real))\n", ""),
        ("the average warms up a step late", "warm_decay(self.ema_decay, self.global_step - 1)", "warm_decay(self.ema_decay, self.global_step)"),
        ("D's gradient is not clipped", "if self._due or clip is not None:\n", "if (self._due or clip is not None) and optimizer is self._optimizers()[0].optimizer:\n"),
        ("val/d_x unweighted over uneven batches", "self.objective.score(self.discriminator(batch[\"image\"])), count)", "self.objective.score(self.discriminator(batch[\"image\"])))", MODULE),
        ("betas of the run that is resumed", 'group["lr"], group["betas"] = lr, self.betas', 'group["lr"] = lr', "tests/resume/test_resume_from_python.py"),
        ("two optimizer steps are two steps", "self.trainer.strategy.optimizer_step(optimizer.optimizer, lambda: None)", "optimizer.step()", MODULE),
        ("d_steps begin anew in each epoch", "count = self.trainer.fit_loop.total_batch_idx", "count = batch_idx", STEP),
        ("latents of the seed that is given later", "if self._loaded_seed is None else self._loaded_seed", "", "tests/resume/test_exact_resume.py"),
    ),
    *bugs_of(
        "resume/checkpoint_io.py",
        "tests/resume",
        ("weights_only=None in a resume from Python", "weights_only=weights_only is None or weights_only", "weights_only=weights_only", "tests/resume/test_resume_from_python.py"),
        ("no previous.ckpt is kept", "if path.name == LAST and path in self._known:", "if False:"),
    ),
    *bugs_of(
        "resume/random_states.py",
        "tests/resume/test_exact_resume.py",
        ("NumPy's generator begins anew", "    np.random.set_state((name, keys.numpy().astype(np.uint32), *rest))\n", ""),
    ),
    *bugs_of(
        "resume/progress_state.py",
        "tests/resume/test_exact_resume.py",
        ("a validation that is due is left out", "if validation_due:", "if False:"),
    ),
    *bugs_of(
        "callbacks/evaluation.py",
        "tests/callbacks/test_evaluation.py",
        ("the sanity check is measured", "if not trainer.sanity_checking and self._evaluator is not None:", "if self._evaluator is not None:"),
        ("a test measures the validation split", 'return stage if self.split == "auto"', 'return "val" if self.split == "auto"'),
        ("the untrained networks are not measured", "if trainer.global_step == 0:", "if trainer.global_step < 0:"),
    ),
    *bugs_of(
        "metrics/generation.py",
        "tests/callbacks/test_evaluation.py",
        ("one image too few", "(self.num_images, self.batch_size, distributed.rank()", "(self.num_images - 1, self.batch_size, distributed.rank()"),
    ),
    *bugs_of(
        "inversion/invert.py",
        INVERT,
        ("restarts keep the last of each image", "better = again.loss < solution.loss[rows]", "better = again.loss < torch.inf"),
        ("fitted beyond the noise", "floor = noise.square().clamp(min=EXACT)", "floor = torch.zeros_like(noise).clamp(min=EXACT)", "tests/inversion/test_stopping.py"),
        ("what lies in a hole is observed", "observed = observed * known", "observed = observed * 1"),
        ("the penalty of the latents dropped", "torch.full_like(problem.weight, latent_weight)", "torch.zeros_like(problem.weight)"),
    ),
]
# fmt: on


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


def status_of(tests: list[str], tree: Path, timeout: float, log: Path) -> int | None:
    """Run tests on a tree in a process of its own, which has torch imported already; None if they do not end."""
    child = os.fork()
    if child == 0:
        status = 70
        try:
            os.setsid()
            output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
            os.dup2(output, 1)
            os.dup2(output, 2)
            os.chdir(tree)
            ours = (ROOT, ROOT / "benchmarks")
            sys.path[:] = [str(tree), *(path for path in sys.path if Path(path or ROOT).resolve() not in ours)]
            for name in [name for name in sys.modules if name.split(".")[0] == "gan_lightning"]:
                del sys.modules[name]
            sys.modules["__main__"] = types.ModuleType(
                "__main__"
            )  # or processes that tests spawn would run this script
            os.environ["PYTHONPATH"] = str(tree)
            import pytest

            import gan_lightning

            assert Path(gan_lightning.__file__).is_relative_to(tree)
            status = int(pytest.main(["-x", "-q", "-p", "no:cacheprovider", *tests]))
        finally:
            os._exit(status)
    ends = time.monotonic() + timeout
    while time.monotonic() < ends:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.05)
    os.killpg(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return None


def verdict(bug: Bug, tree: Path, timeout: float, log: Path) -> str:
    """Plant a bug, run its tests, and take it out again."""
    path = tree / bug.file
    source = path.read_text() if path.is_file() else ""
    if source.count(bug.old) != 1:
        return "NO LONGER APPLIES"
    path.write_text(source.replace(bug.old, bug.new))
    try:
        status = status_of(bug.tests.split(), tree, timeout, log)
    finally:
        path.write_text(source)
    return {None: "seen (hangs)", 0: "UNSEEN", 1: "seen"}.get(status, f"TESTS DID NOT RUN ({status})")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--only", default="", help="Plant only bugs whose file, tests or description contain this text."
    )
    parser.add_argument("--timeout", type=float, default=240.0, help="Seconds that the tests of one bug may take.")
    arguments = parser.parse_args()
    chosen = [bug for bug in BUGS if arguments.only in f"{bug.file} {bug.tests} {bug.what}"]
    # Two threads would make a fork of this process hang, and most of what is tested here is small.
    os.environ |= {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1"}
    sys.dont_write_bytecode = True
    print_header("Planted bugs", "seen: a test fails; each bug is planted by itself, in a copy of the sources")
    for name in ("lightning.pytorch.cli", "torchmetrics.image"):
        importlib.import_module(name)

    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        tree, log = copied_sources(Path(folder) / "sources"), Path(folder) / "log.txt"
        tests = sorted({path for bug in chosen for path in bug.tests.split()})
        if status_of(tests, tree, 20 * arguments.timeout, log) != 0:
            sys.exit(f"{log.read_text()[-4000:]}\nthe tests fail without any bug: repair them first")
        rows = []
        for number, bug in enumerate(chosen, 1):
            rows.append([bug.what, bug.file.removeprefix("gan_lightning/"), verdict(bug, tree, arguments.timeout, log)])
            print(f"{number}/{len(chosen)} {' | '.join(rows[-1])}", file=sys.stderr, flush=True)
    print_table(["bug", "file", "the tests"], rows)
    seen = sum(row[2].startswith("seen") for row in rows)
    print(f"{seen} of {len(rows)} bugs are seen.")
    if seen < len(rows):
        sys.exit(1)


if __name__ == "__main__":
    main()
