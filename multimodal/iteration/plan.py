"""What rounds of self-distillation are made of: the recipes of a config, and where each round puts what it makes."""

from __future__ import annotations

import copy
import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from multimodal.config_files import read_config, settings_of_class

LOAD_TOKENIZER = "multimodal.tokenizers.pretrained.load_tokenizer"
TEACHERS = ("EncoderTeacher",)
LOADERS = ("load_encoder", "load_embed")
CLASSES = "classes"
"""The head of a classifier that was exported, see ``multimodal.pretrained.from_training``."""
KEYS = ("modality", "pretrain", "tokenizer", "finetune", "supervised_from", "supervised_lr", "crops", "keep_ids", "run")
KINDS = (
    ("modality", str),
    ("run", str),
    ("crops", int),
    ("supervised_from", int),
    ("supervised_lr", float),
    ("keep_ids", bool),
)
"""Key of a config -> the kind of its value."""


@dataclass(frozen=True)
class IterationPlan:
    """The recipes of all rounds (BEATs, https://arxiv.org/abs/2212.09058).

    Round 1 pretrains with the tokenizer that the recipe of the pretraining names. Each later round trains a tokenizer whose teacher is the
    model of the round before, and pretrains a new encoder with that.

    Args:
        modality: name of the modality, as in the recipe of the pretraining.
        pretrain: recipe of the pretraining.
        tokenizer: recipe of a tokenizer that learns from an ``EncoderTeacher``.
        finetune: recipe that fine-tunes an encoder (``load_encoder``, ``load_embed``) to tell classes; needed for ``supervised_from``.
        supervised_from: from this round on, at least 2, the teacher is the model of the round before after it was fine-tuned, and its
            logits are what the codes are to keep (BEATs' "iter3+"); None: never.
        supervised_lr: learning rate of the tokenizers of those rounds; None: that of their recipe. BEATs: 5e-4, ten times the other.
        crops: views of a training sample whose ids are stored in each round; 0: none are, the tokenizer runs while the encoder trains.
        keep_ids: keep the shards with ids when their round is over; they are as large as the data, and can be made again.

    Raises:
        ValueError: a setting outside its range, or a recipe without the part that is to be set.
    """

    modality: str
    pretrain: dict[str, Any]
    tokenizer: dict[str, Any]
    finetune: dict[str, Any] | None = None
    supervised_from: int | None = None
    supervised_lr: float | None = None
    crops: int = 0
    keep_ids: bool = False

    def __post_init__(self) -> None:
        if self.crops < 0:
            raise ValueError(f"crops must be at least 0, got {self.crops}.")
        if self.supervised_from is not None and self.supervised_from < 2:
            raise ValueError(f"supervised_from must be a round from 2 on, the first with a teacher; got {self.supervised_from!r}.")
        if (self.finetune is None) != (self.supervised_from is None):
            raise ValueError("finetune and supervised_from belong together: name both, or neither.")
        if self.supervised_lr is not None and (self.supervised_from is None or self.supervised_lr <= 0):
            raise ValueError(f"supervised_lr must be above 0, and has an effect only with supervised_from; got {self.supervised_lr!r}.")
        if self.supervised_lr is not None and not _optimizer(self.tokenizer):
            raise ValueError("the recipe of tokenizer has no model.init_args.optimizer, whose learning rate supervised_lr could be.")
        if not _modality(self.pretrain, self.modality):
            raise ValueError(f"the recipe of pretrain has no model.init_args.modalities.{self.modality}.")
        if _modality(self.pretrain, self.modality).get("preparation"):
            raise ValueError(
                f"modality {self.modality!r} of pretrain has a preparation, which its tokenizers would not see: leave it to the transform."
            )
        if not list(settings_of_class(self.tokenizer, TEACHERS)):
            raise ValueError(f"the recipe of tokenizer names no teacher of the class {TEACHERS[0]}, whose folder could be set.")
        if self.finetune is not None and not list(settings_of_class(self.finetune, LOADERS)):
            raise ValueError(f"the recipe of finetune names none of {', '.join(LOADERS)}, whose folder could be set.")

    @classmethod
    def read(cls, path: Path) -> tuple[IterationPlan, str | None]:
        """Return the plan in a YAML file, and the folder of the run that it names.

        Raises:
            ValueError: a file cannot be read, or something in it is unknown, missing or of the wrong kind.
        """
        content = read_config(path)
        if not isinstance(content, dict):
            raise ValueError(f"{path} is no config of iterations: it must name modality, pretrain and tokenizer.")
        if unknown := [key for key in content if key not in KEYS]:
            raise ValueError(f"{path}: unknown key {unknown[0]!r}; allowed are {', '.join(KEYS)}.")
        if missing := [key for key in ("modality", "pretrain", "tokenizer") if not content.get(key)]:
            raise ValueError(f"{path}: {missing[0]} is missing.")
        for key in ("pretrain", "tokenizer", "finetune"):
            if content.get(key) is not None and not isinstance(content[key], dict):
                raise ValueError(f"{path}: {key} must be the path of a recipe (.yaml), relative to this file; got {content[key]!r}.")
        for key, kind in KINDS:
            if not isinstance(content.get(key, kind()), kind | None):
                raise ValueError(f"{path}: {key} must be of the kind {kind.__name__}, got {content[key]!r}.")
        run = content.pop("run", None)
        try:
            return cls(**content), run
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from None

    def fingerprint(self) -> str:
        """Return the SHA-256 (hex) of all settings: rounds of plans with equal fingerprints are made alike."""
        return hashlib.sha256(json.dumps(vars(self), sort_keys=True).encode()).hexdigest()

    def is_supervised(self, number: int) -> bool:
        """Return whether the teacher of a round is a model that was fine-tuned."""
        return self.supervised_from is not None and number >= self.supervised_from

    @property
    def transform(self) -> dict[str, Any]:
        """Settings of the transform of the pretraining."""
        return _modality(self.pretrain, self.modality)["transform"]

    @property
    def first_tokenizer(self) -> dict[str, Any] | str:
        """Settings of the tokenizer of the first round.

        Raises:
            ValueError: the recipe names none.
        """
        named = _modality(self.pretrain, self.modality).get("tokenizer")
        if not named:
            raise ValueError(f"the recipe of pretrain has no tokenizer for modality {self.modality!r}: name that of the first round.")
        return named

    @property
    def sources(self) -> list[str]:
        """The shards that the pretraining reads."""
        found = self.pretrain.get("data", {}).get("init_args", {}).get("shards")
        if not found:
            raise ValueError("the recipe of pretrain names no data.init_args.shards.")
        return [found] if isinstance(found, str) else list(found)

    @property
    def data_settings(self) -> dict[str, Any]:
        """Settings of the data module of the pretraining."""
        return dict(self.pretrain["data"]["init_args"])

    def tokenizer_config(self, teacher: Path, number: int, run: Path) -> dict[str, Any]:
        """Return the recipe of a round's tokenizer, with its teacher."""
        config = copy.deepcopy(self.tokenizer) | {"run": str(run)}
        for settings in settings_of_class(config, TEACHERS):
            named = settings.setdefault("init_args", {})
            named["folder"] = str(teacher)
            if self.is_supervised(number):
                named.update(head=CLASSES, layer=None)
        if self.is_supervised(number) and self.supervised_lr is not None:
            _optimizer(config)["init_args"] = {**_optimizer(config).get("init_args", {}), "lr": self.supervised_lr}
        return config

    def pretrain_config(self, tokenizer: Path, shards: list[Path], run: Path) -> dict[str, Any]:
        """Return the recipe of a round's pretraining, with its tokenizer and, where ids are stored, their shards."""
        config = copy.deepcopy(self.pretrain) | {"run": str(run)}
        _modality(config, self.modality)["tokenizer"] = {"class_path": LOAD_TOKENIZER, "init_args": {"folder": str(tokenizer)}}
        if shards:
            config["data"]["init_args"]["shards"] = [str(folder) for folder in shards]
        return config

    def finetune_config(self, model: Path, run: Path) -> dict[str, Any]:
        """Return the recipe that fine-tunes a round's model."""
        config = copy.deepcopy(self.finetune or {}) | {"run": str(run)}
        for settings in settings_of_class(config, LOADERS):
            settings.setdefault("init_args", {})["folder"] = str(model)
        return config


@dataclass(frozen=True)
class RoundFolder:
    """Where one round puts what it makes.

    Args:
        root: folder of the run.
        number: of the round, from 1.
    """

    root: Path
    number: int

    @property
    def path(self) -> Path:
        """The folder of the round."""
        return self.root / f"round_{self.number}"

    @property
    def tokenizer_run(self) -> Path:
        """The run that trains the tokenizer."""
        return self.path / "tokenizer"

    @property
    def tokenizer(self) -> Path:
        """The tokenizer."""
        return self.tokenizer_run / "tokenizer"

    @property
    def ids(self) -> Path:
        """Shards with ids, a folder for each source."""
        return self.path / "ids"

    @property
    def pretraining(self) -> Path:
        """The run that pretrains the encoder."""
        return self.path / "pretraining"

    @property
    def model(self) -> Path:
        """The encoder, as ``multimodal.from_pretrained`` reads it."""
        return self.path / "model"

    @property
    def finetuning(self) -> Path:
        """The run that fine-tunes it."""
        return self.path / "finetuning"

    @property
    def classifier(self) -> Path:
        """What that makes, as ``multimodal.from_pretrained`` reads it."""
        return self.path / "classifier"


def _modality(config: dict[str, Any], name: str) -> dict[str, Any]:
    """Return the settings of a modality in the recipe of a pretraining, to be read or changed; nothing where it has no such."""
    return _part(config, "model", "init_args", "modalities", name, "init_args")


def _optimizer(config: dict[str, Any]) -> dict[str, Any]:
    """Return the optimizer of a recipe, to be read or changed; nothing where it names none."""
    return _part(config, "model", "init_args", "optimizer")


def _part(config: dict[str, Any], *keys: str) -> dict[str, Any]:
    found: Any = config
    for key in keys:
        found = found.get(key) if isinstance(found, dict) else None
    return found if isinstance(found, dict) else {}
