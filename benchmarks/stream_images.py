"""Stream photographs from disk into training batches: ours beside ImageFolder, webdataset, mosaicml-streaming and litdata.

``python -m benchmarks.stream_images [--images 5000] [--workers 0 2]`` cuts JPEGs of 256 x 256 pixels from the photographs in scikit-learn
and scikit-image, writes them in the form of each library, and reads an epoch in random order: decode, random-resized crop to 224, flip,
batches of 64. Peers that are not installed are left out. Ours can stop and go on exactly at any step, and gives uint8, which a GPU
normalises; the usual recipe of the peers ends in float32, and a second line of each gives uint8 too.
"""

from __future__ import annotations

import argparse
import importlib.util
import io
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from rich.console import Console
from torch.utils.data import DataLoader
from torchvision.datasets import ImageFolder
from torchvision.transforms import v2

from benchmarks.side_by_side import compare, machine
from multimodal.datamodules.shard_datamodule import ShardDataModule
from multimodal.datamodules.shards.contents import Contents
from multimodal.datamodules.shards.index import ShardIndex, field_info
from multimodal.datamodules.shards.shard_file import ShardFile
from multimodal.tokenizers.image import ImageTransform

BATCH = 64
PACKAGES = ("torch", "torchvision", "pillow", "webdataset", "mosaicml-streaming", "litdata")


def photographs() -> list[Image.Image]:
    """Return the colour photographs that come with scikit-learn and scikit-image."""
    import skimage
    from sklearn.datasets import load_sample_images

    found = [Image.fromarray(image) for image in load_sample_images().images]
    for path in sorted((Path(skimage.__file__).parent / "data").glob("*.[pj][np]g")):
        image = Image.open(path)
        if image.mode == "RGB" and min(image.size) >= 256:
            found.append(image.copy())
    return found


def jpegs(count: int) -> Iterator[tuple[str, bytes]]:
    """Yield key and file of random crops of the photographs."""
    rng, sources = np.random.default_rng(0), photographs()
    for number in range(count):
        image = sources[number % len(sources)]
        side = int(rng.integers(min(image.size) // 2, min(image.size) + 1))
        left, top = (int(rng.integers(0, length - side + 1)) for length in image.size)
        file = io.BytesIO()
        image.resize((256, 256), Image.Resampling.BICUBIC, (left, top, left + side, top + side)).save(file, "JPEG", quality=90)
        yield f"c{number % 10}/{number:06d}", file.getvalue()


def recipe(floats: bool) -> Callable[[Image.Image], torch.Tensor]:
    """Return torchvision's training transform."""
    steps = [v2.RandomResizedCrop(224, interpolation=v2.InterpolationMode.BICUBIC), v2.RandomHorizontalFlip(), v2.PILToTensor()]
    return v2.Compose([*steps, *([v2.ToDtype(torch.float32, scale=True)] if floats else [])])


def epoch(batches: Iterable[torch.Tensor]) -> int:
    """Read to the end and return the number of images."""
    return sum(len(batch) for batch in batches)


def ours(folder: Path, files: list[tuple[str, bytes]]) -> Callable[[int], Callable[[], int]]:
    """Write shards; return workers -> an epoch."""
    contents, shards = Contents(), []
    for start in range(0, len(files), 1000):
        with ShardFile(folder / f"train-{start // 1000:06d}.tar") as shard:
            for key, data in files[start : start + 1000]:
                shard.add(key, {"jpg": data, "json": b"{}"})
        contents.merge(shard.contents)
        shards.append(shard.info)
    ShardIndex({"train": shards}, field_info(contents.fields, contents.field_bytes)).save(folder)
    transform = ImageTransform(size=224, jitter=0.0)

    def at(num_workers: int) -> Callable[[], int]:
        def read() -> int:
            loader = ShardDataModule(str(folder), {"image": transform}, BATCH, num_workers).train_dataloader()
            return epoch(batch.items["image"].values for batch in loader)

        return read

    return at


def image_folder(folder: Path, files: list[tuple[str, bytes]], floats: bool) -> Callable[[int], Callable[[], int]]:
    """Write a file an image; return workers -> an epoch."""
    for key, data in files:
        path = folder / f"{key}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    dataset = ImageFolder(str(folder), recipe(floats))
    return lambda workers: lambda: epoch(x for x, _ in DataLoader(dataset, BATCH, shuffle=True, num_workers=workers))


def webdataset(folder: Path, files: list[tuple[str, bytes]], floats: bool) -> Callable[[int], Callable[[], int]]:
    """Read our shards by webdataset, decoded by Pillow; return workers -> an epoch."""
    import webdataset as wds

    names = sorted(str(path) for path in folder.glob("*.tar"))
    transform = recipe(floats)

    def read(workers: int) -> int:
        data = wds.WebDataset(names, shardshuffle=100, seed=0, empty_check=False).shuffle(1000).decode("pil").to_tuple("jpg")
        batches = data.map_tuple(transform).batched(BATCH, partial=True)
        return epoch(x for (x,) in wds.WebLoader(batches, batch_size=None, num_workers=workers))

    return lambda workers: lambda: read(workers)


def mosaicml(folder: Path, files: list[tuple[str, bytes]], floats: bool) -> Callable[[int], Callable[[], int]]:
    """Write MDS shards; return workers -> an epoch."""
    from streaming import MDSWriter, StreamingDataset

    with MDSWriter(out=str(folder), columns={"jpg": "bytes"}) as writer:
        for _, data in files:
            writer.write({"jpg": data})
    transform = recipe(floats)

    class Images(StreamingDataset):
        def __getitem__(self, index: int) -> torch.Tensor:
            return transform(_open(super().__getitem__(index)["jpg"]))

    def read(workers: int) -> int:
        import streaming

        streaming.base.util.clean_stale_shared_memory()
        return epoch(DataLoader(Images(local=str(folder), shuffle=True, batch_size=BATCH), BATCH, num_workers=workers))

    return lambda workers: lambda: read(workers)


def litdata(folder: Path, files: list[tuple[str, bytes]], floats: bool) -> Callable[[int], Callable[[], int]]:
    """Write litdata's chunks; return workers -> an epoch."""
    from litdata import StreamingDataLoader, StreamingDataset
    from litdata.streaming import Cache

    cache = Cache(str(folder), chunk_bytes="20MB")
    for number, (_, data) in enumerate(files):
        cache[number] = data
    cache.done()
    cache.merge()
    transform = recipe(floats)

    class Images(StreamingDataset):
        def __getitem__(self, index: int) -> torch.Tensor:
            return transform(_open(super().__getitem__(index)))

    return lambda workers: lambda: epoch(StreamingDataLoader(Images(str(folder), shuffle=True), batch_size=BATCH, num_workers=workers))


def _open(data: bytes) -> Image.Image:
    return Image.open(io.BytesIO(data)).convert("RGB")


PEERS = {
    "ImageFolder": ("torchvision", image_folder),
    "webdataset": ("webdataset", webdataset),
    "mosaicml-streaming": ("streaming", mosaicml),
    "litdata": ("litdata", litdata),
}
"""Name -> what to import, and how to read."""


def main() -> None:
    """Write, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=5000)
    parser.add_argument("--workers", type=int, nargs="+", default=[0, 2])
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    torch.set_num_threads(1)
    root = Path(tempfile.mkdtemp())
    files = list(jpegs(options.images))
    mine = root / "shards"
    mine.mkdir()
    readers = {"multimodal": ours(mine, files)}
    peers = {
        "ImageFolder": ("torchvision", image_folder),
        "webdataset": ("webdataset", webdataset),
        "mosaicml-streaming": ("streaming", mosaicml),
    }
    for name, (package, build) in (peers | {"litdata": ("litdata", litdata)}).items():
        if importlib.util.find_spec(package) is None:
            continue
        for floats in (True, False):
            folder = mine if name == "webdataset" else root / f"{package}-{floats}"
            folder.mkdir(exist_ok=True)
            readers[f"{name}{'' if floats else ', uint8'}"] = build(folder, files, floats)
    console = Console(width=140)
    for workers in options.workers:
        candidates = {name: reader(workers) for name, reader in readers.items()}
        title = f"{options.images:,} JPEGs of 256 x 256, mean {sum(len(d) for _, d in files) / len(files) / 1000:.0f} kB, {workers} workers"
        console.print(compare(candidates, "images", options.rounds, wall=workers > 0, title=title))
    console.print(machine(PACKAGES))
    shutil.rmtree(root)


if __name__ == "__main__":
    main()
