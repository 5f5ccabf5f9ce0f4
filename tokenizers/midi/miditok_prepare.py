"""Scores as miditok tokenizes them: which notes there are tokens for, where they lie, and in which order.

Letters in shapes: n notes, m notes that have tokens.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Int
from symusic.core import NoteTickList
from torch import Tensor

from multimodal.tokenizers.midi.bars import Bars
from multimodal.tokenizers.midi.miditok_tokens import MiditokTokens
from multimodal.tokenizers.midi.score import DRUMS, TICKS_PER_BEAT, Column, Score, to_symusic

QUARTER = 4


class MiditokPreparation:
    """Does what miditok's preprocessing does, and knows of each note which it was.

    miditok keeps the order of the notes of a track, except where it merges tracks and where it removes duplicates. Both are done here.

    Args:
        own: the tokenizer of miditok. Its ``remove_duplicated_notes`` is turned off.
        tokens: what its ids say.
    """

    def __init__(self, own: Any, tokens: MiditokTokens) -> None:
        self._own = own
        self._has_programs = own.one_token_stream
        self._removes_duplicates = own.config.remove_duplicated_notes
        own.config.remove_duplicated_notes = False
        self._pitches = np.zeros((2, 128), bool)  # of drums in the second row
        self._pitches[:, tokens.pitches_of("Pitch")] = True
        if own.config.use_pitchdrum_tokens:
            self._pitches[1] = False
            self._pitches[1, tokens.pitches_of("PitchDrum")] = True
        self._programs = np.array([program in own.config.programs for program in (*range(DRUMS), -1)])

    def __call__(self, score: Score) -> tuple[Int[np.ndarray, " m"], Any]:
        """Return which notes have tokens, in the order of these, and the score of symusic that is left of them; None where there are none.

        The score begins with the bar of its first note.

        Raises:
            ValueError: a start is negative.
        """
        score, kept = self._kept(score)
        if not len(kept):
            return kept, None
        placed = self._placed(score)
        by_track = self._by_track(score.notes.numpy(), placed)
        prepared = self._own.preprocess_score(to_symusic(replace(placed, notes=placed.notes[by_track])))
        notes = [track.notes.numpy() for track in prepared.tracks]
        start = np.concatenate([own["time"] for own in notes])
        order = self._without_duplicates(prepared, notes) if self._removes_duplicates else np.arange(len(start))
        order = order[start[order].argsort(kind="stable")]
        return kept[by_track[order]], prepared

    def _kept(self, score: Score) -> tuple[Score, Int[np.ndarray, " m"]]:
        """Return the notes that there are tokens for, and which these are."""
        notes = score.notes.numpy()
        if not self._has_programs:
            told = self._pitches[0, notes[:, Column.PITCH]]
        else:
            program = notes[:, Column.PROGRAM]
            told = self._pitches[(program == DRUMS).astype(np.int64), notes[:, Column.PITCH]] & self._programs[program]
        return score[torch.from_numpy(told)], np.flatnonzero(told)

    def _placed(self, score: Score) -> Score:
        """Return the score from the bar of its first note on, with a track for each program, in the order of their first tracks."""
        config, notes = self._own.config, score.notes.clone()
        if int(first := notes[:, Column.START].min()) < 0:
            raise ValueError(f"starts must not be negative, got {int(first)}.")
        known = torch.zeros(len(score.metres), dtype=torch.bool)
        if config.use_time_signatures:
            known[:] = torch.tensor([tuple(row) in self._own.time_signatures for row in score.metres[:, 1:].tolist()])
        metres = score.metres[known]
        bars = Bars.of(metres.numpy())
        origin = int(bars.start_of(bars.bar_of(np.array([int(first)])))[0])
        notes[:, Column.START] -= origin
        if self._has_programs:
            track, program = notes[:, Column.TRACK].numpy(), notes[:, Column.PROGRAM].numpy()
            found, place = np.unique(program, return_inverse=True)
            lowest = np.full(len(found), track.max() + 1)
            np.minimum.at(lowest, place, track)
            notes[:, Column.TRACK] = torch.from_numpy(np.lexsort((found, lowest)).argsort()[place])
        else:
            notes[:, [Column.TRACK, Column.PROGRAM]] = 0
        return Score(notes, _since(score.tempos if config.use_tempos else score.tempos[:0], origin), _since(metres, origin))

    def _by_track(self, notes: Int[np.ndarray, "m 6"], placed: Score) -> Int[np.ndarray, " m"]:
        """Return the order of notes in which miditok has them: by start and pitch, as files do; where it merges tracks, as on its grid."""
        own = placed.notes.numpy()
        start, pitch, duration, velocity, _, track = own.T
        keys = [start, pitch, duration, velocity]
        if self._has_programs:
            first = np.full(track.max() + 1, notes[:, Column.TRACK].max())
            np.minimum.at(first, track, notes[:, Column.TRACK])
            merged = np.zeros(track.max() + 1, bool)
            merged[track[notes[:, Column.TRACK] != first[track]]] = True
            denominator = max(placed.metres[:, 2].tolist(), default=QUARTER)
            step = self._own.config.max_num_pos_per_beat * denominator // QUARTER  # to a beat
            start, duration = ((2 * step * x + TICKS_PER_BEAT) // (2 * TICKS_PER_BEAT) for x in (start, duration))  # nearest, halves up
            keys = [np.where(merged[track], *pair) for pair in zip((start, duration.clip(1), pitch, velocity), keys, strict=True)]
        return np.lexsort((*reversed(keys), track))

    def _without_duplicates(self, prepared: Any, notes: list[dict[str, np.ndarray]]) -> Int[np.ndarray, " m"]:
        """Remove, in each track, notes that start together at one pitch; return which are left, in the order that they have now."""
        track = np.arange(len(notes)).repeat([len(own["time"]) for own in notes])
        start, pitch, duration, velocity = (
            np.concatenate([own[name] for own in notes]) for name in ("time", "pitch", "duration", "velocity")
        )
        order = np.lexsort((velocity, duration, pitch, start, track))
        same = np.stack([track, start, pitch])[:, order]
        order = order[np.append(True, (same[:, 1:] != same[:, :-1]).any(0))]
        for number, (written, own) in enumerate(zip(prepared.tracks, notes, strict=True)):
            chosen = order[track[order] == number] - np.flatnonzero(track == number)[0]
            written.notes = NoteTickList.from_numpy(*(own[name][chosen] for name in ("time", "duration", "pitch", "velocity")))
        return order


def _since(rows: Int[Tensor, "n k"], origin: int) -> Int[Tensor, "m k"]:
    """Return changes from a time on, which becomes 0; what was so then is so from 0 on. From 0 on they are all as they were."""
    if not origin:
        return rows  # of several at 0 miditok's grid knows all
    before = int((rows[:, 0] <= origin).sum())
    rows = rows[max(0, before - 1) :].clone()
    rows[:, 0] = (rows[:, 0] - origin).clamp(min=0)
    return rows
