"""One LightningCLI for every command that is a Trainer loop."""

from __future__ import annotations

import json
import logging
import re
import sys
from collections.abc import Mapping, Sequence
from pkgutil import resolve_name
from typing import Any

import lightning
import yaml
from jsonargparse import Namespace
from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint, ModelSummary
from lightning.pytorch.callbacks.progress.progress_bar import ProgressBar as BaseProgressBar
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI, SaveConfigCallback
from lightning.pytorch.loggers import Logger, WandbLogger
from lightning.pytorch.utilities import rank_zero_only
from lightning.pytorch.utilities.model_helpers import is_overridden

from gan_lightning.callbacks.curves import Curves
from gan_lightning.callbacks.evaluation import GenerationMetrics
from gan_lightning.callbacks.network_table import NetworkTable
from gan_lightning.callbacks.progress import ProgressBar
from gan_lightning.callbacks.samples import SampleGrid, SampleWriter
from gan_lightning.callbacks.summary import RunSummary
from gan_lightning.cli_internals import integers_stay_integers
from gan_lightning.errors import InputError
from gan_lightning.loggers import MetricsFile, SteadyWandbLogger
from gan_lightning.messages import hide_needless_warnings
from gan_lightning.metrics.extractors import check_inception_weights, inception_weights_path
from gan_lightning.modules.checks import check_sizes
from gan_lightning.modules.safe_loading import NETWORK_OPTIONS
from gan_lightning.option_checks import check_nulls, choose_no_best_checkpoint, take_wandb_variables
from gan_lightning.options import ConfigFile, OptionsParser, with_last_config
from gan_lightning.resume.jobs import requeued_when_warned
from gan_lightning.resume.last_checkpoint import LastCheckpoint
from gan_lightning.run import Run, check_checkpoint

_log = logging.getLogger(__name__)


class RunConfig(SaveConfigCallback):
    """Write the configuration to the run folder and to every logger.

    It is what the user gave, not the paths made of it: run again under another name, it must not write into the folder
    of the first run.
    """

    def __init__(self, parser: LightningArgumentParser, config: Namespace, *, given: Namespace, **kwargs: Any) -> None:
        super().__init__(parser, given, **kwargs)

    def save_config(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Log the configuration, by which runs are told apart."""
        config = self.parser.dump(self.config, skip_none=False, format="yaml")
        for logger in trainer.loggers:
            logger.log_hyperparams(yaml.safe_load(config))


class GanCLI(LightningCLI):
    """The commands fit, validate, test and predict, each in the folder of a run."""

    run: Run | None = None

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        try:
            super().__init__(*args, **kwargs)  # runs the command
        finally:
            if self.run is not None:
                self.run.release()

    def init_parser(self, **kwargs: Any) -> LightningArgumentParser:
        """Return a parser with `--config`, which finds the shipped configurations by name."""
        parser = self.parser_class(dump_header=[f"lightning=={lightning.__version__}"], **kwargs)
        parser.add_argument("-c", "--config", action=ConfigFile, help="Path or name of a configuration in YAML.")
        return parser

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Add the name of the run, and the callbacks that are always there, each under a key of its own."""
        name_help = "Name of the run, in runs/NAME. Default: the command, and the time or the job's number."
        parser.add_argument("--name", type=str | None, default=None, help=name_help)
        parser.add_lightning_class_args(GenerationMetrics, "evaluation")
        parser.add_lightning_class_args(SampleGrid, "sample_grid")
        parser.add_lightning_class_args(ModelCheckpoint, "checkpoint")
        parser.add_lightning_class_args(LastCheckpoint, "last_checkpoint")
        parser.set_defaults({"checkpoint.filename": "best", "checkpoint.enable_version_counter": False})
        integers_stay_integers(parser)

    @property
    def options(self) -> Namespace:
        """Configuration of the command."""
        options: Namespace = self.config[self.config.subcommand]
        return options

    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:
        """Parse the command line, and find the run and the checkpoint that it starts from.

        The model's hyperparameters are those of the checkpoint, in place of the configurations'; options on the command
        line win. Lightning would let the checkpoint win over these too, so it is not shown the path until later.
        """
        super().parse_arguments(parser, args)
        options, command = self.options, self.config.subcommand
        if options.model is None:
            raise InputError("there is no model: add --config quickstart, or --model DCGAN and --data CelebA")
        self.run = Run(command, options.name, options.trainer.default_root_dir)
        self._ckpt_path = path = self.run.resolve_checkpoint(options.get("ckpt_path"))
        if path is not None and "://" not in str(path):
            words, model = sys.argv[1:] if args is None else args, options.model.class_path
            saved = check_checkpoint(path, resolve_name(model))
            given = {found[1] for word in words if (found := re.match(r"--model\.(?:init_args\.)?(\w+)", word))}
            init_args = {name: value for name, value in saved.items() if name not in given}
            config = json.dumps({"model": {"class_path": model, "init_args": init_args}}, default=str)
            self.config = parser.parse_args(with_last_config(words, command, config))
            check_networks(path, saved, self.options.model.init_args)
        self.options.ckpt_path = None

    def before_instantiate_classes(self) -> None:
        """Check what can be checked before anything is built, and claim the run folder."""
        options, run = self.options, self.run
        assert run is not None
        options.ckpt_path = self._ckpt_path
        given, model_class = options.clone(), resolve_name(options.model.class_path)
        options.trainer.default_root_dir = str(run.folder)
        complete_checkpoint(options.checkpoint, run, model_class, options.evaluation)
        choose_no_best_checkpoint(options)
        check_nulls(options)
        take_wandb_variables(options)
        check_sizes(options.model.init_args, options.get("data.init_args"))
        weights_needed = options.evaluation.extractor == "inception" and not options.evaluation.download
        if weights_needed and hasattr(model_class, "sample") and run.command != "predict":
            check_inception_weights(inception_weights_path(options.evaluation.inception_weights))
        if is_first := getattr(rank_zero_only, "rank", 0) == 0:
            run.claim(may_resume=getattr(model_class, "goes_on_in_its_folder", False))
            if run.resumes and run.command == "fit" and options.ckpt_path is None:
                _log.info("%s holds no checkpoint yet: training begins at its first step", run.folder)
        complete_loggers(options.trainer, run, is_first)
        self.save_config_kwargs = {"config_filename": run.config_name, "given": given, "overwrite": True}

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        """Add metrics.csv to the user's loggers, and progress bar and summary to the callbacks."""
        options = self.config_init[self.config_init.subcommand].trainer
        kwargs["logger"] = [
            MetricsFile(options.default_root_dir),
            *(x for x in as_list(options.logger) if isinstance(x, Logger)),
        ]
        callbacks = as_list(options.callbacks)
        if options.enable_progress_bar is not False and not any(isinstance(c, BaseProgressBar) for c in callbacks):
            callbacks.append(ProgressBar())
        if options.enable_model_summary is not False and not any(isinstance(c, ModelSummary) for c in callbacks):
            callbacks.append(NetworkTable())
        return super().instantiate_trainer(callbacks=callbacks, **kwargs)

    def after_instantiate_classes(self) -> None:
        """Leave the data out where the model brings its own: samples are drawn from latents."""
        command = self.config.subcommand
        loader = {"fit": "train", "validate": "val"}.get(command, command)
        if is_overridden(f"{loader}_dataloader", self.model):
            self.datamodule = None
        elif self.datamodule is None:
            raise InputError("there are no data: add --config quickstart, or --data CelebA --data.root PATH")
        if command == "predict":
            self.model.num_samples = self.options.num_samples


def as_list(given: Any) -> list[Any]:
    """Return the items of an option that holds none, one or a list of them."""
    return [item for item in (given if isinstance(given, list) else [given]) if item is not None]


def complete_checkpoint(checkpoint: Namespace, run: Run, model_class: Any, evaluation: Namespace) -> None:
    """Set where checkpoints go, and the metric by which the best one is chosen, unless the user has."""
    if checkpoint.dirpath is None:
        checkpoint.dirpath = str(run.checkpoints)
    if checkpoint.monitor is None:
        measured = GenerationMetrics.monitored(evaluation.metrics, evaluation.extractor)
        checkpoint.monitor, checkpoint.mode = getattr(model_class, "monitor", measured)
    if checkpoint.save_top_k not in (0, 1) and checkpoint.filename == "best":
        checkpoint.filename = "best-{step}"  # one name for several would be the latest one's


def complete_loggers(trainer: Namespace, run: Run, is_first: bool) -> None:
    """Let loggers write to the run folder, and W&B recognize a resumed run; the first rank alone has its id."""
    for logger in as_list(trainer.logger):
        if not isinstance(logger, Namespace) or "init_args" not in logger:
            continue
        if resolve_name(logger.class_path) is WandbLogger:
            logger.class_path = f"{SteadyWandbLogger.__module__}.{SteadyWandbLogger.__qualname__}"
        for argument, value in (("save_dir", str(run.folder.resolve())), ("name", run.folder.name)):
            if argument in logger.init_args and logger.init_args[argument] in (".", "lightning_logs", None):
                logger.init_args[argument] = value
        online = resolve_name(logger.class_path) is SteadyWandbLogger and not logger.init_args.offline
        if is_first and online and logger.init_args.id is None:
            logger.init_args.id = run.wandb_id()


def check_networks(path: str, saved: Mapping[str, Any], options: Namespace) -> None:
    """Check that the networks are those of a checkpoint.

    Raises:
        InputError: If an option that they are built with differs.
    """
    for name in NETWORK_OPTIONS:
        if name in saved and options.get(name, saved[name]) != saved[name]:
            raise InputError(
                f"model.{name} is {options[name]}, but {path} was trained with {saved[name]}: the networks of a "
                "checkpoint cannot be changed"
            )


@requeued_when_warned()
def run(arguments: Sequence[str] | None = None) -> None:
    """Run a command line, such as `["fit", "--config", "quickstart"]`; that of the process by default.

    Raises:
        InputError: If what was asked for cannot be done; the message says what to do.
    """
    hide_needless_warnings()
    cli = GanCLI(
        LightningModule,
        args=None if arguments is None else list(arguments),
        save_config_callback=RunConfig,
        trainer_defaults={"num_sanity_val_steps": 0, "callbacks": [Curves(), SampleWriter(), RunSummary()]},
        seed_everything_default=0,
        subclass_mode_model=True,
        subclass_mode_data=True,
        auto_configure_optimizers=False,
        parser_class=OptionsParser,
        parser_kwargs={"default_env": True} | {name: {"default_env": True} for name in LightningCLI.subcommands()},
    )
    if cli.trainer.is_global_zero and cli.run is not None:
        print(cli.run.report(cli.options.checkpoint.monitor))
    for logger in cli.trainer.loggers:
        if isinstance(logger, SteadyWandbLogger):
            logger.finish()
