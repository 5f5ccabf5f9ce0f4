"""Score -> ids -> score: what comes back is the score on the grid, as told; and its ids are the same."""

import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from multimodal.tokenizers.midi import BeatGridTokenizer, Column, CompoundTokenizer, RemiTokenizer, Score
from multimodal.tokenizers.midi.bars import fitted
from tests.tokenizers.midi.scores import SETTINGS, Rows, bars_one_by_one, scores

LAYOUTS = [CompoundTokenizer, RemiTokenizer]


def bin_middle(velocity: int, bins: int) -> int:
    """The middle, of two the higher, of all velocities that share a bin."""
    own = [x for x in range(128) if x * bins // 128 == velocity * bins // 128]
    return max(1, own[len(own) // 2])


def nearest_tempo(microseconds: int, bins: int) -> int:
    ladder = [60e6 / (16 * 16 ** (i / (bins - 1))) for i in range(bins)]
    return round(min(ladder, key=lambda x: abs(math.log(x / microseconds))))


def comes_back(score: Score, own: dict[str, Any]) -> list[list[int]]:
    """The notes that are to come back, note by note; tempos at the notes instead of velocities in a last column."""
    low, high = own.get("pitch_range", (22, 107))
    step, longest = 480 // own.get("positions_per_beat", 4), own.get("max_positions", 16) * 480 // own.get("positions_per_beat", 4)
    told, read = own.get("metre") == "told", "metre" in own
    limit = min(longest, 3840) if told else longest
    changes = [[tick, *fitted(*metre, limit)] for tick, *metre in [[0, 4, 4], *score.metres.tolist()]] if read else []
    bars = [start for start, *_ in bars_one_by_one(changes, 20_000)] if read else list(range(0, 20_000 + longest, longest))
    metres = [(above, below) for _, above, below in bars_one_by_one(changes, 20_000)] if told else []
    slots = [(tick, bar, number) for bar in range(len(bars) - 1) for number, tick in enumerate(range(bars[bar], bars[bar + 1], step))]

    def place(tick: int) -> tuple[int, int, int]:
        return min(slots, key=lambda slot: (abs(slot[0] - tick), slot[0]))

    tempos = [(-1, 500_000), *[(place(tick)[0], microseconds) for tick, microseconds in score.tempos.tolist()]]
    rows, bar_start, last = [], 0, None
    for start, pitch, duration, velocity, program, track in score.notes.tolist():
        if own.get("out_of_range") == "drop" and not low <= pitch <= high:
            continue
        tick, bar, number = place(start)
        if last is not None and bar != last:
            length = 1920 * metres[last][0] // metres[last][1] if told else longest
            bar_start += min(bar - last, own.get("max_empty_bars", 0) + 1) * length
        last = bar
        unit = 480 // own.get("durations_per_beat", 8)
        lengths = [unit * i for i in range(1, own.get("num_durations", 64) + 1)]
        row = [bar_start + number * step, min(max(pitch, low), high), min(lengths, key=lambda x, d=duration: abs(x - d))]
        row += [bin_middle(velocity, own["velocity_bins"]) if "velocity_bins" in own else 80, program if "programs" in own else 0]
        row += [min(track, own["num_tracks"] - 1) if "num_tracks" in own else -1]
        rows.append([*row, [x for when, x in tempos if when <= tick][-1]])
    return rows


def tempo_at(score: Score, tick: int) -> int:
    return [x for when, x in [[-1, 500_000], *score.tempos.tolist()] if when <= tick][-1]


@settings(max_examples=80, deadline=None)
@given(scores(12), SETTINGS)
def test_what_comes_back_is_what_a_loop_says(rows: Rows, own: dict[str, Any]) -> None:
    found, expected = CompoundTokenizer(**own).snapped(rows.score), comes_back(rows.score, own)
    notes = found.notes.clone()
    if "num_tracks" not in own:
        programs = sorted({row[Column.PROGRAM] for row in expected})
        assert notes[:, Column.TRACK].tolist() == [programs.index(row[Column.PROGRAM]) for row in expected]
        notes[:, Column.TRACK] = -1
    assert notes.tolist() == [row[:-1] for row in expected]
    if "tempo_bins" in own:
        assert [tempo_at(found, row[0]) for row in expected] == [nearest_tempo(row[-1], own["tempo_bins"]) for row in expected]


@pytest.mark.parametrize("layout", LAYOUTS)
@settings(max_examples=80, deadline=None)
@given(rows=scores(), own=SETTINGS)
def test_ids_tell_the_score_on_the_grid(layout: type[BeatGridTokenizer], rows: Rows, own: dict[str, Any]) -> None:
    tokenizer, score = layout(**own), rows.score
    ids, snapped = tokenizer.encode_score(score), tokenizer.snapped(score)
    back = tokenizer.decode_score(ids)
    assert (ids >= 0).all() and (ids < torch.tensor(tokenizer.vocab_sizes).squeeze()).all()
    for name in ("notes", "tempos", "metres"):
        assert torch.equal(getattr(back, name), getattr(snapped, name)), name
    assert torch.equal(tokenizer.encode_score(back), ids)
    assert torch.equal(tokenizer.snapped(back).notes, back.notes)


@pytest.mark.parametrize("layout", LAYOUTS)
@settings(max_examples=60, deadline=None)
@given(own=SETTINGS, data=st.data())
def test_any_predicted_ids_decode(layout: type[BeatGridTokenizer], own: dict[str, Any], data: st.DataObject) -> None:
    tokenizer = layout(**own)
    sizes = tokenizer.vocab_sizes
    rows = data.draw(st.lists(st.tuples(*(st.integers(0, size - 1) for size in sizes)), max_size=20))
    ids = torch.tensor(rows, dtype=torch.int64).view(-1, len(sizes)).squeeze(1 if len(sizes) == 1 else -1)
    score = tokenizer.decode_score(ids)
    assert len(score) <= len(rows) and (score.notes[:, Column.START].diff() >= 0).all()
    assert (score.tempos[:, 0].diff() > 0).all() and (score.metres[:, 0].diff() > 0).all()
    extension, file = tokenizer.file_of(ids)
    assert extension == "mid" and file.startswith(b"MThd")
