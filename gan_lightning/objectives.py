"""Adversarial objectives and gradient penalties: pure functions of logits, computed in float32.

Every loss takes logits of shape (B,) and returns a scalar that its network minimizes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

ObjectiveName = Literal[
    "saturating", "non_saturating", "bce_mse", "least_squares", "hinge", "wasserstein", "relativistic"
]


def bce_discriminator(logits_real: Tensor, logits_fake: Tensor, real_target: float = 1.0) -> Tensor:
    """-E[t log D(x) + (1-t) log(1-D(x))] - E[log(1-D(G(z)))] (Goodfellow et al. 2014; t: Salimans et al. 2016)."""
    real = F.softplus(logits_real.float()) - real_target * logits_real.float()
    return real.mean() + F.softplus(logits_fake.float()).mean()


def saturating_generator(logits_fake: Tensor, logits_real: Tensor | None = None) -> Tensor:
    """E[log(1-D(G(z)))], the minimax loss (Goodfellow et al. 2014, eq. 1)."""
    return -F.softplus(logits_fake.float()).mean()


def non_saturating_generator(logits_fake: Tensor, logits_real: Tensor | None = None) -> Tensor:
    """-E[log D(G(z))] (Goodfellow et al. 2014, section 3)."""
    return F.softplus(-logits_fake.float()).mean()


def mse_generator(logits_fake: Tensor, logits_real: Tensor | None = None) -> Tensor:
    """E[(1-D(G(z)))^2] of the probability D: bounded, with the largest gradients where D is undecided."""
    return (1 - logits_fake.float().sigmoid()).square().mean()


def least_squares_discriminator(logits_real: Tensor, logits_fake: Tensor, real_target: float = 1.0) -> Tensor:
    """1/2 E[(D(x)-1)^2] + 1/2 E[D(G(z))^2] (Mao et al. 2017, eq. 9)."""
    return ((logits_real.float() - real_target).square().mean() + logits_fake.float().square().mean()) / 2


def least_squares_generator(logits_fake: Tensor, logits_real: Tensor | None = None) -> Tensor:
    """1/2 E[(D(G(z))-1)^2] (Mao et al. 2017, eq. 9)."""
    return (logits_fake.float() - 1).square().mean() / 2


def hinge_discriminator(logits_real: Tensor, logits_fake: Tensor, real_target: float = 1.0) -> Tensor:
    """E[max(0, 1-D(x))] + E[max(0, 1+D(G(z)))] (Lim and Ye 2017; Miyato et al. 2018, eq. 16)."""
    return F.relu(1 - logits_real.float()).mean() + F.relu(1 + logits_fake.float()).mean()


def wasserstein_discriminator(logits_real: Tensor, logits_fake: Tensor, real_target: float = 1.0) -> Tensor:
    """E[D(G(z))] - E[D(x)] (Arjovsky et al. 2017, algorithm 1)."""
    return logits_fake.float().mean() - logits_real.float().mean()


def critic_generator(logits_fake: Tensor, logits_real: Tensor | None = None) -> Tensor:
    """-E[D(G(z))] (Arjovsky et al. 2017, algorithm 1; Miyato et al. 2018, eq. 17)."""
    return -logits_fake.float().mean()


def relativistic_discriminator(logits_real: Tensor, logits_fake: Tensor, real_target: float = 1.0) -> Tensor:
    """E[softplus(D(G(z)) - D(x))], reals and fakes in pairs (RpGAN: Jolicoeur-Martineau 2019; Huang et al. 2024)."""
    return F.softplus(logits_fake.float() - logits_real.float()).mean()


def relativistic_generator(logits_fake: Tensor, logits_real: Tensor | None = None) -> Tensor:
    """E[softplus(D(x) - D(G(z)))], reals and fakes in pairs (RpGAN: Jolicoeur-Martineau 2019; Huang et al. 2024)."""
    assert logits_real is not None
    return F.softplus(logits_real.float() - logits_fake.float()).mean()


def relativistic_average_discriminator(logits_real: Tensor, logits_fake: Tensor) -> Tensor:
    """-E[log s(D(x) - E D(G))] - E[log(1 - s(D(G) - E D(x)))], halved (RaGAN: Jolicoeur-Martineau 2019, eq. 9)."""
    real, fake = logits_real.float(), logits_fake.float()
    return (F.softplus(fake.mean() - real).mean() + F.softplus(fake - real.mean()).mean()) / 2


def relativistic_average_generator(logits_fake: Tensor, logits_real: Tensor) -> Tensor:
    """The same with reals and fakes exchanged (RaGAN: Jolicoeur-Martineau 2019; ESRGAN: Wang et al. 2018, eq. 2)."""
    return relativistic_average_discriminator(logits_fake, logits_real)


@dataclass(frozen=True)
class Objective:
    """The losses of generator and discriminator, and the interpretation of D's output."""

    discriminator: Callable[..., Tensor]  # (logits_real, logits_fake, real_target=1.0) -> scalar
    generator: Callable[[Tensor, Tensor | None], Tensor]  # (logits_fake, logits_real) -> scalar
    probability: bool  # D's output is the logit of a probability, and its sigmoid is reported
    needs_real: bool = False  # the generator's loss also takes the logits of reals

    def score(self, logits: Tensor) -> Tensor:
        """Return the mean of D over a batch: a probability if the objective has one, otherwise D's output."""
        logits = logits.detach().float()
        return logits.sigmoid().mean() if self.probability else logits.mean()


OBJECTIVES: dict[str, Objective] = {
    "saturating": Objective(bce_discriminator, saturating_generator, probability=True),
    "non_saturating": Objective(bce_discriminator, non_saturating_generator, probability=True),
    "bce_mse": Objective(bce_discriminator, mse_generator, probability=True),
    "least_squares": Objective(least_squares_discriminator, least_squares_generator, probability=False),
    "hinge": Objective(hinge_discriminator, critic_generator, probability=False),
    "wasserstein": Objective(wasserstein_discriminator, critic_generator, probability=False),
    "relativistic": Objective(relativistic_discriminator, relativistic_generator, probability=False, needs_real=True),
}
SMOOTHABLE = ("saturating", "non_saturating", "bce_mse", "least_squares")  # objectives with a target for reals


def gradient_norms_squared(discriminator: Callable[[Tensor], Tensor], images: Tensor) -> Tensor:
    """Compute the squared L2 norm of D's gradient with respect to each image, in float32 even under autocast.

    Args:
        discriminator: Function from images (B,C,H,W) to logits (B,).
        images: Images (B,C,H,W) in [-1, 1].

    Returns:
        Squared norms (B,), differentiable.
    """
    with torch.autocast(images.device.type, enabled=False), torch.enable_grad():
        images = images.detach().float().requires_grad_(True)
        (gradient,) = torch.autograd.grad(discriminator(images).sum(), images, create_graph=True)
    return gradient.square().flatten(1).sum(1)


def zero_centered_penalty(discriminator: Callable[[Tensor], Tensor], images: Tensor) -> Tensor:
    """1/2 E[|grad D|^2]: R1 on real images, R2 on fakes (Mescheder et al. 2018, eq. 9 and 10, without gamma)."""
    return gradient_norms_squared(discriminator, images).mean() / 2


def one_centered_penalty(
    discriminator: Callable[[Tensor], Tensor], real: Tensor, fake: Tensor, rng: torch.Generator | None = None
) -> Tensor:
    """E[(|grad D(x)| - 1)^2] on random points between reals and fakes (WGAN-GP: Gulrajani et al. 2017, eq. 3)."""
    device = rng.device if rng is not None else real.device
    weight = torch.rand(len(real), 1, 1, 1, generator=rng, device=device).to(real)
    norms = (gradient_norms_squared(discriminator, torch.lerp(fake.to(real), real, weight)) + 1e-12).sqrt()
    return (norms - 1).square().mean()


@dataclass(frozen=True)
class Penalties:
    """A weighted sum of gradient penalties; penalties of weight 0 are not computed."""

    r1: float = 0.0
    r2: float = 0.0
    gradient_penalty: float = 0.0

    def __bool__(self) -> bool:
        """Return whether any weight is not 0."""
        return any((self.r1, self.r2, self.gradient_penalty))

    def __call__(
        self, discriminator: Callable[[Tensor], Tensor], real: Tensor, fake: Tensor, rng: torch.Generator | None = None
    ) -> Tensor:
        """Compute the weighted sum on a batch of reals and fakes, both (B,C,H,W)."""
        total = real.new_zeros(())
        if self.r1:
            total = total + self.r1 * zero_centered_penalty(discriminator, real)
        if self.r2:
            total = total + self.r2 * zero_centered_penalty(discriminator, fake)
        if self.gradient_penalty:
            total = total + self.gradient_penalty * one_centered_penalty(discriminator, real, fake, rng)
        return total
