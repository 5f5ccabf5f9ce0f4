"""What VideoBERT tells of films that it has not seen, beside what needs no model.

Letters in shapes: m moves, p pairs.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks.narrated_digits.baselines import cluster_scores, fit_scores, nearest_means, word_scores
from benchmarks.narrated_digits.moves import TASKS, Moves
from benchmarks.narrated_digits.sentences import DIGITS, WAYS
from multimodal.clips.film_model import FilmModel
from multimodal.clips.films import Stretch, sequence_of
from multimodal.clips.retrieve import DIRECTIONS, retrieve
from multimodal.heads.retrieval import Embeddings, turned
from multimodal.heads.retrieval_search import rank_pairs

PAIRS = 200
"""Moves of the test split that retrieval compares, each with all."""
Line = dict[str, Any]


def without_model(train: Moves, test: Moves, num_clusters: int) -> Iterator[Line]:
    """Yield the scores of chance, of clusters, of naive Bayes over their ids and of mean features."""
    fit = fit_scores(train, test, num_clusters)
    for task, count in TASKS.items():
        found = cluster_scores(train, test, task)
        truth = test.classes(task)
        yield {"task": task, "method": "chance", "score": 1 / count}
        yield {"task": task, "method": "class of a clip's cluster", "score": found["accuracy"], "information": found["information"]}
        yield {"task": task, "method": "naive Bayes", "score": np.mean(word_scores(train, test, task, num_clusters).argmax(1) == truth)}
        yield {"task": task, "method": "nearest mean feature", "score": np.mean(nearest_means(train, test, task) == truth)}
    yield {"task": "alignment", "method": "chance", "score": 0.5}
    yield {"task": "alignment", "method": "naive Bayes", "score": balanced(*_fits(fit, test))}
    contents = torch.tensor([(move.digit * len(WAYS) + move.way, number) for number, move in enumerate(test.told[:PAIRS])])
    texts = contents[:, 0].numpy()
    told = torch.from_numpy(fit[:PAIRS].reshape(len(texts), -1)[:, texts]).T  # how well each text fits the clips of each move
    for method, matrix in (("chance", torch.zeros_like(told)), ("naive Bayes", told)):
        yield from _recalls(method, matrix, contents)


def _fits(fit: np.ndarray, moves: Moves) -> tuple[np.ndarray, np.ndarray]:
    """Return how well the sentence of each move fits its clips, and how well that of another move of the film does."""
    pairs = list(mismatches(moves))
    own = [fit[number, moves.told[number].digit, moves.told[number].way] for number, _ in pairs]
    other = [fit[number, moves.told[said].digit, moves.told[said].way] for number, said in pairs]
    return np.array(own), np.array(other)


def mismatches(moves: Moves) -> Iterator[tuple[int, int]]:
    """Yield the number of each move with that of the next one of its film (after the last: the first) that is told by another sentence."""
    films: dict[str, list[int]] = {}
    for number, move in enumerate(moves.told):
        films.setdefault(move.key, []).append(number)
    for own in films.values():
        for place, number in enumerate(own):
            meaning = moves.told[number][2:4]
            others = [said for said in own[place + 1 :] + own[:place] if moves.told[said][2:4] != meaning]
            yield from ((number, said) for said in others[:1])


def balanced(aligned: np.ndarray, not_aligned: np.ndarray) -> float:
    """Return the mean of the share of aligned pairs with a score above 0 and of that of others below 0; 0 counts half."""
    return float((np.mean(np.sign(aligned)) - np.mean(np.sign(not_aligned)) + 2) / 4)


def of_model(model: FilmModel, ranked: Path, stretches: Sequence[Stretch], test: Moves) -> Iterator[Line]:
    """Yield the scores of a model.

    Args:
        model: of the run.
        ranked: what ``multimodal clips classify --spans`` wrote of the test split, with gaps for digit and way.
        stretches: the sentences of the test split, with their clips.
        test: the moves where they begin.
    """
    assert [stretch.text for stretch in stretches] == [move.said for move in test.told]
    lines = [json.loads(line) for line in ranked.read_text().splitlines()]
    best = [[gap[0]["word"] for gap in line["words"]] for line in lines]
    truth = [[DIGITS[move.digit], WAYS[move.way]] for move in test.told]
    for task, column in zip(TASKS, (np.array(best) == np.array(truth)).T, strict=True):
        yield {"task": task, "method": "VideoBERT", "score": column.mean()}
    pairs = list(mismatches(test))
    own, other = (_aligned(model, stretches, [(number, pair[side]) for pair in pairs for number in pair[:1]]) for side in (0, 1))
    yield {"task": "alignment", "method": "VideoBERT", "score": balanced(own, other)}
    for by, method in (("alignment", "VideoBERT, alignment"), ("embeddings", "VideoBERT, mean tokens")):
        found = retrieve(model, stretches[:PAIRS], by).scores  # type: ignore[arg-type]
        yield from ({"task": way, "method": method, "score": found[way]["recall_1"]} for way in DIRECTIONS)


def _aligned(model: FilmModel, stretches: Sequence[Stretch], pairs: Sequence[tuple[int, int]]) -> np.ndarray:
    """Return the logit that clips and words belong together, of pairs of the numbers of their moves."""
    words = [model.vocabulary.encode_text(stretch.text) for stretch in stretches]
    return model.alignment([sequence_of(model.transform, words[said], stretches[shown].clips) for shown, said in pairs]).numpy()


def _recalls(method: str, matrix: Tensor, contents: Tensor) -> Iterator[Line]:
    """Yield R@1 of both directions of scores ``(p, p)`` of each text with the clips of each move."""
    numbers = Embeddings.of_items(torch.arange(len(matrix), dtype=torch.float64)[:, None])

    def similarity(first: Embeddings, second: Embeddings) -> Tensor:
        return matrix[first.vectors[:, 0].long()][:, second.vectors[:, 0].long()]

    for way, how, own in zip(DIRECTIONS, (similarity, turned(similarity)), (contents, contents.flip(1)), strict=True):
        yield {"task": way, "method": method, "score": float(rank_pairs(numbers, numbers, own, how).recall(1))}
