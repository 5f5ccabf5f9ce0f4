import pytest
import torch

from multimodal.tokenizers.midi import (
    CompoundTokenizer,
    MidiTransform,
    OctupleTokenizer,
    RemiTokenizer,
    Score,
    score_of,
    write_notes,
    write_score,
)


def scale(count: int, step: int = 480) -> torch.Tensor:
    """Notes one after the other, each pitch telling its place."""
    place = torch.arange(count)
    return torch.stack([place * step, 40 + place % 50, torch.full_like(place, 240), torch.full_like(place, 80)], dim=1)


def piece(count: int) -> Score:
    return score_of(scale(count))


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_file_to_ids() -> None:
    transform = MidiTransform()
    item = transform(transform.decode(write_notes(scale(20))), generator(), train=False)
    assert item.ragged and item.tokenizer_values is None
    assert torch.equal(item.values, transform.tokenizer.encode_score(piece(20)))


def test_evaluation_takes_the_first_window_and_draws_nothing() -> None:
    transform, draws = MidiTransform(max_notes=16), generator()
    state = draws.get_state()
    values = transform(piece(50), draws, train=False).values
    assert values[:, 2].tolist() == list(range(18, 34))
    assert torch.equal(draws.get_state(), state)


def test_training_windows_are_consecutive_open_with_a_bar_and_reach_every_place() -> None:
    transform, draws, firsts = MidiTransform(max_notes=45), generator(), set()
    for _ in range(100):
        values = transform(piece(50), draws, train=True).values
        assert values[0, 0] == 0
        assert (values[:, 2].diff() == 1).all() and len(values) == 45
        firsts.add(int(values[0, 2]) - 18)
    assert firsts == set(range(6))


def test_same_generator_state_gives_the_same_item() -> None:
    transform = MidiTransform(max_notes=10, transpose=5)
    first, again, other = (transform(piece(50), generator(seed), train=True).values for seed in (1, 1, 2))
    assert torch.equal(first, again) and not torch.equal(first, other)


def test_transposition_is_uniform_keeps_intervals_and_is_for_training_only() -> None:
    transform, notes, draws = MidiTransform(transpose=3), piece(12), generator()
    shifts = set()
    for _ in range(200):
        pitch = transform(notes, draws, train=True).values[:, 2]
        assert (pitch.diff() == 1).all()
        shifts.add(int(pitch[0]) - 18)
    assert shifts == set(range(-3, 4))
    assert transform(notes, draws, train=False).values[0, 2] == 18
    assert notes.notes[0, 1] == 40  # the decoded piece is not changed


def test_transposition_never_leaves_the_range() -> None:
    transform, draws = MidiTransform(CompoundTokenizer((39, 53)), transpose=6), generator()
    firsts = {int(transform(piece(12), draws, train=True).values[0, 2]) for _ in range(100)}
    assert firsts == {0, 1, 2, 3}


def test_short_pieces_are_refused_after_dropping() -> None:
    with pytest.raises(ValueError, match="7 notes in the tokenizer's range; at least 8"):
        MidiTransform().decode(write_notes(scale(7)))
    with pytest.raises(ValueError, match="5 notes in the tokenizer's range"):
        MidiTransform(CompoundTokenizer((40, 44), "drop")).decode(write_notes(scale(20)))
    assert len(MidiTransform().decode(write_notes(scale(8)))) == 8


def test_long_files_are_refused() -> None:
    with pytest.raises(ValueError, match="20 notes are over the limit of 19"):
        MidiTransform(max_file_notes=19).decode(write_notes(scale(20)))


ORCHESTRA = {"metre": "told", "velocity_bins": 32, "programs": True, "num_tracks": 8, "tempo_bins": 400}


def band(count: int = 40) -> Score:
    """Three tracks that play in turn: a piano, drums and a bass, whose velocities tell the track."""
    place = torch.arange(count)
    track = place % 3
    columns = [place * 240, 40 + place % 40, torch.full_like(place, 240), 20 + track * 40, torch.tensor([0, 128, 33])[track], track]
    return Score(torch.stack(columns, dim=1), tempos=torch.tensor([[0, 400_000], [4800, 800_000]]), numbers=place)


def test_drums_never_move() -> None:
    transform, draws, score = MidiTransform(CompoundTokenizer(**ORCHESTRA), transpose=4), generator(), band()
    drums, shifts = score.notes[:, 4] == 128, set()
    for _ in range(60):
        moved = transform.drawn(score, draws).notes[:, 1] - score.notes[:, 1]
        assert (moved[drums] == 0).all() and len(moved[~drums].unique()) == 1
        shifts.add(int(moved[~drums][0]))
    assert shifts == set(range(-4, 5))
    only_drums = score[drums]
    assert torch.equal(transform.drawn(only_drums, draws).notes, only_drums.notes)


def test_drums_stay_out_unless_the_ids_tell_them() -> None:
    data = write_score(band())
    for tokenizer, count in ((CompoundTokenizer(), 27), (CompoundTokenizer(programs=True), 40), (OctupleTokenizer(), 40)):
        assert len(MidiTransform(tokenizer).decode(data)) == count
    assert len(MidiTransform(CompoundTokenizer(), drop_drums=False).decode(data)) == 40
    assert len(MidiTransform(OctupleTokenizer(), drop_drums=True).decode(data)) == 27


def test_tempos_are_scaled_together_over_the_whole_range_at_equal_ratios() -> None:
    transform, draws, score = MidiTransform(OctupleTokenizer(), tempo=(0.5, 2.0)), generator(), band()
    factors = []
    for _ in range(300):
        tempos = transform.drawn(score, draws).tempos
        assert tempos[:, 0].tolist() == [0, 4800]
        factors.append(400_000 / int(tempos[0, 1]))
        assert int(tempos[1, 1]) / int(tempos[0, 1]) == pytest.approx(2, rel=1e-4)
    octaves = torch.tensor(factors).log2()
    assert octaves.min() > -1.001 and octaves.max() < 1.001
    assert octaves.histc(4, -1, 1).min() > 45  # 75 each
    assert score.tempos.tolist() == [[0, 400_000], [4800, 800_000]]


def test_where_no_tempo_is_said_the_default_is_scaled() -> None:
    transform = MidiTransform(OctupleTokenizer(), tempo=(2.0, 2.0))
    for tempos, expected in (([], [[0, 250_000]]), ([[480, 600_000]], [[0, 250_000], [480, 300_000]])):
        score = Score(band().notes, torch.tensor(tempos, dtype=torch.int64).view(-1, 2))
        assert transform.drawn(score, generator()).tempos.tolist() == expected


def test_tracks_are_left_out_each_by_itself_and_never_so_that_too_few_notes_stay() -> None:
    transform, draws, score = MidiTransform(CompoundTokenizer(**ORCHESTRA), track_dropout=0.5), generator(), band()
    sets = [frozenset(transform.drawn(score, draws).notes[:, 5].tolist()) for _ in range(400)]
    counts = {chosen: sets.count(chosen) / 400 for chosen in set(sets)}
    assert len(counts) == 7 and counts[frozenset({0, 1, 2})] == pytest.approx(2 / 8, abs=0.07)
    assert all(share == pytest.approx(1 / 8, abs=0.06) for chosen, share in counts.items() if len(chosen) < 3)
    strict = MidiTransform(CompoundTokenizer(**ORCHESTRA), track_dropout=0.5, min_notes=14)
    kept = [strict.drawn(score, draws) for _ in range(60)]
    assert {len(own) for own in kept} == {14, 26, 27, 40}  # the first track has 14 notes, the others 13 each
    assert all(torch.equal(score.notes[own.numbers], own.notes) for own in kept)


def test_augmentation_is_for_training_only() -> None:
    plain = MidiTransform(OctupleTokenizer())
    transform = MidiTransform(OctupleTokenizer(), transpose=5, tempo=(0.5, 2.0), track_dropout=0.9)
    draws = generator()
    state = draws.get_state()
    assert torch.equal(transform(band(), draws, train=False).values, plain(band(), draws, train=False).values)
    assert torch.equal(draws.get_state(), state)


@pytest.mark.parametrize("tokenizer", [CompoundTokenizer(), RemiTokenizer(max_empty_bars=3), OctupleTokenizer()])
def test_windows_of_evaluation_lie_at_equal_distances_over_the_piece(tokenizer) -> None:
    transform, score = MidiTransform(tokenizer, max_notes=10, num_windows=4), piece(34)
    assert transform.num_views == 4
    item = transform(score, generator(), train=False)
    windows = [tokenizer.encode_score(score[first : first + 10]) for first in (0, 8, 16, 24)]
    assert item.ragged and torch.equal(item.values, torch.cat(windows))
    assert item.labels[:, 0].tolist() == [number for number, own in enumerate(windows) for _ in own]
    assert transform(score, generator(), train=True).labels is None


@pytest.mark.parametrize(("count", "windows"), [(8, 1), (10, 1), (11, 2), (12, 3), (13, 4)])
def test_a_piece_has_no_window_twice(count: int, windows: int) -> None:
    item = MidiTransform(max_notes=10, num_windows=4)(piece(count), generator(), train=False)
    assert int(item.labels.max()) + 1 == windows


def test_a_window_ends_with_the_last_note_whose_tokens_all_fit() -> None:
    tokenizer = RemiTokenizer()
    whole = tokenizer.encode_score(piece(20))  # four notes a bar: 13 tokens
    for limit, length in ((26, 26), (25, 23), (27, 26), (28, 26), (30, 30), (31, 30)):
        transform = MidiTransform(tokenizer, max_notes=None, max_tokens=limit)
        assert torch.equal(transform(piece(20), generator(), train=False).values, whole[:length])
        assert len(transform.fitted(piece(20))) == [x for x in range(21) if len(tokenizer.encode_score(piece(x))) <= limit][-1]
    for seed in range(20):
        values = transform(piece(20), generator(seed), train=True).values
        assert len(values) <= 31 and tokenizer.note_of(values).max() >= 8


def test_a_window_of_octuples_has_as_many_notes_as_tokens() -> None:
    transform = MidiTransform(OctupleTokenizer(), max_notes=None, max_tokens=12)
    assert transform.max_notes == 12 and len(transform(band(), generator(), train=False).values) == 12


def test_too_few_tokens_for_a_note_are_refused() -> None:
    transform = MidiTransform(RemiTokenizer(), max_tokens=3, min_notes=1)
    with pytest.raises(ValueError, match="max_tokens 3 is below the tokens of one note and its bar"):
        transform(piece(8), generator(), train=False)


def test_every_tokenizer_has_an_example() -> None:
    for tokenizer in (CompoundTokenizer(**ORCHESTRA), RemiTokenizer(**ORCHESTRA), OctupleTokenizer()):
        values = MidiTransform(tokenizer).example().values
        assert len(tokenizer.decode_score(values)) == 8 and values.ndim == (1 if len(tokenizer.vocab_sizes) == 1 else 2)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"min_notes": 0}, "min_notes must be from 1 to the 256 notes of a window, got 0"),
        ({"max_notes": 7}, "min_notes must be from 1 to the 7 notes"),
        ({"tokenizer": RemiTokenizer(), "max_tokens": 20}, "to the 6 notes of a window"),
        ({"max_notes": None}, "max_notes or max_tokens; both are None"),
        ({"transpose": -1}, "transpose must be at least 0"),
        ({"tempo": (0.9, 1.1)}, r"tempo \(0.9, 1.1\) has no effect on a CompoundTokenizer"),
        ({"tokenizer": OctupleTokenizer(), "tempo": (1.1, 0.9)}, "tempo must be an ascending range"),
        ({"tokenizer": OctupleTokenizer(), "tempo": (0.0, 0.9)}, "tempo must be an ascending range"),
        ({"track_dropout": 1.0}, r"track_dropout must be in \[0, 1\)"),
        ({"num_windows": 0}, "num_windows at least 1"),
    ],
)
def test_impossible_settings_are_refused(arguments: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        MidiTransform(**arguments)
