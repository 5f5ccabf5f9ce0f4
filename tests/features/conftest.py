"""Labelled shards of small pictures, and an untrained model that reads them."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from multimodal.datamodules.commands import main
from multimodal.datamodules.shards.index import ShardIndex
from multimodal.pretrained import ModelSettings, PretrainedModel
from multimodal.pretrained.settings import part


@pytest.fixture(scope="session")
def shards(tmp_path_factory) -> ShardIndex:
    """Pictures of two classes, dark and bright: 24 to train in shards of 5, 12 to test."""
    folder, generator = tmp_path_factory.mktemp("pictures"), np.random.default_rng(0)
    for number in range(36):
        bright = number % 2
        path = folder / "raw" / ("train" if number < 24 else "test") / ("dark", "bright")[bright] / f"{number:03d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = generator.integers(60, size=(16, 16 + number % 3, 3), dtype=np.uint8) + np.uint8(150 * bright)
        Image.fromarray(pixels).save(path)
    arguments = ["--split", "folders", "--samples-per-shard", "5", "--workers", "0"]
    assert main(["write", str(folder / "raw"), "--to", str(folder / "shards"), *arguments]) == 0
    return ShardIndex.load(folder / "shards")


@pytest.fixture(scope="session")
def model(tmp_path_factory):
    """The folder of the model, and the model."""
    torch.manual_seed(0)
    settings = ModelSettings(
        encoder=part("multimodal.nn.Encoder", dim=16, depth=3, num_heads=2, class_token=True),
        embeds={"image": part("multimodal.tokenizers.image.PatchEmbed", patch_size=8, channels=3)},
        transforms={"image": part("multimodal.tokenizers.image.ImageTransform", size=16)},
    )
    folder = tmp_path_factory.mktemp("model")
    built = PretrainedModel(settings).eval()
    built.save_pretrained(folder)
    PretrainedModel(replace(settings, transforms={})).save_pretrained(folder / "silent")
    return folder, built


@pytest.fixture(scope="session")
def values(shards, model) -> dict[str, torch.Tensor]:
    """Key -> the picture as the model reads it."""
    from multimodal.datamodules.shards.reader import read_samples

    transform, found = model[1].transform("image"), {}
    for split in shards.splits.values():
        for info in split:
            for raw in read_samples(shards.location(info), range(info.samples), info.samples):
                found[raw.key] = transform(transform.decode(raw.fields["png"]), torch.Generator(), False).values
    return found


@pytest.fixture
def damaged(shards, tmp_path) -> ShardIndex:
    """The same shards, where the fourth picture of the second training shard is no picture."""
    from multimodal.datamodules.shards.reader import read_samples
    from multimodal.datamodules.shards.shard_file import ShardFile

    folder = tmp_path / "damaged"
    folder.mkdir()
    splits = {}
    for split, infos in shards.splits.items():
        splits[split] = []
        for place, info in enumerate(infos):
            with ShardFile(folder / info.path) as file:
                for number, raw in enumerate(read_samples(shards.location(info), range(info.samples), info.samples)):
                    spoilt = split == "train" and (place, number) == (1, 3)
                    file.add(raw.key, {**raw.fields, "png": b"no picture"} if spoilt else raw.fields)
            splits[split].append(file.info)
    replace(shards, splits=splits).save(folder)
    return ShardIndex.load(folder)
