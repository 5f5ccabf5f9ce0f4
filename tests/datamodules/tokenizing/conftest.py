"""Shards of pictures and of tunes, and what tokenizes them."""

import hashlib

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from multimodal.datamodules.commands import main
from multimodal.datamodules.shards.index import ShardIndex
from multimodal.datamodules.tokenizing.tokenizer_recipe import TokenizerRecipe
from multimodal.tokenizers.image import DiscreteVAE
from multimodal.tokenizers.midi import write_notes

COUNT = 24


@pytest.fixture
def pictures(tmp_path):
    """Shards of noise pictures of many sizes, in train and val."""
    generator = np.random.default_rng(0)
    for number in range(COUNT):
        path = tmp_path / "pictures" / ("val" if number % 4 == 0 else "train") / "abc"[number % 3] / f"{number:03d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        size = 20 + number % 7, 18 + number % 11, 3
        Image.fromarray(generator.integers(256, size=size, dtype=np.uint8)).save(path)
    return write(tmp_path, "pictures")


def write(tmp_path, name):
    arguments = ["--split", "folders", "--samples-per-shard", "5", "--workers", "0"]
    assert main(["write", str(tmp_path / name), "--to", str(tmp_path / f"{name}-shards"), *arguments]) == 0
    return ShardIndex.load(tmp_path / f"{name}-shards")


@pytest.fixture
def recipe(tmp_path):
    """Two views of one random crop, and a tokenizer of random weights."""
    torch.manual_seed(0)
    tokenizer = DiscreteVAE(num_tokens=300, num_layers=2, width=4, codebook_dim=4)
    with torch.no_grad():
        for weight in tokenizer.parameters():
            weight.mul_(1.0 if weight.ndim > 1 else 0.0)  # without biases the ids depend on the pixels alone
    tokenizer.save_pretrained(tmp_path / "tokenizer")
    settings = {"class_path": "multimodal.tokenizers.image.ImageTransform", "init_args": {"size": 16, "tokenizer_size": 8}}
    (tmp_path / "transform.yaml").write_text(yaml.safe_dump(settings))
    return TokenizerRecipe.from_files(tmp_path / "transform.yaml", tmp_path / "tokenizer")


@pytest.fixture
def tunes(tmp_path):
    """Shards of pieces of 10 to 33 notes, all in train."""
    for number in range(COUNT):
        count = 10 + number
        pitches = 60 + torch.arange(count) * (number + 1) % 12
        notes = torch.stack([torch.arange(count) * 240, pitches, torch.full((count,), 240), torch.full((count,), 80)], 1)
        path = tmp_path / "tunes/train/x" / f"{number:03d}.mid"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(write_notes(notes))
    return write(tmp_path, "tunes")


@pytest.fixture
def hashes():
    """Name -> SHA-256 of the files in a folder."""

    def of(folder):
        return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(folder.glob("*.*"))}

    return of
