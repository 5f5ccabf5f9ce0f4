"""BEiT-3 (https://arxiv.org/abs/2208.10442): one encoder of images and texts whose linear layers and norms exist for each (Multiway).

In each table "A" is of images and "B" of texts: experts 0 and 1 here. Sources: microsoft/unilm ``beit3/modeling_utils.py`` and
``modeling_finetune.py``; microsoft/torchscale ``model/BEiT3.py``.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from multimodal.pretrained.checkpoint import Checkpoint
from multimodal.pretrained.format import Format, ImportOptions, Part, Shapes, Written, count_layers, heads_of
from multimodal.pretrained.formats import layers, vision, words
from multimodal.pretrained.formats.layers import TrunkSizes
from multimodal.pretrained.keymap import Entry, KeyMap, joined, pair, same
from multimodal.pretrained.model import PretrainedModel
from multimodal.pretrained.settings import ModelSettings, part

PREFIX = "beit3."
EPS = 1e-5
EXPERTS = ("A", "B")
OFFSET = 2
"""Rows of both tables of positions that are not used; in that of images the class token's row is next."""
FINETUNED = "a fine-tuned head of another shape than any here; the encoder is imported without it"
IGNORED = {
    "head.*": FINETUNED,
    "pooler.*": FINETUNED,
    "fc_norm.*": FINETUNED,
    "*language_head.weight": "projection for retrieval; the encoder is imported without it",
    "*vision_head.weight": "projection for retrieval; the encoder is imported without it",
    "logit_scale": "temperature of the contrastive loss",
    "mim_head.*": "a head for masked images of another shape than any here",
}


@dataclass(frozen=True)
class Sizes(TrunkSizes):
    """What the tensors of a BEiT-3 tell.

    Args:
        patch: side of a patch, pixels.
        channels: of the images.
        window: patches a side.
        vocab: ids of texts.
        mask_id: of the mask; None: unknown.
        max_length: tokens of a text.
        output_norm: whether a norm follows the last layer.
        predicts: whether there is a masked-word head.
        classes: of an image classifier (mean of the patches, norm, linear); 0 without.
        statistics: mean and standard deviation of the pixels.
    """

    patch: int
    channels: int
    window: int
    vocab: int
    mask_id: int | None
    max_length: int
    output_norm: bool
    predicts: bool
    classes: int
    statistics: vision.Statistics


def settings_of(sizes: Sizes) -> ModelSettings:
    """Return how to build the model."""
    norm, side = layers.norm(EPS), sizes.window
    position = part(layers.NN + "LearnedPosition", size=[side, side], offset=OFFSET)
    image = vision.image_embed(sizes.patch, sizes.channels, sizes.statistics, position)
    text = part(
        "multimodal.tokenizers.text.TextEmbed",
        vocab_size=sizes.vocab,
        mask_id=sizes.mask_id,
        position=part(layers.NN + "LearnedPosition", size=[sizes.max_length], offset=OFFSET),
    )
    encoder = layers.encoder(
        sizes.dim,
        sizes.depth,
        sizes.heads,
        attention=layers.attention(inner_norm=norm),
        mlp=layers.mlp(sizes.hidden, inner_norm=norm),
        norm=norm,
        norm_at="output" if sizes.output_norm else "none",
        class_token=True,
        special_positions=True,
        num_experts=len(EXPERTS),
    )
    heads = {}
    if sizes.predicts:
        heads["text_tokens"] = part(layers.NN + "PredictionHead", vocab_sizes=[sizes.vocab])
    if sizes.classes:
        heads["classes"] = part("multimodal.heads.ClassificationHead", num_classes=sizes.classes, pool="mean", norm=norm)
    transforms = vision.image_transforms((side, side), sizes.patch, sizes.channels)
    return ModelSettings(encoder, {"image": image, "text": text}, heads, transforms, {"image": 0, "text": 1})


def sizes_of(model: PretrainedModel) -> Sizes:
    """Return the sizes of a model of ours.

    Raises:
        ValueError: it has a head that the layout does not have.
    """
    settings = model.settings
    encoder, image, text = settings.encoder["init_args"], *(settings.embeds[name]["init_args"] for name in ("image", "text"))
    heads = {name: dict(head.get("init_args", {})) for name, head in settings.heads.items()}
    classes = heads.get("classes", {})
    if set(heads) - {"text_tokens", "classes"} or (classes and (classes.get("pool") != "mean" or not classes.get("norm"))):
        raise ValueError(f"BEiT-3's layout holds 'text_tokens', and 'classes' with pool 'mean' and a norm; the model has {heads}.")
    return Sizes(
        dim=encoder["dim"],
        depth=encoder["depth"],
        heads=encoder["num_heads"],
        hidden=encoder["mlp"]["init_args"]["hidden_dim"],
        patch=image["patch_size"],
        channels=image["channels"],
        window=image["position"]["init_args"]["size"][0],
        vocab=text["vocab_size"],
        mask_id=text["mask_id"],
        max_length=text["position"]["init_args"]["size"][0],
        output_norm=encoder["norm_at"] == "output",
        predicts="text_tokens" in heads,
        classes=classes.get("num_classes", 0),
        statistics=(tuple(image["mean"]), tuple(image["std"])),
    )


def image_positions() -> Entry:
    """Return the entry of the table of image positions: unused rows, the class token's row, and those of the patches."""

    def to_ours(x: list[Tensor]) -> list[Tensor]:
        return [torch.cat([x[0][:OFFSET], x[0][OFFSET + 1 :]]), x[0][OFFSET : OFFSET + 1]]

    def to_theirs(x: list[Tensor]) -> list[Tensor]:
        return [torch.cat([x[0][:OFFSET], x[1], x[0][OFFSET:]])]

    ours = ("embeds.image.position.table", "encoder.special.positions")
    return Entry(ours, (PREFIX + "encoder.embed_positions.A.weight",), to_ours, to_theirs)


def layer_entries(number: int) -> list[Entry]:
    """Return the entries of a layer, of both experts."""
    entries, theirs = [], f"{PREFIX}encoder.layers.{number}."
    for i, expert in enumerate(EXPERTS):
        ours = f"encoder.blocks.{number}.experts.{i}."
        for leaf in ("weight", "bias"):
            parts = [f"{theirs}self_attn.{name}_proj.{expert}.{leaf}" for name in ("q", "k", "v")]
            entries.append(joined(f"{ours}attn.qkv.{leaf}", parts))
        for mine, its in (
            ("attn.proj", f"self_attn.out_proj.{expert}"),
            ("attn.inner_norm", f"self_attn.inner_attn_ln.{expert}"),
            ("norm1", f"self_attn_layer_norm.{expert}"),
            ("norm2", f"final_layer_norm.{expert}"),
            ("mlp.fc1", f"ffn.{expert}.fc1"),
            ("mlp.fc2", f"ffn.{expert}.fc2"),
            ("mlp.inner_norm", f"ffn.{expert}.ffn_layernorm"),
        ):
            entries += pair(ours + mine, theirs + its)
    return entries


class UnilmBeit3(Format):
    """The names of unilm: the encoder with a prefix, heads without."""

    family, layout = "beit3", "unilm"
    licence, source = "MIT (https://github.com/microsoft/unilm)", "https://github.com/microsoft/unilm/tree/master/beit3"

    def matches(self, shapes: Shapes, config: Mapping[str, Any]) -> bool:
        """Its prefix, and projections of two experts."""
        names = {PREFIX + "vision_embed.proj.weight", *(f"{PREFIX}encoder.layers.0.self_attn.q_proj.{expert}.weight" for expert in EXPERTS)}
        return not names - shapes.keys()

    def read(self, checkpoint: Checkpoint, options: ImportOptions) -> list[Part]:
        """Read; settings: ``statistics``, "half" or "imagenet", what the images were normalised with, and ``mask_id`` of the texts."""
        vision.check_settings(options, "statistics", "mask_id")
        shapes = checkpoint.shapes
        (vocab, dim), patch = shapes[PREFIX + "text_embed.weight"], shapes[PREFIX + "vision_embed.proj.weight"]
        rows = [shapes[f"{PREFIX}encoder.embed_positions.{expert}.weight"][0] for expert in EXPERTS]
        window = math.isqrt(rows[0] - OFFSET - 1)
        if window**2 + OFFSET + 1 != rows[0]:
            raise ValueError(f"a table of {rows[0]} image positions is of no square of patches: it needs 3 more rows than patches.")
        classifies = "fc_norm.weight" in shapes and "head.weight" in shapes
        default = "imagenet" if classifies else "half"
        sizes = Sizes(
            dim=dim,
            depth=count_layers(shapes, r"beit3\.encoder\.layers\.(\d+)\."),
            heads=heads_of(dim, options),
            hidden=shapes[f"{PREFIX}encoder.layers.0.ffn.A.fc1.weight"][0],
            patch=patch[2],
            channels=patch[1],
            window=window,
            vocab=vocab,
            mask_id=words.mask_id_of(checkpoint, options),
            max_length=rows[1] - OFFSET,
            output_norm=PREFIX + "encoder.layer_norm.A.weight" in shapes,
            predicts="mlm_head.weight" in shapes,
            classes=shapes["head.weight"][0] if classifies else 0,
            statistics=vision.statistics_of(checkpoint, options, default, patch[1]),
        )
        return [Part(PretrainedModel(settings_of(sizes)), self.keymap(sizes))]

    def keymap(self, sizes: Sizes) -> KeyMap:
        """Return where the tensors are."""
        entries = [entry for number in range(sizes.depth) for entry in layer_entries(number)]
        image = PREFIX + "vision_embed."
        entries += layers.patch_projection("embeds.image.proj", image + "proj", (sizes.dim, sizes.channels, sizes.patch, sizes.patch))
        entries += [vision.mask_token(image + "mask_token"), vision.stacked_tokens("encoder.special.tokens", [image + "cls_token"], [1])]
        entries.append(same("embeds.text.words.weight", PREFIX + "text_embed.weight"))
        entries += [image_positions(), same("embeds.text.position.table", PREFIX + "encoder.embed_positions.B.weight")]
        for i, expert in enumerate(EXPERTS) if sizes.output_norm else ():
            entries += pair(f"encoder.norm.experts.{i}", f"{PREFIX}encoder.layer_norm.{expert}")
        entries += pair("heads.text_tokens.proj", "mlm_head") if sizes.predicts else []
        entries += [*pair("heads.classes.norm", "fc_norm"), *pair("heads.classes.proj", "head")] if sizes.classes else []
        return KeyMap(entries, IGNORED)

    def write(self, model: nn.Module) -> Written:
        """Write the names of unilm."""
        assert isinstance(model, PretrainedModel)
        return Written(self.keymap(sizes_of(model)).to_theirs(model.state_dict()))


FORMATS = (UnilmBeit3(),)
