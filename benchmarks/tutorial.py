"""Data loader and training loop of the PyTorch DCGAN tutorial, the baseline of the benchmarks.

It uses sigmoid and BCELoss, separate backward passes for real and fake images, contiguous memory, default Adam and
float32, and reads losses from the device at each step. The networks are ours, which equal those of the tutorial layer
by layer.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Adam
from torch.utils.data import DataLoader
from torchvision import transforms
from torchvision.datasets import ImageFolder

from gan_lightning.networks.dcgan import Discriminator, Generator


def jpeg_loader(root: Path, image_size: int, batch_size: int, workers: int) -> DataLoader[Any]:
    """Return a DataLoader for a folder of folders of JPEGs, with torchvision's ImageFolder."""
    transform = transforms.Compose(
        [
            transforms.Resize(image_size),
            transforms.CenterCrop(image_size),
            transforms.ToTensor(),
            transforms.Normalize((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
        ]
    )
    return DataLoader(
        ImageFolder(str(root), transform),
        batch_size=batch_size,
        shuffle=True,
        num_workers=workers,
        drop_last=True,  # unlike the tutorial: batches of equal size are easier to compare
        persistent_workers=workers > 0,
    )


class TutorialLoop:
    """Networks, optimizers and training step of the tutorial."""

    def __init__(self, image_size: int, latent_dim: int, base_channels: int, device: torch.device) -> None:
        self.device, self.latent_dim = device, latent_dim
        self.generator = Generator(image_size, 3, latent_dim, base_channels).to(device)
        logits = Discriminator(image_size, 3, base_channels)
        self.discriminator = nn.Sequential(logits, nn.Sigmoid()).to(device)
        self.criterion = nn.BCELoss()
        self.optimizer_d = Adam(self.discriminator.parameters(), lr=2e-4, betas=(0.5, 0.999))
        self.optimizer_g = Adam(self.generator.parameters(), lr=2e-4, betas=(0.5, 0.999))
        self.losses: list[tuple[float, float]] = []

    def step(self, images: Tensor) -> None:
        """Take one training step on a batch (B,C,H,W) in [-1, 1]."""
        self.discriminator.zero_grad()
        real = images.to(self.device)
        label = torch.full((len(real),), 1.0, device=self.device)
        output = self.discriminator(real)
        loss_real = self.criterion(output, label)
        loss_real.backward()
        d_x = output.mean().item()
        noise = torch.randn(len(real), self.latent_dim, 1, 1, device=self.device)
        fake = self.generator(noise)
        label.fill_(0.0)
        output = self.discriminator(fake.detach())
        loss_fake = self.criterion(output, label)
        loss_fake.backward()
        d_g_z_before = output.mean().item()
        loss_d = loss_real + loss_fake
        self.optimizer_d.step()

        self.generator.zero_grad()
        label.fill_(1.0)
        output = self.discriminator(fake)
        loss_g = self.criterion(output, label)
        loss_g.backward()
        d_g_z_after = output.mean().item()
        self.optimizer_g.step()
        if len(self.losses) % 50 == 0:
            self.report = f"{loss_d.item():.4f} {loss_g.item():.4f} {d_x:.4f} {d_g_z_before:.4f} {d_g_z_after:.4f}"
        self.losses.append((loss_g.item(), loss_d.item()))
