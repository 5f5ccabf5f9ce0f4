"""`multimodal features` and `multimodal probe`, as a user calls them."""

import csv
import json
import subprocess
import sys

import numpy as np
import pytest
import torch
import yaml

from multimodal.cli import main
from multimodal.features.probe_report import ProbeReport
from multimodal.pretrained import PretrainedModel


def features(model, shards, folder, *arguments) -> int:
    return main(["features", str(model[0]), str(shards.root), "--to", str(folder), *arguments])


@pytest.mark.parametrize("batch_size", [5, 64])
def test_an_array_has_a_row_for_each_key(shards, model, values, tmp_path, capsys, batch_size):
    assert features(model, shards, tmp_path / "to", "--batch-size", str(batch_size), "--layer", "-1") == 0
    assert "train.npy: 24 x 16 float32" in capsys.readouterr().out
    for split, count in (("train", 24), ("test", 12)):
        rows = np.load(tmp_path / f"to/{split}.npy", mmap_mode="r", allow_pickle=False)
        keys = (tmp_path / f"to/{split}.keys.txt").read_text().splitlines()
        assert isinstance(rows, np.memmap) and rows.shape == (count, 16) and len(set(keys)) == count
        for key, row in zip(keys, rows, strict=True):
            with torch.no_grad():
                expected = model[1].forward_intermediates(values[key][None], indices=[2], intermediates_only=True, output_fmt="NLC")[0]
            np.testing.assert_allclose(row, expected[0].mean(0).numpy(), atol=2e-5)
        labels, classes = np.load(tmp_path / f"to/{split}.labels.npy"), (tmp_path / "to/classes.txt").read_text().split()
        assert classes == ["bright", "dark"] and all(classes[label] in key for label, key in zip(labels, keys, strict=True))


def test_an_array_of_tokens_and_of_few_bytes(shards, model, tmp_path, capsys):
    assert features(model, shards, tmp_path / "to", "--pool", "none", "--precision", "float16", "--split", "test") == 0
    tokens = np.load(tmp_path / "to/test.npy")
    assert tokens.shape == (12, 4, 16) and tokens.dtype == np.float16 and not (tmp_path / "to/train.npy").exists()


def test_bad_samples_have_no_row_and_are_counted(damaged, model, tmp_path, capsys):
    assert features(model, damaged, tmp_path / "a") == 2
    error = capsys.readouterr().err
    assert "train-000001" in error and error.startswith("error: ") and error.count("\n") == 1
    assert not list((tmp_path / "a").glob("*"))
    with pytest.warns(UserWarning, match="left out"):
        assert features(model, damaged, tmp_path / "b", "--on-error", "skip") == 0
    assert "train.npy: 23 x 16 float32; 1 samples left out" in capsys.readouterr().out
    rows = np.load(tmp_path / "b/train.npy", mmap_mode="r")
    assert rows.shape == (23, 16) and len((tmp_path / "b/train.keys.txt").read_text().splitlines()) == 23
    assert (np.abs(rows).sum(1) > 0).all()


def test_shards_of_features_are_written(shards, model, tmp_path, capsys):
    assert features(model, shards, tmp_path / "to", "--format", "shards", "--workers", "0", "--keep") == 0
    assert "features.npy" in capsys.readouterr().out
    assert features(model, shards, tmp_path / "to", "--format", "shards", "--workers", "0", "--keep") == 0
    assert "kept 8 shards that were finished before" in capsys.readouterr().out


def probe(model, shards, *arguments) -> int:
    return main(["probe", str(model), str(shards.root), "--labels-per-class", "4", "--draws", "2", *arguments])


def test_a_probe_tells_each_layer_and_what_to_compare_with(shards, model, tmp_path, capsys):
    assert probe(model[0], shards, "--layers", "all", "--to", str(tmp_path / "a.json")) == 0
    said = capsys.readouterr().out
    assert [row.split("│")[1].strip() for row in said.splitlines() if row.startswith("│")] == ["0", "1", "2", "out", "best"]
    assert "12 test items (standard error at most 0.144), 24 to draw from; always the most frequent class: 0.500" in said
    report = ProbeReport.load(tmp_path / "a.json")
    assert {result.mean for result in report.results if result.layer == 0} == {1.0}  # dark and bright are told apart by any encoder
    assert [len(result.hits) for result in report.results] == [0] * 8 + [12] * 2
    assert probe(model[0], shards, "--to", str(tmp_path / "a.csv")) == 0
    with (tmp_path / "a.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["layer"], row["method"], row["accuracy"], row["test_items"]) for row in rows] == [
        ("out", "knn", "1.0", "12"),
        ("out", "linear", "1.0", "12"),
    ]


def test_two_models_are_compared_on_the_same_items(shards, model, tmp_path, capsys):
    blind = PretrainedModel(model[1].settings)
    blind.embeds["image"].proj.weight.data.zero_()
    blind.save_pretrained(tmp_path / "blind")
    assert probe(model[0], shards, "--to", str(tmp_path / "a.json")) == 0
    capsys.readouterr()
    assert probe(tmp_path / "blind", shards, "--compare", str(tmp_path / "a.json")) == 0
    said = capsys.readouterr().out
    assert "0.500 ± 0.000" in said and "-0.500" in said and f"against {model[0]}"[:20] in said  # what it says nothing about is worth chance
    content = json.loads((tmp_path / "a.json").read_text())
    (tmp_path / "b.json").write_text(json.dumps({**content, "test_keys": "others"}))
    assert probe(model[0], shards, "--compare", str(tmp_path / "b.json")) == 2
    assert "were probed on different test items" in capsys.readouterr().err


def test_a_transform_may_come_from_a_file(shards, model, tmp_path, capsys):
    settings = {"class_path": "multimodal.tokenizers.image.ImageTransform", "init_args": {"size": 16}}
    (tmp_path / "transform.yaml").write_text(yaml.safe_dump(settings))
    assert probe(model[0] / "silent", shards) == 2
    assert "name a --transform FILE" in capsys.readouterr().err
    assert probe(model[0] / "silent", shards, "--transform", str(tmp_path / "transform.yaml")) == 0


def test_mistakes_end_in_one_line_and_code_2(shards, model, tmp_path, capsys):
    (tmp_path / "words.json").write_text("{}")
    for arguments, message in (
        (["probe", str(tmp_path / "none"), str(shards.root)], "no such file or folder"),
        (["probe", str(model[0]), str(tmp_path / "none")], "does not exist"),
        (["probe", str(model[0]), str(shards.root), "--modality", "smell"], "modality must be one of ['image'], got 'smell'"),
        (["probe", str(model[0]), str(shards.root), "--layers", "first"], "layers must be 'all', or numbers and 'out', got 'first'"),
        (["probe", str(model[0]), str(shards.root), "--test-split", "dev"], "no samples of split 'dev'"),
        (["probe", str(model[0]), str(shards.root), "--draws", "0"], "draws must be at least 1, got 0"),
        (["probe", str(model[0]), str(shards.root), "--to", "x.txt"], "--to must end in .json or .csv"),
        (["probe", str(model[0]), str(shards.root), "--compare", str(tmp_path / "words.json")], "is no .json of `multimodal probe`"),
        (["probe", str(model[0])], "the following arguments are required: SHARDS"),
        (["features", str(model[0]), str(shards.root), "--to", str(tmp_path / "a"), "--keep"], "--keep has an effect only with --format"),
        (["features", str(model[0]), str(shards.root), "--to", str(tmp_path / "a"), "--layer", "all"], "features are written of one layer"),
        (["features", str(model[0]), str(shards.root), "--to", str(tmp_path / "a"), "--device", "tpu"], "device must be cpu or cuda"),
    ):
        assert main(arguments) == 2, arguments
        error = capsys.readouterr().err
        assert message in error and error.startswith("error: ") and error.count("\n") == 1
    assert not (tmp_path / "a").exists()


@pytest.mark.parametrize("command", ["probe", "features"])
def test_help_does_not_wait_for_torch(command):
    script = f"import sys; from multimodal.cli import main; main([{command!r}, '--help']); assert 'torch' not in sys.modules"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0 and f"usage: multimodal {command}" in done.stdout, done.stderr
