"""Audio spectrogram transformers (AST, https://arxiv.org/abs/2104.01778).

Sources: transformers ``models/audio_spectrogram_transformer``; YuanGongND/ast ``src/models/ast_models.py``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import nn

from multimodal.pretrained.checkpoint import Checkpoint
from multimodal.pretrained.format import Format, ImportOptions, Part, Shapes, Written, count_layers, heads_of
from multimodal.pretrained.formats import layers, sound
from multimodal.pretrained.formats.layers import TrunkSizes
from multimodal.pretrained.formats.renamed import Renamed
from multimodal.pretrained.formats.sound import Statistics
from multimodal.pretrained.formats.vision import (
    TRANSFORMERS_LAYER,
    activation_of,
    check_settings,
    hidden_act,
    id2label,
    labels_of,
    learned_position,
    positions,
    stacked_tokens,
    without_mask_token,
)
from multimodal.pretrained.keymap import Entry, KeyMap, pair, same
from multimodal.pretrained.model import PretrainedModel
from multimodal.pretrained.settings import ModelSettings, part

BINS, STRIDE, FRAMES = 128, 10, 1024
"""Of the models trained on AudioSet."""
PREFIX = "audio_spectrogram_transformer."


@dataclass(frozen=True)
class Sizes(TrunkSizes):
    """What tensors and config of an AST tell.

    Args:
        bias: whether queries, keys and values have one.
        activation: of the MLP.
        eps: of the norms.
        head_eps: of the classifier's norm.
        patch: bins and frames of a patch.
        stride: frames and bins from one patch to the next.
        bins: of the spectrogram.
        frames: of the spectrogram.
        classes: of the classifier; 0 without.
    """

    bias: bool
    activation: str
    eps: float
    head_eps: float
    patch: int
    stride: tuple[int, int]
    bins: int
    frames: int
    classes: int

    @property
    def grid(self) -> tuple[int, int]:
        """Bands and places in time."""
        return (self.bins - self.patch) // self.stride[1] + 1, (self.frames - self.patch) // self.stride[0] + 1


def frames_of(places: int, bands: int, patch: int, stride: int) -> int:
    """Return the frames of a spectrogram with so many patches: 1024 where it fits, else the fewest.

    Raises:
        ValueError: the patches are no grid of ``bands`` rows.
    """
    if places % bands:
        raise ValueError(f"{places} positions are no grid of {bands} bands: set bins and stride.")
    columns = places // bands
    return FRAMES if (FRAMES - patch) // stride + 1 == columns else (columns - 1) * stride + patch


def settings_for(sizes: Sizes, statistics: Statistics, labels: tuple[str, ...]) -> ModelSettings:
    """Return how to build the model."""
    heads = {}
    if sizes.classes:
        norm = layers.norm(sizes.head_eps)
        heads["classes"] = part("multimodal.heads.ClassificationHead", num_classes=sizes.classes, pool="special", norm=norm)
    embed = sound.spectrogram_embed(
        sizes.patch, statistics, stride=list(sizes.stride), frequency_first=True, position=learned_position(sizes.grid)
    )
    encoder = layers.encoder(
        sizes.dim,
        sizes.depth,
        sizes.heads,
        attention=layers.attention("all" if sizes.bias else "none"),
        mlp=layers.mlp(sizes.hidden, act=sizes.activation),
        norm=layers.norm(sizes.eps),
        class_token=True,
        num_registers=1,
        special_positions=True,
    )
    transform = sound.spectrogram_transform(sizes.frames, sizes.bins)
    return ModelSettings(encoder, {"audio": embed}, heads, {"audio": transform}, labels=labels)


def sizes_of(model: PretrainedModel) -> Sizes:
    """Return the sizes of a model of ours."""
    encoder, embed = model.settings.encoder["init_args"], model.settings.embeds["audio"]["init_args"]
    transform = model.settings.transforms["audio"]["init_args"]
    head = model.settings.heads.get("classes", {"init_args": {}})["init_args"]
    eps = float(encoder["norm"]["init_args"]["eps"])
    return Sizes(
        dim=encoder["dim"],
        depth=encoder["depth"],
        heads=encoder["num_heads"],
        hidden=encoder["mlp"]["init_args"]["hidden_dim"],
        bias=encoder["attention"]["init_args"]["bias"] == "all",
        activation=encoder["mlp"]["init_args"]["act"],
        eps=eps,
        head_eps=float(head["norm"]["init_args"]["eps"]) if head else eps,
        patch=embed["patch_size"],
        stride=tuple(embed["stride"]),
        bins=transform["features"]["init_args"]["num_bins"],
        frames=transform["frames"],
        classes=head.get("num_classes", 0),
    )


def first_entries(sizes: Sizes, projection: str, tokens: tuple[str, str], table: str) -> list[Entry]:
    """Return the entries of what stands before the layers."""
    shape = (sizes.dim, 1, sizes.patch, sizes.patch)
    return [
        sound.patch_weight("embeds.audio.proj.weight", f"{projection}.weight", shape, frequency_first=True),
        same("embeds.audio.proj.bias", f"{projection}.bias"),
        stacked_tokens("encoder.special.tokens", tokens, (1, 1)),
        positions(table, 2, "embeds.audio"),
    ]


class TransformersAst(Format):
    """The names in the files of transformers."""

    family, layout = "ast", "transformers"
    licence, source = "BSD-3-Clause (as on the hub)", "https://huggingface.co/docs/transformers/model_doc/audio-spectrogram-transformer"

    def matches(self, shapes: Shapes, config: Mapping[str, Any]) -> bool:
        """A distillation token beside patches of one channel, in files of transformers."""
        if config.get("model_type", "audio-spectrogram-transformer") != "audio-spectrogram-transformer":
            return False
        signs = ("embeddings.distillation_token", "encoder.layer.0.attention.attention.query.weight", "layernorm.weight")
        prefixes = [p for p in (PREFIX, "") if all(p + sign in shapes for sign in signs)]
        return any(shapes.get(f"{p}embeddings.patch_embeddings.projection.weight", (0, 0))[1] == 1 for p in prefixes)

    def read(self, checkpoint: Checkpoint, options: ImportOptions) -> list[Part]:
        """Read; the setting ``statistics`` is "audioset", "esc50" or "speechcommands"."""
        check_settings(options, "statistics")
        prefix = PREFIX if f"{PREFIX}embeddings.cls_token" in checkpoint.shapes else ""
        sizes = self.sizes(checkpoint, prefix, options)
        settings = settings_for(sizes, sound.statistics_of(checkpoint, options), labels_of(checkpoint.config, sizes.classes))
        model = PretrainedModel(settings)
        return [Part(model, KeyMap(self.entries(sizes, prefix), kept=without_mask_token(model, "audio")))]

    def sizes(self, checkpoint: Checkpoint, prefix: str, options: ImportOptions) -> Sizes:
        """Return the sizes; those that neither tensors nor config tell are those of the models trained on AudioSet.

        Raises:
            ValueError: the positions are of another number of patches than the config says.
        """
        shapes, config = checkpoint.shapes, checkpoint.config
        patch = shapes[f"{prefix}embeddings.patch_embeddings.projection.weight"]
        size, places = patch[2], shapes[f"{prefix}embeddings.position_embeddings"][1] - 2
        stride = (int(config.get("time_stride", STRIDE)), int(config.get("frequency_stride", STRIDE)))
        bins, eps = int(config.get("num_mel_bins", BINS)), float(config.get("layer_norm_eps", 1e-12))
        bands = (bins - size) // stride[1] + 1
        sizes = Sizes(
            dim=patch[0],
            depth=count_layers(shapes, re.escape(prefix) + r"encoder\.layer\.(\d+)\."),
            heads=heads_of(patch[0], options._replace(num_heads=options.num_heads or config.get("num_attention_heads"))),
            hidden=shapes[f"{prefix}encoder.layer.0.intermediate.dense.weight"][0],
            bias=f"{prefix}encoder.layer.0.attention.attention.query.bias" in shapes,
            activation=activation_of(config),
            eps=eps,
            head_eps=eps,
            patch=size,
            stride=stride,
            bins=bins,
            frames=int(config.get("max_length") or frames_of(places, bands, size, stride[0])),
            classes=shapes.get("classifier.dense.weight", (0,))[0],
        )
        if sizes.grid[0] * sizes.grid[1] != places:
            raise ValueError(f"the config says {sizes.grid[0]} x {sizes.grid[1]} patches, the positions are of {places}.")
        return sizes

    def entries(self, sizes: Sizes, prefix: str) -> list[Entry]:
        """Return where the tensors are."""
        e = prefix + "embeddings."
        tokens = (e + "cls_token", e + "distillation_token")
        entries = first_entries(sizes, e + "patch_embeddings.projection", tokens, e + "position_embeddings")
        bias: layers.Bias = "all" if sizes.bias else "none"
        entries += layers.separate_layers(sizes.depth, "encoder.blocks.{}", prefix + "encoder.layer.{}", TRANSFORMERS_LAYER, bias)
        entries += pair("encoder.norm", prefix + "layernorm")
        if sizes.classes:
            entries += pair("heads.classes.norm", "classifier.layernorm") + pair("heads.classes.proj", "classifier.dense")
        return entries

    def write(self, model: nn.Module) -> Written:
        """Write names and config of transformers."""
        assert isinstance(model, PretrainedModel)
        sizes = sizes_of(model)
        config = {
            "model_type": "audio-spectrogram-transformer",
            "architectures": ["ASTForAudioClassification" if sizes.classes else "ASTModel"],
            "hidden_size": sizes.dim,
            "num_hidden_layers": sizes.depth,
            "num_attention_heads": sizes.heads,
            "intermediate_size": sizes.hidden,
            "hidden_act": hidden_act(sizes.activation),
            "layer_norm_eps": sizes.eps,
            "qkv_bias": sizes.bias,
            "patch_size": sizes.patch,
            "time_stride": sizes.stride[0],
            "frequency_stride": sizes.stride[1],
            "num_mel_bins": sizes.bins,
            "max_length": sizes.frames,
            **id2label(model, sizes.classes),
        }
        return Written(KeyMap(self.entries(sizes, PREFIX if sizes.classes else "")).to_theirs(model.state_dict()), config)


class OriginalAst(Format):
    """The names of the authors' repository, which builds on a distilled DeiT of timm."""

    family, layout = "ast", "original"
    licence, source = "BSD-3-Clause (https://github.com/YuanGongND/ast)", "https://github.com/YuanGongND/ast"

    def matches(self, shapes: Shapes, config: Mapping[str, Any]) -> bool:
        """A transformer named ``v`` with a distillation token."""
        return "v.dist_token" in shapes and "v.patch_embed.proj.weight" in shapes

    def read(self, checkpoint: Checkpoint, options: ImportOptions) -> list[Part]:
        """Read; settings are ``statistics`` (see ``TransformersAst``), ``bins`` and ``stride``, where they are not 128 and 10."""
        check_settings(options, "statistics", "bins", "stride")
        shapes = checkpoint.shapes
        patch, places = shapes["v.patch_embed.proj.weight"], shapes["v.pos_embed"][1] - 2
        bins, stride = sound.integer_of(options, "bins", BINS), sound.integer_of(options, "stride", STRIDE)
        sizes = Sizes(
            dim=patch[0],
            depth=count_layers(shapes, r"v\.blocks\.(\d+)\."),
            heads=heads_of(patch[0], options),
            hidden=shapes["v.blocks.0.mlp.fc1.weight"][0],
            bias=True,
            activation="gelu",
            eps=1e-6,
            head_eps=1e-5,
            patch=patch[2],
            stride=(stride, stride),
            bins=bins,
            frames=frames_of(places, (bins - patch[2]) // stride + 1, patch[2], stride),
            classes=shapes.get("mlp_head.1.weight", (0,))[0],
        )
        model = PretrainedModel(settings_for(sizes, sound.statistics_of(checkpoint, options), ()))
        ignored = {"v.head*": "the classifier of images that the model began with; it is not used"}
        return [Part(model, KeyMap(self.entries(sizes), ignored, without_mask_token(model, "audio")))]

    def entries(self, sizes: Sizes) -> list[Entry]:
        """Return where the tensors are."""
        entries = first_entries(sizes, "v.patch_embed.proj", ("v.cls_token", "v.dist_token"), "v.pos_embed")
        entries += layers.fused_layers(sizes.depth, "encoder.blocks.{}", "v.blocks.{}")
        entries += pair("encoder.norm", "v.norm")
        return entries + (pair("heads.classes.norm", "mlp_head.0") + pair("heads.classes.proj", "mlp_head.1") if sizes.classes else [])

    def write(self, model: nn.Module) -> Written:
        """Write the names of the authors' repository.

        Raises:
            ValueError: the model has no bias of queries, keys and values, which this layout needs.
        """
        assert isinstance(model, PretrainedModel)
        sizes = sizes_of(model)
        if not sizes.bias:
            raise ValueError("the original AST has biases of queries, keys and values; this model has none.")
        return Written(KeyMap(self.entries(sizes)).to_theirs(model.state_dict()))


FORMATS = (TransformersAst(), Renamed(TransformersAst()), OriginalAst())
