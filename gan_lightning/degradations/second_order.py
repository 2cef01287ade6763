"""Random degradation of training images for super-resolution (Wang et al. 2021, arXiv 2107.10833, section 3.2).

Unlike the forward operators of this folder, it is random and not differentiable: it creates training pairs.
"""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from gan_lightning.degradations.separable import Downsample
from gan_lightning.images import to_float, to_uint8

RandomDegradation = Literal["bicubic", "first_order", "second_order"]
METHODS = ("area", "bilinear", "bicubic")
LARGEST_RADIUS = 10  # of a kernel, in pixels
BLUR_AGAIN = 0.8  # probability of the blur of the second round, and of the last filter
PLAIN_BLUR = 0.7  # probability of a Gaussian kernel; otherwise its exponent is also drawn
RINGING = 0.1  # probability of a sinc kernel in a round
GRAY_NOISE = 0.4  # probability that the noise of an image is the same in all channels


@dataclass(frozen=True)
class Round:
    """Ranges of one round of blur, resizing, noise and JPEG.

    Attributes:
        blur: Probability of a blur.
        sigma: Standard deviation of the blur along each of its axes, in pixels.
        exponent: Exponent beta of a generalized Gaussian exp(-r^(2 beta) / 2); that of a Gaussian is 1.
        larger: Probability of enlarging the images.
        smaller: Probability of reducing them.
        factor: Smallest and largest factor of either.
        noise: Standard deviation of Gaussian noise, for pixel values in [0, 255].
        photons: Strength of Poisson noise, 1 for that of 255 photons at white.
        quality: Quality of the JPEG compression.
    """

    blur: float = 1.0
    sigma: tuple[float, float] = (0.2, 3.0)
    exponent: tuple[float, float] = (0.5, 4.0)
    larger: float = 0.2
    smaller: float = 0.7
    factor: tuple[float, float] = (0.15, 1.5)
    noise: tuple[float, float] = (1.0, 30.0)
    photons: tuple[float, float] = (0.05, 3.0)
    quality: tuple[float, float] = (30.0, 95.0)


FIRST = Round()
SECOND = Round(
    blur=BLUR_AGAIN,
    sigma=(0.2, 1.5),
    larger=0.3,
    smaller=0.4,
    factor=(0.3, 1.2),
    noise=(1.0, 25.0),
    photons=(0.05, 2.5),
)


def degrade(images: Tensor, scale: int, kind: RandomDegradation, rng: torch.Generator) -> Tensor:
    """Degrade and reduce images, and round them to 8 bits.

    Args:
        images: (B,C,H,W) float32 in [-1, 1]; `scale` divides H and W.
        scale: Factor by which they are reduced.
        kind: "bicubic" only reduces them. "first_order" blurs, resizes, adds noise and compresses them as JPEG, each at
            random; "second_order" does so twice, and filters them once more. Strengths differ between images; sizes and
            the order of the last steps differ between batches.
        rng: Random generator on the CPU; the result is a function of its state, on each kind of device.

    Returns:
        (B,C,H/scale,W/scale) float32 in [-1, 1].
    """
    if kind == "bicubic":
        return as_file(Downsample(scale, "bicubic")(images) if scale > 1 else images)
    noise_rng = torch.Generator(images.device).manual_seed(int(torch.randint(2**62, (), generator=rng)))
    size = images.shape[-2] // scale, images.shape[-1] // scale
    found = blur(images, FIRST, rng)
    if kind == "first_order":
        found = add_noise(resize(found, size, rng), FIRST, rng, noise_rng)
        return compress(found, FIRST, rng)
    found = add_noise(resize(found, random_size(images.shape, 1, FIRST, rng), rng), FIRST, rng, noise_rng)
    found = blur(compress(found, FIRST, rng), SECOND, rng)
    found = add_noise(resize(found, random_size(images.shape, scale, SECOND, rng), rng), SECOND, rng, noise_rng)
    if uniform((0, 1), rng) < 0.5:  # in random order, as in files from unknown sources
        return compress(ring(resize(found, size, rng), rng), SECOND, rng)
    return as_file(ring(resize(compress(found, SECOND, rng), size, rng), rng))


def as_file(images: Tensor) -> Tensor:
    """Round images in [-1, 1] to 8 bits."""
    return to_float(to_uint8(images))


def uniform(bounds: Sequence[float], rng: torch.Generator) -> float:
    """Draw a number between two bounds."""
    return bounds[0] + (bounds[1] - bounds[0]) * float(torch.rand((), generator=rng))


def random_size(shape: Sequence[int], scale: int, options: Round, rng: torch.Generator) -> tuple[int, int]:
    """Draw the size of images (B,C,H,W) in a round; in the end they are reduced by `scale`."""
    choice, factor = uniform((0, 1), rng), 1.0
    if choice < options.larger:
        factor = uniform((1, options.factor[1]), rng)
    elif choice < options.larger + options.smaller:
        factor = uniform((options.factor[0], 1), rng)
    height, width = (max(4, round(side / scale * factor)) for side in shape[-2:])
    return height, width


def resize(images: Tensor, size: tuple[int, int], rng: torch.Generator) -> Tensor:
    """Resize images by a random method."""
    method = METHODS[int(torch.randint(len(METHODS), (), generator=rng))]
    if method == "area":
        return F.interpolate(images, size, mode="area")
    return F.interpolate(images, size, mode=method, align_corners=False)  # without antialiasing, as in the paper


def blur(images: Tensor, options: Round, rng: torch.Generator) -> Tensor:
    """Blur each image with its own random kernel: an anisotropic or isotropic, generalized Gaussian, or a sinc."""
    kernels = []
    for _ in range(len(images)):
        if uniform((0, 1), rng) >= options.blur:
            kernels.append(delta())
        elif uniform((0, 1), rng) < RINGING:
            kernels.append(sinc(uniform((math.pi / 3, math.pi), rng)))
        else:
            kernels.append(random_gaussian(options, rng))
    return filter_each(images, torch.stack(kernels))


def ring(images: Tensor, rng: torch.Generator) -> Tensor:
    """Filter most images with a sinc, which leaves rings at edges, like sharpening and compression."""
    kernels = [
        sinc(uniform((math.pi / 3, math.pi), rng)) if uniform((0, 1), rng) < BLUR_AGAIN else delta()
        for _ in range(len(images))
    ]
    return filter_each(images, torch.stack(kernels))


def filter_each(images: Tensor, kernels: Tensor) -> Tensor:
    """Convolve each image (B,C,H,W) with its kernel (B,K,K); images are mirrored at their borders, if large enough."""
    batch, channels, height, width = images.shape
    side = kernels.shape[-1]
    radius = min(side // 2, height - 1, width - 1)
    margin = side // 2 - radius
    cut = kernels[:, margin : side - margin, margin : side - margin]
    cut = (cut / cut.sum((1, 2), keepdim=True)).to(images).repeat_interleave(channels, 0)[:, None]
    padded = F.pad(images, (radius,) * 4, mode="reflect").reshape(1, batch * channels, *_padded(images, radius))
    return F.conv2d(padded, cut, groups=batch * channels).reshape(images.shape)


def _padded(images: Tensor, radius: int) -> tuple[int, int]:
    return images.shape[-2] + 2 * radius, images.shape[-1] + 2 * radius


def delta() -> Tensor:
    """Return the kernel (K,K) that changes nothing."""
    kernel = torch.zeros(2 * LARGEST_RADIUS + 1, 2 * LARGEST_RADIUS + 1)
    kernel[LARGEST_RADIUS, LARGEST_RADIUS] = 1
    return kernel


def random_gaussian(options: Round, rng: torch.Generator) -> Tensor:
    """Draw a generalized Gaussian kernel (K,K) that sums to 1."""
    widths, angle = [uniform(options.sigma, rng) for _ in range(2)], uniform((0, math.pi), rng)
    if uniform((0, 1), rng) < 0.5:  # isotropic
        widths[1] = widths[0]
    exponent = 1.0 if uniform((0, 1), rng) < PLAIN_BLUR else uniform(options.exponent, rng)
    return gaussian(widths[0], widths[1], angle, exponent)


def gaussian(along: float, across: float, angle: float = 0.0, exponent: float = 1.0) -> Tensor:
    """Return a generalized Gaussian kernel (K,K) that sums to 1.

    Args:
        along: Standard deviation along an axis, in pixels.
        across: Standard deviation across it.
        angle: Angle of the axis to the rows.
        exponent: Exponent of the squared distance, 1 for a Gaussian.
    """
    y, x = _grid()
    u, v = math.cos(angle) * x + math.sin(angle) * y, math.cos(angle) * y - math.sin(angle) * x
    kernel = (-0.5 * ((u / along).square() + (v / across).square()).pow(exponent)).exp()
    return kernel / kernel.sum()


def sinc(cutoff: float) -> Tensor:
    """Return the ideal circular low-pass filter (K,K), cut off at the kernel's border, that sums to 1.

    Args:
        cutoff: Cut-off frequency in radians per pixel; pi keeps everything along rows and columns.
    """
    y, x = _grid()
    distance = (x.square() + y.square()).sqrt()
    kernel: Tensor = cutoff * torch.special.bessel_j1(cutoff * distance) / (2 * math.pi * distance.clamp(min=1e-6))
    kernel[LARGEST_RADIUS, LARGEST_RADIUS] = cutoff**2 / (4 * math.pi)
    return kernel / kernel.sum()


def _grid() -> tuple[Tensor, Tensor]:
    places = torch.arange(-LARGEST_RADIUS, LARGEST_RADIUS + 1, dtype=torch.float32)
    y, x = torch.meshgrid(places, places, indexing="ij")
    return y, x


def add_noise(images: Tensor, options: Round, rng: torch.Generator, noise_rng: torch.Generator) -> Tensor:
    """Add Gaussian or Poisson noise to each image, either gray or independent in each channel.

    Args:
        images: (B,C,H,W) in [-1, 1].
        options: Ranges of the strengths.
        rng: Random generator of kinds and strengths, on the CPU.
        noise_rng: Random generator of the noise, on the device of the images.
    """
    batch, device = len(images), images.device
    drawn = torch.rand(3, batch, 1, 1, 1, generator=rng)
    is_photon, is_gray, place = (drawn[0] < 0.5).to(device), (drawn[1] < GRAY_NOISE).to(device), drawn[2].to(device)
    sigma = (options.noise[0] + (options.noise[1] - options.noise[0]) * place) / 127.5
    strength = options.photons[0] + (options.photons[1] - options.photons[0]) * place
    of_channels = torch.randn(images.shape, generator=noise_rng, device=device)
    gaussian_noise = sigma * torch.where(is_gray, of_channels[:, :1], of_channels)
    pixels = images.clamp(-1, 1)
    bright = torch.where(is_gray, pixels.mean(1, keepdim=True), pixels)
    rates = (bright + 1) * 127.5
    counts = torch.poisson(rates, generator=noise_rng)
    counts = torch.where(is_gray, counts[:, :1], counts)
    return pixels + torch.where(is_photon, strength * (counts - rates) / 127.5, gaussian_noise)


def compress(images: Tensor, options: Round, rng: torch.Generator) -> Tensor:
    """Compress each image (B,C,H,W) in [-1, 1] as JPEG with its own random quality, on the CPU."""
    pixels = to_uint8(images).permute(0, 2, 3, 1).cpu().contiguous()
    qualities = [round(uniform(options.quality, rng)) for _ in range(len(pixels))]
    with ThreadPoolExecutor(torch.get_num_threads()) as pool:
        saved = list(pool.map(through_jpeg, pixels, qualities))
    return to_float(torch.stack(saved).to(images.device))


def through_jpeg(pixels: Tensor, quality: int) -> Tensor:
    """Compress an image (H,W,C) uint8 as JPEG, and return the decoded image as (C,H,W) uint8."""
    height, width, channels = pixels.shape
    image = Image.fromarray(pixels[..., 0].numpy() if channels == 1 else pixels.numpy())
    saved = io.BytesIO()
    image.save(saved, "JPEG", quality=quality)
    content = torch.frombuffer(bytearray(Image.open(saved).tobytes()), dtype=torch.uint8)
    return content.reshape(height, width, channels).permute(2, 0, 1)
