"""BEATs (https://arxiv.org/abs/2212.09058): audio encoders, classifiers, and the self-distilled tokenizers.

Source: microsoft/unilm ``beats/BEATs.py``, ``beats/backbone.py``, ``beats/Tokenizers.py``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from multimodal.pretrained.checkpoint import Checkpoint
from multimodal.pretrained.format import Format, ImportOptions, Part, Shapes, Written, count_layers
from multimodal.pretrained.formats import layers, sound
from multimodal.pretrained.formats.layers import LayerNames, TrunkSizes
from multimodal.pretrained.formats.vision import NO_MASK, check_settings, without_mask_token
from multimodal.pretrained.keymap import Entry, KeyMap, equal_copies, pair, same, shaped
from multimodal.pretrained.model import PretrainedModel
from multimodal.pretrained.settings import ModelSettings, part
from multimodal.recorded import Recorded, build, from_plain, settings_of

EPS = 1e-5
MAX_DISTANCE = 800
"""Of all published weights; the default of the original's class, 1280, is of none."""
FIXED = {"layer_norm_first": False, "deep_norm": True, "relative_position_embedding": True, "gru_rel_pos": True, "conv_bias": False}
"""What a BEATs may be configured to be, and all published ones are."""
STATISTICS_OF_TRAINING = "numbers that only the training of the codebook needs"
STARTED = "a released codebook was trained"
LAYER = LayerNames(
    query="self_attn.q_proj",
    key="self_attn.k_proj",
    value="self_attn.v_proj",
    proj="self_attn.out_proj",
    norm1="self_attn_layer_norm",
    norm2="final_layer_norm",
    fc1="fc1",
    fc2="fc2",
)


@dataclass(frozen=True)
class Sizes(TrunkSizes):
    """What the tensors of a BEATs tell.

    Args:
        patch: frames and bins of a patch.
        patch_dim: width of embedded patches.
        buckets: of the relative bias.
        max_distance: of the relative bias; its tensors do not tell.
        kernel: of the convolutional positions.
        groups: of the convolutional positions.
        classes: of the classifier; 0 without.
    """

    patch: int
    patch_dim: int
    buckets: int
    max_distance: int
    kernel: int
    groups: int
    classes: int


def sizes_in(checkpoint: Checkpoint) -> Sizes:
    """Return the sizes of a checkpoint.

    Raises:
        ValueError: it is configured as no published BEATs is.
    """
    shapes, facts = checkpoint.shapes, configuration(checkpoint)
    for name, value in FIXED.items():
        if name in facts and bool(facts[name]) != value:
            raise ValueError(
                f"the checkpoint's cfg has {name} {facts[name]}; all published BEATs have {value}, and no other kind is known here."
            )
    patch, conv = shapes["patch_embedding.weight"], shapes["encoder.pos_conv.0.weight_v"]
    buckets, heads = shapes["encoder.layers.0.self_attn.relative_attention_bias.weight"]
    return Sizes(
        dim=conv[0],
        depth=count_layers(shapes, r"encoder\.layers\.(\d+)\."),
        heads=heads,
        hidden=shapes["encoder.layers.0.fc1.weight"][0],
        patch=patch[2],
        patch_dim=patch[0],
        buckets=buckets,
        max_distance=int(facts.get("max_distance", MAX_DISTANCE)),
        kernel=conv[2],
        groups=conv[0] // conv[1],
        classes=shapes.get("predictor.weight", (0,))[0],
    )


def configuration(checkpoint: Checkpoint) -> Mapping[str, Any]:
    """Return the ``cfg`` of a published file, or of one that was written here."""
    facts = checkpoint.extra.get("cfg", checkpoint.config.get("cfg", {}))
    return facts if isinstance(facts, Mapping) else vars(facts)


def labels_in(checkpoint: Checkpoint, classes: int) -> tuple[str, ...]:
    """Return the names of the classes in order; none where the checkpoint does not name all."""
    names = checkpoint.extra.get("label_dict", checkpoint.config.get("label_dict", {}))
    named = {int(number): str(name) for number, name in names.items()}
    return tuple(named[i] for i in range(classes)) if sorted(named) == list(range(classes)) else ()


def encoder_settings(sizes: Sizes) -> dict[str, Any]:
    """Return how to build the encoder."""
    return layers.encoder(
        sizes.dim,
        sizes.depth,
        sizes.heads,
        block=part(layers.NN + "DeepNormBlock"),
        attention=layers.attention(content_bias=part(layers.NN + "GatedBias")),
        mlp=layers.mlp(sizes.hidden),
        norm=layers.norm(EPS),
        norm_at="input",
        bias=part(layers.NN + "BucketedBias", num_buckets=sizes.buckets, max_distance=sizes.max_distance),
        convolution=part(layers.NN + "ConvPosition", kernel_size=sizes.kernel, groups=sizes.groups),
    )


def embed_settings(sizes: Sizes) -> dict[str, Any]:
    """Return how to build the embedding of spectrograms."""
    projection = part(sound.ROOM + "NormedProjection", hidden_dim=sizes.patch_dim, eps=EPS)
    return sound.spectrogram_embed(sizes.patch, sound.BEATS, projection=projection, position=None)


def transform_settings() -> dict[str, Any]:
    """Return how sounds are made spectrograms."""
    reader = part(sound.ROOM + "AudioTransform", sample_rate_hz=sound.SAMPLE_RATE_HZ, seconds=10.0)
    features = part(sound.ROOM + "LogMel", num_bins=128, window="povey", gain=2.0**15)
    return part(sound.ROOM + "SpectrogramTransform", sound=reader, features=features)


def encoder_entries(sizes: Sizes, embed: str = "embeds.audio") -> list[Entry]:
    """Return where the tensors of encoder and embedding are."""
    entries = layers.separate_layers(sizes.depth, "encoder.blocks.{}", "encoder.layers.{}", LAYER)
    for i in range(sizes.depth):
        ours, theirs = f"encoder.blocks.{i}.attn.content_bias", f"encoder.layers.{i}.self_attn"
        entries += pair(f"{ours}.linear", f"{theirs}.grep_linear")
        entries.append(shaped(f"{ours}.scale", f"{theirs}.grep_a", (sizes.heads,), (1, sizes.heads, 1, 1)))
    tables = [f"encoder.layers.{i}.self_attn.relative_attention_bias.weight" for i in range(sizes.depth)]
    entries.append(equal_copies("encoder.bias.table", tables))
    entries += pair("encoder.input_norm", "encoder.layer_norm")
    entries += sound.conv_position("encoder.pos_conv.0")
    shape = (sizes.patch_dim, 1, sizes.patch, sizes.patch)
    entries.append(sound.patch_weight(f"{embed}.proj.patch.weight", "patch_embedding.weight", shape))
    entries += pair(f"{embed}.proj.norm", "layer_norm")
    return entries + (pair(f"{embed}.proj.out", "post_extract_proj") if sizes.patch_dim != sizes.dim else [])


def sizes_of(encoder: Mapping[str, Any], embed: Mapping[str, Any], classes: int = 0) -> Sizes:
    """Return the sizes of a model of ours, from the settings of its parts."""
    e, p = encoder["init_args"], embed["init_args"]
    bias, convolution = e["bias"]["init_args"], e["convolution"]["init_args"]
    return Sizes(
        dim=e["dim"],
        depth=e["depth"],
        heads=e["num_heads"],
        hidden=e["mlp"]["init_args"]["hidden_dim"],
        patch=p["patch_size"],
        patch_dim=p["projection"]["init_args"]["hidden_dim"],
        buckets=bias["num_buckets"],
        max_distance=bias["max_distance"],
        kernel=convolution["kernel_size"],
        groups=convolution["groups"],
        classes=classes,
    )


def cfg_of(sizes: Sizes) -> dict[str, Any]:
    """Return the ``cfg`` with which the original builds the model."""
    return {
        "input_patch_size": sizes.patch,
        "embed_dim": sizes.patch_dim,
        "encoder_layers": sizes.depth,
        "encoder_embed_dim": sizes.dim,
        "encoder_ffn_embed_dim": sizes.hidden,
        "encoder_attention_heads": sizes.heads,
        "activation_fn": "gelu",
        "conv_pos": sizes.kernel,
        "conv_pos_groups": sizes.groups,
        "num_buckets": sizes.buckets,
        "max_distance": sizes.max_distance,
        **FIXED,
        **({"finetuned_model": True, "predictor_class": sizes.classes} if sizes.classes else {}),
    }


class Beats(Format):
    """The published encoders and classifiers."""

    family, layout = "beats", "unilm"
    licence, source = "MIT (https://github.com/microsoft/unilm)", "https://github.com/microsoft/unilm/tree/master/beats"

    def matches(self, shapes: Shapes, config: Mapping[str, Any]) -> bool:
        """The gates of the relative bias, and no codebook."""
        return (
            "encoder.layers.0.self_attn.grep_a" in shapes
            and "patch_embedding.weight" in shapes
            and "quantize.embedding.weight" not in shapes
        )

    def read(self, checkpoint: Checkpoint, options: ImportOptions) -> list[Part]:
        """Read; there are no settings."""
        check_settings(options)
        sizes = sizes_in(checkpoint)
        heads = {}
        if sizes.classes:
            heads["classes"] = part("multimodal.heads.ClassificationHead", num_classes=sizes.classes, pool="mean")
        settings = ModelSettings(
            encoder_settings(sizes),
            {"audio": embed_settings(sizes)},
            heads,
            {"audio": transform_settings()},
            labels=labels_in(checkpoint, sizes.classes),
        )
        model = PretrainedModel(settings)
        return [Part(model, KeyMap(self.entries(sizes), kept=without_mask_token(model, "audio")))]

    def entries(self, sizes: Sizes) -> list[Entry]:
        """Return where the tensors are. The mean of the tokens' logits, as published, is the logits of the tokens' mean."""
        return encoder_entries(sizes) + (pair("heads.classes.proj", "predictor") if sizes.classes else [])

    def write(self, model: nn.Module) -> Written:
        """Write the tensors under ``model`` of a published file; its ``cfg`` and ``label_dict`` are in the config."""
        assert isinstance(model, PretrainedModel)
        own = model.settings
        classes = own.heads["classes"]["init_args"]["num_classes"] if "classes" in own.heads else 0
        sizes = sizes_of(own.encoder, own.embeds["audio"], classes)
        labels = {"label_dict": {str(i): name for i, name in enumerate(own.labels)}} if own.labels else {}
        return Written(KeyMap(self.entries(sizes)).to_theirs(model.state_dict()), {"cfg": cfg_of(sizes), **labels})


class BeatsTokenizerFormat(Format):
    """The published self-distilled tokenizers."""

    family, layout = "beats-tokenizer", "unilm"
    licence, source = Beats.licence, Beats.source

    def matches(self, shapes: Shapes, config: Mapping[str, Any]) -> bool:
        """The gates of the relative bias, and a codebook."""
        return "encoder.layers.0.self_attn.grep_a" in shapes and "quantize.embedding.weight" in shapes

    def read(self, checkpoint: Checkpoint, options: ImportOptions) -> list[Part]:
        """Read; there are no settings."""
        check_settings(options)
        sizes, shapes = sizes_in(checkpoint), checkpoint.shapes
        codes, code_dim = shapes["quantize.embedding.weight"]
        target = build(
            {"class_path": sound.ROOM + "BeatsTokenizer"},
            from_plain(encoder_settings(sizes)),
            from_plain(embed_settings(sizes)),
            codes,
            code_dim,
        )
        target.embed.mask_token.data.zero_()
        target.quantizer.initialized.fill_(True)
        ignored = {f"quantize.embedding.{name}": STATISTICS_OF_TRAINING for name in ("cluster_size", "embed_avg", "initted")}
        return [Part(target, KeyMap(self.entries(sizes), ignored, {"embed.mask_token": NO_MASK, "quantizer.initialized": STARTED}))]

    def entries(self, sizes: Sizes) -> list[Entry]:
        """Return where the tensors are."""
        entries = encoder_entries(sizes, "embed") + pair("project.0", "quantize_layer.0") + pair("project.2", "quantize_layer.2")
        return [*entries, same("quantizer.codes", "quantize.embedding.weight"), same("quantizer.usage", "quantize.cluster_size")]

    def write(self, model: nn.Module) -> Written:
        """Write the tensors under ``model`` of a published file, with new statistics of training; its ``cfg`` is in the config."""
        encoder, embed = model.encoder, model.embed
        assert isinstance(encoder, Recorded) and isinstance(embed, Recorded)
        sizes = sizes_of(settings_of(encoder), settings_of(embed, ("dim",)))
        state = model.state_dict()
        codes = state["quantizer.codes"]
        beside = {
            "cluster_size": torch.zeros(len(codes)),
            "embed_avg": codes.clone(),
            "initted": state["quantizer.initialized"].float().view(1),
        }
        tensors = KeyMap(self.entries(sizes)).to_theirs(state) | {f"quantize.embedding.{name}": x for name, x in beside.items()}
        return Written(tensors, {"cfg": {**cfg_of(sizes), "quant_n": len(codes), "quant_dim": codes.shape[1]}})

    def holds(self, model: nn.Module) -> bool:
        """Return whether the model is such a tokenizer."""
        return type(model).__name__ == "BeatsTokenizer"


FORMATS = (Beats(), BeatsTokenizerFormat())
