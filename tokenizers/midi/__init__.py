"""Music: MIDI files, their tokens, piano rolls."""

from multimodal.tokenizers.midi.bars import Bars, bars_of
from multimodal.tokenizers.midi.beat_grid import BeatGridTokenizer
from multimodal.tokenizers.midi.compound import CompoundTokenizer
from multimodal.tokenizers.midi.embed import CompoundEmbed
from multimodal.tokenizers.midi.miditok_file import MiditokTokenizer
from multimodal.tokenizers.midi.note_files import NoteFileLabels
from multimodal.tokenizers.midi.note_label_transform import NoteLabelTransform
from multimodal.tokenizers.midi.note_labels import NoteLabels, ProgramLabels, TrackLabels, VelocityLabels
from multimodal.tokenizers.midi.notes import read_notes, score_of, write_notes
from multimodal.tokenizers.midi.octuple import OctupleTokenizer
from multimodal.tokenizers.midi.remi import RemiTokenizer
from multimodal.tokenizers.midi.render import PianoRollRenderer
from multimodal.tokenizers.midi.score import Column, Score, read_score, sort_notes, write_score
from multimodal.tokenizers.midi.tokenizer import GridTokenizer, MidiTokenizer
from multimodal.tokenizers.midi.transform import MidiTransform

__all__ = [
    "Bars",
    "BeatGridTokenizer",
    "Column",
    "CompoundEmbed",
    "CompoundTokenizer",
    "GridTokenizer",
    "MidiTokenizer",
    "MidiTransform",
    "MiditokTokenizer",
    "NoteFileLabels",
    "NoteLabelTransform",
    "NoteLabels",
    "OctupleTokenizer",
    "PianoRollRenderer",
    "ProgramLabels",
    "RemiTokenizer",
    "Score",
    "TrackLabels",
    "VelocityLabels",
    "bars_of",
    "read_notes",
    "read_score",
    "score_of",
    "sort_notes",
    "write_notes",
    "write_score",
]
