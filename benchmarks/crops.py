"""Crops of real photographs and paintings out of three Debian packages, as shards; nothing is installed.

``python -m benchmarks.crops FOLDER`` fetches the packages with ``apt-get download`` (290 MB), unpacks them with ``dpkg -x`` into
``FOLDER/packages``, cuts 6,630 crops of 96 x 96 pixels into ``FOLDER/files`` and writes them to ``FOLDER/shards``. Train, validation and
test split hold crops of different photographs. The pictures keep their licences, which the packages name.
"""

from __future__ import annotations

import argparse
import random
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from PIL import Image, ImageStat

from benchmarks.debian import fetch
from benchmarks.demo.digits import Counts, made_once, print_counts

PACKAGES = ("plasma-workspace-wallpapers", "gnome-backgrounds", "tuxpaint-stamps-default")
SIDE = 96
OF_A_WALLPAPER, OF_A_STAMP = 150, 6
LEAST_CONTRAST = 6.0  # standard deviation of the grey values, of 255: half of a wallpaper may be one colour
LEAST_COVER = 0.6  # share of a stamp's crop that is not transparent
NO_PHOTOGRAPH = re.compile(r"/(symbols|cartoon|flags|roadsigns|seasonal)/")
VERSION = 1


def sources(unpacked: Path) -> dict[str, tuple[Path, int]]:
    """Return name -> file and number of crops; of a picture in several sizes or colours it is the first of the largest files."""
    share = unpacked / "usr" / "share"
    found: dict[str, list[Path]] = {}
    for path in sorted((share / "wallpapers").glob("*/contents/images/*")):
        found.setdefault(path.parts[-4].lower(), []).append(path)
    for path in sorted((share / "backgrounds" / "gnome").glob("*.webp")):
        found.setdefault(f"gnome_{path.stem[:-2]}", []).append(path)
    wallpapers = {name: (max(paths, key=lambda path: path.stat().st_size), OF_A_WALLPAPER) for name, paths in found.items()}
    stamps = share / "tuxpaint" / "stamps"
    photographs = [path for path in sorted(stamps.rglob("*.png")) if not NO_PHOTOGRAPH.search(str(path))]
    return wallpapers | {"stamp_" + "_".join(path.relative_to(stamps).with_suffix("").parts): (path, OF_A_STAMP) for path in photographs}


def crops(path: Path, count: int, generator: random.Random) -> Iterator[Image.Image]:
    """Yield up to ``count`` squares of any place and size of a picture, scaled down to one side; none of a picture that is too small."""
    with Image.open(path) as image:
        picture = image.convert("RGBA")
    largest = min(picture.size)
    if largest < SIDE:
        return
    made = 0
    for _ in range(10 * count):
        side = min(largest, int(SIDE * (largest / SIDE) ** generator.random()))  # all scales alike
        left, top = (generator.randint(0, length - side) for length in picture.size)
        crop = picture.crop((left, top, left + side, top + side)).resize((SIDE, SIDE), Image.Resampling.LANCZOS, reducing_gap=2.0)
        flat = Image.alpha_composite(Image.new("RGBA", crop.size, "white"), crop).convert("RGB")
        cover, contrast = ImageStat.Stat(crop.getchannel("A")).mean[0] / 255, ImageStat.Stat(flat.convert("L")).stddev[0]
        if cover >= LEAST_COVER and contrast >= LEAST_CONTRAST:
            made += 1
            yield flat
        if made == count:
            return


def cut(unpacked: Path, folder: Path) -> Counts:
    """Write ``train|val|test/<source>/<number>.png`` and return how many: of ten sources, eight train, one validates, one tests."""
    counts: Counts = {"train": {}, "val": {}, "test": {}}
    for kind in (OF_A_WALLPAPER, OF_A_STAMP):
        named = [(name, path) for name, (path, count) in sources(unpacked).items() if count == kind]
        random.Random(kind).shuffle(named)
        for number, (name, path) in enumerate(named):
            split = {0: "test", 1: "val"}.get(number % 10, "train")
            total = 0
            for crop in crops(path, kind, random.Random(name)):
                (folder / split / name).mkdir(parents=True, exist_ok=True)
                crop.save(folder / split / name / f"{total:03d}.png")
                total += 1
            label = "wallpapers" if kind == OF_A_WALLPAPER else "stamps"
            counts[split][label] = counts[split].get(label, 0) + total
    return counts


def main() -> None:
    """Fetch, cut and write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="where to: packages/, files/ and shards/")
    folder = parser.parse_args().folder
    unpacked = fetch(folder / "packages", PACKAGES)
    print_counts(made_once(folder / "files", {"what": "crops", "version": VERSION}, lambda to: cut(unpacked, to)))
    write = ["shards", "write", str(folder / "files"), "--to", str(folder / "shards"), "--split", "folders", "--workers", "0"]
    subprocess.run([sys.executable, "-m", "multimodal", *write], check=True)


if __name__ == "__main__":
    main()
