"""The moves of films with the clips that show them, as the commands have left them.

Letters in shapes: m moves, c clips of a move, d width of the features.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.narrated_digits.data import MOVE_SECONDS, Told, read_moves
from multimodal.datamodules.shards.index import ShardIndex
from multimodal.datamodules.shards.reader import RawSample, read_samples
from multimodal.tokenizers.clip_file import FIELD, read_clips

TASKS = {"digit": 10, "way": 8}
"""What a move is told by -> number of classes."""


@dataclass(frozen=True)
class Moves:
    """Moves in the order of the films and of time.

    Args:
        told: what each is, and what is said of it.
        ids: ``(m, c)`` int64, the clusters of its clips.
        features: ``(m, c, d)`` float32, their features.
    """

    told: list[Told]
    ids: np.ndarray
    features: np.ndarray

    def classes(self, task: str) -> np.ndarray:
        """Return ``(m,)`` int64, the class of each move: which digit, or which way."""
        return np.array([getattr(move, task) for move in self.told])

    def first_of(self, starts: Sequence[tuple[str, float]]) -> Moves:
        """Return the moves that begin where sentences do; of two moves with one sentence, which captions show as one, that is the first.

        Args:
            starts: key of the film and start of the sentence, in seconds.
        """
        places = {move[:2]: place for place, move in enumerate(self.told)}
        chosen = [places[key, round(start / MOVE_SECONDS)] for key, start in starts]
        return Moves([self.told[place] for place in chosen], self.ids[chosen], self.features[chosen])


def read(films: Path, shards: Path, split: str) -> Moves:
    """Return the moves of the films of a split.

    Args:
        films: folder of the films, with the table of their moves.
        shards: of the same films, with ids and features of their clips.
        split: which.
    """
    source = ShardIndex.load(shards)
    clips: dict[str, tuple[np.ndarray, np.ndarray]] = {}
    for info in source.splits[split]:
        for raw in read_samples(source.location(info), range(info.samples), info.samples, {FIELD}):
            assert isinstance(raw, RawSample)
            found = read_clips(raw.fields[FIELD])
            assert found.ids is not None and found.features is not None
            moves = ((found.starts + found.ends) / 2 // MOVE_SECONDS).long().numpy()
            assert (np.bincount(moves) == np.bincount(moves)[0]).all()
            shape = (moves[-1] + 1, -1)
            clips[raw.key] = found.ids.numpy().reshape(shape), found.features.float().numpy().reshape(*shape, found.features.shape[1])
    told = read_moves(films, split)
    ids, features = ([clips[move.key][part][move.number] for move in told] for part in (0, 1))
    return Moves(told, np.stack(ids), np.stack(features))
