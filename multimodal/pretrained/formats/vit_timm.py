"""The names of timm's ViT, which MAE has too."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from multimodal.pretrained.checkpoint import Checkpoint
from multimodal.pretrained.format import ImportOptions, Shapes, count_layers, heads_of
from multimodal.pretrained.formats import layers, vision
from multimodal.pretrained.formats.vit_sizes import Head, Sizes, head_entries, patch_entries
from multimodal.pretrained.keymap import KeyMap, pair

BEFORE_CLASSES = "a norm of the mean patch, which only a classifier uses, and the checkpoint has none"
WIDE_HEADS = {1408: 16, 1664: 16}
"""Heads of published encoders whose heads are not 64 wide: ViT-g and ViT-G."""


def named_as_timm(shapes: Shapes, config: Mapping[str, Any]) -> bool:
    """Return whether tensors have the names of timm's ViT, and are of images: one channel is audio, unless timm's config lies beside."""
    patch = shapes.get("patch_embed.proj.weight", ())
    named = {"pos_embed", "blocks.0.attn.qkv.weight", "blocks.0.mlp.fc1.weight", "blocks.0.norm1.weight"} <= shapes.keys()
    other = any(name in shapes for name in ("blocks.0.attn.q_bias", "blocks.0.gamma_1", "blocks.0.attn.relative_position_bias_table"))
    return named and not other and len(patch) == 4 and (patch[1] > 1 or "architecture" in config)


def special_tokens(shapes: Shapes) -> dict[str, int]:
    """Return the names of class, distillation and register tokens, in order, and how many each is.

    Raises:
        ValueError: there are registers, and no class token that they follow.
    """
    tokens = {name: shapes[name][1] for name in ("cls_token", "dist_token", "reg_token") if name in shapes}
    if tokens and "cls_token" not in tokens:
        raise ValueError("register tokens without a class token have no place in our encoder, whose registers follow one.")
    return tokens


def written_tokens(sizes: Sizes) -> dict[str, int]:
    """Return the names that special tokens get: a second one is DeiT's if a classifier reads it, or if it has a position and none does."""
    if sizes.special < 2:
        return {"cls_token": 1} if sizes.special else {}
    distilled = sizes.head == "distilled" or (sizes.special == 2 and sizes.special_positions and not sizes.head)
    return {"cls_token": 1, "dist_token" if distilled else "reg_token": sizes.special - 1}


def timm_sizes(checkpoint: Checkpoint, options: ImportOptions, trained_positions: bool = True, statistics: str = "half") -> Sizes:
    """Return the sizes of a model in the names of timm.

    Args:
        checkpoint: the tensors, and timm's config where there is one.
        options: as of the format.
        trained_positions: False for fixed ones (MAE).
        statistics: of the pixels, where nothing says them.

    Raises:
        ValueError: it has parts that our encoder does not have, or its sizes contradict each other.
    """
    shapes, config = checkpoint.shapes, checkpoint.config
    if "norm_pre.weight" in shapes or "attn_pool.latent" in shapes:
        raise ValueError("it has a norm before the layers or a pool with attention (CLIP, SigLIP): it is no plain ViT.")
    patch = shapes["patch_embed.proj.weight"]
    special, places = sum(special_tokens(shapes).values()), shapes["pos_embed"][1]
    dim, hidden = patch[0], shapes["blocks.0.mlp.fc1.weight"][0]
    if shapes["blocks.0.mlp.fc2.weight"][1] != hidden:
        raise ValueError("its MLP is gated, which plain ViTs do not have.")
    named = vision.named_grid(options, _image_size(config), patch[2])
    own = special > 0 and (math.isqrt(places) ** 2 != places if named is None else math.prod(named) != places)
    head, classes = _head(shapes, config)
    return Sizes(
        dim=dim,
        depth=count_layers(shapes, r"blocks\.(\d+)\."),
        heads=_heads(shapes, options, config),
        hidden=hidden,
        patch=patch[2],
        channels=patch[1],
        grid=vision.grid_of(places - special * own, options, _image_size(config), patch[2]),
        eps=1e-6,
        special=special,
        special_positions=own,
        bias="all" if "blocks.0.attn.qkv.bias" in shapes else "none",
        scales="blocks.0.ls1.gamma" in shapes,
        qk_norm="blocks.0.attn.q_norm.weight" in shapes,
        last_norm="norm.weight" in shapes,
        head=head,
        classes=classes,
        trained_positions=trained_positions,
        statistics=vision.statistics_of(checkpoint, options, "imagenet" if "dist_token" in shapes else statistics, patch[1]),
        labels=vision.labels_of(config, classes),
    )


def _image_size(config: Mapping[str, Any]) -> Any:
    """Return height and width of the images where a config of timm tells them and they differ, or None."""
    arguments, facts = config.get("model_args") or {}, config.get("pretrained_cfg") or {}
    size = arguments.get("img_size") or (facts.get("input_size") or [0])[1:]
    return size if isinstance(size, list) and len(size) == 2 and size[0] != size[1] else None


def _heads(shapes: Shapes, options: ImportOptions, config: Mapping[str, Any]) -> int:
    dim, norm = shapes["patch_embed.proj.weight"][0], shapes.get("blocks.0.attn.q_norm.weight")
    told = (config.get("model_args") or {}).get("num_heads") or (dim // norm[0] if norm else WIDE_HEADS.get(dim))
    return heads_of(dim, vision.with_heads(options, told))


def _head(shapes: Shapes, config: Mapping[str, Any]) -> tuple[Head, int]:
    """Return what the classifier reads, and how many classes it has."""
    classes = shapes.get("head.weight", (0,))[0]
    if not classes:
        return "", 0
    pool = config.get("global_pool", "token" if "cls_token" in shapes else "avg")
    if pool not in ("token", "avg", ""):
        raise ValueError(f"its classifier reads the pool {pool!r} of the tokens; 'token' and 'avg' are known.")
    if "head_dist.weight" in shapes:
        return "distilled", classes
    return ("normed_mean" if "fc_norm.weight" in shapes else "mean" if pool == "avg" else "class"), classes


def timm_keymap(sizes: Sizes, tokens: Mapping[str, int]) -> KeyMap:
    """Return where the tensors are; ``tokens`` as of ``special_tokens``."""
    ours, theirs, depth = "encoder.blocks.{}", "blocks.{}", sizes.depth
    entries = layers.fused_layers(depth, ours, theirs, sizes.bias)
    entries += vision.scales(ours, theirs, depth, ("ls1.gamma", "ls2.gamma")) if sizes.scales else []
    for i in range(depth if sizes.qk_norm else 0):
        a, b = f"{ours.format(i)}.attn", f"{theirs.format(i)}.attn"
        entries += [*pair(f"{a}.query_norm", f"{b}.q_norm"), *pair(f"{a}.key_norm", f"{b}.k_norm")]
    if tokens:
        entries.append(vision.stacked_tokens("encoder.special.tokens", list(tokens), list(tokens.values())))
    entries += patch_entries(sizes, "patch_embed.proj", "pos_embed")
    return KeyMap(entries + head_entries(sizes, "norm", "head", "head_dist", "fc_norm"), {"fc_norm.*": BEFORE_CLASSES})


def timm_config(sizes: Sizes) -> dict[str, Any]:
    """Return a ``config.json`` that ``timm.create_model("local-dir:...")`` reads."""
    pool = "avg" if sizes.head in ("mean", "normed_mean") or not sizes.special else "token"
    size = [side * sizes.patch for side in sizes.grid]
    distilled = "dist_token" in written_tokens(sizes)
    arguments = {
        "img_size": size,
        "patch_size": sizes.patch,
        "in_chans": sizes.channels,
        "embed_dim": sizes.dim,
        "depth": sizes.depth,
        "num_heads": sizes.heads,
        "mlp_ratio": sizes.hidden / sizes.dim,
        "qkv_bias": sizes.bias == "all",
        "qk_norm": sizes.qk_norm,
        "init_values": 1e-5 if sizes.scales else None,
        "global_pool": pool,
    }
    if not distilled:  # those of DeiT are fixed
        arguments |= {
            "class_token": sizes.special > 0,
            "reg_tokens": max(sizes.special - 1, 0),
            "no_embed_class": not sizes.special_positions,
        }
        arguments |= {"fc_norm": sizes.head == "normed_mean", "final_norm": sizes.last_norm or sizes.head == "normed_mean"}
    mean, std = (list(x) for x in sizes.statistics)
    return {
        "architecture": "deit_base_distilled_patch16_224" if distilled else "vit_base_patch16_224",
        "num_classes": sizes.classes,
        "num_features": sizes.dim,
        "global_pool": pool,
        "model_args": arguments,
        **({"label_names": list(sizes.labels)} if sizes.labels else {}),
        "pretrained_cfg": {
            "input_size": [sizes.channels, *size],
            "mean": mean,
            "std": std,
            "num_classes": sizes.classes,
            "first_conv": "patch_embed.proj",
            "classifier": ["head", "head_dist"] if distilled else "head",
        },
    }
