"""MAE (https://arxiv.org/abs/2111.06377): the encoder of masked autoencoders of images; its decoder is left behind.

Sources: the description of facebookresearch/mae; transformers ``models/vit_mae``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn

from multimodal.pretrained.checkpoint import Checkpoint
from multimodal.pretrained.format import Format, ImportOptions, Part, Shapes, Written
from multimodal.pretrained.formats import vision
from multimodal.pretrained.formats.renamed import Renamed
from multimodal.pretrained.formats.vit_sizes import Sizes, settings_of, sizes_of
from multimodal.pretrained.formats.vit_timm import named_as_timm, special_tokens, timm_keymap, timm_sizes
from multimodal.pretrained.formats.vit_transformers import (
    check_transformers,
    transformers_config,
    transformers_keymap,
    transformers_prefix,
    transformers_sizes,
)
from multimodal.pretrained.keymap import KeyMap
from multimodal.pretrained.model import PretrainedModel

DECODER = "the decoder of the pretraining, that no later use needs"


class OriginalMae(Format):
    """The names of facebookresearch/mae; whole files of the pretraining, and those of the encoder alone."""

    family, layout = "mae", "mae"
    licence, source = "CC-BY-NC 4.0 (non-commercial)", "https://github.com/facebookresearch/mae"

    def matches(self, shapes: Shapes, config: Mapping[str, Any]) -> bool:
        """The names of timm's ViT beside a decoder; or a ViT without head, which may be of either family unless a config says of which."""
        if not named_as_timm(shapes, config) or "cls_token" not in shapes or "reg_token" in shapes or "dist_token" in shapes:
            return False
        facts = config.get("pretrained_cfg")
        if "decoder_pred.weight" in shapes or isinstance(facts, Mapping):
            return "decoder_pred.weight" in shapes or facts.get("tag") == "mae"  # type: ignore[union-attr]
        return "head.weight" not in shapes and "norm.weight" in shapes and not any("ls1." in name or "q_norm" in name for name in shapes)

    def read(self, checkpoint: Checkpoint, options: ImportOptions) -> list[Part]:
        """Read; the settings are ``statistics`` ("imagenet" by default) and ``grid``, as of ViT."""
        vision.check_settings(options, "statistics", "grid")
        sizes = timm_sizes(checkpoint, options, trained_positions=False, statistics="imagenet")
        model = PretrainedModel(settings_of(sizes))
        return [Part(model, self.keymap(sizes, special_tokens(checkpoint.shapes)) + KeyMap([], {}, vision.without_mask_token(model)))]

    def keymap(self, sizes: Sizes, tokens: Mapping[str, int]) -> KeyMap:
        """Return where the tensors are."""
        return timm_keymap(sizes, tokens) + KeyMap([], {"decoder_*": DECODER, "mask_token": DECODER})

    def write(self, model: nn.Module) -> Written:
        """Write the encoder.

        Raises:
            ValueError: it has parts that MAE does not have.
        """
        assert isinstance(model, PretrainedModel)
        sizes = sizes_of(model)
        if sizes.special != 1:
            raise ValueError(f"MAE has a class token and no others; this encoder has {sizes.special}.")
        return Written(timm_keymap(sizes, {"cls_token": 1}).to_theirs(model.state_dict()))

    def options_for(self, model: PretrainedModel) -> ImportOptions:
        """Return what the tensors do not tell; there is no config."""
        return vision.options_for(model, sizes_of(model).grid)


class TransformersMae(Format):
    """The names in the files of transformers."""

    family, layout = "mae", "transformers"
    licence, source = "CC-BY-NC 4.0 (non-commercial)", "https://huggingface.co/docs/transformers/model_doc/vit_mae"

    def matches(self, shapes: Shapes, config: Mapping[str, Any]) -> bool:
        """The names of a ViT beside a decoder or a config of ViT-MAE."""
        if transformers_prefix(shapes) is None:
            return False
        return "decoder.decoder_embed.weight" in shapes or config.get("model_type") == "vit_mae"

    def read(self, checkpoint: Checkpoint, options: ImportOptions) -> list[Part]:
        """Read; the settings are ``statistics`` ("imagenet" by default) and ``grid``, as of ViT."""
        vision.check_settings(options, "statistics", "grid")
        prefix = transformers_prefix(checkpoint.shapes)
        assert prefix is not None
        sizes = transformers_sizes(checkpoint, options, prefix, trained_positions=False)
        model = PretrainedModel(settings_of(sizes))
        kept = vision.without_mask_token(model)
        return [Part(model, transformers_keymap(sizes, prefix, mask=False) + KeyMap([], {"decoder.*": DECODER}, kept))]

    def write(self, model: nn.Module) -> Written:
        """Write the encoder: names and config of ``ViTMAEModel``.

        Raises:
            ValueError: it has parts that this class does not have.
        """
        assert isinstance(model, PretrainedModel)
        sizes = sizes_of(model)
        check_transformers(sizes)
        if sizes.special != 1 or sizes.head:
            raise ValueError("ViTMAEModel has a class token and no classifier: write the layout transformers of ViT, or timm.")
        config = {**transformers_config(sizes, "vit_mae", "ViTMAEModel"), "mask_ratio": 0.75}
        tensors = transformers_keymap(sizes, "", mask=False).to_theirs(model.state_dict())
        return Written(tensors, config, vision.preprocessor_of(model, sizes.grid, sizes.patch))


FORMATS = (OriginalMae(), TransformersMae(), Renamed(TransformersMae()))
