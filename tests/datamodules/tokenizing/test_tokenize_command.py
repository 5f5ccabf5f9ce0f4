import subprocess
import sys

import numpy as np
import pytest
import yaml
from PIL import Image

from multimodal.datamodules.commands import main
from multimodal.datamodules.shards.index import ShardIndex
from multimodal.tokenizers.image import DiscreteVAE


@pytest.fixture
def material(tmp_path, capsys):
    """Shards of six pictures, the config of their pretraining and its parts."""
    for number in range(6):
        path = tmp_path / "files/train" / "ab"[number % 2] / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((16, 16), 40 * number, np.uint8)).save(path)
    DiscreteVAE(num_tokens=9, channels=1, num_layers=2, width=4, codebook_dim=4).save_pretrained(tmp_path / "tokenizer")
    transform = {"class_path": "multimodal.tokenizers.image.ImageTransform", "init_args": {"size": 16, "channels": 1}}
    tokenizer = {"class_path": "multimodal.tokenizers.pretrained.load_tokenizer", "init_args": {"folder": str(tmp_path / "tokenizer")}}
    modality = {"init_args": {"transform": transform, "tokenizer": tokenizer}}
    (tmp_path / "transform.yaml").write_text(yaml.safe_dump(transform))
    (tmp_path / "config.yaml").write_text(yaml.safe_dump({"model": {"init_args": {"modalities": {"sight": modality}}}}))
    arguments = ["--split", "folders", "--samples-per-shard", "3", "--workers", "0"]
    assert main(["write", str(tmp_path / "files"), "--to", str(tmp_path / "shards"), *arguments]) == 0
    capsys.readouterr()
    return tmp_path


def tokenize(material, *more, to="ids"):
    return main(["tokenize", str(material / "shards"), "--to", str(material / to), "--modality", "sight", *more])


def test_a_config_or_its_parts_give_the_same_shards(material, capsys):
    more = ["--crops", "2", "--seed", "3", "--workers", "0"]
    assert tokenize(material, "--config", str(material / "config.yaml"), *more) == 0
    out = " ".join(capsys.readouterr().out.split())
    assert "sight.1.ids.npy" in out
    assert "ids of sight: DiscreteVAE, fingerprint" in out
    assert "vocabularies [9]; 2 views of each sample in train; the view of evaluation elsewhere" in out
    parts = ["--transform", str(material / "transform.yaml"), "--tokenizer", str(material / "tokenizer")]
    assert tokenize(material, *parts, *more, to="same") == 0
    for path in sorted((material / "ids").iterdir()):
        assert path.read_bytes() == (material / "same" / path.name).read_bytes()
    index = ShardIndex.load(material / "ids")
    assert (index.ids["sight"].crops, index.ids["sight"].seed) == (2, 3)
    assert main(["inspect", str(material / "ids")]) == 0


def test_parts_say_what_is_missing(material, capsys):
    config = ["--config", str(material / "config.yaml"), "--workers", "0"]
    assert tokenize(material, *config, "--part", "2/2") == 0
    assert capsys.readouterr().out == "this part is complete; still missing: 1\n"
    assert tokenize(material, *config, "--part", "1/2") == 0
    assert "ids of sight" in capsys.readouterr().out


def test_skipped_samples_are_listed(material, capsys):
    bad = material / "files/train/a/bad.png"
    bad.write_bytes(b"no picture")
    arguments = ["--to", str(material / "shards"), "--split", "folders", "--workers", "0", "--overwrite"]
    assert main(["write", str(material / "files"), *arguments]) == 0
    config = ["--config", str(material / "config.yaml"), "--workers", "0"]
    capsys.readouterr()
    assert tokenize(material, *config) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: shard ") and "key 'a/bad', field 'png'" in error and error.count("\n") == 1
    assert tokenize(material, *config, "--on-error", "skip") == 0
    out = capsys.readouterr().out
    assert "written without ids: 1 samples" in out and "key 'a/bad', field 'png'" in out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "name the transform by --config FILE"),
        (["--config", "{config}", "--transform", "{transform}"], "one of the two"),
        (["--transform", "{transform}"], "ImageTransform owns no tokenizer: name one"),
        (["--config", "{transform}"], "has no model.init_args.modalities.sight"),
        (["--config", "{config}", "--crops", "0"], "crops must be at least 1, got 0"),
        (["--config", "{config}", "--device", "abacus"], "device must be cpu or cuda"),
        (["--config", "{config}", "--workers", "-1"], "--workers must be at least 0"),
        (["--config", "{config}", "--part", "3/2"], "--part '3/2' is not"),
        (["--config", "{config}", "--tokenizer", "gone"], "no tokenizer in gone"),
        (["--config", "{config}", "--train-splits", "training"], "no split training"),
        (["--config", "{config}", "--to", "{transform}"], "is not a folder"),
        (["--config", "{config}", "--crop", "2"], "unrecognized arguments: --crop 2"),
        (["--config", "{config}", "--modality", "A.b"], "has no model.init_args.modalities.A.b; modalities there: sight"),
    ],
)
def test_errors_are_one_line(material, capsys, arguments, message):
    names = {"{config}": str(material / "config.yaml"), "{transform}": str(material / "transform.yaml")}
    assert tokenize(material, *[names.get(argument, argument) for argument in arguments]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.startswith("error: ") and error.count("\n") == 1
    assert not list(material.glob("ids/*.tar"))


def test_help_imports_nothing_heavy():
    code = """
import sys
from multimodal.datamodules.commands import main
assert main(["tokenize", "--help"]) == 0
assert not {"torch", "numpy", "yaml", "jsonargparse"} & sys.modules.keys()
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "--train-splits" in done.stdout
