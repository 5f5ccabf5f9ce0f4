import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from multimodal.tokenizers.midi import Bars, Score, bars_of
from multimodal.tokenizers.midi.bars import NUM_METRES, fitted, metre_ids, metres_of
from tests.tokenizers.midi.scores import METRES, TICKS, bars_one_by_one

CHANGES = st.lists(st.tuples(TICKS, st.sampled_from(METRES)), max_size=6, unique_by=lambda x: x[0])


def changes_of(drawn: list) -> np.ndarray:
    return np.array([[tick, *metre] for tick, metre in sorted(drawn)], np.int64).reshape(-1, 3)


@pytest.mark.parametrize("cut", [True, False])
@settings(max_examples=60, deadline=None)
@given(CHANGES)
def test_bars_are_those_that_a_loop_finds(cut: bool, drawn: list) -> None:
    changes = changes_of(drawn)
    bars, expected = (Bars.of if cut else Bars.uncut)(changes), bars_one_by_one(changes.tolist(), 9_000, cut)
    numbers = np.arange(len(expected))
    assert bars.start_of(numbers).tolist() == [start for start, *_ in expected]
    assert bars.metres[bars.stretch_of(numbers)].tolist() == [metre for _, *metre in expected]
    times = np.arange(0, 9_000, 7)
    starts = np.array([start for start, *_ in expected])
    assert (bars.bar_of(times) == np.searchsorted(starts, times, side="right") - 1).all()


@settings(max_examples=60, deadline=None)
@given(CHANGES, st.sampled_from([30, 40, 120, 480]))
def test_times_go_to_the_nearest_slot_of_any_bar_halves_down(drawn: list, step: int) -> None:
    bars = Bars.of(changes_of(drawn))
    ends = bars.start_of(np.arange(600))
    slots = [(tick, bar, number) for bar in range(599) for number, tick in enumerate(range(ends[bar], ends[bar + 1], step))]
    ticks = np.array([slot[0] for slot in slots])
    assume(ticks[-1] > 9_000)
    times = np.arange(0, 8_500, 11)
    after = np.searchsorted(ticks, times, side="left")  # the first slot not before
    before = np.maximum(after - 1, 0)
    nearest = np.where(times - ticks[before] <= ticks[after] - times, before, after)
    bar, position = bars.place(times, step)
    assert list(zip(bar.tolist(), position.tolist(), strict=True)) == [slots[i][1:] for i in nearest]


def test_a_change_of_metre_cuts_a_bar_and_a_repeated_one_does_not() -> None:
    changes = np.array([[0, 4, 4], [960, 4, 4], [2400, 3, 4], [2500, 3, 4]])
    assert Bars.of(changes).start_of(np.arange(4)).tolist() == [0, 1920, 2400, 3840]
    assert Bars.uncut(changes).start_of(np.arange(4)).tolist() == [0, 1920, 3840, 5280]


def test_of_several_metres_at_one_tick_the_last_counts() -> None:
    assert Bars.of(np.array([[0, 3, 4], [0, 2, 4]])).length_of(np.arange(3)).tolist() == [960] * 3


@pytest.mark.parametrize(
    ("metre", "longest", "expected"),
    [
        ((4, 4), 3840, (4, 4)),
        ((9, 4), 3840, (3, 4)),
        ((16, 4), 3840, (8, 4)),
        ((17, 4), 3840, (1, 4)),
        ((12, 256), 3840, (3, 64)),
        ((5, 128), 3840, (5, 128)),
        ((3, 1), 1920, (1, 1)),
        ((4, 4), 480, (1, 4)),
        ((1, 1), 960, (1, 2)),
    ],
)
def test_long_bars_are_divided_by_their_smallest_divisors(metre: tuple, longest: int, expected: tuple) -> None:
    assert fitted(*metre, longest) == expected


@settings(max_examples=100, deadline=None)
@given(st.integers(1, 255), st.sampled_from([1, 2, 4, 8, 16, 32, 64]), st.sampled_from([480, 1920, 3840]))
def test_parts_of_a_bar_fill_it(numerator: int, denominator: int, longest: int) -> None:
    above, below = fitted(numerator, denominator, longest)
    assert 1920 * above <= longest * below
    assert (numerator * below) % (denominator * above) == 0


def test_254_metres_have_numbers_as_published() -> None:
    """Ids that the dictionary of PianoBart and Adversarial-MidiBERT (Data/Octuple.pkl) gives."""
    published = {0: (1, 1), 1: (2, 1), 2: (1, 2), 3: (2, 2), 4: (3, 2), 5: (4, 2), 252: (127, 64), 253: (128, 64)}
    assert {number: tuple(metres_of(np.array([number]))[0]) for number in published} == published
    ids = np.arange(NUM_METRES)
    assert NUM_METRES == 254 and (metre_ids(metres_of(ids)) == ids).all()


@pytest.mark.parametrize("metre", [(5, 128), (9, 4), (3, 3), (0, 4)])
def test_other_metres_have_none(metre: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match=f"the metre {metre[0]}/{metre[1]} has no id"):
        metre_ids(np.array([[4, 4], metre]))


def test_a_note_beyond_two_billion_ticks_costs_no_memory() -> None:
    score = Score(torch.tensor([[0, 60, 1, 80, 0, 0], [2**40, 60, 1, 80, 0, 0]]), metres=torch.tensor([[0, 1, 64]]))
    assert bars_of(score)[1].tolist() == [0, 2**40 // 30]
