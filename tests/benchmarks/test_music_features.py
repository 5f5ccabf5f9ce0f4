import numpy as np
import torch

from benchmarks.music.baselines import NEVER, by_table, most_frequent
from benchmarks.music.chorale_features import Hidden, hidden_pitches
from benchmarks.music.excerpt_features import (
    CLASS_EDGES,
    LENGTHS,
    PERIODS,
    composer_features,
    dance_features,
    interval_shares,
    lagged,
    patterns,
    periodicity,
    pitch_shares,
    shares,
)
from benchmarks.music.results import Truth, better
from multimodal.tokenizers.midi.score import Score, sort_notes


def melody(lengths: list[int], pitches: list[int]) -> np.ndarray:
    start = np.concatenate([[0], np.cumsum(lengths)[:-1]])
    return np.stack([start, pitches, lengths], axis=1)[None]


def test_shares_and_patterns_are_counted() -> None:
    assert shares(np.array([[0, 2, 2, 2]]), 4).tolist() == [[0.25, 0, 0.75, 0]]
    found = patterns(np.array([[0, 1, 0, 1]]), 2, 2)
    assert np.allclose(found, [[0, 1 / 3, 2 / 3, 0]])  # (1, 0) is number 1, (0, 1) twice is number 2


def test_pitches_are_seen_from_the_most_frequent_class_and_intervals_by_size() -> None:
    assert pitch_shares(np.array([[62, 74, 62, 64]]))[0].tolist() == [0.75, 0, 0.25] + [0] * 9
    single, sizes, turns = interval_shares(np.array([[2, -2, 30]]))
    assert np.flatnonzero(single[0]).tolist() == [11, 15, 26]
    assert sizes[0, 1 + 6 * 1] == 0.5 and sizes[0, 1 + 6 * 5] == 0.5
    assert turns[0, 2 + 3 * 0 + 9 * 2] == 1


def test_periods_are_found_wherever_they_begin() -> None:
    start = np.arange(0, 30, 3.0)[None] + 0.7
    found = periodicity(start, np.ones_like(start))[0]
    assert np.isclose(found[list(PERIODS).index(3)], 1) and np.isclose(found[list(PERIODS).index(1.5)], 1)
    assert found[list(PERIODS).index(4)] < 0.2


def test_lags_compare_what_sounds_with_what_sounds_later() -> None:
    start, pitch = np.array([[0.0, 1, 2, 3]]), np.array([[60.0, 64, 60, 64]])
    begins, same, apart = (x[0] for x in lagged(start, pitch))
    assert begins[:4].tolist() == [0, 0.75, 0, 0.5]  # lags of half units
    assert same[3] == 1 and apart[3] == 0  # two units later
    assert same[1] == 0 and np.isclose(apart[1], 4)


def test_dances_do_not_depend_on_key_start_or_unit_where_they_should_not() -> None:
    lengths = [240, 120, 120, 240, 480, 120, 120, 240] * 4
    notes = melody(lengths, list(np.tile([60, 62, 64, 65, 67, 65, 64, 62], 4)))
    moved = notes.copy()
    moved[..., 0] += 5000
    assert np.allclose(dance_features(notes), dance_features(moved))
    slow = notes.copy()
    slow[..., [0, 2]] *= 2
    different = np.flatnonzero(~np.isclose(dance_features(notes), dance_features(slow)).ravel())
    lengths_and_unit = {*range(len(LENGTHS)), len(LENGTHS) + 12 + 12 + 16 + 64 + 27 + 36 + 27 + 12}
    assert set(different.tolist()) <= lengths_and_unit
    assert np.isfinite(dance_features(notes)).all() and len(CLASS_EDGES) == 3


def test_composers_are_told_by_how_many_voices_sound() -> None:
    chord = np.array([[[0, 60, 240], [0, 64, 240], [0, 67, 240], [240, 60, 240]]])
    line = melody([240] * 4, [60, 64, 67, 60])
    voices = slice(len(LENGTHS) * 2 + 1, len(LENGTHS) * 2 + 9)
    assert composer_features(chord)[0, voices].tolist() == [0, 0.25, 0, 0.75, 0, 0, 0, 0]
    assert composer_features(line)[0, voices].tolist() == [0, 1, 0, 0, 0, 0, 0, 0]


def chorale() -> Score:
    voices = [([72, 74, 76, 77], 480), ([67, 67, 67, 69], 480), ([64, 65], 960), ([48, 50], 960)]
    rows = [
        (place * length, pitch, length, 80, 40 + track, track)
        for track, (line, length) in enumerate(voices)
        for place, pitch in enumerate(line)
    ]
    return Score(sort_notes(torch.tensor(rows)), metres=torch.tensor([(0, 4, 4)]))


def test_surroundings_of_a_note_are_relative_to_the_pitch_before_it() -> None:
    found = hidden_pitches(chorale())
    assert found.pitch.tolist() == [72, 74, 76, 77, 67, 67, 67, 69, 64, 65, 48, 50]  # by voice
    assert found.reference.tolist() == [74, 72, 74, 76, 67, 67, 67, 67, 65, 64, 50, 48]
    assert found.interval.tolist() == [-2, 2, 2, 1, 0, 0, 0, 2, -1, 1, -2, 2]
    second = found.features[1]
    track, in_bar, in_beat, bar, duration, reference = second[:6]
    assert [track, in_bar, in_beat, bar, duration, reference] == [0, 480, 0, 1920, 480, 72]
    assert second[6] == 0 and np.isnan(second[7])  # 72, and nothing before it
    assert second[10:12].tolist() == [4, 5] and np.isnan(second[12])
    alto = second[18 + 6 : 18 + 12]
    assert alto.tolist() == [67 - 72, 67 - 72, 67 - 72, 67 - 72, 0, 480]
    assert np.isnan(second[18 : 18 + 6]).all()
    tenor = second[18 + 12 : 18 + 18]
    assert np.isnan(tenor[1]) and tenor[[0, 2, 3, 4, 5]].tolist() == [64 - 72, 65 - 72, 64 - 72, 480, 480]


def test_the_pitch_itself_is_nowhere_in_its_features() -> None:
    score = chorale()
    for number in range(len(score)):
        changed = score.notes.clone()
        changed[number, 1] = 90
        order = np.lexsort((score.notes[:, 0], score.notes[:, 5]))
        place = int(np.flatnonzero(order == number)[0])
        before, after = (hidden_pitches(Score(notes, metres=score.metres)) for notes in (score.notes, changed))
        assert np.array_equal(before.features[place], after.features[place], equal_nan=True)
        assert before.context[place].tolist() == after.context[place].tolist()


def test_chords_are_seen_from_the_reference() -> None:
    found = hidden_pitches(chorale())
    second = found.features[1]  # 74 over 67, 64 and 48 from 480 to 960; its reference is 72
    classes = second[18 + 24 : -2].reshape(7, 12)
    sounding, begins, at_end, earlier = classes[:4]
    assert np.flatnonzero(sounding).tolist() == [0, 4, 7] and sounding[[0, 4, 7]].tolist() == [1, 1, 1]
    assert np.flatnonzero(begins).tolist() == [7]
    assert {int(x) for x in np.flatnonzero(at_end)} == {2, 4, 5, 7}  # 50, 76, 65 and 67
    assert earlier[0] == 2 and np.flatnonzero(earlier).tolist() == [0, 4, 7]  # 72 and 48, 64, 67
    assert np.allclose(classes[4:].sum(1), 1)
    assert second[-2:].tolist() == [0, 0]  # C major, from its tonic


def test_tables_tell_the_most_frequent_value_and_fall_back() -> None:
    contexts = np.array([[0, 1], [0, 1], [0, 1], [1, 1]])
    assert most_frequent(contexts, np.array([5, 7, 7, 2]), np.array([[0, 1], [1, 1], [9, 9]])).tolist() == [7, 2, NEVER]
    empty = np.zeros((3, 0))
    train = Hidden(empty, np.array([60, 60, 60]), np.array([62, 62, 55]), np.array([[0, 60, 1], [0, 60, 1], [0, 61, 1]]))
    test = Hidden(empty[:2], np.array([60, 70]), np.array([62, 72]), np.array([[0, 60, 1], [0, 99, 9]]))
    assert by_table(train, test).tolist() == [62, 72]


def test_gains_are_counted_over_pieces_with_all_of_their_seeds() -> None:
    truth = Truth(np.array([1, 1, 1, 1]), np.array(["a", "a", "b", "b"]), with_f1=False)
    right, wrong = np.ones(4, int), np.array([0, 0, 1, 1])
    assert better(truth, [right, right], [wrong]).startswith("+0.500 ± 0.3")
    assert better(truth, [right], [right]) == "+0.000 ± 0.000"
