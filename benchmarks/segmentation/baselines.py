"""What needs no encoder: background everywhere, a threshold on colours, a forest of decision trees over each pixel's neighbourhood."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
from scipy.ndimage import gaussian_filter, sobel
from sklearn.ensemble import RandomForestClassifier

from benchmarks.segmentation.compose import IGNORE
from benchmarks.segmentation.scoring import NUM_CLASSES, Scores, confusion, pictures, scores

Guess = Callable[[np.ndarray], np.ndarray]
"""Picture -> class of each pixel."""
BLURS = (0.0, 1.0, 2.0, 4.0, 8.0)  # pixels
PIXELS_PER_PICTURE = 400


def score(guess: Guess, folder: Path) -> Scores:
    """Score guesses on the files of a split."""
    pairs = sum(confusion(mask, guess(picture)) for _, picture, mask in pictures(folder))
    return scores(np.asarray(pairs))


def background(picture: np.ndarray) -> np.ndarray:
    """Call everything background."""
    return np.zeros(picture.shape[:2], dtype=np.int64)


def distance(picture: np.ndarray) -> np.ndarray:
    """Return how far the colour of each pixel is from the median colour of the picture's border."""
    values = picture.astype(np.float64)
    border = np.concatenate([values[0], values[-1], values[:, 0], values[:, -1]])
    return np.linalg.norm(values - np.median(border, 0), axis=-1)


def fit_threshold(folder: Path) -> Guess:
    """Return the threshold on ``distance``, and the class for all above it, with the best mean IoU on the files."""
    pairs = [(distance(picture), mask) for _, picture, mask in pictures(folder)]

    def quality(threshold: float, number: int) -> float:
        found = sum(confusion(mask, np.where(far > threshold, number, 0)) for far, mask in pairs)
        return scores(np.asarray(found)).mean_iou

    choices = [(threshold, number) for threshold in range(10, 300, 10) for number in range(1, NUM_CLASSES)]
    threshold, number = max(choices, key=lambda choice: quality(*choice))
    return lambda picture: np.where(distance(picture) > threshold, number, 0)


def features(picture: np.ndarray) -> np.ndarray:
    """Return ``(pixels, features)``: colours and edges at several blurs, place, and the distance from the border's colour."""
    values = picture.astype(np.float32) / 255
    found = [
        distance(picture)[..., None],
        np.stack(np.meshgrid(*(np.linspace(-1, 1, side) for side in picture.shape[:2]), indexing="ij"), -1),
    ]
    for width in BLURS:
        blurred = gaussian_filter(values, (width, width, 0)) if width else values
        grey = blurred.mean(-1)
        found += [blurred, np.hypot(sobel(grey, 0), sobel(grey, 1))[..., None]]
    return np.concatenate(found, -1).reshape(-1, sum(part.shape[-1] for part in found)).astype(np.float32)


def fit_forest(folder: Path, seed: int = 0) -> Guess:
    """Return a random forest that was trained on some pixels of each picture."""
    rng = np.random.default_rng(seed)
    rows, labels = [], []
    for _, picture, mask in pictures(folder):
        usable = np.flatnonzero(mask.ravel() != IGNORE)
        chosen = rng.choice(usable, min(PIXELS_PER_PICTURE, len(usable)), replace=False)
        rows.append(features(picture)[chosen])
        labels.append(mask.ravel()[chosen])
    forest = RandomForestClassifier(100, min_samples_leaf=5, random_state=seed).fit(np.concatenate(rows), np.concatenate(labels))
    return lambda picture: forest.predict(features(picture)).astype(np.int64).reshape(picture.shape[:2])
