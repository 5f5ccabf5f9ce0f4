"""The encoder of a run, to be taken away: parts of a trained LightningModule -> ``PretrainedModel``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, cast

from torch import nn

from multimodal.nn import Encoder, PredictionHead
from multimodal.pretrained.importing import load_exactly
from multimodal.pretrained.model import PretrainedModel
from multimodal.pretrained.settings import ModelSettings, Origin
from multimodal.recorded import Recorded, settings_of

FILLED_IN = ("dim",)


def model_of(module: nn.Module, modalities: Mapping[str, Any] | None = None) -> PretrainedModel:
    """Return a copy of what is worth keeping of a training module: what exists only for training stays behind.

    Args:
        module: has an ``encoder`` and ``modalities`` (name -> module with ``embed`` and maybe ``head``), and maybe ``heads``.
        modalities: name -> its entry in the run's config, which says how files are read; None: the model will not say.

    Raises:
        ValueError: the module has no encoder, or a part's settings cannot be written.
    """
    encoder, parts = getattr(module, "encoder", None), getattr(module, "modalities", None)
    if not isinstance(encoder, Encoder) or not isinstance(parts, nn.ModuleDict):
        raise ValueError(f"a {type(module).__name__} has no encoder to take away.")
    heads: dict[str, nn.Module] = dict(getattr(module, "heads", None) or {})
    if len(heads) == 1:  # whatever label it tells: the classes of a model are what it returns, and what others' layouts have a place for
        heads = {"classes": next(iter(heads.values()))}
    taken = any(getattr(goal, "takes_heads", False) for goal in getattr(module, "objectives", ()))
    for name, modality in parts.items():
        head = None if taken else getattr(modality, "head", None)
        if isinstance(head, PredictionHead) and getattr(modality, "decoder", None) is None:  # which stays behind, and what reads from it
            heads["tokens" if len(parts) == 1 else f"{name}_tokens"] = head
    embeds: dict[str, nn.Module] = {name: cast(Any, modality).embed for name, modality in parts.items()}
    settings = ModelSettings(
        encoder=settings_of(encoder),
        embeds={name: _settings(embed) for name, embed in embeds.items()},
        heads={name: _settings(head) for name, head in heads.items()},
        transforms={name: found for name, entry in (modalities or {}).items() if (found := _transform(entry))},
        tied=_tied(heads, embeds),
        experts={name: cast(Any, modality).expert for name, modality in parts.items() if getattr(modality, "expert", 0)},
        origin=replace(getattr(encoder, "origin", None) or Origin(), family="", layout=""),  # its family's layouts may not hold it any more
    )
    model = PretrainedModel(settings)
    load_exactly(model.encoder, encoder.state_dict())
    for own, given in ((model.embeds, embeds), (model.heads, heads)):
        for name, part in given.items():
            load_exactly(own[name], part.state_dict())
    return model.eval()


def _settings(part: nn.Module) -> dict[str, Any]:
    if not isinstance(part, Recorded):
        raise ValueError(f"a {type(part).__name__} does not know its settings: let it be a multimodal.recorded.Recorded.")
    return settings_of(part, FILLED_IN)


def _tied(heads: Mapping[str, nn.Module], embeds: Mapping[str, nn.Module]) -> dict[str, str]:
    """Return the names of the parameters of heads that are those of embeddings, with these."""
    owned = {id(x): f"embeds.{name}.{own}" for name, embed in embeds.items() for own, x in embed.named_parameters()}
    return {f"heads.{name}.{own}": owned[id(x)] for name, head in heads.items() for own, x in head.named_parameters() if id(x) in owned}


def _transform(entry: Any) -> dict[str, Any] | None:
    """Return the settings of a modality's transform, as its config has them."""
    found = entry.get("init_args", {}).get("transform") if isinstance(entry, Mapping) else None
    return dict(found) if isinstance(found, Mapping) and "class_path" in found else None
