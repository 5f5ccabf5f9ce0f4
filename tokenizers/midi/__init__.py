"""Music: MIDI files, compound-word tokens, piano rolls."""

from multimodal.tokenizers.midi.compound import CompoundTokenizer
from multimodal.tokenizers.midi.embed import CompoundEmbed
from multimodal.tokenizers.midi.notes import Column, read_notes, sort_notes, write_notes
from multimodal.tokenizers.midi.render import PianoRollRenderer
from multimodal.tokenizers.midi.transform import MidiTransform

__all__ = ["Column", "CompoundEmbed", "CompoundTokenizer", "MidiTransform", "PianoRollRenderer", "read_notes", "sort_notes", "write_notes"]
