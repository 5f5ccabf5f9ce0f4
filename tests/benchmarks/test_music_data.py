import csv
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from benchmarks.demo.tunes import Tune, split_of_opening
from benchmarks.music import data
from benchmarks.music.corpus import Piece, joined_notes, openings_of, pieces_in, read_corpus, score_in, tune_score
from benchmarks.music.data import EXCERPT_NOTES, TEST, composer_rows, dance_rows, excerpt, pretraining_pieces, split_pieces, write_shards
from benchmarks.music.tasks import excerpts, rows_of
from multimodal.tokenizers.midi.score import Column, Score, read_score, write_score


def opening_in(split: str) -> tuple[int, ...]:
    """Return an opening that a hash puts into a split."""
    return next((first, *[0] * 11) for first in range(-50, 50) if split_of_opening([first, *[0] * 11]) == split)


def tune(number: int, split: str = "train", label: str | None = "reel") -> Piece:
    return Piece(f"ryansMammoth/{number}", f"ryansMammoth/{number}", label, (opening_in(split),), ("melody",), 80)


def write_piece(root: Path, piece: Piece, metre: tuple[int, int] = (6, 8)) -> Score:
    random = np.random.default_rng(int.from_bytes(piece.name.encode()) % 2**32)
    start = 240 * torch.arange(piece.num_notes)
    pitch = torch.from_numpy(random.integers(60, 80, piece.num_notes))
    notes = torch.stack([start, pitch, *(torch.full_like(pitch, x) for x in (240, 80, 40, 0))], dim=1)
    score = Score(notes, metres=torch.tensor([(0, *metre)]), track_names=("melody",))
    path = root / "pieces" / f"{piece.name}.mid"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(write_score(score))
    return score


def test_pieces_are_read_once_with_their_voices_and_what_failed_is_listed(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    pieces = read_corpus(tmp_path, limit=2, collections=("ryansMammoth", "bach"))
    assert [piece.collection for piece in pieces] == ["ryansMammoth", "bach", "bach"]
    assert pieces[0].label == "reel" and pieces[0].voices == ("melody",)
    chorale = pieces[2]
    assert (chorale.label, chorale.voices) == ("chorale", ("soprano", "alto", "tenor", "bass"))
    score = score_in(tmp_path, chorale)
    pitch, track = score.column(Column.PITCH), score.column(Column.TRACK)
    means = [float(pitch[track == voice].float().mean()) for voice in range(4)]
    assert means == sorted(means, reverse=True)
    assert [score.column(Column.PROGRAM)[track == voice].unique().tolist() for voice in range(4)] == [[40], [41], [42], [43]]
    assert openings_of(score) == chorale.openings and len(chorale.openings[0]) == 12
    assert score.metres.tolist() == [[0, 4, 4]]
    last = (score.column(Column.START) + score.column(Column.DURATION)).max()
    assert last % 1920 in (0, 1440)  # a fermata at the end of a bar, less the pickup that the repeat brings
    said = capsys.readouterr().out
    assert "ryansMammoth: 2 in" in said and "1 error in the ABC text" in said and "bach: 2 in" in said
    assert read_corpus(tmp_path, limit=2, collections=("ryansMammoth", "bach")) == pieces
    assert capsys.readouterr().out == ""
    listed = pieces_in(tmp_path / "pieces.jsonl")
    assert [piece.error for piece in listed] == ["error in the ABC text", None, None, None]
    assert [piece for piece in listed if piece.error is None] == pieces


def test_a_tune_with_a_pickup_begins_its_first_full_bar_on_a_bar_line() -> None:
    notes = np.array([[0, 67, 240, 80], [240, 69, 240, 80], [480, 60, 240, 80]])
    score = tune_score(Tune(notes, pickup=480, bar=1440, metres=np.array([[0, 6, 8], [1920, 2, 4]])))
    assert score.column(Column.START).tolist() == [960, 1200, 1440]
    assert score.metres.tolist() == [[0, 6, 8], [2880, 2, 4]]


def test_tied_notes_are_one_and_ornaments_none() -> None:
    def note(offset: float, length: float, midi: int, tie: str | None = None) -> SimpleNamespace:
        kind = SimpleNamespace(type=tie) if tie else None
        return SimpleNamespace(offset=offset, quarterLength=Fraction(length), pitch=SimpleNamespace(midi=midi), tie=kind)

    notes = [note(0, 1, 60, "start"), note(1, 0, 64), note(1, 1, 60, "continue"), note(2, 1, 60, "stop"), note(3, 1, 60)]
    part = SimpleNamespace(flatten=lambda: SimpleNamespace(notes=notes))
    assert joined_notes(part) == [(0, 60, 3), (3, 60, 4)]


def test_copies_of_a_melody_are_in_one_split_and_never_pretrained_on_when_tested(tmp_path: Path) -> None:
    tested, copy, other = tune(1, TEST), tune(2, TEST, label=None), tune(31)
    inner = Piece("bach/b", "bach/b", None, (opening_in("train"), opening_in(TEST)), ("horn", "alto"), 70)
    chorale = Piece("bach/ccc", "bach/ccc", "chorale", (opening_in("train"), opening_in(TEST)), ("horn", "soprano"), 60)
    variant = tune(42)
    pieces = [tested, copy, other, inner, chorale, variant]
    splits = split_pieces(pieces)
    assert list(splits.values()) == [TEST, TEST, "train", "train", TEST, "train"]
    melody = write_piece(tmp_path, tested)
    for piece in (other, inner, chorale):
        write_piece(tmp_path, piece)
    same = write_piece(tmp_path, variant).notes
    same[20:37, Column.PITCH] = melody.column(Column.PITCH)[30:47] + 3
    (tmp_path / "pieces" / f"{variant.name}.mid").write_bytes(write_score(Score(same)))
    assert pretraining_pieces(tmp_path, pieces, splits) == [other]  # an inner part opens like a tested melody; 16 intervals are of one
    same[20, Column.PITCH] += 1
    (tmp_path / "pieces" / f"{variant.name}.mid").write_bytes(write_score(Score(same)))
    assert pretraining_pieces(tmp_path, pieces, splits) == [other, variant]


def test_movements_of_a_work_are_in_one_split() -> None:
    pieces = [Piece(f"haydn/{work}/{i}", f"haydn/{work}", None, ((i,),), ("violin",), 80) for work in ("a", "b") for i in range(3)]
    pieces += [Piece("chopin/x", "chopin/x", None, ((1,),), ("piano",), 80)]  # whom nobody has to tell
    splits = split_pieces(pieces)
    assert sorted(splits[f"haydn/{work}/0"] for work in ("a", "b")) == [TEST, "train"]
    assert all(splits[piece.name] == splits[f"{piece.work}/0"] for piece in pieces[:6])
    assert splits["chopin/x"] == "train"


def test_excerpts_begin_at_tick_0_anywhere_and_tell_no_metre(tmp_path: Path) -> None:
    pieces = [tune(number) for number in range(40)]
    scores = {piece.name: write_piece(tmp_path, piece) for piece in pieces}
    rows = dance_rows(tmp_path, pieces, split_pieces(pieces))
    firsts = []
    for row in rows:
        found = read_score((tmp_path / row.path).read_bytes())
        name, _, first = row.key.rpartition("-")
        firsts.append(int(first))
        whole = scores[name].notes[firsts[-1] : firsts[-1] + EXCERPT_NOTES]
        assert len(found) == EXCERPT_NOTES and int(found.notes[0, Column.START]) == 0
        assert torch.equal(found.column(Column.PITCH), whole[:, Column.PITCH])
        assert torch.equal(found.column(Column.START), whole[:, Column.START] - whole[0, Column.START])
        assert found.metres.tolist() == [[0, 4, 4]] and found.column(Column.PROGRAM).unique().tolist() == [0]
    assert len(set(firsts)) > 20 and len({first % 6 for first in firsts}) == 6  # any place in a bar of six eighths


def test_short_and_untyped_tunes_are_no_excerpts(tmp_path: Path) -> None:
    short = Piece("ryansMammoth/s", "ryansMammoth/s", "jig", (opening_in("train"),), ("melody",), EXCERPT_NOTES - 1)
    assert dance_rows(tmp_path, [short, tune(1, label=None)], {"ryansMammoth/s": "train", "ryansMammoth/1": "train"}) == []


def test_composers_give_evenly_spaced_excerpts_and_not_too_many(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(data, "MOST_WINDOWS", 4)
    pieces = [tune(number) for number in range(6)]
    for piece in pieces:
        write_piece(tmp_path, piece)
    rows = composer_rows(tmp_path, pieces, split_pieces(pieces))
    assert len(rows) == 4 and {row.label for row in rows} == {"fiddle"}  # 80 notes hold one excerpt of 64


def test_shards_hold_labels_and_splits_and_can_be_read_back(tmp_path: Path) -> None:
    pieces = [tune(0), tune(1, label="jig"), tune(2, TEST)]
    for piece in pieces:
        write_piece(tmp_path, piece)
    rows = dance_rows(tmp_path, pieces, split_pieces(pieces))
    write_shards(tmp_path, "dance", rows)
    assert rows_of(tmp_path, "dance") == rows
    found = excerpts(tmp_path, "dance")
    assert found.classes == ["jig", "reel"] and found.labels.tolist() == [1, 0, 1] and found.test.tolist() == [False, False, True]
    assert found.notes.shape == (3, 32, 3)
    assert (tmp_path / "dance/index.json").is_file()
    with (tmp_path / "dance.csv").open() as file:
        assert next(csv.reader(file)) == ["key", "path", "label", "split"]


def test_an_excerpt_leaves_the_score_as_it_was(tmp_path: Path) -> None:
    score = write_piece(tmp_path, tune(0))
    before = score.notes.clone()
    assert excerpt(score, 5, 8).notes[0].tolist()[0] == 0
    assert torch.equal(score.notes, before)
