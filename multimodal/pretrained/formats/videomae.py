"""VideoMAE (https://arxiv.org/abs/2203.12602): encoders and classifiers of clips; the decoder of the pretraining is left behind.

Sources: the description of MCG-NJU/VideoMAE; transformers ``models/videomae``.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import nn

from multimodal.pretrained.checkpoint import Checkpoint
from multimodal.pretrained.format import Format, ImportOptions, Part, Shapes, Written, count_layers, heads_of
from multimodal.pretrained.formats import layers, vision
from multimodal.pretrained.formats.layers import TrunkSizes
from multimodal.pretrained.formats.renamed import Renamed
from multimodal.pretrained.keymap import Entry, KeyMap, pair, shaped, stacked
from multimodal.pretrained.model import PretrainedModel
from multimodal.pretrained.settings import ModelSettings, part

LICENCE = "CC-BY-NC 4.0 (non-commercial)"
DECODER = "the decoder of the pretraining, that no later use needs"


@dataclass(frozen=True)
class Sizes(TrunkSizes):
    """What the tensors of a VideoMAE tell, and what the user says.

    Args:
        cube: channels, frames, height and width of a cube, pixels.
        frames: of a clip.
        size: side of a frame, pixels.
        eps: of the norms.
        last_norm: whether a norm follows the last layer.
        classes: of the classifier; 0 without.
        pooled_norm: whether the classifier reads a norm of the mean cube; otherwise it reads the first cube.
        act: activation of the MLP.
        statistics: of the pixels.
        labels: names of the classes.
    """

    cube: tuple[int, int, int, int]
    frames: int
    size: int
    eps: float
    last_norm: bool
    classes: int = 0
    pooled_norm: bool = False
    act: str = "gelu"
    statistics: vision.Statistics = field(default=vision.IMAGENET)
    labels: tuple[str, ...] = ()


def settings_of(sizes: Sizes) -> ModelSettings:
    """Return how to build the model."""
    channels, time, side, _ = sizes.cube
    norm = layers.norm(sizes.eps)
    grid = [sizes.frames // time, sizes.size // side, sizes.size // side]
    encoder = layers.encoder(
        sizes.dim,
        sizes.depth,
        sizes.heads,
        attention=layers.attention("query_value"),
        mlp=layers.mlp(sizes.hidden, act=sizes.act),
        norm=norm,
        norm_at="output" if sizes.last_norm else "none",
    )
    embed = part(
        "multimodal.tokenizers.video.TubeletEmbed",
        tubelet_size=time,
        patch_size=side,
        channels=channels,
        mean=list(sizes.statistics[0]),
        std=list(sizes.statistics[1]),
        position=part(layers.NN + "InterleavedSinCosPosition", size=grid),
    )
    pool = {"pool": "mean", "norm": norm} if sizes.pooled_norm else {"pool": "first"}
    heads = {"classes": part("multimodal.heads.ClassificationHead", num_classes=sizes.classes, **pool)} if sizes.classes else {}
    transform = part("multimodal.tokenizers.video.VideoTransform", size=sizes.size, num_frames=sizes.frames)
    return ModelSettings(encoder, {"video": embed}, heads, {"video": transform} if channels == 3 else {}, labels=sizes.labels)


def sizes_of(model: PretrainedModel) -> Sizes:
    """Return the sizes of a model of ours.

    Raises:
        ValueError: it has parts that VideoMAE does not have.
    """
    encoder, embed = model.settings.encoder["init_args"], model.settings.embeds.get("video", {}).get("init_args", {})
    position = embed.get("position") or {}
    if not position.get("class_path", "").endswith("InterleavedSinCosPosition") or encoder.get("class_token"):
        raise ValueError("only an encoder of films with InterleavedSinCosPosition, without class token, can be written as VideoMAE.")
    grid = position["init_args"]["size"]
    if grid[1] != grid[2]:
        raise ValueError(f"VideoMAE has square frames; this model's have {grid[1]} x {grid[2]} cubes.")
    classes = model.settings.heads.get("classes", {}).get("init_args", {})
    side, time = embed["patch_size"], embed["tubelet_size"]
    return Sizes(
        dim=encoder["dim"],
        depth=encoder["depth"],
        heads=encoder["num_heads"],
        hidden=vision.hidden_dim(model),
        cube=(embed.get("channels", 3), time, side, side),
        frames=grid[0] * time,
        size=grid[1] * side,
        eps=float(encoder["norm"]["init_args"]["eps"]),
        last_norm=encoder.get("norm_at", "output") == "output",
        classes=classes.get("num_classes", 0),
        pooled_norm=classes.get("norm") is not None,
        act=encoder["mlp"]["init_args"].get("act", "gelu"),
        statistics=(tuple(embed["mean"]), tuple(embed["std"])),
        labels=tuple(model.settings.labels),
    )


def extent_of(options: ImportOptions, config: Mapping[str, Any]) -> tuple[int, int]:
    """Return frames of a clip and side of a frame: the user's, the config's, or those of the published models, 16 and 224.

    Raises:
        ValueError: they are no numbers.
    """
    told = [
        options.settings.get(name, config.get(key, default))
        for name, key, default in (("frames", "num_frames", 16), ("size", "image_size", 224))
    ]
    if not all(str(value).isdecimal() and int(value) for value in told):
        raise ValueError(f"frames and size must be positive numbers, got {told[0]!r} and {told[1]!r}.")
    return int(told[0]), int(told[1])


def embed_entries(sizes: Sizes, projection: str) -> list[Entry]:
    """Return the entries of the embedding: their convolution of cubes is our linear layer, its numbers in the same order."""
    weight = (sizes.dim, math.prod(sizes.cube))
    return [
        shaped("embeds.video.proj.weight", f"{projection}.weight", weight, (sizes.dim, *sizes.cube)),
        *pair("embeds.video.proj", projection)[1:],
    ]


def head_entries(sizes: Sizes, norm: str, classes: str) -> list[Entry]:
    """Return the entries of what stands after the layers, by their names."""
    entries = pair("encoder.norm", norm) if sizes.last_norm else []
    entries += pair("heads.classes.norm", "fc_norm") if sizes.pooled_norm else []
    return entries + (pair("heads.classes.proj", classes) if sizes.classes else [])


class OriginalVideoMae(Format):
    """The names of MCG-NJU/VideoMAE: of the pretraining, and of fine-tuned classifiers."""

    family, layout = "videomae", "videomae"
    licence, source = LICENCE, "https://github.com/MCG-NJU/VideoMAE"

    def matches(self, shapes: Shapes, config: Mapping[str, Any]) -> bool:
        """A convolution of cubes, and biases of query and value."""
        return any(
            len(shapes.get(f"{p}patch_embed.proj.weight", ())) == 5 and f"{p}blocks.0.attn.q_bias" in shapes for p in ("encoder.", "")
        )

    def read(self, checkpoint: Checkpoint, options: ImportOptions) -> list[Part]:
        """Read.

        Settings: ``frames`` of a clip (16) and ``size`` of a frame in pixels (224): positions are not in the file; ``statistics`` is
        "imagenet" (the default) or "half": what the pixels were normalised with.
        """
        vision.check_settings(options, "frames", "size", "statistics")
        shapes = checkpoint.shapes
        prefix = "encoder." if "encoder.patch_embed.proj.weight" in shapes else ""
        (dim, *cube), (frames, size) = shapes[f"{prefix}patch_embed.proj.weight"], extent_of(options, {})
        sizes = Sizes(
            dim=dim,
            depth=count_layers(shapes, re.escape(prefix) + r"blocks\.(\d+)\."),
            heads=heads_of(dim, options),
            hidden=shapes[f"{prefix}blocks.0.mlp.fc1.weight"][0],
            cube=(cube[0], cube[1], cube[2], cube[3]),
            frames=frames,
            size=size,
            eps=1e-6,
            last_norm=f"{prefix}norm.weight" in shapes,
            classes=shapes.get("head.weight", (0,))[0],
            pooled_norm="fc_norm.weight" in shapes,
            statistics=vision.statistics_of(checkpoint, options, "imagenet", cube[0]),
        )
        model = PretrainedModel(settings_of(sizes))
        return [Part(model, self.keymap(sizes, prefix) + KeyMap([], {}, vision.without_mask_token(model, "video")))]

    def keymap(self, sizes: Sizes, prefix: str) -> KeyMap:
        """Return where the tensors are."""
        entries = layers.fused_layers(sizes.depth, "encoder.blocks.{}", prefix + "blocks.{}", "query_value")
        entries += embed_entries(sizes, f"{prefix}patch_embed.proj") + head_entries(sizes, f"{prefix}norm", "head")
        return KeyMap(entries, dict.fromkeys(("decoder.*", "encoder_to_decoder.*", "mask_token"), DECODER))

    def write(self, model: nn.Module) -> Written:
        """Write the encoder of the pretraining, or a classifier."""
        assert isinstance(model, PretrainedModel)
        sizes = sizes_of(model)
        return Written(self.keymap(sizes, "" if sizes.classes else "encoder.").to_theirs(model.state_dict()))


class TransformersVideoMae(Format):
    """The names in the files of transformers."""

    family, layout = "videomae", "transformers"
    licence, source = LICENCE, "https://huggingface.co/docs/transformers/model_doc/videomae"

    def matches(self, shapes: Shapes, config: Mapping[str, Any]) -> bool:
        """A convolution of cubes, and biases of query and value as the files name them."""
        return _prefix(shapes) is not None

    def read(self, checkpoint: Checkpoint, options: ImportOptions) -> list[Part]:
        """Read; the settings are those of the layout of VideoMAE, where no ``config.json`` stands beside."""
        vision.check_settings(options, "frames", "size", "statistics")
        shapes, config = checkpoint.shapes, checkpoint.config
        prefix = _prefix(shapes)
        assert prefix is not None
        dim, *cube = shapes[f"{prefix}embeddings.patch_embeddings.projection.weight"]
        frames, size = extent_of(options, config)
        classes = shapes.get("classifier.weight", (0,))[0]
        sizes = Sizes(
            dim=dim,
            depth=count_layers(shapes, re.escape(prefix) + r"encoder\.layer\.(\d+)\."),
            heads=heads_of(dim, vision.with_heads(options, config.get("num_attention_heads"))),
            hidden=shapes[f"{prefix}encoder.layer.0.intermediate.dense.weight"][0],
            cube=(cube[0], cube[1], cube[2], cube[3]),
            frames=frames,
            size=size,
            eps=float(config.get("layer_norm_eps", 1e-12)),
            last_norm=f"{prefix}layernorm.weight" in shapes,
            classes=classes,
            pooled_norm="fc_norm.weight" in shapes,
            act=vision.activation_of(config),
            statistics=vision.statistics_of(checkpoint, options, "imagenet", cube[0]),
            labels=vision.labels_of(config, classes),
        )
        model = PretrainedModel(settings_of(sizes))
        return [Part(model, self.keymap(sizes, prefix) + KeyMap([], {}, vision.without_mask_token(model, "video")))]

    def keymap(self, sizes: Sizes, prefix: str) -> KeyMap:
        """Return where the tensors are."""
        ours, layer = "encoder.blocks.{}", prefix + "encoder.layer.{}"
        entries = layers.separate_layers(sizes.depth, ours, layer, vision.TRANSFORMERS_LAYER, "none")
        for i in range(sizes.depth):
            biases = [f"{layer.format(i)}.attention.attention.{name}" for name in ("q_bias", "v_bias")]
            entries.append(stacked(f"{ours.format(i)}.attn.query_value_bias", biases))
        entries += embed_entries(sizes, f"{prefix}embeddings.patch_embeddings.projection")
        entries += head_entries(sizes, f"{prefix}layernorm", "classifier")
        return KeyMap(entries, dict.fromkeys(("decoder.*", "encoder_to_decoder.*", "mask_token"), DECODER))

    def write(self, model: nn.Module) -> Written:
        """Write names and config of ``VideoMAEForVideoClassification`` or ``VideoMAEModel``."""
        assert isinstance(model, PretrainedModel)
        sizes = sizes_of(model)
        tensors = self.keymap(sizes, "videomae." if sizes.classes else "").to_theirs(model.state_dict())
        return Written(tensors, {**_config(sizes), **vision.id2label(model, sizes.classes)})


def _prefix(shapes: Shapes) -> str | None:
    for prefix in ("videomae.", ""):
        patch = shapes.get(f"{prefix}embeddings.patch_embeddings.projection.weight", ())
        if len(patch) == 5 and f"{prefix}encoder.layer.0.attention.attention.q_bias" in shapes:
            return prefix
    return None


def _config(sizes: Sizes) -> dict[str, Any]:
    channels, time, side, _ = sizes.cube
    return {
        "model_type": "videomae",
        "architectures": ["VideoMAEForVideoClassification" if sizes.classes else "VideoMAEModel"],
        "hidden_size": sizes.dim,
        "num_hidden_layers": sizes.depth,
        "num_attention_heads": sizes.heads,
        "intermediate_size": sizes.hidden,
        "hidden_act": vision.hidden_act(sizes.act),
        "image_size": sizes.size,
        "patch_size": side,
        "num_channels": channels,
        "num_frames": sizes.frames,
        "tubelet_size": time,
        "qkv_bias": True,
        "layer_norm_eps": sizes.eps,
        "use_mean_pooling": sizes.pooled_norm or not (sizes.classes or sizes.last_norm),
    }


FORMATS = (
    OriginalVideoMae(),
    TransformersVideoMae(),
    Renamed(
        TransformersVideoMae(),
        to_base=((r"(attention\.attention\.)q(uery)\.bias$", r"\1q_bias"), (r"(attention\.attention\.)v(alue)\.bias$", r"\1v_bias")),
        from_base=((r"(attention\.attention\.)q_bias$", r"\1query.bias"), (r"(attention\.attention\.)v_bias$", r"\1value.bias")),
        sign=r"(^|\.)encoder\.layer\.0\.attention\.attention\.query\.bias$",
    ),
)
