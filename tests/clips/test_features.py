"""Features of clips in shards: the extractor's own, for every way to do the work."""

import hashlib
import json
import re
from dataclasses import replace

import pytest
import torch

from multimodal.clips import features as room
from multimodal.clips.feature_stream import clips_of
from multimodal.clips.features import FeatureOptions, write_clip_features
from multimodal.clips.recipe import ClipRecipe
from multimodal.datamodules.shards.index import ShardIndex
from multimodal.datamodules.shards.reader import read_samples
from multimodal.datamodules.shards.shard_file import ShardFile
from multimodal.datamodules.tokenizing.tokenize import RunOptions
from multimodal.errors import SampleError
from multimodal.tokenizers.clip_file import Clips, read_clips, write_clips


def fields(index: ShardIndex) -> dict[str, dict[str, bytes]]:
    """Key -> fields."""
    return {
        raw.key: raw.fields
        for infos in index.splits.values()
        for info in infos
        for raw in read_samples(index.location(info), range(info.samples), info.samples)
    }


def stored(index: ShardIndex) -> dict[str, Clips]:
    return {found.raw.key: found.clips for split in index.splits for found in clips_of(index, split)}


def hashes(folder) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(folder.glob("*.*"))}


def spoilt(films: ShardIndex, folder) -> ShardIndex:
    """The same shards, where the second film is none."""
    folder.mkdir()
    splits = {}
    for split, infos in films.splits.items():
        splits[split] = []
        for info in infos:
            with ShardFile(folder / info.path) as file:
                for raw in read_samples(films.location(info), range(info.samples), info.samples):
                    bad = json.loads(raw.fields["json"])["number"] == 1
                    file.add(raw.key, {**raw.fields, "mp4": b"no film"} if bad else raw.fields)
            splits[split].append(file.info)
    replace(films, splits=splits).save(folder)
    return ShardIndex.load(folder)


def test_features_and_times_are_those_of_the_parts(films, features, recipe):
    windows, extractor = recipe.build()
    own, found = fields(films), stored(features)
    assert list(found) == list(own) and list(features.splits) == list(films.splits)
    for key, clips in found.items():
        cut = list(windows(own[key]["mp4"]))
        assert clips.starts.tolist() == pytest.approx([clip.start_s for clip in cut])
        assert clips.ends.tolist() == pytest.approx([clip.end_s for clip in cut])
        torch.testing.assert_close(clips.features, extractor(torch.stack([clip.values for clip in cut])), atol=1e-5, rtol=1e-5)
        assert clips.extractor == features.writer["clips"]["extractor"] and clips.ids is None
    counts = {json.loads(own[key]["json"])["number"]: len(clips) for key, clips in found.items()}
    assert counts == {0: 2, 1: 3, 2: 4, 3: 5, 4: 2}  # of 0.4 s


def test_films_are_left_out_or_kept_and_numbers_halved(films, features, recipe, tmp_path):
    kept = write_clip_features(films, tmp_path / "kept", recipe, FeatureOptions(keep=True, batch_size=1)).index
    assert {frozenset(own) for own in fields(features).values()} == {frozenset({"json", "clips.safetensors"})}
    source, whole, halves = fields(films), stored(features), stored(kept)
    for key, own in fields(kept).items():
        assert {name: data for name, data in own.items() if name != "clips.safetensors"} == source[key]
        assert halves[key].features.dtype == torch.float16
        torch.testing.assert_close(halves[key].features.float(), whole[key].features, atol=2e-3, rtol=2e-3)


def test_an_interrupted_run_goes_on_to_the_same_bytes(films, recipe, tmp_path, monkeypatch):
    write_clip_features(films, tmp_path / "whole", recipe)
    make, calls = room.ClipFeatureWriter.__call__, []

    def fail_in_the_second(self, job):
        calls.append(job.path)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return make(self, job)

    monkeypatch.setattr(room.ClipFeatureWriter, "__call__", fail_in_the_second)
    with pytest.raises(KeyboardInterrupt):
        write_clip_features(films, tmp_path / "to", recipe)
    assert not (tmp_path / "to/index.json").exists()
    again = write_clip_features(films, tmp_path / "to", recipe)
    assert again.kept == 1 and len(calls) == 4
    assert hashes(tmp_path / "to") == hashes(tmp_path / "whole")
    assert write_clip_features(films, tmp_path / "to", recipe).kept == 3 and len(calls) == 4
    with pytest.raises(ValueError, match="holds other shards"):
        write_clip_features(films, tmp_path / "to", recipe, FeatureOptions(keep=True))


@pytest.mark.slow
def test_processes_make_the_same_bytes(films, recipe, tmp_path):
    write_clip_features(films, tmp_path / "one", recipe)
    write_clip_features(films, tmp_path / "two", recipe, options=RunOptions(num_workers=2))
    assert hashes(tmp_path / "one") == hashes(tmp_path / "two")


def test_an_odd_film_stops_or_is_listed_and_written_without_clips(films, recipe, tmp_path):
    odd = spoilt(films, tmp_path / "odd")
    with pytest.raises(SampleError, match=r"mp4.*not a film that is known"):
        write_clip_features(odd, tmp_path / "a", recipe)
    result = write_clip_features(odd, tmp_path / "b", recipe, FeatureOptions(on_error="skip"))
    found = stored(result.index)
    assert len(result.problems) == 1 and "film1" in result.problems[0] and len(found) == 4
    assert [key for key in fields(result.index) if key not in found] == [key for key in fields(films) if "film1" in key]


def test_what_does_not_fit_is_refused(films, recipe, config, tmp_path):
    with pytest.raises(ValueError, match="is the source"):
        write_clip_features(films, films.root, recipe)
    with pytest.raises(ValueError, match=r"clips are cut of the fields mp4, avi.*only json"):
        write_clip_features(replace(films, fields={"json": films.fields["json"]}), tmp_path / "to", recipe)
    three = json.loads(recipe.windows)
    three["init_args"]["num_frames"] = 3
    with pytest.raises(ValueError, match="clips of 3 frames of 3 x 16 x 16 cannot be cut into cubes"):
        ClipRecipe(json.dumps(three), recipe.extractor).build()
    other = tmp_path / "other.yaml"
    other.write_text("windows: {}\n")
    with pytest.raises(ValueError, match=r"must have the entries windows and extractor.*it has .'windows'"):
        ClipRecipe.from_file(other)
    with pytest.raises(ValueError, match="batch_size must be at least 1, got 0"):
        FeatureOptions(batch_size=0)


def test_numbers_that_cannot_be_stored_are_refused():
    with pytest.raises(ValueError, match=re.escape("float16 holds numbers up to 65,504, a feature is 70,000: use --precision float32")):
        room._stored(torch.tensor([[-7e4]]), "float16")
    with pytest.raises(ValueError, match="not finite"):
        room._stored(torch.tensor([[float("nan")]]), "float32")


def test_equal_clips_are_equal_bytes():
    clips = Clips(torch.tensor([0.0]), torch.tensor([1.0]), torch.ones(1, 2), extractor="ab" * 32, tokenizer="cd" * 32)
    files = [write_clips(clips) for _ in range(20)]
    assert len(set(files)) == 1 and read_clips(files[0]).tokenizer == "cd" * 32
    assert torch.equal(read_clips(files[0]).features, clips.features)
