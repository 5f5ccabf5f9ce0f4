import warnings
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from multimodal.datamodules.shards.index import FieldInfo, ShardIndex, StoredIds
from multimodal.datamodules.shards.reader import RawSample
from multimodal.datamodules.tokenizing.id_arrays import ids_to_npy
from multimodal.datamodules.tokenizing.stored_ids import LibraryWarning, StoredViews, check_stored, crop_seed, ids_field
from multimodal.errors import SampleError
from multimodal.fingerprint import library_versions, transform_fingerprint
from multimodal.tokenizers.image import ImageTransform
from multimodal.tokenizers.midi import MidiTransform

SIGHT, SOUND = ImageTransform(size=16), MidiTransform()
TOKENIZER = "a" * 64
PNG, MID = FieldInfo(4, 100, "image/png"), FieldInfo(4, 100, "audio/midi")


def stored(**changes):
    ids = StoredIds(TOKENIZER, "x.Tokenizer", [300], transform_fingerprint(SIGHT), 3, 5, ["train"], False, library_versions(SIGHT))
    return replace(ids, **changes)


def source(name, ids=None, fields=None):
    return ShardIndex({}, fields or {"png": PNG}, ids={"sight": ids} if ids else {}, root=Path(name))


def check(*sources, transform=SIGHT, tokenizers=None):
    return check_stored(sources, {"sight": transform}, {"sight": TOKENIZER} if tokenizers is None else tokenizers)


def test_ids_that_belong_to_the_run_are_returned_for_each_source():
    one, two = stored(), stored(seed=6, crops=1)
    found = check(source("a", one), source("b", two), source("c", fields={"mid": MID}))
    assert found == {"sight": [one, two, None]}
    assert check(source("a")) == {}


def test_without_the_fingerprint_of_a_tokenizer_nothing_stored_is_used():
    assert check(source("a", stored()), tokenizers={}) == {}


def test_another_tokenizer_is_refused_with_both_fingerprints():
    with pytest.raises(ValueError) as error:
        check(source("good", stored()), source("bad", stored(tokenizer="b" * 64)))
    message = str(error.value)
    assert "'sight' in bad" in message and "b" * 12 in message and "a" * 12 in message and "x.Tokenizer" in message
    assert "tokenize the shards again" in message and "\n" not in message


def test_another_transform_is_refused_with_both_fingerprints():
    other = ImageTransform(size=16, flip=0.0)
    with pytest.raises(ValueError, match="belong to views of another transform") as error:
        check(source("a", stored()), transform=other)
    assert transform_fingerprint(other)[:12] in str(error.value) and transform_fingerprint(SIGHT)[:12] in str(error.value)


def test_other_versions_of_libraries_are_told_but_not_refused():
    with pytest.warns(LibraryWarning, match=r"Pillow 1\.0 then, \d+.* now"):
        assert check(source("a", stored(libraries={"Pillow": "1.0"})))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check(source("a", stored()))


def test_sources_of_which_only_some_have_ids_are_refused():
    with pytest.raises(ValueError, match="has stored ids in a but none in b: tokenize both"):
        check(source("a", stored()), source("b"))


def test_sources_that_store_training_views_of_different_splits_are_refused():
    with pytest.raises(ValueError, match=r"different splits \(a: train; b: none\)"):
        check(source("a", stored()), source("b", stored(train=())))


def views(split="train", train=True, ids=None, transform=SIGHT):
    return StoredViews({"sight": [ids or stored(), None]}, {"sight": transform}, split, train)


@given(st.text(min_size=1, max_size=20), st.integers(0, 50), st.integers(1, 7))
def test_each_view_is_used_once_in_as_many_turns_as_there_are_views(key, first, crops):
    used = [views(ids=stored(crops=crops)).view("sight", 0, first + turn, key) for turn in range(crops)]
    assert len({view.field for view in used}) == crops
    for view in used:
        number = int(view.field.split(".")[1])
        assert (view.field, view.seed) == (ids_field("sight", number), crop_seed(5, key, number))


def test_samples_begin_with_different_views():
    some = views()
    first = Counter(some.view("sight", 0, 0, f"key{number}").field for number in range(3000))
    assert len(first) == 3 and min(first.values()) > 900


@pytest.mark.parametrize(
    ("split", "train", "name", "source_number", "used"),
    [
        ("train", True, "sight", 0, True),
        ("val", False, "sight", 0, True),
        ("train", False, "sight", 0, False),  # evaluation on training samples wants the central view
        ("val", True, "sight", 0, False),
        ("train", True, "sight", 1, False),
        ("train", True, "sound", 0, False),
    ],
)
def test_only_views_of_the_kind_that_is_wanted_are_used(split, train, name, source_number, used):
    assert (views(split, train).view(name, source_number, 3, "k") is not None) == used


def test_evaluation_has_one_view():
    assert {views("val", False).view("sight", 0, turn, "k").field for turn in range(5)} == {"sight.0.ids.npy"}


def test_values_are_ids_only_where_the_transform_owns_that_tokenizer():
    assert not views().view("sight", 0, 0, "k").values_are_ids
    own = stored(tokenizer=SOUND.tokenizer.fingerprint(), ragged=True)
    view = views(ids=own, transform=SOUND).view("sight", 0, 0, "k")
    assert view.values_are_ids and view.ragged
    assert not views(ids=stored(), transform=SOUND).view("sight", 0, 0, "k").values_are_ids


def test_missing_and_damaged_ids_are_named():
    view = views().view("sight", 0, 0, "k")
    good = ids_to_npy(torch.tensor([1, 299]), [300])
    assert view.ids(RawSample("s.tar", "k", {view.field: good}, ())).tolist() == [1, 299]
    for fields, reason in (({}, "no ids"), ({view.field: good[:-1]}, "damaged ids"), ({view.field: b"x"}, "not the .npy file")):
        with pytest.raises(SampleError, match=reason) as error:
            view.ids(RawSample("s.tar", "k", fields, ()))
        assert (error.value.shard, error.value.key, error.value.field) == ("s.tar", "k", view.field)
