"""What networks have to beat: forests, boosted trees and linear models on counted features, a table, the most frequent class.

``python -m benchmarks.music.baselines [TASK ...]`` after ``python -m benchmarks.music.data``. Settings of the models are chosen by
cross-validation on the training split. Results are lines of ``runs/music/results.jsonl``; what is there is not done again.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import numpy as np
from sklearn.base import BaseEstimator
from sklearn.ensemble import ExtraTreesClassifier, HistGradientBoostingClassifier, RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, StratifiedKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from benchmarks.music.chorale_features import Hidden, hidden_pitches
from benchmarks.music.data import ROOT, TEST, TRAIN
from benchmarks.music.excerpt_features import composer_features, dance_features
from benchmarks.music.results import Truth, is_done, print_table, write
from benchmarks.music.tasks import Excerpts, chorales, excerpts

COMMONEST, FOREST, EXTRA, LOGISTIC = "most frequent class", "random forest", "extra trees", "logistic regression"
TABLE, BOOSTED = "table of neighbours", "boosted trees"
DANCE, COMPOSERS, PITCH = "dance", "composers", "hidden pitch"
TREES, TREES_TRIED = 500, 100
NEVER = -1000
FEATURES: dict[str, Callable[[np.ndarray], np.ndarray]] = {DANCE: dance_features, COMPOSERS: composer_features}
PITCH_TREES: dict[str, Any] = {"max_features": 0.3, "min_samples_leaf": 2}
"""Of the settings that were tried on a validation split of the chorales, the best."""
FOLDS = StratifiedKFold(5, shuffle=True, random_state=0)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run what is not done yet, then print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("tasks", nargs="*", default=[DANCE, COMPOSERS, PITCH], help="(default: all)")
    parser.add_argument("--seeds", type=int, default=5, help="of models that draw (default: %(default)s)")
    options = parser.parse_args(arguments)
    if unknown := set(options.tasks) - {DANCE, COMPOSERS, PITCH}:
        parser.error(f"unknown task {unknown.pop()!r}; known are {DANCE}, {COMPOSERS}, {PITCH}.")
    for task in options.tasks:
        if task == PITCH:
            tell_pitches()
        else:
            tell_classes(task, options.seeds)
        print_table(task, truth_of(task), FOREST)


def truth_of(task: str) -> Truth:
    """Return what is to be told in a task."""
    if task == PITCH:
        hidden, piece = hidden_notes(TEST)
        return Truth(hidden.pitch, piece, with_f1=False)
    found = excerpts(ROOT, task)
    return Truth(
        found.labels[found.test],
        np.array([key.rpartition("-")[0] for key, test in zip(found.keys, found.test, strict=True) if test]),
        with_f1=True,
    )


def tell_classes(task: str, seeds: int) -> None:
    """Tell the classes of excerpts by each model."""
    found = excerpts(ROOT, task)
    features, truth = FEATURES[task](found.notes), truth_of(task)
    for name, (model, grid) in classifiers().items():
        settings: dict[str, Any] | None = None
        for seed in range(1 if name in (LOGISTIC, COMMONEST) else seeds):
            line = {"task": task, "method": name, "seed": seed}
            if is_done(line):
                continue
            settings = chosen(model, grid, features, found) if settings is None else settings
            write(line | {"settings": str(settings)}, told_classes(model, settings, seed, features, found), truth)


def classifiers() -> dict[str, tuple[BaseEstimator, dict[str, list[Any]]]]:
    """Return models, and the settings to choose from."""
    from sklearn.dummy import DummyClassifier

    trees: dict[str, list[Any]] = {
        "max_features": ["sqrt", 0.15],
        "min_samples_leaf": [1, 2, 4],
        "class_weight": [None, "balanced_subsample"],
    }
    linear = make_pipeline(StandardScaler(), LogisticRegression(max_iter=3000))
    return {
        COMMONEST: (DummyClassifier(), {}),
        LOGISTIC: (linear, {"logisticregression__C": [0.001, 0.003, 0.01, 0.03, 0.1, 1.0]}),
        FOREST: (RandomForestClassifier(TREES), trees),
        EXTRA: (ExtraTreesClassifier(TREES), trees),
        BOOSTED: (
            HistGradientBoostingClassifier(max_iter=200, early_stopping=False),
            {"learning_rate": [0.03, 0.1], "max_leaf_nodes": [4, 16], "max_features": [0.3]},
        ),
    }


def chosen(model: BaseEstimator, grid: dict[str, list[Any]], features: np.ndarray, found: Excerpts) -> dict[str, Any]:
    """Return the settings of the best mean accuracy in cross-validation on the training split."""
    if not grid:
        return {}
    few = {"n_estimators": [TREES_TRIED]} if "n_estimators" in model.get_params() else {}
    drawn = {"random_state": [0]} if "random_state" in model.get_params() else {}
    learned = ~found.test
    search = GridSearchCV(model, grid | few | drawn, cv=FOLDS, scoring="accuracy", refit=False).fit(
        features[learned], found.labels[learned]
    )
    return {name: value for name, value in search.best_params_.items() if name not in (few | drawn)}


def told_classes(model: BaseEstimator, settings: dict[str, Any], seed: int, features: np.ndarray, found: Excerpts) -> np.ndarray:
    """Return the classes that a model tells the tested excerpts to be; it learns from ``(x, f)`` features of the others."""
    from sklearn.base import clone

    own = clone(model).set_params(**settings)
    if "random_state" in own.get_params():
        own.set_params(random_state=seed)
    return own.fit(features[~found.test], found.labels[~found.test]).predict(features[found.test])


@cache
def hidden_notes(split: str) -> tuple[Hidden, np.ndarray]:
    """Return all notes of the chorales of a split, and the number of the chorale of each."""
    parts = [hidden_pitches(score) for _, score in chorales(ROOT, split)]
    piece = np.repeat(np.arange(len(parts)), [len(part.pitch) for part in parts])
    return Hidden(*(np.concatenate(columns) for columns in zip(*parts, strict=True))), piece


def tell_pitches() -> None:
    """Tell the pitch of each note of the tested chorales from all other notes, by each model."""
    truth, (train, _), (test, _) = truth_of(PITCH), hidden_notes(TRAIN), hidden_notes(TEST)
    methods: dict[str, Callable[[], np.ndarray]] = {
        COMMONEST: lambda: np.full(len(test.pitch), np.bincount(train.pitch).argmax()),
        TABLE: lambda: by_table(train, test),
        FOREST: lambda: by_model(RandomForestClassifier(200, **PITCH_TREES, random_state=0), train, test),
        EXTRA: lambda: by_model(ExtraTreesClassifier(200, **PITCH_TREES, random_state=0), train, test),
    }
    for name, method in methods.items():
        line = {"task": PITCH, "method": name, "seed": 0}  # notes are many: another seed differs by a thousandth
        if not is_done(line):
            write(line, method(), truth)


def by_table(train: Hidden, test: Hidden) -> np.ndarray:
    """Return the pitches that a table tells: the most frequent interval for the voice and the pitches around, else for the voice."""
    interval = most_frequent(train.context[:, :1], train.interval, test.context[:, :1])
    known = most_frequent(train.context, train.interval, test.context)
    return test.reference + np.where(known == NEVER, interval, known)


def most_frequent(contexts: np.ndarray, values: np.ndarray, asked: np.ndarray) -> np.ndarray:
    """Return the most frequent value in each context that is asked for, ``NEVER`` where it did not occur.

    Args:
        contexts: ``(n, k)`` int.
        values: ``(n,)`` int that occurred in them.
        asked: ``(m, k)`` int.
    """
    rows, counts = np.unique(np.column_stack([contexts, values]), axis=0, return_counts=True)
    best = {tuple(row[:-1]): row[-1] for row in rows[np.argsort(counts, kind="stable")].tolist()}  # the most frequent is written last
    return np.array([best.get(tuple(row), NEVER) for row in asked.tolist()])


def by_model(model: BaseEstimator, train: Hidden, test: Hidden) -> np.ndarray:
    """Return the pitches that a model tells, as intervals from the reference."""
    return test.reference + model.fit(train.features, train.interval).predict(test.features)


if __name__ == "__main__":
    main()
