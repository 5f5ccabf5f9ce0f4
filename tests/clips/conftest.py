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
from multimodal.tokenizers.clip_file import Clips, write_clips
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


LETTERS = "abcdefghijklmnopqrstuvwxyz' .,"
JOINT = {
    "class_path": "multimodal.tokenizers.clips_and_text.JointVocabulary",
    "init_args": {
        "words": {"class_path": "multimodal.tokenizers.text.CharacterTokenizer", "init_args": {"alphabet": LETTERS}},
        "num_clips": 12,
    },
}


@pytest.fixture(scope="session")
def spoken(tmp_path_factory) -> ShardIndex:
    """Shards of films of ten clips with ids and four sentences each: six to train, three each to validate and to test; one has no words."""
    folder = tmp_path_factory.mktemp("spoken")
    generator = torch.Generator().manual_seed(0)
    for number in range(12):
        split = "train" if number < 6 else "val" if number < 9 else "test"
        ids, starts = torch.randint(12, (10,), generator=generator), torch.arange(10) * 2.0
        path = folder / "raw" / split / f"film{number:02}.clips.safetensors"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(write_clips(Clips(starts, starts + 2.0, ids=ids)))
        said = [{"start": 5.0 * i, "end": 5.0 * i + 5, "text": f"put {'abcdefghijkl'[int(ids[2 * i])] * 2} in."} for i in range(4)]
        if number != 11:
            path.with_name(f"film{number:02}.captions.json").write_text(json.dumps(said))
    pattern = r"(?P<key>[^.]+)[.](?P<field>.+)"
    arguments = ["--split", "folders", "--field-pattern", pattern, "--workers", "0"]
    assert main(["write", str(folder / "raw"), "--to", str(folder / "shards"), *arguments]) == 0
    return ShardIndex.load(folder / "shards")


@pytest.fixture(scope="session")
def film_run(spoken, tmp_path_factory) -> Path:
    """A run that pretrained on them for a few steps."""
    from multimodal.cli import main as multimodal

    folder = tmp_path_factory.mktemp("film_run")
    position = {"class_path": "multimodal.nn.LearnedPosition", "init_args": {"size": [80]}}
    embed = {"dim": 16, "vocabulary": JOINT, "norm": "multimodal.nn.LayerNorm", "first_clips": "random", "position": position}
    film = {
        "transform": part_of("ClipsAndTextTransform", vocabulary=JOINT, max_tokens=80, max_step=1),
        "embed": part_of("new_joint_embed", **embed),
        "masking": {"class_path": "multimodal.masking.RandomMasking", "init_args": {"mask_ratio": 0.3}},
        "head": part_of("JointHead", vocabulary=JOINT, norm="multimodal.nn.LayerNorm"),
        "tied": True,
    }
    config = {
        "model": {
            "class_path": "multimodal.training.MaskedPretraining",
            "init_args": {
                "encoder": {"dim": 16, "depth": 2, "num_heads": 2, "block": "multimodal.nn.PostNormBlock", "norm_at": "none"},
                "modalities": {"film": {"class_path": "multimodal.modality.Modality", "init_args": film}},
                "objectives": ["multimodal.objectives.MaskedPrediction", "multimodal.objectives.Alignment"],
            },
        },
        "data": {
            "class_path": "multimodal.datamodules.shard_datamodule.ShardDataModule",
            "init_args": {"shards": str(spoken.root), "batch_size": 6, "num_workers": 0},
        },
        "trainer": {"max_epochs": 2, "enable_progress_bar": False, "accelerator": "cpu"},
        "run": str(folder / "run"),
    }
    (folder / "run.yaml").write_text(json.dumps(config))
    assert multimodal(["fit", "--config", str(folder / "run.yaml")]) == 0
    return folder / "run"


def part_of(name: str, **settings: object) -> dict[str, object]:
    return {"class_path": f"multimodal.tokenizers.clips_and_text.{name}", "init_args": settings}
