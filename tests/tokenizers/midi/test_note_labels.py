"""Labels of notes follow them through windows, augmentation and tokens."""

from dataclasses import replace

import torch
from hypothesis import given
from hypothesis import strategies as st

from multimodal.tokenizers.midi import Column, MidiTransform, score_of

NUMBERS = st.lists(st.tuples(st.integers(0, 40), st.integers(30, 90)), min_size=1, max_size=40)


def numbered(notes: list[tuple[int, int]]):
    score = score_of(torch.tensor([(120 * start, pitch, 100, 80) for start, pitch in notes]))
    return replace(score, numbers=torch.arange(len(score)))


@given(NUMBERS, st.integers(0, 2**20), st.integers(1, 12))
def test_the_notes_of_a_training_window_keep_their_numbers(notes, seed, transpose):
    score, generator = numbered(notes), torch.Generator().manual_seed(seed)
    window = MidiTransform(max_notes=12, min_notes=1, transpose=transpose).drawn(score, generator)
    own = score.notes[window.numbers]
    assert torch.equal(own[:, Column.START], window.column(Column.START))
    assert len((window.column(Column.PITCH) - own[:, Column.PITCH]).unique()) == 1


@given(NUMBERS)
def test_notes_that_are_sorted_anew_keep_their_numbers(notes):
    score = numbered(notes)
    changed = score.notes.clone()
    changed[:, Column.START] = -changed[:, Column.START] + 5000
    again = score.with_notes(changed)
    assert torch.equal(changed[again.numbers], again.notes)
    assert score.with_notes(changed[:-1]).numbers is None
