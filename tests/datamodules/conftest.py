"""Small folders of numbers, their shards, and a transform that reads them."""

import hashlib
import io
import json
import random
import tarfile
from dataclasses import replace
from pathlib import Path

import hypothesis
import numpy as np
import pytest
import torch

from multimodal.batch import Item
from multimodal.datamodules.commands import main
from multimodal.datamodules.shards.contents import total
from multimodal.datamodules.shards.index import ShardIndex, field_info
from multimodal.datamodules.shards.shard_file import ShardFile
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
        arguments += ["--workers", "0"]
        assert main(["write", *arguments]) == 0
        return tmp_path / name

    return make


@pytest.fixture(scope="session")
def media():
    """A small good file of each kind: extension -> bytes."""
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (24, 32, 3), dtype=np.uint8)
    wave = 0.5 * np.sin(np.arange(4000) / 8)
    array = io.BytesIO()
    np.save(array, np.arange(60, dtype=np.int32).reshape(20, 3))
    files = {name: picture(pixels, kind) for name, kind in {"png": "PNG", "jpg": "JPEG"}.items()}
    files |= {name: sound(wave, name) for name in ("wav", "flac", "ogg")} | {name: film(pixels, name) for name in ("mp4", "avi")}
    return files | {"mid": melody(), "npy": array.getvalue(), "txt": "a little cat, ein Kätzchen".encode()}


def picture(pixels, kind):
    from PIL import Image

    file = io.BytesIO()
    Image.fromarray(pixels).save(file, kind)
    return file.getvalue()


def sound(wave, kind):
    import soundfile

    file = io.BytesIO()
    soundfile.write(file, wave, 8000, format=kind)
    return file.getvalue()


def film(pixels, kind):
    import av

    file = io.BytesIO()
    with av.open(file, "w", format=kind) as container:
        stream = container.add_stream("mpeg4", rate=8)
        stream.width, stream.height, stream.pix_fmt = 32, 24, "yuv420p"
        for number in range(8):
            frame = av.VideoFrame.from_ndarray(np.roll(pixels, number, axis=1), format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return file.getvalue()


def melody():
    from multimodal.tokenizers.midi import write_notes

    return write_notes(torch.tensor([[480 * beat, 60 + beat % 12, 240, 80] for beat in range(16)]))


@pytest.fixture
def pack(tmp_path):
    """Write samples, split name -> list of (key, fields), into one shard for each split, and return the folder."""

    def make(splits, name="packed") -> Path:
        folder = tmp_path / name
        folder.mkdir()
        shards, parts = {}, []
        for split, samples in splits.items():
            with ShardFile(folder / f"{split}-000000.tar") as shard:
                for key, fields in samples:
                    shard.add(key, fields)
            shards[split] = [shard.info] if samples else []
            parts.append(shard.contents)
        whole = total(parts)
        labels = {"class_counts": dict(whole.class_counts), "tag_counts": dict(whole.tag_counts)}
        ShardIndex(shards, field_info(whole.fields, whole.field_bytes), **labels).save(folder)
        return folder

    return make


@pytest.fixture
def numbers():
    """Twenty samples with a number, an array and metadata."""
    rng = random.Random(0)
    return [
        (f"c{i % 4}/{i:04d}", {"num": str(i).encode(), "bin": rng.randbytes(100), "json": json.dumps({"label": f"c{i % 4}"}).encode()})
        for i in range(20)
    ]


@pytest.fixture
def repack():
    """Put another tar in the place of a shard and tell the index its size and hash, so that only what is in it is wrong."""

    def replace_shard(folder, data, split="train") -> None:
        index = ShardIndex.load(folder)
        info = index.shards(split)[0]
        (folder / info.path).write_bytes(data)
        changed = replace(info, bytes=len(data), sha256=hashlib.sha256(data).hexdigest())
        replace(index, splits={**index.splits, split: [changed]}).save(folder)

    return replace_shard


@pytest.fixture
def tar_of():
    """Return the bytes of a tar with the given members: (name, bytes), or (TarInfo, bytes) as they are."""

    def make(members) -> bytes:
        file = io.BytesIO()
        with tarfile.open(fileobj=file, mode="w", format=tarfile.PAX_FORMAT) as archive:
            for name, data in members:
                info = name if isinstance(name, tarfile.TarInfo) else tarfile.TarInfo(name)
                info.size = info.size or len(data)
                archive.addfile(info, io.BytesIO(data))
        return file.getvalue()

    return make
