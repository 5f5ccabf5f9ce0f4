"""The names of ViT, DeiT and the encoder of ViT-MAE in the files of transformers."""

from __future__ import annotations

import re
from typing import Any

from multimodal.pretrained.checkpoint import Checkpoint
from multimodal.pretrained.format import ImportOptions, Shapes, count_layers, heads_of
from multimodal.pretrained.formats import layers, vision
from multimodal.pretrained.formats.vit_sizes import Head, Sizes, head_entries, patch_entries
from multimodal.pretrained.keymap import KeyMap

POOLER = "a layer after the class token that no classifier of this family uses"
PIXELS = "a decoder to pixels of the pretraining"
PREFIXES = ("vit.", "deit.", "")


def transformers_prefix(shapes: Shapes) -> str | None:
    """Return what the names of a ViT, DeiT or ViT-MAE begin with; None: the tensors are of something else."""
    for prefix in PREFIXES:
        e, layer = f"{prefix}embeddings.", f"{prefix}encoder.layer.0."
        needed = {e + "cls_token", e + "position_embeddings", layer + "attention.attention.query.weight", layer + "layernorm_before.weight"}
        patch = shapes.get(e + "patch_embeddings.projection.weight", ())
        if needed <= shapes.keys() and layer + "lambda_1" not in shapes and len(patch) == 4:
            return prefix
    return None


def transformers_sizes(checkpoint: Checkpoint, options: ImportOptions, prefix: str, trained_positions: bool = True) -> Sizes:
    """Return the sizes of a model in the names of transformers.

    Args:
        checkpoint: the tensors, and the config where there is one.
        options: as of the format.
        prefix: of the names.
        trained_positions: False for fixed ones (MAE).

    Raises:
        ValueError: it has parts that our encoder does not have, or its sizes contradict each other.
    """
    shapes, config = checkpoint.shapes, checkpoint.config
    e, layer = f"{prefix}embeddings.", f"{prefix}encoder.layer.0."
    patch, special = shapes[e + "patch_embeddings.projection.weight"], 1 + (e + "distillation_token" in shapes)
    head, classes = _head(shapes)
    statistics = "imagenet" if special == 2 or not trained_positions else "half"
    return Sizes(
        dim=patch[0],
        depth=count_layers(shapes, re.escape(prefix) + r"encoder\.layer\.(\d+)\."),
        heads=heads_of(patch[0], vision.with_heads(options, config.get("num_attention_heads"))),
        hidden=shapes[layer + "intermediate.dense.weight"][0],
        patch=patch[2],
        channels=patch[1],
        grid=vision.grid_of(shapes[e + "position_embeddings"][1] - special, options, config.get("image_size"), patch[2]),
        eps=float(config.get("layer_norm_eps", 1e-12)),
        special=special,
        bias="all" if layer + "attention.attention.query.bias" in shapes else "none",
        last_norm=f"{prefix}layernorm.weight" in shapes,
        head=head,
        classes=classes,
        act=vision.activation_of(config),
        trained_positions=trained_positions,
        statistics=vision.statistics_of(checkpoint, options, statistics, patch[1]),
        labels=vision.labels_of(config, classes),
    )


def _head(shapes: Shapes) -> tuple[Head, int]:
    if "cls_classifier.weight" in shapes:
        return "distilled", shapes["cls_classifier.weight"][0]
    return ("class", shapes["classifier.weight"][0]) if "classifier.weight" in shapes else ("", 0)


def transformers_keymap(sizes: Sizes, prefix: str, mask: bool) -> KeyMap:
    """Return where the tensors are; ``mask``: whether there is a mask token."""
    layer, e = prefix + "encoder.layer.{}", prefix + "embeddings."
    entries = layers.separate_layers(sizes.depth, "encoder.blocks.{}", layer, vision.TRANSFORMERS_LAYER, sizes.bias)
    names = [e + "cls_token", e + "distillation_token"][: sizes.special]
    entries.append(vision.stacked_tokens("encoder.special.tokens", names, [1] * sizes.special))
    entries += [vision.mask_token(e + "mask_token")] if mask else []
    entries += patch_entries(sizes, e + "patch_embeddings.projection", e + "position_embeddings")
    distilled = sizes.head == "distilled"
    entries += head_entries(sizes, prefix + "layernorm", "cls_classifier" if distilled else "classifier", "distillation_classifier")
    return KeyMap(entries, {f"{prefix}pooler.*": POOLER, "decoder.*": PIXELS})


def check_transformers(sizes: Sizes) -> None:
    """Refuse what transformers' classes of this family cannot hold.

    Raises:
        ValueError: there is such a part; the message names it.
    """
    parts = {
        "layer scale": sizes.scales,
        "norms of queries and keys": sizes.qk_norm,
        "no class token": sizes.special == 0,
        "register tokens": sizes.special > 2,
        "class and register tokens without positions": not sizes.special_positions,
        "a classifier of the mean patch": sizes.head in ("mean", "normed_mean"),
        "no norm after the last layer": not sizes.last_norm,
    }
    if found := [name for name, has in parts.items() if has]:
        raise ValueError(f"transformers' ViT and DeiT cannot hold {', '.join(found)}: write the layout of timm.")


def transformers_config(sizes: Sizes, kind: str, architecture: str) -> dict[str, Any]:
    """Return ``config.json``, without what it says of classes."""
    rows, columns = (side * sizes.patch for side in sizes.grid)
    return {
        "model_type": kind,
        "architectures": [architecture],
        "hidden_size": sizes.dim,
        "num_hidden_layers": sizes.depth,
        "num_attention_heads": sizes.heads,
        "intermediate_size": sizes.hidden,
        "hidden_act": vision.hidden_act(sizes.act),
        "image_size": rows if rows == columns else [rows, columns],
        "patch_size": sizes.patch,
        "num_channels": sizes.channels,
        "qkv_bias": sizes.bias == "all",
        "layer_norm_eps": sizes.eps,
    }
