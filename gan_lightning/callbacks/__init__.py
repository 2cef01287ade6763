"""Lightning callbacks: they ask the module for samples, and never import it."""

from gan_lightning.callbacks.restoration_progress import RestorationProgress
from gan_lightning.callbacks.restoration_writer import RestorationWriter

__all__ = ["RestorationProgress", "RestorationWriter"]
