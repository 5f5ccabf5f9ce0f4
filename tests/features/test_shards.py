"""Features as shards: equal to the model's, for any batch size and however often the work was interrupted."""

import hashlib
import io
import json
import re

import numpy as np
import pytest
import torch
import webdataset

from multimodal.datamodules.shards.index import ShardIndex
from multimodal.datamodules.shards.reader import read_samples
from multimodal.datamodules.tokenizing.tokenize import RunOptions
from multimodal.errors import SampleError
from multimodal.features import shards as room
from multimodal.features.reader import FeatureReader, FeatureSettings
from multimodal.features.shards import FeatureShardSettings, write_feature_shards


def settings(model, features=None, **more) -> FeatureShardSettings:
    return FeatureShardSettings(FeatureSettings(str(model[0]), "image", **(features or {})), **more)


def stored(index: ShardIndex) -> dict[str, dict[str, bytes]]:
    """Key -> fields."""
    raws = [
        raw for split in index.splits.values() for info in split for raw in read_samples(index.location(info), range(9)[: info.samples], 9)
    ]
    return {raw.key: raw.fields for raw in raws}


def features(index: ShardIndex) -> dict[str, np.ndarray]:
    return {
        key: np.load(io.BytesIO(own["features.npy"]), allow_pickle=False) for key, own in stored(index).items() if "features.npy" in own
    }


def hashes(folder) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(folder.glob("*.*"))}


@pytest.mark.parametrize("vector", ["mean", "class", "class_and_mean", "none"])
@pytest.mark.parametrize("layer, batch_size", [("out", 64), (1, 2)])
def test_features_are_the_models_own(shards, model, values, tmp_path, vector, layer, batch_size):
    how = settings(model, {"layers": (layer,), "vector": vector}, batch_size=batch_size)
    found = features(write_feature_shards(shards, tmp_path / "to", how).index)
    assert set(found) == set(values) and len(found) == 36
    for key, picture in values.items():
        with torch.no_grad():
            final, seen = model[1].forward_intermediates(picture[None], indices=[1], output_fmt="NLC", return_prefix_tokens=True)
        special, tokens = (final[0, :1], final[0, 1:]) if layer == "out" else (seen[0][1][0], seen[0][0][0])
        mean = tokens.mean(0)
        expected = {"mean": mean, "class": special[0], "class_and_mean": torch.cat([special[0], mean]), "none": tokens}[vector]
        assert found[key].dtype == np.float32
        np.testing.assert_allclose(found[key], expected.numpy(), atol=2e-5)


def test_webdataset_reads_them_with_their_labels(shards, model, tmp_path):
    index = write_feature_shards(shards, tmp_path / "to", settings(model), ["test"]).index
    paths = [index.location(info) for info in index.splits["test"]]
    read = list(webdataset.WebDataset(paths, shardshuffle=False, empty_check=False).decode())
    assert len(read) == 12 and list(index.splits) == ["test"]
    own = features(index)
    for sample in read:
        np.testing.assert_array_equal(sample["features.npy"], own[sample["__key__"]])
        assert sample["json"]["label"] in ("dark", "bright")
    assert index.classes == ["bright", "dark"] and index.fields["features.npy"].samples == 12
    assert (
        index.writer["features"]["layer"] == "out"
        and index.writer["features"]["model"] == FeatureReader(settings(model).features).fingerprint()
    )


def test_fields_are_kept_or_left_out_and_numbers_halved(shards, model, tmp_path):
    lean = write_feature_shards(shards, tmp_path / "lean", settings(model, precision="float16")).index
    full = write_feature_shards(shards, tmp_path / "full", settings(model, keep=True)).index
    assert {frozenset(own) for own in stored(lean).values()} == {frozenset({"json", "features.npy"})}
    source = stored(shards)
    assert all({**own, "features.npy": b""} == {**source[key], "features.npy": b""} for key, own in stored(full).items())
    assert list(stored(full)) == list(source) == list(stored(lean))
    halves, wholes = features(lean), features(full)
    assert all(halves[key].dtype == np.float16 and np.array_equal(halves[key], wholes[key].astype(np.float16)) for key in wholes)


def test_an_interrupted_run_goes_on_to_the_same_bytes(shards, model, tmp_path, monkeypatch):
    whole = write_feature_shards(shards, tmp_path / "whole", settings(model))
    make, calls = room.FeatureShardWriter.__call__, []

    def fail_in_the_third(self, job):
        calls.append(job.path)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return make(self, job)

    monkeypatch.setattr(room.FeatureShardWriter, "__call__", fail_in_the_third)
    with pytest.raises(KeyboardInterrupt):
        write_feature_shards(shards, tmp_path / "to", settings(model))
    assert not (tmp_path / "to/index.json").exists()
    again = write_feature_shards(shards, tmp_path / "to", settings(model))
    assert again.kept == 2 and len(calls) == 3 + len(hashes(tmp_path / "whole")) - 1 - 2
    assert hashes(tmp_path / "to") == hashes(tmp_path / "whole") and whole.index == again.index
    assert write_feature_shards(shards, tmp_path / "to", settings(model)).kept == len(hashes(tmp_path / "to")) - 1


@pytest.mark.parametrize(
    "change", [{"precision": "float16"}, {"keep": True}, {"features": {"layers": (0,)}}, {"features": {"vector": "class"}}]
)
def test_what_was_made_otherwise_is_not_taken_for_the_result(shards, model, tmp_path, change):
    write_feature_shards(shards, tmp_path / "to", settings(model))
    with pytest.raises(ValueError, match="holds other shards, or damaged ones"):
        write_feature_shards(shards, tmp_path / "to", settings(model, **change))
    replaced = write_feature_shards(shards, tmp_path / "to", settings(model, **change), options=RunOptions(overwrite=True))
    assert replaced.kept == 0 and len(features(replaced.index)) == 36


def test_a_bad_sample_stops_or_is_listed_and_written_without_features(damaged, model, tmp_path):
    with pytest.raises(SampleError, match=r"train-000001.*png"):
        write_feature_shards(damaged, tmp_path / "a", settings(model))
    result = write_feature_shards(damaged, tmp_path / "b", settings(model, on_error="skip", batch_size=3))
    assert len(result.problems) == 1 and "train-000001" in result.problems[0]
    assert len(features(result.index)) == 35 and len(stored(result.index)) == 36
    lost = next(key for key, own in stored(result.index).items() if "features.npy" not in own)
    assert lost in result.problems[0] and json.loads(stored(result.index)[lost]["json"])["label"]


def test_numbers_that_cannot_be_stored_are_refused():
    with pytest.raises(ValueError, match=re.escape("float16 holds numbers up to 65,504, a feature is 70,000: use float32")):
        room.npy(torch.tensor([1.0, -7e4]), "float16")
    with pytest.raises(ValueError, match="not finite"):
        room.npy(torch.tensor([1.0, float("nan")]), "float32")


def test_what_does_not_fit_is_refused(shards, model, tmp_path):
    for how, splits, message in (
        (settings(model), ["dev"], "no split dev; splits there: "),
        (settings(model, {"layers": "all"}), [], "features are written of one layer, got "),
        (settings(model, {"layers": (5,)}), [], "some of -3 to 2 and 'out', got .5."),
    ):
        with pytest.raises(ValueError, match=message):
            write_feature_shards(shards, tmp_path / "to", how, splits)
    with pytest.raises(ValueError, match="is the source: write the features to another folder"):
        write_feature_shards(shards, shards.root, settings(model))
    silent = FeatureShardSettings(FeatureSettings(str(model[0] / "silent")))
    with pytest.raises(ValueError, match="does not say how files of 'image' are read: name a --transform FILE"):
        write_feature_shards(shards, tmp_path / "to", silent)
    assert not (tmp_path / "to/index.json").exists()
