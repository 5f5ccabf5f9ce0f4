"""Texts are read line by line from wherever they lie, and bad ones are named."""

import pytest

from multimodal.cli import main
from multimodal.errors import SampleError
from multimodal.tokenizers.vocabularies import texts as module
from multimodal.tokenizers.vocabularies.texts import Texts


def write_shards(folder, samples):
    for name, data in samples.items():
        path = folder / "files" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    assert main(["shards", "write", str(folder / "files"), "--to", str(folder / "shards"), "--split", "folders", "--workers", "0"]) == 0
    return folder / "shards"


def test_files_folders_and_shards_give_their_lines(tmp_path):
    (tmp_path / "one.text").write_text("\ufefffirst\n\n  \nsecond", encoding="utf-8")
    (tmp_path / "folder/deep").mkdir(parents=True)
    (tmp_path / "folder/deep/b.txt").write_text("third\r\n", encoding="utf-8", newline="")
    (tmp_path / "folder/c.md").write_text("not this", encoding="utf-8")
    shards = write_shards(tmp_path, {"train/a/1.txt": b"fourth\n", "train/a/1.en.txt": b"fifth", "val/a/2.txt": b"sixth"})
    found = Texts([tmp_path / "one.text", tmp_path / "folder", shards])
    assert list(found) == list(found) == ["first\n", "second", "third\r\n", "fourth\n", "fifth"]
    assert list(Texts([shards], "val")) == ["sixth"]


def test_a_line_without_end_comes_in_pieces_of_whole_characters(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "LONGEST", 3)
    (tmp_path / "a.txt").write_text("äöü€🙂x\ny", encoding="utf-8")
    assert list(Texts([tmp_path / "a.txt"])) == ["äöü", "€🙂x", "y"]


def test_a_file_that_is_not_utf8_is_named_with_its_line(tmp_path):
    (tmp_path / "a.txt").write_bytes(b"fine\n" * 3 + b"caf\xe9\n")
    with pytest.raises(ValueError, match=r"a\.txt.*not UTF-8: byte 0xe9"):
        list(Texts([tmp_path]))


def test_a_field_that_is_not_utf8_is_named_with_shard_and_key(tmp_path):
    shards = write_shards(tmp_path, {"train/a/1.txt": b"fine", "train/a/2.txt": b"\xff\xfe"})
    with pytest.raises(SampleError, match=r"train-000000\.tar, key 'a/2', field 'txt': not UTF-8: byte 0xff"):
        list(Texts([shards]))


def test_sources_without_texts_are_refused(tmp_path):
    (tmp_path / "empty").mkdir()
    shards = write_shards(tmp_path, {"train/a/1.png": b"no text"})
    for sources, split, said in (
        ([tmp_path / "nothing"], "train", "nothing does not exist"),
        ([tmp_path / "empty"], "train", r"holds no file \*\.txt"),
        ([shards], "train", "has no field 'txt': its fields are json, png"),
        ([shards], "test", "has no split 'test': one of train"),
        ([], "train", "sources is empty"),
    ):
        with pytest.raises(ValueError, match=said):
            Texts(sources, split)
