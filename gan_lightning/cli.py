"""One LightningCLI for every command that is a Trainer loop."""

from __future__ import annotations

import logging
import sys
from collections.abc import Sequence
from typing import Any

import lightning
from jsonargparse import Namespace
from lightning import LightningModule, Trainer
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI
from lightning.pytorch.loggers import Logger
from lightning.pytorch.utilities.model_helpers import is_overridden

from gan_lightning.callbacks.defaults import BEST_CHECKPOINT, CONFIGURABLE, displays, reports
from gan_lightning.errors import InputError
from gan_lightning.loggers import MetricsFile
from gan_lightning.loggers.problems import problems_of_loggers
from gan_lightning.loggers.wandb import finish_runs
from gan_lightning.messages import hide_needless_warnings
from gan_lightning.options.checks import check_options
from gan_lightning.options.jsonargparse_internals import integers_stay_integers
from gan_lightning.options.of_checkpoint import check_networks, config_of_checkpoint
from gan_lightning.options.of_run import as_list, class_of_model, complete_checkpoint, complete_loggers
from gan_lightning.options.parser import ConfigFile, OptionsParser, commands_to_parse, with_last_config
from gan_lightning.options.saved import RunConfig
from gan_lightning.resume.jobs import requeued_when_warned
from gan_lightning.resume.launcher import check_launch, is_first_process
from gan_lightning.resume.rank_watch import RankWatch
from gan_lightning.run import Run, check_checkpoint

_log = logging.getLogger(__name__)


class GanCLI(LightningCLI):
    """The commands fit, validate, test and predict, each in the folder of a run."""

    run: Run | None = None

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self.words = sys.argv[1:] if kwargs.get("args") is None else kwargs["args"]
        self.watch = RankWatch(ends_process=True)
        try:
            with self.watch.ending(lambda error: finish_runs(getattr(self, "trainer", None), error)):
                super().__init__(*args, **kwargs)  # runs the command
        finally:
            if self.run is not None:
                self.run.release()

    def subcommands(self) -> dict[str, set[str]]:  # type: ignore[override]
        """Return the commands that need a parser: the typed one."""
        return commands_to_parse(self.words)

    def init_parser(self, **kwargs: Any) -> LightningArgumentParser:
        """Return a parser with `--config`, which finds the shipped configurations by name."""
        parser = self.parser_class(dump_header=[f"lightning=={lightning.__version__}"], default_env=True, **kwargs)
        parser.add_argument("-c", "--config", action=ConfigFile, help="Path or name of a configuration in YAML.")
        return parser

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Add the name of the run, and the callbacks that are always there, each under a key of its own."""
        name_help = "Name of the run, in runs/NAME. Default: the command, and the time or the job's number."
        parser.add_argument("--name", type=str | None, default=None, help=name_help)
        for key, callback in CONFIGURABLE.items():
            parser.add_lightning_class_args(callback, key)
        parser.set_defaults({f"checkpoint.{name}": value for name, value in BEST_CHECKPOINT.items()})
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
        trainer, model_class = options.trainer, class_of_model(options)
        self.run = Run(command, options.name, trainer.default_root_dir, trial=trainer.fast_dev_run)
        has_networks = getattr(model_class, "goes_on_in_its_folder", False)  # a restoration's come with an option
        self._ckpt_path = path = self.run.resolve_checkpoint(options.get("ckpt_path"), not has_networks)
        if path is not None and "://" not in str(path):
            saved = check_checkpoint(path, model_class)
            config = config_of_checkpoint(saved, options.model.class_path, self.words)
            self.config = parser.parse_args(with_last_config(self.words, command, config))
            check_networks(path, saved, self.options.model.init_args)
        self.options.ckpt_path = None

    def before_instantiate_classes(self) -> None:
        """Check what can be checked before anything is built, and claim the run folder."""
        options, run = self.options, self.run
        assert run is not None
        options.ckpt_path = self._ckpt_path
        given, model_class = options.clone(), class_of_model(options)
        options.trainer.default_root_dir = str(run.folder)
        complete_checkpoint(options.checkpoint, run, model_class, options.evaluation)
        check_options(options, run.command)
        if is_first := is_first_process():
            run.claim(may_resume=getattr(model_class, "goes_on_in_its_folder", False))
            if run.resumes and run.command == "fit" and options.ckpt_path is None:
                _log.info("%s holds no checkpoint yet: training begins at its first step", run.folder)
        complete_loggers(options.trainer, run, is_first and not run.is_trial)
        self.save_config_kwargs = {"config_filename": run.config_name, "given": given, "overwrite": True}

    def instantiate_classes(self) -> None:
        """Create the model, the data, the callbacks, the loggers and the trainer."""
        with problems_of_loggers():
            super().instantiate_classes()

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        """Add metrics.csv after the user's loggers, unless there are to be none, and progress bar and summary."""
        options = self.config_init[self.config_init.subcommand].trainer
        given = [logger for logger in as_list(options.logger) if isinstance(logger, Logger)]
        kwargs["logger"] = [] if options.logger is False else [*given, MetricsFile(options.default_root_dir)]
        callbacks = [self.watch, *as_list(options.callbacks)]
        bar, table = options.enable_progress_bar is not False, options.enable_model_summary is not False
        callbacks += displays(callbacks, progress_bar=bar, model_summary=table)
        return super().instantiate_trainer(callbacks=callbacks, **kwargs)

    def after_instantiate_classes(self) -> None:
        """Leave out the data if the model has its own loader, for example of latents for samples."""
        check_launch(self.trainer)
        self.watch.start(self.trainer)
        command = self.config.subcommand
        loader = {"fit": "train", "validate": "val"}.get(command, command)
        if is_overridden(f"{loader}_dataloader", self.model):
            self.model.training_data, self.datamodule = self.datamodule, None
        elif self.datamodule is None:
            raise InputError("there are no data: add --config quickstart, or --data CelebA --data.root PATH")
        if command == "predict":
            self.model.num_samples, self.model.sample_labels = self.options.num_samples, self.options.labels


@requeued_when_warned()
def run(arguments: Sequence[str] | None = None) -> None:
    """Run a command line, such as `["fit", "--config", "quickstart"]`, by default that of the process.

    Raises:
        InputError: If the command cannot be run; the message says what to do.
    """
    hide_needless_warnings()
    cli = GanCLI(
        LightningModule,
        args=None if arguments is None else list(arguments),
        save_config_callback=RunConfig,
        trainer_defaults={"num_sanity_val_steps": 0, "callbacks": reports()},
        seed_everything_default=0,
        subclass_mode_model=True,
        subclass_mode_data=True,
        auto_configure_optimizers=False,
        parser_class=OptionsParser,
    )
    if cli.trainer.is_global_zero and cli.run is not None:
        print(cli.run.report(cli.options.checkpoint.monitor))
    finish_runs(cli.trainer)
