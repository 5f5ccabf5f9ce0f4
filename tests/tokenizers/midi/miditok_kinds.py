"""Configurations of miditok that tests read, and a small score. Not a test by itself."""

import warnings

import miditok
import torch

from multimodal.tokenizers.midi import Score

QUARTER = 480
ALL = {"use_programs": True, "use_tempos": True, "use_time_signatures": True}
PLAIN = {"use_time_signatures": False}
KINDS = {
    "REMI": ("REMI", PLAIN),
    "REMI of programs": ("REMI", {"use_programs": True, "use_tempos": True, "use_time_signatures": False}),
    "REMI of all": ("REMI", ALL | {"program_changes": True, "use_pitchdrum_tokens": True, "use_chords": True, "pitch_range": (0, 127)}),
    "REMI of less": ("REMI", ALL | {"use_velocities": False, "use_note_duration_programs": list(range(100))}),
    "REMI without duplicates": ("REMI", ALL | {"remove_duplicated_notes": True}),
    "TSD": ("TSD", PLAIN),
    "TSD of all": ("TSD", ALL),
    "CPWord": ("CPWord", PLAIN),
    "CPWord of all": ("CPWord", ALL),
    "Octuple": ("Octuple", PLAIN | {"max_bar_embedding": 500}),
    "Octuple of programs": ("Octuple", PLAIN | {"use_programs": True, "use_tempos": True, "max_bar_embedding": 500}),
}

SMALL = Score(
    torch.tensor(
        [
            [0, 60, QUARTER, 79, 0, 0],
            [0, 40, QUARTER, 79, 128, 1],
            [2 * QUARTER, 64, QUARTER, 79, 0, 0],
            [4 * QUARTER, 65, QUARTER, 79, 0, 0],
        ]
    )
)


def theirs(name: str) -> miditok.MusicTokenizer:
    kind, config = KINDS[name]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return getattr(miditok, kind)(miditok.TokenizerConfig(**config))
