"""BEiT and BEiT v2 (https://arxiv.org/abs/2106.08254, https://arxiv.org/abs/2208.06366): masked-image models and classifiers.

Sources: microsoft/unilm ``beit/modeling_pretrain.py``, ``beit/modeling_finetune.py``, ``beit2/modeling_pretrain.py``; timm ``models/beit.py``;
transformers ``models/beit``.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import nn

from multimodal.pretrained.checkpoint import Checkpoint
from multimodal.pretrained.format import Format, ImportOptions, Part, Shapes, Written, count_layers
from multimodal.pretrained.formats import layers
from multimodal.pretrained.formats.layers import LayerNames
from multimodal.pretrained.keymap import Entry, KeyMap, pair, same, shaped
from multimodal.pretrained.model import PretrainedModel
from multimodal.pretrained.settings import ModelSettings, part

IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
HALF = ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
REBUILT = "an index that is computed, not learned"

TRANSFORMERS_LAYER = LayerNames(
    query="attention.attention.query",
    key="attention.attention.key",
    value="attention.attention.value",
    proj="attention.output.dense",
    norm1="layernorm_before",
    norm2="layernorm_after",
    fc1="intermediate.dense",
    fc2="output.dense",
    scale1="lambda_1",
    scale2="lambda_2",
)

@dataclass(frozen=True)
class Sizes:
    """What the tensors of a BEiT tell.

    Args:
        dim: width.
        depth: layers.
        heads: attention heads.
        hidden: width of the MLP.
        patch: side of a patch, pixels.
        channels: of the images.
        window: patches a side.
        shared: whether one relative bias serves all layers.
        scales: whether there is layer scale.
        eps: of the norms.
        vocab: ids of the masked-image head; 0 without.
        classes: of the classifier; 0 without.
        pooled_norm: whether a norm follows the mean of the patches, instead of one after the last layer.
        mask_token: whether the checkpoint has one.
    """

    dim: int
    depth: int
    heads: int
    hidden: int
    patch: int
    channels: int
    window: int
    shared: bool
    scales: bool
    eps: float
    vocab: int
    classes: int
    pooled_norm: bool
    mask_token: bool


def settings_of(sizes: Sizes, statistics: tuple[tuple[float, ...], tuple[float, ...]]) -> ModelSettings:
    """Return how to build the model."""
    norm = layers.norm(sizes.eps)
    heads = {}
    if sizes.vocab:
        heads["tokens"] = part(layers.NN + "PredictionHead", vocab_sizes=[sizes.vocab])
    if sizes.classes:
        pooled = norm if sizes.pooled_norm else None
        heads["classes"] = part("multimodal.heads.ClassificationHead", num_classes=sizes.classes, pool="mean" if pooled else "class", norm=pooled)
    image = part("multimodal.tokenizers.image.ImageTransform", size=sizes.window * sizes.patch, channels=sizes.channels)
    embed = part(
        "multimodal.tokenizers.image.PatchEmbed",
        patch_size=sizes.patch,
        channels=sizes.channels,
        mean=list(statistics[0][: sizes.channels]),
        std=list(statistics[1][: sizes.channels]),
        position=None,
    )
    encoder = layers.encoder(
        sizes.dim,
        sizes.depth,
        sizes.heads,
        attention=layers.attention("query_value"),
        mlp=layers.mlp(sizes.hidden),
        norm=norm,
        norm_at="none" if sizes.pooled_norm else "output",
        layer_scale=0.1 if sizes.scales else None,
        bias=part(layers.NN + "RelativeBias2d", window=[sizes.window, sizes.window]),
        share_bias=sizes.shared,
        class_token=True,
    )
    return ModelSettings(encoder, {"image": embed}, heads, {"image": image})


def window_of(rows: int) -> int:
    """Return the patches a side of a table with ``(2 side - 1) ** 2 + 3`` rows.

    Raises:
        ValueError: no square window has that many.
    """
    side = (math.isqrt(rows - 3) + 1) // 2
    if (2 * side - 1) ** 2 + 3 != rows:
        raise ValueError(f"a relative bias table of {rows} rows is of no square window.")
    return side


def statistics_of(options: ImportOptions, default: str) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return mean and standard deviation of the pixels, as the user names them.

    Raises:
        ValueError: they have no such name.
    """
    name = options.settings.get("statistics", default)
    if name not in ("half", "imagenet"):
        raise ValueError(f"statistics must be 'half' or 'imagenet', got {name!r}.")
    return HALF if name == "half" else IMAGENET


def image_entries(sizes: Sizes, projection: str, class_token: str, mask_token: str) -> list[Entry]:
    """Return the entries of what stands before the layers."""
    dim = sizes.dim
    entries = layers.patch_projection("embeds.image.proj", projection, (dim, sizes.channels, sizes.patch, sizes.patch))
    entries.append(shaped("encoder.special.tokens", class_token, (1, dim), (1, 1, dim)))
    if sizes.mask_token:
        entries.append(shaped("embeds.image.mask_token", mask_token, (dim,), (1, 1, dim)))
    return entries


def kept_mask(sizes: Sizes) -> dict[str, str]:
    """Say that a checkpoint without mask token leaves ours as it is."""
    return {} if sizes.mask_token else {"embeds.image.mask_token": "a classifier has no mask token; the first values stay"}


def class_names(model: PretrainedModel, count: int) -> list[str]:
    """Return the names of the classes, or numbers."""
    return list(model.settings.labels) or [f"LABEL_{i}" for i in range(count)]


def sizes_of(model: PretrainedModel) -> Sizes:
    """Return the sizes of a model of ours.

    Raises:
        ValueError: it has parts that BEiT does not have.
    """
    encoder, embed = model.settings.encoder["init_args"], model.settings.embeds.get("image", {}).get("init_args")
    bias = encoder.get("bias") or {}
    if embed is None or bias.get("class_path", "").rpartition(".")[2] != "RelativeBias2d":
        raise ValueError("only an encoder of images with RelativeBias2d can be written as BEiT.")
    heads = model.settings.heads
    return Sizes(
        dim=encoder["dim"],
        depth=encoder["depth"],
        heads=encoder["num_heads"],
        hidden=model.encoder.layers(0)[0].mlp.fc1.out_features,
        patch=embed["patch_size"],
        channels=embed.get("channels", 3),
        window=bias["init_args"]["window"][0],
        shared=encoder.get("share_bias", True),
        scales=encoder.get("layer_scale") is not None,
        eps=float(encoder["norm"]["init_args"]["eps"]),
        vocab=heads["tokens"]["init_args"]["vocab_sizes"][0] if "tokens" in heads else 0,
        classes=heads["classes"]["init_args"]["num_classes"] if "classes" in heads else 0,
        pooled_norm=encoder.get("norm_at", "output") == "none",
        mask_token="classes" not in heads,
    )


class UnilmBeit(Format):
    """The names of unilm, which timm has too."""

    family, layout = "beit", "unilm"
    licence, source = "MIT (https://github.com/microsoft/unilm)", "https://github.com/microsoft/unilm/tree/master/beit"

    def matches(self, shapes: Shapes, config: Mapping[str, Any]) -> bool:
        """A relative bias table, shared or of the first layer, beside timm's names."""
        tables = ("rel_pos_bias.relative_position_bias_table", "blocks.0.attn.relative_position_bias_table")
        return "patch_embed.proj.weight" in shapes and any(name in shapes for name in tables)

    def read(self, checkpoint: Checkpoint, options: ImportOptions) -> list[Part]:
        """Read; the setting ``statistics`` is "half" or "imagenet": what the images were normalised with, which the tensors do not tell."""
        shapes = checkpoint.shapes
        shared = "rel_pos_bias.relative_position_bias_table" in shapes
        table = shapes["rel_pos_bias.relative_position_bias_table" if shared else "blocks.0.attn.relative_position_bias_table"]
        patch = shapes["patch_embed.proj.weight"]
        sizes = Sizes(
            dim=patch[0],
            depth=count_layers(shapes, r"blocks\.(\d+)\."),
            heads=table[1],
            hidden=shapes["blocks.0.mlp.fc1.weight"][0],
            patch=patch[2],
            channels=patch[1],
            window=window_of(table[0]),
            shared=shared,
            scales="blocks.0.gamma_1" in shapes,
            eps=1e-6,
            vocab=shapes.get("lm_head.weight", (0,))[0],
            classes=shapes.get("head.weight", (0,))[0],
            pooled_norm="fc_norm.weight" in shapes,
            mask_token="mask_token" in shapes,
        )
        default = "imagenet" if "cls_pt_layers.0.norm1.weight" in shapes else "half"
        settings = settings_of(sizes, statistics_of(options, default))
        return [Part(PretrainedModel(settings), self.keymap(sizes))]

    def keymap(self, sizes: Sizes) -> KeyMap:
        """Return where the tensors are."""
        entries = layers.fused_layers(sizes.depth, "encoder.blocks.{}", "blocks.{}", "query_value", sizes.scales)
        entries += image_entries(sizes, "patch_embed.proj", "cls_token", "mask_token")
        if sizes.shared:
            entries.append(same("encoder.bias.table", "rel_pos_bias.relative_position_bias_table"))
        else:
            name = "blocks.{}.attn.relative_position_bias_table"
            entries += [same(f"encoder.blocks.{i}.attn.position_bias.table", name.format(i)) for i in range(sizes.depth)]
        if sizes.pooled_norm:
            entries += pair("heads.classes.norm", "fc_norm") if sizes.classes else []
        else:
            entries += pair("encoder.norm", "norm")
        entries += pair("heads.tokens.proj", "lm_head") if sizes.vocab else []
        entries += pair("heads.classes.proj", "head") if sizes.classes else []
        late = "layers of the pretraining head (class token and early patches) that no later use needs"
        ignored = {"*relative_position_index": REBUILT, "cls_pt_*": late}
        return KeyMap(entries, ignored, kept_mask(sizes))

    def write(self, model: nn.Module) -> Written:
        """Write the names of unilm."""
        assert isinstance(model, PretrainedModel)
        return Written(self.keymap(sizes_of(model)).to_theirs(model.state_dict()))


class TransformersBeit(Format):
    """The names in the files of transformers."""

    family, layout = "beit", "transformers"
    licence, source = "Apache-2.0 (as on the hub)", "https://huggingface.co/docs/transformers/model_doc/beit"

    def matches(self, shapes: Shapes, config: Mapping[str, Any]) -> bool:
        """The prefix of BEiT's classes, or of the bare model, with a layer scale or a query without key bias."""
        return any(f"{p}encoder.layer.0.lambda_1" in shapes and f"{p}embeddings.cls_token" in shapes for p in ("beit.", ""))

    def read(self, checkpoint: Checkpoint, options: ImportOptions) -> list[Part]:
        """Read; the setting ``statistics`` is "half" or "imagenet"."""
        shapes, config = checkpoint.shapes, checkpoint.config
        prefix = "beit." if "beit.embeddings.cls_token" in shapes else ""
        shared = f"{prefix}encoder.relative_position_bias.relative_position_bias_table"
        own = f"{prefix}encoder.layer.0.attention.attention.relative_position_bias.relative_position_bias_table"
        if shared not in shapes and own not in shapes:
            raise ValueError("a BEiT with absolute positions alone is not among the published models: it has no relative bias.")
        table, patch = shapes[shared if shared in shapes else own], shapes[f"{prefix}embeddings.patch_embeddings.projection.weight"]
        sizes = Sizes(
            dim=patch[0],
            depth=count_layers(shapes, re.escape(prefix) + r"encoder\.layer\.(\d+)\."),
            heads=table[1],
            hidden=shapes[f"{prefix}encoder.layer.0.intermediate.dense.weight"][0],
            patch=patch[2],
            channels=patch[1],
            window=window_of(table[0]),
            shared=shared in shapes,
            scales=True,
            eps=float(config.get("layer_norm_eps", 1e-12)),
            vocab=shapes.get("lm_head.weight", (0,))[0],
            classes=shapes.get("classifier.weight", (0,))[0],
            pooled_norm=f"{prefix}pooler.layernorm.weight" in shapes,
            mask_token=f"{prefix}embeddings.mask_token" in shapes,
        )
        settings = settings_of(sizes, statistics_of(options, "half"))
        return [Part(PretrainedModel(settings), self.keymap(sizes, prefix))]

    def keymap(self, sizes: Sizes, prefix: str = "beit.") -> KeyMap:
        """Return where the tensors are."""
        entries = layers.separate_layers(sizes.depth, "encoder.blocks.{}", prefix + "encoder.layer.{}", TRANSFORMERS_LAYER, "query_value")
        e = prefix + "embeddings."
        entries += image_entries(sizes, e + "patch_embeddings.projection", e + "cls_token", e + "mask_token")
        table = "relative_position_bias.relative_position_bias_table"
        if sizes.shared:
            entries.append(same("encoder.bias.table", f"{prefix}encoder.{table}"))
        else:
            name = f"{prefix}encoder.layer.{{}}.attention.attention.{table}"
            entries += [same(f"encoder.blocks.{i}.attn.position_bias.table", name.format(i)) for i in range(sizes.depth)]
        if sizes.pooled_norm:
            entries += pair("heads.classes.norm", prefix + "pooler.layernorm") if sizes.classes else []
        else:
            entries += pair("encoder.norm", "layernorm")
        entries += pair("heads.tokens.proj", "lm_head") if sizes.vocab else []
        entries += pair("heads.classes.proj", "classifier") if sizes.classes else []
        return KeyMap(entries, {"*relative_position_index": REBUILT}, kept_mask(sizes))

    def write(self, model: nn.Module) -> Written:
        """Write names and config of transformers."""
        assert isinstance(model, PretrainedModel)
        sizes = sizes_of(model)
        config = {
            "model_type": "beit",
            "architectures": ["BeitForMaskedImageModeling" if sizes.vocab else "BeitForImageClassification" if sizes.classes else "BeitModel"],
            "hidden_size": sizes.dim,
            "num_hidden_layers": sizes.depth,
            "num_attention_heads": sizes.heads,
            "intermediate_size": sizes.hidden,
            "image_size": sizes.window * sizes.patch,
            "patch_size": sizes.patch,
            "num_channels": sizes.channels,
            "layer_norm_eps": sizes.eps,
            "use_mask_token": sizes.mask_token,
            "use_shared_relative_position_bias": sizes.shared,
            "use_relative_position_bias": not sizes.shared,
            "use_mean_pooling": sizes.pooled_norm or not sizes.classes,
            "layer_scale_init_value": 0.1,
            **({"vocab_size": sizes.vocab} if sizes.vocab else {}),
            **({"id2label": {str(i): name for i, name in enumerate(class_names(model, sizes.classes))}} if sizes.classes else {}),
        }
        return Written(self.keymap(sizes).to_theirs(model.state_dict()), config)


FORMATS = (UnilmBeit(), TransformersBeit())
