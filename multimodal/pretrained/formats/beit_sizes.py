"""The sizes of a BEiT <-> the settings of our model, and the key maps of what all its layouts have."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from multimodal.nn import RelativeBias2d
from multimodal.pretrained.format import ImportOptions
from multimodal.pretrained.formats import layers, vision
from multimodal.pretrained.formats.layers import TrunkSizes
from multimodal.pretrained.keymap import Entry, pair
from multimodal.pretrained.model import PretrainedModel
from multimodal.pretrained.settings import ModelSettings, part

REBUILT = "an index that is computed, not learned"
BEFORE_CLASSES = "a norm of the mean patch, which only a classifier uses, and the checkpoint has none"


@dataclass(frozen=True)
class Sizes(TrunkSizes):
    """What the tensors of a BEiT tell.

    Args:
        patch: side of a patch, pixels.
        channels: of the images.
        grid: rows and columns of patches.
        bias: whether one relative bias serves all layers, each has its own, or there is none.
        absolute: whether positions are added to the patches and the class token.
        scales: whether there is layer scale.
        eps: of the norms.
        vocab: ids of the masked-image head; 0 without.
        classes: of the classifier; 0 without.
        pooled_norm: whether the classifier reads a norm of the mean patch; otherwise it reads the class token.
        last_norm: whether a norm follows the last layer.
        mask_token: whether the checkpoint has one.
        act: activation of the MLP.
    """

    patch: int
    channels: int
    grid: tuple[int, int]
    bias: Literal["shared", "own", "none"]
    absolute: bool
    scales: bool
    eps: float
    vocab: int
    classes: int
    pooled_norm: bool
    last_norm: bool
    mask_token: bool
    act: str = "gelu"


def settings_of(sizes: Sizes, statistics: vision.Statistics, labels: tuple[str, ...] = ()) -> ModelSettings:
    """Return how to build the model."""
    norm = layers.norm(sizes.eps)
    heads = {}
    if sizes.vocab:
        heads["tokens"] = part(layers.NN + "PredictionHead", vocab_sizes=[sizes.vocab])
    if sizes.classes:
        pool, pooled = ("mean", norm) if sizes.pooled_norm else ("class", None)
        heads["classes"] = part("multimodal.heads.ClassificationHead", num_classes=sizes.classes, pool=pool, norm=pooled)
    encoder = layers.encoder(
        sizes.dim,
        sizes.depth,
        sizes.heads,
        attention=layers.attention("query_value"),
        mlp=layers.mlp(sizes.hidden, act=sizes.act),
        norm=norm,
        norm_at="output" if sizes.last_norm else "none",
        layer_scale=0.1 if sizes.scales else None,
        bias=None if sizes.bias == "none" else part(layers.NN + "RelativeBias2d", window=list(sizes.grid)),
        share_bias=sizes.bias == "shared",
        class_token=True,
        special_positions=sizes.absolute,
    )
    position = vision.learned_position(sizes.grid) if sizes.absolute else None
    embed = vision.image_embed(sizes.patch, sizes.channels, statistics, position)
    transforms = vision.image_transforms(sizes.grid, sizes.patch, sizes.channels)
    return ModelSettings(encoder, {"image": embed}, heads, transforms, labels=labels)


def sizes_of(model: PretrainedModel) -> Sizes:
    """Return the sizes of a model of ours.

    Raises:
        ValueError: it has parts that BEiT does not have.
    """
    encoder, embed = model.settings.encoder["init_args"], model.settings.embeds.get("image", {}).get("init_args")
    bias = encoder.get("bias") or {}
    if embed is None or (bias and bias["class_path"].rpartition(".")[2] != "RelativeBias2d"):
        raise ValueError("only an encoder of images with RelativeBias2d, or without bias, can be written as BEiT.")
    position, heads = embed.get("position"), model.settings.heads
    _check(encoder, bias, position)
    classes = heads.get("classes", {}).get("init_args", {})
    return Sizes(
        dim=encoder["dim"],
        depth=encoder["depth"],
        heads=encoder["num_heads"],
        hidden=vision.hidden_dim(model),
        patch=embed["patch_size"],
        channels=embed.get("channels", 3),
        grid=_window(model) if bias else tuple(position["init_args"]["size"]),
        bias="none" if not bias else "shared" if encoder.get("share_bias", True) else "own",
        absolute=position is not None,
        scales=encoder.get("layer_scale") is not None,
        eps=vision.norm_eps(model),
        vocab=heads["tokens"]["init_args"]["vocab_sizes"][0] if "tokens" in heads else 0,
        classes=classes.get("num_classes", 0),
        pooled_norm=classes.get("norm") is not None,
        last_norm=encoder.get("norm_at", "output") == "output",
        mask_token="tokens" in heads or vision.has_mask_token(model),
        act=encoder["mlp"]["init_args"].get("act", "gelu"),
    )


def _check(encoder: Mapping[str, Any], bias: Mapping[str, Any], position: Mapping[str, Any] | None) -> None:
    """Refuse what no BEiT has; arguments are the settings of the encoder, of its bias, and of the positions that are added.

    Raises:
        ValueError: there is such a part; the message names it.
    """
    if position is not None and not position["class_path"].endswith("LearnedPosition"):
        raise ValueError(
            "a BEiT's absolute positions are a table; those that are computed become one where a transform says how large the images are."
        )
    if not bias and position is None:
        raise ValueError("a BEiT has a relative bias or a table of positions; this encoder has neither.")
    projections = encoder["attention"]["init_args"].get("bias", "all")
    parts = {
        f"the bias {projections!r} of its projections (BEiT has 'query_value')": projections != "query_value",
        "rotary positions": encoder.get("rotary") is not None,
        "no class token": not encoder.get("class_token", False),
        "register tokens": encoder.get("num_registers", 0) > 0,
        "a table of positions, and none of the class token": position is not None and not encoder.get("special_positions", False),
    }
    if found := [name for name, has in parts.items() if has]:
        raise ValueError(f"a BEiT cannot hold {', '.join(found)}.")


def _window(model: PretrainedModel) -> tuple[int, int]:
    """Return rows and columns of the grid of a relative bias."""
    bias = model.encoder.bias or model.encoder.layers(0)[0].attn.position_bias
    assert isinstance(bias, RelativeBias2d)
    return bias.window


def grid_from(
    table: tuple[int, ...] | None, places: tuple[int, ...] | None, options: ImportOptions, image_size: object = None, patch: int = 1
) -> tuple[int, int]:
    """Return rows and columns of patches, from the shape of a relative bias table or of positions; see ``vision.grid_of``.

    Raises:
        ValueError: a table of a number of rows that no square window has, or another than the grid that is named.
    """
    if table is None:
        assert places is not None  # ``matches`` has seen to it
        return vision.grid_of(places[1] - 1, options, image_size, patch)
    side = (math.isqrt(max(table[0] - 3, 0)) + 1) // 2
    rows, columns = vision.named_grid(options, image_size, patch) or (side, side)
    if (2 * rows - 1) * (2 * columns - 1) + 3 != table[0]:
        raise ValueError(
            f"a relative bias table of {table[0]} rows is of no window of {rows} x {columns}: name it with the setting grid=ROWSxCOLUMNS."
        )
    return rows, columns


def image_entries(sizes: Sizes, projection: str, class_token: str, mask_token: str, places: str) -> list[Entry]:
    """Return the entries of what stands before the layers, by their names."""
    entries = layers.patch_projection("embeds.image.proj", projection, (sizes.dim, sizes.channels, sizes.patch, sizes.patch))
    entries.append(vision.stacked_tokens("encoder.special.tokens", [class_token], [1]))
    entries += [vision.mask_token(mask_token)] if sizes.mask_token else []
    return [*entries, vision.positions(places, 1)] if sizes.absolute else entries


def head_entries(sizes: Sizes, norm: str, pooled_norm: str, tokens: str, classes: str) -> list[Entry]:
    """Return the entries of what stands after the layers, by their names."""
    entries = pair("encoder.norm", norm) if sizes.last_norm else []
    entries += pair("heads.classes.norm", pooled_norm) if sizes.pooled_norm else []
    entries += pair("heads.tokens.proj", tokens) if sizes.vocab else []
    return entries + (pair("heads.classes.proj", classes) if sizes.classes else [])
