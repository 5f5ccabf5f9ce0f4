import json

import pytest

from multimodal.datamodules.shards.index import ShardIndex
from multimodal.datamodules.shards.index_schema import check_index

SHARD = {"path": "x.tar", "samples": 4, "bytes": 9, "sha256": "ab"}
IDS = {"tokenizer": "f", "tokenizer_class": "a.B", "vocab_sizes": [16, 4], "transform": "v", "crops": 2, "seed": 1, "train": ["train"]}
FIELD = {"samples": 4, "bytes": 20, "type": "a/b"}
CONTENT = {"version": 2, "splits": {"train": [SHARD]}, "fields": {"num": FIELD}, "classes": {"c": 4}, "ids": {"m": IDS}, "writer": {}}


def parse(**changes):
    return ShardIndex.parse(json.dumps(CONTENT | changes).encode(), "index.json")


def test_an_index_of_all_kinds_of_values_is_read():
    index = parse()
    assert (index.num_samples("train"), index.fields["num"].bytes, index.ids["m"].crops) == (4, 20, 2)


@pytest.mark.parametrize(
    ("part", "name", "value", "message"),
    [
        ("shard", "path", 5, r"splits, 'train', shard 0: path must be a string, got 5"),
        ("shard", "sha256", None, "sha256 must be a string, got None"),
        ("shard", "samples", "4", r"shard 0: samples must be a whole number in \[0, \d+\], got '4'"),
        ("shard", "samples", True, "samples must be a whole number"),
        ("shard", "bytes", -1, "bytes must be a whole number"),
        ("shard", "bytes", 10**30, "bytes must be a whole number"),
        ("field", "samples", 1.5, "fields, 'num': samples must be a whole number"),
        ("field", "type", [], r"fields, 'num': type must be a string, got \[\]"),
        ("ids", "tokenizer", 1, "ids, 'm': tokenizer must be a string"),
        ("ids", "crops", 0, "ids, 'm': crops must be at least 1, got 0"),
        ("ids", "crops", 10**9, r"crops must be a whole number in \[0, 10000\]"),
        ("ids", "vocab_sizes", [], "vocab_sizes must be a list of 1 to 1000 numbers"),
        ("ids", "vocab_sizes", "ab", "vocab_sizes must be a list"),
        ("ids", "vocab_sizes", [16, 0], r"vocab_sizes must be in \[1, 2147483648\]"),
        ("ids", "train", "train", "train must be a list of names of splits"),
        ("ids", "seed", 1.5, "seed must be a whole number"),
        ("ids", "ragged", 1, "ragged true or false"),
        ("ids", "libraries", {"a": 1}, "libraries must be names with versions"),
    ],
)
def test_a_value_of_another_type_or_outside_its_range_is_named(part, name, value, message):
    index = parse()
    target = {"shard": index.shards("train")[0], "field": index.fields["num"], "ids": index.ids["m"]}[part]
    object.__setattr__(target, name, value)  # the checks of types while tests run would refuse it sooner
    with pytest.raises(ValueError, match=message):
        check_index(index)


def test_a_count_of_a_class_is_a_whole_number():
    index = parse()
    index.class_counts["c"] = None
    with pytest.raises(ValueError, match="classes: c must be a whole number"):
        check_index(index)


@pytest.mark.parametrize(
    "changes",
    [
        {"splits": {"train": [SHARD | {"more": 1}]}},
        {"splits": {"train": [SHARD | {"bytes": -1}]}},
        {"splits": {"train": [SHARD | {"path": 5}]}},
        {"splits": {"train": "abc"}},
        {"splits": []},
        {"fields": {"num": 4}},
        {"classes": {"c": -1}},
        {"ids": {"m": IDS | {"crops": 0}}},
    ],
)
def test_an_index_of_another_form_is_damaged(changes):
    with pytest.raises(ValueError, match=r"^index\.json is damaged"):
        parse(**changes)


def test_an_index_nested_too_deeply_is_refused():
    with pytest.raises(ValueError, match=r"index\.json cannot be read"):
        ShardIndex.parse(b"[" * 200_000, "index.json")
