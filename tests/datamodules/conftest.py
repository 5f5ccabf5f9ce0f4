"""Small folders of numbers, their shards, and a transform that reads them."""

from pathlib import Path

import hypothesis
import pytest
import torch

from multimodal.batch import Item
from multimodal.datamodules.commands import main
from multimodal.protocols import Transform

hypothesis.settings.register_profile("shared_machine", deadline=None)
hypothesis.settings.load_profile("shared_machine")


class NumberTransform(Transform):
    """Decimal digits -> (number, noise); the noise is 0 in evaluation."""

    extensions = ("num",)

    def decode(self, data):
        try:
            return float(data)
        except ValueError:
            raise ValueError(f"not a number: {data[:20]!r}") from None

    def __call__(self, decoded, generator, train):
        noise = torch.rand((), generator=generator).item() if train else 0.0
        return Item(torch.tensor([decoded, noise], dtype=torch.float64))


@pytest.fixture
def transforms():
    return {"number": NumberTransform()}


@pytest.fixture
def make_source(tmp_path):
    """Write a folder of ``count`` numbers in ``classes`` sub-folders."""

    def make(name="source", count=40, classes=4, first=0) -> Path:
        root = tmp_path / name
        for number in range(first, first + count):
            folder = root / f"c{number % classes}"
            folder.mkdir(parents=True, exist_ok=True)
            (folder / f"{number:04d}.num").write_text(str(number))
        return root

    return make


@pytest.fixture
def make_shards(tmp_path, make_source):
    """Write shards of a folder of numbers, all in split train unless told otherwise, and return their folder."""

    def make(name="shards", split="train=1", samples_per_shard=16, **source) -> Path:
        folder = make_source(f"{name}-source", **source)
        arguments = [str(folder), "--to", str(tmp_path / name), "--split", split, "--samples-per-shard", str(samples_per_shard)]
        assert main(["write", *arguments]) == 0
        return tmp_path / name

    return make
