"""Tokenizers with weights: saving, loading, fingerprint, and the interface of those that are trained."""

from __future__ import annotations

import hashlib
import importlib
import inspect
import json
from abc import abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple, Self

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from multimodal.protocols import Tokenizer

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


class PretrainedTokenizer(Tokenizer):
    """A tokenizer with weights, saved as a folder of ``config.json`` and ``model.safetensors``.

    The constructor's arguments are recorded and written to the config, so they must be plain values; JSON has no tuples, so
    a list comes back as a tuple.
    """

    config: dict[str, Any]

    def __new__(cls, *args: object, **kwargs: object) -> Self:
        """Record the arguments of the constructor."""
        self = super().__new__(cls)
        bound = inspect.signature(cls.__init__).bind(None, *args, **kwargs)
        bound.apply_defaults()
        object.__setattr__(self, "config", {name: value for name, value in bound.arguments.items() if name != "self"})
        return self

    def __getnewargs_ex__(self) -> tuple[tuple[()], dict[str, Any]]:
        """Give copies and pickles the same arguments."""
        return (), self.config

    @abstractmethod
    def training_loss(self, values: Tensor, progress: float) -> TokenizerLoss:
        """Return the loss of a batch; ``progress`` is the share of the run that is done, in [0, 1]."""

    def save_pretrained(self, folder: str | Path) -> None:
        """Write config and weights into ``folder``, which is made if needed; each file appears whole or not at all."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        state = {name: tensor.detach().cpu().contiguous() for name, tensor in self.state_dict().items()}
        save_file(state, folder / (WEIGHTS_NAME + ".tmp"))
        config = {"class": _class_path(type(self)), "fingerprint": self.fingerprint(), "config": self.config}
        (folder / (CONFIG_NAME + ".tmp")).write_text(json.dumps(config, indent=2) + "\n")
        for name in (WEIGHTS_NAME, CONFIG_NAME):
            (folder / (name + ".tmp")).replace(folder / name)

    @classmethod
    def from_pretrained(cls, folder: str | Path) -> Self:
        """Load a tokenizer that ``save_pretrained`` wrote.

        Args:
            folder: holds ``config.json`` and ``model.safetensors``.

        Raises:
            ValueError: the folder is missing or incomplete, was written by another class, or its weights do not match its config.
        """
        saved = read_config(folder)
        if saved["class"] != _class_path(cls):
            raise ValueError(f"{folder} holds a {saved['class']}, not a {_class_path(cls)}.")
        try:
            settings = {name: tuple(value) if isinstance(value, list) else value for name, value in saved["config"].items()}
            tokenizer = cls(**settings)
        except (TypeError, AttributeError) as error:
            raise ValueError(f"{Path(folder) / CONFIG_NAME} does not fit {_class_path(cls)}: {error}") from error
        weights = Path(folder) / WEIGHTS_NAME
        try:
            tokenizer.load_state_dict(load_file(weights))
        except (RuntimeError, SafetensorError) as error:
            raise ValueError(f"{weights} does not match the {CONFIG_NAME} beside it: {error}") from error
        if tokenizer.fingerprint() != saved["fingerprint"]:
            raise ValueError(f"{weights} is not what was saved: its fingerprint differs from the one in the {CONFIG_NAME} beside it.")
        return tokenizer.eval()

    def fingerprint(self) -> str:
        """Return the SHA-256 (hex) of config and weights."""
        digest = hashlib.sha256(json.dumps([type(self).__name__, self.config], sort_keys=True, default=list).encode())
        for name, tensor in sorted(self.state_dict().items()):
            digest.update(name.encode())
            digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
        return digest.hexdigest()


def load_tokenizer(folder: str) -> Tokenizer:
    """Load a tokenizer of any class of ``multimodal.tokenizers`` that ``save_pretrained`` wrote; configs name this as ``class_path``.

    Args:
        folder: holds ``config.json`` and ``model.safetensors``.

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
        ValueError: the folder is missing or incomplete, or the file is damaged.
    """
    path = Path(folder)
    missing = [name for name in (CONFIG_NAME, WEIGHTS_NAME) if not (path / name).is_file()]
    if missing:
        raise ValueError(f"no tokenizer in {path}: {' and '.join(missing)} not found. Train one with `multimodal fit`, or check the path.")
    try:
        saved = json.loads((path / CONFIG_NAME).read_text())
        return {key: saved[key] for key in ("class", "fingerprint", "config")}
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path / CONFIG_NAME} is not the config of a tokenizer: {error!r}") from error


def _class_path(cls: type) -> str:
    return f"{cls.__module__}.{cls.__name__}"
