"""``fit``, ``validate``, ``test`` and ``predict``: Lightning's command line with our defaults."""

from __future__ import annotations

import argparse
import errno
import json
import logging
import os
import shutil
import sys
import warnings
from pathlib import Path
from typing import Any, cast

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("JSONARGPARSE_DEPRECATION_WARNINGS", "off")  # of calls that Lightning makes

import lightning as L
import yaml
from jsonargparse import Namespace
from lightning.fabric.plugins import CheckpointIO
from lightning.pytorch.callbacks import LearningRateMonitor, ModelCheckpoint, RichModelSummary, RichProgressBar
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI, SaveConfigCallback
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger
from lightning.pytorch.utilities.exceptions import MisconfigurationException

from multimodal.config_errors import ConfigError, refuse_repeated_keys, shorten
from multimodal.training.callbacks import ElasticResume, FiniteGuard, PredictionWriter, SaveOnSignal, StepSeed
from multimodal.training.checkpoint_contents import check_fits, check_teachers
from multimodal.training.checkpoint_files import CheckpointFiles, find_last, read_checkpoint
from multimodal.training.sharded_checkpoint import read_sharded

SUBCOMMANDS = ("fit", "validate", "test", "predict")
MAX_EPOCHS = 50
NOISE = ("litlogger", "litmodels", "Tip:", "Skipping setting a default `ModelSummary`", "to estimate number of stepping batches")


class ProgressBar(RichProgressBar):
    """Rich progress bar of the current epoch; where the output is no terminal, one line after each validation instead."""

    def get_metrics(self, trainer: L.Trainer, pl_module: L.LightningModule) -> dict[str, Any]:
        """Return what stands right of the bar, by short names; the logger's version says nothing here."""
        metrics = super().get_metrics(trainer, pl_module)
        return {name.removeprefix("train/").removeprefix("val/"): _worded(value) for name, value in metrics.items() if name != "v_num"}

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Print the line."""
        super().on_validation_end(trainer, pl_module)
        if not trainer.sanity_checking and trainer.is_global_zero and not sys.stdout.isatty():
            scores = {name: value for name, value in trainer.callback_metrics.items() if name in trainer.progress_bar_metrics}
            shown = ", ".join(f"{name} {_worded(float(value))}" for name, value in scores.items())
            print(f"epoch {trainer.current_epoch + 1}/{trainer.max_epochs}, step {trainer.global_step}: {shown}", flush=True)


def _worded(value: Any) -> str:
    """Return a score as it is shown: whole numbers (of a layer, of samples) are whole."""
    return str(value) if not isinstance(value, float) else f"{value:.0f}" if value.is_integer() else f"{value:.3f}"


class SaveRunConfig(SaveConfigCallback):
    """Write the whole config to ``RUN/config.yaml`` before the first step."""

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Write it, when fitting."""
        if stage != "fit" or not trainer.is_global_zero:
            return
        folder = Path(trainer.default_root_dir)
        folder.mkdir(parents=True, exist_ok=True)
        self.parser.save(self.config, folder / "config.yaml", skip_unset=False, overwrite=True, multifile=False)


class Command(LightningCLI):
    """LightningCLI for models and data named by ``class_path``.

    ``--run DIR`` is the folder of the run: config, checkpoints, logs, pictures. The data module gets the transforms of the model's
    modalities, so that both always agree, and the seed.
    """

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Add ``--run`` and the links."""
        parser.add_argument("--run", type=str, default="runs/latest", help="Folder of the run: config, checkpoints, logs, pictures.")
        parser.link_arguments("run", "trainer.default_root_dir")
        parser.link_arguments("model.transforms", "data.init_args.transforms", apply_on="instantiate")
        parser.link_arguments("model.token_counter", "data.init_args.count_tokens", apply_on="instantiate")
        parser.link_arguments("model.fingerprints", "data.init_args.tokenizers", apply_on="instantiate")
        parser.link_arguments("seed_everything", "data.init_args.seed")

    def before_instantiate_classes(self) -> None:
        """Refuse to mix two runs in one folder.

        Raises:
            ValueError: the folder holds a run, and this one does not continue it.
        """
        config = self._settings()
        held = Path(config.run) / "checkpoints"
        if self.subcommand == "fit" and not config.ckpt_path and held.is_dir() and any(held.iterdir()):
            raise ValueError(f"{config.run} already holds a run: choose another folder with --run, or continue it with --ckpt_path last.")

    def instantiate_classes(self) -> None:
        """Build data, model and trainer.

        Raises:
            ConfigError: one of their parts refuses its settings, such as a folder that is not there.
        """
        try:
            super().instantiate_classes()
        except (ValueError, MisconfigurationException) as error:
            raise ConfigError(str(error)) from error

    def _parse_ckpt_path(self) -> None:
        """Refuse a checkpoint that cannot be read before anything is built.

        Lightning's method of this name takes settings of the model from the checkpoint: here the config alone decides.
        """
        self._checkpoint: tuple[Path, dict[str, Any]] | None = None
        if not self.config.get("subcommand"):
            return
        config = self.config[self.config.subcommand]
        path = _checkpoint_path(config.get("ckpt_path"), Path(config.run) / "checkpoints")
        if path is not None:  # a folder is that of a sharded strategy
            self._checkpoint = path, read_sharded(path, tensors=False) if path.is_dir() else read_checkpoint(path, mapped=True)

    def _refuse_other_checkpoint(self) -> None:
        """Refuse a checkpoint that does not fit the model before any data is read; use the one that was found."""
        if self._checkpoint is not None:
            path, checkpoint = self._checkpoint
            check_fits(checkpoint, self.model, getattr(self.model, "fingerprints", {}), str(path))
            check_teachers(checkpoint, self.model, str(path))
            self.config_init[self.subcommand]["ckpt_path"] = str(path)
            self._checkpoint = None  # gives the mapped file back

    before_fit = before_validate = before_test = before_predict = _refuse_other_checkpoint

    def _run_subcommand(self, subcommand: str) -> None:
        """Run it; say which disk is full, where the system does not."""
        try:
            super()._run_subcommand(subcommand)
        except OSError as error:
            if error.errno != errno.ENOSPC or error.filename:
                raise
            folder = self._settings().run
            raise OSError(f"the disk of {folder} is full ({shutil.disk_usage(folder).free:,} bytes free): {error.strerror}.") from error

    def _settings(self) -> Namespace:
        return self.config[self.subcommand] if self.subcommand else self.config

    def after_validate(self) -> None:
        """Write the scores."""
        self._write_scores("val")

    def after_test(self) -> None:
        """Write the scores."""
        self._write_scores("test")

    def _write_scores(self, stage: str) -> None:
        """Write ``RUN/<stage>.json``: score name -> value."""
        if self.trainer.is_global_zero:
            scores = {name: float(value) for name, value in sorted(self.trainer.callback_metrics.items()) if name.startswith(f"{stage}/")}
            path = Path(self.trainer.default_root_dir) / f"{stage}.json"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps(scores, indent=2) + "\n")

    def instantiate_trainer(self, **kwargs: Any) -> L.Trainer:
        """Add the callbacks, loggers and plugins that the config does not name itself."""
        config = self._settings()
        given = config.trainer.callbacks or []
        given = given if isinstance(given, list) else [given]
        named = {callback.class_path.rsplit(".", 1)[-1] for callback in given}
        ours = [callback for callback in _default_callbacks(config.run) if type(callback).__name__ not in named]
        if config.trainer.enable_progress_bar is False or "RichProgressBar" in named:
            ours = [callback for callback in ours if not isinstance(callback, RichProgressBar)]
        self.trainer_defaults["callbacks"] = ours
        if config.trainer.logger is None and self.subcommand == "fit":
            kwargs["logger"] = [TensorBoardLogger(config.run, name="logs", version=""), CSVLogger(config.run, name="metrics")]
        if self.subcommand != "fit":
            kwargs["logger"] = False
        plugins = self._get(self.config_init, "trainer")["plugins"] or []
        plugins = plugins if isinstance(plugins, list) else [plugins]
        if not any(isinstance(plugin, CheckpointIO) for plugin in plugins):
            kwargs["plugins"] = [*plugins, CheckpointFiles()]
        trainer = super().instantiate_trainer(**kwargs)
        cast(Any, trainer).callbacks.sort(key=lambda callback: isinstance(callback, SaveOnSignal))  # it saves what all others have done
        return trainer


def _default_callbacks(run: str) -> list[L.Callback]:
    return [
        ProgressBar(refresh_rate=1 if sys.stdout.isatty() else 0),
        RichModelSummary(max_depth=2),
        LearningRateMonitor("step"),
        PredictionWriter(),
        StepSeed(),
        ElasticResume(),
        FiniteGuard(),
        SaveOnSignal(),
        ModelCheckpoint(
            Path(run) / "checkpoints",
            filename="epoch-{epoch:04d}",
            save_last=True,
            auto_insert_metric_name=False,
            enable_version_counter=False,  # a later checkpoint of one name replaces the earlier
        ),
    ]


def _checkpoint_path(option: str | None, folder: Path) -> Path | None:
    """Return the checkpoint that ``--ckpt_path`` means; None: none, or one that Lightning has to find.

    ``last`` in a run without checkpoints is none: the run begins.
    """
    if option == "last":
        path, problems = find_last(folder)
        if path is not None and problems:
            warnings.warn(f"{' '.join(problems)} Going on from {path} instead.", stacklevel=2)
        return path
    if not option or option in ("best", "hpc") or ":" in option:
        return None
    return Path(option)


def _silence() -> None:
    """Drop third-party adverts, and deprecations that a user can do nothing about."""
    for name in ("lightning.pytorch.utilities.rank_zero", "lightning.fabric.utilities.rank_zero", "lightning.pytorch"):
        logging.getLogger(name).addFilter(lambda record: not any(word in record.getMessage() for word in NOISE))
    warnings.filterwarnings("ignore", message=".*LeafSpec.*")
    warnings.filterwarnings("ignore", message=".*does not have many workers.*")
    warnings.filterwarnings("ignore", message=".*`IterableDataset` has `__len__` defined.*")
    warnings.filterwarnings("ignore", message=".*module.s. in eval mode at the start of training.*")  # frozen tokenizers
    warnings.filterwarnings("ignore", message=".*args parameter is intended to run from within Python.*")
    warnings.filterwarnings("ignore", message=".*exists and is not empty.*")
    warnings.filterwarnings("ignore", message=".*using the WeightAveraging callback with a model that overrides.*")  # refused with shards
    hooks = "on_(before|after)_batch_transfer"  # labels are looked at, items prepared: a model's affair, whatever the data module
    warnings.filterwarnings("ignore", message=f".*overridden `{hooks}` in `LightningModule`.*")
    warnings.filterwarnings("ignore", category=FutureWarning, module="jsonargparse.*")


def run(arguments: list[str]) -> int:
    """Run ``fit``, ``validate``, ``test`` or ``predict``."""
    _silence()
    refuse_repeated_keys()
    try:
        _command(arguments)
    except argparse.ArgumentError as error:
        print(f"error: {shorten(str(error))}\nSee `multimodal {arguments[0]} --help`.", file=sys.stderr)
        return 2
    except MisconfigurationException as error:
        raise ValueError(str(error)) from error
    return 0


def load_run(folder: str | Path) -> tuple[L.LightningModule, L.LightningDataModule]:
    """Return the model of a run, with the weights of its last checkpoint, in evaluation mode, and its data module.

    Args:
        folder: of the run, as given to ``fit --run``.

    Raises:
        ValueError: the folder holds no run, its config cannot be built, or its checkpoint cannot be read or does not fit its config.
    """
    config, checkpoint = Path(folder) / "config.yaml", Path(folder) / "checkpoints" / "last.ckpt"
    for path in (config, checkpoint):
        if not path.exists():
            raise ValueError(f"no run in {folder}: {path.relative_to(folder)} not found.")
    _silence()
    settings = yaml.safe_load(config.read_text())
    for option in ("ckpt_path", "weights_only"):  # of `fit` alone
        settings.pop(option, None)
    logging.disable(logging.INFO)  # what a trainer says at its start
    try:
        command = _command(settings, run=False)
    except argparse.ArgumentError as error:
        raise ValueError(f"{config} cannot be built: {shorten(str(error))}") from None  # its cause repeats the whole config
    finally:
        logging.disable(logging.NOTSET)
    saved = read_sharded(checkpoint) if checkpoint.is_dir() else read_checkpoint(checkpoint)
    check_fits(saved, command.model, getattr(command.model, "fingerprints", {}), str(checkpoint))
    command.model.load_state_dict(saved["state_dict"])
    return command.model.eval(), command.datamodule


def _command(arguments: list[str] | dict[str, Any], run: bool = True) -> Command:
    strict = {"exit_on_error": False, "allow_abbrev": False}  # a typo must not set another option
    return Command(
        L.LightningModule,
        L.LightningDataModule,
        subclass_mode_model=True,
        subclass_mode_data=True,
        auto_configure_optimizers=False,
        seed_everything_default=0,
        trainer_defaults={"max_epochs": MAX_EPOCHS, "log_every_n_steps": 20},
        save_config_callback=SaveRunConfig,
        parser_kwargs={**strict, **dict.fromkeys(SUBCOMMANDS, strict)} if run else strict,
        run=run,
        args=arguments,
    )
