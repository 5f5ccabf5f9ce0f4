"""What the ids of a tokenizer of miditok say: which are of which type, and which make notes.

Letters in shapes: n tokens, m notes, k fields.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from jaxtyping import Bool, Int

from multimodal.tokenizers.midi.score import DRUMS

SPECIAL = -1
"""The type of special tokens."""
NONE = -1
BEGINS = ("Pitch", "PitchDrum")
"""Types of tokens with which a note begins."""
FREE = (*BEGINS, "Velocity", "Duration", "Position", "Program", "Program that ends notes by itself")
"""Types of tokens that say something of a note alone. The others move what follows."""
BAR, NOTE, METRIC, IGNORE = "Bar_None", "Family_Note", "Family_Metric", "Ignore_None"
STRUCTURE = (BAR, "Bar_End", NOTE, METRIC, IGNORE)
"""Tokens that are a type of their own."""


class MiditokTokens:
    """Tables of the base vocabulary of a tokenizer of miditok.

    Args:
        own: the tokenizer.
    """

    def __init__(self, own: Any) -> None:
        config = own.config
        self.fields: list[dict[str, int]] = own.vocab if own.is_multi_voc else [own.vocab]
        self.columns: dict[str, int] = dict(own.vocab_types_idx) if own.is_multi_voc else {}
        self.velocities = config.use_velocities
        self.lasting = np.array([program in config.use_note_duration_programs for program in (*range(DRUMS), -1)])
        """Programs whose notes have a duration; the last are drums."""
        special = {*own.special_tokens}
        named = [[self._type(token, special) for token in sorted(field, key=field.__getitem__)] for field in self.fields]
        self.names = sorted({name for names in named for name in names if name})
        self.number = {name: number for number, name in enumerate(self.names)}
        self.types, self.values = [], []
        for field, names in zip(self.fields, named, strict=True):
            ids = sorted(field.values())
            types, values = np.full(ids[-1] + 1, SPECIAL), np.zeros(ids[-1] + 1, np.int64)
            types[ids] = [self.number.get(name, SPECIAL) for name in names]
            values[ids] = [_value(token) for token in sorted(field, key=field.__getitem__)]
            self.types.append(types)
            self.values.append(values)
        if own.is_trained:
            self._read_model(own)
        self.free = np.array([name in FREE for name in self.names] + [False])  # the last is that of special tokens, -1

    def _read_model(self, own: Any) -> None:
        """Note which ids of the base vocabulary each id of a trained model stands for: end to end, how many, and from where on."""
        made = [own._vocab_learned_bytes_to_tokens[own._model.id_to_token(number)] for number in range(len(own))]
        self.lengths = np.array([len(tokens) for tokens in made])
        self.starts = self.lengths.cumsum() - self.lengths
        self.parts = np.array([self.fields[0][token] for tokens in made for token in tokens])
        first = np.append(self.parts, 0)[self.starts]
        self.first_types = np.where(self.lengths > 0, self.types[0][first], SPECIAL)

    def _type(self, token: str, special: set[str]) -> str:
        name = token.split("_")[0]
        if token in special:
            return ""
        if token in STRUCTURE:
            return token
        return FREE[-1] if name == "Program" and not self.lasting[_value(token)] else name

    def of(self, ids: Int[np.ndarray, "n ..."]) -> Int[np.ndarray, "n k"]:
        """Return the type of each id, by ``names``; -1 at special tokens."""
        columns = ids.T if ids.ndim == 2 else ids[None]
        return np.stack([types[column] for types, column in zip(self.types, columns, strict=True)], 1)

    def is_of(self, types: Int[np.ndarray, "*shape"], *names: str) -> Bool[np.ndarray, "*shape"]:
        """Return True at some types."""
        return np.isin(types, [self.number[name] for name in names if name in self.number])

    def legible(self, ids: Int[np.ndarray, "n ..."]) -> Int[np.ndarray, "l ..."]:
        """Return the tokens that miditok can decode: of several fields those without special tokens, that say what they begin."""
        if ids.ndim == 1:
            return ids
        types = self.of(ids)
        kept = (types >= 0).all(1)
        for begun, told in ((BAR, "TimeSig"), ("Position", "Tempo")):
            if "Family" in self.columns and told in self.columns:
                opens = self.is_of(types[:, 0], METRIC) & self.is_of(types[:, 1], begun)
                kept &= ~(opens & self.is_of(types[:, self.columns[told]], IGNORE))
        return ids[kept]

    def notes(self, ids: Int[np.ndarray, "n ..."]) -> tuple[Int[np.ndarray, " n"], Int[np.ndarray, " m"], Int[np.ndarray, " m"]]:
        """Return the note of each token or -1, and of each note the token with its pitch, and its program (0 where none is told)."""
        return self._of_rows(ids) if ids.ndim == 2 else self._of_tokens(ids)

    def parts_of(self, ids: Int[np.ndarray, " n"]) -> Int[np.ndarray, " b"]:
        """Return the ids of the base vocabulary that ids of a trained model stand for, end to end."""
        lengths = self.lengths[ids]
        ends = lengths.cumsum()
        return self.parts[np.arange(lengths.sum()) + (self.starts[ids] - ends + lengths).repeat(lengths)]

    def first_of_parts(self, ids: Int[np.ndarray, " n"], note: Int[np.ndarray, " b"]) -> Int[np.ndarray, " n"]:
        """Return for ids of a trained model the first note that any of their parts is of; -1 where none is."""
        found, none = np.full(len(ids), len(note)), len(note)
        np.minimum.at(found, np.arange(len(ids)).repeat(self.lengths[ids]), np.where(note >= 0, note, none))
        return np.where(found < none, found, NONE)

    def opened(self, ids: Int[np.ndarray, "n ..."]) -> Int[np.ndarray, " n"] | None:
        """Return how many bars, or bars with notes, were begun up to each token; None: tokens do not tell bars."""
        column = self.columns.get("Bar", 0)
        if ids.ndim == 2 and "Family" not in self.columns:
            bar = self.values[column][ids[:, column]]
            return (bar != np.roll(bar, 1)).cumsum()
        return self.is_of(self.of(ids)[:, column], BAR).cumsum() if BAR in self.number else None

    def pitches_of(self, name: str) -> list[int]:
        """Return the pitches that there are tokens of a type for."""
        field = self.fields[self.columns.get("Pitch", 0)]
        return [_value(token) for token in field if token.split("_")[0] == name]

    def pitches(self, ids: Int[np.ndarray, "n ..."]) -> Int[np.ndarray, " n"]:
        """Return the pitch that each token says; 0 where it says none."""
        return self.values[0][ids] if ids.ndim == 1 else self.values[self.columns["Pitch"]][ids[:, self.columns["Pitch"]]]

    def _of_rows(self, ids: Int[np.ndarray, "n k"]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        types = self.of(ids)
        whole = (types >= 0).all(1)
        if "Family" in self.columns:
            told = [self.columns[name] for name in ("Pitch", "Velocity", "Duration", "Program") if name in self.columns]
            whole &= self.is_of(types[:, 0], NOTE) & ~self.is_of(types[:, told], IGNORE).any(1)
        places = np.flatnonzero(whole)
        program = np.zeros(len(places), np.int64)
        if (column := self.columns.get("Program")) is not None:
            program = self.values[column][ids[places, column]]
        return np.where(whole, whole.cumsum() - 1, NONE), places, program

    def _of_tokens(self, ids: Int[np.ndarray, " n"]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        types = self.of(ids)[:, 0]
        beyond = np.append(types, [SPECIAL, SPECIAL])
        names = self.is_of(types, "Program", FREE[-1])
        last = np.maximum.accumulate(np.where(names, np.arange(len(ids)), NONE))
        program = np.where(last >= 0, self.values[0][ids[last]] if len(ids) else 0, 0)
        places = np.flatnonzero(self.is_of(types, *BEGINS))
        velocity = int(self.velocities)
        lasting = self.lasting[program[places]]
        whole = self.is_of(beyond[places + 1], "Velocity") | (not velocity)
        whole &= self.is_of(beyond[places + 1 + velocity], "Duration") | ~lasting
        places, lasting = places[whole], lasting[whole]
        first = places - (np.append(names, False)[places - 1])  # before the first token there is none
        length = places + 1 + velocity + lasting - first
        number = np.arange(len(places)).repeat(length)
        found = np.full(len(ids), NONE)
        found[np.arange(len(number)) + (first - length.cumsum() + length)[number]] = number
        return found, places, program[places]


def _value(token: str) -> int:
    """Return what a token of a pitch, program or bar says; 0 for others. Drums are ``DRUMS``."""
    name, _, value = token.partition("_")
    if name not in (*BEGINS, "Program", "Bar") or not value.lstrip("-").isdigit():
        return 0
    return DRUMS if value == "-1" else int(value)
