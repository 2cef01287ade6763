"""Lightning callbacks. They ask the module for samples, and never import it."""

from gan_lightning.callbacks.average_tracks import AverageTracks
from gan_lightning.callbacks.curves import Curves
from gan_lightning.callbacks.defaults import default_callbacks
from gan_lightning.callbacks.evaluation import GenerationMetrics
from gan_lightning.callbacks.latent_space import LatentSpace
from gan_lightning.callbacks.progress import ProgressBar
from gan_lightning.callbacks.restoration_progress import RestorationProgress
from gan_lightning.callbacks.restoration_writer import RestorationWriter
from gan_lightning.callbacks.samples import SampleGrid, SampleWriter
from gan_lightning.callbacks.summary import RunSummary
from gan_lightning.callbacks.watch import Watch
from gan_lightning.resume.last_checkpoint import LastCheckpoint
from gan_lightning.resume.rank_watch import RankWatch

__all__ = [
    "AverageTracks",
    "Curves",
    "GenerationMetrics",
    "LastCheckpoint",
    "LatentSpace",
    "ProgressBar",
    "RankWatch",
    "RestorationProgress",
    "RestorationWriter",
    "RunSummary",
    "SampleGrid",
    "SampleWriter",
    "Watch",
    "default_callbacks",
]
