import tempfile
from pathlib import Path

import pytest
import torch

from benchmarks.demo.tunes import abc_notes, clean_abc, split_of, write_tunes
from multimodal.tokenizers.midi import read_notes

HEAD = "X:1\nT:A tune\nR:hornpipe\nM:4/4\nL:1/8\nK:C\n"


def parse(abc: str) -> list[list[int]]:
    with tempfile.TemporaryFile() as messages:
        return abc_notes(abc, messages)[:, :3].tolist()


def test_notes_of_a_tune_are_exact_and_hornpipes_even() -> None:
    notes = parse(HEAD + "CDEF GABc|" * 4 + "\n")
    assert len(notes) == 32
    assert notes[:3] == [[0, 60, 240], [240, 62, 240], [480, 64, 240]]
    assert notes[8] == [1920, 60, 240]


def test_a_pickup_ends_where_the_first_bar_begins() -> None:
    notes = parse(HEAD + "|:GA|" + "CDEF GABc|" * 4 + "\n")
    assert notes[:3] == [[1440, 67, 240], [1680, 69, 240], [1920, 60, 240]]


def test_repeats_are_played_once_and_fingerings_are_no_notes() -> None:
    plain = HEAD + "CDEF GABc|CDEF GABc|CDEF GABc|CDEF GABc|\n"
    marked = HEAD + '|:"4"C~D.EvF {g}GABc|1CDEF GABc:|2 CDEF TGABc|]\n|:uCDEF GABc:| % the end\n'
    assert parse(marked) == parse(plain)


def test_cleaning_keeps_changes_of_key_and_unfolds_mail() -> None:
    head, body = clean_abc("X:7\nT:Name\nM:6/8\nL:1/8\nR:jig\nK:G\nA:|\nK:D\nf=\ng=20a=3Db\n")
    assert head == "X:1\nM:6/8\nL:1/8\nK:G\n"
    assert body == "A|\nK:D\nfg a=b\n"


def test_errors_and_short_tunes_are_refused(capfd: pytest.CaptureFixture) -> None:
    with pytest.raises(ValueError, match="error in the ABC text"):
        parse(HEAD + "CDEF @9 ?8 GABc|" * 8 + "\n")
    with pytest.raises(ValueError, match="fewer than 24 notes"):
        parse(HEAD + "CDEF|\n")
    assert capfd.readouterr() == ("", "")  # what the parser prints is kept back


def test_splits_know_neither_key_nor_note_values_nor_lower_parts() -> None:
    draws = torch.Generator().manual_seed(0)
    splits = []
    for _ in range(200):
        pitch = torch.randint(60, 80, (20,), generator=draws)
        notes = torch.stack([torch.arange(20) * 240, pitch, torch.full_like(pitch, 240), torch.full_like(pitch, 80)], dim=1)
        changed = notes.clone()
        changed[:, 0] *= 2
        changed[:, 1] += 5
        below = changed.clone()
        below[:, 1] -= 24
        assert split_of(notes) == split_of(torch.cat([below, changed]))
        splits.append(split_of(notes))
    assert 110 < splits.count("train") < 170 and splits.count("val") > 5 and splits.count("test") > 20


def test_files_can_be_read_and_nothing_is_redone(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    counts = write_tunes(tmp_path / "tunes", num_chorales=2, num_tunes=20)
    files = list((tmp_path / "tunes").glob("*/*/*.mid"))
    assert len(files) == sum(sum(labels.values()) for labels in counts.values()) == 22
    assert all(len(read_notes(path.read_bytes())) >= 24 for path in files)
    assert "chorales: 2" in capsys.readouterr().out
    assert write_tunes(tmp_path / "tunes", num_chorales=2, num_tunes=20) == counts
    assert capsys.readouterr().out == ""
