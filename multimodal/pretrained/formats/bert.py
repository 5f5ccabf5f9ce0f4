"""BERT (https://arxiv.org/abs/1810.04805), and sentence encoders that are BERTs (MiniLM).

Source: transformers ``models/bert``.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from torch import nn

from multimodal.pretrained.checkpoint import Checkpoint
from multimodal.pretrained.format import Format, ImportOptions, Part, Shapes, Written, count_layers
from multimodal.pretrained.formats import layers, vision, words
from multimodal.pretrained.formats.layers import LayerNames, TrunkSizes
from multimodal.pretrained.keymap import Entry, KeyMap, equal_copies, pair, same
from multimodal.pretrained.model import PretrainedModel
from multimodal.pretrained.settings import ModelSettings, part

LAYER = LayerNames(
    query="attention.self.query",
    key="attention.self.key",
    value="attention.self.value",
    proj="attention.output.dense",
    norm1="attention.output.LayerNorm",
    norm2="output.LayerNorm",
    fc1="intermediate.dense",
    fc2="output.dense",
)
WORDS = "embeddings.word_embeddings.weight"
TYPES = "embeddings.token_type_embeddings.weight"
HEAD = "cls.predictions."
EPS = 1e-12
IGNORED = {
    "*embeddings.position_ids": "an index that is computed, not learned",
    "cls.seq_relationship.*": "next-sentence prediction, which no later use needs",
    "*pooler.dense.*": "a hidden layer for a classifier that the checkpoint does not have",
    "classifier.*": "a classifier of single tokens; the encoder is imported without it",
    "qa_outputs.*": "a head for spans of answers; the encoder is imported without it",
}


@dataclass(frozen=True)
class Sizes(TrunkSizes):
    """What the tensors and the config of a BERT tell.

    Args:
        eps: of the norms.
        act: activation of the MLP and of the masked-word head.
        vocab: ids.
        mask_id: of the mask; None: unknown.
        max_length: positions.
        types: token types.
        predicts: whether there is a masked-word head.
        tied: whether that head has the table of words as its weight.
        classes: of the classifier; 0 without.
    """

    eps: float
    act: str
    vocab: int
    mask_id: int | None
    max_length: int
    types: int
    predicts: bool
    tied: bool
    classes: int


def settings_of(sizes: Sizes, labels: tuple[str, ...] = ()) -> ModelSettings:
    """Return how to build the model."""
    norm = layers.norm(sizes.eps)
    heads = {}
    if sizes.predicts:
        heads["tokens"] = part(layers.NN + "PredictionHead", vocab_sizes=[sizes.vocab], norm=norm, act=sizes.act)
    if sizes.classes:
        heads["classes"] = part("multimodal.heads.ClassificationHead", num_classes=sizes.classes, pool="first", hidden="tanh")
    embed = part(
        "multimodal.tokenizers.text.TextEmbed",
        vocab_size=sizes.vocab,
        mask_id=sizes.mask_id,
        position=part(layers.NN + "LearnedPosition", size=[sizes.max_length]),
        num_types=sizes.types,
        norm=norm,
    )
    encoder = layers.encoder(
        sizes.dim,
        sizes.depth,
        sizes.heads,
        block=part(layers.NN + "PostNormBlock"),
        mlp=layers.mlp(sizes.hidden, act=sizes.act),
        norm=norm,
        norm_at="none",
    )
    tied = {"heads.tokens.proj.weight": "embeds.text.words.weight"} if sizes.predicts and sizes.tied else {}
    return ModelSettings(encoder, {"text": embed}, heads, tied=tied, labels=labels)


def sizes_of(model: PretrainedModel) -> Sizes:
    """Return the sizes of a model of ours.

    Raises:
        ValueError: it has a head that BERT does not have.
    """
    encoder, embed = model.settings.encoder["init_args"], model.settings.embeds["text"]["init_args"]
    heads = {name: dict(head.get("init_args", {})) for name, head in model.settings.heads.items()}
    classes = heads.get("classes")
    if classes and (classes.get("pool"), classes.get("hidden"), classes.get("norm")) != ("first", "tanh", None):
        raise ValueError(
            "BERT's classifier reads the first token through a hidden layer: only a head with pool 'first' and hidden 'tanh' fits."
        )
    if set(heads) - {"tokens", "classes"} or len(heads) > 1:
        raise ValueError(f"BERT's layout holds one head, 'tokens' or 'classes'; the model has {sorted(heads)}.")
    return Sizes(
        dim=encoder["dim"],
        depth=encoder["depth"],
        heads=encoder["num_heads"],
        hidden=encoder["mlp"]["init_args"]["hidden_dim"],
        eps=float(encoder["norm"]["init_args"]["eps"]),
        act=encoder["mlp"]["init_args"]["act"],
        vocab=embed["vocab_size"],
        mask_id=embed["mask_id"],
        max_length=embed["position"]["init_args"]["size"][0],
        types=embed["num_types"],
        predicts="tokens" in heads,
        tied="heads.tokens.proj.weight" in model.settings.tied,
        classes=classes["num_classes"] if classes else 0,
    )


def trunk_entries(depth: int, prefix: str) -> list[Entry]:
    """Return the entries of the layers."""
    return layers.separate_layers(depth, "encoder.blocks.{}", prefix + "encoder.layer.{}", LAYER)


def head_entries(present: Collection[str], tied: bool) -> list[Entry]:
    """Return the entries of the masked-word head but for a tied weight; a bias may be stored twice."""
    entries = [*pair("heads.tokens.hidden.0", HEAD + "transform.dense"), *pair("heads.tokens.hidden.2", HEAD + "transform.LayerNorm")]
    entries.append(equal_copies("heads.tokens.proj.bias", [name for name in (HEAD + "bias", HEAD + "decoder.bias") if name in present]))
    return entries if tied else [*entries, same("heads.tokens.proj.weight", HEAD + "decoder.weight")]


def with_old_norms(keymap: KeyMap) -> KeyMap:
    """Return the map for files whose norms have gamma and beta, as those converted from the first release of BERT."""

    def old(name: str) -> str:
        return name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta")

    entries = [Entry(e.ours, tuple(map(old, e.theirs)), e.to_ours, e.to_theirs) for e in keymap.entries]
    return KeyMap(entries, keymap.ignored, keymap.kept)


class TransformersBert(Format):
    """The names in the files of transformers: BertModel, BertForMaskedLM, BertForPreTraining, BertForSequenceClassification."""

    family, layout = "bert", "transformers"
    licence, source = "Apache-2.0", "https://huggingface.co/docs/transformers/model_doc/bert"

    def matches(self, shapes: Shapes, config: Mapping[str, Any]) -> bool:
        """BERT's names and nothing of those who use them for something else; without a config, two token types (RoBERTa has one)."""
        prefix = "bert." if f"bert.{WORDS}" in shapes else ""
        if {prefix + WORDS, prefix + TYPES, f"{prefix}encoder.layer.0.attention.output.dense.weight"} - shapes.keys():
            return False
        foreign = "word_emb.0.lut.weight" in shapes or any(name.endswith("distance_embedding.weight") for name in shapes)
        return not foreign and (config.get("model_type") == "bert" if config else shapes[prefix + TYPES][0] >= 2)

    def read(self, checkpoint: Checkpoint, options: ImportOptions) -> list[Part]:
        """Read; the setting ``mask_id`` is the id of the mask, where no tokenizer beside the weights tells."""
        vision.check_settings(options, "mask_id")
        shapes, config = checkpoint.shapes, checkpoint.config
        prefix = "bert." if f"bert.{WORDS}" in shapes else ""
        if config.get("is_decoder"):
            raise ValueError("is_decoder is true: this BERT looks only back, which a bidirectional encoder does not.")
        vocab, dim = shapes[prefix + WORDS]
        classifies = "classifier.weight" in shapes and f"{prefix}pooler.dense.weight" in shapes
        classes = shapes["classifier.weight"][0] if classifies else 0
        sizes = Sizes(
            dim=dim,
            depth=count_layers(shapes, re.escape(prefix) + r"encoder\.layer\.(\d+)\."),
            heads=words.num_heads_of(config, dim, options),
            hidden=shapes[f"{prefix}encoder.layer.0.intermediate.dense.weight"][0],
            eps=float(config.get("layer_norm_eps", EPS)),
            act=words.activation_of(config, "hidden_act"),
            vocab=vocab,
            mask_id=words.mask_id_of(checkpoint, options),
            max_length=shapes[f"{prefix}embeddings.position_embeddings.weight"][0],
            types=shapes[prefix + TYPES][0],
            predicts=f"{HEAD}transform.dense.weight" in shapes,
            tied=words.is_tied(checkpoint, HEAD + "decoder.weight", prefix + WORDS),
            classes=classes,
        )
        keymap = self.keymap(sizes, prefix, shapes)
        old = f"{prefix}embeddings.LayerNorm.gamma" in shapes
        return [Part(PretrainedModel(settings_of(sizes, vision.labels_of(config, classes))), with_old_norms(keymap) if old else keymap)]

    def keymap(self, sizes: Sizes, prefix: str, present: Collection[str]) -> KeyMap:
        """Return where the tensors are; ``present``: names in the file, where some may be stored or not."""
        entries, kept = trunk_entries(sizes.depth, prefix), {}
        stored = [name for name in (prefix + WORDS, HEAD + "decoder.weight") if name in present]
        entries.append(equal_copies("embeds.text.words.weight", stored if sizes.tied else stored[:1]))
        entries.append(same("embeds.text.types.weight", prefix + TYPES))
        entries.append(same("embeds.text.position.table", f"{prefix}embeddings.position_embeddings.weight"))
        entries += pair("embeds.text.norm", f"{prefix}embeddings.LayerNorm")
        if sizes.predicts:
            entries += head_entries(present, sizes.tied)
            kept = {"heads.tokens.proj.weight": words.TIED} if sizes.tied else {}
        if sizes.classes:
            entries += [*pair("heads.classes.hidden.0", f"{prefix}pooler.dense"), *pair("heads.classes.proj", "classifier")]
        return KeyMap(entries, IGNORED, kept)

    def write(self, model: nn.Module) -> Written:
        """Write names and config of transformers."""
        assert isinstance(model, PretrainedModel)
        sizes = sizes_of(model)
        prefix = "bert." if sizes.predicts or sizes.classes else ""
        present = {prefix + WORDS, HEAD + "bias"} | (set() if sizes.tied else {HEAD + "decoder.weight", HEAD + "decoder.bias"})
        return Written(
            self.keymap(sizes, prefix, present).to_theirs(model.state_dict()), {**config_of(sizes), **vision.id2label(model, sizes.classes)}
        )


def config_of(sizes: Sizes) -> dict[str, Any]:
    """Return the config of transformers."""
    name = "BertForMaskedLM" if sizes.predicts else "BertForSequenceClassification" if sizes.classes else "BertModel"
    return {
        "model_type": "bert",
        "architectures": [name],
        "hidden_size": sizes.dim,
        "num_hidden_layers": sizes.depth,
        "num_attention_heads": sizes.heads,
        "intermediate_size": sizes.hidden,
        "hidden_act": vision.hidden_act(sizes.act),
        "layer_norm_eps": sizes.eps,
        "vocab_size": sizes.vocab,
        "max_position_embeddings": sizes.max_length,
        "type_vocab_size": sizes.types,
        "tie_word_embeddings": sizes.tied or not sizes.predicts,
    }


FORMATS = (TransformersBert(),)
