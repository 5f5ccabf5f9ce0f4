"""Films with words as a model of both reads them, and where in shards they are.

Letters in shapes: n tokens, w words, c clips.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Int
from torch import Tensor

from multimodal.batch import Item
from multimodal.datamodules.shards.cache import ShardCache
from multimodal.datamodules.shards.index import ShardIndex
from multimodal.datamodules.shards.reader import RawSample, read_samples
from multimodal.errors import SampleError
from multimodal.tokenizers.clip_file import FIELD


@runtime_checkable
class WordsAndClips(Protocol):
    """A vocabulary of words and clips: words and marks first, then clips."""

    mask_id: int
    """Hides words and clips."""
    clip_offset: int
    """The first id of a clip."""
    num_clips: int

    def encode_text(self, text: str) -> Tensor:
        """Return the ids of words."""

    def encode_template(self, text: str) -> Tensor:
        """Return the ids of a text in which ``[MASK]`` stands for what is to be told."""

    def encode_clips(self, ids: Tensor) -> Tensor:
        """Return the ids of clips in this vocabulary."""

    def is_clip(self, ids: Tensor) -> Tensor:
        """Return True at ids of clips."""

    def marks(self, ids: Tensor) -> Tensor:
        """Return True at marks."""


@runtime_checkable
class FilmTransform(Protocol):
    """Reads clips and captions, and joins words and clips to one sequence."""

    tokenizer: Any
    """``WordsAndClips``."""
    captions: Sequence[str]
    """Names of the shard fields that hold captions; the first that a sample has is read."""
    max_tokens: int
    """Of a sequence, with its marks."""

    def decode(self, data: bytes) -> Any:
        """Return a film: its ``clips`` (ids) and their ``middles`` (seconds)."""

    def decode_labels(self, data: bytes) -> Any:
        """Return captions: ``start`` and ``end`` in seconds, and ``text``."""

    def item(self, words: Tensor | None, clips: Tensor | None) -> Item:
        """Return a sequence of words, of clips or of both."""


@dataclass(frozen=True)
class Stretch:
    """A film, or a part of it, and what is said meanwhile.

    Args:
        key: of the sample.
        number: of the sentence in the film, from 0; None: the whole film.
        start_s: middle of the first clip, or start of the sentence.
        end_s: middle of the last clip, or end of the sentence.
        text: what is said; empty where nothing is.
        clips: ``(c,)`` int64, ids in the vocabulary of words and clips, at least one.
        numbers: ``(c,)`` int64, the places of these clips in the film.
    """

    key: str
    number: int | None
    start_s: float
    end_s: float
    text: str
    clips: Int[Tensor, " c"]
    numbers: Int[Tensor, " c"]

    @property
    def name(self) -> str:
        """The key, with the number of the sentence where it is one of a film."""
        return self.key if self.number is None else f"{self.key}-{self.number:04d}"


def stretches_of(source: ShardIndex, split: str, transform: FilmTransform, spans: bool) -> Iterator[tuple[Stretch, RawSample]]:
    """Yield the films of a split, or the parts of them in which a sentence is said and a clip is shown; samples without clips are left out.

    Args:
        source: shards with ids of clips, or with features that the transform's tokenizer makes ids of.
        split: which.
        transform: reads them.
        spans: whether each sentence is a stretch of its own.

    Raises:
        SampleError: a shard is damaged, or clips or captions in it.
        ValueError: there is no such split.
        OSError: a remote shard cannot be fetched.
    """
    if not source.splits.get(split):
        raise ValueError(f"{source.root} has no split {split!r}; splits there: {', '.join(source.splits)}.")
    wanted = {FIELD, *transform.captions}
    for info in source.splits[split]:
        path = ShardCache().fetch(source.location(info), info) if source.url else source.location(info)
        for raw in read_samples(path, range(info.samples), info.samples, wanted):
            if isinstance(raw, SampleError):
                raise raw
            if FIELD in raw.fields:
                yield from ((stretch, raw) for stretch in _stretches(raw, transform, spans))


def _stretches(raw: RawSample, transform: FilmTransform, spans: bool) -> Iterator[Stretch]:
    film = _decoded(raw, FIELD, transform.decode)
    field = next((name for name in transform.captions if name in raw.fields), None)
    sentences = [] if field is None else _decoded(raw, field, transform.decode_labels)
    if not spans:
        said, order = " ".join(sentence.text for sentence in sentences), torch.arange(len(film.clips))
        yield Stretch(raw.key, None, float(film.middles.min()), float(film.middles.max()), said, film.clips, order)
        return
    for number, (start, end, text) in enumerate(sentences):
        inside = film.clips_between(start, end)
        if len(inside):
            yield Stretch(raw.key, number, start, end, text, film.clips[inside], inside)


def _decoded(raw: RawSample, field: str, decode: Any) -> Any:
    try:
        return decode(raw.fields[field])
    except ValueError as error:
        raise SampleError(raw.shard, raw.key, field, str(error)) from error


def thinned(clips: Int[Tensor, " c"], room: int) -> Int[Tensor, " kept"]:
    """Return every clip, or every second, third and so on: the densest even choice of at most ``room``."""
    return clips[:: max(1, -(-len(clips) // max(1, room)))]


def sequence_of(transform: FilmTransform, words: Int[Tensor, " w"] | None, clips: Int[Tensor, " c"] | None) -> Int[Tensor, " n"]:
    """Return the ids of a sequence in which all words stand; of clips that are too many, an even choice.

    Args:
        transform: joins them.
        words: None: clips alone.
        clips: None: words alone.

    Raises:
        ValueError: the words leave no room for a clip.
    """
    if clips is None:
        return transform.item(words, None).values
    one, said = (None, 0) if words is None else (words[:1], len(words))
    marks = len(transform.item(one, clips[:1]).values) - 1 - min(said, 1)
    room = transform.max_tokens - marks - said
    if room < 1:
        raise ValueError(f"{said} words and {marks} marks leave no room for a clip among the {transform.max_tokens} tokens of a sequence.")
    return transform.item(words, thinned(clips, room)).values
