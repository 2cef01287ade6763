"""A network that predicts latents from images, which may be degraded."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from gan_lightning.networks.dcgan import channel_widths, check_architecture, initialize

LEAK = 0.2


class Encoder(nn.Module):
    """Map from images to latents: strided convolutions with batch normalization and LeakyReLU, then two dense layers.

    Images smaller than `image_size` are enlarged, and images of one channel are expanded, so that one network suffices
    for all degradations.
    """

    def __init__(
        self,
        image_size: int = 64,
        channels: int = 3,
        latent_dim: int = 100,
        base_channels: int = 64,
        hidden_dim: int = 512,
    ) -> None:
        """Build the network, with convolutions drawn from N(0, 0.02).

        Args:
            image_size: Height and width of the generator's images: 16, 32, 64, 128 or 256.
            channels: Number of channels of the generator's images: 1 or 3.
            latent_dim: Length of the latent vector.
            base_channels: Number of channels of the first layer.
            hidden_dim: Width of the dense layer before the last.

        Raises:
            InputError: If a value is unsupported.
        """
        super().__init__()
        check_architecture(
            image_size, channels, latent_dim=latent_dim, base_channels=base_channels, hidden_dim=hidden_dim
        )
        self.image_size, self.channels, self.latent_dim = image_size, channels, latent_dim
        layers: list[nn.Module] = []
        width = channels
        for next_width in reversed(channel_widths(image_size, base_channels)):
            layers += [
                nn.Conv2d(width, next_width, 4, 2, 1, bias=False),
                nn.BatchNorm2d(next_width),
                nn.LeakyReLU(LEAK, inplace=True),
            ]
            width = next_width
        self.main = nn.Sequential(*layers)
        self.apply(initialize)
        self.head = nn.Sequential(
            nn.Flatten(), nn.Linear(width * 4 * 4, hidden_dim), nn.LeakyReLU(LEAK), nn.Linear(hidden_dim, latent_dim)
        )

    def forward(self, images: Tensor) -> Tensor:
        """Map images (B, 1 or C, h, w) in [-1, 1], h and w at most `image_size`, to latents (B, latent_dim)."""
        if images.shape[-2:] != (self.image_size, self.image_size):
            images = F.interpolate(images, (self.image_size, self.image_size), mode="bilinear", align_corners=False)
        latents: Tensor = self.head(self.main(images.expand(-1, self.channels, -1, -1)))
        return latents
