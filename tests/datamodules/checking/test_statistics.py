import contextlib
import io
import json
import math
import shutil
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from multimodal.datamodules.checking.statistics import Statistics, mean_and_spread, measure_shards, num_to_read
from multimodal.datamodules.commands import main
from multimodal.datamodules.shards.index import ShardIndex
from multimodal.protocols import Moments

ROOT = Path(__file__).resolve().parents[3]
EMBED = "multimodal.tokenizers.image.PatchEmbed"


def png(pixels):
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


@pytest.fixture
def pictures():
    rng = np.random.default_rng(0)
    return [rng.integers(0, 256, (int(rng.integers(4, 30)), int(rng.integers(4, 30)), 3), dtype=np.uint8) for _ in range(12)]


@pytest.fixture
def picture_shards(pack, pictures):
    samples = [(f"s{number:02d}", {"png": png(pixels), "json": b"{}"}) for number, pixels in enumerate(pictures)]
    return pack({"train": samples, "val": samples[:1]})


def test_mean_and_spread_are_those_of_all_values_of_all_files(picture_shards, pictures):
    found = measure_shards(ShardIndex.load(picture_shards), "train")["ImageTransform"]
    (moments,) = found.moments["pixels"].values()
    values = np.concatenate([pixels.reshape(-1, 3) for pixels in pictures]) / 255
    mean, spread, count = mean_and_spread(moments)
    np.testing.assert_allclose(mean, values.mean(0), rtol=1e-12)
    np.testing.assert_allclose(spread, values.std(0), rtol=1e-12)
    assert count == len(values)


def test_quantiles_are_those_of_all_files(picture_shards, pictures):
    found = measure_shards(ShardIndex.load(picture_shards), "train")["ImageTransform"]
    widths = [pixels.shape[1] for pixels in pictures]
    quantiles = found.quantiles("width")
    assert (quantiles["min"], quantiles["max"], quantiles["mean"]) == (min(widths), max(widths), pytest.approx(np.mean(widths)))
    assert quantiles["median"] == np.median(widths)
    assert set(found.values["channels"]) == {3}
    assert len(found.values["bytes"]) == 12


def test_grey_files_have_one_mean(pack):
    folder = pack({"train": [("a", {"png": png(np.full((4, 4), 51, np.uint8))}), ("b", {"png": png(np.full((4, 4), 204, np.uint8))})]})
    found = measure_shards(ShardIndex.load(folder), "train")["ImageTransform"]
    (moments,) = found.moments["pixels"].values()
    assert mean_and_spread(moments) == ([pytest.approx(0.5)], [pytest.approx(0.3)], 32)


def test_values_that_are_all_equal_have_no_spread():
    assert mean_and_spread(Moments(4, (2.0,), (1.0 - 1e-16,))).std == [0.0]


def test_every_kind_of_file_is_measured(pack, media):
    found = measure_shards(ShardIndex.load(pack({"train": [("a", {**media, "num": b"12"})]})), "train")
    measured = {field: {name: list(values) for name, values in group.values.items()} for group in found.values() for field in group.fields}
    assert measured["num"] == {"bytes": [2]}
    assert measured["png"]["width"] == [32, 32]  # of PNG and JPEG together
    assert measured["wav"]["seconds"] == pytest.approx([0.5, 0.5, 0.5], abs=0.02)
    assert measured["wav"]["sample rate"] == [8000] * 3
    assert measured["mid"]["notes"] == [16]
    assert (measured["mid"]["lowest pitch"], measured["mid"]["highest pitch"]) == ([60], [71])
    assert measured["mid"]["beats"] == [15.5]
    assert measured["txt"]["characters"] == [26]
    assert measured["txt"]["words"] == [5]
    assert measured["mp4"]["height"] == [24, 24]
    assert measured["mp4"]["frames per second"] == [8, 8]
    assert measured["mp4"]["seconds"] == pytest.approx([1, 1], abs=0.13)
    spread = [mean_and_spread(moments).std for group in found.values() for moments in group.moments.get("amplitude", {}).values()]
    assert spread == [[pytest.approx(0.5 / math.sqrt(2), rel=0.02)]]


def test_a_limit_takes_a_share_of_each_shard(make_shards):
    index = ShardIndex.load(make_shards(count=64, samples_per_shard=16))
    found = measure_shards(index, "train", limit=10)
    assert len(found["num"].values["bytes"]) == 10 == num_to_read(index, "train", 10)
    assert num_to_read(index, "train", 2) == 2
    assert num_to_read(index, "train", 1000) == num_to_read(index, "train", None) == 64


def test_processes_measure_the_same_to_the_last_bit(make_shards, picture_shards):
    for index in (ShardIndex.load(make_shards(count=64)), ShardIndex.load(picture_shards)):
        assert measure_shards(index, "train", num_workers=2) == measure_shards(index, "train")


def test_what_cannot_be_measured_is_counted_and_named(pack, pictures, capsys):
    samples = [(f"s{number}", {"png": png(pixels)}) for number, pixels in enumerate(pictures)]
    for number in (1, 4, 5, 7):
        samples[number][1]["png"] = b"no picture"
    folder = pack({"train": samples})
    found = measure_shards(ShardIndex.load(folder), "train")["ImageTransform"]
    assert (found.bad, len(found.problems), len(found.values["width"]), len(found.values["bytes"])) == (4, 3, 8, 12)
    assert main(["stats", str(folder), "--workers", "0"]) == 0
    out = " ".join(capsys.readouterr().out.split())
    assert "4 files of ImageTransform could not be measured, among them:" in out
    assert "key 's1', field 'png': not an image" in out


def test_a_part_of_a_config_is_written_and_named_by_its_path(picture_shards, tmp_path, capsys):
    from multimodal.cli import main as multimodal

    configs = tmp_path / "configs"
    shutil.copytree(ROOT / "configs", configs)
    modality = configs / "modality" / "images.yaml"
    content = yaml.safe_load(modality.read_text())
    content["init_args"]["embed"] = "measured.yaml"
    modality.write_text(yaml.safe_dump(content))
    part = configs / "modality" / "measured.yaml"
    assert main(["stats", str(picture_shards), "--fields", "png", "--to", str(part), "--part", EMBED, "--workers", "0"]) == 0
    capsys.readouterr()
    own = ["--data.init_args.shards", str(picture_shards), "--model.init_args.modalities.image.init_args.embed.init_args.patch_size", "8"]
    with contextlib.suppress(SystemExit):
        multimodal(["fit", "--config", str(configs / "pretrain" / "images.yaml"), *own, "--print_config"])
    embed = yaml.safe_load(capsys.readouterr().out)["model"]["init_args"]["modalities"]["image"]["init_args"]["embed"]
    (moments,) = measure_shards(ShardIndex.load(picture_shards), "train")["ImageTransform"].moments["pixels"].values()
    expected = mean_and_spread(moments)
    assert embed["class_path"] == EMBED
    assert embed["init_args"]["mean"] == pytest.approx(expected.mean, rel=1e-4)
    assert embed["init_args"]["std"] == pytest.approx(expected.std, rel=1e-4)
    assert embed["init_args"]["patch_size"] == 8


def test_all_figures_are_written(picture_shards, tmp_path):
    assert main(["stats", str(picture_shards), "--split", "val", "--to", str(tmp_path / "s.yaml"), "--workers", "0"]) == 0
    content = yaml.safe_load((tmp_path / "s.yaml").read_text())
    assert content["ImageTransform"]["files"] == 1
    assert content["ImageTransform"]["fields"] == ["png"]
    assert len(content["ImageTransform"]["pixels"]["mean"]) == 3
    assert content["json"]["bytes"]["max"] == 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--split", "test"], "has no samples in split 'test'; there are: train, val"),
        (["--limit", "0"], "the limit must be at least 1 sample, got 0"),
        (["--fields", "wav"], "has no field wav; there are: json, png"),
        (["--part", EMBED], "--part says what to write: it needs --to"),
        (["--to", "{tmp}/x", "--part", "os.system"], "os.system takes no mean and std, only command"),
        (["--to", "{tmp}/x", "--part", "no.such.Class"], "there is no class no.such.Class"),
        (["--to", "{tmp}/x", "--part", "name"], "there is no class name"),
        (["--to", "{tmp}/x", "--fields", "json", "--part", EMBED], "one mean and one spread are needed"),
        (["--workers", "-1"], "--workers must be at least 0, got -1"),
    ],
)
def test_errors_are_one_line(picture_shards, tmp_path, capsys, arguments, message):
    filled = [argument.replace("{tmp}", str(tmp_path)) for argument in arguments]
    assert main(["stats", str(picture_shards), "--workers", "0", *filled]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert message in error
    assert error.count("\n") == 1
    assert not (tmp_path / "x").exists()


def test_statistics_of_parts_add_up():
    whole, parts = Statistics(), [Statistics({"a"}), Statistics({"b"})]
    for number, part in enumerate(parts):
        part.add("size", float(number))
        part.add("pixels", Moments(2, (1.0,), (2.0,)))
        part.add("pixels", Moments(1, (1.0, 2.0), (3.0, 4.0)))
        whole.merge(part)
    assert whole.fields == {"a", "b"}
    assert list(whole.values["size"]) == [0.0, 1.0]
    assert whole.moments["pixels"] == {1: Moments(4, (2.0,), (4.0,)), 2: Moments(2, (2.0, 4.0), (6.0, 8.0))}


def test_the_metadata_is_no_place_for_numbers(pack):
    found = measure_shards(ShardIndex.load(pack({"train": [("a", {"json": json.dumps({"x": 1}).encode()})]})), "train")
    assert found.keys() == {"json"}
    assert found["json"].values.keys() == {"bytes"}
