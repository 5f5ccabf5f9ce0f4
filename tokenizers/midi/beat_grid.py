"""The settings of tokens of music on a grid of parts of beats, in any metre."""

from __future__ import annotations

from functools import cached_property
from typing import Literal

from multimodal.tokenizers.midi.bars import NUM_METRES
from multimodal.tokenizers.midi.grid import Field, Grid, metre_of_length
from multimodal.tokenizers.midi.score import DRUMS, TICKS_PER_BEAT
from multimodal.tokenizers.midi.tokenizer import GridTokenizer, OutOfRange

Metre = Literal["assumed", "read", "told"]


class BeatGridTokenizer(GridTokenizer):
    """Ids of notes on a grid of parts of beats: what ``CompoundTokenizer`` and ``RemiTokenizer`` can be set to.

    A note has a position in its bar, a pitch, a duration, and what else is asked for, in this order: velocity, program, track, tempo, time
    signature. Starts go to the nearest position; durations to the nearest multiple of their step, at least one; halves go down.

    Args:
        pitch_range: lowest and highest MIDI pitch that has an id, both included.
        out_of_range: whether notes outside the range move to its nearest end, or are left out.
        positions_per_beat: places in a beat (a quarter note) where a note can start; it divides 480.
        max_positions: places in the longest bar.
        durations_per_beat: steps of the durations in a beat; it divides 480.
        num_durations: how many durations there are; longer notes get the longest.
        metre: where bars come from. "assumed": every bar has ``max_positions``. "read": from the file's time signatures; what is longer
            than ``max_positions`` is divided (``bars.fitted``). "told": the same, and the ids tell the time signature.
        max_empty_bars: of bars without notes in a row, so many are kept; silence before the first note never is.
        velocity_bins: velocities are told in so many bins of equal width, at most 128; 0: they are not.
        programs: whether the ids tell the program (instrument) of a note, drums as one more.
        num_tracks: so many tracks are told apart, later ones as the last; 0: none.
        tempo_bins: tempos from 16 to 256 beats a minute are told in so many bins, at equal ratios; 0: they are not.

    Raises:
        ValueError: a setting outside its range, or bars of ``max_positions`` that no metre has.
    """

    def __init__(
        self,
        pitch_range: tuple[int, int] = (22, 107),
        out_of_range: OutOfRange = "clamp",
        positions_per_beat: int = 4,
        max_positions: int = 16,
        durations_per_beat: int = 8,
        num_durations: int = 64,
        metre: Metre = "assumed",
        max_empty_bars: int = 0,
        velocity_bins: int = 0,
        programs: bool = False,
        num_tracks: int = 0,
        tempo_bins: int = 0,
    ) -> None:
        for name, number in (("positions_per_beat", positions_per_beat), ("durations_per_beat", durations_per_beat)):
            if number < 1 or TICKS_PER_BEAT % number:
                raise ValueError(f"{name} must divide {TICKS_PER_BEAT}, got {number}.")
        for name, number, low, high in (
            ("max_positions", max_positions, 1, 10_000),
            ("num_durations", num_durations, 1, 10_000),
            ("max_empty_bars", max_empty_bars, 0, 1000),
            ("velocity_bins", velocity_bins, 0, 128),
            ("num_tracks", num_tracks, 0, 1000),
            ("tempo_bins", tempo_bins, 0, 1000),
        ):
            if not low <= number <= high:
                raise ValueError(f"{name} must be from {low} to {high}, got {number}.")
        if tempo_bins == 1:
            raise ValueError("tempo_bins must be 0 or at least 2, got 1.")
        if metre not in ("assumed", "read", "told"):
            raise ValueError(f"metre must be 'assumed', 'read' or 'told', got {metre!r}.")
        step = TICKS_PER_BEAT // positions_per_beat
        metre_of_length(max_positions * step)
        grid = Grid(
            step=step,
            bar_ticks=max_positions * step,
            duration_step=TICKS_PER_BEAT // durations_per_beat,
            num_durations=num_durations,
            lowest_pitch=int(pitch_range[0]),
            reads_metres=metre != "assumed",
            tells_metres=metre == "told",
            max_empty_bars=max_empty_bars,
            velocity_bins=velocity_bins,
            tempo_bins=tempo_bins,
            num_tracks=num_tracks,
            programs=programs,
        )
        super().__init__(grid, pitch_range, out_of_range)
        self.max_positions = max_positions

    @cached_property
    def numbers(self) -> dict[Field, int]:
        """How many numbers each field of a note has, in the order of the ids; bars are left out, as their ids count nothing."""
        sizes = {
            Field.POSITION: self.max_positions,
            Field.PITCH: self.pitch_range[1] - self.pitch_range[0] + 1,
            Field.DURATION: self.grid.num_durations,
            Field.VELOCITY: self.grid.velocity_bins,
            Field.PROGRAM: (DRUMS + 1) * self.grid.programs,
            Field.TRACK: self.grid.num_tracks,
            Field.TEMPO: self.grid.tempo_bins,
            Field.TIME_SIGNATURE: NUM_METRES * self.grid.tells_metres,
        }
        return {field: size for field, size in sizes.items() if size}
