"""What the formats of text transformers share: the id of the mask, tied tables, activations."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from multimodal.pretrained.checkpoint import Checkpoint
from multimodal.pretrained.format import ImportOptions, heads_of
from multimodal.pretrained.formats.vision import ACTIVATIONS, with_heads

MASK_NAMES = ("[MASK]", "<mask>")
TIED = "the same tensor as the table of words"


def activation_of(config: Mapping[str, Any], name: str) -> str:
    """Return our name of the activation that a config calls ``name``; GELU where it does not.

    Raises:
        ValueError: it is none of ours.
    """
    theirs = config.get(name, "gelu")
    if theirs not in ACTIVATIONS:
        raise ValueError(f"{name} {theirs!r} is not known; those known are {sorted(ACTIVATIONS)}.")
    return ACTIVATIONS[theirs]


def num_heads_of(config: Mapping[str, Any], dim: int, options: ImportOptions) -> int:
    """Return the number of attention heads: the user's, else the config's, else the rule for the width.

    Raises:
        ValueError: it does not divide the width.
    """
    return heads_of(dim, with_heads(options, config.get("num_attention_heads")))


def is_tied(checkpoint: Checkpoint, decoder: str, words: str) -> bool:
    """Return whether a decoder's weight is the table of words: it is not stored, the config says so, or without one they are equal."""
    if decoder not in checkpoint.tensors:
        return True
    if checkpoint.config:
        return bool(checkpoint.config.get("tie_word_embeddings", True))
    return torch.equal(checkpoint.tensors[decoder], checkpoint.tensors[words])


def mask_id_of(checkpoint: Checkpoint, options: ImportOptions) -> int | None:
    """Return the id of the mask: the setting ``mask_id``, else what ``tokenizer.json`` or ``vocab.txt`` beside the weights say; or None.

    Raises:
        ValueError: the setting is no number, or a file is damaged.
    """
    if (said := options.settings.get("mask_id")) is not None:
        if not said.isdecimal():
            raise ValueError(f"the setting mask_id must be a number, got {said!r}.")
        return int(said)
    if checkpoint.path == Path():  # of no file
        return None
    folder = checkpoint.path if checkpoint.path.is_dir() else checkpoint.path.parent
    known = {**_from_vocabulary(folder / "vocab.txt"), **_from_tokenizer(folder / "tokenizer.json")}
    return next((known[name] for name in MASK_NAMES if name in known), None)


def _from_tokenizer(path: Path) -> dict[str, int]:
    if not path.is_file():
        return {}
    try:
        return {str(token["content"]): int(token["id"]) for token in json.loads(path.read_text(encoding="utf-8")).get("added_tokens", [])}
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise ValueError(f"{path} is damaged: {error!r}") from error


def _from_vocabulary(path: Path) -> dict[str, int]:
    if not path.is_file():
        return {}
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    return {name: lines.index(name) for name in MASK_NAMES if name in lines}
