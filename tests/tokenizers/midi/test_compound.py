import json

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from multimodal.tokenizers.midi import Column, CompoundTokenizer, Score, score_of, sort_notes

ON_GRID = st.lists(
    st.tuples(
        st.integers(0, 16 * 8 - 1).map(lambda x: 120 * x), st.integers(22, 107), st.integers(1, 64).map(lambda x: 60 * x), st.just(80)
    ),
    min_size=1,
    max_size=40,
)
ANY = st.lists(st.tuples(st.integers(0, 20_000), st.integers(22, 107), st.integers(1, 5_000), st.just(80)), min_size=1, max_size=40)


def encode(notes: torch.Tensor, tokenizer: CompoundTokenizer | None = None) -> torch.Tensor:
    return (tokenizer or CompoundTokenizer()).encode_score(score_of(notes))


def decode(ids: torch.Tensor) -> torch.Tensor:
    return CompoundTokenizer().decode_score(ids).notes[:, : Column.VELOCITY + 1]


def published(notes: list[list[int]]) -> list[list[int]]:
    """The published algorithm, note by note, with a grid of starts that does not end too early."""
    starts = range(0, max(note[0] for note in notes) + 240, 120)
    bins = range(60, 3841, 60)
    snapped = [min(starts, key=lambda x, note=note: abs(x - note[0])) for note in notes]
    ids, bar_start = [], 0
    while bar_start <= max(snapped):
        first = True
        for start, note in zip(snapped, notes, strict=True):
            if bar_start <= start < bar_start + 1920:
                position = min(range(16), key=lambda x: abs(bar_start + 120 * x - start))
                duration = min(range(64), key=lambda x, note=note: abs(bins[x] - note[2]))
                ids.append([0 if first else 1, position, note[1] - 22, duration])
                first = False
        bar_start += 1920
    return ids


def bars_closed_up(notes: torch.Tensor) -> torch.Tensor:
    """The notes with empty bars taken out."""
    bar = notes[:, 0] // 1920
    closed = torch.unique(bar, return_inverse=True)[1]
    notes = notes.clone()
    notes[:, 0] += 1920 * (closed - bar)
    return notes


def test_ids_of_a_bar() -> None:
    notes = torch.tensor(
        [[0, 60, 480, 80], [0, 64, 960, 80], [480, 22, 60, 80], [1800, 107, 3840, 80], [1920, 61, 120, 80], [9600, 62, 240, 80]]
    )
    expected = [[0, 0, 38, 7], [1, 0, 42, 15], [1, 4, 0, 0], [1, 15, 85, 63], [0, 0, 39, 1], [0, 0, 40, 3]]
    assert encode(notes).tolist() == expected


def test_published_sizes_and_special_ids() -> None:
    tokenizer = CompoundTokenizer()
    assert tokenizer.vocab_sizes == (4, 18, 88, 66)
    assert tokenizer.pad_ids == (2, 16, 86, 64)
    assert tokenizer.mask_ids == (3, 17, 87, 65)
    assert tokenizer.field_names == ("bar", "position", "pitch", "duration")
    assert CompoundTokenizer((21, 108)).vocab_sizes == (4, 18, 90, 66)


def test_halves_go_down_and_a_late_start_opens_the_next_bar() -> None:
    notes = torch.tensor([[60, 60, 90, 80], [61, 60, 91, 80], [1860, 60, 1, 80], [1861, 60, 9999, 80]])
    assert encode(notes)[:, [0, 1, 3]].tolist() == [[0, 0, 0], [1, 1, 1], [1, 15, 0], [0, 0, 63]]


@settings(max_examples=150, deadline=None)
@given(ANY)
def test_agrees_with_the_published_algorithm(notes: list[tuple[int, ...]]) -> None:
    table = sort_notes(torch.tensor(notes))
    assert encode(table).tolist() == published(table.tolist())


@settings(max_examples=150, deadline=None)
@given(ON_GRID)
def test_notes_on_the_grid_come_back(notes: list[tuple[int, ...]]) -> None:
    table = sort_notes(torch.tensor(notes))
    ids = encode(table)
    assert torch.equal(decode(ids), bars_closed_up(table))
    assert torch.equal(encode(decode(ids)), ids)


def test_pitches_out_of_range_are_clamped_or_dropped() -> None:
    notes = torch.tensor([[0, 21, 480, 80], [0, 60, 480, 80], [0, 108, 480, 80], [0, 127, 480, 80]])
    assert encode(notes)[:, 2].tolist() == [0, 38, 85, 85]
    assert encode(notes, CompoundTokenizer(out_of_range="drop")).tolist() == [[0, 0, 38, 7]]
    assert notes[0, 1] == 21  # the argument is not changed


def test_no_notes_give_no_ids() -> None:
    empty = torch.zeros(0, 4, dtype=torch.int64)
    assert encode(empty).shape == (0, 4)
    assert decode(empty).shape == (0, 4)


@pytest.mark.parametrize("starts", [[480, 0], [-1, 0]])
def test_unsorted_notes_are_refused(starts: list[int]) -> None:
    with pytest.raises(ValueError, match="sorted by start"):
        CompoundTokenizer().encode_score(Score(torch.tensor([[start, 60, 480, 80, 0, 0] for start in starts])))


@pytest.mark.parametrize("field", range(4))
@pytest.mark.parametrize("special", ["pad_ids", "mask_ids"])
def test_a_special_id_in_any_field_is_no_note(field: int, special: str) -> None:
    tokenizer = CompoundTokenizer()
    ids = torch.tensor([[0, 0, 38, 7], [1, 4, 38, 7], [0, 0, 40, 7]])
    ids[1, field] = getattr(tokenizer, special)[field]
    assert decode(ids).tolist() == [[0, 60, 480, 80], [1920, 62, 480, 80]]


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(*(st.integers(0, size - 1) for size in (4, 18, 88, 66))), max_size=20))
def test_any_predicted_ids_decode(ids: list[tuple[int, ...]]) -> None:
    notes = decode(torch.tensor(ids, dtype=torch.int64).view(-1, 4))
    assert (notes[:, 0] >= 0).all() and ((notes[:, 1] >= 22) & (notes[:, 1] <= 107)).all()


def test_encode_returns_ids_that_were_made_before() -> None:
    ids = torch.tensor([[0, 0, 38, 7]])
    assert CompoundTokenizer().encode(ids) is ids


def test_saved_tokenizer_comes_back(tmp_path) -> None:
    tokenizer = CompoundTokenizer((30, 90), "drop")
    tokenizer.save_pretrained(tmp_path / "new" / "folder")
    loaded = CompoundTokenizer.from_pretrained(str(tmp_path / "new" / "folder"))
    assert loaded.pitch_range == (30, 90) and loaded.out_of_range == "drop"
    assert loaded.fingerprint() == tokenizer.fingerprint()


def test_fingerprint_differs_exactly_with_the_settings() -> None:
    prints = {CompoundTokenizer(*x).fingerprint() for x in [(), ((22, 107), "clamp"), ((22, 107), "drop"), ((21, 107), "clamp")]}
    assert len(prints) == 3 and all(len(x) == 64 for x in prints)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"class": "Other"}, "holds a Other, not a multimodal.tokenizers.midi.compound.CompoundTokenizer"),
        ({"fingerprint": "0"}, "another version"),
        ({"config": {"pitch_range": [5, 3], "out_of_range": "drop"}}, "ascending"),
    ],
)
def test_damaged_configs_are_refused(tmp_path, change: dict, message: str) -> None:
    CompoundTokenizer().save_pretrained(tmp_path)
    saved = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(saved | change))
    with pytest.raises(ValueError, match=message):
        CompoundTokenizer.from_pretrained(str(tmp_path))


def test_missing_and_unreadable_configs_are_refused(tmp_path) -> None:
    with pytest.raises(ValueError, match="not found"):
        CompoundTokenizer.from_pretrained(str(tmp_path))
    for text in ("{", "[]", "{}", "3"):
        (tmp_path / "config.json").write_text(text)
        with pytest.raises(ValueError, match="not the config of a tokenizer"):
            CompoundTokenizer.from_pretrained(str(tmp_path))


@pytest.mark.parametrize("pitch_range", [(60, 50), (-1, 50), (0, 128)])
def test_impossible_ranges_are_refused(pitch_range: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match="pitch_range"):
        CompoundTokenizer(pitch_range)
