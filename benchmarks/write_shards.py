"""Write shards: ours, webdataset's ShardWriter, and the standard library's tarfile.

Each writes the same samples from memory: 5,000 of 18 kB of data and a small JSON object, in shards of 1,000. Ours hashes every byte, puts
each shard on disk before it gets its name, and gives the same bytes on every run; the others do none of that.

    python -m benchmarks.write_shards
"""

from __future__ import annotations

import argparse
import hashlib
import io
import json
import os
import random
import shutil
import tarfile
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import webdataset
from rich.console import Console

from benchmarks.side_by_side import compare, machine
from multimodal.datamodules.shards.shard_file import ShardFile

Sample = tuple[str, dict[str, bytes]]
SAMPLES_PER_SHARD = 1000


def make_samples(count: int, size: int) -> list[Sample]:
    """Return samples of random bytes around a size, seeded."""
    numbers = random.Random(0)
    return [
        (
            f"c{number % 10}/{number:06d}",
            {
                "jpg": numbers.randbytes(numbers.randrange(size * 3 // 4, size * 5 // 4)),
                "json": json.dumps({"label": f"c{number % 10}", "source": f"c{number % 10}/{number:06d}.jpg"}).encode(),
            },
        )
        for number in range(count)
    ]


def shards_of(samples: Sequence[Sample]) -> Iterator[tuple[int, Sequence[Sample]]]:
    """Yield (number of the shard, its samples)."""
    for number, start in enumerate(range(0, len(samples), SAMPLES_PER_SHARD)):
        yield number, samples[start : start + SAMPLES_PER_SHARD]


def ours(samples: Sequence[Sample], folder: Path) -> int:
    """Write by ``ShardFile``: hashed, put on disk, named when complete."""
    for number, part in shards_of(samples):
        with ShardFile(folder / f"ours-{number:06d}.tar") as shard:
            for key, fields in part:
                shard.add(key, fields)
    return len(samples)


def by_webdataset(samples: Sequence[Sample], folder: Path) -> int:
    """Write by ``ShardWriter``; bytes are passed, so nothing is encoded."""
    with webdataset.ShardWriter(str(folder / "theirs-%06d.tar"), maxcount=SAMPLES_PER_SHARD, verbose=0) as writer:
        for key, fields in samples:
            writer.write({"__key__": key, **fields})
    return len(samples)


def by_tarfile(samples: Sequence[Sample], folder: Path) -> int:
    """Write by the standard library, with its default settings."""
    for number, part in shards_of(samples):
        with tarfile.open(folder / f"plain-{number:06d}.tar", "w") as archive:
            for key, fields in part:
                for name, data in fields.items():
                    info = tarfile.TarInfo(f"{key}.{name}")
                    info.size = len(data)
                    archive.addfile(info, io.BytesIO(data))
    return len(samples)


def check_same(samples: Sequence[Sample], folder: Path) -> str:
    """Read what the three wrote, compare it with the samples, and return a line that says so.

    Raises:
        ValueError: a sample that was read is another one.
    """
    for name in ("ours", "theirs", "plain"):
        urls = [str(path) for path in sorted(folder.glob(f"{name}-*.tar"))]
        read = [
            (sample["__key__"], {field: sample[field] for field in ("jpg", "json")})
            for sample in webdataset.WebDataset(urls, shardshuffle=False)
        ]
        if read != list(samples):
            raise ValueError(f"the shards of {name} do not hold the samples that were written.")
    first = digest(folder)
    time.sleep(1.1)  # headers hold times in seconds
    ours(samples, folder)
    same = "the same" if digest(folder) == first else "other"
    return f"webdataset reads the same samples from all three; a second run of ours gives {same} bytes"


def digest(folder: Path) -> str:
    """Return one hash over our shards."""
    total = hashlib.sha256()
    for path in sorted(folder.glob("ours-*.tar")):
        total.update(path.read_bytes())
    return total.hexdigest()


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=int, default=5000, help="samples to write (default: %(default)s)")
    parser.add_argument("--size", type=int, default=18_000, help="mean bytes of a sample (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=5, help="how often each is timed (default: %(default)s)")
    parser.add_argument("--folder", help="where to write (default: a temporary folder)")
    options = parser.parse_args()
    samples, console = make_samples(options.samples, options.size), Console()
    folder = Path(tempfile.mkdtemp(dir=options.folder))
    ways = {"ours": ours, "webdataset ShardWriter": by_webdataset, "tarfile": by_tarfile}
    try:
        for wall in (False, True):
            candidates = {name: lambda way=way: way(samples, folder) for name, way in ways.items()}
            console.print(compare(candidates, "samples", options.rounds, wall, title="write shards"))
        console.print(check_same(samples, folder))
    finally:
        shutil.rmtree(folder)
    console.print(machine(["webdataset"]), f"load {os.getloadavg()[0]:.1f}")


if __name__ == "__main__":
    main()
