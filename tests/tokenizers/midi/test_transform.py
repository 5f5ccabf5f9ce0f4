import pytest
import torch

from multimodal.tokenizers.midi import CompoundTokenizer, MidiTransform, Score, score_of, write_notes


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


@pytest.mark.parametrize(
    ("arguments", "name"), [({"min_notes": 0}, "min_notes"), ({"max_notes": 7}, "max_notes"), ({"transpose": -1}, "transpose")]
)
def test_impossible_settings_are_refused(arguments: dict, name: str) -> None:
    with pytest.raises(ValueError, match=name):
        MidiTransform(**arguments)
