"""Compound words of real pieces against the published algorithm, computed note by note."""

from dataclasses import replace

import numpy as np
import pytest
import symusic
import torch
from hypothesis import given, settings

from multimodal.tokenizers.midi import Column, CompoundTokenizer, Score, read_score
from tests.tokenizers.midi.real import NAMES, real_files
from tests.tokenizers.midi.scores import Rows, scores


def published(notes: list[tuple[int, int, int]], grid_ends_early: bool = True) -> list[list[int]]:
    """MidiBERT's ids of notes (start, pitch, duration), in their order (https://github.com/wazenmai/MIDI-BERT, branch CP).

    The grid of starts has a point every 120 ticks, and as published none at or after the last start. Notes go to the nearest point, the
    earlier of two. Bars of 1920 ticks that hold notes are numbered; in each the nearest of 16 places is told.
    """
    last = notes[-1][0]
    grid = np.arange(0, last if grid_ends_early else last + 240, 120)
    bins = np.arange(60, 3841, 60)
    snapped = [int(grid[np.argmin(abs(grid - start))]) for start, *_ in notes]
    ids = []
    for bar_start in sorted({start - start % 1920 for start in snapped}):
        places = np.linspace(bar_start, bar_start + 1920, 16, endpoint=False)
        inside = [i for i, start in enumerate(snapped) if bar_start <= start < bar_start + 1920]
        for number, i in enumerate(inside):
            position, duration = np.argmin(abs(places - snapped[i])), np.argmin(abs(bins - notes[i][2]))
            ids.append([0 if number == 0 else 1, int(position), notes[i][1] - 22, int(duration)])
    return ids


def check(score: Score) -> None:
    """The same ids, but for what lies in the last slot: the published code moves it to the one before."""
    score = CompoundTokenizer().restrict(score)
    rows = [tuple(row[:3]) for row in score.notes.tolist()]
    ids = CompoundTokenizer().encode_score(score)
    assert ids.tolist() == published(rows, grid_ends_early=False)
    last_point = (rows[-1][0] - 1) // 120 * 120
    starts = score.column(Column.START)
    early = starts <= last_point + 60
    theirs = torch.tensor(published(rows))
    assert torch.equal(theirs[early], ids[early])
    moved = score.notes.clone()
    moved[:, Column.START].clamp_(max=last_point)
    assert torch.equal(theirs, CompoundTokenizer().encode_score(replace(score, notes=moved)))


@pytest.mark.parametrize("name", NAMES)
def test_real_files(name: str) -> None:
    check(read_score(real_files()[name], drop_drums=False)[:2500])


@settings(max_examples=60, deadline=None)
@given(scores(15))
def test_random_scores(rows: Rows) -> None:
    if rows.score.notes[-1, 0] > 0:  # the published grid of a single moment is empty
        check(rows.score)


@pytest.mark.parametrize("name", NAMES)
def test_notes_are_read_in_the_published_order(name: str) -> None:
    """Those of each track by start and pitch, then all by start."""
    parsed = symusic.Score.from_midi(real_files()[name])
    scale = 480 / parsed.ticks_per_quarter
    tracks = [sorted(((note.start, note.pitch) for note in track.notes), key=lambda x: x) for track in parsed.tracks]
    merged = sorted((note for track in tracks for note in track), key=lambda x: x[0])
    score = read_score(real_files()[name], drop_drums=False)
    assert score.column(Column.PITCH).tolist() == [pitch for _, pitch in merged]
    starts = torch.tensor([start for start, _ in merged]) * scale
    assert (score.column(Column.START) - starts).abs().max() <= 0.5
