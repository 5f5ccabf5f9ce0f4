"""FLAVA (https://arxiv.org/abs/2112.04482): an encoder of images, one of texts, and one that reads what both have made.

They become models of their own, and the tokenizer that makes the targets of masked images, DALL-E's, one too. The multimodal encoder reads
the tokens after the last layers of the others, before their last norm.
Source: transformers ``models/flava``.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from typing import Any

from torch import nn

from multimodal.pretrained.checkpoint import Checkpoint
from multimodal.pretrained.format import Format, ImportOptions, Part, Shapes, Written, count_layers
from multimodal.pretrained.formats import dalle, layers, vision, words
from multimodal.pretrained.formats.flava_config import config_of, whole_config
from multimodal.pretrained.keymap import Entry, KeyMap, equal_copies, pair, same
from multimodal.pretrained.model import PretrainedModel
from multimodal.pretrained.settings import ModelSettings, part

EPS = 1e-12
TOWERS = {"image": "image_model.", "text": "text_model.", "multimodal": "multimodal_model."}
"""Our parts -> what their names begin with."""
MASKED_HEADS = {
    "image": {"tokens": "mim_head"},
    "text": {"tokens": "mlm_head"},
    "multimodal": {"image_tokens": "mmm_image_head", "text_tokens": "mmm_text_head"},
}
"""Part -> our name of a head -> theirs."""
IGNORED = {
    "*_model.pooler.dense.*": "a pooler that no head of FLAVA reads",
    "*position_ids": "an index that is computed, not learned",
    "*logit_scale": "temperature of the contrastive loss",
    "*mmm_*_head.*": "a head of the multimodal encoder, which the file does not hold",
    "*_to_mm_projection.*": "a way into the multimodal encoder, which the file does not hold",
    "itm_head.*": "a head of the multimodal encoder, which the file does not hold",
}
CODEBOOK = "image_codebook."
"""What the names of the tokenizer begin with."""
NO_MASK = "FLAVA hides tokens before they enter; the first values stay"


class TransformersFlava(Format):
    """The names in the files of transformers: FlavaForPreTraining, or FlavaModel alone. Parts: image, text, multimodal, codebook."""

    family, layout = "flava", "transformers"
    licence, source = "BSD-3-Clause", "https://huggingface.co/docs/transformers/model_doc/flava"

    def matches(self, shapes: Shapes, config: Mapping[str, Any]) -> bool:
        """One of its towers."""
        return any(tower + "encoder.layer.0.layernorm_before.weight" in shapes for tower in _with_prefixes(TOWERS.values()))

    def read(self, checkpoint: Checkpoint, options: ImportOptions) -> list[Part]:
        """Read.

        Settings: ``statistics`` is "clip" (the default), "half" or "imagenet": what the pixels were normalised with, where no
        ``preprocessor_config.json`` stands beside. ``mask_id`` is the id of the mask, where no tokenizer beside the weights tells.
        """
        vision.check_settings(options, "statistics", "mask_id")
        shapes = checkpoint.shapes
        prefix = "flava." if any(name.startswith("flava.") for name in shapes) else ""
        builders = {"image": image_settings, "text": text_settings, "multimodal": multimodal_settings}
        found = [name for name, tower in TOWERS.items() if f"{prefix}{tower}encoder.layer.0.layernorm_before.weight" in shapes]
        models = {name: PretrainedModel(builders[name](checkpoint, options, prefix)) for name in found}
        parts = [Part(model, keymap_of(name, model, prefix, shapes), name) for name, model in models.items()]
        has_codebook = f"{CODEBOOK}blocks.input.weight" in shapes
        return [*parts, dalle.tokenizer_part(shapes, dalle.FLAVA, CODEBOOK, None, "codebook")] if has_codebook else parts

    def write(self, model: nn.Module) -> Written:
        """Write one part: names as in the whole model, the config of the class of its tower (``FlavaImageModel`` ...).

        Raises:
            ValueError: it has a head that FLAVA does not have.
        """
        assert isinstance(model, PretrainedModel)
        name = part_of(model)
        return Written(keymap_of(name, model, "flava.", WRITTEN).to_theirs(model.state_dict()), config_of(name, model))

    def write_all(self, parts: Mapping[str, Any]) -> Written:
        """Write the parts "image", "text" and "multimodal", and "codebook" if it is there, as one ``FlavaForPreTraining``.

        Raises:
            ValueError: a part is missing, or has a head that FLAVA does not have.
        """
        if missing := sorted(TOWERS.keys() - parts.keys()):
            raise ValueError(f"FLAVA has the parts {sorted(TOWERS)}; {missing} are missing.")
        tensors = {key: x for name in TOWERS for key, x in self.write(parts[name]).tensors.items()}
        config = whole_config({name: parts[name] for name in TOWERS})
        if "codebook" not in parts:
            return Written(tensors, config)
        codebook = dalle.TransformersDalle().write(parts["codebook"])
        tensors |= {CODEBOOK + key: x for key, x in codebook.tensors.items()}
        return Written(tensors, {**config, "init_codebook": True, "image_codebook_config": codebook.config})


def part_of(model: PretrainedModel) -> str:
    """Return which part of FLAVA a model is, told by its embeddings.

    Raises:
        ValueError: it has a head that the part does not have.
    """
    name = "multimodal" if len(model.embeds) > 1 else next(iter(model.embeds))
    known = {*MASKED_HEADS[name], "classes" if name == "multimodal" else "projection"}
    if unknown := sorted(set(model.heads) - known):
        raise ValueError(f"FLAVA's part {name!r} has the heads {sorted(known)}; the model also has {unknown}.")
    return name


def tower_of(checkpoint: Checkpoint, options: ImportOptions, prefix: str, name: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the settings of an encoder, and of its norm."""
    shapes, config = checkpoint.shapes, checkpoint.config.get(f"{name}_config") or {}
    start = prefix + TOWERS[name]
    dim = shapes[f"{start}layernorm.weight"][0]
    norm = layers.norm(float(config.get("layer_norm_eps", EPS)))
    hidden = shapes[f"{start}encoder.layer.0.intermediate.dense.weight"][0]
    encoder = layers.encoder(
        dim,
        count_layers(shapes, re.escape(start) + r"encoder\.layer\.(\d+)\."),
        words.num_heads_of(config, dim, options),
        attention=layers.attention("all" if f"{start}encoder.layer.0.attention.attention.key.bias" in shapes else "none"),
        mlp=layers.mlp(hidden, act=words.activation_of(config, "hidden_act")),
        norm=norm,
    )
    return encoder, norm


def masked_heads(checkpoint: Checkpoint, name: str, norms: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """Return the heads for hidden tokens that the file holds; ``norms``: our name of a head -> settings of its norm."""
    heads = {}
    for ours, theirs in MASKED_HEADS[name].items():
        if (decoder := checkpoint.shapes.get(f"{theirs}.decoder.weight")) is not None:
            act = words.activation_of(checkpoint.config.get(f"{_kind(theirs)}_config") or {}, "hidden_act")
            heads[ours] = part(layers.NN + "PredictionHead", vocab_sizes=[decoder[0]], norm=norms[ours], act=act)
    return heads


def projection_head(checkpoint: Checkpoint, prefix: str, name: str, pool: str) -> dict[str, dict[str, Any]]:
    """Return the projection of the class token for the contrastive loss, if the file holds it."""
    weight = checkpoint.shapes.get(f"{prefix}{name}_projection.weight")
    return {} if weight is None else {"projection": part("multimodal.heads.ClassificationHead", num_classes=weight[0], pool=pool)}


def image_settings(checkpoint: Checkpoint, options: ImportOptions, prefix: str) -> ModelSettings:
    """Return how to build the encoder of images."""
    start = prefix + TOWERS["image"] + "embeddings."
    patch, positions = (checkpoint.shapes[start + name] for name in ("patch_embeddings.projection.weight", "position_embeddings"))
    encoder, norm = tower_of(checkpoint, options, prefix, "image")
    encoder["init_args"] |= {"class_token": True, "special_positions": True}
    grid = vision.grid_of(positions[1] - 1, options, (checkpoint.config.get("image_config") or {}).get("image_size"), patch[2])
    statistics = vision.statistics_of(checkpoint, options, "clip", patch[1])
    embed = vision.image_embed(patch[2], patch[1], statistics, vision.learned_position(grid))
    heads = masked_heads(checkpoint, "image", {"tokens": norm}) | projection_head(checkpoint, prefix, "image", "class")
    return ModelSettings(encoder, {"image": embed}, heads, vision.image_transforms(grid, patch[2], patch[1]))


def text_settings(checkpoint: Checkpoint, options: ImportOptions, prefix: str) -> ModelSettings:
    """Return how to build the encoder of texts."""
    start = prefix + TOWERS["text"] + "embeddings."
    names = ("word_embeddings", "position_embeddings", "token_type_embeddings")
    vocab, length, types = (checkpoint.shapes[f"{start}{name}.weight"][0] for name in names)
    encoder, norm = tower_of(checkpoint, options, prefix, "text")
    embed = part(
        "multimodal.tokenizers.text.TextEmbed",
        vocab_size=vocab,
        mask_id=words.mask_id_of(checkpoint, options),
        position=vision.learned_position([length]),
        num_types=types,
        norm=norm,
    )
    heads = masked_heads(checkpoint, "text", {"tokens": norm}) | projection_head(checkpoint, prefix, "text", "first")
    return ModelSettings(encoder, {"text": embed}, heads)


def multimodal_settings(checkpoint: Checkpoint, options: ImportOptions, prefix: str) -> ModelSettings:
    """Return how to build the encoder that reads the others' tokens."""
    shapes = checkpoint.shapes
    encoder, _ = tower_of(checkpoint, options, prefix, "multimodal")
    encoder["init_args"]["class_token"] = f"{prefix}{TOWERS['multimodal']}cls_token" in shapes
    widths = {name: shapes[f"{prefix}{name}_to_mm_projection.weight"][1] for name in ("image", "text")}
    embeds = {name: part("multimodal.pretrained.vectors.VectorEmbed", in_dim=width) for name, width in widths.items()}
    eps = {name: float((checkpoint.config.get(f"{name}_config") or {}).get("layer_norm_eps", EPS)) for name in widths}
    heads = masked_heads(checkpoint, "multimodal", {f"{name}_tokens": layers.norm(eps[name]) for name in widths})
    if "itm_head.seq_relationship.weight" in shapes:
        heads["classes"] = part("multimodal.heads.ClassificationHead", num_classes=2, pool="class", hidden="tanh")
    return ModelSettings(encoder, embeds, heads)


def keymap_of(name: str, model: PretrainedModel, prefix: str, present: Collection[str]) -> KeyMap:
    """Return where the tensors of a part are; ``present``: names in the file, where a bias may be stored twice."""
    start, bias = prefix + TOWERS[name], model.encoder.layers(0)[0].attn.qkv.bias is not None
    entries = layers.separate_layers(
        model.encoder.depth, "encoder.blocks.{}", start + "encoder.layer.{}", vision.TRANSFORMERS_LAYER, "all" if bias else "none"
    )
    entries += pair("encoder.norm", start + "layernorm")
    before = {"image": image_entries, "text": text_entries, "multimodal": multimodal_entries}
    entries += before[name](model, start, prefix)
    for ours, theirs in MASKED_HEADS[name].items():
        entries += head_entries(f"heads.{ours}", theirs, present) if ours in model.heads else []
    if "projection" in model.heads:
        entries += pair("heads.projection.proj", f"{prefix}{name}_projection")
    if "classes" in model.heads:
        entries += [*pair("heads.classes.hidden.0", "itm_head.pooler.dense"), *pair("heads.classes.proj", "itm_head.seq_relationship")]
    filled = {key for entry in entries for key in entry.ours}
    kept = {key: NO_MASK for key in model.state_dict() if key.endswith("mask_token") and key not in filled}
    return KeyMap(entries, IGNORED, kept)


def image_entries(model: PretrainedModel, start: str, prefix: str) -> list[Entry]:
    """Return the entries of what stands before the layers of the encoder of images."""
    settings, start = model.settings.embeds["image"]["init_args"], start + "embeddings."
    shape = (model.encoder.dim, settings["channels"], settings["patch_size"], settings["patch_size"])
    entries = layers.patch_projection("embeds.image.proj", start + "patch_embeddings.projection", shape)
    entries += [
        vision.stacked_tokens("encoder.special.tokens", [start + "cls_token"], [1]),
        vision.positions(start + "position_embeddings", 1),
    ]
    return [*entries, vision.mask_token(start + "mask_token")]


def text_entries(model: PretrainedModel, start: str, prefix: str) -> list[Entry]:
    """Return the entries of what stands before the layers of the encoder of texts."""
    names = {"words.weight": "word_embeddings", "position.table": "position_embeddings", "types.weight": "token_type_embeddings"}
    entries = [same(f"embeds.text.{ours}", f"{start}embeddings.{theirs}.weight") for ours, theirs in names.items()]
    return entries + pair("embeds.text.norm", start + "embeddings.LayerNorm")


def multimodal_entries(model: PretrainedModel, start: str, prefix: str) -> list[Entry]:
    """Return the entries of what stands before the layers of the multimodal encoder."""
    entries = [entry for name in ("image", "text") for entry in pair(f"embeds.{name}.proj", f"{prefix}{name}_to_mm_projection")]
    if model.encoder.special is not None:
        entries.append(vision.stacked_tokens("encoder.special.tokens", [start + "cls_token"], [1]))
    return entries


def head_entries(ours: str, theirs: str, present: Collection[str]) -> list[Entry]:
    """Return the entries of a head for hidden tokens; its bias may be stored twice."""
    entries = [*pair(f"{ours}.hidden.0", f"{theirs}.transform.dense"), *pair(f"{ours}.hidden.2", f"{theirs}.transform.LayerNorm")]
    biases = [name for name in (f"{theirs}.decoder.bias", f"{theirs}.bias") if name in present]
    return [*entries, same(f"{ours}.proj.weight", f"{theirs}.decoder.weight"), equal_copies(f"{ours}.proj.bias", biases)]


def _kind(head: str) -> str:
    return "image" if head in ("mim_head", "mmm_image_head") else "text"


def _with_prefixes(towers: Collection[str]) -> list[str]:
    return [prefix + tower for prefix in ("flava.", "") for tower in towers]


WRITTEN = frozenset(f"{theirs}.decoder.bias" for heads in MASKED_HEADS.values() for theirs in heads.values())
"""The names of the biases that transformers stores."""

FORMATS = (TransformersFlava(),)
