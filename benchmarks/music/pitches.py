"""A model of hidden pitches tells every note of chorales, one at a time, from all notes around it.

Letters in shapes: n notes, w windows, k fields, p pitches.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import cast

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from benchmarks.music.parts import MODALITY
from multimodal.batch import Items
from multimodal.modality import Modality
from multimodal.tokenizers.midi import Column, MidiTransform, Score
from multimodal.training import MaskedPretraining

REACH = 64
"""Notes before and after the hidden one that are shown."""
BATCH = 64


@torch.no_grad()
def told_pitches(model: MaskedPretraining, score: Score, keys: Sequence[int] = (0,), reach: int = REACH) -> np.ndarray:
    """Return ``(n,)`` the pitch that a model tells for each note of a chorale, sorted by voice and start.

    Args:
        model: trained to fill in pitches.
        score: a track for each voice.
        keys: semitones by which all is moved, for the mean over several views.
        reach: notes on each side of the hidden one that are shown.
    """
    modality = cast(Modality, model.modalities[MODALITY])
    tokenizer = cast(MidiTransform, modality.transform).tokenizer
    ids, pitch = tokenizer.encode_score(score), tokenizer.field_names.index("pitch")
    likely = torch.stack([probabilities(model, moved(ids, pitch, key), pitch, reach).roll(-key, 1) for key in keys]).mean(0)
    found = likely.argmax(1).numpy() + tokenizer.pitch_range[0]
    start, track = (score.column(column).numpy() for column in (Column.START, Column.TRACK))
    return found[np.lexsort((start, track))]


def moved(ids: Int[Tensor, "n k"], pitch: int, key: int) -> Int[Tensor, "n k"]:
    """Return the ids in another key; ``pitch``: number of the field."""
    ids = ids.clone()
    ids[:, pitch] += key
    return ids


def probabilities(model: MaskedPretraining, ids: Int[Tensor, "n k"], pitch: int, reach: int = REACH) -> Float[Tensor, "n p"]:
    """Return the probabilities of all ids of the field ``pitch`` of each note, which alone is hidden."""
    modality = cast(Modality, model.modalities[MODALITY])
    found = []
    for items, masked in _windows(ids, pitch, reach):
        with torch.autocast("cpu", torch.bfloat16):
            view = modality.masked_view(items, masked)
            part = modality.embed(view.tokens, view.shown_as_mask), view.sequence, view.tokens.coordinates
            encoded = model.encode({MODALITY: part}, wanted=view.masked)
            found.append(modality.head(encoded.tokens)[pitch].float().softmax(1))
    return torch.cat(found)


def _windows(ids: Tensor, pitch: int, reach: int) -> Iterator[tuple[Items, Tensor]]:
    """Yield batches of windows, one around each note, and what is hidden of them."""
    for begin in range(0, len(ids), BATCH):
        place = torch.arange(begin, min(begin + BATCH, len(ids)))
        first, last = (place - reach).clamp(min=0), (place + reach + 1).clamp(max=len(ids))
        lengths = last - first
        starts = lengths.cumsum(0) - lengths
        rows = torch.arange(int(lengths.sum())) - (starts - first).repeat_interleave(lengths)
        masked = torch.zeros(len(rows), ids.shape[1], dtype=torch.bool)
        masked[starts + place - first, pitch] = True
        number = torch.arange(len(place))
        yield Items(ids[rows], number, torch.zeros_like(number), lengths), masked
