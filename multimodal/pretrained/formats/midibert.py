"""MidiBERT (https://arxiv.org/abs/2107.05223) and Adversarial-MidiBERT: a BERT on compound words of music, with relative positions.

The distances between notes enter each layer's attention; the trunk's tables of absolute positions and of words are stored but unused.
Source: https://github.com/wazenmai/MIDI-BERT (branch CP). The second system is known from a description of its files only.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor, nn

from multimodal.heads import ClassificationHead, StructuredAttentionPooling, TokenClassifier
from multimodal.pretrained.checkpoint import Checkpoint
from multimodal.pretrained.format import Format, ImportOptions, Part, Shapes, Written, count_layers
from multimodal.pretrained.formats import bert, layers, vision
from multimodal.pretrained.formats.bert import EPS, TYPES
from multimodal.pretrained.formats.layers import TrunkSizes
from multimodal.pretrained.keymap import Entry, KeyMap, pair, same
from multimodal.pretrained.model import PretrainedModel
from multimodal.pretrained.settings import ModelSettings, part

FIELDS = "word_emb.{}.lut.weight"
HEAD = "mask_lm.proj.{}"
NOTE_LAYERS, PIECE_LAYERS = ("classifier.1", "classifier.3"), ("classifier.0", "classifier.2")
"""Hidden layer and classes; what stands between the numbers has no tensors."""
POOLING = ("attention.ws1.weight", "attention.ws2.weight")
NOTE_DROPOUT = 0.1
DISTANCES = "{}bert.encoder.layer.{}.attention.self.distance_embedding.weight"
TOKENIZERS = {
    (4, 18, 88, 66): "multimodal.tokenizers.midi.CompoundTokenizer",
    (262, 134, 135, 262, 134, 38, 260, 55): "multimodal.tokenizers.midi.OctupleTokenizer",
}
"""Ids of each field -> what makes them of files."""
AFTER_MASK = {4: 0, 8: 4}
"""Number of fields -> ids of a field after its MASK."""
IGNORED = {
    "*bert.embeddings.word_embeddings.weight": "BERT's table of words, which is not used: notes enter by tables of their own",
    "*bert.embeddings.position_embeddings.weight": "absolute positions, which are not used beside relative ones",
    "*bert.embeddings.position_ids": "an index that is computed, not learned",
    "*bert.pooler.dense.*": "a pooler that no head reads",
    "*attention_linear.*": "layers that are stored and not used",
}


class NoteHead(NamedTuple):
    """A classifier of notes: dropout, a hidden layer, the classes.

    Args:
        classes: number of them; the published ones count padding as class 0.
        hidden: width of the hidden layer.
    """

    classes: int
    hidden: int


class PieceHead(NamedTuple):
    """A classifier of pieces: structured self-attention, a hidden layer, the classes.

    Args:
        classes: number of them.
        hidden: width of the hidden layer.
        inner: width between the two layers of the pooling.
        heads: of the pooling.
    """

    classes: int
    hidden: int
    inner: int
    heads: int


@dataclass(frozen=True)
class Sizes(TrunkSizes):
    """What the tensors tell.

    Args:
        vocabs: ids of each field.
        field_dim: width of a field's embedding.
        max_length: notes of a sequence.
        types: token types.
        predicts: whether there is a masked-note head.
        notes: the classifier of notes; None: there is none.
        pieces: the classifier of pieces; None: there is none.
    """

    vocabs: tuple[int, ...]
    field_dim: int
    max_length: int
    types: int
    predicts: bool
    notes: NoteHead | None = None
    pieces: PieceHead | None = None

    @property
    def has_head(self) -> bool:
        """Whether there is any head."""
        return self.predicts or self.notes is not None or self.pieces is not None


def heads_of(sizes: Sizes) -> dict[str, dict[str, Any]]:
    """Return how to build the heads."""
    heads = {}
    if sizes.predicts:
        heads["tokens"] = part(layers.NN + "PredictionHead", vocab_sizes=list(sizes.vocabs))
    if sizes.notes is not None:
        own = {"num_classes": sizes.notes.classes, "hidden": "relu", "hidden_dim": sizes.notes.hidden}
        heads["places"] = part("multimodal.heads.TokenClassifier", dropout=NOTE_DROPOUT, **own)
    if sizes.pieces is not None:
        pooling = part("multimodal.heads.StructuredAttentionPooling", hidden_dim=sizes.pieces.inner, num_heads=sizes.pieces.heads)
        own = {"num_classes": sizes.pieces.classes, "hidden": "relu", "hidden_dim": sizes.pieces.hidden}
        heads["classes"] = part("multimodal.heads.ClassificationHead", pool=pooling, **own)
    return heads


def settings_of(sizes: Sizes) -> ModelSettings:
    """Return how to build the model."""
    norm = layers.norm(EPS)
    after = AFTER_MASK[len(sizes.vocabs)]
    embed = part(
        "multimodal.tokenizers.midi.CompoundEmbed",
        vocab_sizes=list(sizes.vocabs),
        mask_ids=[size - 1 - after for size in sizes.vocabs],
        field_dim=sizes.field_dim,
        max_length=sizes.max_length,
        positions=False,
        num_types=sizes.types,
        norm=norm,
    )
    encoder = layers.encoder(
        sizes.dim,
        sizes.depth,
        sizes.heads,
        block=part(layers.NN + "PostNormBlock"),
        attention=layers.attention(content_bias=part(layers.NN + "RelativeKeyQuery", max_length=sizes.max_length)),
        mlp=layers.mlp(sizes.hidden),
        norm=norm,
        norm_at="none",
    )
    transforms = {}
    if sizes.vocabs in TOKENIZERS:
        tokenizer = part(TOKENIZERS[sizes.vocabs])
        transforms["midi"] = part("multimodal.tokenizers.midi.MidiTransform", tokenizer=tokenizer, max_notes=sizes.max_length)
    return ModelSettings(encoder, {"midi": embed}, heads_of(sizes), transforms)


def sizes_of(model: PretrainedModel) -> Sizes:
    """Return the sizes of a model of ours.

    Raises:
        ValueError: it has a head that the layout does not have.
    """
    encoder, embed = model.settings.encoder["init_args"], model.settings.embeds["midi"]["init_args"]
    if len(model.heads) > 1 or set(model.heads) - {"tokens", "places", "classes"}:
        raise ValueError(f"MidiBERT's layout holds one head, 'tokens', 'places' or 'classes'; the model has {sorted(model.heads)}.")
    return Sizes(
        dim=encoder["dim"],
        depth=encoder["depth"],
        heads=encoder["num_heads"],
        hidden=encoder["mlp"]["init_args"]["hidden_dim"],
        vocabs=tuple(embed["vocab_sizes"]),
        field_dim=embed["field_dim"],
        max_length=embed["max_length"],
        types=embed["num_types"],
        predicts="tokens" in model.heads,
        notes=_note_head(model.heads["places"]) if "places" in model.heads else None,
        pieces=_piece_head(model.heads["classes"]) if "classes" in model.heads else None,
    )


def _note_head(head: nn.Module) -> NoteHead:
    if not isinstance(head, TokenClassifier) or not isinstance(head.norm, nn.Identity) or not _is_relu_layer(head.hidden):
        raise ValueError("MidiBERT's classifier of notes is a TokenClassifier without norm whose hidden layer ends with a ReLU.")
    return NoteHead(head.num_classes, head.proj.in_features)


def _piece_head(head: nn.Module) -> PieceHead:
    pooling = head.pooling if isinstance(head, ClassificationHead) and isinstance(head.norm, nn.Identity) else None
    if not isinstance(head, ClassificationHead) or not isinstance(pooling, StructuredAttentionPooling) or not _is_relu_layer(head.hidden):
        raise ValueError(
            "MidiBERT's classifier of pieces is a ClassificationHead that pools by StructuredAttentionPooling, without norm, whose hidden "
            "layer ends with a ReLU."
        )
    return PieceHead(head.num_classes, head.proj.in_features, pooling.inner.out_features, pooling.outer.out_features)


def _is_relu_layer(hidden: Any) -> bool:
    """Return whether it is a linear layer with a bias, a ReLU, and no norm."""
    if not isinstance(hidden, nn.Sequential):
        return False
    linear, act, norm = hidden
    return linear.bias is not None and isinstance(act, nn.ReLU) and isinstance(norm, nn.Identity)


def end_to_end(ours: str, theirs: Sequence[str], sizes: Sequence[int]) -> Entry:
    """Return an entry for tensors of theirs, of given lengths, that lie end to end in one of ours."""

    def cut(x: list[Tensor]) -> list[Tensor]:
        return list(x[0].split(list(sizes)))

    return Entry((ours,), tuple(theirs), lambda x: [torch.cat(x)], cut)


class MidiBert(Format):
    """The names of MIDI-BERT: the pretrained trunk, the same with its masked-note head, and classifiers of notes and of pieces."""

    family, layout = "midibert", "midi-bert"
    licence, source = "MIT", "https://github.com/wazenmai/MIDI-BERT"
    num_fields: ClassVar[int] = 4

    def matches(self, shapes: Shapes, config: Mapping[str, Any]) -> bool:
        """Tables of the fields beside a BERT with distance embeddings."""
        prefix = prefix_of(shapes)
        fields = [name for name in shapes if re.fullmatch(re.escape(prefix) + r"word_emb\.\d+\.lut\.weight", name)]
        return len(fields) == self.num_fields and DISTANCES.format(prefix, 0) in shapes

    def read(self, checkpoint: Checkpoint, options: ImportOptions) -> list[Part]:
        """Read; there are no settings."""
        vision.check_settings(options)
        shapes = checkpoint.shapes
        prefix = prefix_of(shapes)
        tables = [shapes[prefix + FIELDS.format(i)] for i in range(self.num_fields)]
        distances, dim = shapes[DISTANCES.format(prefix, 0)], shapes[prefix + "bert." + TYPES][1]
        heads = dim // distances[1]
        if options.num_heads not in (None, heads):
            raise ValueError(
                f"num_heads {options.num_heads} does not fit: vectors of distances are {distances[1]} wide, so there are {heads} heads."
            )
        sizes = Sizes(
            dim=dim,
            depth=count_layers(shapes, re.escape(prefix) + r"bert\.encoder\.layer\.(\d+)\."),
            heads=heads,
            hidden=shapes[f"{prefix}bert.encoder.layer.0.intermediate.dense.weight"][0],
            vocabs=tuple(rows for rows, _ in tables),
            field_dim=tables[0][1],
            max_length=(distances[0] + 1) // 2,
            types=shapes[prefix + "bert." + TYPES][0],
            predicts=HEAD.format(0) + ".weight" in shapes,
            notes=note_head_of(shapes),
            pieces=piece_head_of(shapes),
        )
        return [Part(PretrainedModel(settings_of(sizes)), self.keymap(sizes, prefix))]

    def keymap(self, sizes: Sizes, prefix: str) -> KeyMap:
        """Return where the tensors are."""
        entries = bert.trunk_entries(sizes.depth, f"{prefix}bert.")
        table = "encoder.blocks.{}.attn.content_bias.distances"
        entries += [same(table.format(i), DISTANCES.format(prefix, i)) for i in range(sizes.depth)]
        entries += [same(f"embeds.midi.fields.{i}.weight", prefix + FIELDS.format(i)) for i in range(len(sizes.vocabs))]
        entries += [*pair("embeds.midi.proj", f"{prefix}in_linear"), same("embeds.midi.types.weight", f"{prefix}bert.{TYPES}")]
        entries += pair("embeds.midi.norm", f"{prefix}bert.embeddings.LayerNorm")
        for leaf in ("weight", "bias") if sizes.predicts else ():
            theirs = [f"{HEAD.format(i)}.{leaf}" for i in range(len(sizes.vocabs))]
            entries.append(end_to_end(f"heads.tokens.proj.{leaf}", theirs, sizes.vocabs))
        if sizes.notes is not None:
            entries += [*pair("heads.places.hidden.0", NOTE_LAYERS[0]), *pair("heads.places.proj", NOTE_LAYERS[1])]
        if sizes.pieces is not None:
            entries += [*pair("heads.classes.hidden.0", PIECE_LAYERS[0]), *pair("heads.classes.proj", PIECE_LAYERS[1])]
            entries += [same(f"heads.classes.pooling.{x}.weight", name) for x, name in zip(("inner", "outer"), POOLING, strict=True)]
        return KeyMap(entries, IGNORED)

    def write(self, model: nn.Module) -> Written:
        """Write the names of MIDI-BERT; what it does not use is left out."""
        assert isinstance(model, PretrainedModel)
        sizes = sizes_of(model)
        return Written(self.keymap(sizes, "midibert." if sizes.has_head else "").to_theirs(model.state_dict()))


class AdversarialMidiBert(MidiBert):
    """The names of Adversarial-MidiBERT: eight fields a note (Octuple), 1024 notes."""

    family, layout = "adversarial-midibert", "adversarial-midi-bert"
    licence = "not stated: the repository has no licence file"
    source = "https://github.com/RS2002/Adversarial-MidiBERT"
    num_fields = 8


def note_head_of(shapes: Shapes) -> NoteHead | None:
    """Return the sizes of the classifier of notes; None: there is none."""
    hidden, last = (shapes.get(f"{layer}.weight", (0,))[0] for layer in NOTE_LAYERS)
    return NoteHead(last, hidden) if hidden and last else None


def piece_head_of(shapes: Shapes) -> PieceHead | None:
    """Return the sizes of the classifier of pieces; None: there is none."""
    if any(name not in shapes for name in (*POOLING, *(f"{layer}.weight" for layer in PIECE_LAYERS))):
        return None
    hidden, last = (shapes[f"{layer}.weight"][0] for layer in PIECE_LAYERS)
    return PieceHead(last, hidden, shapes[POOLING[0]][0], shapes[POOLING[1]][0])


def prefix_of(shapes: Shapes) -> str:
    """Return what stands before the trunk's names: models with a head have one."""
    return "midibert." if "midibert.in_linear.weight" in shapes else ""


FORMATS = (MidiBert(), AdversarialMidiBert())
