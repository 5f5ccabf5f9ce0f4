"""Music: MIDI files, their tokens, piano rolls."""

from multimodal.tokenizers.midi.compound import CompoundTokenizer
from multimodal.tokenizers.midi.embed import CompoundEmbed
from multimodal.tokenizers.midi.notes import read_notes, score_of, write_notes
from multimodal.tokenizers.midi.render import PianoRollRenderer
from multimodal.tokenizers.midi.score import Column, Score, read_score, sort_notes, write_score
from multimodal.tokenizers.midi.tokenizer import MidiTokenizer
from multimodal.tokenizers.midi.transform import MidiTransform

__all__ = [
    "Column",
    "CompoundEmbed",
    "CompoundTokenizer",
    "MidiTokenizer",
    "MidiTransform",
    "PianoRollRenderer",
    "Score",
    "read_notes",
    "read_score",
    "score_of",
    "sort_notes",
    "write_notes",
    "write_score",
]
