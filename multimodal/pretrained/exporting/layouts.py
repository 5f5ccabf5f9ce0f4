"""Models in foreign layouts: folders of ``config.json`` and ``model.safetensors``, named as in timm, transformers or the originals."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import nn

from multimodal.atomic import atomic_file
from multimodal.pretrained.card import model_card
from multimodal.pretrained.checkpoint import Checkpoint
from multimodal.pretrained.folder import CARD_NAME, CONFIG_NAME, WEIGHTS_NAME
from multimodal.pretrained.format import Format, ImportOptions, Part
from multimodal.pretrained.importing import load_exactly
from multimodal.pretrained.model import PretrainedModel
from multimodal.pretrained.registry import all_formats

NOISE = 2
"""Items, or tokens of an item, on which models are compared."""


def layouts_for(model: nn.Module) -> list[Format]:
    """Return the formats that can hold a model."""
    if isinstance(model, PretrainedModel) and not model.settings.origin.family:
        return [form for form in all_formats() if _comes_back(model, form)]
    return [form for form in all_formats() if form.holds(model)]


def _comes_back(model: PretrainedModel, form: Format) -> bool:
    """Return whether a format gives back what it was given; asked of models of no family, such as one's own."""
    try:
        written = form.write(model)
        if not form.matches({name: tuple(x.shape) for name, x in written.tensors.items()}, written.config):
            return False
        (part,) = form.read(Checkpoint(written.tensors, written.config), ImportOptions(num_heads=model.encoder.num_heads))
        back = part.keymap.to_ours(written.tensors)
    except (ValueError, LookupError, AttributeError, TypeError, AssertionError, RuntimeError):  # it is made for other parts
        return False
    ours = model.state_dict()
    if not isinstance(part.target, PretrainedModel) or part.target.state_dict().keys() != ours.keys():
        return False
    same = all(torch.equal(back[name], x) for name, x in ours.items() if name not in part.keymap.kept)
    return same and _computes_the_same(model, part)


@torch.no_grad()
def _computes_the_same(model: PretrainedModel, part: Part) -> bool:
    """Return whether the model that a layout builds makes the same of noise, given the same tensors: settings may differ in form alone."""
    other = part.target
    assert isinstance(other, PretrainedModel)
    load_exactly(other, model.state_dict())
    other.eval()
    for name in other.settings.embeds:
        said = next((each for each in (other, model) if name in each.settings.transforms), None)
        item = None if said is None else said.transform(name).example()
        if item is None:
            return False
        shape = (NOISE, *item.values.shape) if not item.ragged else (NOISE, *item.values.shape[1:])
        high = 2 if item.values.dtype == torch.int64 else 256  # ids 0 and 1 are in every vocabulary
        values = torch.randint(0, high, shape, generator=torch.Generator().manual_seed(0)).to(item.values.dtype)
        lengths = torch.tensor([NOISE]) if item.ragged else None
        features = [each.eval().features(values, lengths, name) for each in (model, other)]
        if not torch.allclose(features[0].x, features[1].x, rtol=1e-5, atol=1e-6):
            return False
        for head in other.heads:
            ours, theirs = (each.logits(x, head) for each, x in zip((model, other), features, strict=True))
            if not torch.allclose(ours, theirs, rtol=1e-5, atol=1e-6):
                return False
    return True


def export_layout(model: nn.Module, layout: str, folder: str | Path, family: str | None = None) -> Format:
    """Write a model in a foreign layout, each file whole or not at all; a round trip through it is exact.

    Args:
        model: to be written.
        layout: "transformers", "timm", or the name of an original's repository.
        folder: to write into; it is made if needed.
        family: whose layout; None: the only family that can hold the model.

    Raises:
        ValueError: no such layout can hold the model; the message lists those that can.
    """
    able = layouts_for(model)
    found = [form for form in able if form.layout == layout and family in (None, form.family)]
    if len(found) != 1:
        known = ", ".join(f"{form.family} ({form.layout})" for form in able) or "none"
        problem = f"several families have the layout {layout!r}: name one" if found else f"it cannot be written in the layout of {layout!r}"
        raise ValueError(f"this model's layouts are: {known}; {problem}.")
    written = found[0].write(model)
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    partial = folder / f".{WEIGHTS_NAME}.part"
    try:
        save_file({name: x.detach().cpu().contiguous().clone() for name, x in written.tensors.items()}, partial, metadata={"format": "pt"})
        partial.replace(folder / WEIGHTS_NAME)
    finally:
        partial.unlink(missing_ok=True)
    texts = {CONFIG_NAME: json.dumps(written.config, indent=2) + "\n"} if written.config else {}
    if isinstance(model, PretrainedModel):
        texts[CARD_NAME] = model_card(model)
    for name, text in texts.items():
        with atomic_file(folder / name) as file:
            file.write(text.encode())
    return found[0]
