"""ViT and DeiT (https://arxiv.org/abs/2010.11929, https://arxiv.org/abs/2012.12877), also with registers or distilled.

Sources: timm ``models/vision_transformer.py``, ``models/deit.py``; transformers ``models/vit``, ``models/deit``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn

from multimodal.pretrained.checkpoint import Checkpoint
from multimodal.pretrained.format import Format, ImportOptions, Part, Shapes, Written
from multimodal.pretrained.formats import vision
from multimodal.pretrained.formats.renamed import Renamed
from multimodal.pretrained.formats.vit_sizes import settings_of, sizes_of
from multimodal.pretrained.formats.vit_timm import named_as_timm, special_tokens, timm_config, timm_keymap, timm_sizes, written_tokens
from multimodal.pretrained.formats.vit_transformers import (
    check_transformers,
    transformers_config,
    transformers_keymap,
    transformers_prefix,
    transformers_sizes,
)
from multimodal.pretrained.keymap import KeyMap
from multimodal.pretrained.model import PretrainedModel

FAMILIES = ("vit", "mae")
"""Whose encoders the layouts of this file can hold: MAE's is a ViT."""


class TimmVit(Format):
    """The names of timm."""

    family, layout = "vit", "timm"
    licence, source = (
        "Apache-2.0 (as on the hub; MAE's and some others' are non-commercial)",
        "https://github.com/huggingface/pytorch-image-models",
    )

    def matches(self, shapes: Shapes, config: Mapping[str, Any]) -> bool:
        """The names of timm's layers, patches of colour images and positions; no parts of MAE or BEiT."""
        return named_as_timm(shapes, config) and "decoder_pred.weight" not in shapes and not _is_mae(config)

    def read(self, checkpoint: Checkpoint, options: ImportOptions) -> list[Part]:
        """Read.

        Settings: ``statistics`` is "half" (the default) or "imagenet" (the default of distilled ones; DeiT, MAE): what the pixels were
        normalised with, where no timm config stands beside. ``grid`` is ROWSxCOLUMNS of patches, for images that are not square.
        """
        vision.check_settings(options, "statistics", "grid")
        sizes = timm_sizes(checkpoint, options)
        tokens = special_tokens(checkpoint.shapes)
        model = PretrainedModel(settings_of(sizes))
        return [Part(model, timm_keymap(sizes, tokens) + KeyMap([], {}, vision.without_mask_token(model)))]

    def holds(self, model: nn.Module) -> bool:
        """Return whether this layout can hold the model."""
        return isinstance(model, PretrainedModel) and model.settings.origin.family in FAMILIES

    def write(self, model: nn.Module) -> Written:
        """Write names and config of timm.

        Raises:
            ValueError: it has parts that timm's ViT does not have.
        """
        assert isinstance(model, PretrainedModel)
        sizes = sizes_of(model)
        if sizes.head == "normed_mean" and sizes.last_norm:
            raise ValueError("timm's ViT has one norm after its layers: before the mean of the patches, or after it.")
        return Written(timm_keymap(sizes, written_tokens(sizes)).to_theirs(model.state_dict()), timm_config(sizes))


class TransformersVit(Format):
    """The names in the files of transformers: ``ViT*`` and ``DeiT*``."""

    family, layout = "vit", "transformers"
    licence, source = "Apache-2.0 (as on the hub)", "https://huggingface.co/docs/transformers/model_doc/vit"

    def matches(self, shapes: Shapes, config: Mapping[str, Any]) -> bool:
        """The prefix of ViT's or DeiT's classes; or none, and images of several channels or a config that says so."""
        kind, prefix = config.get("model_type"), transformers_prefix(shapes)
        if prefix is None or "decoder.decoder_embed.weight" in shapes or kind not in (None, "vit", "deit", "vit_msn"):
            return False
        return bool(prefix) or kind is not None or shapes["embeddings.patch_embeddings.projection.weight"][1] > 1  # one channel: audio

    def read(self, checkpoint: Checkpoint, options: ImportOptions) -> list[Part]:
        """Read; the settings are those of the layout of timm, which a ``preprocessor_config.json`` beside makes unneeded."""
        vision.check_settings(options, "statistics", "grid")
        prefix = transformers_prefix(checkpoint.shapes)
        assert prefix is not None
        sizes = transformers_sizes(checkpoint, options, prefix)
        model = PretrainedModel(settings_of(sizes))
        mask = f"{prefix}embeddings.mask_token" in checkpoint.tensors
        kept = {} if mask else vision.without_mask_token(model)
        return [Part(model, transformers_keymap(sizes, prefix, mask) + KeyMap([], {}, kept))]

    def holds(self, model: nn.Module) -> bool:
        """Return whether this layout can hold the model."""
        return isinstance(model, PretrainedModel) and model.settings.origin.family in FAMILIES

    def write(self, model: nn.Module) -> Written:
        """Write names and config of transformers: of DeiT where there is a distillation token, otherwise of ViT.

        Raises:
            ValueError: it has parts that those of transformers do not have.
        """
        assert isinstance(model, PretrainedModel)
        sizes = sizes_of(model)
        check_transformers(sizes)
        kind = "deit" if sizes.special == 2 else "vit"
        prefix = f"{kind}." if sizes.head else ""
        mask = vision.has_mask_token(model) and not sizes.head  # classifiers have none
        tensors = transformers_keymap(sizes, prefix, mask).to_theirs(model.state_dict())
        distilled = "WithTeacher" if sizes.head == "distilled" else ""
        name = {"deit": "DeiT", "vit": "ViT"}[kind] + (f"ForImageClassification{distilled}" if sizes.head else "Model")
        config = {**transformers_config(sizes, kind, name), **vision.id2label(model, sizes.classes)}
        return Written(tensors, config, vision.preprocessor_of(model, sizes.grid, sizes.patch))


def _is_mae(config: Mapping[str, Any]) -> bool:
    facts = config.get("pretrained_cfg")
    return isinstance(facts, Mapping) and facts.get("tag") == "mae"


FORMATS = (TimmVit(), TransformersVit(), Renamed(TransformersVit()))
