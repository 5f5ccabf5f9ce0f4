"""What the formats of image and video transformers share: pixel statistics, positions, class and register tokens, names of classes."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from multimodal.pretrained.checkpoint import Checkpoint
from multimodal.pretrained.format import ImportOptions
from multimodal.pretrained.formats.layers import LayerNames
from multimodal.pretrained.keymap import Entry, same
from multimodal.pretrained.model import PretrainedModel
from multimodal.pretrained.settings import part

Statistics = tuple[tuple[float, ...], tuple[float, ...]]
"""Mean and standard deviation of each channel, of pixels scaled to [0, 1]."""

IMAGENET: Statistics = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
HALF: Statistics = ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
CLIP: Statistics = ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711))
NAMED = {"half": HALF, "imagenet": IMAGENET, "clip": CLIP}
ACTIVATIONS = {"gelu": "gelu", "gelu_new": "gelu_tanh", "gelu_pytorch_tanh": "gelu_tanh", "relu": "relu", "silu": "silu"}
"""What transformers calls an activation -> what we call it."""
TRANSFORMERS_LAYER = LayerNames(
    query="attention.attention.query",
    key="attention.attention.key",
    value="attention.attention.value",
    proj="attention.output.dense",
    norm1="layernorm_before",
    norm2="layernorm_after",
    fc1="intermediate.dense",
    fc2="output.dense",
)
"""The names of a layer in the files of transformers."""
BICUBIC = 3
"""What Pillow and transformers call bicubic resampling."""
NO_MASK = "the checkpoint has no mask token; it starts as zeros"


def check_settings(options: ImportOptions, *known: str) -> None:
    """Refuse settings that a format does not have.

    Raises:
        ValueError: there are such settings; the message lists those that there are.
    """
    if unknown := sorted(set(options.settings) - set(known)):
        raise ValueError(f"unknown settings {unknown}; this format has {sorted(known)}.")


def statistics_of(checkpoint: Checkpoint, options: ImportOptions, default: str, channels: int = 3) -> Statistics:
    """Return what the pixels were normalised with: what the user says, else what lies beside the weights, else what the family mostly has.

    Args:
        checkpoint: timm's ``config.json`` and the ``preprocessor_config.json`` of transformers name statistics.
        options: the setting ``statistics`` is "half", "imagenet" or "clip", or mean and deviation in numbers: ``MEAN/STD``, for channels
            that differ ``MEAN,MEAN,MEAN/STD,STD,STD``.
        default: one of these names.
        channels: of the images.

    Raises:
        ValueError: the setting has another value, or there are statistics for another number of channels.
    """
    said = options.settings.get("statistics")
    mean, std = _named_statistics(said) if said is not None else _statistics_beside(checkpoint) or NAMED[default]
    if len(mean) != channels and len(set(mean)) == len(set(std)) == 1:
        mean, std = mean[:1] * channels, std[:1] * channels
    if len(mean) != channels or len(std) != channels:
        raise ValueError(f"the images have {channels} channels, the statistics {len(mean)}: set statistics to 'half'.")
    return mean, std


def _named_statistics(said: str) -> Statistics:
    if said in NAMED:
        return NAMED[said]
    try:
        mean, std = (tuple(map(float, numbers.split(","))) for numbers in said.split("/"))
    except ValueError as error:
        raise ValueError(f"statistics must be one of {sorted(NAMED)}, or MEAN,.../STD,... in numbers, got {said!r}.") from error
    return mean, std


def statistics_in(model: PretrainedModel, embed: str = "image") -> Statistics:
    """Return what a model of ours normalises pixels with, of each channel."""
    settings = model.settings.embeds[embed]["init_args"]
    channels = settings.get("channels", 3)
    mean, std = (tuple(settings.get(name, (0.5,))) for name in ("mean", "std"))
    return mean * (channels // len(mean)), std * (channels // len(std))


def options_for(model: PretrainedModel, grid: tuple[int, int]) -> ImportOptions:
    """Return what tensors of images do not tell: the heads, the statistics of the pixels, and the grid of images that are not square."""
    statistics = statistics_in(model)
    numbers = "/".join(",".join(map(repr, values)) for values in statistics)
    settings = {"statistics": next((name for name, known in NAMED.items() if known == statistics), numbers)}
    return ImportOptions(model.encoder.num_heads, settings | ({"grid": f"{grid[0]}x{grid[1]}"} if grid[0] != grid[1] else {}))


def preprocessor_of(model: PretrainedModel, grid: tuple[int, int], patch: int) -> dict[str, Any]:
    """Return a ``preprocessor_config.json`` of transformers: how large images are, and what their pixels are normalised with."""
    mean, std = (list(values) for values in statistics_in(model))
    return {
        "image_processor_type": "ViTImageProcessor",
        "do_resize": True,
        "size": {"height": grid[0] * patch, "width": grid[1] * patch},
        "resample": BICUBIC,
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": mean,
        "image_std": std,
    }


def _statistics_beside(checkpoint: Checkpoint) -> Statistics | None:
    timm, transformers = checkpoint.config.get("pretrained_cfg"), checkpoint.extra.get("preprocessor_config")
    for facts, mean, std in ((timm, "mean", "std"), (transformers, "image_mean", "image_std")):
        if isinstance(facts, Mapping) and facts.get(mean) and facts.get(std):
            return tuple(map(float, facts[mean])), tuple(map(float, facts[std]))
    return None


def named_grid(options: ImportOptions, image_size: Any = None, patch: int = 1) -> tuple[int, int] | None:
    """Return the rows and columns of patches that are named; None: nothing names them.

    Args:
        options: the setting ``grid`` is "ROWSxCOLUMNS".
        image_size: height and width in pixels as a config has them, where they differ.
        patch: side of a patch, in pixels.

    Raises:
        ValueError: the setting is not of that form.
    """
    if "grid" in options.settings:
        rows, _, columns = options.settings["grid"].partition("x")
        if not (rows.isdecimal() and columns.isdecimal() and int(rows) and int(columns)):
            raise ValueError(f"grid must be ROWSxCOLUMNS, such as 14x14, got {options.settings['grid']!r}.")
        return int(rows), int(columns)
    if isinstance(image_size, Sequence) and len(image_size) == 2:
        return int(image_size[0]) // patch, int(image_size[1]) // patch
    return None


def grid_of(places: int, options: ImportOptions, image_size: Any = None, patch: int = 1) -> tuple[int, int]:
    """Return rows and columns of ``places`` patches: those that ``named_grid`` finds, or equal ones.

    Raises:
        ValueError: the images are not square, and nothing says how they are cut; or what says so is of another number of patches.
    """
    side = math.isqrt(places)
    rows, columns = named_grid(options, image_size, patch) or (side, side)
    if rows * columns != places or not places:
        raise ValueError(f"{places} positions are no grid of {rows} x {columns} patches: name it with the setting grid=ROWSxCOLUMNS.")
    return rows, columns


def learned_position(size: Sequence[int], trainable: bool = True) -> dict[str, Any]:
    """Return the settings of a table of positions."""
    return part("multimodal.nn.LearnedPosition", size=list(size), trainable=trainable)


def image_embed(patch: int, channels: int, statistics: Statistics, position: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return the settings of an embedding of patches."""
    mean, std = statistics
    settings = {"patch_size": patch, "channels": channels, "mean": list(mean), "std": list(std), "position": position}
    return part("multimodal.tokenizers.image.PatchEmbed", **settings)


def image_transforms(grid: tuple[int, int], patch: int, channels: int) -> dict[str, dict[str, Any]]:
    """Return how images are read; nothing for those that ``ImageTransform`` does not make: not square, or of other channels."""
    if grid[0] != grid[1] or channels not in (1, 3):
        return {}
    return {"image": part("multimodal.tokenizers.image.ImageTransform", size=grid[0] * patch, channels=channels)}


def stacked_tokens(ours: str, theirs: Sequence[str], counts: Sequence[int]) -> Entry:
    """Return an entry for class and register tokens: one tensor ``(1, count, dim)`` of theirs for some rows of ours."""

    def to_theirs(x: list[Tensor]) -> list[Tensor]:
        return [rows[None] for rows in x[0].split(list(counts))]

    return Entry((ours,), tuple(theirs), lambda x: [torch.cat([rows[0] for rows in x])], to_theirs)


def positions(theirs: str, special: int, embed: str = "embeds.image") -> Entry:
    """Return the entry of a table of positions ``(1, special + places, dim)``, whose first rows are those of the special tokens."""
    table = f"{embed}.position.table"
    if not special:
        return Entry((table,), (theirs,), lambda x: [x[0][0]], lambda x: [x[0][None]])
    ours = ("encoder.special.positions", table)
    return Entry(ours, (theirs,), lambda x: [x[0][0, :special], x[0][0, special:]], lambda x: [torch.cat(x)[None]])


def mask_token(theirs: str, embed: str = "embeds.image") -> Entry:
    """Return the entry of a mask token ``(1, 1, dim)``."""
    return Entry((f"{embed}.mask_token",), (theirs,), lambda x: [x[0][0, 0]], lambda x: [x[0][None, None]])


def without_mask_token(model: PretrainedModel, embed: str = "image") -> dict[str, str]:
    """Say that the checkpoint has no mask token. Ours starts as zeros: a checkpoint then always becomes the same model.

    Returns:
        For the map's ``kept``.
    """
    token = model.embeds[embed].mask_token
    assert isinstance(token, Tensor)
    token.data.zero_()
    return {f"embeds.{embed}.mask_token": NO_MASK}


def has_mask_token(model: PretrainedModel, embed: str = "image") -> bool:
    """Return whether a mask token was read, or has been trained."""
    token = model.embeds[embed].mask_token
    assert isinstance(token, Tensor)
    return bool(token.detach().any())


def scales(ours: str, theirs: str, depth: int, names: tuple[str, str]) -> list[Entry]:
    """Return the entries of the layer scale; ``ours`` and ``theirs`` have ``{}`` for the number of the layer."""
    return [same(f"{ours.format(i)}.scale{n}.gamma", f"{theirs.format(i)}.{name}") for i in range(depth) for n, name in enumerate(names, 1)]


def labels_of(config: Mapping[str, Any], classes: int) -> tuple[str, ...]:
    """Return the names of the classes that a config tells; none where it only numbers them."""
    names = config.get("id2label") or config.get("label_names") or {}
    found = [names.get(str(i), "") for i in range(classes)] if isinstance(names, Mapping) else [str(name) for name in names]
    known = len(found) == classes and all(found) and any(name != f"LABEL_{i}" for i, name in enumerate(found))
    return tuple(found) if known else ()


def id2label(model: PretrainedModel, classes: int) -> dict[str, dict[str, Any]]:
    """Return what a config of transformers says of the classes; nothing for a model without."""
    if not classes:
        return {}
    names = list(model.settings.labels) or [f"LABEL_{i}" for i in range(classes)]
    return {"id2label": {str(i): name for i, name in enumerate(names)}, "label2id": {name: i for i, name in enumerate(names)}}


def activation_of(config: Mapping[str, Any]) -> str:
    """Return the activation of the MLPs that a config of transformers names; GELU where it names none.

    Raises:
        ValueError: our MLP does not have it.
    """
    name = config.get("hidden_act", "gelu")
    if name not in ACTIVATIONS:
        raise ValueError(f"hidden_act {name!r} is not known; those known are {sorted(ACTIVATIONS)}.")
    return ACTIVATIONS[name]


def hidden_act(activation: str) -> str:
    """Undo ``activation_of``."""
    return next(name for name, ours in ACTIVATIONS.items() if ours == activation)


def with_heads(options: ImportOptions, heads: Any) -> ImportOptions:
    """Return the options with the number of heads that a config names, if it does and the user names none."""
    return options if options.num_heads is not None or heads is None else options._replace(num_heads=int(heads))


def hidden_dim(model: PretrainedModel) -> int:
    """Return the width of the MLPs of a model of ours.

    Raises:
        ValueError: they are not plain ones.
    """
    layer = getattr(model.encoder.layers(0)[0].mlp, "fc1", None)
    if not isinstance(layer, nn.Linear):
        raise ValueError("this model's layers have no plain MLP.")
    return layer.out_features


def norm_eps(model: PretrainedModel) -> float:
    """Return what the norms of a model of ours add to the variance.

    Raises:
        ValueError: they are no layer norms.
    """
    norm = getattr(model.encoder.layers(0)[0], "norm2", None)
    if not isinstance(norm, nn.LayerNorm):
        raise ValueError("this model's layers have no layer norms.")
    return float(norm.eps)
