"""Augmentation as the paper describes it: one image after the other, and one change after the other."""

import math

import torch
import torch.nn.functional as F

DRAWS = 10


def augmented(images, augmentation, rng, probability=None):
    """Return images as a discriminator is to see them; `augmentation` states the kinds, and None is no change."""
    if augmentation is None:
        return images
    probability = augmentation.probability if probability is None else probability
    columns = torch.rand(DRAWS, len(images), generator=rng).T.tolist()
    return torch.stack(
        [changed(image, augmentation.kinds, probability, u) for image, u in zip(images, columns, strict=True)]
    )


def changed(image, kinds, probability, u):
    """Change an image (C,H,W) by uniform numbers in [0, 1)."""
    side = image.shape[-1]
    if "color" in kinds and u[0] < probability:
        image = image + (u[1] - 0.5)
        gray = image.mean(0, keepdim=True)
        image = (image - gray) * (2 * u[2]) + gray
        image = (image - image.mean()) * (u[3] + 0.5) + image.mean()
    if "translation" in kinds and u[4] < probability:
        most = side // 8
        down, right = (math.floor(value * (2 * most + 1)) - most for value in u[5:7])
        padded = F.pad(image, (most, most, most, most))
        image = padded[:, most - down : most - down + side, most - right : most - right + side]
    if "cutout" in kinds and u[7] < probability:
        row, column = (math.floor(value * (side + 1)) for value in u[8:10])
        kept = torch.ones_like(image)
        half = side // 4
        kept[:, max(row - half, 0) : row + half, max(column - half, 0) : column + half] = 0
        image = image * kept
    return image
