"""AudioMAE (https://arxiv.org/abs/2207.06405): encoders trained on masked spectrograms, and classifiers.

Source: facebookresearch/AudioMAE ``models_mae.py``, ``models_vit.py``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import nn

from multimodal.pretrained.checkpoint import Checkpoint
from multimodal.pretrained.format import Format, ImportOptions, Part, Shapes, Written, count_layers, heads_of
from multimodal.pretrained.formats import layers, sound
from multimodal.pretrained.formats.layers import TrunkSizes
from multimodal.pretrained.formats.sound import Statistics
from multimodal.pretrained.formats.vision import check_settings, learned_position, positions, stacked_tokens, without_mask_token
from multimodal.pretrained.keymap import Entry, KeyMap, pair, same
from multimodal.pretrained.model import PretrainedModel
from multimodal.pretrained.settings import ModelSettings, part

EPS = 1e-6
BINS = 128
DECODER = "the decoder of pretraining, which no later use needs"


@dataclass(frozen=True)
class Sizes(TrunkSizes):
    """What the tensors of an AudioMAE tell.

    Args:
        patch: frames and bins of a patch.
        grid: places in time and bands.
        classes: of the classifier; 0 without.
        pooled_norm: whether a norm follows the mean of the patches, instead of one after the last layer.
    """

    patch: int
    grid: tuple[int, int]
    classes: int
    pooled_norm: bool


def settings_for(sizes: Sizes, statistics: Statistics) -> ModelSettings:
    """Return how to build the model."""
    norm = layers.norm(EPS)
    heads = {}
    if sizes.classes:
        pooled = norm if sizes.pooled_norm else None
        heads["classes"] = part(
            "multimodal.heads.ClassificationHead", num_classes=sizes.classes, pool="mean" if pooled else "class", norm=pooled
        )
    embed = sound.spectrogram_embed(sizes.patch, statistics, position=learned_position(sizes.grid, trainable=False))
    encoder = layers.encoder(
        sizes.dim,
        sizes.depth,
        sizes.heads,
        mlp=layers.mlp(sizes.hidden),
        norm=norm,
        norm_at="none" if sizes.pooled_norm else "output",
        class_token=True,
        special_positions=True,
    )
    transform = sound.spectrogram_transform(sizes.grid[0] * sizes.patch, sizes.grid[1] * sizes.patch)
    return ModelSettings(encoder, {"audio": embed}, heads, {"audio": transform})


def sizes_of(model: PretrainedModel) -> Sizes:
    """Return the sizes of a model of ours."""
    encoder, embed = model.settings.encoder["init_args"], model.settings.embeds["audio"]["init_args"]
    head = model.settings.heads.get("classes", {"init_args": {}})["init_args"]
    rows, bands = embed["position"]["init_args"]["size"]
    return Sizes(
        dim=encoder["dim"],
        depth=encoder["depth"],
        heads=encoder["num_heads"],
        hidden=encoder["mlp"]["init_args"]["hidden_dim"],
        patch=embed["patch_size"],
        grid=(rows, bands),
        classes=head.get("num_classes", 0),
        pooled_norm=encoder.get("norm_at", "output") == "none",
    )


class AudioMae(Format):
    """The names of the authors' repository, which are those of MAE."""

    family, layout = "audiomae", "facebookresearch"
    licence = "CC-BY-NC 4.0: non-commercial use only (https://github.com/facebookresearch/AudioMAE)"
    source = "https://github.com/facebookresearch/AudioMAE"

    def matches(self, shapes: Shapes, config: Mapping[str, Any]) -> bool:
        """Names of MAE with patches of one channel; a ViT of timm for gray images is told by timm's config."""
        patch = shapes.get("patch_embed.proj.weight", ())
        named = {"cls_token", "pos_embed", "blocks.0.attn.qkv.bias", "blocks.0.mlp.fc1.weight"} <= shapes.keys()
        other = {"reg_token", "dist_token", "blocks.0.gamma_1", "blocks.0.attn.relative_position_bias_table"} & shapes.keys()
        return named and not other and len(patch) == 4 and patch[1] == 1 and "architecture" not in config

    def read(self, checkpoint: Checkpoint, options: ImportOptions) -> list[Part]:
        """Read; settings are ``statistics`` ("audioset", "esc50" or "speechcommands") and ``bins``, where they are not 128.

        Raises:
            ValueError: the positions are no grid of that many bins.
        """
        check_settings(options, "statistics", "bins")
        shapes = checkpoint.shapes
        patch, places = shapes["patch_embed.proj.weight"], shapes["pos_embed"][1] - 1
        bands = sound.integer_of(options, "bins", BINS) // patch[2]
        if not bands or places % bands:
            raise ValueError(f"{places} positions are no grid of {bands} bands: set bins.")
        sizes = Sizes(
            dim=patch[0],
            depth=count_layers(shapes, r"blocks\.(\d+)\."),
            heads=heads_of(patch[0], options),
            hidden=shapes["blocks.0.mlp.fc1.weight"][0],
            patch=patch[2],
            grid=(places // bands, bands),
            classes=shapes.get("head.weight", (0,))[0],
            pooled_norm="fc_norm.weight" in shapes,
        )
        model = PretrainedModel(settings_for(sizes, sound.statistics_of(checkpoint, options)))
        ignored = {"decoder_*": DECODER, "mask_token": DECODER}
        return [Part(model, KeyMap(self.entries(sizes), ignored, without_mask_token(model, "audio")))]

    def entries(self, sizes: Sizes) -> list[Entry]:
        """Return where the tensors are."""
        shape = (sizes.dim, 1, sizes.patch, sizes.patch)
        entries = [
            sound.patch_weight("embeds.audio.proj.weight", "patch_embed.proj.weight", shape),
            same("embeds.audio.proj.bias", "patch_embed.proj.bias"),
            stacked_tokens("encoder.special.tokens", ["cls_token"], [1]),
            positions("pos_embed", 1, "embeds.audio"),
            *layers.fused_layers(sizes.depth, "encoder.blocks.{}", "blocks.{}"),
        ]
        entries += [] if sizes.pooled_norm else pair("encoder.norm", "norm")
        if sizes.classes:
            entries += (pair("heads.classes.norm", "fc_norm") if sizes.pooled_norm else []) + pair("heads.classes.proj", "head")
        return entries

    def write(self, model: nn.Module) -> Written:
        """Write the names of the authors' repository."""
        assert isinstance(model, PretrainedModel)
        return Written(KeyMap(self.entries(sizes_of(model))).to_theirs(model.state_dict()))


FORMATS = (AudioMae(),)
