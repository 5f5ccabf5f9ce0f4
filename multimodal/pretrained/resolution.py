"""Models at another resolution: tables of positions are resampled, everything else stays."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import replace
from typing import Any

from torch import Tensor, nn

from multimodal.pretrained.importing import load_exactly
from multimodal.pretrained.model import PretrainedModel
from multimodal.pretrained.resize import resize_grid, resize_relative

Grid = tuple[int, ...]


def at_image_size(model: nn.Module, size: int, modality: str | None = None) -> PretrainedModel:
    """Return a copy of a model for square images of another side.

    Args:
        model: to be copied; a ``PretrainedModel`` with patches.
        size: of the images, pixels; a multiple of the patch size.
        modality: whose images; None: the only one that is cut into patches.

    Raises:
        ValueError: the model has no patches, or ``size`` is no multiple of theirs.
    """
    if not isinstance(model, PretrainedModel):
        raise ValueError(f"a {type(model).__name__} has no positions to resample.")
    cut = [name for name, part in model.settings.embeds.items() if isinstance(part["init_args"].get("patch_size"), int)]
    name = cut[0] if modality is None and len(cut) == 1 else modality
    if name not in cut:
        raise ValueError(f"modality must be one that is cut into square patches ({cut}), got {name!r}.")
    patch = model.settings.embeds[name]["init_args"]["patch_size"]
    if size < patch or size % patch:
        raise ValueError(f"the side of the images must be a multiple of the patch size {patch}, got {size}.")
    resized = at_grid(model, name, (size // patch, size // patch))
    transforms = deepcopy(dict(resized.settings.transforms))
    if name in transforms:
        transforms[name]["init_args"]["size"] = size
    origin = replace(resized.settings.origin, resized=f"positions to {size} pixels")
    resized.settings = replace(resized.settings, transforms=transforms, origin=origin)
    return resized


def at_grid(model: PretrainedModel, modality: str, grid: Sequence[int]) -> PretrainedModel:
    """Return a copy of a model whose items of a modality lie on another grid.

    Absolute tables are resampled bicubically (ViT), those of relative positions as BEiT does; see ``multimodal.pretrained.resize``.
    Positions that are computed need nothing.

    Args:
        model: to be copied.
        modality: its name.
        grid: rows and columns of tokens.
    """
    settings, new = deepcopy(model.settings), tuple(grid)
    state = dict(model.state_dict())
    position = settings.embeds[modality]["init_args"].get("position")
    if _is(position, "LearnedPosition") and (old := tuple(position["init_args"]["size"])) != new:
        _resample(state, f"embeds.{modality}.position.table", resize_grid, old, new, position["init_args"].get("offset", 0))
        position["init_args"]["size"] = list(new)
    bias = settings.encoder["init_args"].get("bias")
    if _is(bias, "RelativeBias2d") and (old := tuple(bias["init_args"]["window"])) != new:
        for name in [name for name in state if name == "encoder.bias.table" or name.endswith(".attn.position_bias.table")]:
            _resample(state, name, resize_relative, old, new)
        bias["init_args"]["window"] = list(new)
    resized = PretrainedModel(settings)
    load_exactly(resized, state)
    return resized.eval()


def _is(part: Any, name: str) -> bool:
    return isinstance(part, dict) and part["class_path"].rpartition(".")[2] == name


def _resample(state: dict[str, Tensor], name: str, resize: Callable[..., Tensor], old: Grid, new: Grid, offset: int = 0) -> None:
    """Resample a table in place of the old one; its first ``offset`` rows are no places, and stay."""
    table = state[name]
    resampled = resize(table[offset:], old, new)
    state[name] = table.new_empty(offset + len(resampled), *table.shape[1:])
    state[name][:offset], state[name][offset:] = table[:offset], resampled
