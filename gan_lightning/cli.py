"""One LightningCLI for every command that is a Trainer loop."""

from __future__ import annotations

import inspect
import json
import logging
import re
import warnings
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Any, NoReturn, Union, get_args, get_origin

import yaml
from jsonargparse import ArgumentParser, Namespace
from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.callbacks.progress.progress_bar import ProgressBar as BaseProgressBar
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI, SaveConfigCallback
from lightning.pytorch.loggers import Logger, WandbLogger
from lightning.pytorch.utilities import rank_zero_only
from lightning.pytorch.utilities.model_helpers import is_overridden

from gan_lightning.callbacks.curves import Curves
from gan_lightning.callbacks.evaluation import GenerationMetrics
from gan_lightning.callbacks.progress import ProgressBar
from gan_lightning.callbacks.samples import SampleGrid, SampleWriter
from gan_lightning.callbacks.summary import RunSummary
from gan_lightning.data.modules import MNIST, CelebA, FashionMNIST, ImageFolder, StreamedImages, SyntheticFaces
from gan_lightning.errors import InputError
from gan_lightning.loggers.metrics_file import MetricsFile
from gan_lightning.loggers.wandb import SteadyWandbLogger
from gan_lightning.messages import show_messages
from gan_lightning.metrics.extractors import check_inception_weights, inception_weights_path
from gan_lightning.modules.dcgan import DCGAN
from gan_lightning.modules.encoder import LatentEncoder
from gan_lightning.modules.restoration import MOVED_OPTIONS, LatentRestoration
from gan_lightning.networks.checkpoints import check_whole, load_tensors
from gan_lightning.resume.checkpoint_io import LAST, PREVIOUS
from gan_lightning.resume.jobs import requeued_when_warned, runs_again
from gan_lightning.resume.last_checkpoint import LastCheckpoint
from gan_lightning.run import RunFolder, run_folder

_log = logging.getLogger(__name__)

COMMANDS = tuple(LightningCLI.subcommands())
MODELS = (DCGAN, LatentEncoder, LatentRestoration)
DATA = (SyntheticFaces, CelebA, ImageFolder, MNIST, FashionMNIST, StreamedImages)


class OptionsParser(LightningArgumentParser):
    """Lightning's parser, whose help goes on with the options of our models and data."""

    def format_help(self, *arguments: Any) -> str:
        """Give the help of a command, every option explained."""
        text = super().format_help(*arguments)
        if not self.usage:  # not a command's parser
            return text
        # The name of each option's environment variable follows one rule, which is told once.
        text = re.sub(r"^  ENV:.*\n", "", text, flags=re.MULTILINE).replace("  ARG:   ", "  ")
        parts = [text.strip()]
        for key, classes in (("model", MODELS), ("data", DATA)):
            for component in classes:
                options = ArgumentParser(usage="", add_help=False)
                options.add_class_arguments(component, key)
                explained = options.format_help().split("\n", 1)[1].strip()
                parts.append(f"--{key} {component.__name__}\n\n{explained}")
        parts.append(
            "Every option can be set in YAML too (--config), or in the environment: --trainer.max_steps of fit as "
            "PL_FIT__TRAINER__MAX_STEPS."
        )
        return "\n\n".join(parts) + "\n"

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Exit with the parser's message, or raise if an option has moved.

        Raises:
            InputError: It names the place where the option is set now.
        """
        unknown = re.search(r"LatentRestoration':\s+Option '(\w+)' is not accepted", message)
        if unknown and unknown[1] in MOVED_OPTIONS:
            raise InputError(f"model.{unknown[1]} has moved: set {MOVED_OPTIONS[unknown[1]]} instead") from ex
        super().error(message, ex)


class RunConfig(SaveConfigCallback):
    """Writes config.yaml to the run folder, and the same to every logger.

    What is written is what the user gave, not the paths that were made of it: run again under another name, it must
    not write into the folder of the first run.
    """

    def __init__(self, parser: LightningArgumentParser, config: Namespace, *, given: Namespace, **kwargs: Any) -> None:
        super().__init__(parser, given, **kwargs)

    def save_config(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Give the configuration to the loggers: runs are told apart by it."""
        config = self.parser.dump(self.config, skip_none=False, format="yaml")
        for logger in trainer.loggers:
            logger.log_hyperparams(yaml.safe_load(config))


class GanCLI(LightningCLI):
    """The commands fit, validate, test and predict, each run in a folder of its own."""

    claimed: RunFolder | None = None  # by the first rank alone
    _goes_on = False  # whether this command goes on with a run, be it from its first step

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        try:
            super().__init__(*args, **kwargs)  # which runs the command
        finally:
            if self.claimed is not None:
                self.claimed.release()

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Add the name of the run, and the callbacks that are always there, each under a key of its own."""
        parser.add_argument(
            "--name",
            type=str | None,
            default=None,
            help="Name of the run, whose folder is runs/NAME. Default: the command, and the time or the job's number.",
        )
        parser.add_lightning_class_args(GenerationMetrics, "evaluation")
        parser.add_lightning_class_args(SampleGrid, "sample_grid")
        parser.add_lightning_class_args(ModelCheckpoint, "checkpoint")
        parser.add_lightning_class_args(LastCheckpoint, "last_checkpoint")
        options: list[Any] = parser._actions
        for option in options:
            hint = getattr(option, "_typehint", None)
            if get_origin(hint) is Union and {int, float} <= set(get_args(hint)):
                # Python may hand out an equal Union of another order, by which 1 batch would be 1.0: all of them.
                option._typehint = Union[(int, *(kind for kind in get_args(hint) if kind is not int))]
        parser.set_defaults(
            {
                "checkpoint.filename": "best",
                "checkpoint.enable_version_counter": False,
            }
        )

    def setup_parser(
        self, add_subcommands: bool, main_kwargs: dict[str, Any], subparser_kwargs: dict[str, Any]
    ) -> None:
        """Add what only `predict` has."""
        super().setup_parser(add_subcommands, main_kwargs, subparser_kwargs)
        for command in self._subcommand_parsers.values():
            command.set_defaults({"weights_only": True})  # Lightning would run the pickle of a checkpoint on a server
        predict = self._subcommand_parsers["predict"]
        predict.add_argument("--num_samples", type=int, default=64, help="Number of images to draw, for a DCGAN.")
        predict.set_defaults({"return_predictions": False})  # they are on disk

    def _parse_ckpt_path(self) -> None:
        # Lightning takes the model's hyperparameters from the checkpoint; first see that it is one.
        options = self.options
        if options.model is None:
            raise InputError(
                "there is no model: add --config configs/quickstart.yaml, or --model DCGAN and --data CelebA"
            )
        path = options.get("ckpt_path")
        again = self.config.subcommand == "fit" and runs_again()
        if path == "last" or again:
            own = None if path == "last" else path  # what it began with, until it has a checkpoint of its own
            options.ckpt_path = path = self._last_checkpoint(again) or own
        if path is not None and "://" not in str(path):
            check_checkpoint(path, import_class(options.model.class_path))
        super()._parse_ckpt_path()

    def _last_checkpoint(self, again: bool) -> str | None:
        """Give the path of the run's last checkpoint; None for a fit that was stopped before it wrote any."""
        options, command = self.options, self.config.subcommand
        if options.name is None and options.trainer.default_root_dir is None and not again:
            raise InputError("--ckpt_path last needs the run that it belongs to: add --name NAME")
        folder = run_folder(options.trainer.default_root_dir, options.name, command)
        self._goes_on = command == "fit" and (again or folder.is_dir())
        paths = [folder / "checkpoints" / name for name in (LAST, PREVIOUS)]
        path = next((path for path in paths if path.exists()), None)
        return str(path or paths[0]) if path or not self._goes_on else None

    @property
    def options(self) -> Namespace:
        """The configuration of the command that runs."""
        options: Namespace = self.config[self.config.subcommand]
        return options

    def before_instantiate_classes(self) -> None:
        """Choose the run folder, and what must be known before anything is built."""
        options, command = self.options, self.config.subcommand
        given, model_class = options.clone(), import_class(options.model.class_path)
        folder = run_folder(options.trainer.default_root_dir, options.name, command)
        options.trainer.default_root_dir = str(folder)
        if options.checkpoint.dirpath is None:
            options.checkpoint.dirpath = str(folder / "checkpoints")
        if options.checkpoint.monitor is None:
            distance = "val/fid" if options.evaluation.extractor == "inception" else "val/fd_random"
            options.checkpoint.monitor, options.checkpoint.mode = getattr(model_class, "monitor", (distance, "min"))
        if options.checkpoint.save_top_k not in (0, 1) and options.checkpoint.filename == "best":
            options.checkpoint.filename = "best-{step}"  # one name for several would be the latest one's
        check_sizes(options)
        weights_needed = options.evaluation.extractor == "inception" and not options.evaluation.download
        if weights_needed and hasattr(model_class, "sample") and command != "predict":
            check_inception_weights(inception_weights_path(options.evaluation.inception_weights))
        wandb_loggers = []
        for logger in loggers_of(options.trainer):
            if import_class(logger.class_path) is WandbLogger:
                logger.class_path = f"{SteadyWandbLogger.__module__}.{SteadyWandbLogger.__qualname__}"
            for argument, value in (("save_dir", str(folder.resolve())), ("name", folder.name)):
                if argument in logger.init_args and logger.init_args[argument] in (".", "lightning_logs", None):
                    logger.init_args[argument] = value
            online = import_class(logger.class_path) is SteadyWandbLogger and not logger.init_args.offline
            if online and logger.init_args.id is None and getattr(rank_zero_only, "rank", 0) == 0:
                wandb_loggers.append(logger)
        inside = folder.resolve() in Path(options.get("ckpt_path") or "/").resolve().parents
        goes_on = self._goes_on or runs_again() or (command == "fit" and inside)
        file = "config.yaml"
        if getattr(rank_zero_only, "rank", 0) == 0:
            self.claimed = RunFolder(folder)
            file = self.claimed.configuration_name(goes_on or getattr(model_class, "goes_on_in_its_folder", False))
            for logger in wandb_loggers:  # of a resumed run, so that it goes on in W&B too
                logger.init_args.id = self.claimed.wandb_id(goes_on)
            if self._goes_on and options.ckpt_path is None:
                _log.info("%s holds no checkpoint yet: training begins at its first step", folder)
        self.save_config_kwargs = {"config_filename": file, "given": given, "overwrite": True}

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        """Add to the user's loggers and callbacks those that every run has."""
        options = self.config_init[self.config_init.subcommand].trainer
        given = options.logger if isinstance(options.logger, list) else [options.logger]
        kwargs["logger"] = [MetricsFile(options.default_root_dir), *(x for x in given if isinstance(x, Logger))]
        callbacks = options.callbacks if isinstance(options.callbacks, list) else [options.callbacks]
        callbacks = [callback for callback in callbacks if callback is not None]
        if options.enable_progress_bar is not False and not any(isinstance(c, BaseProgressBar) for c in callbacks):
            callbacks.append(ProgressBar())
        kwargs["callbacks"] = [*callbacks, Curves(), SampleWriter(), RunSummary()]
        return super().instantiate_trainer(**kwargs)

    def after_instantiate_classes(self) -> None:
        """Leave the data out where the model brings its own: samples are drawn from latents."""
        command = self.config.subcommand
        loader = {"fit": "train", "validate": "val"}.get(command, command)
        if is_overridden(f"{loader}_dataloader", self.model):
            self.datamodule = None
        elif self.datamodule is None:
            raise InputError(
                "there are no data: add --config configs/quickstart.yaml, or --data CelebA --data.root PATH"
            )
        if command == "predict":
            self.model.num_samples = self.options.num_samples

    @rank_zero_only
    def say_where_results_are(self) -> None:
        """Print the run folder, what lies in it, and how far the monitored metric came."""
        folder = Path(self.trainer.default_root_dir)
        contents = sorted(path.name + "/" * path.is_dir() for path in folder.iterdir() if path.name[0] != ".")
        print(f"\nThe results are in {folder}: {', '.join(contents)}")
        metrics = json.loads((folder / "summary.json").read_text())["metrics"] if "summary.json" in contents else {}
        if self.config.subcommand == "fit" and (reached := metrics.get(self.options.checkpoint.monitor)):
            steps = ", ".join(f"{reached[which]:.4g} {which}" for which in ("first", "best", "last"))
            print(f"{self.options.checkpoint.monitor}: {steps}")


def import_class(path: str) -> Any:
    """Import a class by its full name."""
    module, _, name = path.rpartition(".")
    return getattr(import_module(module), name)


def loggers_of(trainer: Namespace) -> list[Namespace]:
    """Give the loggers of a configuration, which holds none, one, a list of them, or a boolean."""
    given = trainer.logger if isinstance(trainer.logger, list) else [trainer.logger]
    return [logger for logger in given if isinstance(logger, Namespace) and "init_args" in logger]


def check_checkpoint(path: str, model_class: type[LightningModule]) -> None:
    """See that a file is a whole checkpoint of this class of model.

    Raises:
        InputError: It is not; of a damaged last.ckpt it says which to use instead.
    """
    try:
        check_whole(path)
        content = load_tensors(path)
    except InputError as error:
        former = Path(path).with_name(PREVIOUS)
        if Path(path).name != LAST or not former.is_file():
            raise
        check_checkpoint(str(former), model_class)
        raise InputError(f"{error}; the one before it is whole: --ckpt_path {former}") from error
    whole = isinstance(content, dict) and {"state_dict", "hyper_parameters"} <= content.keys()
    known = set(inspect.signature(model_class).parameters) | {"_instantiator", "_class_path"}
    if not whole or not content["hyper_parameters"].keys() <= known:
        raise InputError(f"{path} is no checkpoint of {model_class.__name__}: give one from runs/NAME/checkpoints")


def check_sizes(options: Namespace) -> None:
    """See that model and data agree on images, where both say, before any image is read.

    Raises:
        InputError: They do not.
    """
    if options.data is None:
        return
    for name in ("channels", "image_size"):
        ours, theirs = (part.get(f"init_args.{name}") for part in (options.model, options.data))
        if ours is not None and theirs is not None and ours != theirs:
            raise InputError(f"the data's {name} is {theirs}, the model's {ours}: set data.{name} or model.{name}")


def quieten() -> None:
    """Keep what people should read from drowning in what they can do nothing about."""
    show_messages()
    for name in ("lightning.pytorch.utilities.rank_zero", "lightning.fabric.utilities.rank_zero"):
        logging.getLogger(name).addFilter(lambda record: "litlogger" not in record.getMessage())
    for message in (
        ".*LeafSpec.*",  # Lightning's use of a torch function
        ".*module\\(s\\) in eval mode.*",  # the averaged generator, on purpose
        ".*does not have many workers.*",  # packed images need none
        ".*pre-optimization state.*",  # a checkpoint after the step is what we want
        ".*dataloader is not resumable.*",  # ours is: its order is a function of seed and epoch
        ".*Checkpoint directory .* exists and is not empty.*",  # a resumed run
    ):
        warnings.filterwarnings("ignore", message)


@requeued_when_warned()
def run(arguments: Sequence[str] | None = None) -> None:
    """Run a command line, such as `["fit", "--config", "configs/quickstart.yaml"]`; that of the process by default.

    Raises:
        InputError: What was asked for cannot be done; the message says what to do.
    """
    quieten()
    cli = GanCLI(
        LightningModule,
        args=None if arguments is None else list(arguments),
        save_config_callback=RunConfig,
        trainer_defaults={"num_sanity_val_steps": 0},
        seed_everything_default=0,
        subclass_mode_model=True,
        subclass_mode_data=True,
        auto_configure_optimizers=False,
        parser_class=OptionsParser,
        parser_kwargs={"default_env": True}
        | {
            name: {"default_env": True, "usage": f"gan-lightning {name} [--config FILE] [options]"} for name in COMMANDS
        },
    )
    cli.say_where_results_are()
    for logger in cli.trainer.loggers:
        if isinstance(logger, SteadyWandbLogger):
            logger.finish()
