"""Embeddings and heads whose clips begin as the centroids of their clusters, and whose words as those of a trained model.

Letters in shapes: c clips, f width of the features, d width of the encoder.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Literal, get_args

import torch
from jaxtyping import Float
from torch import Tensor, nn

from multimodal.nn import PredictionHead
from multimodal.pretrained.loading import load_embed, load_head
from multimodal.protocols import Tokenizer
from multimodal.tokenizers.clips_and_text.embed import JointEmbed, Replacement
from multimodal.tokenizers.clips_and_text.head import JointHead
from multimodal.tokenizers.clips_and_text.vocabulary import JointVocabulary
from multimodal.tokenizers.text.embed import TextEmbed

FirstClips = Literal["centroids", "scaled", "random"]
STD = 0.02
"""Of the first weights of BERT."""


def new_joint_embed(
    dim: int,
    vocabulary: JointVocabulary,
    position: Callable[[int], nn.Module] | None = None,
    num_types: int = 2,
    norm: Callable[[int], nn.Module] | None = None,
    dropout: float = 0.0,
    first_clips: FirstClips = "scaled",
    freeze_clips: bool = False,
    replacement: Replacement = "same kind",
) -> JointEmbed:
    """Return an embedding from scratch; configs name this as ``class_path``.

    Args:
        dim: width of the encoder.
        vocabulary: the same as that of the transform.
        position: see ``JointEmbed``.
        num_types: see ``JointEmbed``.
        norm: see ``JointEmbed``.
        dropout: see ``JointEmbed``.
        first_clips: how the rows of clips begin. "centroids": as those of the clusters (VideoBERT, whose features are as wide as its
            encoder); others are brought to its width by a principal component analysis of the centroids, or padded with zeros. "scaled":
            the same, about their mean and at the spread of the other rows, 0.02. "random": as all rows.
        freeze_clips: whether they stay so.
        replacement: see ``JointEmbed``.

    Raises:
        ValueError: the vocabulary's tokenizer of clips has no centroids, or it has none; or see ``JointEmbed``.
    """
    settings = {"position": position, "num_types": num_types, "norm": norm, "dropout": dropout}
    return _built(dim, vocabulary, settings, first_clips, freeze_clips, replacement)


def load_joint_embed(
    folder: str,
    modality: str,
    vocabulary: JointVocabulary,
    first_clips: FirstClips = "centroids",
    freeze_clips: bool = True,
    replacement: Replacement = "same kind",
) -> JointEmbed:
    """Return an embedding that begins as that of a trained BERT: its words, types, positions and norm; configs name this as ``class_path``.

    Args:
        folder: that ``save_pretrained`` or ``multimodal import`` wrote.
        modality: its name in that model.
        vocabulary: the same as that of the transform; its words are those of the model.
        first_clips: see ``new_joint_embed``. VideoBERT: "centroids".
        freeze_clips: whether they stay so. VideoBERT: yes.
        replacement: see ``JointEmbed``.

    Raises:
        ValueError: the folder holds no such model, its embedding is of another kind or another vocabulary; or see ``new_joint_embed``.
    """
    source = load_embed(folder, modality)
    if not isinstance(source, TextEmbed):
        raise ValueError(f"{folder} embeds {modality!r} by a {type(source).__name__}, not by a table of words.")
    if source.init_args["width"] is not None:
        raise ValueError(f"{folder} embeds {modality!r} at a width of {source.init_args['width']}, which is not the encoder's.")
    rows, dim = source.words.weight.shape
    if rows < vocabulary.words.vocab_sizes[0]:
        raise ValueError(f"{folder} has {rows} words, the vocabulary {vocabulary.words.vocab_sizes[0]}: name the tokenizer of the model.")
    if source.mask_id is not None and source.mask_id != vocabulary.mask_id:
        raise ValueError(f"{folder} has the mask {source.mask_id}, the vocabulary {vocabulary.mask_id}: name the tokenizer of the model.")
    if source.init_args["num_types"] not in (0, 2):
        raise ValueError(f"{folder} has {source.init_args['num_types']} types of tokens, of words and clips there are 2.")
    settings = {name: source.init_args[name] for name in ("position", "num_types", "norm", "dropout")}
    embed = _built(dim, vocabulary, settings, first_clips, freeze_clips, replacement)
    with torch.no_grad():
        own = vocabulary.words.vocab_sizes[0]
        embed.words.weight[:own] = source.words.weight[:own]
    for name in ("types", "position", "norm"):
        part, given = getattr(embed, name), getattr(source, name)
        if part is not None:
            part.load_state_dict(given.state_dict())
    return embed


def load_joint_head(folder: str, vocabulary: JointVocabulary, head: str = "tokens", restrict: bool = True) -> JointHead:
    """Return a head that begins as that of a trained BERT: its hidden layer, its norm, and what it knows of words; configs name this.

    Clips begin at random, and where the modality is ``tied`` as their rows in the embedding.

    Args:
        folder: that ``save_pretrained`` or ``multimodal import`` wrote.
        vocabulary: the same as that of the transform; its words are those of the model.
        head: its name in that model.
        restrict: see ``JointHead``.

    Raises:
        ValueError: the folder holds no such model or head, or one of another kind or another vocabulary.
    """
    source = load_head(folder, head)
    if not isinstance(source, PredictionHead) or isinstance(source, JointHead) or len(source.vocab_sizes) != 1:
        raise ValueError(f"the head {head!r} of {folder} is a {type(source).__name__}, not one that predicts words.")
    own = vocabulary.words.vocab_sizes[0]
    if source.vocab_sizes[0] < own:
        raise ValueError(f"{folder} predicts {source.vocab_sizes[0]} words, the vocabulary has {own}: name the tokenizer of the model.")
    if not source.init_args["hidden_bias"] or source.init_args.get("width") is not None:
        raise ValueError(f"the head {head!r} of {folder} has a hidden layer without a bias or of another width, which BERT has not.")
    settings = {name: source.init_args[name] for name in ("norm", "act")}
    found = JointHead(source.proj.in_features, vocabulary.vocab_sizes, vocabulary=vocabulary, restrict=restrict, **settings)
    found.hidden.load_state_dict(source.hidden.state_dict())
    with torch.no_grad():
        found.proj.words.weight[:own] = source.proj.weight[:own]
        found.proj.words.bias[:own] = source.proj.bias[:own]
    return found


def _built(
    dim: int,
    vocabulary: JointVocabulary,
    settings: Mapping[str, Any],
    first_clips: FirstClips,
    freeze_clips: bool,
    replacement: Replacement,
) -> JointEmbed:
    if first_clips not in get_args(FirstClips):
        raise ValueError(f"first_clips must be one of {', '.join(get_args(FirstClips))}, got {first_clips!r}.")
    if freeze_clips and first_clips == "random":
        raise ValueError("freeze_clips keeps what was drawn at random: set first_clips to centroids or scaled.")
    numbers = (vocabulary.clip_offset, vocabulary.num_clips, vocabulary.mask_id, vocabulary.end_ids)
    embed = JointEmbed(dim, *numbers, **settings, freeze_clips=freeze_clips, replacement=replacement)
    if first_clips != "random":
        rows = at_width(centroids_of(vocabulary.clips), dim)
        with torch.no_grad():
            embed.clips.weight.copy_(scaled(rows) if first_clips == "scaled" else rows)
    return embed


def centroids_of(tokenizer: Tokenizer | None) -> Float[Tensor, "c f"]:
    """Return the centroid of each id of a tokenizer of clips, float32.

    Raises:
        ValueError: there is no tokenizer, or it has no ``leaf_centroids``, ``centroids`` or ``codebook`` of one row for each id.
    """
    if tokenizer is None:
        raise ValueError("first_clips needs the tokenizer of clips: give it to the vocabulary, or set first_clips to random.")
    for name in ("leaf_centroids", "centroids", "codebook"):
        found = getattr(tokenizer, name, None)
        rows = getattr(found, "weight", found)
        if isinstance(rows, Tensor) and rows.ndim == 2 and len(rows) == tokenizer.vocab_sizes[0]:
            return rows.detach().float().cpu()
    raise ValueError(f"a {type(tokenizer).__name__} has no centroids, one for each id: set first_clips to random.")


def at_width(rows: Float[Tensor, "c f"], dim: int) -> Float[Tensor, "c d"]:
    """Return rows of another width: their own, padded with zeros; or of wider ones what they are along their ``dim`` principal axes.

    Both keep the distances between rows as far as the width allows. Axes point to where their largest entry is positive.
    """
    if rows.shape[1] <= dim:
        return nn.functional.pad(rows, (0, dim - rows.shape[1]))
    mean = rows.mean(0)
    _, axes = torch.linalg.eigh((rows - mean).double().T @ (rows - mean).double())
    axes = axes.flip(1)[:, :dim]  # the widest first
    signs = axes.gather(0, axes.abs().argmax(0, keepdim=True)).sign()
    return (rows.double() @ (axes * signs)).float()


def scaled(rows: Float[Tensor, "c d"]) -> Float[Tensor, "c d"]:
    """Return rows less their mean, with a standard deviation of 0.02 over all entries; equal rows become zeros."""
    centred = rows - rows.mean(0)
    spread = centred.square().mean().sqrt()
    return centred * (STD / spread) if spread > 0 else centred
