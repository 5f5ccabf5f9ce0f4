"""Where bars lie, and which metres have a number.

All times are in ticks, 480 to a beat. Letters in shapes: n times, m changes of metre, s stretches of equal bars.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from jaxtyping import Int

from multimodal.tokenizers.midi.score import METRE, TICKS_PER_BEAT, Column, Score

WHOLE_TICKS = 4 * TICKS_PER_BEAT
"""Ticks of a whole note."""
MAX_DENOMINATOR = 64
NUM_METRES = 254
"""Metres that have a number: denominators 1 to 64, bars of at most two whole notes (OctupleMIDI, https://arxiv.org/abs/2106.05630)."""


@dataclass(frozen=True)
class Bars:
    """Where bars lie: stretches of equal bars, one after the other; the first begins at 0, the last does not end.

    Args:
        starts: ``(s,)`` int64, where the first bar of each stretch begins.
        lengths: ``(s,)`` int64, of the bars of each.
        metres: ``(s, 2)`` int64, numerator and denominator of each.
        numbers: ``(s,)`` int64, the number of the first bar of each; bars are counted from 0.
    """

    starts: Int[np.ndarray, " s"]
    lengths: Int[np.ndarray, " s"]
    metres: Int[np.ndarray, "s 2"]
    numbers: Int[np.ndarray, " s"]

    @classmethod
    def of(cls, metres: Int[np.ndarray, "m 3"], longest: int | None = None) -> Bars:
        """Return the bars of time signatures. A change of metre begins a bar, and so cuts the bar before it short, if it must.

        Args:
            metres: as in ``Score.metres``.
            longest: longer bars are divided as ``fitted`` does; None: none are.
        """
        changes = _changes(metres, longest)
        starts, lengths = (np.array([change[i] for change in changes], np.int64) for i in (0, 1))
        bars = -(-np.diff(starts) // lengths[:-1])
        return cls(starts, lengths, np.array([change[2] for change in changes], np.int64), np.concatenate([[0], bars.cumsum()]))

    @classmethod
    def uncut(cls, metres: Int[np.ndarray, "m 3"], longest: int | None = None) -> Bars:
        """Return the bars of time signatures, where a change of metre within a bar counts from the next bar on."""
        starts, numbers, kept = [0], [0], [(0, WHOLE_TICKS, METRE)]
        for change in _changes(metres, longest):
            if change[0] <= starts[-1]:
                kept[-1] = change  # before its bar began there was another change
                continue
            bars = -(-(change[0] - starts[-1]) // kept[-1][1])
            starts.append(starts[-1] + bars * kept[-1][1])
            numbers.append(numbers[-1] + bars)
            kept.append(change)
        lengths, own = np.array([change[1] for change in kept], np.int64), np.array([change[2] for change in kept], np.int64)
        return cls(np.array(starts, np.int64), lengths, own, np.array(numbers, np.int64))

    @classmethod
    def equal(cls, length: int) -> Bars:
        """Return bars of one length; what metre they have is not said."""
        zero = np.zeros(1, np.int64)
        return cls(zero, np.array([length]), np.zeros((1, 2), np.int64), zero)

    def stretch_of(self, bars: Int[np.ndarray, " n"]) -> Int[np.ndarray, " n"]:
        """Return the stretch in which each bar lies."""
        return np.searchsorted(self.numbers, bars, side="right") - 1

    def start_of(self, bars: Int[np.ndarray, " n"]) -> Int[np.ndarray, " n"]:
        """Return where each bar begins."""
        stretch = self.stretch_of(bars)
        return self.starts[stretch] + (bars - self.numbers[stretch]) * self.lengths[stretch]

    def length_of(self, bars: Int[np.ndarray, " n"]) -> Int[np.ndarray, " n"]:
        """Return the length of each bar, as its metre says; a change of metre may have cut it short."""
        return self.lengths[self.stretch_of(bars)]

    def bar_of(self, times: Int[np.ndarray, " n"]) -> Int[np.ndarray, " n"]:
        """Return the bar in which each time lies."""
        stretch = np.searchsorted(self.starts, times, side="right") - 1
        return self.numbers[stretch] + (times - self.starts[stretch]) // self.lengths[stretch]

    def place(self, times: Int[np.ndarray, " n"], step: int) -> tuple[Int[np.ndarray, " n"], Int[np.ndarray, " n"]]:
        """Return for each time the nearest slot, as a bar and a position in it, counted from 0; halves go to the earlier one.

        Slots lie ``step`` apart from the start of each bar; the last of a bar may be shorter.
        """
        if len(self.starts) == 1 and self.lengths[0] % step == 0:
            slot = (times + (step - 1) // 2) // step
            bar, position = np.divmod(slot, self.lengths[0] // step)
            return bar, position
        bar = self.bar_of(times)
        start = self.start_of(bar)
        position, rest = np.divmod(times - start, step)
        end = np.minimum(position * step + step, self.start_of(bar + 1) - start)  # of the slot
        up = end - position * step - rest < rest
        over = up & (start + end == self.start_of(bar + 1))
        return bar + over, np.where(over, 0, position + up)


def bars_of(score: Score) -> tuple[Bars, Int[np.ndarray, " n"]]:
    """Return the bars of a score, and the bar in which each note starts."""
    bars = Bars.of(score.metres.numpy())
    return bars, bars.bar_of(score.column(Column.START).numpy())


@lru_cache(maxsize=1024)
def fitted(numerator: int, denominator: int, longest: int) -> tuple[int, int]:
    """Return a metre of bars of at most ``longest`` ticks that divide those of the given one: 16/4 -> 8/4, 9/4 -> 3/4 for two whole notes.

    Where the denominator is above 64, both are halved while they can be. The numerator is divided by its smallest divisors, as
    OctupleMIDI does it; once it is 1, the denominator is doubled.
    """
    while denominator > MAX_DENOMINATOR and numerator % 2 == 0:
        numerator, denominator = numerator // 2, denominator // 2
    while WHOLE_TICKS * numerator > longest * denominator:
        if numerator == 1:
            denominator *= 2
        else:
            numerator //= next(i for i in range(2, numerator + 1) if numerator % i == 0)
    return numerator, denominator


def metre_ids(metres: Int[np.ndarray, "s 2"]) -> Int[np.ndarray, " s"]:
    """Return the number of each metre: 1/1, 2/1, 1/2, ..., 4/2, 1/4, ..., 8/4, ..., 128/64 have 0 to 253.

    Raises:
        ValueError: a metre has none: its denominator is no power of 2 up to 64, or its bars are longer than two whole notes.
    """
    numerator, denominator = metres.T
    known = (numerator >= 1) & (numerator <= 2 * denominator) & (denominator <= MAX_DENOMINATOR) & (denominator & (denominator - 1) == 0)
    if not known.all():
        unknown = "/".join(map(str, metres[~known][0]))
        raise ValueError(
            f"the metre {unknown} has no id: denominators are powers of 2 up to {MAX_DENOMINATOR}, bars two whole notes at most."
        )
    return 2 * denominator + numerator - 3  # 2 + 4 + ... of the smaller denominators


def metres_of(ids: Int[np.ndarray, " n"]) -> Int[np.ndarray, "n 2"]:
    """Return numerator and denominator of each number."""
    return _METRES[ids]


_METRES = np.array([(i, 2**power) for power in range(7) for i in range(1, 2 * 2**power + 1)])


def _changes(metres: Int[np.ndarray, "m 3"], longest: int | None) -> list[tuple[int, int, tuple[int, int]]]:
    """Return from where on bars have what length and metre, from 0 on; of several at one tick the last, and none that changes nothing."""
    found = {0: METRE} | {tick: (numerator, denominator) for tick, numerator, denominator in metres.tolist()}
    changes: list[tuple[int, int, tuple[int, int]]] = []
    for tick in sorted(found):
        metre = found[tick] if longest is None else fitted(*found[tick], longest)
        if not changes or metre != changes[-1][2]:
            changes.append((tick, max(1, WHOLE_TICKS * metre[0] // metre[1]), metre))
    return changes
