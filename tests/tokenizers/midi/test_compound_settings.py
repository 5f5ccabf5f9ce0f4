"""Compound words beyond the published ones: metres, bars without notes, and more fields."""

import pytest
import torch

from multimodal.tokenizers.midi import CompoundTokenizer, Score
from multimodal.tokenizers.midi.tokenizer import DRUM_CLASS

ROWS = [
    [0, 60, 480, 1, 0, 0],
    [480, 35, 240, 127, 128, 1],
    [1440, 64, 480, 64, 24, 2],
    [8640, 67, 960, 80, 0, 0],
]
SCORE = Score(torch.tensor(ROWS), torch.tensor([[0, 500_000], [1440, 1_000_000]]), torch.tensor([[0, 3, 4]]))
EVERYTHING = {"metre": "told", "max_empty_bars": 4, "velocity_bins": 32, "programs": True, "num_tracks": 2, "tempo_bins": 49}


def test_every_field_is_told_in_the_order_of_the_names() -> None:
    tokenizer = CompoundTokenizer(**EVERYTHING)
    assert tokenizer.field_names == (
        *("bar", "position", "pitch", "duration"),
        *("velocity", "program", "track", "tempo", "time_signature"),
    )
    assert tokenizer.vocab_sizes == (4 + 4, 18, 88, 66, 34, 131, 4, 51, 256)
    assert tokenizer.pad_ids == (6, 16, 86, 64, 32, 129, 2, 49, 254)
    assert tokenizer.mask_ids == (7, 17, 87, 65, 33, 130, 3, 50, 255)
    three_quarters = 2 * 4 + 3 - 3
    assert tokenizer.encode_score(SCORE).tolist() == [
        [0, 0, 38, 7, 0, 0, 0, 35, three_quarters],
        [1, 4, 13, 3, 31, 128, 1, 35, three_quarters],
        [0, 0, 42, 7, 16, 24, 1, 23, three_quarters],
        [5, 0, 45, 15, 20, 0, 0, 23, three_quarters],  # bars of 1440 ticks: 0, 1, and 6, before which four are empty
    ]


def test_tempos_are_a_ladder_of_equal_ratios() -> None:
    microseconds = [round(60e6 / (16 * 2 ** (i / 12))) for i in range(49)]
    tempos = torch.tensor([[480 * i, x] for i, x in enumerate(microseconds)])
    notes = torch.tensor([[480 * i, 60, 1, 80, 0, 0] for i in range(49)])
    tokenizer = CompoundTokenizer(tempo_bins=49)
    ids = tokenizer.encode_score(Score(notes, tempos))
    assert ids[:, -1].tolist() == list(range(49))
    assert torch.equal(tokenizer.decode_score(ids).tempos, tempos)
    assert tokenizer.encode_score(Score(notes[:2], torch.tensor([[0, 10**7], [480, 10]])))[:, -1].tolist() == [0, 48]
    assert tokenizer.encode_score(Score(notes[:1]))[:, -1].tolist() == [35]  # 120 a minute: 34.88


@pytest.mark.parametrize(("kept", "bar"), [(0, [0, 1, 0, 0]), (1, [0, 1, 0, 2]), (3, [0, 1, 0, 4]), (9, [0, 1, 0, 5])])
def test_bars_without_notes_are_told_up_to_the_most(kept: int, bar: list[int]) -> None:
    tokenizer = CompoundTokenizer(metre="read", max_empty_bars=kept)
    ids = tokenizer.encode_score(SCORE)
    assert ids[:, 0].tolist() == bar and tokenizer.vocab_sizes[0] == 4 + kept
    assert tokenizer.decode_score(ids).notes[-1, 0] == 1920 * max(2, min(6, 2 + kept))  # bars come back as the longest


def test_silence_before_the_first_note_is_not_told() -> None:
    late = Score(SCORE.notes + torch.tensor([14_400, 0, 0, 0, 0, 0]), metres=SCORE.metres)
    tokenizer = CompoundTokenizer(metre="told", max_empty_bars=4)
    assert torch.equal(tokenizer.encode_score(late), tokenizer.encode_score(SCORE))


def test_an_assumed_bar_may_have_another_length() -> None:
    tokenizer = CompoundTokenizer(positions_per_beat=12, max_positions=36)
    ids = tokenizer.encode_score(SCORE)
    assert ids[:, :2].tolist() == [[0, 0], [1, 12], [0, 0], [0, 0]]
    assert tokenizer.decode_score(ids).metres.tolist() == [[0, 3, 4]]


def test_longer_bars_are_divided() -> None:
    notes = torch.tensor([[0, 60, 480, 80, 0, 0], [1920, 60, 480, 80, 0, 0], [2880, 60, 480, 80, 0, 0]])
    score = Score(notes, metres=torch.tensor([[0, 12, 8], [2880, 12, 4]]))
    assert CompoundTokenizer(metre="read", max_positions=24).encode_score(score)[:, :2].tolist() == [[0, 0], [1, 16], [0, 0]]
    assert CompoundTokenizer(metre="read").encode_score(score)[:, :2].tolist() == [[0, 0], [0, 4], [0, 0]]  # 12/8 -> 6/8, 12/4 -> 3/4


def test_a_score_that_fits_comes_back_whole() -> None:
    tokenizer = CompoundTokenizer(metre="told", max_empty_bars=4, velocity_bins=128, programs=True, num_tracks=3, tempo_bins=49)
    rows = [[*row[:3], max(1, row[3]), *row[4:]] for row in ROWS]
    score = Score(torch.tensor(rows), torch.tensor([[0, 3_750_000], [1440, 234_375]]), SCORE.metres)
    back = tokenizer.decode_score(tokenizer.encode_score(score))
    assert back.notes.tolist() == rows
    assert torch.equal(back.tempos, score.tempos) and torch.equal(back.metres, score.metres)


def test_programs_that_come_back_without_tracks_have_one_each() -> None:
    tokenizer = CompoundTokenizer(programs=True)
    back = tokenizer.decode_score(tokenizer.encode_score(SCORE))
    assert back.notes[:, 4:].tolist() == [[0, 0], [128, 2], [24, 1], [0, 0]]


def test_notes_that_start_together_keep_their_order() -> None:
    notes = torch.tensor([[0, 70, 480, 80, 0, 0], [0, 50, 480, 80, 0, 1], [30, 60, 480, 80, 0, 0]])
    tokenizer = CompoundTokenizer(num_tracks=2)
    ids = tokenizer.encode_score(Score(notes))
    assert ids[:, 2].tolist() == [48, 28, 38]
    assert torch.equal(tokenizer.encode_score(tokenizer.decode_score(ids)), ids)


def test_groups_are_bars_pitch_classes_and_tracks_of_each_item() -> None:
    tokenizer = CompoundTokenizer(**EVERYTHING)
    one = tokenizer.encode_score(SCORE)
    groups = tokenizer.groups(torch.cat([one, one[1:], one[:1]]), torch.tensor([4, 3, 0, 1, 0]))
    assert {name: x.tolist() for name, x in groups.items()} == {
        "bar": [0, 0, 1, 2, 0, 1, 2, 0],
        "pitch_class": [0, DRUM_CLASS, 4, 7, DRUM_CLASS, 4, 7, 0],
        "track": [0, 1, 1, 0, 1, 1, 0, 0],
    }
    assert all(x.dtype == torch.int64 for x in groups.values())


def test_the_track_is_the_program_where_only_that_is_told_and_nothing_where_neither_is() -> None:
    def found(tokenizer: CompoundTokenizer) -> dict[str, torch.Tensor]:
        return dict(tokenizer.groups(tokenizer.encode_score(SCORE), torch.tensor([4])))

    assert found(CompoundTokenizer(programs=True))["track"].tolist() == [0, 128, 24, 0]
    published = found(CompoundTokenizer())
    assert published.keys() == {"bar", "pitch_class"} and published["pitch_class"].tolist() == [0, 11, 4, 7]
    nothing = CompoundTokenizer().groups(torch.zeros(0, 4, dtype=torch.int64), torch.zeros(2, dtype=torch.int64))
    assert all(len(x) == 0 for x in nothing.values())


def test_guesses_lie_in_the_true_bars() -> None:
    tokenizer = CompoundTokenizer(**EVERYTHING)
    ids = tokenizer.encode_score(SCORE)
    predicted = ids.clone()
    predicted[2, [0, 1, 2, 8]] = torch.tensor([5, 3, 0, 100])  # another bar, position, pitch and metre
    predicted[3, 4] = tokenizer.mask_ids[4]
    notes, guesses, valid = tokenizer.guesses(ids, predicted)
    assert torch.equal(notes, tokenizer.snapped(SCORE).notes)
    assert guesses[2, :2].tolist() == [1440 + 360, 22] and torch.equal(guesses[:2], notes[:2])
    assert valid.tolist() == [True, True, True, False]


@pytest.mark.parametrize(
    ("own", "message"),
    [
        ({"positions_per_beat": 7}, "positions_per_beat must divide 480, got 7"),
        ({"durations_per_beat": 0}, "durations_per_beat must divide 480, got 0"),
        ({"max_positions": 0}, "max_positions must be from 1"),
        ({"positions_per_beat": 12}, "no metre with bars of 0.3333 whole notes"),
        ({"velocity_bins": 129}, "velocity_bins must be from 0 to 128, got 129"),
        ({"tempo_bins": 1}, "tempo_bins must be 0 or at least 2, got 1"),
        ({"num_tracks": -1}, "num_tracks"),
        ({"max_empty_bars": -1}, "max_empty_bars"),
        ({"num_durations": 0}, "num_durations"),
        ({"metre": "4/4"}, "metre must be 'assumed', 'read' or 'told', got '4/4'"),
    ],
)
def test_impossible_settings_are_refused(own: dict, message: str, unchecked) -> None:
    with pytest.raises(ValueError, match=message):
        CompoundTokenizer(**own)


def test_a_metre_without_an_id_is_refused_where_it_is_to_be_told() -> None:
    score = Score(SCORE.notes, metres=torch.tensor([[0, 5, 128]]))
    assert len(CompoundTokenizer(metre="read").encode_score(score)) == 4
    with pytest.raises(ValueError, match="the metre 5/128 has no id"):
        CompoundTokenizer(metre="told").encode_score(score)


def test_settings_are_saved(tmp_path) -> None:
    tokenizer = CompoundTokenizer(**EVERYTHING)
    tokenizer.save_pretrained(tmp_path)
    assert torch.equal(CompoundTokenizer.from_pretrained(tmp_path).encode_score(SCORE), tokenizer.encode_score(SCORE))
