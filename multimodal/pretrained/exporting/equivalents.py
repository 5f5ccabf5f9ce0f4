"""Models that compute the same with other parts: those that foreign layouts have a place for."""

from __future__ import annotations

from copy import deepcopy

import torch

from multimodal.nn import LearnedPosition, SinCosPosition
from multimodal.pretrained.importing import load_exactly
from multimodal.pretrained.model import PretrainedModel
from multimodal.pretrained.settings import ModelSettings, part
from multimodal.protocols import Embed


def equivalents(model: PretrainedModel) -> list[PretrainedModel]:
    """Return a model as it is, then what computes the same with tables of positions: first for items, then for class tokens too.

    The original MAE stores the sines and cosines that it adds, and zeros for its class token; other layouts have such tables as well.
    A table is made where the model's transform says on what grid items lie.
    """
    found = [model]
    for change in (_with_tables, _with_special_positions):
        changed = change(found[-1])
        found += [] if changed is None else [changed]
    return found


def _with_tables(model: PretrainedModel) -> PretrainedModel | None:
    """Return the model with tables of the positions that it computes; None: it computes none, or nothing says of how many."""
    settings, state = deepcopy(model.settings), dict(model.state_dict())
    for name, embed in model.embeds.items():
        position, grid = getattr(embed, "position", None), _grid(model, name)
        if isinstance(position, SinCosPosition) and grid is not None:
            settings.embeds[name]["init_args"]["position"] = part("multimodal.nn.LearnedPosition", size=list(grid), trainable=False)
            places = torch.cartesian_prod(*(torch.arange(extent) for extent in grid)).view(-1, len(grid))
            state[f"embeds.{name}.position.table"] = position(places)
    return _built(settings, state) if settings != model.settings else None


def _grid(model: PretrainedModel, name: str) -> tuple[int, ...] | None:
    """Return the grid that the items of a modality lie on, as far as its transform tells."""
    item = model.transform(name).example() if name in model.settings.transforms else None
    embed = model.embeds[name]
    if item is None or item.ragged or not isinstance(embed, Embed):
        return None
    return embed.tokens(item.values[None], None).grid


def _with_special_positions(model: PretrainedModel) -> PretrainedModel | None:
    """Return the model with zeros as positions of class and register tokens; None: it has positions for them, or no table for others."""
    special = model.encoder.special
    tables = any(isinstance(getattr(embed, "position", None), LearnedPosition) for embed in model.embeds.values())
    if special is None or special.positions is not None or not tables:
        return None
    settings = deepcopy(model.settings)
    arguments: dict[str, object] = settings.encoder["init_args"]
    arguments["special_positions"] = True
    return _built(settings, {**model.state_dict(), "encoder.special.positions": torch.zeros_like(special.tokens)})


def _built(settings: ModelSettings, state: dict[str, torch.Tensor]) -> PretrainedModel:
    built = PretrainedModel(settings)
    load_exactly(built, state)
    return built.eval()
