"""wav2vec 2.0 (https://arxiv.org/abs/2006.11477) and HuBERT (https://arxiv.org/abs/2106.07447): encoders of waveforms, and their CTC heads.

Source: transformers ``models/wav2vec2``, ``models/hubert``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import nn

from multimodal.pretrained.checkpoint import Checkpoint
from multimodal.pretrained.format import Format, ImportOptions, Part, Shapes, Written, count_layers, heads_of
from multimodal.pretrained.formats import layers, sound
from multimodal.pretrained.formats.layers import LayerNames, TrunkSizes
from multimodal.pretrained.formats.renamed import Renamed, Rules
from multimodal.pretrained.formats.vision import activation_of, check_settings, has_mask_token, hidden_act, without_mask_token
from multimodal.pretrained.keymap import Entry, KeyMap, pair, same
from multimodal.pretrained.model import PretrainedModel
from multimodal.pretrained.settings import ModelSettings, part

STRIDES = (5, 2, 2, 2, 2, 2, 2)
"""Of all published models; tensors do not tell them."""
CONV = "encoder.pos_conv_embed.conv"
TARGETS = "the quantizer and the projections of pretraining, which no later use needs"
LAYER = LayerNames(
    query="attention.q_proj",
    key="attention.k_proj",
    value="attention.v_proj",
    proj="attention.out_proj",
    norm1="layer_norm",
    norm2="final_layer_norm",
    fc1="feed_forward.intermediate_dense",
    fc2="feed_forward.output_dense",
)
NEW_TO_OLD: Rules = (
    (r"pos_conv_embed\.conv\.parametrizations\.weight\.original0$", "pos_conv_embed.conv.weight_g"),
    (r"pos_conv_embed\.conv\.parametrizations\.weight\.original1$", "pos_conv_embed.conv.weight_v"),
)
"""Names that torch has given to weight norm since 2.1 -> those of published files."""
OLD_TO_NEW: Rules = (
    (r"pos_conv_embed\.conv\.weight_g$", "pos_conv_embed.conv.parametrizations.weight.original0"),
    (r"pos_conv_embed\.conv\.weight_v$", "pos_conv_embed.conv.parametrizations.weight.original1"),
)
"""The way back."""


@dataclass(frozen=True)
class Sizes(TrunkSizes):
    """What tensors and config of a speech encoder tell.

    Args:
        activation: of the MLP.
        eps: of the norms.
        channels: of each convolution over the waveform.
        kernels: of those.
        strides: of those.
        conv_bias: whether those have one.
        layer_norms: whether all of those have a norm over channels, instead of the first one over time.
        pre_norm: whether the norms of a layer stand before attention and MLP, and one after the last layer ("stable layer norm").
        kernel: of the convolutional positions.
        groups: of the convolutional positions.
        vocab: characters of the CTC head; 0 without.
    """

    activation: str
    eps: float
    channels: tuple[int, ...]
    kernels: tuple[int, ...]
    strides: tuple[int, ...]
    conv_bias: bool
    layer_norms: bool
    pre_norm: bool
    kernel: int
    groups: int
    vocab: int


def settings_for(sizes: Sizes, normalize: bool) -> ModelSettings:
    """Return how to build the model."""
    embed = part(
        sound.ROOM + "WaveformEmbed",
        channels=list(sizes.channels),
        kernels=list(sizes.kernels),
        strides=list(sizes.strides),
        norm="layer" if sizes.layer_norms else "group",
        bias=sizes.conv_bias,
        eps=sizes.eps,
        normalize=normalize,
    )
    encoder = layers.encoder(
        sizes.dim,
        sizes.depth,
        sizes.heads,
        block=part(layers.NN + ("Block" if sizes.pre_norm else "PostNormBlock")),
        mlp=layers.mlp(sizes.hidden, act=sizes.activation),
        norm=layers.norm(sizes.eps),
        norm_at="output" if sizes.pre_norm else "input",
        convolution=part(layers.NN + "ConvPosition", kernel_size=sizes.kernel, groups=sizes.groups),
    )
    heads = {"tokens": part(layers.NN + "PredictionHead", vocab_sizes=[sizes.vocab])} if sizes.vocab else {}
    transform = part(sound.ROOM + "AudioTransform", sample_rate_hz=sound.SAMPLE_RATE_HZ, min_seconds=0.025)
    return ModelSettings(encoder, {"audio": embed}, heads, {"audio": transform})


def sizes_of(model: PretrainedModel) -> Sizes:
    """Return the sizes of a model of ours."""
    encoder, embed = model.settings.encoder["init_args"], model.settings.embeds["audio"]["init_args"]
    mlp, convolution = encoder["mlp"]["init_args"], encoder["convolution"]["init_args"]
    return Sizes(
        dim=encoder["dim"],
        depth=encoder["depth"],
        heads=encoder["num_heads"],
        hidden=mlp["hidden_dim"],
        activation=mlp["act"],
        eps=float(encoder["norm"]["init_args"]["eps"]),
        channels=tuple(embed["channels"]),
        kernels=tuple(embed["kernels"]),
        strides=tuple(embed["strides"]),
        conv_bias=embed["bias"],
        layer_norms=embed["norm"] == "layer",
        pre_norm=encoder["norm_at"] == "output",
        kernel=convolution["kernel_size"],
        groups=convolution["groups"],
        vocab=model.settings.heads["tokens"]["init_args"]["vocab_sizes"][0] if "tokens" in model.settings.heads else 0,
    )


class Speech(Format):
    """The names in published files of transformers."""

    layout = "transformers"
    model_type: ClassVar[str]
    """What a config calls the family."""
    class_name: ClassVar[str]
    """What the classes of transformers begin with."""
    alone: ClassVar[bool]
    """Whether a file without prefix and config is taken for this family; both have the same names."""

    @property
    def prefix(self) -> str:
        """Of the encoder's names under a head."""
        return self.model_type + "."

    def matches(self, shapes: Shapes, config: Mapping[str, Any]) -> bool:
        """Convolutions over the waveform, and convolutional positions with weight norm."""
        if f"{self.prefix}{CONV}.weight_v" in shapes:
            return True
        if f"{CONV}.weight_v" not in shapes or "feature_extractor.conv_layers.0.conv.weight" not in shapes:
            return False
        if "encoder.layers.0.attention.q_proj.weight" not in shapes or "encoder.layers.0.attention.gru_rel_pos_const" in shapes:
            return False
        return config["model_type"] == self.model_type if "model_type" in config else self.alone

    def read(self, checkpoint: Checkpoint, options: ImportOptions) -> list[Part]:
        """Read; the setting ``normalize`` is "true" or "false": whether waveforms are scaled to variance 1, which is in no tensor.

        Raises:
            ValueError: the setting has another value.
        """
        check_settings(options, "normalize")
        beside = checkpoint.extra.get("preprocessor_config")
        found = beside.get("do_normalize", True) if isinstance(beside, Mapping) else True
        normalize = options.settings.get("normalize", str(found).lower())
        if normalize not in ("true", "false"):
            raise ValueError(f"normalize must be 'true' or 'false', got {normalize!r}.")
        prefix = self.prefix if f"{self.prefix}{CONV}.weight_v" in checkpoint.shapes else ""
        sizes = self.sizes(checkpoint, prefix, options)
        ignored = dict.fromkeys(("quantizer.*", "project_q.*", "project_hid.*"), TARGETS)
        model = PretrainedModel(settings_for(sizes, normalize == "true"))
        mask_token = f"{prefix}masked_spec_embed" in checkpoint.shapes
        kept = {} if mask_token else without_mask_token(model, "audio")
        return [Part(model, KeyMap(self.entries(sizes, prefix, mask_token), ignored, kept))]

    def sizes(self, checkpoint: Checkpoint, prefix: str, options: ImportOptions) -> Sizes:
        """Return the sizes; those that neither tensors nor config tell are those of the published models."""
        shapes, config = checkpoint.shapes, checkpoint.config
        front = prefix + "feature_extractor.conv_layers."
        kernels = [shapes[f"{front}{i}.conv.weight"] for i in range(count_layers(shapes, re.escape(front) + r"(\d+)\."))]
        conv, layer_norms = shapes[f"{prefix}{CONV}.weight_v"], f"{front}1.layer_norm.weight" in shapes
        return Sizes(
            dim=conv[0],
            depth=count_layers(shapes, re.escape(prefix) + r"encoder\.layers\.(\d+)\."),
            heads=heads_of(conv[0], options._replace(num_heads=options.num_heads or config.get("num_attention_heads"))),
            hidden=shapes[f"{prefix}encoder.layers.0.feed_forward.intermediate_dense.weight"][0],
            activation=activation_of(config),
            eps=float(config.get("layer_norm_eps", 1e-5)),
            channels=tuple(kernel[0] for kernel in kernels),
            kernels=tuple(kernel[2] for kernel in kernels),
            strides=tuple(config.get("conv_stride", STRIDES)),
            conv_bias=f"{front}0.conv.bias" in shapes,
            layer_norms=layer_norms,
            pre_norm=bool(config.get("do_stable_layer_norm", layer_norms)),
            kernel=conv[2],
            groups=conv[0] // conv[1],
            vocab=shapes.get("lm_head.weight", (0,))[0],
        )

    def entries(self, sizes: Sizes, prefix: str, mask_token: bool) -> list[Entry]:
        """Return where the tensors are."""
        entries = layers.separate_layers(sizes.depth, "encoder.blocks.{}", prefix + "encoder.layers.{}", LAYER)
        entries += _waveform_entries(sizes, f"{prefix}feature_extractor.conv_layers.{{}}")
        entries += pair("embeds.audio.norm", f"{prefix}feature_projection.layer_norm")
        entries += pair("embeds.audio.proj", f"{prefix}feature_projection.projection")
        entries += [same("embeds.audio.mask_token", f"{prefix}masked_spec_embed")] if mask_token else []
        entries += sound.conv_position(prefix + CONV)
        entries += pair("encoder.norm" if sizes.pre_norm else "encoder.input_norm", f"{prefix}encoder.layer_norm")
        return entries + (pair("heads.tokens.proj", "lm_head") if sizes.vocab else [])

    def write(self, model: nn.Module) -> Written:
        """Write names and config of transformers."""
        assert isinstance(model, PretrainedModel)
        sizes = sizes_of(model)
        config = {
            "model_type": self.model_type,
            "architectures": [self.class_name + ("ForCTC" if sizes.vocab else "Model")],
            "hidden_size": sizes.dim,
            "num_hidden_layers": sizes.depth,
            "num_attention_heads": sizes.heads,
            "intermediate_size": sizes.hidden,
            "hidden_act": hidden_act(sizes.activation),
            "layer_norm_eps": sizes.eps,
            "conv_dim": list(sizes.channels),
            "conv_kernel": list(sizes.kernels),
            "conv_stride": list(sizes.strides),
            "num_feat_extract_layers": len(sizes.channels),
            "conv_bias": sizes.conv_bias,
            "feat_extract_norm": "layer" if sizes.layer_norms else "group",
            "do_stable_layer_norm": sizes.pre_norm,
            "num_conv_pos_embeddings": sizes.kernel,
            "num_conv_pos_embedding_groups": sizes.groups,
            **({"vocab_size": sizes.vocab} if sizes.vocab else {}),
        }
        entries = self.entries(sizes, self.prefix if sizes.vocab else "", has_mask_token(model, "audio"))
        return Written(KeyMap(entries).to_theirs(model.state_dict()), config)


def _waveform_entries(sizes: Sizes, theirs: str) -> list[Entry]:
    """Return the entries of the convolutions over the waveform; ``theirs`` has ``{}`` for the number."""
    entries = []
    normed: Sequence[int] = range(len(sizes.channels)) if sizes.layer_norms else [0]
    for i in range(len(sizes.channels)):
        ours, its = f"embeds.audio.layers.{i}", theirs.format(i)
        entries += pair(f"{ours}.conv", f"{its}.conv", bias=sizes.conv_bias)
        entries += pair(f"{ours}.norm", f"{its}.layer_norm") if i in normed else []
    return entries


class Wav2Vec2(Speech):
    """wav2vec 2.0, XLSR and the like."""

    family, model_type, class_name, alone = "wav2vec2", "wav2vec2", "Wav2Vec2", True
    licence, source = "Apache-2.0 (as on the hub)", "https://huggingface.co/docs/transformers/model_doc/wav2vec2"


class Hubert(Speech):
    """HuBERT."""

    family, model_type, class_name, alone = "hubert", "hubert", "Hubert", False
    licence, source = "Apache-2.0 (as on the hub)", "https://huggingface.co/docs/transformers/model_doc/hubert"


SIGN = r"pos_conv_embed\.conv\.parametrizations\.weight\.original0$"
FORMATS = (
    Wav2Vec2(),
    Renamed(Wav2Vec2(), to_base=NEW_TO_OLD, from_base=OLD_TO_NEW, sign=SIGN),
    Hubert(),
    Renamed(Hubert(), to_base=NEW_TO_OLD, from_base=OLD_TO_NEW, sign=SIGN),
)
