"""Classes of notes: from the file itself and from files beside it; they follow the notes through windows, augmentation and tokens."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from multimodal.tokenizers.midi import (
    Column,
    MidiTransform,
    NoteFileLabels,
    NoteLabelTransform,
    ProgramLabels,
    Score,
    TrackLabels,
    VelocityLabels,
    read_score,
    score_of,
    write_score,
)
from multimodal.tokenizers.midi.note_labels import FAMILIES
from multimodal.windowed import PlaceColumn

NOTES = st.lists(
    st.tuples(st.integers(0, 40), st.integers(30, 90), st.integers(1, 3), st.integers(1, 127), st.integers(0, 2)),
    min_size=2,
    max_size=40,
    unique_by=lambda note: (note[0], note[1], note[4]),
)
PROGRAMS = (0, 128, 40)
"""Of the three tracks; the second are drums."""


def midi(notes: list[tuple[int, ...]], names=("Melody", "Drums", "Bass")) -> bytes:
    """A file of notes (start in half beats, pitch, duration in half beats, velocity, track)."""
    rows = [
        (240 * start, pitch, 240 * duration - 10, velocity, PROGRAMS[track], track) for start, pitch, duration, velocity, track in notes
    ]
    return write_score(Score(torch.zeros(0, 6, dtype=torch.int64), track_names=names).with_notes(torch.tensor(rows)))


def numbered(notes: list[tuple[int, ...]]) -> Score:
    score = score_of(torch.tensor([(120 * start, pitch, 100, 80) for start, pitch, *_ in notes]))
    return replace(score, numbers=torch.arange(len(score)))


def draw(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def told(item) -> dict[int, int]:
    """Number of a note -> its class, from the labels of an item; every note is told once."""
    rows = item.labels[item.labels[:, PlaceColumn.PLACE] >= 0]
    found = dict(zip(rows[:, PlaceColumn.PLACE].tolist(), rows[:, PlaceColumn.CLASS].tolist(), strict=True))
    assert len(found) == len(rows)
    return found


@given(NOTES, st.integers(0, 2**20), st.integers(1, 12))
def test_the_notes_of_a_training_window_keep_their_numbers(notes, seed, transpose):
    score = numbered(notes)
    window = MidiTransform(max_notes=12, min_notes=1, transpose=transpose).drawn(score, draw(seed))
    own = score.notes[window.numbers]
    assert torch.equal(own[:, Column.START], window.column(Column.START))
    assert len((window.column(Column.PITCH) - own[:, Column.PITCH]).unique()) == 1


@given(NOTES)
def test_notes_that_are_sorted_anew_keep_their_numbers(notes):
    score = numbered(notes)
    changed = score.notes.clone()
    changed[:, Column.START] = -changed[:, Column.START] + 5000
    again = score.with_notes(changed)
    assert torch.equal(changed[again.numbers], again.notes)
    assert score.with_notes(changed[:-1]).numbers is None


@settings(max_examples=25, deadline=None)
@given(NOTES, st.integers(0, 8), st.integers(9, 12), st.booleans())
def test_in_evaluation_every_note_is_told_once_and_drums_never(notes, overlap, size, keeps_drums):
    transform = NoteLabelTransform(VelocityLabels(), MidiTransform(max_notes=size, min_notes=1, drop_drums=not keeps_drums), overlap)
    data = midi(notes)
    score = read_score(data, drop_drums=False)
    kept = score.column(Column.PROGRAM) != 128
    if not keeps_drums and not kept.any():
        with pytest.raises(ValueError, match="0 notes in the tokenizer's range"):
            transform.decode(data)
        return
    item = transform.labelled(transform.decode(data), transform.decode_labels(data), draw(), train=False)
    expected = [np.searchsorted([0, 32, 48, 64, 80, 96, 128], velocity, side="right") - 1 for velocity in score.notes[:, 3].tolist()]
    assert told(item) == {i: expected[i] for i in range(len(score)) if keeps_drums or kept[i]}
    assert (item.labels[:, PlaceColumn.COUNT] == len(score)).all()
    _, lengths = item.labels[:, PlaceColumn.WINDOW].unique_consecutive(return_counts=True)
    assert lengths.max() <= size and len(lengths) >= len(told(item)) / size


@settings(max_examples=30, deadline=None)
@given(NOTES, st.integers(0, 2**20))
def test_in_training_labels_are_those_of_the_window_that_was_drawn(notes, seed):
    data, tracks = midi(notes), {note[4] for note in notes}
    if tracks == {1}:
        return
    labels = TrackLabels({"low": ["BASS"], "high": ["melody "]})
    transform = NoteLabelTransform(labels, MidiTransform(max_notes=8, min_notes=1, transpose=5, drop_drums=False))
    piece = transform.decode(data)
    item = transform.labelled(piece, (), draw(seed), train=True)
    window = transform.music.drawn(piece.kept, draw(seed))
    assert torch.equal(item.values, transform.tokenizer.encode_score(window))
    names = [piece.whole.track_names[track] for track in window.column(Column.TRACK).tolist()]
    assert item.labels[:, PlaceColumn.CLASS].tolist() == [{"Bass": 0, "Melody": 1, "Drums": -1}[name] for name in names]


def test_tracks_may_be_named_by_their_numbers():
    score = read_score(midi([(0, 60, 1, 64, 0), (1, 50, 1, 64, 2), (2, 52, 1, 64, 2)], ("", "", "")))
    assert TrackLabels({"left": [1], "right": [0, 5]}).of(score, ()).tolist() == [1, 0, 0]
    assert TrackLabels({"padding": [], "left": [1], "right": [0]}).of(score, ()).tolist() == [2, 1, 1]


def test_windows_overlap_and_their_borders_lie_in_the_middle():
    transform = NoteLabelTransform(VelocityLabels(), MidiTransform(max_notes=20, min_notes=1), overlap=6)
    data = midi([(i, 60, 1, 64, 0) for i in range(40)])
    labels = transform.labelled(transform.decode(data), (), draw(), train=False).labels
    windows = [rows[:, PlaceColumn.PLACE].tolist() for rows in labels.split(20)]
    assert len(windows) == 3
    assert windows[0] == [*range(17), -1, -1, -1]  # notes 0 to 19
    assert windows[1] == [*[-1] * 3, *range(17, 27), *[-1] * 7]  # notes 14 to 33
    assert windows[2] == [*[-1] * 7, *range(27, 40)]  # notes 20 to 39: full, as it begins earlier


def test_velocities_have_the_published_classes():
    labels = VelocityLabels()
    score = score_of(torch.tensor([(i, 60, 10, velocity) for i, velocity in enumerate((1, 31, 32, 47, 48, 64, 80, 95, 96, 127))]))
    assert labels.of(score, ()).tolist() == [0, 0, 1, 1, 2, 3, 4, 4, 5, 5]
    assert labels.classes == ("0-31", "32-47", "48-63", "64-79", "80-95", "96-127")
    padded = VelocityLabels(padding=True)
    assert torch.equal(padded.of(score, ()), labels.of(score, ()) + 1) and padded.classes == ("padding", *labels.classes)


def test_families_of_instruments():
    labels, programs = ProgramLabels(), [0, 7, 8, 40, 127, 128]
    score = Score(torch.tensor([(i, 60, 10, 80, program, i) for i, program in enumerate(programs)]))
    assert [labels.classes[i] for i in labels.of(score, ()).tolist()] == [
        "piano",
        "piano",
        FAMILIES[1],
        "strings",
        "sound_effects",
        "drums",
    ]
    own = ProgramLabels({"keys": [0, 8], "drums": [128]})
    assert own.of(score, ()).tolist() == [0, -1, 0, -1, -1, 1]


def test_a_file_without_the_named_tracks_is_refused():
    labels = TrackLabels({"melody": ["MELODY"], "bridge": ["BRIDGE", 7]})
    with pytest.raises(ValueError, match=r"none of the tracks \['melody', 'bridge', 7\] is among the 2 tracks with notes: 'Left', 'Right'"):
        labels.of(read_score(midi([(0, 60, 1, 64, 0), (1, 50, 1, 64, 2)], ("Left", "", "Right"))), ())


TUNE = midi([(0, 60, 1, 64, 0), (1, 64, 1, 64, 0), (1, 64, 2, 64, 2), (3, 40, 1, 64, 1)])
"""Four notes; two of them at the same time and pitch, in two tracks."""


def classes_of(labels: NoteFileLabels, text: str) -> list[int]:
    return labels.of(read_score(TUNE, drop_drums=False), labels.read(text.encode())).tolist()


FILES = {
    "in order, JSON": ('["a", null, "b", "c"]', [0, -1, 1, 2]),
    "in order, table": ('label\na\n""\nb\nc\n', [0, -1, 1, 2]),
    "by note, JSON": ('[{"start": 0.5, "pitch": 64, "label": "c"}, {"start": 1.501, "pitch": 40, "label": null}]', [-1, 2, 2, -1]),
    "by note, table": ("pitch,start,label\n64, 0.5, b\n60,0,a\n", [0, 1, 1, -1]),
    "by note and track": ("start,pitch,track,label\n0.5,64,2,b\n0.5,64,0,a\n", [-1, 0, 1, -1]),
    "no note": ("start,pitch,label\n", [-1, -1, -1, -1]),
}


@pytest.mark.parametrize("text", FILES.values(), ids=FILES)
def test_files_of_labels_have_four_layouts(text):
    assert classes_of(NoteFileLabels(["a", "b", "c"]), text[0]) == text[1]


def test_notes_without_an_entry_get_the_class_of_the_rest():
    assert classes_of(NoteFileLabels(["a", "b", "c"], rest="c"), "start,pitch,label\n0,60,a\n1.5,40,\n") == [0, 2, 2, -1]


@settings(max_examples=25, deadline=None)
@given(NOTES, st.integers(-1, 1), st.randoms(use_true_random=False))
def test_entries_by_note_find_their_notes_in_any_order(notes, off, random):
    score = read_score(midi(notes), drop_drums=False)
    classes = [random.randrange(3) for _ in range(len(score))]
    rows = [
        {"start": max(0, start + off) / 480, "pitch": pitch, "track": track, "label": "abc"[number]}
        for (start, pitch, *_, track), number in zip(score.notes.tolist(), classes, strict=True)
    ]
    random.shuffle(rows)
    labels = NoteFileLabels(["a", "b", "c"])
    assert labels.of(score, labels.read(json.dumps(rows).encode())).tolist() == classes


WRONG = {
    '["a", "b"]': "there are 2 labels for the 4 notes of the MIDI file, drums included",
    '["a", "d", "a", "a"]': "entry 2 has the unknown class 'd'; classes are a, b, c",
    "[1, 2]": "must be a list of names, or of objects that all have the same entries",
    "[": "labels of notes are not JSON",
    '{"a": 1}': "must be a list of names, or of objects",
    '[{"start": 1, "label": "a"}]': "and start and pitch or neither, with which there may be a track; these have 'start', 'label'",
    "": "these have nothing",
    "start,pitch,label\n0,60,a\n0.25,60,b\n": "entry 2 is of no note: none starts at beat 0.25 with pitch 60; 1 of 2 entries are",
    "start,pitch,track,label\n0,60,2,a\n": "entry 1 is of no note: none starts at beat 0 with pitch 60 in track 2",
    "start,pitch,label\n0,60,a\n1.5,40,a\n0.001,60,b\n": "entries 1 and 3 are of the same note",
    "start,pitch,label\nx,60,a\n": "entry 1: the start must be a number of beats of at least 0, got 'x'",
    "start,pitch,label\n0,60,a\n0,61.5,a\n": "entry 2: the pitch must be a whole number from 0 to 127, got '61.5'",
    "start,pitch,label\n0,60\n": "entry 1 has 2 cells, the line of headings 3",
}


@pytest.mark.parametrize(("text", "message"), WRONG.items(), ids=range(len(WRONG)))
def test_files_of_labels_that_do_not_fit_are_refused(text, message):
    with pytest.raises(ValueError, match=message):
        classes_of(NoteFileLabels(["a", "b", "c"]), text)


def test_bytes_that_are_no_text_are_refused():
    with pytest.raises(ValueError, match="labels of notes must be text in UTF-8"):
        NoteFileLabels(["a"]).read(b"\xff\xfe")


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: VelocityLabels([0, 64]), "edges must ascend from 0 to 128"),
        (lambda: TrackLabels({}), "classes must be a list of different names"),
        (lambda: TrackLabels({"a": []}), "tracks must be lists of names or numbers"),
        (lambda: TrackLabels({"a": ["x"], "b": ["X "]}), "tracks must be lists of names or numbers, each in one of them"),
        (lambda: ProgramLabels({"a": [129]}), "programs must be lists of numbers from 0 to 128"),
        (lambda: NoteFileLabels(["a", "a"]), "classes must be a list of different names"),
        (lambda: NoteFileLabels(["a"], fields=[]), "fields must be a list of different names"),
        (lambda: NoteFileLabels(["a"], rest="b"), "rest must be one of the classes a, or null; got 'b'"),
        (lambda: NoteLabelTransform(VelocityLabels(), MidiTransform(max_notes=20), overlap=20), r"overlap must be in \[0, 20\)"),
    ],
    ids=range(9),
)
def test_settings_that_do_not_fit_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_a_transform_reads_the_fields_of_its_labels():
    assert NoteLabelTransform(VelocityLabels()).label_extensions == ("mid", "midi")
    assert NoteLabelTransform(NoteFileLabels(["a"])).label_extensions == ("csv", "notes.csv", "notes.json")
    transform = NoteLabelTransform(NoteFileLabels(["a", "b"]), MidiTransform(min_notes=2))
    without = transform(transform.decode(TUNE), draw(), train=False)
    assert (without.labels[:, PlaceColumn.CLASS] == -1).all() and told(without).keys() == {0, 1, 2}
    example = transform.example()
    assert example.ragged and told(example) == {0: 0, 1: 0}
