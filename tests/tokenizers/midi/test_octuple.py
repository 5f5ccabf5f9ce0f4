import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from multimodal.tokenizers.midi import CompoundEmbed, OctupleTokenizer, Score, read_score
from multimodal.tokenizers.midi.tokenizer import DRUM_CLASS
from tests.tokenizers.midi.real import NAMES, real_files
from tests.tokenizers.midi.scores import Rows, scores

TOKENIZER = OctupleTokenizer()
BAR, POSITION, INSTRUMENT, PITCH, DURATION, VELOCITY, TIME_SIGNATURE, TEMPO = range(8)
KNOWN_METRES = [(numerator, 2**power) for power in range(7) for numerator in range(1, 2 * 2**power + 1)]
LENGTHS = [16 * (2**size - 1) + 2**size * i for size in range(8) for i in range(16)]


def published(score: Score) -> list[tuple[int, ...]]:
    """MusicBERT's algorithm, position by position; notes say the metre in which their bar began."""
    metres = {round(tick / 30): metre for tick, *metre in score.metres.tolist()}
    tempos = {round(tick / 30): 60e6 / microseconds for tick, microseconds in score.tempos.tolist()}
    metre, own, tempo, bar, count, infos = (4, 4), (4, 4), 120.0, -1, 0, []
    for position in range(round(int(score.notes[:, 0].max()) / 30) + 1):
        metre, tempo = metres.get(position, metre), tempos.get(position, tempo)
        if not infos or count + 1 == 64 * own[0] // own[1]:
            own, bar, count = reduced(*metre), bar + 1, 0
        else:
            count += 1
        level = round(12 * math.log2(min(max(tempo, 16.0), 256.0) / 16))
        infos.append((bar, count, KNOWN_METRES.index(own), level))
    found = []
    for start, pitch, duration, velocity, program, _ in score.notes.tolist():
        at, number, metre_number, level = infos[round(start / 30)]
        length = round((start + duration) / 30) - round(start / 30)
        step = max(i for i, x in enumerate(LENGTHS) if x <= length)
        found.append((at, number, program, pitch + 128 * (program == 128), step, velocity // 4, metre_number, level))
    return sorted(found)


def reduced(numerator: int, denominator: int) -> tuple[int, int]:
    while numerator > 2 * denominator:
        numerator //= min(i for i in range(2, numerator + 1) if numerator % i == 0)
    return numerator, denominator


def test_sizes_and_specials_are_those_of_the_dictionary() -> None:
    assert TOKENIZER.vocab_sizes == (262, 134, 135, 262, 134, 38, 260, 55)
    assert TOKENIZER.pad_ids == (256, 128, 129, 256, 128, 32, 254, 49)
    assert TOKENIZER.mask_ids == (257, 129, 130, 257, 129, 33, 255, 50)
    assert TOKENIZER.field_names == ("bar", "position", "instrument", "pitch", "duration", "velocity", "time_signature", "tempo")
    for kinds, size, pad in zip(TOKENIZER.kinds(), TOKENIZER.vocab_sizes, TOKENIZER.pad_ids, strict=True):
        assert kinds.tolist() == [0] * pad + [-1] * 6 and len(kinds) == size


def test_ids_mean_what_the_dictionary_says() -> None:
    """Entries of Data/Octuple.pkl of PianoBart: Velocity 122 is 30, TimeSig 3/2 is 4, Tempo 21.35... is 5, Pitch percussion 126 is 254."""
    ids = torch.tensor([[0, 64, 128, 254, 17, 30, 4, 5], [1, 0, 127, 107, 127, 0, 4, 48]])
    score = TOKENIZER.decode_score(ids)
    assert score.metres.tolist() == [[0, 3, 2]]
    assert score.tempos.tolist() == [[0, round(60e6 / 21.35743766672055)], [2880, 234_375]]
    assert score.notes.tolist() == [[1920, 126, 18 * 30, 122, 128, 1], [2880, 107, 30 * (16 * 127 + 128 * 15), 2, 127, 0]]
    assert torch.equal(TOKENIZER.encode_score(score), ids)


@pytest.mark.parametrize("name", NAMES)
def test_ids_of_real_files_are_those_of_the_published_algorithm(name: str) -> None:
    score = read_score(real_files()[name], drop_drums=False)[:4000]  # within 256 bars
    ids = TOKENIZER.encode_score(score)
    assert [tuple(row) for row in ids.tolist()] == published(score)


@settings(max_examples=50, deadline=None)
@given(scores(15))
def test_ids_of_random_scores_are_those_of_the_published_algorithm(rows: Rows) -> None:
    expected = published(rows.score)
    down = min(max(0, expected[-1][BAR] - 255), expected[0][BAR])  # bars of a 64th are soon more than 256
    within = [(row[BAR] - down, *row[1:]) for row in expected if row[BAR] - down < 256]
    assert [tuple(row) for row in TOKENIZER.encode_score(rows.score).tolist()] == within


@settings(max_examples=50, deadline=None)
@given(scores())
def test_ids_tell_the_score_on_the_grid(rows: Rows) -> None:
    ids, snapped = TOKENIZER.encode_score(rows.score), TOKENIZER.snapped(rows.score)
    back = TOKENIZER.decode_score(ids)
    for name in ("notes", "tempos", "metres"):
        assert torch.equal(getattr(back, name), getattr(snapped, name)), name
    assert torch.equal(TOKENIZER.encode_score(back), ids)


@settings(max_examples=40, deadline=None)
@given(scores())
def test_starts_move_by_half_a_position_at_most(rows: Rows) -> None:
    """Where no change of metre lies within a bar, as after the first, and no bar has to be divided."""
    rows = rows._replace(metres=[(0, 3, 4)])
    moved = TOKENIZER.snapped(rows.score).notes[:, 0] - TOKENIZER.restrict(rows.score).notes[:, 0]
    assert moved.abs().max() <= 15


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(*(st.integers(0, size - 1) for size in TOKENIZER.vocab_sizes)), max_size=15))
def test_any_predicted_ids_decode(rows: list[tuple[int, ...]]) -> None:
    ids = torch.tensor(rows, dtype=torch.int64).view(-1, 8)
    score = TOKENIZER.decode_score(ids)
    assert len(score) == sum(all(id < pad for id, pad in zip(row, TOKENIZER.pad_ids, strict=True)) for row in rows)
    assert (score.notes[:, 0].diff() >= 0).all() and (score.metres[:, 0].diff() > 0).all() and (score.tempos[:, 0].diff() > 0).all()
    assert TOKENIZER.file_of(ids)[1].startswith(b"MThd")


def test_a_change_of_metre_within_a_bar_counts_from_the_next() -> None:
    notes = torch.tensor([[start, 60, 30, 80, 0, 0] for start in (0, 1440, 1920, 3360)])
    ids = TOKENIZER.encode_score(Score(notes, metres=torch.tensor([[960, 3, 4]])))
    four_quarters, three_quarters = KNOWN_METRES.index((4, 4)), KNOWN_METRES.index((3, 4))
    assert ids[:, [BAR, POSITION, TIME_SIGNATURE]].tolist() == [
        [0, 0, four_quarters],
        [0, 48, four_quarters],
        [1, 0, three_quarters],
        [2, 0, three_quarters],
    ]


@pytest.mark.parametrize(
    ("bars", "expected"),
    [
        ([0, 3, 255], [0, 3, 255]),
        ([7, 9], [7, 9]),  # counted from the start of the piece
        ([9, 260], [4, 255]),  # moved down by as little as needed
        ([300, 310, 400], [155, 165, 255]),
        ([300, 310, 600], [0, 10]),  # too far from the first: left out
    ],
)
def test_bars_are_those_of_the_piece_while_they_can_be(bars: list[int], expected: list[int]) -> None:
    score = Score(torch.tensor([[1920 * bar, 60, 480, 80, 0, 0] for bar in bars]))
    ids = TOKENIZER.encode_score(score)
    assert ids[:, BAR].tolist() == expected and len(TOKENIZER.note_of(ids)) == len(expected)
    assert torch.equal(TOKENIZER.encode_score(TOKENIZER.decode_score(ids)), ids)


def test_tokens_are_sorted_by_position_instrument_pitch_duration_velocity_and_restrict_tells_the_order() -> None:
    rows = [(10, 60, 480, 80, 5, 0), (0, 60, 480, 80, 5, 1), (14, 72, 480, 80, 0, 2), (3, 60, 480, 70, 5, 3), (0, 60, 240, 127, 5, 4)]
    score = Score(torch.tensor(sorted(rows)), numbers=torch.arange(5))
    ids, own = TOKENIZER.encode_score(score), TOKENIZER.restrict(score)
    assert [tuple(row) for row in ids.tolist()] == sorted(map(tuple, ids.tolist()))
    assert own.notes[:, 5].tolist() == [2, 4, 3, 1, 0] or own.notes[:, 5].tolist() == [2, 4, 3, 0, 1]
    assert torch.equal(score.notes[own.numbers], own.notes)
    assert torch.equal(TOKENIZER.encode_score(own), ids)


def test_no_notes_give_no_ids() -> None:
    empty = Score(torch.zeros(0, 6, dtype=torch.int64))
    assert TOKENIZER.encode_score(empty).shape == (0, 8) and len(TOKENIZER.decode_score(torch.zeros(0, 8, dtype=torch.int64))) == 0


def test_groups_are_bars_pitch_classes_and_instruments() -> None:
    rows = [[0, 60, 1, 80, 0, 0], [0, 35, 1, 80, 128, 1], [9600, 61, 1, 80, 24, 2], [9600, 62, 1, 80, 24, 2]]
    ids = TOKENIZER.encode_score(Score(torch.tensor(rows)))
    groups = TOKENIZER.groups(torch.cat([ids, ids[2:]]), torch.tensor([4, 0, 2]))
    assert {name: x.tolist() for name, x in groups.items()} == {
        "bar": [0, 0, 1, 1, 0, 0],
        "pitch_class": [0, DRUM_CLASS, 1, 2, 1, 2],
        "track": [0, 128, 24, 24, 24, 24],
    }


def test_metres_up_to_64ths_have_ids_and_finer_ones_are_refused() -> None:
    note = torch.tensor([[0, 60, 480, 80, 0, 0]])
    for number, (numerator, denominator) in [*enumerate(KNOWN_METRES)][::5]:
        assert TOKENIZER.encode_score(Score(note, metres=torch.tensor([[0, numerator, denominator]])))[0, TIME_SIGNATURE] == number
    with pytest.raises(ValueError, match="the metre 3/128 has no id"):
        TOKENIZER.encode_score(Score(note, metres=torch.tensor([[0, 3, 128]])))


def test_velocities_are_told_in_steps_of_four() -> None:
    notes = torch.tensor([[0, 60, 480, velocity, 0, 0] for velocity in range(1, 128)])
    ids = TOKENIZER.encode_score(Score(notes))
    assert ids[:, VELOCITY].tolist() == [velocity // 4 for velocity in range(1, 128)]
    assert set(TOKENIZER.decode_score(ids).notes[:, 3].tolist()) == set(range(2, 128, 4))


@pytest.mark.parametrize("field", range(8))
def test_every_number_of_every_field_comes_back(field: int) -> None:
    numbers = torch.arange(TOKENIZER.pad_ids[field])
    ids = torch.tensor([[0, 0, 0, 60, 15, 20, KNOWN_METRES.index((8, 4)), 35]]).repeat(len(numbers), 1)
    ids[:, BAR], ids[:, field] = numbers, numbers
    if field == PITCH:
        ids[128:, INSTRUMENT] = 128
    if field == INSTRUMENT:
        ids[128, PITCH] = 188
    assert torch.equal(TOKENIZER.encode_score(TOKENIZER.decode_score(ids)), ids)


def test_the_embedding_of_the_checkpoints_takes_them() -> None:
    embed = CompoundEmbed(16, TOKENIZER.vocab_sizes, TOKENIZER.mask_ids, field_dim=8)
    ids = TOKENIZER.encode_score(read_score(real_files()["omr/k525short"]))
    assert embed(embed.tokens(ids, torch.tensor([len(ids)]))).shape == (211, 16)


def test_settings_are_saved(tmp_path) -> None:
    TOKENIZER.save_pretrained(tmp_path)
    assert OctupleTokenizer.from_pretrained(tmp_path).fingerprint() == TOKENIZER.fingerprint()
