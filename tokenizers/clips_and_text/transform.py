"""Clips of a film and its captions -> one sequence of ids.

Letters in shapes: n tokens, w words, c clips of a film, k clips of a stretch, m those kept.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Int
from torch import Tensor

from multimodal.batch import Item
from multimodal.protocols import LabelledTransform, Moments
from multimodal.tokenizers.clip_file import FIELD, Clips, read_clips
from multimodal.tokenizers.clips_and_text.captions import Caption, is_timed, read_captions
from multimodal.tokenizers.clips_and_text.film import Film, Passage
from multimodal.tokenizers.clips_and_text.sentences import join_sentences, split_sentences
from multimodal.tokenizers.clips_and_text.vocabulary import JointVocabulary
from multimodal.tokenizers.text.decode import decode_text

ALIGNED, NOT_ALIGNED, NO_LABEL = 0, 1, -1
"""What the first token of a sequence of words and clips is labelled, as in BERT's task of next sentences; and all other tokens."""


@dataclass(frozen=True)
class Regimes:
    """How often of a film with captions there are the words alone, the clips alone, or both.

    Args:
        text: weight of words alone, at least 0.
        video: of clips alone.
        joint: of both.

    Raises:
        ValueError: a weight that is negative or not finite, or none above 0.
    """

    text: float = 1.0
    video: float = 1.0
    joint: float = 1.0

    def __post_init__(self) -> None:
        weights = (self.text, self.video, self.joint)
        if not all(0 <= weight < float("inf") for weight in weights) or not any(weights):
            raise ValueError(f"regimes must have weights of at least 0, and one above it; got text, video, joint {weights}.")


class ClipsAndTextTransform(LabelledTransform):
    """A stretch of a film, as VideoBERT reads it: ``[CLS] words [>] clips [SEP]``, or only its words or its clips (arXiv 1904.01766).

    A stretch is a sentence, with up to ``max_neighbours`` that follow, and the clips whose middle lies within these sentences; a film
    without captions gives the clips of ``seconds_without_captions``, a sample without clips gives words; so does a film with no clip at the
    time of any sentence. What is drawn depends on the
    seed of the sample. In evaluation it is drawn just so, but with no neighbours and no clips left out; the seed being the same each time,
    so is the stretch. ``stretches`` gives all of a film.

    In a share of the sequences of words and clips, the clips are those of other sentences of the film: the label of the first token is 0
    where words and clips belong together, 1 where they do not, and -1 at other tokens and in other sequences. A film that has no other
    sentence with clips gives no such. Words and clips are hidden and predicted in all of them alike, as in BERT's task of next sentences.

    Args:
        vocabulary: makes and joins the ids.
        regimes: how often of a film with captions there are words alone, clips alone, or both.
        max_tokens: of a sequence, with its marks. Of the longer of words and clips the end is cut off first.
        max_neighbours: so many sentences may follow the first, each number as often. 1: half of the sequences have two.
        max_step: of the clips every first to ``max_step``-th is taken, each step as often. VideoBERT: 5.
        negatives: share of the sequences of words and clips whose clips are those of other sentences, in [0, 1).
        seconds_without_captions: of a stretch of a film without captions. VideoBERT: 20.
        join_at_full_stops: whether captions are cut and joined to sentences (``join_sentences``), or each is one.
        captions: names of the shard fields that hold captions; the first that a sample has is read.

    Raises:
        ValueError: a setting outside its range; or, when called, see ``decode``, ``decode_labels`` and ``labelled``.
    """

    def __init__(
        self,
        vocabulary: JointVocabulary,
        regimes: Regimes | None = None,
        max_tokens: int = 512,
        max_neighbours: int = 1,
        max_step: int = 5,
        negatives: float = 0.5,
        seconds_without_captions: float = 20.0,
        join_at_full_stops: bool = True,
        captions: Sequence[str] = ("srt", "vtt", "captions.json"),
    ) -> None:
        marks = len(vocabulary.start_ids) + len(vocabulary.end_ids) + 1
        if max_tokens < marks + 2:
            raise ValueError(f"max_tokens must be at least {marks + 2}: {marks} marks, a word and a clip; got {max_tokens}.")
        if max_neighbours < 0 or max_step < 1 or not 0 <= negatives < 1 or not 0 < seconds_without_captions < float("inf"):
            raise ValueError(
                "max_neighbours must be at least 0, max_step at least 1, negatives in [0, 1) and seconds_without_captions positive; got "
                f"{max_neighbours}, {max_step}, {negatives} and {seconds_without_captions}."
            )
        if isinstance(captions, str) or not captions:
            raise ValueError(f"captions must be a list of names of fields, got {captions!r}.")
        self.tokenizer, self.regimes, self.max_tokens = vocabulary, regimes or Regimes(), max_tokens
        self.max_neighbours, self.max_step, self.negatives = max_neighbours, max_step, negatives
        self.seconds_without_captions, self.join_at_full_stops = seconds_without_captions, join_at_full_stops
        self.captions, self._marks = tuple(captions), marks

    @property
    def extensions(self) -> tuple[str, ...]:  # type: ignore[override]
        """The field of the clips; of samples without clips those of captions, and of texts without times (``txt``)."""
        return (FIELD, *self.captions, "txt")

    @property
    def label_extensions(self) -> tuple[str, ...]:  # type: ignore[override]
        """The fields of the captions."""
        return self.captions

    def decode(self, data: bytes) -> Film:
        """Return the clips of a file of clips; or the sentences of captions or a text, of which there is no film.

        Raises:
            ValueError: ``read_clips``, ``read_captions`` or ``decode_text`` refuses the file; the clips have no ids, or those of another
                tokenizer; or nothing is said.
        """
        utf16 = data[:2] in (b"\xff\xfe", b"\xfe\xff")
        if data[6:8] == b"\0\0" and not utf16:  # the end of the length that a safetensors file begins with
            clips = read_clips(data)
            middles = ((clips.starts + clips.ends) / 2).float()
            return Film(middles, self.tokenizer.encode_clips(self._ids(clips)), ())
        text = data.decode("utf-8-sig", errors="ignore")
        if utf16 or is_timed(text):
            return self._said(self.decode_labels(data))
        return self._said([Caption(0.0, 0.0, sentence) for sentence in split_sentences(decode_text(data))])

    def _said(self, sentences: Sequence[Caption]) -> Film:
        if not sentences:
            raise ValueError("there are neither clips nor words: its captions are empty.")
        return Film.of_text(sentences)

    def _ids(self, clips: Clips) -> Int[Tensor, " c"]:
        tokenizer = self.tokenizer.clips
        if not len(clips):
            raise ValueError("the film has no clips.")
        if clips.ids is not None and (tokenizer is None or clips.tokenizer == self.tokenizer.clip_fingerprint):
            return clips.ids
        if tokenizer is None:
            raise ValueError("its clips have features but no ids: give the vocabulary the tokenizer of clips, instead of num_clips.")
        if clips.features is None:
            theirs, own = clips.tokenizer[:12] or "unknown", self.tokenizer.clip_fingerprint[:12]
            raise ValueError(
                f"its clips have the ids of another tokenizer, {theirs}, not of {own}, and no features to make new ones of: make the ids "
                "again, or name the tokenizer that made them."
            )
        with torch.no_grad():
            return tokenizer.encode(clips.features.float())

    def decode_labels(self, data: bytes) -> list[Caption]:
        """Return what is said.

        Raises:
            ValueError: see ``read_captions``.
        """
        found = read_captions(data)
        return join_sentences(found) if self.join_at_full_stops else found

    def describe(self, data: bytes) -> Mapping[str, float | Moments]:
        """Return the number of clips and the seconds to the last one's middle; or the number of sentences.

        Raises:
            ValueError: as ``decode``.
        """
        film = self.decode(data)
        return {"clips": len(film.clips), "seconds": float(film.middles.max())} if len(film.clips) else {"sentences": len(film.sentences)}

    def example(self) -> Item:
        """Return a sequence of one word and one clip."""
        word, clip = torch.zeros(1, dtype=torch.int64), torch.tensor([self.tokenizer.clip_offset])
        return self.item(word, clip, ALIGNED)

    def labelled(self, decoded: Film, labels: Sequence[Caption] | None, generator: torch.Generator, train: bool) -> Item:
        """Return ``(n,)`` int64 ids of a stretch, at most ``max_tokens``, and the label of each token.

        Raises:
            ValueError: what is said is no word of the vocabulary.
        """
        film = decoded if not labels or not len(decoded.clips) else Film(decoded.middles, decoded.clips, labels)
        regime = self._regime(film, generator)
        if not film.sentences:
            return self.item(None, film.clips[self._thinned(self._without_captions(film, generator), generator, train)])
        numbers = range(len(film.sentences)) if regime == "text" else film.shown
        first = numbers[_draw(len(numbers), generator)]
        passage = Passage(film, first, first + (_draw(self.max_neighbours + 1, generator) if train else 0))
        if regime == "text":
            return self.item(self._words(passage), None)
        source, label = (passage, ALIGNED) if regime == "video" else self._shown_with(passage, generator)
        clips = film.clips[self._thinned(source.clips, generator, train)]
        return self.item(None, clips) if regime == "video" else self.item(self._words(passage), clips, label)

    def stretches(self, decoded: Film, captions: Sequence[Caption] | None = None) -> Iterator[tuple[Passage, Item]]:
        """Yield every sentence of a film that has clips, with the sequence of its words and all its clips, to score whole films.

        Args:
            decoded: see ``decode``.
            captions: see ``decode_labels``.
        """
        film = Film(decoded.middles, decoded.clips, captions or ())
        for number in film.shown:
            passage = Passage(film, number, number)
            yield passage, self.item(self._words(passage), film.clips[passage.clips], ALIGNED)

    def item(self, words: Int[Tensor, " w"] | None, clips: Int[Tensor, " c"] | None, label: int = NO_LABEL) -> Item:
        """Return a sequence, cut to ``max_tokens``.

        Args:
            words: ids of words; None: clips alone.
            clips: ids of clips in the joint vocabulary; None: words alone.
            label: of its first token.
        """
        room = self.max_tokens - self._marks
        if words is not None and clips is not None:
            kept = min(len(words), max(room - len(clips), (room + 1) // 2))
            words, clips = words[:kept], clips[: room - kept]
        else:
            words, clips = (None if ids is None else ids[: room + 1] for ids in (words, clips))  # there is no [>]
        values = self.tokenizer.sequence(words, clips)
        labels = torch.full_like(values, NO_LABEL)
        labels[0] = label
        return Item(values, ragged=True, labels=labels)

    def _regime(self, film: Film, generator: torch.Generator) -> str:
        if not film.shown:  # a text, or a film of which nothing is said, or nothing at the time of a clip
            return "text" if film.sentences else "video"
        names = ("text", "video", "joint")
        weights = torch.tensor([getattr(self.regimes, name) for name in names], dtype=torch.float32)
        return names[int(torch.multinomial(weights, 1, generator=generator))]

    def _words(self, passage: Passage) -> Int[Tensor, " w"]:
        words = self.tokenizer.encode_text(passage.text)
        if not len(words):
            raise ValueError(f"{passage.text[:60]!r} has no word of the vocabulary.")
        return words

    def _shown_with(self, passage: Passage, generator: torch.Generator) -> tuple[Passage, int]:
        """Return the passage whose clips are shown with the words of one, and the label."""
        negative = float(torch.rand((), generator=generator)) < self.negatives
        other = passage.other(generator) if negative else None
        return (passage, ALIGNED) if other is None else (other, NOT_ALIGNED)

    def _without_captions(self, film: Film, generator: torch.Generator) -> Int[Tensor, " k"]:
        start = float(film.middles[_draw(len(film.clips), generator)])
        start = max(float(film.middles.min()), min(start, float(film.middles.max()) - self.seconds_without_captions))
        return film.clips_between(start, start + self.seconds_without_captions)

    def _thinned(self, clips: Int[Tensor, " k"], generator: torch.Generator, train: bool) -> Int[Tensor, " m"]:
        step = 1 + _draw(self.max_step, generator) if train else 1
        return clips[_draw(min(step, len(clips)), generator) :: step]


def _draw(count: int, generator: torch.Generator) -> int:
    """Return a number from 0 to below ``count``."""
    return int(torch.randint(count, (), generator=generator))
