"""What the tasks are without a network: the most frequent tag of a word, likeness of words, and phrases with capitals."""

from __future__ import annotations

import json
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.sparse import csr_matrix, hstack
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import f1_score

from benchmarks.text_tasks.data import BLANK, CLASSES
from multimodal.training.answer_scores import AnswerScores
from multimodal.training.entity_scores import NAME, WordScores

PHRASE = re.compile(r"[A-Z]\w*(?:[ -][A-Z]\w*)*")
Row = dict[str, Any]


def read_rows(folder: Path, task: str, split: str) -> list[Row]:
    """Return the rows of a split, as ``benchmarks.text_tasks.data`` wrote them."""
    rows = map(json.loads, (folder / f"{task}.jsonl").read_text(encoding="utf-8").splitlines())
    return [row for row in rows if row["split"] == split]


def _scores(folder: Path, guess: Callable[[Sequence[str]], list[str]]) -> dict[str, float]:
    """Return the scores of tags that are guessed sentence by sentence."""
    scores, numbers = WordScores(CLASSES), {name: number for number, name in enumerate(CLASSES)}
    for row in read_rows(folder, "tags", "test"):
        for words, tags in zip(row["words"], row["tags"], strict=True):
            told, truth = ([numbers[tag] for tag in found] for found in (guess(words), tags))
            scores.update(NAME, torch.zeros(()), torch.tensor(told), torch.tensor(truth))
            scores.update_entities(told, truth)
    return {name: float(value) for name, value in scores.compute().items() if name in ("accuracy", "macro_f1", "entity_f1")}


def frequent_tags(folder: Path) -> dict[str, float]:
    """Tell each word the tag that it has most often in training, an unknown one O."""
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    for row in read_rows(folder, "tags", "train"):
        for words, tags in zip(row["words"], row["tags"], strict=True):
            for word, tag in zip(words, tags, strict=True):
                counts[word][tag] += 1
    frequent = {word: found.most_common(1)[0][0] for word, found in counts.items()}
    return _scores(folder, lambda words: [frequent.get(word, "O") for word in words])


def _around(words: Sequence[str], place: int) -> list[str]:
    """Return what a linear model is told of a word: it and its two neighbours on either side, and their shapes."""
    there = ["", "", *words, "", ""][place : place + 5]
    shapes = ["".join("A" if x.isupper() else "a" if x.islower() else "0" if x.isdigit() else x for x in word)[:4] for word in there]
    return [f"{i}:{word.lower()}" for i, word in enumerate(there)] + [f"{i}#{shape}" for i, shape in enumerate(shapes)]


def linear_tags(folder: Path) -> dict[str, float]:
    """Tell the tag of each word by a logistic regression on it, its neighbours and their shapes."""
    vectorizer = TfidfVectorizer(analyzer=lambda features: features, use_idf=False, norm=None, min_df=2)
    rows = [sentence for row in read_rows(folder, "tags", "train") for sentence in zip(row["words"], row["tags"], strict=True)]
    features = vectorizer.fit_transform([_around(words, place) for words, _ in rows for place in range(len(words))])
    model = LogisticRegression(C=3, max_iter=300).fit(features, [tag for _, tags in rows for tag in tags])
    return _scores(folder, lambda words: list(model.predict(vectorizer.transform([_around(words, i) for i in range(len(words))]))))


def linear_pairs(folder: Path) -> dict[str, float]:
    """Tell pairs by a logistic regression on the cosine of their TF-IDF vectors, and on the words that they share."""
    splits = {split: read_rows(folder, "pairs", split) for split in ("train", "test")}
    vectorizer = TfidfVectorizer(sublinear_tf=True, ngram_range=(1, 1)).fit([row[x] for row in splits["train"] for x in "ab"])
    features, labels = {}, {}
    for split, rows in splits.items():
        first, second = (vectorizer.transform([row[name] for row in rows]) for name in "ab")
        shared = first.multiply(second)
        features[split] = hstack([csr_matrix(10 * np.asarray(shared.sum(1))), shared]).tocsr()
        labels[split] = [row["label"] for row in rows]
    guesses = LogisticRegression(C=10, max_iter=2000).fit(features["train"], labels["train"]).predict(features["test"])
    accuracy = float(np.mean([guess == label for guess, label in zip(guesses, labels["test"], strict=True)]))
    return {"accuracy": accuracy, "macro_f1": float(f1_score(labels["test"], guesses, average="macro"))}


def phrase_answers(folder: Path) -> dict[str, float]:
    """Tell the phrase with capitals that is most frequent in the text, of those that the question does not hold."""
    scores = AnswerScores()
    for row in read_rows(folder, "questions", "test"):
        found = Counter(phrase for phrase in PHRASE.findall(row["context"]) if phrase not in row["question"].replace(BLANK, ""))
        scores.update_answer(found.most_common(1)[0][0] if found else "", [answer["text"] for answer in row["answers"]])
    return _floats(scores)


def known_answers(folder: Path) -> dict[str, float]:
    """Tell, of the answers of training that stand in the text and not in the question, the most frequent there."""
    known = Counter(answer["text"] for row in read_rows(folder, "questions", "train") for answer in row["answers"][:1])
    scores = AnswerScores()
    for row in read_rows(folder, "questions", "test"):
        there = [text for text, _ in known.most_common() if text in row["context"] and text not in row["question"]]
        scores.update_answer(there[0] if there else "", [answer["text"] for answer in row["answers"]])
    return _floats(scores)


def _floats(scores: AnswerScores) -> dict[str, float]:
    return {name: float(value) for name, value in scores.compute().items() if name in ("exact_match", "f1")}


BASELINES = {
    "tags": {"most frequent tag": frequent_tags, "logistic regression": linear_tags},
    "pairs": {"logistic regression": linear_pairs},
    "questions": {"most frequent phrase": phrase_answers, "most frequent answer": known_answers},
}
"""Task -> name of a baseline -> what gives its scores of the test split."""
