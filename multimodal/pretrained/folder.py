"""A saved model is a folder: ``config.json``, ``model.safetensors`` and a model card."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn

from multimodal import __version__
from multimodal.atomic import atomic_file
from multimodal.pretrained.card import model_card
from multimodal.pretrained.importing import load_exactly
from multimodal.pretrained.model import PretrainedModel
from multimodal.pretrained.settings import ModelSettings

CONFIG_NAME, WEIGHTS_NAME, CARD_NAME = "config.json", "model.safetensors", "README.md"
KIND = "multimodal"
"""``model_type`` of a config: transformers' AutoModel goes by it."""
VERSION = 1


def save(model: PretrainedModel, folder: str | Path) -> None:
    """Write a model; each file appears whole or not at all, the weights first: a folder with a config is complete.

    Raises:
        OSError: a file cannot be written; the message names it.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    tied = set(model.settings.tied)
    state = {name: x.detach().cpu().contiguous() for name, x in model.state_dict().items() if name not in tied}
    partial = folder / f".{WEIGHTS_NAME}.part"
    try:
        save_file(state, partial, metadata={"format": "pt"})
        partial.replace(folder / WEIGHTS_NAME)
    finally:
        partial.unlink(missing_ok=True)
    config = {"model_type": KIND, "format_version": VERSION, "multimodal_version": __version__, **model.settings.to_json()}
    for name, text in ((CARD_NAME, model_card(model)), (CONFIG_NAME, json.dumps(config, indent=2) + "\n")):
        with atomic_file(folder / name) as file:
            file.write(text.encode())


def is_saved_model(folder: Path) -> bool:
    """Return whether a folder has a config of ours."""
    try:
        return bool(json.loads((folder / CONFIG_NAME).read_text()).get("model_type") == KIND)
    except (OSError, ValueError, AttributeError):
        return False


def load(folder: str | Path) -> PretrainedModel:
    """Load a model, in evaluation mode.

    Raises:
        ValueError: the folder or a file is missing or damaged, or the weights do not fit the config; the message says which.
    """
    folder = Path(folder)
    model = PretrainedModel(read_settings(folder))
    path = folder / WEIGHTS_NAME
    if not path.is_file():
        raise ValueError(f"no model in {folder}: {WEIGHTS_NAME} not found.")
    try:
        state = load_file(path)
    except (SafetensorError, OSError, ValueError) as error:
        raise ValueError(f"{path} is damaged, or no safetensors file: {error}") from error
    try:
        load_exactly(model, state, set(model.settings.tied))
    except ValueError as error:
        raise ValueError(f"{path} does not match the {CONFIG_NAME} beside it: {error}") from error
    return model.eval()


def read_settings(folder: str | Path) -> ModelSettings:
    """Return what ``config.json`` of a saved model says.

    Raises:
        ValueError: the file is missing, damaged, or of something else.
    """
    path = Path(folder) / CONFIG_NAME
    if not path.is_file():
        raise ValueError(f"no model in {folder}: {CONFIG_NAME} not found.")
    try:
        saved: dict[str, Any] = json.loads(path.read_text())
        if saved.pop("model_type", None) != KIND:
            raise ValueError("it is no config of a saved model; `multimodal import` reads those of others.")
        if saved.pop("format_version", VERSION) > VERSION:
            raise ValueError("it was saved by a later version.")
        saved.pop("multimodal_version", None)
        for name in ("architectures", "dtype", "transformers_version"):  # what transformers adds when it saves a model again
            saved.pop(name, None)
        return ModelSettings.from_json(saved)
    except (ValueError, TypeError, AttributeError) as error:
        raise ValueError(f"{path}: {error}") from error


def load_part(folder: str | Path, kind: str, name: str) -> nn.Module:
    """Return one part of a saved model: an entry of ``embeds`` or ``heads``.

    Raises:
        ValueError: the model has no such part.
    """
    parts: nn.ModuleDict = getattr(load(folder), kind)
    if name not in parts:
        raise ValueError(f"{folder} has no {name!r} among its {kind}: {sorted(parts)}.")
    return parts[name].train()


def count_parameters(module: nn.Module) -> int:
    """Return the number of weights."""
    return sum(x.numel() for x in module.parameters() if isinstance(x, torch.Tensor))
