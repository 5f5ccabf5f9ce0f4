"""Shards of short films, an untrained encoder of films, and the config that cuts the ones for the other."""

import json
from pathlib import Path

import pytest
import torch

from multimodal.clips.recipe import ClipRecipe
from multimodal.datamodules.commands import main
from multimodal.datamodules.shards.index import ShardIndex
from multimodal.pretrained import ModelSettings, PretrainedModel
from multimodal.pretrained.settings import part
from tests.tokenizers.zoo import film

LENGTHS = (20, 33, 48, 60, 24)


@pytest.fixture(scope="session")
def films(tmp_path_factory) -> ShardIndex:
    """Four films to train, of 20 to 60 pictures, 30 a second, in shards of two, and one to test."""
    folder = tmp_path_factory.mktemp("films")
    for number, length in enumerate(LENGTHS):
        path = folder / "raw" / ("test" if number == 4 else "train") / f"film{number}.mp4"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(film(frames=length))
        path.with_suffix(".json").write_text(json.dumps({"number": number}))
    arguments = ["--split", "folders", "--samples-per-shard", "2", "--workers", "0"]
    assert main(["write", str(folder / "raw"), "--to", str(folder / "shards"), *arguments]) == 0
    return ShardIndex.load(folder / "shards")


@pytest.fixture(scope="session")
def config(tmp_path_factory) -> Path:
    """Clips of four pictures, ten a second, for an encoder of cubes of two."""
    folder = tmp_path_factory.mktemp("config")
    torch.manual_seed(0)
    settings = ModelSettings(
        encoder=part("multimodal.nn.Encoder", dim=16, depth=2, num_heads=2),
        embeds={"film": part("multimodal.tokenizers.video.TubeletEmbed", tubelet_size=2, patch_size=8)},
    )
    PretrainedModel(settings).eval().save_pretrained(folder / "model")
    windows = {"num_frames": 4, "frames_per_second": 10.0, "resize": 16, "size": 16}
    parts = {
        "windows": {"class_path": "multimodal.tokenizers.video.ClipWindows", "init_args": windows},
        "extractor": {
            "class_path": "multimodal.tokenizers.video.extractors.EncoderExtractor",
            "init_args": {"folder": str(folder / "model")},
        },
    }
    (folder / "clips.yaml").write_text(json.dumps(parts))  # JSON is YAML
    return folder / "clips.yaml"


@pytest.fixture(scope="session")
def recipe(config) -> ClipRecipe:
    return ClipRecipe.from_file(config)


@pytest.fixture(scope="session")
def features(films, recipe, tmp_path_factory) -> ShardIndex:
    """The shards with the features of the clips."""
    from multimodal.clips.features import FeatureOptions, write_clip_features

    folder = tmp_path_factory.mktemp("features")
    index = write_clip_features(films, folder / "shards", recipe, FeatureOptions(precision="float32")).index
    assert index is not None
    return index
