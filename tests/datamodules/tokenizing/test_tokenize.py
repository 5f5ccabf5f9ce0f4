import json
from collections import Counter

import pytest
import torch

from multimodal.batch import Item
from multimodal.datamodules.commands import main
from multimodal.datamodules.shards.index import ShardIndex
from multimodal.datamodules.shards.reader import ShardReader
from multimodal.datamodules.streaming.locations import open_sources
from multimodal.datamodules.tokenizing.stored_ids import StoredViews, check_stored, crop_seed
from multimodal.datamodules.tokenizing.tokenize import RunOptions, tokenize_shards
from multimodal.datamodules.tokenizing.tokenized_shard import TokenizeSettings, build_parts
from multimodal.datamodules.tokenizing.tokenizer_recipe import TokenizerRecipe
from multimodal.errors import SampleError
from multimodal.protocols import Tokenizer, Transform

COUNT = 24  # pictures, and tunes

TUNES = TokenizerRecipe(
    json.dumps({"class_path": "multimodal.tokenizers.midi.MidiTransform", "init_args": {"max_notes": 16, "min_notes": 4, "transpose": 3}})
)


def samples(index, split):
    """Yield the samples of a split, in order."""
    for shard in index.shards(split):
        reader = ShardReader(index.location(shard), shard.samples)
        for position in range(shard.samples):
            yield reader.read(position)


def settings(name="sight", **more):
    return TokenizeSettings(name, **more)


def stored_views(index, recipe, name, split, train):
    parts = build_parts(recipe)
    transforms = {name: parts.transform}
    stored = check_stored([index], transforms, {name: parts.tokenizer.fingerprint()})
    return StoredViews(stored, transforms, split, train), parts


def test_keys_order_and_fields_stay_and_every_sample_has_ids(pictures, recipe, tmp_path):
    result = tokenize_shards(pictures, tmp_path / "ids", recipe, settings(crops=2))
    index = ShardIndex.load(tmp_path / "ids")
    assert result.index == index
    assert [shard.path for shard in index.shards("train")] == [shard.path for shard in pictures.shards("train")]
    for split, views in (("train", 2), ("val", 1)):
        before, after = list(samples(pictures, split)), list(samples(index, split))
        assert [sample.key for sample in before] == [sample.key for sample in after]
        for old, new in zip(before, after, strict=True):
            assert set(new.fields) - set(old.fields) == {f"sight.{view}.ids.npy" for view in range(views)}
            assert all(new.fields[name] == data for name, data in old.fields.items())
    assert {name: info.samples for name, info in index.fields.items()} == {
        "json": COUNT,
        "png": COUNT,
        "sight.0.ids.npy": COUNT,
        "sight.1.ids.npy": COUNT * 3 // 4,
    }
    assert index.class_counts == pictures.class_counts
    ids = index.ids["sight"]
    assert (ids.crops, ids.vocab_sizes, ids.train, ids.ragged) == (2, [300], ["train"], False)
    assert ids.tokenizer_class == "multimodal.tokenizers.image.dvae.DiscreteVAE"
    assert index.writer["tokenize"]["sight"]["batch_size"] == 64


@pytest.mark.parametrize("batch_size", [1, 4, 64])
def test_training_sees_exactly_the_view_that_was_tokenized(pictures, recipe, tmp_path, batch_size):
    index = tokenize_shards(pictures, tmp_path / "ids", recipe, settings(crops=3, seed=7, batch_size=batch_size)).index
    views, parts = stored_views(index, recipe, "sight", "train", train=True)
    seen = Counter()
    for turn in range(6):
        for raw in samples(index, "train"):
            view = views.view("sight", 0, turn, raw.key)
            image = parts.transform.decode(raw.fields["png"])
            item = parts.transform(image, view.generator(), True)
            ids = view.ids(raw)
            assert item.tokenizer_values is not None and ids.shape == (4,)
            assert torch.equal(parts.tokenizer.encode(item.tokenizer_values[None]), ids)
            seen[raw.key, view.field] += 1
    assert len(seen) == 3 * COUNT * 3 // 4 and set(seen.values()) == {2}  # each view once in as many epochs as there are views


def test_with_another_seed_the_views_no_longer_agree(pictures, recipe, tmp_path):
    index = tokenize_shards(pictures, tmp_path / "ids", recipe, settings(crops=2, seed=7)).index
    views, parts = stored_views(index, recipe, "sight", "train", train=True)
    agree = 0
    for raw in samples(index, "train"):
        view = views.view("sight", 0, 0, raw.key)
        generator = torch.Generator().manual_seed(view.seed + 1)
        item = parts.transform(parts.transform.decode(raw.fields["png"]), generator, True)
        agree += torch.equal(parts.tokenizer.encode(item.tokenizer_values[None]), view.ids(raw))
    assert agree < COUNT // 4


def test_other_splits_have_the_view_of_evaluation(pictures, recipe, tmp_path):
    index = tokenize_shards(pictures, tmp_path / "ids", recipe, settings(crops=2)).index
    views, parts = stored_views(index, recipe, "sight", "val", train=False)
    for turn in range(2):
        for raw in samples(index, "val"):
            view = views.view("sight", 0, turn, raw.key)
            item = parts.transform(parts.transform.decode(raw.fields["png"]), torch.Generator(), False)
            assert view.field == "sight.0.ids.npy"
            assert torch.equal(parts.tokenizer.encode(item.tokenizer_values[None]), view.ids(raw))


def test_values_that_are_ids_are_stored_as_they_are(tunes, tmp_path):
    index = tokenize_shards(tunes, tmp_path / "ids", TUNES, settings("sound", crops=2, drop_fields=("mid",))).index
    assert set(index.fields) == {"json", "sound.0.ids.npy", "sound.1.ids.npy"}
    assert index.ids["sound"].ragged and index.ids["sound"].vocab_sizes == [4, 18, 88, 66]
    views, parts = stored_views(index, TUNES, "sound", "train", train=True)
    differ = 0
    for old, new in zip(samples(tunes, "train"), samples(index, "train"), strict=True):
        for turn in range(2):
            view = views.view("sound", 0, turn, new.key)
            item = parts.transform(parts.transform.decode(old.fields["mid"]), view.generator(), True)
            assert view.values_are_ids and view.ragged
            assert torch.equal(view.ids(new), item.values)
        differ += new.fields["sound.0.ids.npy"] != new.fields["sound.1.ids.npy"]
    assert differ > COUNT // 2


class Parts:
    """A recipe of objects, for one process."""

    def __init__(self, transform, tokenizer):
        self.transform, self.tokenizer = transform, tokenizer

    def build(self):
        return self.transform, self.tokenizer


class NumberTransform(Transform):
    """A number -> that many values, or three where not ragged."""

    extensions = ("num",)

    def __init__(self, ragged):
        self.ragged = ragged

    def decode(self, data):
        return int(data)

    def __call__(self, decoded, generator, train):
        length = 1 + decoded % 5 if self.ragged else 3
        return Item(torch.full((length,), decoded), ragged=self.ragged)


class DigitTokenizer(Tokenizer):
    """Tens and ones of each number: two codebooks, ``repeat`` tokens for each value."""

    vocab_sizes = (10, 10)
    repeat = 1

    def encode(self, values, lengths=None):
        numbers = values.flatten().repeat_interleave(self.repeat)
        return torch.stack([numbers // 10, numbers % 10], 1)

    def fingerprint(self):
        return "digits"


@pytest.mark.parametrize("ragged", [False, True])
@pytest.mark.parametrize("repeat", [1, 2])
def test_codebooks_are_a_second_axis_and_ragged_items_keep_their_lengths(make_shards, tmp_path, ragged, repeat):
    tokenizer = DigitTokenizer()
    tokenizer.repeat = repeat
    index = ShardIndex.load(make_shards(count=40))
    recipe = Parts(NumberTransform(ragged), tokenizer)
    written = tokenize_shards(index, tmp_path / "ids", recipe, settings("n", batch_size=7)).index
    views, _ = stored_views(written, recipe, "n", "train", train=True)
    assert written.ids["n"].ragged == ragged
    for raw in samples(written, "train"):
        number = int(raw.fields["num"])
        length = repeat * (1 + number % 5 if ragged else 3)
        assert views.view("n", 0, 0, raw.key).ids(raw).tolist() == [[number // 10, number % 10]] * length


def test_a_second_modality_joins_the_first(pictures, tunes, recipe, tmp_path, make_shards):
    index = ShardIndex.load(make_shards(count=20, split="train=0.8,val=0.2"))
    first = tokenize_shards(index, tmp_path / "first", Parts(NumberTransform(False), DigitTokenizer()), settings("n")).index
    second = tokenize_shards(first, tmp_path / "second", Parts(NumberTransform(True), DigitTokenizer()), settings("m")).index
    assert second.ids["n"] == first.ids["n"] and second.ids["m"].ragged
    assert {"n.0.ids.npy", "m.0.ids.npy", "num", "json"} == set(second.fields)
    again = tokenize_shards(second, tmp_path / "again", Parts(NumberTransform(False), DigitTokenizer()), settings("m", crops=2)).index
    assert set(again.fields) == {"n.0.ids.npy", "m.0.ids.npy", "m.1.ids.npy", "num", "json"}
    fewer = tokenize_shards(again, tmp_path / "fewer", Parts(NumberTransform(False), DigitTokenizer()), settings("m")).index
    assert "m.1.ids.npy" not in fewer.fields


def test_bad_samples_stop_the_run_or_are_written_without_ids(make_source, tmp_path):
    source = make_source(count=20)
    (source / "c1/0005.num").write_text("five")
    assert main(["write", str(source), "--to", str(tmp_path / "shards"), "--split", "train=1", "--workers", "0"]) == 0
    index, recipe = ShardIndex.load(tmp_path / "shards"), Parts(NumberTransform(False), DigitTokenizer())
    with pytest.raises(SampleError, match="key 'c1/0005', field 'num': invalid literal"):
        tokenize_shards(index, tmp_path / "ids", recipe, settings("n"))
    result = tokenize_shards(index, tmp_path / "ids", recipe, settings("n", on_error="skip"))
    assert len(result.problems) == 1 and "c1/0005" in result.problems[0]
    assert [raw.key for raw in samples(result.index, "train")] == [raw.key for raw in samples(index, "train")]
    assert result.index.fields["n.0.ids.npy"].samples == 19
    views, _ = stored_views(result.index, recipe, "n", "train", train=True)
    bad = next(raw for raw in samples(result.index, "train") if raw.key == "c1/0005")
    with pytest.raises(SampleError, match=r"field 'n.0.ids.npy': no ids: the sample could not be decoded"):
        views.view("n", 0, 0, bad.key).ids(bad)


def test_samples_without_the_modality_are_copied(make_source, tmp_path):
    source = make_source(count=8)
    (source / "c1/other.xyz").write_text("something else")
    assert main(["write", str(source), "--to", str(tmp_path / "shards"), "--split", "train=1", "--workers", "0"]) == 0
    index = ShardIndex.load(tmp_path / "shards")
    result = tokenize_shards(index, tmp_path / "ids", Parts(NumberTransform(False), DigitTokenizer()), settings("n"))
    assert result.problems == []
    assert {name: info.samples for name, info in result.index.fields.items()} == {"num": 8, "xyz": 1, "json": 9, "n.0.ids.npy": 8}


def test_a_damaged_source_is_named_even_where_bad_samples_are_skipped(make_shards, tmp_path):
    folder = make_shards(count=20)
    path = folder / "train-000001.tar"
    path.write_bytes(path.read_bytes()[:1500])
    recipe = Parts(NumberTransform(False), DigitTokenizer())
    with pytest.raises(SampleError, match=r"train-000001.tar.*the index says 4 samples, the shard holds 0"):
        tokenize_shards(ShardIndex.load(folder), tmp_path / "ids", recipe, settings("n", on_error="skip"))
    assert not (tmp_path / "ids/index.json").exists()


@pytest.mark.parametrize("name", ["{folder}/train-*.tar", "file://{folder}"])
def test_tars_without_an_index_and_remote_shards_are_sources_too(make_shards, tmp_path, monkeypatch, name):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    folder, recipe = make_shards(count=40), Parts(NumberTransform(False), DigitTokenizer())
    (index,) = open_sources([name.replace("{folder}", str(folder))])
    result = tokenize_shards(index, tmp_path / "ids", recipe, settings("n"))
    tokenize_shards(ShardIndex.load(folder), tmp_path / "same", recipe, settings("n"))
    for path in (tmp_path / "same").glob("*.tar"):
        assert (tmp_path / "ids" / path.name).read_bytes() == path.read_bytes()
    assert ShardIndex.load(tmp_path / "ids") == result.index
    assert result.index.num_samples("train") == 40


def test_shards_of_one_name_from_two_folders_are_refused(make_shards, tmp_path):
    make_shards("one/a", count=3), make_shards("two/a", count=3)
    (index,) = open_sources([f"{tmp_path}/*/a/*.tar"])
    with pytest.raises(ValueError, match=r"several shards of the name train-000000\.tar"):
        tokenize_shards(index, tmp_path / "ids", Parts(NumberTransform(False), DigitTokenizer()), settings("n"))


class UnevenTokenizer(DigitTokenizer):
    def encode(self, values, lengths=None):
        return super().encode(values)[:-1]


class WideTokenizer(DigitTokenizer):
    def encode(self, values, lengths=None):
        return super().encode(values) + 50


@pytest.mark.parametrize(
    ("tokenizer", "more", "message"),
    [
        (UnevenTokenizer(), {}, r"UnevenTokenizer gives 8 ids for 3 items of equal shape"),
        (WideTokenizer(), {}, r"ids from 50 to 50; they must be in \[0, 10\)"),
        (None, {}, "NumberTransform owns no tokenizer: name one"),
        (DigitTokenizer(), {"drop_fields": ("abc",)}, "the shards have no abc; fields there: json, num"),
        (DigitTokenizer(), {"drop_fields": ("num",)}, "num cannot go, the encoder reads it"),
        (DigitTokenizer(), {"train_splits": ("training",)}, "no split training; splits there: train"),
    ],
)
def test_what_does_not_fit_is_refused_before_anything_is_written(make_shards, tmp_path, tokenizer, more, message):
    index = ShardIndex.load(make_shards(count=3))
    with pytest.raises(ValueError, match=message):
        tokenize_shards(index, tmp_path / "ids", Parts(NumberTransform(False), tokenizer), settings("n", **{"batch_size": 3} | more))
    assert not list((tmp_path / "ids").glob("*.tar"))


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"name": "Image"}, "use lower-case letters"),
        ({"name": "a.b"}, "use lower-case letters"),
        ({"crops": 0}, "crops must be at least 1, got 0"),
        ({"crops": 10_001}, "crops must be at most 10000"),
        ({"seed": -1}, "seed must be at least 0"),
        ({"batch_size": 0}, "batch_size must be at least 1"),
        ({"device": "tpu"}, "device must be cpu or cuda, got 'tpu'"),
    ],
)
def test_settings_outside_their_range_are_refused(more, message):
    with pytest.raises(ValueError, match=message):
        settings(**more)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_a_missing_device_is_said():
    with pytest.raises(ValueError, match="no CUDA device"):
        settings(device="cuda")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device")
def test_a_gpu_gives_the_ids_of_the_cpu(pictures, recipe, tmp_path, hashes):
    for device in ("cpu", "cuda"):
        tokenize_shards(pictures, tmp_path / device, recipe, settings(device=device))
    assert len(hashes(tmp_path / "cpu")) == len(hashes(tmp_path / "cuda"))
    same = [
        one.fields["sight.0.ids.npy"] == two.fields["sight.0.ids.npy"]
        for split in ("train", "val")
        for one, two in zip(*(samples(ShardIndex.load(tmp_path / device), split) for device in ("cpu", "cuda")), strict=True)
    ]
    assert sum(same) >= 0.9 * len(same)  # sums in another order may tip a close choice


def test_no_sample_that_can_be_tokenized_is_said(make_source, tmp_path):
    source = make_source(count=2)
    for path in source.rglob("*.num"):
        path.write_text("x")
    assert main(["write", str(source), "--to", str(tmp_path / "shards"), "--split", "train=1", "--workers", "0"]) == 0
    recipe = Parts(NumberTransform(False), DigitTokenizer())
    with pytest.raises(ValueError, match=r"no sample can be tokenized; the last problem: .*invalid literal"):
        tokenize_shards(ShardIndex.load(tmp_path / "shards"), tmp_path / "ids", recipe, settings("n", on_error="skip"))


def test_the_source_is_not_written_over(make_shards):
    index = ShardIndex.load(make_shards(count=3))
    with pytest.raises(ValueError, match="is the source: write the new shards to another folder"):
        tokenize_shards(index, index.root, Parts(NumberTransform(False), DigitTokenizer()), settings("n"))


def test_what_is_there_already_is_not_made_again_and_other_shards_are_not_replaced_unasked(make_shards, tmp_path, monkeypatch):
    index, recipe = ShardIndex.load(make_shards(count=30)), Parts(NumberTransform(False), DigitTokenizer())
    first = tokenize_shards(index, tmp_path / "ids", recipe, settings("n", crops=2)).index
    changed = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "ids").iterdir()}
    assert tokenize_shards(index, tmp_path / "ids", recipe, settings("n", crops=2)).index == first
    assert {path.name: path.stat().st_mtime_ns for path in (tmp_path / "ids").iterdir()} == changed
    with pytest.raises(ValueError, match=r"made from others or with other settings: give another --to, or replace them with --overwrite"):
        tokenize_shards(index, tmp_path / "ids", recipe, settings("n", crops=1))
    replaced = tokenize_shards(index, tmp_path / "ids", recipe, settings("n", crops=1), RunOptions(overwrite=True)).index
    assert "n.1.ids.npy" not in replaced.fields and "n.1.ids.npy" in first.fields


def test_crop_seeds_are_63_bits_and_all_different():
    seeds = {crop_seed(seed, key, view) for seed in range(3) for key in ("a", "b", "a1") for view in range(12)}
    assert len(seeds) == 3 * 3 * 12
    assert all(0 <= seed < 2**63 for seed in seeds)
