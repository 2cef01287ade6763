"""Images are fitted down to their noise, and no further."""

import torch
from torch import Tensor

from gan_lightning.degradations import Identity
from gan_lightning.inversion import invert
from gan_lightning.networks.dcgan import Generator


def test_a_search_ends_at_the_first_step_that_reaches_the_noise(generator: Generator, own_images: Tensor) -> None:
    start = torch.randn(6, 8, generator=torch.Generator().manual_seed(5))
    found = invert(
        generator,
        Identity(),
        own_images,
        start=start,
        noise_level=0.1,
        tolerance=0.0,
        num_steps=60,
        refine="none",
        latent_weight=0.0,
    )
    reached = found.converged & (found.num_steps > 0)
    assert reached.sum() >= 3
    for image in reached.nonzero()[:, 0].tolist():
        steps = int(found.num_steps[image])
        assert found.history[steps, image] <= 0.01 < found.history[:steps, image].min()
