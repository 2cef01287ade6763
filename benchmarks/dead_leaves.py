"""Drawn images that have the statistics of photographs: dead leaves, with texture, strands, soft light and depth.

Opaque shapes of all sizes that cover each other have the edges, flat regions and scale invariance of photographs (Lee,
Mumford & Huang 2001), and networks that were trained on them restore photographs nearly as well as those that were
trained on photographs (Achddou et al. 2021).
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter
from scipy.ndimage import gaussian_filter

SIZE = 96  # of an image in pixels
Floats = NDArray[np.float32]
Rng = np.random.Generator


def draw_image(seed: int, index: int) -> NDArray[np.uint8]:
    """Return an image (SIZE, SIZE, 3), drawn several times as large and reduced, so that it is as sharp as photographs.

    Args:
        seed: Seed of the images.
        index: Number of the image.
    """
    rng = np.random.default_rng([seed, index])
    factor = int(rng.choice([2, 3, 3, 4]))
    side = SIZE * factor
    image, _ = _layer(rng, side, several=True)
    if rng.random() < 0.35:
        image = _blur(image, rng.choice([1, 2, 4]) * factor * rng.random())
    for _ in range(rng.choice([0, 0, 1, 1, 2])):
        image = _in_front(rng, image, factor)
    if rng.random() < 0.6:  # soft light
        light = 1 + rng.uniform(0.05, 0.5) * _texture(rng, side, rng.uniform(1.5, 2.5))
        image = image * np.clip(light, 0.2, 2)[..., None]
    if rng.random() < 0.3:
        image = np.clip(image, 0, 1) ** rng.uniform(0.6, 1.7)
    picture = Image.fromarray((np.clip(image, 0, 1) * 255 + 0.5).astype(np.uint8))
    if rng.random() < 0.25:
        picture = picture.filter(ImageFilter.GaussianBlur(float(factor * rng.uniform(0.2, 0.8))))
    filters = [Image.Resampling.BICUBIC, Image.Resampling.BICUBIC, Image.Resampling.LANCZOS, Image.Resampling.BOX]
    return np.asarray(picture.resize((SIZE, SIZE), filters[rng.integers(len(filters))]))


def _in_front(rng: Rng, image: Floats, factor: int) -> Floats:
    """Return the image behind a few leaves, which may be out of focus."""
    leaves, covered = _layer(rng, len(image), several=False)
    opacity = covered[..., None].astype(np.float32)
    blur = rng.choice([0, 0, 0.5, 1.5]) * factor * rng.random()
    if blur > 0.2:
        leaves, opacity = _blur(leaves * opacity, blur), _blur(opacity, blur)
        return image * (1 - opacity) + leaves
    return image * (1 - opacity) + leaves * opacity


def _layer(rng: Rng, side: int, several: bool) -> tuple[Floats, NDArray[np.bool_]]:
    """Return the colors (side, side, 3) of a layer of leaves, and where they lie."""
    drawn = Image.new("I", (side, side), 0)  # the number of the leaf at each pixel
    canvas = ImageDraw.Draw(drawn)
    fewest, most = (4, 500) if several else (1, 40)
    count = int(np.exp(rng.uniform(np.log(fewest), np.log(most))))
    for number, radius in enumerate(_radii(rng, side, count), 1):
        _draw_leaf(rng, canvas, number, side, radius)
    tufts = []
    total = count + 1
    if rng.random() < 0.35:
        for _ in range(rng.integers(1, 5)):
            strands = _draw_tuft(rng, canvas, total, side)
            tufts.append((total, strands))
            total += strands
    colors = _palette(rng, total)
    for first, strands in tufts:
        base = _palette(rng, 1)
        shades = rng.normal(0, rng.choice([0.03, 0.1, 0.2]), (strands, 1))
        colors[first : first + strands] = np.clip(base + shades, 0, 1)
    numbers = np.asarray(drawn)
    return _colored(rng, numbers, colors), numbers > 0


def _radii(rng: Rng, side: int, count: int) -> NDArray[np.float64]:
    """Return radii whose density falls with their cube, as in a photograph, or evenly spread over the scales."""
    least, most = side * rng.choice([0.01, 0.02, 0.05]), side * rng.uniform(0.15, 0.6)
    uniform = rng.random(count)
    radii = (least**-2 - (least**-2 - most**-2) * uniform) ** -0.5
    if rng.random() < 0.6:
        radii = np.exp(rng.uniform(np.log(least), np.log(most), count))
    return np.sort(radii)[::-1] if rng.random() < 0.7 else radii  # large ones first, so that small ones are seen


def _draw_leaf(rng: Rng, canvas: ImageDraw.ImageDraw, number: int, side: int, radius: float) -> None:
    x, y = rng.uniform(-0.1 * side, 1.1 * side, 2)
    kind = rng.random()
    if kind < 0.4:
        flat = rng.uniform(0.4, 1)
        canvas.ellipse([x - radius, y - radius * flat, x + radius, y + radius * flat], fill=number)
    elif kind < 0.65:
        corners = rng.integers(3, 8)
        angles = np.sort(rng.uniform(0, 2 * np.pi, corners))
        distances = radius * rng.uniform(0.5, 1.2, corners)
        _polygon(canvas, x + distances * np.cos(angles), y + distances * np.sin(angles), number)
    elif kind < 0.85:
        angles = np.linspace(0, 2 * np.pi, 40, endpoint=False)
        outline = 1 + sum(rng.normal(0, 0.35 / k) * np.cos(k * angles + rng.uniform(0, 6.3)) for k in range(1, 5))
        flat, turn = rng.uniform(0.3, 1), rng.uniform(0, np.pi)
        u, v = radius * outline * np.cos(angles), flat * radius * outline * np.sin(angles)
        _polygon(canvas, x + u * np.cos(turn) - v * np.sin(turn), y + u * np.sin(turn) + v * np.cos(turn), number)
    else:
        direction, length = rng.uniform(0, 6.3), rng.uniform(0.3, 2) * max(radius, 0.1 * side)
        width = max(1, int(radius * rng.uniform(0.05, 0.3)))
        _draw_stroke(canvas, number, (x, y), direction, length, width, rng.normal(0, 2))


def _draw_tuft(rng: Rng, canvas: ImageDraw.ImageDraw, first: int, side: int) -> int:
    """Draw strands of hair that are nearly parallel, and return how many."""
    x, y = rng.uniform(0, side, 2)
    direction, length = rng.uniform(0, 6.3), rng.uniform(0.2, 1.0) * side
    spread, bend, width = rng.uniform(0.05, 0.3) * side, rng.normal(0, 1.5), rng.uniform(0.7, 4)
    strands = int(rng.integers(15, 120))
    for number in range(first, first + strands):
        place = x + rng.normal(0, spread), y + rng.normal(0, spread)
        angle, extent = direction + rng.normal(0, 0.1), length * rng.uniform(0.6, 1.2)
        thickness = max(1, int(width * rng.uniform(0.5, 1.5)))
        _draw_stroke(canvas, number, place, angle, extent, thickness, bend + rng.normal(0, 0.1))
    return strands


def _draw_stroke(
    canvas: ImageDraw.ImageDraw,
    number: int,
    start: tuple[float, float],
    direction: float,
    length: float,
    width: int,
    bend: float,
) -> None:
    angles = direction + bend * np.linspace(0, 1, 10)
    xs, ys = start[0] + np.cumsum(np.cos(angles)) * length / 10, start[1] + np.cumsum(np.sin(angles)) * length / 10
    canvas.line([*zip(xs.tolist(), ys.tolist(), strict=True)], fill=number, width=width, joint="curve")


def _polygon(canvas: ImageDraw.ImageDraw, xs: NDArray[np.float64], ys: NDArray[np.float64], number: int) -> None:
    canvas.polygon([*zip(xs.tolist(), ys.tolist(), strict=True)], fill=number)


def _palette(rng: Rng, count: int) -> Floats:
    """Return colors (count, 3) around a few dull ones, most of them of warm or neutral light."""
    few = rng.integers(2, 9)
    base = rng.beta(1.1, 1.2, (few, 1)) + rng.normal(0, rng.choice([0.02, 0.05, 0.12]), (few, 3))
    base = base + rng.normal(0, 0.05, (1, 3))
    if rng.random() < 0.5:
        base = base * (1 + np.array([0.15, 0, -0.2]) * rng.uniform(-0.5, 1))
    colors = base[rng.integers(0, few, count)] + rng.normal(0, 0.12, (count, 1)) * rng.random()
    return np.clip(colors + rng.normal(0, 0.04, (count, 3)), 0, 1).astype(np.float32)


def _colored(rng: Rng, numbers: NDArray[np.int32], colors: Floats) -> Floats:
    """Return the colors of the leaves (side, side, 3), each with a gradient of its own and textures on some."""
    side, total = len(numbers), len(colors)
    y, x = np.mgrid[:side, :side].astype(np.float32) / side - 0.5
    slopes = rng.normal(0, rng.choice([0, 0.15, 0.4]), (total, 2)).astype(np.float32)
    image = colors[numbers] + (slopes[numbers, 0] * x + slopes[numbers, 1] * y)[..., None]
    kinds = rng.integers(0, 4)
    if kinds:
        textured = rng.random((total, kinds)) < 0.4
        strengths = rng.exponential(rng.choice([0.02, 0.05, 0.12]), (total, kinds))
        strengths = np.where(textured, strengths, 0).astype(np.float32)
    for kind in range(kinds):
        texture = _texture(rng, side, rng.uniform(0.3, 1.6))
        if rng.random() < 0.25:  # stripes
            turn = rng.uniform(0, np.pi)
            waves = 2 * np.pi * rng.uniform(4, 40) * (x * np.cos(turn) + y * np.sin(turn))
            texture = np.sin(waves + rng.random() * texture)
        tint = 1 + rng.normal(0, 0.2, 3).astype(np.float32)
        image = image + (strengths[numbers, kind] * texture)[..., None] * tint
    return image.astype(np.float32)


def _texture(rng: Rng, side: int, exponent: float) -> Floats:
    """Return noise (side, side) of mean 0 and deviation 1 whose amplitudes fall with a power of the frequency."""
    rows, columns = np.fft.fftfreq(side)[:, None], np.fft.rfftfreq(side)[None]
    frequency = np.hypot(rows, columns)
    frequency[0, 0] = 1
    if rng.random() < 0.3:  # drawn out in one direction
        turn, ratio = rng.uniform(0, np.pi), rng.uniform(2, 5)
        along = columns * math.cos(turn) + rows * math.sin(turn)
        across = rows * math.cos(turn) - columns * math.sin(turn)
        frequency = np.hypot(along * ratio, across / ratio) + 1e-4
    spectrum = rng.standard_normal(frequency.shape) + 1j * rng.standard_normal(frequency.shape)
    spectrum = spectrum * frequency**-exponent
    spectrum[0, 0] = 0
    noise = np.fft.irfft2(spectrum, (side, side))
    return (noise / (noise.std() + 1e-9)).astype(np.float32)


def _blur(image: Floats, sigma: float) -> Floats:
    blurred: Floats = gaussian_filter(image, (sigma, sigma, 0), truncate=3) if sigma >= 0.2 else image
    return blurred
