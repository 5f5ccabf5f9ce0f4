"""Simple baselines that masked pretraining has to beat.

Letters in shapes: n tokens, k fields.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Self

import numpy as np


def hog_svm_accuracy(
    train_images: np.ndarray, train_labels: np.ndarray, test_images: np.ndarray, test_labels: np.ndarray, use_hog: bool = True
) -> float:
    """Return the test accuracy of a support vector machine (RBF kernel, C = 10) on histograms of oriented gradients, or on pixels.

    Args:
        train_images: ``(images, 28, 28)`` uint8; other sizes work too.
        train_labels: ``(images,)``.
        test_images: like ``train_images``.
        test_labels: ``(images,)``.
        use_hog: False for pixels scaled to [0, 1].
    """
    from sklearn.svm import SVC

    train, test = (hog_features(x) if use_hog else x.reshape(len(x), -1) / 255 for x in (train_images, test_images))
    return float(SVC(C=10.0).fit(train, train_labels).score(test, test_labels))


def hog_features(images: np.ndarray, block: int = 2) -> np.ndarray:
    """Return histograms of oriented gradients: 9 directions, cells of 4 x 4 pixels, blocks of ``block`` x ``block`` cells."""
    from skimage.feature import hog

    return np.stack([hog(image, orientations=9, pixels_per_cell=(4, 4), cells_per_block=(block, block)) for image in images])


def few_labels(labels: np.ndarray, per_class: int, seed: int) -> np.ndarray:
    """Return the indices of ``per_class`` random items of each class."""
    random = np.random.default_rng(seed)
    return np.concatenate([random.permutation(np.flatnonzero(labels == label))[:per_class] for label in np.unique(labels)])


class TableBaseline:
    """Predict a hidden token from its visible neighbours, by counting.

    For each field, the ids of the token are counted for each context: the ids of that field at the neighbours. A hidden token gets the
    most frequent id of its context. Where a neighbour is hidden or outside, or the context never occurred, shorter contexts take over, in
    the order of ``contexts``; at last the most frequent id of all. Ties go to the smallest id.

    Args:
        vocab_sizes: number of ids of each field.
        contexts: which neighbours count together, best first; each is a tuple of places in the list of neighbours. The default for two
            neighbours (previous, next): both, previous, next.
    """

    def __init__(self, vocab_sizes: Sequence[int], contexts: Sequence[tuple[int, ...]] = ((0, 1), (0,), (1,))) -> None:
        self.vocab_sizes, self.contexts = tuple(vocab_sizes), tuple(contexts)
        self._tables: list[list[tuple[np.ndarray, np.ndarray]]] = []
        self._most_frequent = np.zeros(len(self.vocab_sizes), dtype=np.int64)

    def fit(self, ids: np.ndarray, neighbours: Sequence[np.ndarray]) -> Self:
        """Count.

        Args:
            ids: ``(n, k)``; or ``(n,)`` for one field.
            neighbours: arrays ``(n,)``, the index of each token's neighbour, -1 where there is none.
        """
        ids = ids.reshape(len(ids), -1)
        self._most_frequent = np.array(
            [np.bincount(column, minlength=size).argmax() for column, size in zip(ids.T, self.vocab_sizes, strict=True)]
        )
        self._tables = [
            [self._count(column, size, [neighbours[i] for i in context]) for context in self.contexts]
            for column, size in zip(ids.T, self.vocab_sizes, strict=True)
        ]
        return self

    def predict(self, ids: np.ndarray, neighbours: Sequence[np.ndarray], masked: np.ndarray) -> np.ndarray:
        """Return ``(hidden, k)``, the ids predicted where ``masked``; only ids that are not masked are read."""
        ids = ids.reshape(len(ids), -1)
        visible = [np.where((index >= 0) & ~masked[index], index, -1)[masked] for index in neighbours]
        predicted = np.repeat(self._most_frequent[None], int(masked.sum()), axis=0)
        for field, (column, size, tables) in enumerate(zip(ids.T, self.vocab_sizes, self._tables, strict=True)):
            for context, (keys, best) in reversed(list(zip(self.contexts, tables, strict=True))):  # the best context writes last
                wanted = _keys(column, size, [visible[i] for i in context])
                place = np.searchsorted(keys, wanted).clip(max=max(len(keys) - 1, 0))
                found = (wanted >= 0) & (keys[place] == wanted) if len(keys) else np.zeros(len(wanted), bool)
                predicted[found, field] = best[place[found]]
        return predicted

    def accuracies(self, ids: np.ndarray, neighbours: Sequence[np.ndarray], masked: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return two arrays ``(k,)``: the share of hidden tokens predicted right, and the same for the most frequent id alone."""
        truth = ids.reshape(len(ids), -1)[masked]
        return (self.predict(ids, neighbours, masked) == truth).mean(0), (self._most_frequent == truth).mean(0)

    def _count(self, column: np.ndarray, size: int, neighbours: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
        """Return the contexts seen, ascending, and the most frequent id in each."""
        keys = _keys(column, size, neighbours)
        pairs, counts = np.unique(keys[keys >= 0] * size + column[keys >= 0], return_counts=True)
        order = np.lexsort((pairs, -counts, pairs // size))
        contexts, first = np.unique(pairs[order] // size, return_index=True)
        return contexts, pairs[order][first] % size


def sequence_neighbours(lengths: np.ndarray) -> list[np.ndarray]:
    """Return the index of the previous and of the next token in the same sequence, -1 at its ends.

    Args:
        lengths: ``(sequences,)``, which lie end to end.
    """
    index, ends = np.arange(lengths.sum()), lengths.cumsum()
    previous, following = index - 1, index + 1
    previous[(ends - lengths)[lengths > 0]] = -1
    following[ends[lengths > 0] - 1] = -1
    return [previous, following]


def grid_neighbours(count: int, rows: int, columns: int) -> list[np.ndarray]:
    """Return the index of the left, right, upper and lower neighbour of each token of ``count`` grids in row-major order, -1 outside."""
    index = np.full((count, rows + 2, columns + 2), -1)
    index[:, 1:-1, 1:-1] = np.arange(count * rows * columns).reshape(count, rows, columns)
    shifted = index[:, 1:-1, :-2], index[:, 1:-1, 2:], index[:, :-2, 1:-1], index[:, 2:, 1:-1]
    return [x.ravel() for x in shifted]


def _keys(column: np.ndarray, size: int, neighbours: Sequence[np.ndarray]) -> np.ndarray:
    """Return one number per context, -1 where a neighbour is missing."""
    keys = np.zeros(len(neighbours[0]), dtype=np.int64)
    for index in neighbours:
        keys = keys * size + column[index]
    return np.where(np.all([index >= 0 for index in neighbours], axis=0), keys, -1)
