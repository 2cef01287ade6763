"""Solvers that minimize a `Problem` for each image of a batch independently."""
