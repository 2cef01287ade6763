# The only list of public names and their modules. Type checkers read it, `__init__.py` uses it for imports, and the
# command line takes its models and data modules from it.
from gan_lightning.callbacks.average_tracks import AverageTracks as AverageTracks
from gan_lightning.callbacks.curves import Curves as Curves
from gan_lightning.callbacks.defaults import default_callbacks as default_callbacks
from gan_lightning.callbacks.evaluation import GenerationMetrics as GenerationMetrics
from gan_lightning.callbacks.latent_space import LatentSpace as LatentSpace
from gan_lightning.callbacks.progress import ProgressBar as ProgressBar
from gan_lightning.callbacks.restoration_progress import RestorationProgress as RestorationProgress
from gan_lightning.callbacks.restoration_writer import RestorationWriter as RestorationWriter
from gan_lightning.callbacks.samples import SampleGrid as SampleGrid
from gan_lightning.callbacks.samples import SampleWriter as SampleWriter
from gan_lightning.callbacks.summary import RunSummary as RunSummary
from gan_lightning.callbacks.watch import Watch as Watch
from gan_lightning.data.celeba import CelebA as CelebA
from gan_lightning.data.image_data_module import ImageDataModule as ImageDataModule
from gan_lightning.data.image_folder import ImageFolder as ImageFolder
from gan_lightning.data.listing import ImageListing as ImageListing
from gan_lightning.data.mnist import MNIST as MNIST
from gan_lightning.data.mnist import FashionMNIST as FashionMNIST
from gan_lightning.data.packed_data_module import PackedDataModule as PackedDataModule
from gan_lightning.data.photos import Photos as Photos
from gan_lightning.data.streamed_images import StreamedImages as StreamedImages
from gan_lightning.data.synthetic_faces import SyntheticFaces as SyntheticFaces
from gan_lightning.errors import DivergedError as DivergedError
from gan_lightning.errors import InputError as InputError
from gan_lightning.inversion import Inversion as Inversion
from gan_lightning.inversion import InversionSettings as InversionSettings
from gan_lightning.inversion import invert as invert
from gan_lightning.loggers import MetricsFile as MetricsFile
from gan_lightning.loggers import SteadyWandbLogger as SteadyWandbLogger
from gan_lightning.modules.dcgan import DCGAN as DCGAN
from gan_lightning.modules.encoder import LatentEncoder as LatentEncoder
from gan_lightning.modules.esrgan import ESRGAN as ESRGAN
from gan_lightning.modules.restoration import LatentRestoration as LatentRestoration
from gan_lightning.modules.stylegan2 import StyleGAN2 as StyleGAN2
from gan_lightning.networks.average_snapshots import average_after as average_after
from gan_lightning.networks.checkpoints import load_generator as load_generator
from gan_lightning.networks.conditional import ConditionalDiscriminator as ConditionalDiscriminator
from gan_lightning.networks.conditional import ConditionalGenerator as ConditionalGenerator
from gan_lightning.networks.dcgan import Discriminator as Discriminator
from gan_lightning.networks.dcgan import Generator as Generator
from gan_lightning.networks.encoder import Encoder as Encoder
from gan_lightning.networks.stylegan2 import StyleGAN2Generator as StyleGAN2Generator
from gan_lightning.networks.stylegan2_prior import StyleGAN2Prior as StyleGAN2Prior
from gan_lightning.objectives import Objective as Objective
from gan_lightning.resume.last_checkpoint import LastCheckpoint as LastCheckpoint
from gan_lightning.resume.rank_watch import RankWatch as RankWatch

__version__: str
__all__: list[str]
