import json
import os

import pytest

from multimodal.datamodules.sources import FileError, scan_folder

ALL = {"train": 1.0}


def write(root, *paths):
    for path in paths:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(path)


def test_labels_keys_and_fields(tmp_path):
    write(tmp_path, "7/0001.NUM", "7/deep/x.num", "7/deep/x.abc", "alone.num", ".hidden/a.num", "7/.b.num", "7/README")
    scanned = scan_folder(tmp_path, ALL)
    found = {sample.key: (sample.label, sample.source, sorted(sample.files)) for sample in scanned.splits["train"]}
    assert found == {
        "7/0001": ("7", "7/0001.NUM", ["num"]),
        "7/deep/x": ("7", "7/deep/x.abc", ["abc", "num"]),
        "alone": (None, "alone.num", ["num"]),
    }
    assert scanned.ignored == {"": 1}


def test_only_the_extensions_asked_for(tmp_path):
    write(tmp_path, "a.num", "b.abc", "c.NUM")
    scanned = scan_folder(tmp_path, ALL, extensions=[".num"])
    assert sorted(sample.key for sample in scanned.splits["train"]) == ["a", "c"]
    assert scanned.ignored == {"abc": 1}


def test_metadata_is_made_or_completed(tmp_path):
    write(tmp_path, "a/x.num", "b/y.num")
    (tmp_path / "b/y.json").write_text('{"label": "mine", "extra": 1}')
    metadata = {sample.key: json.loads(sample.read()["json"]) for sample in scan_folder(tmp_path, ALL).splits["train"]}
    assert metadata == {"a/x": {"label": "a", "source": "a/x.num"}, "b/y": {"label": "mine", "extra": 1, "source": "b/y.json"}}


@pytest.mark.parametrize(
    ("content", "reason"), [("[1]", "not a JSON object"), ("{", "not a JSON object"), ('{"label": 3}', "label 3 is not a string")]
)
def test_unusable_metadata_names_the_file(tmp_path, content, reason):
    (tmp_path / "y.json").write_text(content)
    (sample,) = scan_folder(tmp_path, ALL).splits["train"]
    with pytest.raises(FileError, match=rf"y\.json: .*{reason}"):
        sample.read()


def test_empty_and_unreadable_files_are_named_or_listed(tmp_path):
    write(tmp_path, "good.num")
    (tmp_path / "empty.num").touch()
    (tmp_path / "lost.num").symlink_to(tmp_path / "nowhere")
    with pytest.raises(FileError, match=r"empty\.num: the file is empty"):
        scan_folder(tmp_path, ALL)
    scanned = scan_folder(tmp_path, ALL, on_error="skip")
    assert [sample.key for sample in scanned.splits["train"]] == ["good"]
    assert len(scanned.problems) == 2
    assert "lost.num: No such file" in scanned.problems[1]


def test_special_files_and_equal_fields_are_refused(tmp_path):
    write(tmp_path, "a.num", "a.NUM")
    with pytest.raises(FileError, match="already has a field 'num'"):
        scan_folder(tmp_path, ALL)
    (tmp_path / "a.NUM").unlink()
    os.mkfifo(tmp_path / "pipe.num")
    with pytest.raises(FileError, match="not a plain file"):
        scan_folder(tmp_path, ALL)


def test_linked_folders_are_followed_once(tmp_path):
    write(tmp_path, "real/a.num")
    (tmp_path / "real/loop").symlink_to(tmp_path)
    assert len(scan_folder(tmp_path, ALL).splits["train"]) == 1


def test_names_that_clean_to_the_same_text_stay_apart(tmp_path):
    write(tmp_path, "v1.2.num", "v1_2.num", "v1\\2.num")
    keys = [sample.key for sample in scan_folder(tmp_path, ALL).splits["train"]]
    assert len(set(keys)) == 3
    assert all("." not in key for key in keys)


def test_folders_as_splits(tmp_path):
    write(tmp_path, "train/a/1.num", "train/a/2.num", "val/a/1.num")
    scanned = scan_folder(tmp_path, "folders")
    assert {split: sorted((sample.key, sample.label) for sample in samples) for split, samples in scanned.splits.items()} == {
        "train": [("a/1", "a"), ("a/2", "a")],
        "val": [("a/1", "a")],
    }
    write(tmp_path, "more/a/1.num")
    with pytest.raises(ValueError, match=r"only train, val, test folders; .* has: more, train, val"):
        scan_folder(tmp_path, "folders")


def test_the_order_mixes_classes_and_is_fixed(make_source):
    source = make_source(count=200)
    first, second = (scan_folder(source, ALL).splits["train"] for _ in range(2))
    assert first == second
    assert {sample.label for sample in first[:30]} == {"c0", "c1", "c2", "c3"}


def test_nothing_to_take_says_what_is_there(tmp_path):
    with pytest.raises(ValueError, match="is not a folder"):
        scan_folder(tmp_path / "none", ALL)
    with pytest.raises(ValueError, match="extensions there: no files"):
        scan_folder(tmp_path, ALL)
    write(tmp_path, "a.abc")
    with pytest.raises(ValueError, match=r"no usable files with extension num; extensions there: abc \(1\)"):
        scan_folder(tmp_path, ALL, extensions=["num"])
