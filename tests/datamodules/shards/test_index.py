import json

import pytest

from multimodal.atomic import atomic_file
from multimodal.datamodules.shards.index import FieldInfo, ShardIndex, ShardInfo, StoredIds, mime_type


@pytest.fixture
def index():
    shards = [ShardInfo("train-000000.tar", 3, 10, "ab"), ShardInfo("train-000001.tar", 2, 10, "cd")]
    ids = {"number": StoredIds("fingerprint", "a.Class", [512, 4], "view", crops=2, seed=1, train=["train"], ragged=True)}
    fields = {"num": FieldInfo(5, 9, "application/octet-stream")}
    return ShardIndex({"train": shards, "val": []}, fields, {"b": 2, "a": 3}, ids, {"samples_per_shard": 3})


def change(folder, **changes):
    path = folder / "index.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_round_trip(index, tmp_path):
    index.save(tmp_path)
    for shard in index.shards("train"):
        (tmp_path / shard.path).touch()
    loaded = ShardIndex.load(tmp_path)
    assert loaded == index
    assert loaded.root == tmp_path
    assert (loaded.classes, loaded.num_samples("train"), loaded.num_samples("other")) == (["a", "b"], 5, 0)


def test_missing_index_says_what_to_do(tmp_path):
    with pytest.raises(ValueError, match=r"index.json does not exist: write shards with"):
        ShardIndex.load(tmp_path)


def test_all_missing_shards_are_named(index, tmp_path):
    index.save(tmp_path)
    with pytest.raises(ValueError, match=r"2 of 2 shards of .* are missing: train-000000.tar, train-000001.tar"):
        ShardIndex.load(tmp_path)


def test_another_version_is_refused(index, tmp_path):
    index.save(tmp_path)
    change(tmp_path, version=99)
    with pytest.raises(ValueError, match="version 99, this program reads version 2"):
        ShardIndex.load(tmp_path)


@pytest.mark.parametrize("path", ["../x.tar", "/etc/x.tar", "a/../../x.tar", "..\\x.tar", "C:x.tar"])
def test_shards_outside_the_folder_are_refused(index, tmp_path, path):
    index.save(tmp_path)
    change(tmp_path, splits={"train": [{"path": path, "samples": 1, "bytes": 1, "sha256": ""}]})
    with pytest.raises(ValueError, match="outside its folder"):
        ShardIndex.load(tmp_path)


@pytest.mark.parametrize("content", [b"", b"{", b"\xff", b"[1]", b'{"version": 2}', b'{"version": 2, "splits": {"a": [3]}, "fields": {}}'])
def test_damage_is_one_clear_error(tmp_path, content):
    (tmp_path / "index.json").write_bytes(content)
    with pytest.raises(ValueError, match=r"index\.json (is damaged|cannot be read|has version None)"):
        ShardIndex.load(tmp_path)


def test_a_failed_write_leaves_the_old_file_and_no_other(tmp_path):
    path = tmp_path / "file"
    path.write_text("old")
    with pytest.raises(OSError, match="disk"), atomic_file(path) as file:
        file.write(b"half")
        raise OSError("disk")
    assert [entry.name for entry in tmp_path.iterdir()] == ["file"]
    assert path.read_text() == "old"


@pytest.mark.parametrize(
    ("name", "expected"),
    [("png", "image/png"), ("flac", "audio/flac"), ("mid", "audio/midi"), ("fr.ogg", "audio/ogg"), ("x.0.ids.npy", "application/x-numpy")],
)
def test_the_name_of_a_field_stands_for_a_type(name, expected):
    assert mime_type(name) == expected


def test_an_unknown_name_is_a_stream_of_bytes():
    assert mime_type("num") == "application/octet-stream"


def test_labels_of_which_a_sample_may_have_several_are_kept(tmp_path):
    ShardIndex({}, {}, {"a": 1}, tag_counts={"rain": 2, "dog": 1}).save(tmp_path)
    loaded = ShardIndex.load(tmp_path)
    assert loaded.tag_counts == {"dog": 1, "rain": 2} and loaded.tags == ["dog", "rain"] and loaded.classes == ["a"]


def test_an_older_index_has_no_such_labels(index, tmp_path):
    path = index.save(tmp_path)
    content = json.loads(path.read_text())
    del content["tags"]
    path.write_text(json.dumps(content))
    for shard in index.shards("train"):
        (tmp_path / shard.path).touch()
    assert ShardIndex.load(tmp_path) == index and index.tags == []


def test_a_count_of_such_labels_that_is_no_number_is_refused(index, tmp_path):
    index.save(tmp_path)
    change(tmp_path, tags={"dog": -1})
    with pytest.raises(ValueError, match=r"tags: dog must be a whole number in \[0, \d+\], got -1"):
        ShardIndex.load(tmp_path)
