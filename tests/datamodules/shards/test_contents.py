"""What shards hold is counted from the metadata of their samples."""

import json

import pytest

from multimodal.datamodules.shards.contents import Contents, tags_of, total


def metadata(**content) -> dict[str, bytes]:
    return {"json": json.dumps(content).encode(), "num": b"1"}


def test_one_label_and_several_are_counted_apart():
    parts = [Contents(), Contents()]
    parts[0].add(metadata(label="dog", labels=["dog", "rain"]))
    parts[0].add(metadata(labels=["rain"]))
    parts[1].add(metadata(labels=[]))
    parts[1].add({"num": b"1"})
    whole = total(parts)
    assert whole.class_counts == {"dog": 1} and whole.tag_counts == {"dog": 1, "rain": 2} and whole.samples == 4
    assert Contents.from_json(json.loads(json.dumps(vars(whole)))) == whole


def test_notes_of_before_there_were_several_labels_are_read():
    assert Contents.from_json({"samples": 3, "class_counts": {"a": 3}}).tag_counts == {}


@pytest.mark.parametrize("labels", ["dog", ["dog", 3], ["dog", "dog"], {"dog": 1}, [["dog"]], True])
def test_labels_must_be_a_list_of_different_strings(labels):
    with pytest.raises(ValueError, match="are not a list of different strings"):
        tags_of({"labels": labels})
    contents = Contents()
    contents.add(metadata(labels=labels))  # an entry of that name may mean something else: it is not counted
    assert contents.tag_counts == {} and contents.samples == 1


def test_no_labels_differ_from_none_of_them():
    assert tags_of({}) is None and tags_of({"labels": None}) is None and tags_of({"labels": []}) == []
