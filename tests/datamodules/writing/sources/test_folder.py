import json
import os

import pytest

from multimodal.datamodules.writing.sources import FileError, FolderRules, SplitRule, arrange, scan_folder


def write(root, *paths):
    for path in paths:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(path)


def samples(root, **rules):
    on_error = rules.pop("on_error", "raise")
    return {sample.key: sample for sample, _ in scan_folder(root, FolderRules(**rules), on_error).samples}


def fields(root, **rules):
    return {key: {name: piece.read().decode() for name, piece in sample.files.items()} for key, sample in samples(root, **rules).items()}


def test_labels_keys_and_fields(tmp_path):
    write(tmp_path, "7/0001.NUM", "7/deep/x.num", "7/deep/x.abc", "alone.num", ".hidden/a.num", "7/.b.num", "7/README")
    found = {key: (sample.label, sample.source, sorted(sample.files)) for key, sample in samples(tmp_path).items()}
    assert found == {
        "7/0001": ("7", "7/0001.NUM", ["num"]),
        "7/deep/x": ("7", "7/deep/x.abc", ["abc", "num"]),
        "alone": (None, "alone.num", ["num"]),
    }
    assert scan_folder(tmp_path).ignored == {"": 1}


def test_only_the_extensions_asked_for(tmp_path):
    write(tmp_path, "a.num", "b.abc", "c.NUM")
    assert sorted(samples(tmp_path, extensions=[".num"])) == ["a", "c"]
    assert scan_folder(tmp_path, FolderRules(extensions=["num"])).ignored == {"abc": 1}


def test_metadata_is_made_or_completed(tmp_path):
    write(tmp_path, "a/x.num", "b/y.num")
    (tmp_path / "b/y.json").write_text('{"label": "mine", "extra": 1}')
    found = samples(tmp_path)
    assert {key: json.loads(sample.read()["json"]) for key, sample in found.items()} == {
        "a/x": {"label": "a", "source": "a/x.num"},
        "b/y": {"label": "mine", "extra": 1, "source": "b/y.json"},
    }
    assert all(sample.metadata() == json.loads(sample.read()["json"]) for sample in found.values())


@pytest.mark.parametrize(
    ("content", "reason"), [("[1]", "not a JSON object"), ("{", "not a JSON object"), ('{"label": 3}', "label 3 is not a string")]
)
def test_unusable_metadata_names_the_file(tmp_path, content, reason):
    (tmp_path / "y.json").write_text(content)
    with pytest.raises(FileError, match=rf"y\.json: .*{reason}"):
        samples(tmp_path)["y"].read()


def test_empty_and_unreadable_files_are_named_or_listed(tmp_path):
    write(tmp_path, "good.num")
    (tmp_path / "empty.num").touch()
    (tmp_path / "lost.num").symlink_to(tmp_path / "nowhere")
    with pytest.raises(FileError, match=r"empty\.num: the file is empty"):
        scan_folder(tmp_path)
    scan = scan_folder(tmp_path, on_error="skip")
    assert [sample.key for sample, _ in scan.samples] == ["good"]
    assert len(scan.problems) == 2
    assert "lost.num: No such file" in scan.problems[1]


def test_special_files_and_equal_fields_are_refused(tmp_path):
    write(tmp_path, "a.num", "a.NUM")
    with pytest.raises(FileError, match="already has a field 'num'"):
        scan_folder(tmp_path)
    (tmp_path / "a.NUM").unlink()
    os.mkfifo(tmp_path / "pipe.num")
    with pytest.raises(FileError, match="not a plain file"):
        scan_folder(tmp_path)


def test_linked_folders_are_followed_once(tmp_path):
    write(tmp_path, "real/a.num")
    (tmp_path / "real/loop").symlink_to(tmp_path)
    assert len(samples(tmp_path)) == 1


def test_names_that_clean_to_the_same_text_stay_apart(tmp_path):
    write(tmp_path, "v1.2.num", "v1_2.num", "v1\\2.num")
    keys = set(samples(tmp_path))
    assert len(keys) == 3
    assert all("." not in key for key in keys)


def test_folders_as_splits(tmp_path):
    write(tmp_path, "train/a/1.num", "train/a/2.num", "val/a/1.num")
    scan = scan_folder(tmp_path, FolderRules(split_folders=True))
    splits = arrange(scan, SplitRule(None))
    assert {split: sorted((sample.key, sample.label) for sample in found) for split, found in splits.items()} == {
        "train": [("a/1", "a"), ("a/2", "a")],
        "val": [("a/1", "a")],
    }
    write(tmp_path, "more/a/1.num")
    with pytest.raises(ValueError, match=r"only train, val, test folders; .* has: more, train, val"):
        scan_folder(tmp_path, FolderRules(split_folders=True))


def test_merged_folders_give_one_sample_for_equal_paths(tmp_path):
    write(tmp_path, "photos/cat/001.png", "sounds/cat/001.wav", "sounds/dog/002.wav")
    assert fields(tmp_path, merge_folders=True) == {
        "cat/001": {"png": "photos/cat/001.png", "wav": "sounds/cat/001.wav"},
        "dog/002": {"wav": "sounds/dog/002.wav"},
    }
    assert {key: sample.label for key, sample in samples(tmp_path, merge_folders=True).items()} == {"cat/001": "cat", "dog/002": "dog"}


def test_an_extension_of_several_merged_folders_carries_their_names(tmp_path):
    write(tmp_path, "Left Eye/1.png", "right/1.png", "right/2.png", "notes/1.txt")
    assert fields(tmp_path, merge_folders=True) == {
        "1": {"left_eye.png": "Left Eye/1.png", "right.png": "right/1.png", "txt": "notes/1.txt"},
        "2": {"right.png": "right/2.png"},
    }


def test_a_file_outside_of_the_merged_folders_is_refused_or_listed(tmp_path):
    write(tmp_path, "a/1.num", "b/1.abc", "loose.num")
    with pytest.raises(FileError, match=r"loose\.num: lies outside of the sub-folders that --merge-folders"):
        samples(tmp_path, merge_folders=True)
    assert list(samples(tmp_path, merge_folders=True, on_error="skip")) == ["1"]


def test_patterns_give_fields_to_names_of_ones_own(tmp_path):
    write(tmp_path, "x/tiger.png", "x/tiger.ogg", "x/tiger_desc_fr.ogg", "x/tiger_desc.ogg", "x/tiger_de_AT.ogg", "x/tiger_2.png")
    pattern = r"(?P<key>.+?)_(?P<field>(desc|[a-z]{2})(_[a-zA-Z]{2})?\.ogg)"
    found = {key: sorted(names) for key, names in fields(tmp_path, field_patterns=[pattern]).items()}
    assert found == {"x/tiger": ["de_at.ogg", "desc.ogg", "desc_fr.ogg", "ogg", "png"], "x/tiger_2": ["png"]}


@pytest.mark.parametrize(
    ("pattern", "message"),
    [("(", "is not a regular expression"), ("(.+)", "needs groups key and field"), (r"(?P<key>.+)\.(?P<field>num)x?", None)],
)
def test_patterns_must_name_key_and_field(tmp_path, pattern, message):
    write(tmp_path, "a.num")
    if message is None:
        assert list(samples(tmp_path, field_patterns=[pattern])) == ["a"]
    else:
        with pytest.raises(ValueError, match=message):
            samples(tmp_path, field_patterns=[pattern])


def test_a_field_that_a_shard_cannot_hold_is_refused(tmp_path):
    write(tmp_path, "a b.num")
    with pytest.raises(FileError, match=r"the field ' b\.num' may only have letters"):
        samples(tmp_path, field_patterns=["(?P<key>a)(?P<field>.*)"])


def test_nothing_to_take_says_what_is_there(tmp_path):
    with pytest.raises(ValueError, match="is not a folder"):
        scan_folder(tmp_path / "none")
    with pytest.raises(ValueError, match="extensions there: no files"):
        scan_folder(tmp_path)
    write(tmp_path, "a.abc")
    with pytest.raises(ValueError, match=r"no usable files with extension num; extensions there: abc \(1\)"):
        scan_folder(tmp_path, FolderRules(extensions=["num"]))


def test_a_file_that_grew_since_the_scan_is_named(tmp_path):
    write(tmp_path, "a.num")
    sample = samples(tmp_path)["a"]
    (tmp_path / "a.num").write_text("something longer")
    with pytest.raises(FileError, match=r"a\.num: had 5 bytes when it was scanned, now 16"):
        sample.read()
