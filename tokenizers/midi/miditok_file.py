"""Tokenizers of the package miditok, as it saves them.

Letters in shapes: n tokens, m notes, k fields, items.
"""

from __future__ import annotations

import hashlib
import importlib
import json
import warnings
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from jaxtyping import Bool, Int
from torch import Tensor

from multimodal.atomic import atomic_file
from multimodal.tokenizers.midi.miditok_load import FILE_NAME, load_miditok
from multimodal.tokenizers.midi.miditok_prepare import MiditokPreparation
from multimodal.tokenizers.midi.miditok_tokens import NONE, MiditokTokens
from multimodal.tokenizers.midi.score import DRUMS, TICKS_PER_BEAT, Column, Score, from_symusic, table_of
from multimodal.tokenizers.midi.tokenizer import DRUM_CLASS, MidiTokenizer, first_tokens
from multimodal.tokenizers.pretrained import read_config

MAX_BEATS = 2**16
"""From the first note of a window to its last: miditok writes tokens for all bars between them."""


class MiditokTokenizer(MidiTokenizer):
    """The tokenizer in a ``tokenizer.json`` of miditok 3 (https://github.com/Natooz/MidiTok). Nothing is downloaded or executed.

    REMI and TSD have one id a token, or with a trained BPE or Unigram model one for several tokens; CPWord and Octuple have several fields.
    Ids are those of miditok itself: for the score that begins with the bar of its first note, in 480 ticks a beat, with one track for each
    program. Where the file asks for no programs, all notes are of one piano. What comes back is what miditok's preprocessing leaves of
    times, velocities and tempos; where metres change their denominator, miditok itself may be a step off. Notes whose pitch or program the
    file has no token for are left out, and so are those of Octuple after the last bar that it has a number for.

    The package miditok has to be installed. The order of notes is that of their tokens: by the start that is left, then by program.

    A token of a trained model may stand for parts of several notes. It counts as one of the first of them, there are no groups, and a note
    is guessed only where all its tokens are.

    Args:
        path: of the file, or of the folder that holds it.

    Raises:
        ValueError: there is no such file, it says something that is not known or not supported, or miditok is not installed.
    """

    def __init__(self, path: str) -> None:
        file = Path(path) / FILE_NAME if Path(path).is_dir() else Path(path)
        content, own = load_miditok(file)
        tokens = MiditokTokens(own)
        pitches = tokens.pitches_of("Pitch")
        super().__init__((min(pitches), max(pitches)), "drop")
        self._content, self._own, self._tokens, self._prepare = content, own, tokens, MiditokPreparation(own, tokens)
        self.tells_drums, self.tells_tempo = own.one_token_stream and -1 in own.config.programs, own.config.use_tempos

    @property
    def tokens_per_note(self) -> int:
        """The fewest tokens of a note; 1 for a trained model, of which a token may be several notes."""
        if self._own.is_multi_voc or self._own.is_trained:
            return 1
        return 1 + self._tokens.velocities + bool(self._tokens.lasting.all())

    @property
    def vocab_sizes(self) -> tuple[int, ...]:
        """Ids of each field."""
        return (len(self._own),) if self._own.is_trained else tuple(len(field) for field in self._tokens.fields)

    @property
    def field_names(self) -> tuple[str, ...]:
        """The types of tokens that each field is for, in lower case; "token" where there is one field."""
        types = self._tokens.columns.items()
        names = ("_".join(name.lower() for name, own in types if own == field) for field in range(len(self.vocab_sizes)))
        return tuple(names) if types else ("token",)

    @property
    def pad_ids(self) -> tuple[int, ...]:
        """The id of PAD in each field."""
        return self._special("PAD_None")

    @property
    def mask_ids(self) -> tuple[int, ...]:
        """The id of MASK in each field.

        Raises:
            ValueError: the file has none.
        """
        return self._special("MASK_None")

    def _special(self, name: str) -> tuple[int, ...]:
        if name not in self._own.special_tokens:
            raise ValueError(f"this tokenizer of miditok has no {name}: its special tokens are {self._own.special_tokens}.")
        return tuple(field[name] for field in self._tokens.fields)

    def kinds(self) -> tuple[Int[Tensor, " ids"], ...]:
        """Return a number for the type of each id, -1 at special tokens; of a trained model for the type with which each begins."""
        if self._own.is_trained:
            return (torch.from_numpy(self._tokens.first_types),)
        return tuple(torch.from_numpy(types) for types in self._tokens.types)

    def restrict(self, score: Score) -> Score:
        """Return the notes that have ids, in the order of their tokens; see ``MidiTokenizer.restrict``."""
        return score[torch.from_numpy(self._prepare(score)[0])]

    def encode_score(self, score: Score) -> Int[Tensor, "n ..."]:
        """Return the ids; see ``MidiTokenizer.encode_score``. Starts need not ascend.

        Raises:
            ValueError: a start is negative, notes reach over more than 65,536 beats, or the vocabulary of a trained model lacks a token.
        """
        order, prepared = self._prepare(score)
        if not len(order):
            return torch.zeros((0, len(self.vocab_sizes))[: 1 + self._own.is_multi_voc], dtype=torch.int64)
        start = score.column(Column.START)
        if (beats := int(start.max() - start.min()) // TICKS_PER_BEAT) > MAX_BEATS:
            raise ValueError(f"the notes reach over {beats} beats; the limit is {MAX_BEATS}.")
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of bars that Octuple has no number for
                found = self._own.encode(prepared, no_preprocess_score=True)
        except KeyError as error:
            raise ValueError(f"the vocabulary of this tokenizer of miditok lacks {error}: it was trained without that.") from error
        return torch.tensor((found if self._own.one_token_stream else found[0]).ids)

    def decode_score(self, ids: Int[Tensor, "n ..."]) -> Score:
        """Return the score that ids say, sorted by start alone; see ``MidiTokenizer.decode_score``."""
        table, decoded = self._decoded(self._base(ids))
        laid_out = from_symusic(decoded)
        return replace(laid_out, notes=torch.from_numpy(table[table[:, Column.START].argsort(kind="stable")]), track_names=())

    def snapped(self, score: Score) -> Score:
        """Return the score as it comes back from its ids."""
        return self.decode_score(self.encode_score(score))

    def note_of(self, ids: Int[Tensor, "n ..."]) -> Int[Tensor, " n"]:
        """Return the number of the note of each token: with its pitch, what follows of it, and the program just before.

        Tokens of bars, positions, metres and tempos are of no note, -1; a token of a trained model is of the first note it says part of.
        """
        note = self._tokens.notes(self._base(ids))[0]
        if self._own.is_trained:
            note = self._tokens.first_of_parts(ids.cpu().numpy(), note)
        return torch.from_numpy(note).to(ids.device)

    def guesses(
        self, ids: Int[Tensor, "n ..."], predicted: Int[Tensor, "n ..."]
    ) -> tuple[Int[Tensor, "m 6"], Int[Tensor, "m 6"], Bool[Tensor, " m"]]:
        """Return true and predicted notes; see ``MidiTokenizer.guesses``.

        What is predicted counts where it is of the type of the true token, for pitch, velocity, duration, program and position. Bars,
        metres, tempos and steps of time stay as they are.
        """
        base, tokens = self._base(ids), self._tokens
        guess, note = base.copy(), tokens.notes(base)[0]
        if self._own.is_trained:
            right = np.repeat((ids == predicted).cpu().numpy(), tokens.lengths[ids.cpu().numpy()])
        else:
            said, types = predicted.cpu().numpy(), tokens.of(base)
            same = types == tokens.of(said)
            counts = (same & tokens.free[types]).reshape(base.shape)
            guess[counts], right = said[counts], same.all(1)
        notes = self._decoded(base)[0]
        valid = np.ones(len(notes), bool)
        valid[note[~right & (note >= 0)]] = False
        return torch.from_numpy(notes), torch.from_numpy(self._decoded(guess)[0]), torch.from_numpy(valid)

    def groups(self, ids: Int[Tensor, "n ..."], lengths: Int[Tensor, " items"]) -> Mapping[str, Int[Tensor, " n"]]:
        """Return the bar of each token (from 0; not of TSD), the pitch class of its note (12 for drums), and its program as its track.

        Tokens of no note are of no pitch class and track (-1). There is no "track" where all is one piano.
        """
        if self._own.is_trained:
            return {}
        base, tokens = ids.cpu().numpy(), self._tokens
        note, places, program = tokens.notes(base)
        pitch_class = np.where(program == DRUMS, DRUM_CLASS, tokens.pitches(base)[places] % 12)
        found = {"pitch_class": np.append(pitch_class, NONE)[note]}  # the last is that of tokens of no note, -1
        if self._own.one_token_stream:
            found["track"] = np.append(program, NONE)[note]
        if (opened := tokens.opened(base)) is not None:
            found["bar"] = opened - opened[first_tokens(lengths.cpu(), len(base)).numpy()]
        return {name: torch.from_numpy(group).to(ids.device) for name, group in found.items()}

    def fingerprint(self) -> str:
        """Return the SHA-256 (hex) of the file and of the vocabulary, which another version of miditok may make otherwise."""
        return hashlib.sha256(self._content + json.dumps(self._tokens.fields).encode()).hexdigest()

    def save_pretrained(self, folder: str | Path) -> None:
        """Write the config, and a copy of the file beside it."""
        super().save_pretrained(folder)
        with atomic_file(Path(folder) / FILE_NAME) as file:
            file.write(self._content)

    @classmethod
    def from_pretrained(cls, folder: str | Path) -> Self:
        """Load the copy that ``save_pretrained`` wrote, wherever the folder has moved.

        Raises:
            ValueError: the folder is missing or incomplete, or the file is not the one that was saved.
        """
        saved = read_config(folder)
        tokenizer = cls(str(Path(folder) / FILE_NAME))
        if tokenizer.fingerprint() != saved["fingerprint"]:
            raise ValueError(f"{folder} is not what was saved: the fingerprint of {FILE_NAME} and its vocabulary is another.")
        return tokenizer.eval()

    def _base(self, ids: Int[Tensor, "n ..."]) -> Int[np.ndarray, "b ..."]:
        """Return the ids of the base vocabulary: those that ids of a trained model stand for, else the ids."""
        own = ids.cpu().numpy()
        return self._tokens.parts_of(own) if self._own.is_trained else own

    def _decoded(self, base: Int[np.ndarray, "n ..."]) -> tuple[Int[np.ndarray, "m 6"], Any]:
        """Return the notes that ids say, in the order of ``note_of``, and the score of symusic that miditok makes of them."""
        rows = self._tokens.legible(base)
        sequence = importlib.import_module("miditok").TokSequence(ids=rows.tolist())
        decoded = importlib.import_module("symusic").Score(TICKS_PER_BEAT)
        if len(rows):
            decoded = self._own.decode(sequence if self._own.one_token_stream else [sequence])
        found = table_of(list(decoded.tracks), decoded.ticks_per_quarter).T
        program = self._tokens.notes(rows)[2]
        notes = np.empty_like(found)
        notes[program.argsort(kind="stable")] = found[found[:, Column.PROGRAM].argsort(kind="stable")]  # there is a track for each program
        notes[:, Column.TRACK] = np.unique(notes[:, Column.PROGRAM], return_inverse=True)[1]
        return notes, decoded
