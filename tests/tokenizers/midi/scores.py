"""Random scores and settings of tokenizers, for properties; and a loop that finds bars."""

from operator import itemgetter
from typing import NamedTuple

import torch
from hypothesis import strategies as st

from multimodal.tokenizers.midi import Score, sort_notes

METRES = [(4, 4), (3, 4), (2, 4), (6, 8), (9, 8), (5, 8), (7, 16), (2, 2), (12, 8), (1, 4), (16, 4), (3, 2), (17, 8), (1, 64), (3, 32)]
TICKS = st.one_of(st.integers(0, 12_000), st.integers(0, 400).map(lambda x: 30 * x))


class Rows(NamedTuple):
    """What a score is made of. (Strategies draw no tensors: checks of shapes draw numbers of their own.)"""

    notes: list[tuple[int, ...]]
    tempos: list[tuple[int, int]]
    metres: list[tuple[int, int, int]]

    @property
    def score(self) -> Score:
        tempos, metres = (torch.tensor(own, dtype=torch.int64) for own in (self.tempos, self.metres))
        return Score(sort_notes(torch.tensor(self.notes)), tempos.view(-1, 2), metres.view(-1, 3))


@st.composite
def scores(draw, max_notes: int = 30) -> Rows:
    """Scores of several tracks, each of one program, drums among them, with changes of tempo and metre; on the grid and off it."""
    programs = draw(st.lists(st.sampled_from([0, 0, 24, 127, 128]), min_size=1, max_size=4))
    rows = st.tuples(TICKS, st.integers(0, 127), st.integers(1, 5000), st.integers(1, 127), st.integers(0, len(programs) - 1))
    notes = [(*row[:4], programs[row[4]], row[4]) for row in draw(st.lists(rows, min_size=1, max_size=max_notes))]
    tempos = draw(st.lists(st.tuples(TICKS, st.integers(100_000, 6_000_000)), max_size=5))
    metres = draw(st.lists(st.tuples(TICKS, st.sampled_from(METRES)), max_size=5))
    by_tick = itemgetter(0)
    return Rows(notes, sorted(tempos, key=by_tick), [(tick, *metre) for tick, metre in sorted(metres, key=by_tick)])


SETTINGS = st.fixed_dictionaries(
    {},
    optional={
        "pitch_range": st.sampled_from([(0, 127), (40, 80), (60, 60)]),
        "out_of_range": st.sampled_from(["clamp", "drop"]),
        "positions_per_beat": st.sampled_from([1, 4, 12, 16]),
        "max_positions": st.sampled_from([16, 48, 96]),
        "durations_per_beat": st.sampled_from([4, 12]),
        "num_durations": st.sampled_from([1, 40]),
        "metre": st.sampled_from(["read", "told"]),
        "max_empty_bars": st.sampled_from([1, 4]),
        "velocity_bins": st.sampled_from([1, 5, 32, 107, 128]),
        "programs": st.just(True),
        "num_tracks": st.sampled_from([1, 2, 16]),
        "tempo_bins": st.sampled_from([2, 32, 49, 500]),
    },
).filter(lambda x: x.get("max_positions", 16) * 64 % (4 * x.get("positions_per_beat", 4)) == 0)
"""Keywords of ``BeatGridTokenizer``."""


def bars_one_by_one(changes: list[tuple[int, int, int]], end: int, cut: bool = True) -> list[tuple[int, int, int]]:
    """(start, numerator, denominator) of each bar up to the one that holds ``end``, bar by bar.

    Args:
        changes: (tick, numerator, denominator) by tick.
        end: in ticks.
        cut: whether a change of metre begins a bar; else it counts from the next bar on.
    """
    changes = [(tick, *own) for tick, own in {tick: own for tick, *own in changes}.items()]  # of several at a time the last counts
    found, start = [], 0
    while start <= end:
        metre = [(4, 4), *[own for tick, *own in changes if tick <= start]][-1]
        stop = start + 1920 * metre[0] // metre[1]
        inside = [tick for tick, *own in changes if start < tick < stop and tuple(own) != tuple(metre)]
        found.append((start, *metre))
        start = min([stop, *inside]) if cut else stop
    return found
