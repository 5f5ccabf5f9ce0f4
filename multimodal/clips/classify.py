"""What a film shows, told without training for it: which words fit the gaps of a sentence about it.

Letters in shapes: b stretches, w candidate words.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float, Int
from torch import Tensor

from multimodal.clips.film_model import FilmModel
from multimodal.clips.films import Stretch, sequence_of

MASK = "[MASK]"
UNHEARD_OF = "\ue000"
"""A character that is no word of any vocabulary."""


@dataclass(frozen=True)
class Guess:
    """A word for each gap, or for one.

    Args:
        words: one, or one for each gap in order.
        probability: among all the candidates.
    """

    words: tuple[str, ...]
    probability: float


class TemplateClassifier:
    """Ranks given words by how well they fit the gaps of sentences before a stretch of film (VideoBERT, https://arxiv.org/abs/1904.01766).

    A gap is a mask. A candidate of several pieces is read from as many masks in its place, other gaps keeping one, and its score is the
    mean log-probability of its pieces, each at its own mask, among all words. The probability of a candidate is the softmax of the scores
    over the candidates of its gap; of several templates the mean. Gaps are read at once and are independent: a combination has
    the product of their probabilities.

    Departures: VideoBERT's re-implementation reads the best of the whole vocabulary, and takes the second best for nouns.

    Args:
        model: of words and clips.
        templates: sentences with as many ``[MASK]`` as there are lists: "now let me show you how to [MASK] the [MASK].".
        candidates: the words of each gap.

    Raises:
        ValueError: no template, another number of gaps, an empty list, a word twice, or one that is no word of the vocabulary.
    """

    def __init__(self, model: FilmModel, templates: Sequence[str], candidates: Sequence[Sequence[str]]) -> None:
        self.model, self.templates, self.candidates = model, list(templates), [list(words) for words in candidates]
        if not self.templates:
            raise ValueError("give at least one template.")
        for template in self.templates:
            if template.count(MASK) != len(self.candidates) or not self.candidates:
                raise ValueError(
                    f"the template {template!r} has {template.count(MASK)} gaps ({MASK}) for {len(self.candidates)} lists of words: "
                    "give one list for each gap."
                )
        self.pieces = [_pieces(model, words) for words in self.candidates]

    def __call__(self, stretches: Sequence[Stretch]) -> list[Float[Tensor, "b _"]]:
        """Return, for each gap, the probabilities of its candidates in each stretch, float64 on the CPU."""
        found = [self._of_template(template, stretches) for template in self.templates]
        return [torch.stack([probabilities[gap] for probabilities in found]).mean(0) for gap in range(len(self.candidates))]

    def _of_template(self, template: str, stretches: Sequence[Stretch]) -> list[Tensor]:
        sizes = sorted({(gap, len(ids)) for gap, pieces in enumerate(self.pieces) for ids in pieces})
        widths = {tuple(size if gap == own else 1 for own in range(len(self.pieces))) for gap, size in sizes}
        read = {width: self._at_masks(_widened(template, width), stretches) for width in widths}
        scores = [torch.zeros(len(stretches), len(words), dtype=torch.float64) for words in self.candidates]
        for gap, size in sizes:
            width = tuple(size if gap == own else 1 for own in range(len(self.pieces)))
            there = [number for number, ids in enumerate(self.pieces[gap]) if len(ids) == size]
            ids = torch.stack([self.pieces[gap][number] for number in there])  # w size
            own = read[width][:, gap : gap + size]  # b size v: gaps before this one have one mask each
            scores[gap][:, there] = own[:, torch.arange(size), ids].mean(2)
        return [score.softmax(1) for score in scores]

    def _at_masks(self, template: str, stretches: Sequence[Stretch]) -> Float[Tensor, "b masks v"]:
        words = self.model.vocabulary.encode_template(template)
        sequences = [sequence_of(self.model.transform, words, stretch.clips) for stretch in stretches]
        parts = [self.model.word_log_probabilities(seen.tokens).double().cpu() for seen in self.model.see(sequences, wanted="hidden")]
        return torch.cat(parts).unflatten(0, (len(stretches), template.count(MASK)))

    def ranked(self, probabilities: Sequence[Float[Tensor, " _"]], most: int) -> list[list[Guess]]:
        """Return the best words of each gap in one stretch, the best first; of equal ones the one that stands first in its list."""
        return [
            [Guess((words[number],), float(own[number])) for number in own.argsort(descending=True, stable=True)[:most].tolist()]
            for words, own in zip(self.candidates, probabilities, strict=True)
        ]

    def combined(self, probabilities: Sequence[Float[Tensor, " _"]], most: int) -> list[Guess]:
        """Return the best combinations of a word for each gap, the best first."""
        found = [Guess((), 1.0)]
        for own in self.ranked(probabilities, most):  # what is not among the best so far is in none of the best combinations
            longer = [Guess(guess.words + word.words, guess.probability * word.probability) for guess in found for word in own]
            found = sorted(longer, key=lambda guess: -guess.probability)[:most]
        return found


def _pieces(model: FilmModel, words: Sequence[str]) -> list[Int[Tensor, " _"]]:
    if not words or len(set(words)) < len(words):
        twice = next((word for word in words if words.count(word) > 1), None)
        raise ValueError("a list of words is empty." if twice is None else f"{twice!r} stands twice in a list of words.")
    found = [model.vocabulary.encode_text(word) for word in words]
    unknown = model.vocabulary.encode_text(UNHEARD_OF)
    if wrong := [
        word for word, ids in zip(words, found, strict=True) if not len(ids) or (len(unknown) == 1 and bool((ids == unknown).any()))
    ]:
        raise ValueError(f"{wrong[0]!r} is no word of the vocabulary.")
    return found


def _widened(template: str, width: Sequence[int]) -> str:
    """Return the template with so many masks in the place of each."""
    parts = template.split(MASK)
    gaps = [" ".join([MASK] * count) for count in width]
    return parts[0] + "".join(gap + part for gap, part in zip(gaps, parts[1:], strict=True))


def read_words(path: Path) -> list[str]:
    """Return the lines of a file of words, without empty ones.

    Raises:
        ValueError: it cannot be read.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, ValueError) as error:
        raise ValueError(f"{path} cannot be read: {error}") from None
    return [line.strip() for line in lines if line.strip()]


def as_line(stretch: Stretch, ranked: Sequence[Sequence[Guess]], combined: Sequence[Guess]) -> Mapping[str, object]:
    """Return what is written about a stretch, as plain data."""
    said: dict[str, object] = {"key": stretch.key}
    if stretch.number is not None:
        said |= {"sentence": stretch.number, "start_s": round(stretch.start_s, 3), "end_s": round(stretch.end_s, 3)}
    said["words"] = [[{"word": guess.words[0], "probability": guess.probability} for guess in gap] for gap in ranked]
    if len(ranked) > 1:
        said["together"] = [{"words": list(guess.words), "probability": guess.probability} for guess in combined]
    return said
