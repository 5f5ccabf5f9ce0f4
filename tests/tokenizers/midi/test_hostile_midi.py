"""MIDI files of every kind through the whole path: files, shards, windows of tokens, a step. What is bad is named and left out."""

import struct
from functools import partial
from pathlib import Path

import pytest
import torch

from multimodal.datamodules.commands import main
from multimodal.masking import RandomMasking
from multimodal.modality import Modality
from multimodal.nn import Encoder, RotaryPosition
from multimodal.tokenizers.midi import CompoundEmbed, MidiTransform
from tests.tokenizers.hostile import Watched, named, stop_at_the_first, stop_at_too_many, train_on_all, write
from tests.tokenizers.zoo import MUSIC, Animal, music

EMPTY = "empty-midi"  # has no place in a shard
ANIMALS = named(MUSIC) | {
    "no-tracks": Animal("mid", lambda: b"MThd" + struct.pack(">IHHH", 6, 1, 0, 480), "without notes"),
    "bad-status-byte": Animal("mid", lambda: music()[:22] + b"\xf4" * 20 + music()[42:], None),
    "few-notes": Animal("mid", lambda: music(notes=3), "3 notes in the tokenizer's range; at least 8 are wanted"),
    "one-tick-a-beat": Animal("mid", lambda: music(ticks=1), (8, 4)),
    "most-ticks-a-beat": Animal("mid", lambda: music(ticks=2**15 - 1), (8, 4)),
}
IN_SHARDS = {name: animal for name, animal in ANIMALS.items() if name != EMPTY}


def make_model() -> Watched:
    """A MidiBERT of one layer."""
    torch.manual_seed(0)
    modality = partial(Modality, transform=MidiTransform(max_notes=64), embed=CompoundEmbed, masking=RandomMasking(0.15))
    return Watched(Encoder(dim=16, depth=1, num_heads=2, rotary=RotaryPosition), {"notes": modality})


@pytest.fixture(scope="module")
def shards(tmp_path_factory) -> Path:
    return write(tmp_path_factory.mktemp("zoo"), ANIMALS)


def test_the_whole_zoo_is_trained_on_or_left_out_by_name(shards, tmp_path):
    assert main(["verify", str(shards)]) == 0  # shards are whole, whatever the files in them
    model = make_model()
    bad = train_on_all(model, shards, tmp_path, IN_SHARDS)
    assert len(model.seen) >= 5 and len(bad) >= 9
    assert ANIMALS["few-notes"].expected in bad["few-notes"] and "over the limit" in bad["more-than-a-million-notes"]


@pytest.mark.parametrize("name", ["0-ticks-per-beat", "lying-track-length", "no-tracks", "few-notes"])
def test_a_strict_run_stops_at_the_first_one_with_its_name(tmp_path, name):
    shards = write(tmp_path, {own: ANIMALS[own] for own in ("midi-of-type-0", name, "midi-of-type-1")})
    stop_at_the_first(make_model(), shards, tmp_path, name, ANIMALS[name])


def test_too_many_bad_ones_stop_a_run_that_skips(shards, tmp_path):
    stop_at_too_many(make_model, shards, tmp_path)
