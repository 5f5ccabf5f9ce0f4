"""Models in foreign layouts: folders of ``config.json`` and ``model.safetensors``, named as in timm, transformers or the originals."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from multimodal.atomic import atomic_file
from multimodal.pretrained.card import model_card
from multimodal.pretrained.checkpoint import PREPROCESSOR_NAME, Checkpoint
from multimodal.pretrained.exporting.equivalents import equivalents
from multimodal.pretrained.folder import CARD_NAME, CONFIG_NAME, WEIGHTS_NAME
from multimodal.pretrained.format import Format, ImportOptions, Part, Written
from multimodal.pretrained.importing import load_exactly
from multimodal.pretrained.model import PretrainedModel
from multimodal.pretrained.registry import all_formats

NOISE = 2
"""Items, or tokens of an item, on which models are compared."""
SHOWN = 3
OTHER_PARTS = (LookupError, AttributeError, TypeError, AssertionError, RuntimeError)
"""What a format raises that is made for other parts than a model has."""
OTHER = "it is of other parts"


class Exported(NamedTuple):
    """What a layout made of a model.

    Args:
        form: the layout.
        written: what stands in its folder.
        options: what reading it has to be told, as nothing in the folder says it.
    """

    form: Format
    written: Written
    options: ImportOptions


def layouts_for(model: nn.Module) -> list[Format]:
    """Return the formats that can hold a model."""
    return [form for form, found in _verdicts(model, list(all_formats())).items() if not isinstance(found, str)]


def _verdicts(model: nn.Module, forms: list[Format]) -> dict[Format, nn.Module | str]:
    """Return for each format the model, or its equivalent, that it can hold, or why it can hold none.

    An imported model is known to its family; others, such as one's own, are written and read back.
    """
    if not isinstance(model, PretrainedModel) or model.settings.origin.family:
        return {form: model if form.holds(model) else OTHER for form in forms}
    candidates = equivalents(model)
    return {form: _first_that_comes_back(model, candidates, form) for form in forms}


def _first_that_comes_back(model: PretrainedModel, candidates: list[PretrainedModel], form: Format) -> PretrainedModel | str:
    why = OTHER
    for candidate in candidates:
        try:
            _check_comes_back(model, candidate, form)
            return candidate
        except ValueError as error:
            why = str(error)
        except OTHER_PARTS:
            why = OTHER
    return why  # of the last: what the others lacked, it has


def _check_comes_back(model: PretrainedModel, candidate: PretrainedModel, form: Format) -> None:
    """Write and read back.

    Args:
        model: to be exported.
        candidate: an equivalent of it, or itself, that is written.
        form: of the layout.

    Raises:
        ValueError: something else comes back; the message says what.
    """
    written = form.write(candidate)
    checkpoint = Checkpoint(written.tensors, written.config, {"preprocessor_config": written.preprocessor})
    if not form.matches(checkpoint.shapes, written.config):
        raise ValueError("its tensors would not be known again as of this family.")
    (part,) = form.read(checkpoint, form.options_for(candidate))
    if not isinstance(part.target, PretrainedModel):
        raise ValueError(OTHER)
    back = part.keymap.to_ours(written.tensors)
    ours = {name: x for name, x in candidate.state_dict().items() if name not in written.left_out}
    if part.target.state_dict().keys() != ours.keys():
        names = sorted(part.target.state_dict().keys() ^ ours.keys())
        raise ValueError(f"there is no place for, or no tensor of, {', '.join(names[:SHOWN])}{' ...' if len(names) > SHOWN else ''}.")
    if changed := [name for name, x in ours.items() if name not in part.keymap.kept and not torch.equal(back[name], x)]:
        raise ValueError(f"{', '.join(changed[:SHOWN])} would change.")
    load_exactly(part.target, ours)
    _check_computes_the_same(model, part)


@torch.no_grad()
def _check_computes_the_same(model: PretrainedModel, part: Part) -> None:
    """Compare with what a layout builds, on noise: settings may differ in form alone.

    Raises:
        ValueError: features or logits differ, or nothing says what items look like.
    """
    other = part.target.eval()
    assert isinstance(other, PretrainedModel)
    for name in other.settings.embeds:
        values, lengths = _noise(other if name in other.settings.transforms else model, name)
        features = [each.eval().features(values, lengths, name) for each in (model, other)]
        made = [(features[0].x, features[1].x)]
        made += [(model.logits(features[0], head), other.logits(features[1], head)) for head in other.heads]
        for ours, theirs in made:
            if ours.shape != theirs.shape or not torch.allclose(ours, theirs, rtol=1e-5, atol=1e-6):
                raise ValueError("a model of this family computes something else from the same weights: its settings are others.")


def _noise(model: PretrainedModel, name: str) -> tuple[Tensor, Tensor | None]:
    item = model.transform(name).example() if name in model.settings.transforms else None
    if item is None:
        raise ValueError(f"there is no transform that says what items of {name!r} look like, to compare on.")
    shape = (NOISE, *item.values.shape) if not item.ragged else (NOISE, *item.values.shape[1:])
    high = 2 if item.values.dtype == torch.int64 else 256  # ids 0 and 1 are in every vocabulary
    values = torch.randint(0, high, shape, generator=torch.Generator().manual_seed(0)).to(item.values.dtype)
    return values, torch.tensor([NOISE]) if item.ragged else None


def export_layout(model: nn.Module, layout: str, folder: str | Path, family: str | None = None) -> Exported:
    """Write a model in a foreign layout, each file whole or not at all; a round trip through it is exact but for what it leaves out.

    Args:
        model: to be written.
        layout: "transformers", "timm", or the name of an original's repository.
        folder: to write into; it is made if needed.
        family: whose layout; None: the only family that can hold the model.

    Raises:
        ValueError: no such layout can hold the model; the message lists those that can, and why those of this name cannot.
    """
    verdicts = _verdicts(model, list(all_formats()))
    able = {form: found for form, found in verdicts.items() if not isinstance(found, str)}
    fitting = [form for form in able if form.layout == layout and family in (None, form.family)]
    if len(fitting) != 1:
        known = ", ".join(f"{form.family} ({form.layout})" for form in able) or "none"
        problem = (
            f"several families have the layout {layout!r}: name one" if fitting else f"it cannot be written in the layout of {layout!r}"
        )
        refusals = {form: why for form, why in verdicts.items() if isinstance(why, str) and form.layout == layout and not fitting}
        raise ValueError(f"this model's layouts are: {known}; {problem}.{_reasons(refusals, family)}")
    form, fit = fitting[0], able[fitting[0]]
    written = form.write(fit)
    _save(model, written, Path(folder))
    return Exported(form, written, form.options_for(fit) if isinstance(fit, PretrainedModel) else ImportOptions())


def _reasons(refusals: Mapping[Format, str], family: str | None) -> str:
    """Say why formats cannot hold a model; those of other parts, such as of texts for images, only where their family was named."""
    told = {form: why for form, why in refusals.items() if family == form.family or (family is None and why != OTHER)}
    return "".join(f" {form.family} ({form.layout}): {why.rstrip('.')}." for form, why in told.items())


def _save(model: nn.Module, written: Written, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    partial = folder / f".{WEIGHTS_NAME}.part"
    try:
        save_file({name: x.detach().cpu().contiguous().clone() for name, x in written.tensors.items()}, partial, metadata={"format": "pt"})
        partial.replace(folder / WEIGHTS_NAME)
    finally:
        partial.unlink(missing_ok=True)
    contents = {CONFIG_NAME: written.config, PREPROCESSOR_NAME: written.preprocessor}
    texts = {name: json.dumps(content, indent=2) + "\n" for name, content in contents.items() if content}
    if isinstance(model, PretrainedModel):
        texts[CARD_NAME] = model_card(model)
    for name, text in texts.items():
        with atomic_file(folder / name) as file:
            file.write(text.encode())
