"""Distances between distributions of images, on torchmetrics."""
