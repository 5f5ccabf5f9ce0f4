"""Tokenizers of miditok: their ids, their notes, and files that are refused."""

import pickle
from dataclasses import replace
from pathlib import Path

import miditok
import numpy as np
import pytest
import symusic
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from multimodal.tokenizers.midi import Column, MiditokTokenizer, Score, read_score
from multimodal.tokenizers.midi.score import from_symusic, to_symusic
from multimodal.tokenizers.pretrained import load_tokenizer
from tests.tokenizers.midi.miditok_kinds import KINDS, QUARTER, SMALL, theirs
from tests.tokenizers.midi.scores import scores

NO_NOTES = torch.zeros(0, len(Column), dtype=torch.int64)


def single(found) -> miditok.TokSequence:
    return found[0] if isinstance(found, list) else found


def sounding(score: Score, name: str) -> np.ndarray:
    """What is heard: notes without tracks, sorted by all; of less without what there are no tokens for."""
    notes = score.notes.numpy()[:, : Column.TRACK].copy()
    if name == "REMI of less":
        notes[:, Column.VELOCITY] = 0
        notes[notes[:, Column.PROGRAM] >= 100, Column.DURATION] = 0
    return notes[np.lexsort(notes.T)]


def preprocessed(score: Score, own: miditok.MusicTokenizer) -> Score:
    """What miditok itself leaves of a score that begins in its first bar."""
    if not own.one_token_stream:
        notes = score.notes.clone()
        notes[:, [Column.PROGRAM, Column.TRACK]] = 0
        score = score.with_notes(notes)
    if not own.config.use_time_signatures:
        score = Score(score.notes, score.tempos)
    return from_symusic(own.preprocess_score(to_symusic(score)))


@pytest.mark.parametrize("name", KINDS)
def test_ids_of_real_files_are_those_of_miditok(name, ours, pieces):
    own, same = theirs(name), 0
    for piece in pieces.values():
        file = symusic.Score.from_midi(piece)
        if not own.one_token_stream and len(file.tracks) > 1:
            continue  # miditok makes a sequence of each
        ids = ours[name].encode_score(read_score(piece, drop_drums=False))
        assert single(own.encode(file)).ids == ids.tolist()
        same += 1
    assert same >= 4


@pytest.mark.parametrize("name", KINDS)
def test_what_comes_back_of_real_windows_is_what_preprocessing_leaves(name, ours, pieces):
    for piece in pieces.values():
        window = read_score(piece, drop_drums=False)[:200]
        back, left = ours[name].snapped(window), preprocessed(window, theirs(name))
        assert np.array_equal(sounding(back, name), sounding(left, name))
        if ours[name].tells_tempo and "Octuple" not in name:  # whose notes say tempos; tokens of tempos have two decimals
            assert torch.equal(back.tempos[:, 0], left.tempos[:, 0])
            assert torch.allclose(back.tempos.double(), left.tempos.double(), rtol=2e-4)


def in_first_bar(score: Score) -> Score:
    """The score with a first note at its start."""
    notes = score.notes.clone()
    notes[0, [Column.START, Column.PITCH]] = torch.tensor([0, 60])
    return score.with_notes(notes)


@pytest.mark.parametrize("name", KINDS)
@settings(max_examples=15, deadline=None)
@given(rows=scores(max_notes=12))
def test_random_scores_come_back_as_preprocessing_leaves_them(name, ours, rows):
    score = in_first_bar(rows.score)
    score = replace(score, metres=score.metres[score.metres[:, 2] == 4])  # miditok's own grid is not exact where denominators change
    back, left = ours[name].snapped(score), preprocessed(score, theirs(name))
    assert np.array_equal(sounding(back, name), sounding(left, name))


@pytest.mark.parametrize("name", KINDS)
@settings(max_examples=15, deadline=None)
@given(rows=scores(max_notes=12))
def test_notes_are_in_the_order_of_their_tokens(name, ours, rows):
    own = ours[name]
    kept = own.restrict(rows.score)
    ids = own.encode_score(rows.score)
    note = own.note_of(ids)
    assert sorted(set(note[note >= 0].tolist())) == list(range(len(kept)))
    notes, said, valid = own.guesses(ids, ids)
    assert torch.equal(notes[:, Column.PITCH], kept.notes[:, Column.PITCH])
    if own.tells_drums:
        assert torch.equal(notes[:, Column.PROGRAM], kept.notes[:, Column.PROGRAM])
    assert torch.equal(notes, said) and valid.all()
    assert torch.equal(own.restrict(kept).notes, kept.notes) and torch.equal(own.encode_score(kept), ids)
    assert torch.equal(own.decode_score(ids).notes, notes[notes[:, Column.START].argsort(stable=True)])


def spelled(own: MiditokTokenizer, ids: torch.Tensor) -> list[str]:
    names = [sorted(field, key=field.__getitem__) for field in own._tokens.fields]
    return [" ".join(names[k][number] for k, number in enumerate(row)) for row in ids.view(len(ids), -1).tolist()]


def test_tokens_of_remi_know_their_notes_and_groups(ours):
    own = ours["REMI of programs"]
    ids = own.encode_score(SMALL)
    note = "Program_{} {}_{} Velocity_79 Duration_1.0.8"
    expected = ["Bar_None Position_0 Tempo_121.29", note.format(0, "Pitch", 60), note.format(-1, "PitchDrum", 40)]
    rest = ["Position_16", note.format(0, "Pitch", 64), "Bar_None Position_0", note.format(0, "Pitch", 65)]
    assert spelled(own, ids) == " ".join(expected + rest).split()
    of_notes = [-1, -1, -1, 0, 0, 0, 0, 1, 1, 1, 1, -1, 2, 2, 2, 2, -1, -1, 3, 3, 3, 3]
    assert own.note_of(ids).tolist() == of_notes
    groups = own.groups(torch.cat([ids, ids[:7]]), torch.tensor([len(ids), 7]))
    assert groups["bar"].tolist() == [0] * 16 + [1] * 6 + [0] * 7
    tracks, classes = {-1: -1, 0: 0, 1: 128, 2: 0, 3: 0}, {-1: -1, 0: 0, 1: 12, 2: 4, 3: 5}
    assert groups["track"].tolist() == [tracks[number] for number in of_notes + of_notes[:7]]
    assert groups["pitch_class"].tolist() == [classes[number] for number in of_notes + of_notes[:7]]
    assert own.tokens_per_note == 3 and own.field_names == ("token",)


def test_rows_of_compound_words_and_octuples_know_their_notes_and_groups(ours):
    words, octuples = ours["CPWord of all"], ours["Octuple of programs"]
    ids = words.encode_score(SMALL)
    assert words.note_of(ids).tolist() == [-1, -1, 0, 1, -1, 2, -1, -1, 3]
    assert words.groups(ids, torch.tensor([len(ids)]))["bar"].tolist() == [0] * 6 + [1] * 3
    assert words.field_names[:3] == ("family", "position_bar", "pitch") and len(words.field_names) == ids.shape[1]
    ids = octuples.encode_score(SMALL)
    assert octuples.note_of(ids).tolist() == [0, 1, 2, 3]
    groups = octuples.groups(torch.cat([ids, ids]), torch.tensor([4, 4]))
    assert {name: group.tolist() for name, group in groups.items()} == {
        "bar": [0, 0, 0, 1] * 2,
        "track": [0, 128, 0, 0] * 2,
        "pitch_class": [0, 12, 4, 5] * 2,
    }
    assert octuples.field_names == ("pitch", "position", "bar", "velocity", "duration", "program", "tempo")
    assert "bar" not in ours["TSD"].groups(ours["TSD"].encode_score(SMALL), torch.tensor([13]))


@pytest.mark.parametrize("name", KINDS)
def test_ids_of_a_kind_and_special_ids(name, ours):
    own = ours[name]
    fields = theirs(name).vocab if own._own.is_multi_voc else [theirs(name).vocab]
    assert own.vocab_sizes == tuple(map(len, fields))
    assert set(own.pad_ids) == {0} and set(own.mask_ids) == {3}
    for kinds, field in zip(own.kinds(), fields, strict=True):
        assert kinds[:4].tolist() == [-1] * 4 and (kinds[4:] >= 0).all()
        pitches = {int(kinds[number]) for token, number in field.items() if token.startswith("Pitch_")}
        others = {int(kinds[number]) for token, number in field.items() if not token.startswith("Pitch_")}
        assert len(pitches) <= 1 and not pitches & others


def test_guesses_stay_in_the_true_bar(ours):
    own = ours["REMI of programs"]
    ids, vocabulary = own.encode_score(SMALL), theirs("REMI of programs").vocab
    predicted = ids.clone()
    changes = {0: "MASK_None", 4: "Pitch_61", 7: "Program_24", 11: "Position_18", 15: "Pitch_70", 16: "Position_3", 21: "Duration_2.0.8"}
    for place, token in changes.items():
        predicted[place] = vocabulary[token]
    true, said, valid = own.guesses(ids, predicted)
    assert torch.equal(true[:, :5], SMALL.notes[:, :5])
    assert valid.tolist() == [True, True, False, True]
    assert said[valid][:, :5].tolist() == [[0, 61, QUARTER, 79, 0], [0, 40, QUARTER, 79, 24], [4 * QUARTER, 65, 2 * QUARTER, 79, 0]]
    assert said[2, :2].tolist() == [2 * QUARTER + 120, 64]


@pytest.mark.parametrize("name", KINDS)
@settings(max_examples=15, deadline=None)
@given(data=st.data())
def test_any_ids_can_be_decoded_and_guessed(name, ours, data):
    own = ours[name]
    row = st.tuples(*(st.integers(0, size - 1) for size in own.vocab_sizes))
    drawn = torch.tensor(data.draw(st.lists(row, max_size=20)), dtype=torch.int64).view(-1, len(own.vocab_sizes))
    ids = own.encode_score(SMALL)
    some = drawn if ids.ndim == 2 else drawn[:, 0]
    for said in (some, torch.cat([ids, some, ids])):
        assert len(own.decode_score(said)) == len(set(own.note_of(said).tolist()) - {-1})
    predicted = torch.cat([some, ids])[: len(ids)]
    assert torch.equal(own.guesses(ids, predicted)[0][:, :2], own.restrict(SMALL).notes[:, :2])


def test_no_notes_give_no_ids_and_no_ids_no_notes(ours):
    for own in ours.values():
        ids = own.encode_score(Score(NO_NOTES))
        assert len(ids) == 0 and len(own.decode_score(ids)) == 0 and len(own.restrict(Score(NO_NOTES))) == 0
        low = SMALL.with_notes(SMALL.notes[:1] - torch.tensor([0, 60, 0, 0, 0, 0]))
        assert len(own.restrict(low)) == int(own.pitch_range[0] == 0)


def test_a_window_begins_with_its_bar_metre_and_tempo(ours):
    notes = torch.tensor([[4 * QUARTER + 3 * QUARTER + QUARTER, 60, QUARTER, 79, 0, 0]])
    score = Score(notes, torch.tensor([[100, 600_000], [9000, 400_000]]), torch.tensor([[0, 4, 4], [4 * QUARTER, 3, 4]]))
    back = ours["REMI of all"].snapped(score)
    assert back.notes[:, 0].tolist() == [QUARTER] and back.metres.tolist() == [[0, 3, 4]]
    assert back.tempos[:, 0].tolist() == [0, 9000 - 7 * QUARTER - (9000 - 7 * QUARTER) % 60]
    with pytest.raises(ValueError, match="starts must not be negative, got -480"):
        ours["REMI"].encode_score(Score(notes - torch.tensor([9 * QUARTER, 0, 0, 0, 0, 0])))
    with pytest.raises(ValueError, match="the notes reach over 100000 beats; the limit is 65536"):
        far = torch.cat([notes, notes + torch.tensor([100_000 * QUARTER, 0, 0, 0, 0, 0])])
        ours["REMI"].encode_score(Score(far))


@pytest.mark.parametrize("name", ["REMI of all", "CPWord"])
def test_it_is_saved_with_its_file(name, ours, paths, tmp_path):
    own = ours[name]
    own.save_pretrained(tmp_path)
    loaded = load_tokenizer(str(tmp_path))
    assert loaded.fingerprint() == own.fingerprint() and (tmp_path / "tokenizer.json").read_bytes() == Path(paths[name]).read_bytes()
    assert torch.equal(loaded.encode_score(SMALL), own.encode_score(SMALL))
    assert torch.equal(pickle.loads(pickle.dumps(own)).encode_score(SMALL), own.encode_score(SMALL))
    assert own.fingerprint() != ours["TSD"].fingerprint()
    (tmp_path / "tokenizer.json").write_bytes(Path(paths["TSD"]).read_bytes())
    with pytest.raises(ValueError, match="is not what was saved: the fingerprint"):
        load_tokenizer(str(tmp_path))
