"""What needs no VideoBERT: how much clusters tell, which words occur with which, and the nearest mean feature.

Letters in shapes: m moves, c clips of a move, k clusters, n classes, d width of the features.
"""

from __future__ import annotations

import numpy as np
from sklearn.metrics import normalized_mutual_info_score

from benchmarks.narrated_digits.moves import TASKS, Moves


def cluster_scores(train: Moves, test: Moves, task: str) -> dict[str, float]:
    """Return what clusters tell of a class, clip by clip, which bounds what any model of their ids can tell from one clip.

    Args:
        train: the class of a cluster is that of most of its clips in these moves.
        test: what is scored.
        task: one of ``TASKS``.

    Returns:
        "information": normalised mutual information of clusters and classes in ``test``; "accuracy": share of its clips that are of the
        class of their cluster.
    """
    counts = occurrences(train, task, 0.0)
    ids = test.ids.ravel()
    classes = test.classes(task).repeat(test.ids.shape[1])
    return {
        "information": float(normalized_mutual_info_score(classes, ids)),
        "accuracy": float((counts.argmax(1)[ids] == classes).mean()),
    }


def occurrences(moves: Moves, task: str, smoothing: float) -> np.ndarray:
    """Return ``(k, n)``, how often each class is said of a clip of each cluster, and ``smoothing`` more."""
    counts = np.full((int(moves.ids.max()) + 1, TASKS[task]), smoothing)
    np.add.at(counts, (moves.ids, moves.classes(task)[:, None]), 1)
    return counts


def word_scores(train: Moves, test: Moves, task: str, num_clusters: int) -> np.ndarray:
    """Return ``(m, n)``, the log-probabilities of the classes of moves by naive Bayes over the clusters of their clips.

    Args:
        train: what is counted, with one more of each.
        test: what is told.
        task: one of ``TASKS``.
        num_clusters: of the tree; some may be of no clip in ``train``.
    """
    counts = np.ones((num_clusters, TASKS[task]))
    found = occurrences(train, task, 1.0)
    counts[: len(found)] = found
    prior = np.log(np.bincount(train.classes(task), minlength=TASKS[task]) / len(train.told))
    scores = prior + np.log(counts / counts.sum(0))[test.ids].sum(1)
    return scores - np.logaddexp.reduce(scores, 1, keepdims=True)


def nearest_means(train: Moves, test: Moves, task: str) -> np.ndarray:
    """Return ``(m,)``, the class whose mean feature in ``train`` is nearest to the mean feature of each move."""
    classes, features = train.classes(task), train.features.mean(1)
    means = np.stack([features[classes == number].mean(0) for number in range(TASKS[task])])
    distances = np.square(test.features.mean(1)[:, None] - means).sum(2)
    return distances.argmin(1)


def fit_scores(train: Moves, test: Moves, num_clusters: int) -> np.ndarray:
    """Return ``(m, n, n')``: for each move how much more likely each digit and way are than by chance (pointwise mutual information)."""
    digit, way = (
        word_scores(train, test, task, num_clusters) - np.log(np.bincount(train.classes(task), minlength=TASKS[task]) / len(train.told))
        for task in TASKS
    )
    return digit[:, :, None] + way[:, None, :]
