"""Which film belongs to a text, and which text to a film.

Letters in shapes: p pairs, d width.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

from multimodal.clips.film_model import FilmModel
from multimodal.clips.films import Stretch, sequence_of
from multimodal.heads.retrieval import Embeddings, Similarity, turned
from multimodal.heads.retrieval_search import nearest, rank_pairs

Score = Literal["alignment", "embeddings"]
DIRECTIONS = ("text_to_video", "video_to_text")


@dataclass(frozen=True)
class Retrieved:
    """How texts and films find each other.

    Args:
        scores: direction -> recall_1, recall_5, recall_10, median_rank and mean_reciprocal_rank.
        first: direction -> for each question the places of the best answers, the best first.
        values: direction -> their scores.
    """

    scores: Mapping[str, Mapping[str, float]]
    first: Mapping[str, list[list[int]]]
    values: Mapping[str, list[list[float]]]


def retrieve(
    model: FilmModel, pairs: Sequence[Stretch], by: Score, top: int = 10, listener: Callable[[int], object] | None = None
) -> Retrieved:
    """Compare the texts of stretches of film with the clips of all of them.

    Equal texts, and equal clips, are right for each other's partners, and ranks among equal scores are expected ones
    (``multimodal.heads.retrieval_search``).

    Args:
        model: of words and clips.
        pairs: each with a text.
        by: "alignment": each text with each film's clips in one sequence, whose first token says how much they belong together: as many
            sequences as the square of the pairs. "embeddings": the cosine of the mean word of a text alone with the mean clip of a film.
        top: answers to keep of each question, at least 1.
        listener: told the number of sequences after each text, or batch of them.

    Raises:
        ValueError: there are no pairs, a pair has no text, or no word of the vocabulary; or, for "alignment", the run did not train that.
    """
    if not pairs:
        raise ValueError("there are no films with both clips and words to compare.")
    words = [_words(model, stretch) for stretch in pairs]
    if by == "alignment":
        matrix = torch.stack([_aligned(model, own, pairs, listener) for own in words])
        first = second = Embeddings.of_items(torch.arange(len(pairs), dtype=torch.float64)[:, None])
        similarity: Similarity = _Looked(matrix)
    else:
        first, second = (Embeddings.of_items(vectors) for vectors in _vectors(model, words, pairs, listener))
        similarity = _cosines
    return _compared(first, second, similarity, _contents(pairs), top)


def _words(model: FilmModel, stretch: Stretch) -> Int[Tensor, " _"]:
    words = model.vocabulary.encode_text(stretch.text)
    if not len(words):
        raise ValueError(f"{stretch.name}: {stretch.text[:60]!r} has no word of the vocabulary.")
    return words[: model.transform.max_tokens // 2]


def _aligned(model: FilmModel, words: Tensor, pairs: Sequence[Stretch], listener: Callable[[int], object] | None) -> Float[Tensor, " p"]:
    found = model.alignment([sequence_of(model.transform, words, stretch.clips) for stretch in pairs])
    if listener:
        listener(len(pairs))
    return found


def _vectors(
    model: FilmModel, words: Sequence[Tensor], pairs: Sequence[Stretch], listener: Callable[[int], object] | None
) -> tuple[Float[Tensor, "p d"], Float[Tensor, "p d"]]:
    """Return the mean word of each text, and the mean clip of each film, of length 1."""
    texts = [sequence_of(model.transform, own, None) for own in words]
    films = [sequence_of(model.transform, None, stretch.clips) for stretch in pairs]
    means: tuple[list[Tensor], list[Tensor]] = ([], [])
    for sequences, found in zip((texts, films), means, strict=True):
        for seen in model.see(sequences):
            found.append(seen.mean(~model.vocabulary.marks(seen.ids)).cpu())
            if listener:
                listener(len(found[-1]))
    said, shown = (F.normalize(torch.cat(found), dim=1) for found in means)
    return said, shown


def _cosines(first: Embeddings, second: Embeddings) -> Tensor:
    return first.vectors @ second.vectors.T


@dataclass(frozen=True)
class _Looked:
    """Scores that are known already; the vector of an item is its number."""

    matrix: Tensor

    def __call__(self, first: Embeddings, second: Embeddings) -> Tensor:
        return self.matrix[first.vectors[:, 0].long()][:, second.vectors[:, 0].long()]


def _contents(pairs: Sequence[Stretch]) -> Int[Tensor, "p 2"]:
    texts: dict[str, int] = {}
    films: dict[tuple[int, ...], int] = {}
    numbers = [(texts.setdefault(own.text, len(texts)), films.setdefault(tuple(own.clips.tolist()), len(films))) for own in pairs]
    return torch.tensor(numbers)


def _compared(first: Embeddings, second: Embeddings, similarity: Similarity, contents: Tensor, top: int) -> Retrieved:
    scores, places, values = {}, {}, {}
    ways = ((first, second, similarity, contents), (second, first, turned(similarity), contents.flip(1)))
    for name, (asked, given, how, numbers) in zip(DIRECTIONS, ways, strict=True):
        scores[name] = {score: float(value) for score, value in rank_pairs(asked, given, numbers, how).scores().items()}
        found = nearest(asked, given, top, how)
        places[name], values[name] = found.places.tolist(), found.scores.tolist()
    return Retrieved(scores, places, values)


def as_lines(found: Retrieved, pairs: Sequence[Stretch]) -> Iterator[Mapping[str, object]]:
    """Yield what is written about each question: a text and the names of films, or a film and texts."""
    for direction in DIRECTIONS:
        for own, places, values in zip(pairs, found.first[direction], found.values[direction], strict=True):
            asks = direction == DIRECTIONS[0]
            best = [
                {"name": pairs[place].name, "score": value} | ({} if asks else {"words": pairs[place].text})
                for place, value in zip(places, values, strict=True)
            ]
            yield {"direction": direction, "name": own.name} | ({"words": own.text} if asks else {}) | {"found": best}
