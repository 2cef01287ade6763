"""Small experiments behind the explanations of docs/losses.md: each draws a picture and prints its results.

    python benchmarks/loss_theory.py --folder docs/images > benchmarks/results/loss_theory.md

--run is a run of `make study-losses`, whose generator is inverted. It takes a minute or two on two cores.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import environment  # noqa: F401  first: it sets what torch reads when it is imported
import numpy as np
import torch
from matplotlib.figure import Figure
from report import print_header, print_table
from torch import Tensor, nn
from torch.distributions import Categorical, MixtureSameFamily, Normal
from torch.nn import functional as F
from torch.optim import Adam

from gan_lightning import Discriminator, InversionSettings, SyntheticFaces, invert, load_generator
from gan_lightning.atomic import atomic_path
from gan_lightning.degradations import Identity
from gan_lightning.images import to_float
from gan_lightning.objectives import OBJECTIVES, bce_discriminator

WIDTH, DPI = 8, 150  # inches; a page shows a picture about 700 pixels wide
LOSSES = ("saturating", "bce_mse", "non_saturating")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path, default=Path("runs/losses/non_saturating"), help="run of the study")
    parser.add_argument("--data", default="data/synthetic", help="folder of the synthetic faces")
    parser.add_argument("--count", type=int, default=10000, help="number of them")
    parser.add_argument("--folder", type=Path, default=Path("runs/losses"), help="where the pictures go")
    parser.add_argument("--scale", type=float, default=1.0, help="number of steps, relative to those of the page")
    options = parser.parse_args()
    generator = load_generator(options.run / "checkpoints" / "last.ckpt")
    faces, held_out = read_faces(options.data, options.count, generator.image_size)

    def steps(count: int) -> int:
        return max(round(options.scale * count), 2)

    print_header("Experiments on losses and inverses")
    options.folder.mkdir(parents=True, exist_ok=True)
    draw_optimal_discriminator(options.folder / "losses-optimal-d.png", steps(2000))
    draw_gradients(options.folder / "losses-gradients.png", generator, faces, steps(250))
    draw_order(options.folder / "losses-order.png", steps(300))
    draw_inverses(options.folder / "losses-inverse.png", generator, held_out, steps(200))


def read_faces(root: str, count: int, image_size: int) -> tuple[Tensor, Tensor]:
    """Return up to 2,000 faces (N,C,H,W) in [-1, 1] on which a generator was trained, and 16 that it has not seen."""
    data = SyntheticFaces(root, count=count, image_size=image_size, batch_size=1)
    data.prepare_data()
    data.setup("fit")
    seen, held_out = (
        torch.as_tensor(images.read(np.arange(min(most, len(images)))))
        for images, most in ((data.real_images("train"), 2000), (data.real_images("val"), 16))
    )
    return to_float(seen), to_float(held_out)


def save(figure: Figure, path: Path) -> None:
    """Write a picture, or leave the one that was there as it is."""
    with atomic_path(path) as beside:
        figure.savefig(beside, dpi=DPI, format="png")


def perceptron(inputs: int, width: int = 64) -> nn.Sequential:
    """Return a small network of one output."""
    layers = [nn.Linear(inputs, width), nn.LeakyReLU(0.2), nn.Linear(width, width), nn.LeakyReLU(0.2)]
    return nn.Sequential(*layers, nn.Linear(width, 1))


def two_modes(distance: float, deviation: float) -> MixtureSameFamily:
    """Return a mixture of two normal distributions on the line."""
    centers = torch.tensor([-distance, distance])
    return MixtureSameFamily(Categorical(torch.ones(2)), Normal(centers, torch.full((2,), deviation)))


def draw_optimal_discriminator(path: Path, steps: int) -> None:
    """Train D on fixed p and q: it becomes p / (p + q), and V becomes 2 JSD - log 4; at q = p, D is 1/2."""
    x = torch.linspace(-4, 4, 801)
    width = float(x[1] - x[0])
    p = two_modes(1.5, 0.5)
    figure = Figure(figsize=(WIDTH, 4.6), layout="constrained")
    (densities, value), (differs, same) = figure.subplots(2, 2)
    rows = []
    for name, q, axis, color in (("q differs from p", Normal(0.5, 1.2), differs, "C4"), ("q = p", p, same, "C3")):
        network, values = train_discriminator(p, q, steps)
        with torch.no_grad():
            learned = network(x[:, None]).flatten().sigmoid()
        of_p, of_q = p.log_prob(x).exp(), q.log_prob(x).exp()
        optimal, mixture = of_p / (of_p + of_q), (of_p + of_q) / 2
        divergences = [torch.xlogy(density, density / mixture).sum() * width / 2 for density in (of_p, of_q)]
        best = 2 * float(sum(divergences)) - math.log(4)
        error = float(((learned - optimal).abs() * mixture).sum() * width)
        rows.append([name, f"{error:.4f}", f"{np.mean(values[-100:]):.3f}", f"{best:.3f}"])
        axis.plot(x, optimal, color="black", linewidth=3, alpha=0.3, label="p / (p + q)")
        axis.plot(x, learned, color=color, linewidth=1.2, label="D as trained")
        axis.set(title=f"D where {name}", ylim=(-0.03, 1.03), xlabel="x")
        value.plot(values, linewidth=0.8, color=color, label=name)
        value.axhline(best, color="black", linestyle="--", linewidth=1)
        densities.plot(
            x, of_q, color="C1" if name != "q = p" else "C0", label="q, of G" if name != "q = p" else "p, of the data"
        )
    densities.set(title="two densities", ylim=(-0.02, 0.62))
    value.set(title="V(D) while D is trained", ylim=(-1.5, -0.4), xlabel="step of D")
    value.text(steps, -math.log(4) + 0.02, "-log 4", ha="right", va="bottom", fontsize="small")
    for axis in (densities, value, differs, same):
        axis.grid(alpha=0.3)
        axis.legend(fontsize="small", loc="lower right" if axis is same else "upper right")
    save(figure, path)
    print_table(["D trained on", "mean of \\|D - p/(p+q)\\|", "V reached", "2 JSD(p, q) - log 4"], rows)
    print()


def train_discriminator(p: Any, q: Any, steps: int, batch: int = 1024) -> tuple[nn.Module, list[float]]:
    """Return a small D, trained to tell samples of two densities apart, and V at each step."""
    torch.manual_seed(0)
    network = perceptron(1)
    optimizer = Adam(network.parameters(), 2e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    values = []
    for _ in range(steps):
        loss = bce_discriminator(network(p.sample((batch, 1))), network(q.sample((batch, 1))))
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        schedule.step()
        values.append(-loss.item())
    return network, values


def draw_gradients(path: Path, generator: Any, faces: Tensor, steps: int) -> None:
    """Compare the gradients of three losses of G: by formula, and while D wins and G stands still."""
    figure = Figure(figsize=(WIDTH, 3.1), layout="constrained")
    formula, measured = figure.subplots(1, 2)
    logits = torch.linspace(-14, 4, 400, requires_grad=True)
    for number, name in enumerate(LOSSES):
        loss: Any = OBJECTIVES[name].generator
        (slopes,) = torch.autograd.grad(sum(loss(logit[None], None) for logit in logits), logits)
        formula.plot(logits.detach().sigmoid(), slopes.abs(), color=f"C{3 + number}", label=name)
    formula.set(xscale="log", yscale="log", ylim=(1e-7, 3), xlabel="D(G(z))", title="slope of G's loss by D's logit")
    formula.legend(fontsize="small", loc="lower right")
    at, norms, outputs = gradients_while_d_wins(generator, faces, steps)
    for number, name in enumerate(LOSSES):
        measured.plot(at, norms[name], color=f"C{3 + number}", label=name)
    measured.plot(at, outputs, color="gray", linestyle="--", linewidth=1)
    measured.text(at[len(at) // 2], 2 * outputs[len(at) // 2], "D(G(z))", color="gray", va="bottom")
    measured.set(yscale="log", xlabel="step of D, while G stands still", title="norm of G's gradient")
    for axis in (formula, measured):
        axis.grid(alpha=0.3)
    save(figure, path)
    rows = [
        [str(at[i]), f"{outputs[i]:.2g}", *(f"{norms[name][i]:.2g}" for name in LOSSES)] for i in (0, len(at) // 4, -1)
    ]
    print_table(["step of D", "D(G(z))", *(f"gradient, {name}" for name in LOSSES)], rows)
    print()


def gradients_while_d_wins(
    generator: Any, faces: Tensor, steps: int, batch: int = 64
) -> tuple[list[int], dict[str, list[float]], list[float]]:
    """Train a new D against a generator that stands still; return steps, the norms by loss, and D(G(z))."""
    torch.manual_seed(0)
    discriminator = Discriminator(generator.image_size, faces.shape[1], 32)
    optimizer = Adam(discriminator.parameters(), 2e-4, (0.5, 0.999))
    parameters = [parameter.requires_grad_() for parameter in generator.parameters()]
    fixed = torch.randn(batch, generator.latent_dim)
    at, outputs = [], []
    norms: dict[str, list[float]] = {name: [] for name in LOSSES}
    for step in range(steps + 1):
        if step % max(steps // 100, 1) == 0:
            logits = discriminator(generator(fixed))
            at.append(step)
            outputs.append(logits.detach().sigmoid().mean().item())
            for name in LOSSES:
                loss = OBJECTIVES[name].generator(logits, None)
                gradients = torch.autograd.grad(loss, parameters, retain_graph=True)
                norms[name].append(float(torch.stack([gradient.norm() for gradient in gradients]).norm()))
        real = faces[torch.randint(len(faces), (batch,))]
        with torch.no_grad():
            fake = generator(torch.randn(batch, generator.latent_dim))
        optimizer.zero_grad()
        bce_discriminator(discriminator(real), discriminator(fake)).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    return at, norms, outputs


def draw_order(path: Path, cycles: int) -> None:
    """Train on two modes with ten steps of D for each of G, as min max asks for, and the other way round."""
    figure = Figure(figsize=(WIDTH, 3.1), layout="constrained")
    p, edges = two_modes(1.2, 0.4), np.linspace(-3, 3, 61)
    axes: Any = figure.subplots(1, 3, width_ratios=(3, 3, 1), sharey=True)
    rows = []
    titles = {(10, 1): "min over G of max over D", (1, 10): "max over D of min over G"}
    for axis, ((of_d, of_g), title) in zip(axes, titles.items(), strict=False):
        samples = train_on_two_modes(p, cycles, of_d, of_g)
        density = np.stack([np.histogram(row, edges, density=True)[0] for row in samples.numpy()])
        axis.imshow(density.T, aspect="auto", origin="lower", extent=(0, cycles, -3, 3), cmap="magma", vmax=1.2)
        axis.set(title=f"{title}\n{of_d} of D, {of_g} of G in turn", xlabel="turn")
        left = (samples[-100:] < 0).float().mean(1)
        rows.append([title, f"{left.mean():.2f}", f"{left.std():.2f}", f"{samples[-100:].std(1).median():.2f}"])
    axes[0].set_ylabel("samples of G")
    axes[2].plot(p.log_prob(torch.tensor(edges)).exp(), edges, color="C0")
    axes[2].set(title="data", xticks=[])
    save(figure, path)
    truth = p.sample((100000,))
    rows.append(["the data", f"{(truth < 0).float().mean():.2f}", "", f"{truth.std():.2f}"])
    print_table(["order", "part left of 0, last 100 turns", "its deviation over turns", "deviation of samples"], rows)
    print()


def train_on_two_modes(p: MixtureSameFamily, cycles: int, of_d: int, of_g: int, batch: int = 128) -> Tensor:
    """Train a small GAN with the minimax loss on the line; return 256 samples of G after each turn."""
    torch.manual_seed(0)
    generator, discriminator = perceptron(4), perceptron(1)
    of_generator = Adam(generator.parameters(), 1e-3, (0.5, 0.9))
    of_discriminator = Adam(discriminator.parameters(), 1e-3, (0.5, 0.9))
    samples = []
    for _ in range(cycles):
        for _ in range(of_d):
            fake = generator(torch.randn(batch, 4)).detach()
            of_discriminator.zero_grad()
            bce_discriminator(discriminator(p.sample((batch, 1))), discriminator(fake)).backward()  # type: ignore[no-untyped-call]
            of_discriminator.step()
        for _ in range(of_g):
            of_generator.zero_grad()
            loss: Any = OBJECTIVES["saturating"].generator(discriminator(generator(torch.randn(batch, 4))), None)
            loss.backward()
            of_generator.step()
        with torch.no_grad():
            samples.append(generator(torch.randn(256, 4)).flatten())
    return torch.stack(samples)


def draw_inverses(path: Path, generator: Any, held_out: Tensor, steps: int) -> None:
    """Undo single layers by formulas, and a generator by a search: of its own samples, and of other faces."""
    print_table(["layer", "its inverse", "largest error"], invert_layers())
    print()
    rng = torch.Generator().manual_seed(1)
    latents = torch.randn(len(held_out), generator.latent_dim, generator=rng)
    with torch.no_grad():
        own = generator(latents)
    figure = Figure(figsize=(WIDTH, 3.1), layout="constrained")
    axes: Any = figure.subplots(1, 2, sharex=True, sharey=True)
    rows = []
    for axis, name, images in zip(axes, ("samples of G itself", "held-out faces"), (own, held_out), strict=True):
        curves, reached, found = search(generator, images, steps)
        axis.plot(curves, color="C0", linewidth=0.6, alpha=0.5)
        axis.plot(curves.median(1).values, color="black", label=f"median of {len(images)} images")
        axis.set(title=name, xlabel="step of the search")
        axis.grid(alpha=0.3)
        near = int(((found - latents).norm(dim=1) < 0.01 * latents.norm(dim=1)).sum())
        numbers = [f"{value:.1f} dB" for value in (reached.median(), reached.min(), reached.max())]
        rows.append([name, *numbers, f"{near} of {len(own)}" if images is own else "it has none"])
    axes[0].set_ylabel("PSNR, dB")
    axes[1].legend(fontsize="small", loc="upper right")
    save(figure, path)
    columns = ["search from a random start, for", "median", "worst", "best", "the latent itself was found, to 1%"]
    print_table(columns, rows)
    print()


def search(generator: Any, images: Tensor, steps: int) -> tuple[Tensor, Tensor, Tensor]:
    """Search for the latents of images; return PSNR (steps, B) on the way and (B,) at the end, and the latents."""
    curves: list[Tensor] = []

    def note(stage: str, step: int, objectives: Tensor, render: Callable[[], Tensor]) -> None:
        curves.append(psnr(render(), images))

    plain = InversionSettings(
        num_steps=steps, start="random", latent_weight=0, noise_level=0, tolerance=0, refine="none", composite=False
    )
    found = invert(generator, Identity(), images, plain, callback=note)
    return torch.stack(curves), psnr(found.image, images), found.latent


def invert_layers() -> list[list[str]]:
    """Return what undoes single layers, and how exactly; the last ones cannot be undone."""
    rng = torch.Generator().manual_seed(0)
    x = torch.randn(4, 8, 16, 16, generator=rng)
    scale, shift = torch.rand(8, 1, 1, generator=rng) + 0.5, torch.randn(8, 1, 1, generator=rng)
    weight = torch.linalg.qr(torch.randn(8, 8, generator=rng)).Q * (torch.rand(8, generator=rng) + 0.5)
    mixed = F.conv2d(x, weight[:, :, None, None])
    unmixed = F.conv2d(mixed, torch.linalg.inv(weight)[:, :, None, None])
    rows = {
        "scale and shift, as batch norm at evaluation": ("(y - b) / a", (x * scale + shift - shift) / scale),
        "1x1 convolution": ("1x1 convolution with the inverse matrix", unmixed),
        "translation, around the edges": ("translation back", x.roll((3, -5), (2, 3)).roll((-3, 5), (2, 3))),
        "ReLU": ("none: negative values are lost", F.relu(x)),
        "4x4 convolution with stride 2, 8 to 8 channels": (
            "none: a quarter as many values",
            strided_round_trip(x, rng),
        ),
    }
    return [[layer, inverse, f"{(back - x).abs().max():.1g}"] for layer, (inverse, back) in rows.items()]


def strided_round_trip(x: Tensor, rng: torch.Generator) -> Tensor:
    """Return the images of least norm that a strided convolution maps to the same values as x."""
    weight = torch.randn(8, 8, 4, 4, generator=rng) / 16
    size = x[0].numel()
    matrix = F.conv2d(torch.eye(size).reshape(size, *x.shape[1:]), weight, stride=2, padding=1).flatten(1).T
    y = F.conv2d(x, weight, stride=2, padding=1).flatten(1)
    return torch.linalg.lstsq(matrix, y.T, driver="gelsd").solution.T.reshape(x.shape)


def psnr(images: Tensor, target: Tensor) -> Tensor:
    """Return the PSNR (B,) of images in [-1, 1], at most 80 dB."""
    error = (images - target).square().flatten(1).mean(1) / 4
    return -10 * error.clamp(min=1e-8).log10()


if __name__ == "__main__":
    main()
