"""Solvers: each minimises a `Problem` for a batch of images, every image by itself."""
