"""Scores of filled notes by hand, and the hymn that is published."""

import numpy as np
import pytest
import torch

from benchmarks.infilling.hymn import hymn, pitch_of
from benchmarks.infilling.keys import Key, key_of
from benchmarks.infilling.run import TASKS, items_of, without_model
from benchmarks.infilling.scores import Counts, Voices, count, sounding_intervals
from multimodal.tokenizers.midi import Column, CompoundTokenizer, read_score, write_score

C_MAJOR, A_MINOR = [60, 62, 64, 65, 67, 69, 71, 72, 67, 60], [57, 59, 60, 62, 64, 65, 68, 69, 64, 57]


@pytest.mark.parametrize(("pitches", "key"), [(C_MAJOR, Key(0, "major")), (A_MINOR, Key(9, "minor"))])
@pytest.mark.parametrize("up", [0, 3, 11])
def test_keys_of_scales(pitches, key, up):
    found = key_of(np.array(pitches) + up, np.ones(len(pitches), np.int64))
    assert found == ((key.tonic + up) % 12, key.mode)


def test_pitches_of_a_key():
    assert Key(7, "major").has(np.array([67, 66, 65, 54])).tolist() == [True, True, False, True]
    assert Key(9, "minor").has(np.array([67, 68, 66, 57])).tolist() == [True, True, False, True], "the raised seventh too"


def table(*rows: tuple[int, int, int, int]) -> np.ndarray:
    """Notes of (start, pitch, duration, track)."""
    return np.array([(start, pitch, duration, 80, 0, track) for start, pitch, duration, track in rows])


NOTES = table((0, 72, 2, 0), (0, 60, 4, 1), (2, 71, 2, 0), (3, 65, 1, 2), (4, 67, 2, 0))


def test_intervals_to_what_sounds_when_a_note_begins():
    last = np.array([False, False, False, True, True])
    assert sorted(sounding_intervals(NOTES, last).tolist()) == [5, 6], "F over C, F under B; the last G sounds alone"
    assert len(sounding_intervals(NOTES, np.ones(5, bool))) == 2 + 1 + 2, "C and C of the first chord, then B and F"


def test_counts_by_hand():
    voices = Voices(np.array([60, 50, 60]), np.array([71, 60, 70]), np.array([67, 55, 64]))
    guess = NOTES.copy()
    guess[[0, 3], Column.PITCH] = 74, 66
    hidden = np.array([True, False, True, True, False])
    found = count(NOTES, guess, hidden, Key(0, "major"), voices)
    assert found == Counts(notes=3, right=1, in_key=2, in_range=2, pairs=4, consonant=1), "D-C, B-C, F#-C are not, F#-B is"
    assert (found + found).shares == pytest.approx({"right": 1 / 3, "in_key": 2 / 3, "in_range": 2 / 3, "consonant": 1 / 4})


def test_ranges_leave_out_the_rarest():
    pieces = [table(*[(i, 60 + i // 20, 1, 0) for i in range(400)], (0, 90, 1, 0), (0, 40, 1, 1))]
    found = Voices.of(pieces, 2)
    assert (found.low.tolist(), found.high.tolist()) == ([60, 40], [79, 40])
    assert found.commonest.tolist() == [60, 40]


def test_the_hymn_is_in_g_for_four_voices_and_comes_back_from_its_file():
    score = hymn()
    assert pitch_of("C4") == 60 and pitch_of("F#3") == 54
    notes = score.notes.numpy()
    assert len(notes) == 4 * 32 and key_of(notes[:, Column.PITCH], notes[:, Column.DURATION]) == (7, "major")
    melody = notes[notes[:, Column.TRACK] == 0, Column.PITCH]
    assert melody[:8].tolist() == [67, 67, 66, 64, 62, 67, 69, 71] and melody[-1] == 67
    assert (np.diff(notes[:, Column.PITCH].reshape(-1, 4), axis=1) <= 0).all(), "voices do not cross"
    again = read_score(write_score(score))
    assert torch.equal(again.notes[:, :3], score.notes[:, :3]) and again.track_names == score.track_names


def test_what_takes_no_model_is_scored_on_what_is_hidden():
    from benchmarks.infilling.run import COMMONEST, REAL, Piece

    tokenizer = CompoundTokenizer(metre="read", num_tracks=4)
    score = hymn()
    voices = Voices.of([score.notes.numpy()])
    found = without_model([Piece("hymn", score)], tokenizer, TASKS["alto"], voices, seed=0)
    assert found[REAL].notes == found[REAL].right == 32 and found[REAL].in_range == 32
    alto = score.notes[score.notes[:, Column.TRACK] == 1, Column.PITCH]
    assert found[COMMONEST].right == int((alto == alto.mode().values).sum())
    assert without_model([Piece("hymn", score)], tokenizer, TASKS["bars, all"], voices, seed=0)[REAL].notes == 4 * 4 * 4


def test_seeds_of_pieces_differ():
    ids = [torch.zeros(3, 5, dtype=torch.int64)] * 2
    first, second, other = items_of(ids, 0, 0), items_of(ids, 2, 0), items_of(ids, 0, 1)
    seeds = torch.cat([items.seed for items in (first, second, other)]).tolist()
    assert len(set(seeds)) == 6
