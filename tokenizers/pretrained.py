"""Tokenizers that can be saved: config, weights if there are any, fingerprint; and the interface of those that are trained."""

from __future__ import annotations

import hashlib
import importlib
import json
from abc import abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, NamedTuple, Self

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor

from multimodal.atomic import atomic_file
from multimodal.protocols import Tokenizer
from multimodal.recorded import Recorded, from_plain, settings_of

CONFIG_NAME, WEIGHTS_NAME = "config.json", "model.safetensors"
PACKAGE = "multimodal.tokenizers."


class TokenizerLoss(NamedTuple):
    """One step of a tokenizer's training.

    Args:
        loss: scalar to minimise.
        ids: ``(n,)`` or ``(n, k)`` int64, the ids of the batch (for codebook statistics).
        parts: name -> scalar, what to log beside the loss.
    """

    loss: Tensor
    ids: Tensor
    parts: Mapping[str, Tensor]


class PretrainedTokenizer(Recorded, Tokenizer):
    """A tokenizer that is saved as a folder of ``config.json`` and, if it has weights, ``model.safetensors``.

    The constructor's arguments are recorded and written to the config, so they must be plain values, or classes (or partials of classes)
    that build a part; JSON has no tuples, so a list comes back as a tuple.
    """

    version: ClassVar[int] = 1
    """To be raised when the same settings come to give other ids."""
    for_training: ClassVar[tuple[str, ...]] = ()
    """Arguments of the constructor that only training needs; they must have defaults. They are not saved, and ids do not depend on them."""

    @property
    def config(self) -> dict[str, Any]:
        """The settings, as JSON holds them.

        Raises:
            ValueError: a setting is neither plain nor a builder.
        """
        settings: dict[str, Any] = settings_of(self, self.for_training)["init_args"]
        return settings

    def __getnewargs_ex__(self) -> tuple[tuple[()], dict[str, Any]]:
        """Give copies and pickles the same settings."""
        return (), {name: value for name, value in self.init_args.items() if name not in self.for_training}

    def save_pretrained(self, folder: str | Path) -> None:
        """Write config and weights into ``folder``, which is made if needed; each file appears whole, and on disk, or not at all.

        Raises:
            OSError: a file cannot be written; the message names it. One that was there before stays as it was.
        """
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        state = {name: tensor.detach().cpu().contiguous() for name, tensor in self.state_dict().items()}
        config = {"class": _class_path(type(self)), "fingerprint": self.fingerprint(), "config": self.config}
        if state:
            with atomic_file(folder / WEIGHTS_NAME) as file:
                file.write(save(state))
        with atomic_file(folder / CONFIG_NAME) as file:
            file.write((json.dumps(config, indent=2) + "\n").encode())

    @classmethod
    def from_pretrained(cls, folder: str | Path) -> Self:
        """Load a tokenizer that ``save_pretrained`` wrote.

        Args:
            folder: holds ``config.json`` and, for a tokenizer with weights, ``model.safetensors``.

        Raises:
            ValueError: the folder is missing or incomplete, was written by another class, or its weights do not match its config.
        """
        saved = read_config(folder)
        if saved["class"] != _class_path(cls):
            raise ValueError(f"{folder} holds a {saved['class']}, not a {_class_path(cls)}.")
        try:
            tokenizer = cls(**{name: from_plain(value) for name, value in saved["config"].items()})
        except (TypeError, AttributeError) as error:
            raise ValueError(f"{Path(folder) / CONFIG_NAME} does not fit {_class_path(cls)}: {error}") from error
        if tokenizer.state_dict():
            tokenizer._load_weights(Path(folder) / WEIGHTS_NAME)
        if tokenizer.fingerprint() != saved["fingerprint"]:
            raise ValueError(
                f"{folder} is not what was saved, or by another version: its fingerprint differs from the one in {CONFIG_NAME}."
            )
        return tokenizer.eval()

    def _load_weights(self, path: Path) -> None:
        if not path.is_file():
            raise ValueError(f"no tokenizer in {path.parent}: {path.name} not found.")
        try:
            self.load_state_dict(load_file(path))
        except (RuntimeError, SafetensorError) as error:
            raise ValueError(f"{path} does not match the {CONFIG_NAME} beside it: {error}") from error

    def fingerprint(self) -> str:
        """Return the SHA-256 (hex) of class, version, config and weights."""
        said = [type(self).__name__, self.version, self.config]
        digest = hashlib.sha256(json.dumps(said, sort_keys=True).encode())
        for name, tensor in sorted(self.state_dict().items()):
            digest.update(name.encode())
            digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
        return digest.hexdigest()


class TrainableTokenizer(PretrainedTokenizer):
    """A tokenizer that ``TokenizerTraining`` can train."""

    @abstractmethod
    def training_loss(self, values: Tensor, progress: float, lengths: Tensor | None = None) -> TokenizerLoss:
        """Return the loss of a batch.

        Args:
            values: see ``Tokenizer.encode``.
            progress: share of the run that is done, in [0, 1].
            lengths: of ragged items, else None.
        """


def load_tokenizer(folder: str) -> Tokenizer:
    """Load a tokenizer of any class of ``multimodal.tokenizers`` that ``save_pretrained`` wrote; configs name this as ``class_path``.

    Args:
        folder: holds ``config.json`` and, for a tokenizer with weights, ``model.safetensors``.

    Raises:
        ValueError: the folder holds no such tokenizer. A class from elsewhere has to be named: use its own ``from_pretrained``.
    """
    path = str(read_config(folder)["class"])
    module, _, name = path.rpartition(".")
    if not module.startswith(PACKAGE):  # a config from elsewhere must not choose what is imported
        raise ValueError(f"{folder} holds a {path}, which is not of {PACKAGE}: load it with its class's from_pretrained.")
    try:
        cls = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise ValueError(f"{folder} holds a {path}, which this version of multimodal does not have: {error}") from error
    if not (isinstance(cls, type) and issubclass(cls, PretrainedTokenizer)):
        raise ValueError(f"{folder} names {path}, which is not a tokenizer that can be loaded.")
    return cls.from_pretrained(folder)


def read_config(folder: str | Path) -> dict[str, Any]:
    """Return what ``config.json`` of a saved tokenizer says.

    Raises:
        ValueError: the file is missing or damaged.
    """
    path = Path(folder) / CONFIG_NAME
    if not path.is_file():
        raise ValueError(f"no tokenizer in {folder}: {CONFIG_NAME} not found. Train one with `multimodal fit`, or check the path.")
    try:
        saved = json.loads(path.read_text())
        return {key: saved[key] for key in ("class", "fingerprint", "config")}
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path} is not the config of a tokenizer: {error!r}") from error


def _class_path(cls: type) -> str:
    return f"{cls.__module__}.{cls.__name__}"
