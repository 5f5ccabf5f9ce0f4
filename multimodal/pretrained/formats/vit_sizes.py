"""The sizes of a ViT <-> the settings of our model, and the key maps of what all its layouts have."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from multimodal.pretrained.formats import layers, vision
from multimodal.pretrained.formats.layers import Bias, TrunkSizes
from multimodal.pretrained.keymap import Entry, pair
from multimodal.pretrained.model import PretrainedModel
from multimodal.pretrained.settings import ModelSettings, part

Head = Literal["", "class", "mean", "normed_mean", "distilled"]


@dataclass(frozen=True)
class Sizes(TrunkSizes):
    """What the tensors of a ViT tell.

    Args:
        patch: side of a patch, pixels.
        channels: of the images.
        grid: rows and columns of patches.
        eps: of the norms.
        special: number of class, distillation and register tokens.
        special_positions: whether the table of positions has rows for those.
        bias: of the projections to queries, keys and values.
        scales: whether there is layer scale.
        qk_norm: whether queries and keys are normalised.
        last_norm: whether a norm follows the last layer.
        head: what the classifier reads: the class token, the mean patch, a norm of it, class and distillation tokens; "" without.
        classes: of the classifier.
        act: activation of the MLP.
        trained_positions: False for fixed ones (MAE).
        statistics: of the pixels.
        labels: names of the classes.
    """

    patch: int
    channels: int
    grid: tuple[int, int]
    eps: float
    special: int = 1
    special_positions: bool = True
    bias: Bias = "all"
    scales: bool = False
    qk_norm: bool = False
    last_norm: bool = True
    head: Head = ""
    classes: int = 0
    act: str = "gelu"
    trained_positions: bool = True
    statistics: vision.Statistics = field(default=vision.HALF)
    labels: tuple[str, ...] = ()


def settings_of(sizes: Sizes) -> ModelSettings:
    """Return how to build the model."""
    norm = layers.norm(sizes.eps)
    encoder = layers.encoder(
        sizes.dim,
        sizes.depth,
        sizes.heads,
        attention=layers.attention(sizes.bias, qk_norm=norm if sizes.qk_norm else None),
        mlp=layers.mlp(sizes.hidden, act=sizes.act),
        norm=norm,
        norm_at="output" if sizes.last_norm else "none",
        layer_scale=1e-5 if sizes.scales else None,
        class_token=sizes.special > 0,
        num_registers=max(sizes.special - 1, 0),
        special_positions=sizes.special > 0 and sizes.special_positions,
    )
    position = vision.learned_position(sizes.grid, sizes.trained_positions)
    embed = vision.image_embed(sizes.patch, sizes.channels, sizes.statistics, position)
    transforms = vision.image_transforms(sizes.grid, sizes.patch, sizes.channels)
    return ModelSettings(encoder, {"image": embed}, _heads(sizes, norm), transforms, labels=sizes.labels)


def _heads(sizes: Sizes, norm: dict[str, Any]) -> dict[str, dict[str, Any]]:
    if not sizes.head:
        return {}
    if sizes.head == "distilled":
        return {"classes": part("multimodal.heads.DistilledHead", num_classes=sizes.classes)}
    pool, pooled = "class" if sizes.head == "class" else "mean", norm if sizes.head == "normed_mean" else None
    return {"classes": part("multimodal.heads.ClassificationHead", num_classes=sizes.classes, pool=pool, norm=pooled)}


def sizes_of(model: PretrainedModel) -> Sizes:
    """Return the sizes of a model of ours.

    Raises:
        ValueError: it has parts that a ViT does not have.
    """
    encoder, embed = model.settings.encoder["init_args"], model.settings.embeds.get("image", {}).get("init_args", {})
    position = embed.get("position") or {}
    if position.get("class_path", "").rpartition(".")[2] != "LearnedPosition" or encoder.get("bias") or encoder.get("rotary"):
        raise ValueError(
            "only an encoder of images with a table of positions, and no other positions, can be written as ViT or MAE; those that are "
            "computed become a table where a transform says how large the images are."
        )
    attention, special = encoder["attention"]["init_args"], int(encoder.get("class_token", False)) + encoder.get("num_registers", 0)
    head, classes = _head_of(model)
    return Sizes(
        dim=encoder["dim"],
        depth=encoder["depth"],
        heads=encoder["num_heads"],
        hidden=vision.hidden_dim(model),
        patch=embed["patch_size"],
        channels=embed.get("channels", 3),
        grid=tuple(position["init_args"]["size"]),
        eps=vision.norm_eps(model),
        special=special,
        special_positions=encoder.get("special_positions", False),
        bias=attention.get("bias", "all"),
        scales=encoder.get("layer_scale") is not None,
        qk_norm=attention.get("qk_norm") is not None,
        last_norm=encoder.get("norm_at", "output") == "output",
        head=head,
        classes=classes,
        act=encoder["mlp"]["init_args"].get("act", "gelu"),
        trained_positions=position["init_args"].get("trainable", True),
        statistics=vision.statistics_in(model),
        labels=tuple(model.settings.labels),
    )


def _head_of(model: PretrainedModel) -> tuple[Head, int]:
    if "classes" not in model.settings.heads:
        return "", 0
    settings = model.settings.heads["classes"]
    arguments = settings["init_args"]
    if settings["class_path"].endswith("DistilledHead"):
        return "distilled", arguments["num_classes"]
    pool, normed = arguments.get("pool", "mean"), arguments.get("norm") is not None
    if pool not in ("class", "mean") or (pool == "class" and normed) or arguments.get("hidden"):
        raise ValueError(
            f"a classifier with pool {pool!r}, norm {normed} and hidden layer {arguments.get('hidden')!r} is not one of a ViT."
        )
    return ("normed_mean" if normed else pool), arguments["num_classes"]


def patch_entries(sizes: Sizes, projection: str, places: str) -> list[Entry]:
    """Return the entries of patches and positions, by their names."""
    entries = layers.patch_projection("embeds.image.proj", projection, (sizes.dim, sizes.channels, sizes.patch, sizes.patch))
    return [*entries, vision.positions(places, sizes.special if sizes.special_positions else 0)]


def head_entries(sizes: Sizes, norm: str, classes: str, distilled: str = "", pooled_norm: str = "") -> list[Entry]:
    """Return the entries of what stands after the layers, by their names."""
    entries = pair("encoder.norm", norm) if sizes.last_norm else []
    entries += pair("heads.classes.norm", pooled_norm) if sizes.head == "normed_mean" else []
    entries += pair("heads.classes.proj", classes) if sizes.head else []
    return entries + (pair("heads.classes.distilled", distilled) if sizes.head == "distilled" else [])
